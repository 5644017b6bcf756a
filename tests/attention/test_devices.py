"""Every attention module on every device: the CPU's numbers, in any memory layout, to the bit when asked.

What needs no second device to compare with stands in ``tests/attention/test_contract.py``, whose tests run on
a GPU too, where there is one.
"""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from cpu_alone import cpu_alone, one_on_gpu
from drawn_attention import MODE, MODULES, VARIANTS, call, feature_map, make, with_maps

every_module = pytest.mark.parametrize("name", sorted(MODULES))
every_variant = pytest.mark.parametrize(("name", "arguments"), VARIANTS, ids=str)
variants_and_one_on_gpu = pytest.mark.parametrize(("name", "arguments"), one_on_gpu(VARIANTS, MODE), ids=str)
SIDES = (17, 19)

#: The same numbers, placed differently in memory.
LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "last two dimensions exchanged": lambda x: x.mT.contiguous().mT,
    "every other column": lambda x: torch.stack([x, -x], dim=-1).flatten(-2)[..., ::2],
    "channels of a wider map": lambda x: torch.cat([-x, x], dim=1)[:, x.shape[1] :],
}
ON_GPU = ("channels last", "every other column")


def fitting(arguments: dict) -> dict:
    """The arguments for maps of ``SIDES``: a compact mask is as large as the grid, half of them."""
    return {**arguments, "mask_size": (9, 10)} if arguments.get("compact") else arguments


def results(module: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output, gradients and statistics of a training step's two passes, all on the device of ``x``."""
    module.zero_grad()
    x = x.detach().requires_grad_()
    out = module(x)
    out.float().square().mean().backward()
    found = {"output": out.detach(), "gradient of x": x.grad}
    found |= {f"gradient of {name}": parameter.grad for name, parameter in module.named_parameters()}
    return found | {name: buffer for name, buffer in module.named_buffers() if buffer.is_floating_point()}


def agree(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], tolerance: float) -> None:
    """Each tensor agrees, relative to its largest number, and gradients that vanish to the largest of all."""
    assert found.keys() == wanted.keys()
    floor = max(value.abs().max() for key, value in wanted.items() if key.startswith("gradient"))
    for key, value in wanted.items():
        allowed = tolerance * value.abs().max() + tolerance / 10 * floor * key.startswith("gradient")
        assert found[key].shape == value.shape and found[key].dtype == value.dtype
        assert (found[key].cpu() - value).abs().max() <= allowed, key


@every_module
@pytest.mark.parametrize(
    "layout",
    [name if name in ("channels last", "every other column") else cpu_alone(name) for name in LAYOUTS],
)
@pytest.mark.parametrize(
    ("training", "dtype", "tolerance"), [(False, torch.float32, 1e-4), (True, torch.float64, 1e-9)]
)
def test_any_device_and_layout_gives_what_the_cpu_gives(name, layout, training, dtype, tolerance, device):
    module, x = make(name, "cpu", dtype).train(training), feature_map(name, "cpu", dtype, sides=SIDES)
    moved = copy.deepcopy(module).to(device)
    agree(results(moved, LAYOUTS[layout](x.to(device))), results(module, x), tolerance)


@every_variant
def test_every_mode_gives_what_the_cpu_gives(name, arguments, device):
    """The maps too."""
    module = make(name, "cpu", torch.float64, **fitting(arguments))
    x = feature_map(name, "cpu", torch.float64, sides=SIDES)
    moved = copy.deepcopy(module).to(device)
    agree(results(moved, x.to(device)), results(module, x), 1e-9)
    for method in with_maps(name, arguments):
        with torch.no_grad():
            found, wanted = call(moved, method, x.to(device)), call(module, method, x)
        assert found.device == device
        torch.testing.assert_close(found.cpu(), wanted, rtol=1e-9, atol=1e-11)


@every_variant
def test_makes_every_tensor_where_its_input_is(name, arguments):
    """Without a GPU: what is made without naming a device lands on one whose tensors have no numbers."""
    module, x = make(name, "cpu", **fitting(arguments)), feature_map(name, "cpu", sides=SIDES)
    wanted = [results(module, x), *(call(module, method, x) for method in with_maps(name, arguments))]
    with torch.device("meta"):
        found = [results(module, x), *(call(module, method, x) for method in with_maps(name, arguments))]
    torch.testing.assert_close(found, wanted)


#: What has no repeatable kernel on a GPU, by the name in PyTorch's error, and which modules train with it.
#: Not every version of PyTorch refuses all of it.
REFUSED: dict[str, Callable[[str, dict], bool]] = {
    "cumsum_cuda_kernel": lambda name, arguments: arguments.get("mode") == "concatenation",
    "max_pool3d_with_indices_backward_cuda": lambda name, arguments: bool(
        name == "NonLocal3d" and arguments.get("sub_sample")
    ),
    "upsample_bilinear2d_backward_out_cuda": lambda name, arguments: name == "PointwiseSpatialAttention",
}


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Only what repeats to the bit runs. PyTorch then also fills new tensors with NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@variants_and_one_on_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_repeats_to_the_bit_or_is_refused_by_name(name, arguments, dtype, device, deterministic):
    module = make(name, device, dtype, **fitting(arguments)).train()
    x = feature_map(name, device, dtype, sides=SIDES)
    runs = []
    try:
        runs = [results(copy.deepcopy(module), x) for _ in range(3)]
    except RuntimeError as error:
        message = str(error)
        assert device.type == "cuda" and "does not have a deterministic implementation" in message
        assert [kernel for kernel, needed in REFUSED.items() if kernel in message and needed(name, arguments)]
        return
    for key, value in runs[0].items():
        assert value.isfinite().all(), key
        assert all(torch.equal(run[key], value) for run in runs[1:]), key


#: Compiled for a GPU, which takes seconds each: one with blocks of a map, one with crosses, one of channels.
#: The others are traced only, which the CPU does as well.
COMPILED = ("PositionAttention", "CrissCrossAttention", "ChannelAttention")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name if name in COMPILED else cpu_alone(name) for name in sorted(MODULES)])
def test_compiles(name, device):
    module, x = make(name, device), feature_map(name, device)
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True, dynamic=False, backend=backend)
    wanted = {key: value.cpu() for key, value in results(module, x).items()}
    found = {key.replace("_orig_mod.", ""): value for key, value in results(compiled, x).items()}
    agree(found, wanted, 1e-4)
