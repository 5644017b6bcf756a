"""What a file gets of each function: PyTorch's operators, the same numbers, never the map of all pairs."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import danseg.ops
from danseg.ops.exporting import exporting
from danseg.ops.upsampled_confidence import upsampled_confidence
from danseg.ops.winograd_convolution import evaluated_weights

SIDE = 40
WEIGHT = torch.linspace(-1, 1, 5 * 12 * 9).view(5, 12, 3, 3)
EVALUATED = evaluated_weights(WEIGHT)
#: By function: a call of it as a function of a feature map (1, 12, H, W).
CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "attention": lambda x: danseg.ops.attention(*_flat(x), scale=0.5),
    "criss_cross_attention": lambda x: danseg.ops.criss_cross_attention(x[:, :4], x[:, 4:8], x[:, 8:]),
    "concatenation_attention": lambda x: danseg.ops.concatenation_attention(
        x[:, 0].flatten(1), x[:, 1].flatten(1), x[:, 2:].flatten(2).transpose(1, 2)
    ),
    "pointwise_spatial_attention": lambda x: danseg.ops.pointwise_spatial_attention(
        x, x[:, :3], torch.linspace(-1, 1, 105).view(35, 3), (5, 7), "distribute"
    ),
    "upsampled_argmax": lambda x: danseg.ops.upsampled_argmax(
        x, (70, 80), through=(60, 60), padding=(1, 2, 3, 4)
    ),
    "winograd_convolution": lambda x: danseg.ops.winograd_convolution(
        x, WEIGHT, evaluated=EVALUATED, padding=(1, 1)
    ),
    "upsampled_confidence": lambda x: upsampled_confidence(x[0], (70, 80), align_corners=True),
}
TRAINING_ALONE = {"upsampled_cross_entropy"}


def _flat(x: Tensor) -> list[Tensor]:
    return [part.flatten(2).transpose(1, 2) for part in (x[:, :4], x[:, 4:8], x[:, 8:])]


def feature_map(height: int, width: int) -> Tensor:
    return torch.randn(1, 12, height, width, generator=torch.Generator().manual_seed(height))


class Call(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.function = CALLS[name]

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x) + 0


def exported(name: str, form: str) -> nn.Module:
    if form == "trace":
        return torch.jit.trace(Call(name), feature_map(6, 10), check_trace=False)
    sizes = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    return torch.export.export(Call(name), (feature_map(6, 10),), dynamic_shapes=(sizes,)).module()


def operators(module: nn.Module, form: str) -> str:
    if form == "trace":
        return str(module.inlined_graph)
    return "".join(str(one.graph) for one in module.modules() if hasattr(one, "graph"))


every_form = pytest.mark.parametrize("form", ["trace", pytest.param("export", marks=pytest.mark.slow)])
every_function = pytest.mark.parametrize("name", CALLS)


def test_every_function_is_here():
    assert set(danseg.ops.__all__) - {"concatenation"} <= set(CALLS) | TRAINING_ALONE


@every_form
@every_function
def test_computes_the_same_without_danseg_at_another_size(name, form):
    module, x = exported(name, form), feature_map(17, 23)
    assert "danseg::" not in operators(module, form) and "danseg." not in operators(module, form)
    wanted = CALLS[name](x)
    found = module(x)
    assert found.dtype == wanted.dtype
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def largest(function: Callable[[], object]) -> int:
    """The number of elements of the largest tensor that an operator reads."""
    with torch.autograd.profiler.profile(record_shapes=True) as profile:
        function()
    return max(math.prod(shape) for event in profile.function_events for shape in event.input_shapes if shape)


@every_form
@every_function
def test_never_holds_the_map_of_all_pairs(name, form):
    module, x = exported(name, form), feature_map(SIDE, SIDE)
    assert 12 * SIDE**2 <= largest(lambda: module(x)) < SIDE**4 / 5


def test_a_map_of_all_pairs_would_be_seen():
    query, key, value = _flat(feature_map(SIDE, SIDE))
    assert largest(lambda: (query @ key.transpose(1, 2)).softmax(2) @ value) == SIDE**4


def test_it_is_known_when_a_model_is_exported():
    class Known(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + float(exporting())

    x = torch.zeros(2)
    assert not exporting() and Known()(x).sum() == 0
    assert torch.compile(Known(), fullgraph=True, backend="eager")(x).sum() == 0
    assert torch.jit.trace(Known(), x)(x).sum() == 2
    for strict in (False, True):
        assert torch.export.export(Known(), (x,), strict=strict).module()(x).sum() == 2
    assert not exporting()
