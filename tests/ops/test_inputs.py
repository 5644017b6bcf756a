"""Every function of danseg.ops refuses inputs that do not fit, and names them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from danseg import ops

F32 = torch.float32
#: The function, and what fits: shapes and dtypes.
CASES: dict[str, tuple[Callable, list[tuple[tuple[int, ...], torch.dtype]]]] = {
    "attention": (ops.attention, [((2, 4, 3), F32), ((2, 5, 3), F32), ((2, 5, 6), F32)]),
    "criss_cross_attention": (
        ops.criss_cross_attention,
        [((2, 3, 4, 5), F32), ((2, 3, 4, 5), F32), ((2, 6, 4, 5), F32)],
    ),
    "pointwise_spatial_attention": (
        lambda x, hidden, weight: ops.pointwise_spatial_attention(x, hidden, weight, (3, 5), "collect"),
        [((2, 3, 4, 5), F32), ((2, 7, 4, 5), F32), ((15, 7), F32)],
    ),
    "concatenation_attention": (
        ops.concatenation_attention,
        [((2, 4), F32), ((2, 5), F32), ((2, 5, 6), F32)],
    ),
    "upsampled_cross_entropy": (
        ops.upsampled_cross_entropy,
        [((2, 3, 4, 5), F32), ((2, 8, 9), torch.int64)],
    ),
    "winograd_convolution": (
        lambda x, weight, evaluated: ops.winograd_convolution(x, weight, evaluated=evaluated),
        [((2, 3, 4, 5), F32), ((4, 3, 3, 3), F32), ((36, 4, 3), F32)],
    ),
    "upsampled_argmax": (lambda logits: ops.upsampled_argmax(logits, (8, 9)), [((2, 3, 4, 5), F32)]),
}
WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "one dimension more": lambda t: t[..., None],
    "one dimension less": lambda t: t[0],
    "another batch": lambda t: torch.cat([t, t]),
    "another size": lambda t: torch.cat([t, t], dim=1),
    "other numbers": lambda t: t.long() if t.is_floating_point() else t.float(),
    "complex": lambda t: t + 0j,
    "another precision": lambda t: t.double(),
    "another device": lambda t: t.to("meta"),
}
#: What fits all the same.
FITS = {
    ("upsampled_argmax", 0): {"another batch", "another size", "another precision", "another device"},
    ("upsampled_cross_entropy", 0): {"another size", "another precision"},
    ("upsampled_cross_entropy", 1): {"another size"},
    ("pointwise_spatial_attention", 0): {"another size", "another precision"},
    ("pointwise_spatial_attention", 1): {"another precision"},  # as under autocast
    ("pointwise_spatial_attention", 2): {"another precision"},
    ("attention", 0): {"another size"},
    ("winograd_convolution", 0): {"another batch"},
    ("concatenation_attention", 0): {"another size"},
    ("criss_cross_attention", 2): {"another size"},
}


def test_there_is_a_case_for_every_function():
    assert {getattr(ops, name).__name__ for name in ops.__all__} == set(CASES)


PLACES = [(name, place) for name, (_, inputs) in CASES.items() for place in range(len(inputs))]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(("name", "place"), PLACES)
def test_what_does_not_fit_is_named(name, place, wrong, device):
    function, wanted = CASES[name]
    inputs = [torch.zeros(shape, dtype=dtype, device=device) for shape, dtype in wanted]
    function(*inputs)
    inputs[place] = WRONG[wrong](inputs[place])
    if wrong in FITS.get((name, place), ()):
        function(*inputs)
        return
    with pytest.raises(ValueError) as error:
        function(*inputs)
    message, given = str(error.value), inputs[place]
    assert any(str(fact) in message for fact in (tuple(given.shape), given.dtype, f"on {given.device}"))
