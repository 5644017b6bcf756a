"""Compare danseg's attention modules with mmseg's and mmcv's, in time and memory, with equal weights.

    python -m benchmarks.attention                                  # everything, about twelve minutes
    python -m benchmarks.attention --cases "position attention"     # one module
    python -m benchmarks.attention --quick                          # small sizes, two minutes
    python -m benchmarks.attention --markdown benchmarks/results/NAME.json

docs/performance.md explains what is measured, and why.
"""

import importlib.util
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import report
from benchmarks.arguments import parse_size
from benchmarks.command import Job, carry_out, set_up
from benchmarks.measure import (
    MeasurementError,
    alternate,
    available_memory,
    extra_peak,
    in_subprocess,
    product_rate,
)
from benchmarks.report import Promise, Row, size_name
from danseg.attention import (
    CompactGeneralizedNonLocal,
    CrissCrossAttention,
    DisentangledNonLocal2d,
    InterlacedSparseAttention,
    NonLocal2d,
    PointwiseSpatialAttention,
    PositionAttention,
)
from danseg.errors import UserError, command_line
from danseg.ops import attention

FORWARD, TRAINING = "forward", "training"
Sizes = dict[str, list[tuple[int, int]]]
# Sides at output stride 8: 65 and 97 come from crops of 513 and 769, 64x128 from 512x1024, 128x256 from whole
# frames of 1024x2048.
WHOLE_FRAMES = {FORWARD: [(65, 65), (97, 97), (128, 256)], TRAINING: [(65, 65), (97, 97)]}
THREE_SIZES = {mode: [(49, 49), (65, 65), (97, 97)] for mode in (FORWARD, TRAINING)}
QUICK = {mode: [(33, 33), (48, 64)] for mode in (FORWARD, TRAINING)}
# Large enough that libraries set up what they keep (threads, code, packing buffers) before memory is read.
WARM_UP_SIZE = (33, 32)


@dataclass(frozen=True)
class Case:
    """One module in two implementations that share parameter names.

    Attributes:
        name: what the tables call it.
        theirs: builds the peer's module; None if there is no such module, ``cannot`` says why.
        ours: builds danseg's.
        channels: of the input feature map.
        operations: a function from height and width to the operations of those matrix products that no exact
            implementation can avoid in the forward pass; training takes three times as many.
        their_bytes: a function from positions and mode to the memory that the peer's module needs, roughly.
            A size that cannot fit is skipped, with a note that says so.
        sizes: what is measured by default.
        quick: what is measured with ``--quick``.
        cannot: modes that the peer's module does not have, with the reason.
        warm_up: a size for the call before memory is read.
    """

    name: str
    theirs: Callable[[], nn.Module] | None
    ours: Callable[[], nn.Module]
    channels: int
    operations: Callable[[int, int], float]
    their_bytes: Callable[[int, str], float]
    sizes: Sizes
    quick: Sizes = field(default_factory=lambda: QUICK)
    cannot: dict[str, str] = field(default_factory=dict)
    warm_up: tuple[int, int] = WARM_UP_SIZE


CHANNELS, QUERY_CHANNELS, INTER_CHANNELS = 512, 64, 256


def _mmseg_position_attention() -> nn.Module:
    from mmseg.models.decode_heads.da_head import PAM

    return PAM(CHANNELS, QUERY_CHANNELS)


def _danseg_position_attention() -> nn.Module:
    return PositionAttention(CHANNELS, QUERY_CHANNELS)


def _mmcv_non_local(mode: str) -> nn.Module:
    from mmcv.cnn import NonLocal2d as MmcvNonLocal2d

    return MmcvNonLocal2d(CHANNELS, mode=mode, norm_cfg=dict(type="BN"))


def _danseg_non_local(mode: str) -> nn.Module:
    return NonLocal2d(CHANNELS, mode=mode)


def _mmcv_criss_cross() -> nn.Module:
    # Load the file by itself: it is plain PyTorch, but its package needs compiled operators.
    import mmcv
    from mmengine.registry import MODELS

    path = Path(mmcv.__file__).with_name("ops") / "cc_attention.py"
    if not path.is_file():
        raise UserError(f"this mmcv has no {path.name}: leave criss-cross attention out with --cases")
    registered = MODELS.module_dict.pop("CrissCrossAttention", None)  # each load registers it
    spec = importlib.util.spec_from_file_location("mmcv_cc_attention", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if registered is not None:
        MODELS.module_dict["CrissCrossAttention"] = registered
    return module.CrissCrossAttention(CHANNELS)


def _danseg_criss_cross() -> nn.Module:
    return CrissCrossAttention(CHANNELS, recurrence=1)


class _Operator(nn.Module):
    """The attention operator alone; query, key and value are slices of the feature map."""

    def __init__(self, attend: Callable[..., Tensor]) -> None:
        super().__init__()
        self.attend = attend

    def forward(self, x: Tensor) -> Tensor:
        value = x.flatten(2).mT  # (B, N, C)
        query, key = value[..., :QUERY_CHANNELS], value[..., QUERY_CHANNELS : 2 * QUERY_CHANNELS]
        out = self.attend(query, key, value, scale=QUERY_CHANNELS**-0.5)
        return out.mT.unflatten(2, x.shape[2:])


def _plain_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """The attention that mmseg's modules compute between their convolutions."""
    return (query * scale @ key.mT).softmax(dim=-1) @ value


def _mmseg_disentangled() -> nn.Module:
    from mmseg.models.decode_heads.dnl_head import DisentangledNonLocal2d as MmsegDisentangledNonLocal2d

    return MmsegDisentangledNonLocal2d(CHANNELS, norm_cfg=dict(type="BN"), temperature=0.05)


def _projections(*widths: int) -> int:
    """Operations per position of 1x1 convolutions between ``CHANNELS`` and each of ``widths``."""
    return 2 * CHANNELS * sum(widths)


def _operator_operations(height: int, width: int) -> float:
    return 2.0 * (height * width) ** 2 * (QUERY_CHANNELS + CHANNELS)


def _position_operations(height: int, width: int) -> float:
    projections = _projections(QUERY_CHANNELS, QUERY_CHANNELS, CHANNELS)
    return _operator_operations(height, width) + height * width * projections


def _softmax_operations(height: int, width: int, query_channels: int) -> float:
    n = height * width
    embeddings = () if query_channels == CHANNELS else (INTER_CHANNELS, INTER_CHANNELS)
    return 2.0 * n**2 * (query_channels + INTER_CHANNELS) + n * _projections(
        INTER_CHANNELS, INTER_CHANNELS, *embeddings
    )


def _dot_product_operations(height: int, width: int) -> float:
    return height * width * (4.0 * INTER_CHANNELS**2 + _projections(*[INTER_CHANNELS] * 4))


def _concatenation_operations(height: int, width: int) -> float:
    """Operations of the two convolutions around the values; the rest is sorting and adding."""
    return float(height * width * _projections(INTER_CHANNELS, INTER_CHANNELS))


def _criss_cross_operations(height: int, width: int) -> float:
    on_the_cross = 2 * (height + width) * (QUERY_CHANNELS + CHANNELS)
    return float(height * width * (on_the_cross + _projections(QUERY_CHANNELS, QUERY_CHANNELS, CHANNELS)))


def _counted_operations(ours: Callable[[], nn.Module], height: int, width: int) -> float:
    """Operations of danseg's own module, counted with the operators' formulas."""
    with FakeTensorMode(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        ours().eval()(torch.empty(1, CHANNELS, height, width))
    return float(counter.get_total_flops())


def _plain_map_bytes(positions: int, mode: str) -> float:
    """Bytes of the map before and after softmax, in training also their gradients, and a few feature maps."""
    maps = 2 if mode == FORWARD else 4
    return 4.0 * (maps * positions**2 + 10 * positions * CHANNELS)


def _concatenated_bytes(positions: int, mode: str) -> float:
    """Bytes of queries and keys repeated for every pair, and of their concatenation."""
    return 4.0 * 4 * INTER_CHANNELS * positions**2


def _feature_bytes(positions: int, mode: str) -> float:
    return 4.0 * 20 * positions * CHANNELS


def _case_without_peer(name: str, module: type[nn.Module], reason: str) -> Case:
    ours = partial(module, CHANNELS)
    return Case(
        name=name,
        theirs=None,
        ours=ours,
        channels=CHANNELS,
        operations=partial(_counted_operations, ours),
        their_bytes=_feature_bytes,
        sizes=WHOLE_FRAMES,
        cannot={FORWARD: reason, TRAINING: reason},
    )


def _non_local_case(mode: str, **attributes) -> Case:
    return Case(
        name=f"non-local, {mode}",
        theirs=partial(_mmcv_non_local, mode),
        ours=partial(_danseg_non_local, mode),
        channels=CHANNELS,
        **{"their_bytes": _plain_map_bytes, "sizes": THREE_SIZES, **attributes},
    )


CASES = {
    case.name: case
    for case in [
        Case(
            name="position attention",
            theirs=_mmseg_position_attention,
            ours=_danseg_position_attention,
            channels=CHANNELS,
            operations=_position_operations,
            their_bytes=_plain_map_bytes,
            sizes=WHOLE_FRAMES,
        ),
        Case(
            name="attention operator",
            theirs=partial(_Operator, _plain_attention),
            ours=partial(_Operator, attention),
            channels=CHANNELS,
            operations=_operator_operations,
            their_bytes=_plain_map_bytes,
            sizes=WHOLE_FRAMES,
        ),
        _non_local_case(
            "embedded_gaussian", operations=partial(_softmax_operations, query_channels=INTER_CHANNELS)
        ),
        _non_local_case("gaussian", operations=partial(_softmax_operations, query_channels=CHANNELS)),
        _non_local_case("dot_product", operations=_dot_product_operations),
        _non_local_case(
            "concatenation",
            operations=_concatenation_operations,
            their_bytes=_concatenated_bytes,
            sizes={FORWARD: [(32, 32), *THREE_SIZES[FORWARD]], TRAINING: THREE_SIZES[TRAINING]},
            quick={FORWARD: [(12, 16), (48, 64)], TRAINING: [(48, 64)]},
            cannot={TRAINING: "mmcv's cannot be trained: it divides the output of its ReLU in place"},
            warm_up=(8, 8),
        ),
        Case(
            name="criss-cross attention",
            theirs=_mmcv_criss_cross,
            ours=_danseg_criss_cross,
            channels=CHANNELS,
            operations=_criss_cross_operations,
            their_bytes=_feature_bytes,
            sizes={
                mode: [(33, 33), (65, 65), (97, 97), (64, 128), (128, 256)] for mode in (FORWARD, TRAINING)
            },
        ),
        Case(
            name="disentangled non-local",
            theirs=_mmseg_disentangled,
            ours=partial(DisentangledNonLocal2d, CHANNELS),
            channels=CHANNELS,
            operations=partial(_softmax_operations, query_channels=INTER_CHANNELS),
            their_bytes=_plain_map_bytes,
            sizes={mode: [(65, 65), (97, 97)] for mode in (FORWARD, TRAINING)},
        ),
        _case_without_peer(
            "point-wise spatial attention",
            PointwiseSpatialAttention,
            "mmseg's needs an operator of mmcv that has to be compiled",
        ),
        _case_without_peer(
            "interlaced sparse attention",
            InterlacedSparseAttention,
            "mmseg has it as a part of its head alone, which benchmarks.heads compares with",
        ),
        _case_without_peer(
            "compact generalized non-local", CompactGeneralizedNonLocal, "mmseg and mmcv have none"
        ),
    ]
}
# What docs/performance.md promises.
PROMISES = {
    ("position attention", FORWARD, "97x97"): Promise(time=0.9, memory=0.12),
    ("position attention", TRAINING, "97x97"): Promise(time=1.0, memory=0.25),
    ("position attention", FORWARD, "128x256"): Promise(time=0.7, memory=0.04),
    ("attention operator", FORWARD, "97x97"): Promise(product_share=0.75),
    ("attention operator", FORWARD, "128x256"): Promise(product_share=0.75),
    ("non-local, embedded_gaussian", FORWARD, "97x97"): Promise(time=0.9, memory=0.25),
    ("non-local, embedded_gaussian", TRAINING, "97x97"): Promise(time=0.9, memory=0.25),
    ("non-local, dot_product", FORWARD, "97x97"): Promise(time=0.25),
    ("non-local, dot_product", TRAINING, "97x97"): Promise(time=0.25),
    ("non-local, concatenation", FORWARD, "32x32"): Promise(time=0.02),
    **{
        ("criss-cross attention", mode, size): Promise(time=0.9, memory=1.0)
        for mode in (FORWARD, TRAINING)
        for size in ("97x97", "64x128")
    },
}


def _modules(case: Case, device: torch.device, sides: Sequence[str]) -> list[nn.Module]:
    """The modules of the named sides ("theirs", "ours"), with equal weights.

    Parameters that start at zero, which would hide the attention, are drawn at random.
    """
    torch.manual_seed(0)
    first = case.theirs() if case.theirs else case.ours()
    with torch.no_grad():
        for parameter in first.parameters():
            if parameter.numel() == 1:
                parameter.fill_(0.7)
            elif not parameter.any():
                parameter.normal_(0.5, 0.3)
    modules = {"theirs" if case.theirs else "ours": first}
    if "ours" in sides and "ours" not in modules:
        modules["ours"] = case.ours()
        modules["ours"].load_state_dict(first.state_dict())
    return [modules[side].to(device) for side in sides]


def _inputs(
    case: Case, size: tuple[int, int], mode: str, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """The feature map and, in training, the gradient that comes back from the layers above."""
    generator = torch.Generator().manual_seed(1)
    shape = (1, case.channels, *size)
    x = torch.randn(shape, generator=generator).to(device)
    if mode == FORWARD:
        return x, None
    return x.requires_grad_(), torch.randn(shape, generator=generator).to(device)


def _step(module: nn.Module, x: Tensor, grad: Tensor | None) -> list[Tensor]:
    """One forward pass, and with ``grad`` one backward pass: the output and all gradients."""
    module.train(grad is not None)
    if grad is None:
        with torch.no_grad():
            return [module(x)]
    out = module(x)
    return [out.detach(), *torch.autograd.grad(out, [x, *module.parameters()], grad)]


def measure_memory(name: str, side: str, mode: str, size: tuple[int, int], device_type: str) -> int:
    """Extra peak bytes of one implementation; to be called in a process of its own."""
    case, device = CASES[name], torch.device(device_type)
    [module] = _modules(case, device, [side])
    _step(module, *_inputs(case, case.warm_up, mode, device))
    x, grad = _inputs(case, size, mode, device)
    return extra_peak(lambda: _step(module, x, grad), device)


def measure_time(
    name: str, sides: Sequence[str], mode: str, size: tuple[int, int], device_type: str, repeats: int
) -> tuple[list[list[float]], float, float | None]:
    """Seconds of each side's rounds, the product rate and the largest relative difference.

    The difference is None when only one side is given.
    """
    case, device = CASES[name], torch.device(device_type)
    modules = _modules(case, device, sides)
    x, grad = _inputs(case, size, mode, device)
    rate = product_rate(device)
    results = [_step(module, x, grad) for module in modules]  # The warm-up, too.
    error = _largest_difference(*results) if len(results) == 2 else None
    del results
    rounds = alternate([lambda m=module: _step(m, x, grad) for module in modules], repeats, device)
    return rounds, max(rate, product_rate(device)), error


def _largest_difference(theirs: list[Tensor], ours: list[Tensor]) -> float:
    """Largest relative difference of the outputs, the input's gradients, and the parameters' gradients.

    The gradients of all parameters are compared as one vector. The key's bias shifts all energies of a
    row alike, so its gradient is 0 up to rounding and has no magnitude of its own to compare with.
    """
    pairs = list(zip(theirs[:2], ours[:2], strict=True))
    if theirs[2:]:
        pairs.append(tuple(torch.cat([grad.flatten() for grad in side[2:]]) for side in (theirs, ours)))
    return max(_relative_difference(*pair) for pair in pairs)


def _relative_difference(reference: Tensor, other: Tensor) -> float:
    """Largest difference over largest magnitude; NaN, not 0, where either tensor holds one."""
    return ((reference - other).abs().max() / reference.abs().max().clamp_min(1e-30)).item()


def compare(case: Case, mode: str, size: tuple[int, int], device: torch.device, repeats: int) -> list[Row]:
    """One row, for one case at one size; what cannot be measured stays empty, with a note."""
    row = Row(case.name, mode, size_name(size), positions=math.prod(size))
    sides = ["theirs", "ours"]
    needed, available = case.their_bytes(row.positions, mode), available_memory(device)
    if mode in case.cannot:
        sides = ["ours"]
        row.note = case.cannot[mode]
    elif available is not None and needed > 0.9 * available:
        sides = ["ours"]
        row.note = f"mmseg skipped: it needs about {_gib(needed)}, of which {_gib(available)} are available"
    for side in sides:
        try:
            peak = in_subprocess(measure_memory, case.name, side, mode, size, device.type)
        except MeasurementError as error:
            row.note = f"memory of {side}: {error}"
            continue
        setattr(row, f"{side}_extra_bytes", peak)
    if row.theirs_extra_bytes and row.ours_extra_bytes:
        row.memory_ratio = row.ours_extra_bytes / row.theirs_extra_bytes
    try:
        rounds, row.product_rate, row.max_relative_error = in_subprocess(
            measure_time, case.name, sides, mode, size, device.type, repeats
        )
    except MeasurementError as error:
        row.note = f"time: {error}"
        return [row]
    row.floor_seconds = _operations(case, mode, size) / row.product_rate
    for side, seconds in zip(sides, rounds, strict=True):
        setattr(row, f"{side}_rounds", seconds)
        setattr(row, f"{side}_seconds", statistics.median(seconds))
    if row.theirs_seconds:
        row.time_ratio = row.ours_seconds / row.theirs_seconds
    return [row]


def _operations(case: Case, mode: str, size: tuple[int, int]) -> float:
    """Operations of one step: for each product, the backward pass has two of the same size."""
    return case.operations(*size) * (1 if mode == FORWARD else 3)


def jobs(sizes: dict[str, Sizes], device: torch.device, repeats: int) -> list[Job]:
    """A job for each case, mode and size, with its share of the time estimated from its operations."""
    return [
        (
            f"{name}, {mode}, {size_name(size)}",
            _operations(CASES[name], mode, size) + 1e10,
            partial(compare, CASES[name], mode, size, device, repeats),
        )
        for name, modes in sizes.items()
        for mode in modes
        for size in modes[mode]
    ]


def _gib(amount: float) -> str:
    return f"{amount / 2**30:.1f} GiB"


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the results."""
    parser = report.parser("attention", __doc__.split("\n")[0])
    sizes = {"type": parse_size, "nargs": "+", "metavar": "HxW"}
    parser.add_argument("--cases", nargs="+", choices=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--sizes", **sizes, help="feature maps (default: each case's own)")
    parser.add_argument("--training-sizes", **sizes, help="feature maps for training (default: --sizes)")
    args = parser.parse_args(argv)
    if args.markdown:
        print(report.markdown(report.load(args.markdown), PROMISES))
        return
    device, repeats = set_up(args)
    chosen = {}
    for name in args.cases or CASES:
        default = CASES[name].quick if args.quick else CASES[name].sizes
        chosen[name] = {
            FORWARD: args.sizes or default[FORWARD],
            TRAINING: args.training_sizes or args.sizes or default[TRAINING],
        }
    carry_out("attention", jobs(chosen, device, repeats), PROMISES, args, device, repeats)


if __name__ == "__main__":
    main()
