"""PointwiseSpatialAttention against PSANet's equations in float64, its grid, its maps."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from danseg.attention import PointwiseSpatialAttention
from danseg.ops import reference
from danseg.visualization.attention_switch import switched_off

_BRANCH = ["conv.weight", "bn.weight", "bn.bias"]
NEEDED = {"compact": dict(mask_size=(3, 4))}  # the contract's map of 5x7, shrunk by 2
PARAMETER_NAMES = {
    "PointwiseSpatialAttention": [
        f"{layer}.{name}"
        for suffix in ("", "_p")
        for layer, names in (
            (f"reduce{suffix}", _BRANCH),
            (f"attention{suffix}", [*(f"0.{name}" for name in _BRANCH), "1.weight"]),
        )
        for name in names
    ]
    + [*(f"proj.{name}" for name in _BRANCH), "gamma.scale"]
}


def _make(**arguments) -> PointwiseSpatialAttention:
    torch.manual_seed(0)
    module = PointwiseSpatialAttention(12, 4, norm_layer=None, **arguments).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.1, 0.5)
    return module


def _input(height: int = 5, width: int = 7) -> torch.Tensor:
    return torch.randn(2, 12, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _conv(layer, x: torch.Tensor) -> torch.Tensor:
    out = torch.einsum("dc,bchw->bdhw", layer.conv.weight.flatten(1), x) + layer.conv.bias[:, None, None]
    return out.clamp(min=0)


def _weights(module, features, attention, kind, compact_transposed=None) -> torch.Tensor:
    mask = torch.einsum("mk,bkhw->bmhw", attention[1].weight.flatten(1), _conv(attention[0], features))
    if compact_transposed is None:
        energies = reference.pointwise_spatial_energies(mask.unflatten(1, module.mask_size), kind)
    else:
        energies = mask.flatten(2)  # [cell, owner]
        energies = energies.transpose(1, 2) if compact_transposed else energies
    if not module.psa_softmax:
        return energies
    return energies.exp() / energies.exp().sum(dim=2, keepdim=True)


def _expected(module, x, grid, align_corners, transposed=(None, None)) -> tuple[torch.Tensor, list]:
    suffixes = ("", "_p") if module.psa_type == "bi-direction" else ("",)
    kinds = ("collect", "distribute") if len(suffixes) == 2 else (module.psa_type,)
    gathered, maps = [], []
    for suffix, kind, compact_transposed in zip(suffixes, kinds, transposed, strict=False):
        features = _conv(getattr(module, f"reduce{suffix}"), x)
        if grid != x.shape[2:]:
            features = F.interpolate(features, grid, mode="bilinear", align_corners=align_corners)
        weights = _weights(module, features, getattr(module, f"attention{suffix}"), kind, compact_transposed)
        maps.append(weights)
        gathered.append(torch.einsum("bij,bcj->bci", weights, features.flatten(2)).unflatten(2, grid))
    out = _conv(module.proj, torch.cat(gathered, dim=1) / module.normalization_factor)
    return x + module.gamma.scale * F.interpolate(
        out, x.shape[2:], mode="bilinear", align_corners=align_corners
    ), maps


@pytest.mark.parametrize("psa_type", ["collect", "distribute", "bi-direction"])
@pytest.mark.parametrize(
    ("size", "shrink", "grid", "aligned"),
    [((4, 5), 1, (4, 5), True), ((5, 7), 2, (3, 4), True), ((6, 7), 2, (3, 3), False)],
)
def test_equals_the_equation(psa_type, size, shrink, grid, aligned, device):
    module = _make(psa_type=psa_type, mask_size=(5, 4), shrink_factor=shrink, normalization_factor=2.0)
    module = module.to(device)
    x = _input(*size).to(device)
    expected, maps = _expected(module, x, grid, aligned)
    torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-12)
    cells = [0, len(maps[0][0]) - 1]
    _assert_views_are(module, x, maps, [(0, 0), (size[0] - 1, size[1] - 1)], cells, grid)


def _assert_views_are(module, x, maps, positions, cells, grid) -> None:
    """Compare all views with the branches' maps (B, N, N), at positions whose cells are known."""
    if len(maps) == 2:
        expected = {"": (maps[0] + maps[1]) / 2, "collect": maps[0], "distribute": maps[1]}
    else:
        expected = {"": maps[0]}
    views = {view.name: view for view in module.attention_views()}
    assert views.keys() == expected.keys()
    for name, view in views.items():
        assert (view.kind, view.values) == ("position", "shares" if module.psa_softmax else "weights")
        begun = view.begin(x)
        for some in (slice(None), slice(1, 2)):  # asked twice
            rows = begun(positions[some])
            assert rows.shape[2:] == grid
            torch.testing.assert_close(
                rows.flatten(2), expected[name][:, cells[some]], rtol=1e-10, atol=1e-12
            )
        if module.psa_softmax:
            torch.testing.assert_close(rows.sum(dim=(2, 3)), torch.ones_like(rows[:, :, 0, 0]))
    assert torch.equal(module.attention_map(x, positions), views[""].begin(x)(positions))


@pytest.mark.parametrize("psa_type", ["collect", "distribute", "bi-direction"])
@pytest.mark.parametrize(("size", "grid"), [((4, 5), (4, 5)), ((5, 7), (3, 4)), ((6, 7), (3, 3))])
def test_maps_without_softmax_are_the_energies(psa_type, size, grid, device):
    shrink = 1 if grid == size else 2
    module = _make(psa_type=psa_type, mask_size=(5, 4), shrink_factor=shrink, psa_softmax=False).to(device)
    x = _input(*size).to(device)
    maps = _expected(module, x, grid, aligned := grid != (3, 3))[1]
    assert module._shrunk(size)[1] == aligned
    _assert_views_are(module, x, maps, [(0, 0), (size[0] - 1, size[1] - 1)], [0, len(maps[0][0]) - 1], grid)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("shrink", [1, 2, 3])
@pytest.mark.parametrize("size", [(9, 13), (8, 13), (10, 14), (1, 7), (17, 25)], ids=str)
@pytest.mark.parametrize("align_corners", [True, False])  # which counts where nothing is shrunk
def test_a_positions_map_is_that_of_the_cell_which_has_the_largest_part_in_it(
    size, shrink, padding, align_corners
):
    """What F.interpolate makes of grids with a one in a single cell says how large a part each cell has."""
    module = PointwiseSpatialAttention(12, 4, mask_size=(3, 3), shrink_factor=shrink).eval()
    module.align_corners, module.proj_padding = align_corners, padding
    grid, aligned = module._shrunk(size)
    one_hot = torch.eye(grid[0] * grid[1], dtype=torch.float64).unflatten(1, grid)[None]
    one_hot = F.pad(one_hot, (padding,) * 4)  # as the projection of the head pads
    parts = F.interpolate(one_hot, size, mode="bilinear", align_corners=aligned)[0]  # (cells, H, W)
    assert parts.max() > 0.5 or size[0] == 1  # a single row is resized from padding alone
    for row in range(size[0]):
        for column in range(size[1]):
            y, x = module._cell((row, column), size)
            of_all = parts[:, row, column]
            assert of_all[y * grid[1] + x] == pytest.approx(of_all.max().item())


@pytest.mark.parametrize("psa_type", ["collect", "distribute", "bi-direction"])
def test_without_attention_it_gives_its_input(psa_type):
    module, x = _make(psa_type=psa_type, mask_size=(5, 4)), _input()
    assert not torch.allclose(module(x), x)
    with switched_off(module, ""):
        assert torch.equal(module(x), x)


COMPACT = pytest.mark.parametrize(
    ("psa_type", "transposed"),
    [("collect", (True,)), ("distribute", (False,)), ("bi-direction", (True, False))],
)


@COMPACT
@pytest.mark.parametrize("softmax", [True, False])
def test_compact_masks_are_positions(psa_type, transposed, softmax, device):
    module, x = (
        _make(psa_type=psa_type, mask_size=(3, 4), compact=True, psa_softmax=softmax).to(device),
        _input().to(device),
    )
    expected, maps = _expected(module, x, (3, 4), True, transposed)
    torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-12)
    # the first and the last cell of the grid
    _assert_views_are(module, x, maps, [(0, 0), (4, 6)], [0, 11], (3, 4))


def _authors_context(module: PointwiseSpatialAttention, x: torch.Tensor) -> torch.Tensor:
    """What the authors' network does with a compact mask, step by step, before the concatenation with x.

    A branch's attention gives each position of the grid as many channels as the grid has positions. For
    "collect" (their type 0), channel j at position i is what i takes from j. For "distribute" (type 1),
    channel j at position i is what j takes from i: there the two axes change places. The softmax runs over
    the positions that something is taken from.
    """
    grid = tuple((side - 1) // module.shrink_factor + 1 for side in x.shape[2:])
    kinds = dict(collect=("",), distribute=("",)).get(module.psa_type, ("", "_p"))
    taken = []
    for number, suffix in enumerate(kinds):
        features = _conv(getattr(module, f"reduce{suffix}"), x)
        features = F.interpolate(features, grid, mode="bilinear", align_corners=True).flatten(2)  # (B, C, N)
        first, second = getattr(module, f"attention{suffix}")
        hidden = (
            torch.einsum("dc,bcn->bdn", first.conv.weight.flatten(1), features) + first.conv.bias[:, None]
        )
        mask = torch.einsum("jd,bdi->bji", second.weight.flatten(1), hidden.clamp(min=0))
        if module.psa_type == "distribute" or number == 1:
            mask = mask.transpose(1, 2)
        taken.append(torch.einsum("bcj,bji->bci", features, mask.softmax(dim=1)))
    out = (torch.cat(taken, dim=1) / module.normalization_factor).unflatten(2, grid)
    full = [(side - 1) * module.shrink_factor + 1 for side in grid]
    return F.interpolate(_conv(module.proj, out), full, mode="bilinear", align_corners=True)


@pytest.mark.parametrize("psa_type", ["collect", "distribute", "bi-direction"])
def test_compact_masks_go_the_authors_way(psa_type, device):
    module = _make(psa_type=psa_type, mask_size=(3, 4), compact=True, normalization_factor=2.0).to(device)
    x = _input().to(device)
    expected = x + module.gamma.scale * _authors_context(module, x)
    torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("softmax", [True, False])
def test_compact_masks_under_autocast(softmax, device):
    module, x = (
        _make(mask_size=(3, 4), compact=True, psa_softmax=softmax).to(device).float(),
        _input().to(device).float(),
    )
    with torch.autocast(device.type, torch.bfloat16):
        out = module(x)
        out.float().square().mean().backward()
    assert out.dtype == x.dtype
    assert (out - module(x)).abs().max() / module(x).abs().max() < 3e-2


def test_divides_by_the_masks_cells_without_a_factor():
    assert _make(mask_size=(3, 5), normalization_factor=None).normalization_factor == 15


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="collect, distribute, bi-direction.*'both'"):
        PointwiseSpatialAttention(12, psa_type="both")
    with pytest.raises(ValueError, match=r"mask_size.*\(0, 3\)"):
        PointwiseSpatialAttention(12, mask_size=(0, 3))
    with pytest.raises(ValueError, match=r"3x4.*mask_size=\(3, 3\)"):
        _make(mask_size=(3, 3), compact=True)(_input())
    with pytest.raises(ValueError, match="row 5"):
        _make(mask_size=(3, 3)).attention_map(_input(), [(5, 0)])
