"""The attention modules that benchmarks.attention measures, danseg's and the peers', with equal weights."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from danseg.attention import (
    CompactGeneralizedNonLocal,
    CrissCrossAttention,
    DisentangledNonLocal2d,
    InterlacedSparseAttention,
    NonLocal2d,
    PointwiseSpatialAttention,
    PositionAttention,
)
from danseg.errors import UserError
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


def plain_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
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
            theirs=partial(_Operator, plain_attention),
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


def equal_modules(case: Case, device: torch.device, sides: Sequence[str]) -> list[nn.Module]:
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


def inputs(
    case: Case, size: tuple[int, int], mode: str, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """The feature map and, in training, the gradient that comes back from the layers above."""
    generator = torch.Generator().manual_seed(1)
    shape = (1, case.channels, *size)
    x = torch.randn(shape, generator=generator).to(device)
    if mode == FORWARD:
        return x, None
    return x.requires_grad_(), torch.randn(shape, generator=generator).to(device)


def step(module: nn.Module, x: Tensor, grad: Tensor | None) -> list[Tensor]:
    """One forward pass, and with ``grad`` one backward pass: the output and all gradients."""
    module.train(grad is not None)
    if grad is None:
        with torch.no_grad():
            return [module(x)]
    out = module(x)
    return [out.detach(), *torch.autograd.grad(out, [x, *module.parameters()], grad)]


def operations_of(case: Case, mode: str, size: tuple[int, int]) -> float:
    """Operations of one step: for each product, the backward pass has two of the same size."""
    return case.operations(*size) * (1 if mode == FORWARD else 3)
