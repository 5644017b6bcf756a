"""Maps on a picture whose answer is known: weights set by hand make a network attend to one marked cell.

The picture has three marks, and a fourth channel of ones. ``KNOWN`` has for every module that shows maps what
its weights are set to, and for each view the cells that then have the largest value of the map, seen from the
cell that asks. A module, a head or a view that is not in it fails.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from danseg.attention.non_local import MODES
from danseg.attention.parts.views import ShowsAttention
from danseg.visualization.attention_recording import record_attention
from drawn_attention import MODULES, make
from drawn_head import HEADS, build, plain

Cells = frozenset[tuple[int, ...]]

# By the number of spatial dimensions: the size, and where the marks are. The marked cell is in another row,
# column and block than the one that asks.
SIZE = {1: (35,), 2: (5, 7), 3: (2, 5, 7)}
MARKED = {1: (12,), 2: (1, 5), 3: (1, 1, 5)}
ASKING = {1: (16,), 2: (2, 2), 3: (0, 2, 2)}
OTHER = {1: (28,), 2: (4, 0), 3: (0, 4, 0)}

# The picture's channels. The cell that asks is a little like the marked one: some blocks compare features.
MARK, ASK, ONE, OTHER_MARK = range(4)
SHARP = 20.0


def picture(dims: int) -> torch.Tensor:
    x = torch.zeros(1, 4, *SIZE[dims], dtype=torch.float64)
    x[:, ONE] = 1
    for channel, cells, value in (
        (MARK, MARKED, 3),
        (MARK, ASKING, 1),
        (ASK, ASKING, 1),
        (OTHER_MARK, OTHER, 2),
    ):
        x[(slice(None), channel, *cells[dims])] = value
    return x


def cells(*places: dict[int, tuple[int, ...]] | tuple[int, int]) -> Callable[[int], Cells]:
    return lambda dims: frozenset(one[dims] if isinstance(one, dict) else one for one in places)


def all_cells(dims: int) -> Cells:
    return frozenset(map(tuple, torch.ones(SIZE[dims]).nonzero().tolist()))


marked, asking, other = cells(MARKED), cells(ASKING), cells(OTHER)
cross = cells(*((row, 2) for row in range(5)), *((2, column) for column in range(7)))
corners = cells((1, 2), (2, 5))  # of the crosses of the cell that asks and of the marked one


class Known(NamedTuple):
    """A module with arguments, how its weights are set, and the largest cells of each map of each view."""

    arguments: dict[str, Any]
    set_weights: Callable[[Any], object]
    largest: dict[str, Callable[[int], Cells] | list[Callable[[int], Cells]]]


def wire(layer: Any, *taps: tuple[int, int, float]) -> None:
    """Set a convolution to (output channel, input channel, weight) at its kernel's centre, and else to 0."""
    conv = getattr(layer, "conv", layer)
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    for out, given, weight in taps:
        conv.weight.data[(out, given, *(side // 2 for side in conv.kernel_size))] = weight


def pass_on(layers: Iterable[Any]) -> None:
    for layer in layers:
        wire(layer, *((channel, channel, 1.0) for channel in range(4)))


def position(module: Any) -> None:
    wire(module.query_project, (0, ASK, SHARP))
    wire(module.key_project, (0, MARK, 1))


def non_local(module: Any) -> None:
    if module.mode == "gaussian":
        return  # it compares the features themselves
    wire(module.theta, (0, ASK, SHARP))
    wire(module.phi, (0, MARK, 1))
    if module.mode == "concatenation":
        wire(module.concat_project, (0, 2, 1))  # the first channel of φ


def disentangled(module: Any) -> None:
    non_local(module)
    wire(module.conv_mask, (0, MARK, SHARP))


def criss_cross(module: Any) -> None:
    """A position attends to the mark where its cross has it, and takes it over; else to its whole cross."""
    wire(module.query_conv, (0, ONE, SHARP))
    wire(module.key_conv, (0, MARK, 1), (0, ASK, -1))
    wire(module.value_conv, (MARK, MARK, 1))
    nn.init.ones_(module.gamma.scale)


def pointwise(module: Any) -> None:
    """The mask of the cell that asks points at the marked one, or that of the marked one at the cell."""
    (row, column), (other_row, other_column) = ASKING[2], MARKED[2]
    down, right = other_row - row, other_column - column
    pointers = {"collect": (ASK, down, right), "distribute": (MARK, -down, -right)}
    for suffix, kind in zip(("", "_p"), module._kinds(), strict=False):
        reduce, (hidden, mask) = getattr(module, f"reduce{suffix}"), getattr(module, f"attention{suffix}")
        pass_on((reduce, hidden))
        channel, down, right = pointers[kind]
        height, width = module.mask_size
        wire(mask, ((down + height // 2) * width + right + width // 2, channel, SHARP))


def interlaced(module: Any) -> None:
    """The far stage brings the mark to its place in every block; there the near stage finds it."""
    for relation in (module.global_relation, module.local_relation):
        for project in (relation.query_project, relation.key_project):
            pass_on(project[:1])
        wire(relation.query_project[1], (0, ONE, SHARP))
        wire(relation.key_project[1], (0, MARK, 1), (0, ASK, -1))
        wire(relation.value_project, (MARK, MARK, 1), (ONE, ONE, 1))
        pass_on((relation.output_project,))


INTERLACED: dict[str, Any] = {
    "": marked,
    # The places of the cell that asks in the blocks of 2x3: the map is padded to 6x9, a column on its left.
    "far": cells(*((row, column) for row in (0, 2, 4) for column in (2, 5))),
    "near": cells((3, 2)),  # the marked cell's place in the block of the cell that asks
}


def multi_head(module: Any) -> None:
    wire(module.query_project, (0, ASK, SHARP), (2, ASK, SHARP))
    wire(module.key_project, (0, MARK, 1), (2, OTHER_MARK, 1))


def compact(module: Any) -> None:
    wire(module.theta, (0, ASK, 3), (1, ASK, 3))
    wire(module.phi, (0, MARK, 1), (1, OTHER_MARK, 1))


def double(module: Any) -> None:
    wire(module.gather_project, (0, MARK, SHARP), (1, OTHER_MARK, SHARP))
    wire(module.distribute_project, (0, ASK, SHARP), (1, OTHER_MARK, SHARP))


def global_context(module: Any) -> None:
    if module.pooling_type == "att":
        wire(module.conv_mask, (0, MARK, 1))


def cbam(module: Any) -> None:
    for layer in (module.mlp[0], module.mlp[2]):
        wire(layer)
    wire(module.spatial_gate.conv, (0, 0, 1))  # the maximum over channels


def bam(module: Any) -> None:
    for layer in (layer for branch in (module.channel, module.spatial) for layer in branch):
        if isinstance(layer, nn.Conv2d):
            wire(layer, *([(0, 0, 1.0)] if layer in module.spatial else []))


def triplet(module: Any) -> None:
    for gate in (module.cw, module.hc):
        wire(gate.conv)
    wire(module.hw.conv, (0, 0, 1))


def branches(convs: Callable[[Any], Any], module: Any) -> None:
    """The first branch passes on the mark alone, the second one the other mark."""
    first, second = convs(module)
    wire(first, (0, MARK, 1), (0, ASK, -1))
    wire(second, (0, OTHER_MARK, 1))


def splits(module: Any) -> None:
    wire(module.conv, (0, MARK, 1), (0, ASK, -1), (4, OTHER_MARK - 2, 1))  # of the second half of the input


def pyramid_dual(module: Any) -> None:
    wire(module.conv_1, (0, MARK, 1), (1, ASK, 1))
    wire(module.conv_2, (0, OTHER_MARK, 1), (1, ASK, 1))
    wire(module.dual.pam.query_project, (0, 1, SHARP))
    wire(module.dual.pam.key_project, (0, 0, 1))


_TWO = dict(kernel_sizes=(3, 5), groups=(1, 1))
_POINTWISE = dict(channels=4, mask_size=(9, 13), shrink_factor=1, norm_layer=None)
_POINTWISE_HEAD = dict(mask_size=(9, 13), shrink_factor=1)
_KINDS = ("collect", "distribute")
_BOTH = {"": marked, "collect": marked, "distribute": marked}
_WHERE = {"where": [marked, other]}

KNOWN: dict[str, list[Known]] = {
    "PositionAttention": [Known({}, position, {"": marked})],
    **{
        name: [Known(dict(mode=mode), non_local, {"": marked}) for mode in MODES]
        for name in ("NonLocal1d", "NonLocal2d", "NonLocal3d")
    },
    "DisentangledNonLocal2d": [
        Known(dict(use_out=use_out), disentangled, {"": marked, "unary": [marked], "sum": marked})
        for use_out in (True, False)
    ],
    "CrissCrossAttention": [
        Known(dict(recurrence=1), criss_cross, {"": cross}),
        Known({}, criss_cross, {"": marked, "recurrence 1": cross, "recurrence 2": corners}),
    ],
    "PointwiseSpatialAttention": [
        Known(_POINTWISE, pointwise, _BOTH),
        *(Known(dict(_POINTWISE, psa_type=k), pointwise, {"": marked}) for k in _KINDS),
    ],
    "PSANetHead": [
        Known(_POINTWISE_HEAD, pointwise, _BOTH),
        *(Known(dict(_POINTWISE_HEAD, psa_type=k), pointwise, {"": marked}) for k in _KINDS),
    ],
    "InterlacedSparseAttention": [
        Known(dict(isa_channels=4, down_factor=(2, 3), norm_layer=None), interlaced, INTERLACED)
    ],
    "ISANetHead": [
        Known(
            dict(isa_channels=4, down_factor=(2, 3)),
            lambda head: (pass_on((head.in_conv,)), interlaced(head)),
            INTERLACED,
        )
    ],
    "MultiHeadSelfAttention": [
        Known(dict(heads=2), multi_head, {"": cells(MARKED, OTHER), "head 1": marked, "head 2": other})
    ],
    "CompactGeneralizedNonLocal": [
        Known(arguments, compact, {"": marked, "group 1": marked, "group 2": other})
        for arguments in (dict(), dict(kernel="gaussian"), dict(kernel="rbf", gamma=0.01))
    ],
    "DoubleAttention": [
        Known(
            dict(attention_channels=2),
            double,
            {"": marked, "gather": [marked, other], "distribute": [asking, other]},
        )
    ],
    "GlobalContext": [
        Known({}, global_context, {"": [marked]}),
        Known(dict(pooling_type="avg"), global_context, {"": [all_cells]}),
    ],
    "CBAM": [Known({}, cbam, {"": [marked]})],
    "BAM": [Known({}, bam, {"": [marked], "mean gate": [marked]})],
    "TripletAttention": [Known({}, triplet, {"": [marked], "mean gate": [marked]})],
    "SelectiveKernel": [
        Known(dict(groups=1), partial(branches, lambda module: [p.conv for p in module.paths]), _WHERE)
    ],
    "SplitAttention": [Known({}, splits, _WHERE)],
    "PyramidSplitAttention": [
        Known(_TWO, partial(branches, lambda module: [module.conv_1, module.conv_2]), _WHERE)
    ],
    "PyramidSplitDualAttention": [
        Known(_TWO, pyramid_dual, {**_WHERE, "position 3x3": marked, "position 5x5": other})
    ],
}

SHOWING = [name for name, one in {**MODULES, **HEADS}.items() if issubclass(one, ShowsAttention)]
CASES = [(name, known) for name in SHOWING for known in KNOWN.get(name, [])]


def maps_of(module: Any) -> set[str]:
    """The names of the views that are maps."""
    return {view.name for view in module.attention_views() if view.kind in ("position", "everywhere")}


def test_every_module_that_shows_maps_has_a_known_answer():
    assert {"PositionAttention", "PSANetHead", "ISANetHead"} <= set(SHOWING)
    with_maps = {name for name in SHOWING if maps_of(make(name, "cpu") if name in MODULES else build(name))}
    assert with_maps <= set(KNOWN)


@pytest.mark.parametrize(
    ("name", "known"), CASES, ids=lambda one: one if isinstance(one, str) else str(one.arguments)
)
def test_the_largest_weight_lies_on_the_marked_cell(name, known, device):
    module: Any = (
        MODULES[name](4, **known.arguments)
        if name in MODULES
        else plain(name, **dict(in_channels=4, channels=4, norm_cfg=None), **known.arguments)
    )
    module = module.to(device, torch.float64).eval()
    dims = getattr(module, "dims", 2)
    with torch.no_grad(), record_attention(module) as recorded:
        known.set_weights(module)
        x = picture(dims).to(device)
        module(x) if name in MODULES else module([x])
    assert maps_of(module) == set(known.largest)
    for view, largest in known.largest.items():
        by_position = callable(largest)
        shown = recorded[""].show([ASKING[dims]] if by_position else [], view)[0]
        wanted = [largest] if by_position else largest
        assert len(shown) == len(wanted)
        for one, of_one in zip(shown, wanted, strict=True):
            found = (one >= one.max() * (1 - 1e-6)).nonzero().tolist()
            assert set(map(tuple, found)) == of_one(dims), view
