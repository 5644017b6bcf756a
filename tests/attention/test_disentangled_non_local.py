"""DisentangledNonLocal2d against the paper's equation in float64; mmseg's block in all modes."""

import pytest
import torch
from torch import nn

from danseg.attention import DisentangledNonLocal2d
from danseg.attention.non_local import MODES
from danseg.ops import reference

PARAMETER_NAMES = {
    "DisentangledNonLocal2d": [
        "g.conv.weight",
        "g.conv.bias",
        "conv_out.conv.weight",
        "conv_out.bn.weight",
        "conv_out.bn.bias",
        "theta.conv.weight",
        "theta.conv.bias",
        "phi.conv.weight",
        "phi.conv.bias",
        "conv_mask.weight",
        "conv_mask.bias",
    ]
}
# Centring cancels the biases of θ and φ, the batch norm in training that of g, and the softmax that of the
# mask.
ZERO_GRADIENT = {
    "DisentangledNonLocal2d": ["g.conv.bias", "theta.conv.bias", "phi.conv.bias", "conv_mask.bias"]
}
VARIANTS = {
    "DisentangledNonLocal2d": [
        dict(use_out=False),
        dict(use_out=False, mode="dot_product"),
        dict(centring="none"),
        dict(use_out=False, centring="layer", use_scale=False, temperature=1),
    ]
}


def _make(**arguments) -> DisentangledNonLocal2d:
    torch.manual_seed(0)
    module = DisentangledNonLocal2d(6, **arguments).double().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.1, 0.5)
    return module


def _input(channels: int = 6) -> torch.Tensor:
    return torch.randn(2, channels, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("use_scale", [True, False])
def test_equals_the_equation(use_scale, device):
    module, x = _make(use_scale=use_scale, temperature=0.4, norm_layer=None).to(device), _input().to(device)
    flat = x.flatten(2)
    query, key, g, mask = (
        torch.einsum("dc,bcn->bdn", conv.weight.flatten(1), flat) + conv.bias[:, None]
        for conv in (module.theta.conv, module.phi.conv, module.g.conv, module.conv_mask)
    )
    scale = (3**-0.5 if use_scale else 1.0) / 0.4
    out = module.conv_out.conv
    expected = reference.disentangled_non_local(
        flat, query, key, g, mask[:, 0], scale, out.weight.flatten(1), out.bias
    )
    torch.testing.assert_close(module(x), expected.view_as(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_equals_mmsegs_in_every_mode(mode, device):
    head = pytest.importorskip("mmseg.models.decode_heads.dnl_head")
    # mmseg divides by float32 numbers in any precision: √4 and 1/4 are exact there.
    theirs = head.DisentangledNonLocal2d(
        8, mode=mode, temperature=0.25, reduction=2, use_scale=True, norm_cfg=dict(type="BN")
    )
    theirs = theirs.double().eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, 0.1, 0.5)
    ours = DisentangledNonLocal2d(8, mode=mode, temperature=0.25).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    ours, theirs, x = (one.to(device) for one in (ours, theirs, _input(8)))
    if mode == "gaussian":  # mmseg's takes the mean from the input itself, so give it one without
        x = x - x.mean(dim=(2, 3), keepdim=True)
    with torch.no_grad():  # mmcv's concatenation cannot be differentiated
        torch.testing.assert_close(ours(x), theirs(x.clone()), rtol=1e-10, atol=1e-12)


def _authors_block(module: DisentangledNonLocal2d, x: torch.Tensor, whitening: str, divisor: float):
    """What the authors' code does without its last projection; parameters under the module's names.

    Queries and keys have C' channels and biases, values C channels and none. Whitening "in_nostd" subtracts
    each channel's mean over an image's positions, "ln_nostd" an image's mean over both. Another name does
    nothing.
    """
    flat = x.flatten(2)
    query, key, mask = (
        torch.einsum("dc,bcn->bdn", conv.weight.flatten(1), flat) + conv.bias[:, None]
        for conv in (module.theta.conv, module.phi.conv, module.conv_mask)
    )
    value = torch.einsum("dc,bcn->bdn", module.g.conv.weight.flatten(1), flat)
    if dims := {"in_nostd": 2, "ln_nostd": (1, 2)}.get(whitening):
        query, key = (t - t.mean(dim=dims, keepdim=True) for t in (query, key))
    similarity = (torch.einsum("bci,bcj->bij", query, key) / divisor).softmax(dim=2)
    pairwise = torch.einsum("bij,bcj->bci", similarity, value)
    unary = torch.einsum("bcj,bj->bc", value, mask[:, 0].softmax(dim=1))
    out = module.gamma.scale * pairwise + unary[:, :, None] + flat
    return out.view_as(x)


@pytest.mark.parametrize(
    ("config", "arguments", "whitening", "divisor"),
    [
        ("temp_in", dict(), "in_nostd", 3**0.5 * 0.05),
        ("nowd_in as named", dict(use_scale=False, temperature=1), "in_nostd", 1),
        ("nowd_in as published", dict(use_scale=False, temperature=1, centring="none"), "channel", 1),
        ("nowd_ln", dict(use_scale=False, temperature=1, centring="layer"), "ln_nostd", 1),
    ],
)
def test_equals_the_authors_block(config, arguments, whitening, divisor, device):
    module, x = _make(use_out=False, **arguments).to(device), _input().to(device)
    assert dict(module.named_parameters()).keys() == {
        "g.conv.weight",
        *(f"{layer}.conv.{kind}" for layer in ("theta", "phi") for kind in ("weight", "bias")),
        "conv_mask.weight",
        "conv_mask.bias",
        "gamma.scale",
    }
    expected = _authors_block(module, x, whitening, divisor)
    torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("use_out", [True, False])
def test_starts_without_its_pairwise_term(use_out):
    module, x = DisentangledNonLocal2d(6, use_out=use_out).double(), _input()
    for parameter in module.theta.parameters():
        nn.init.ones_(parameter)
    module.init_weights()  # what mmengine calls after a backbone's blanket initialisation
    assert 0 < module.theta.conv.weight.std() < 0.03
    if use_out:
        assert torch.equal(module(x), x)
    else:
        assert module.gamma.scale == 0
        weighted = (module.unary_map(x) * module.g(x)).sum(dim=(2, 3), keepdim=True)
        torch.testing.assert_close(module(x), x + weighted, rtol=1e-10, atol=1e-12)


def test_unary_map_is_one_for_all_positions_and_sums_to_one(device):
    weights = _make().to(device).unary_map(_input().to(device))
    assert weights.shape == (2, 1, 5, 7)
    torch.testing.assert_close(weights.sum(dim=(2, 3)), torch.ones(2, 1, dtype=torch.float64).to(device))


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (dict(temperature=0.4), "shares"),
        (dict(temperature=0.4, use_out=False), "shares"),
        (dict(use_scale=False, temperature=1, centring="layer"), "shares"),
        (dict(use_scale=False, temperature=1, centring="none"), "shares"),
        (dict(mode="dot_product"), "weights"),
    ],
    ids=str,
)
def test_views_are_both_terms_and_what_a_position_gathers_with(arguments, values, device):
    module, x = _make(**arguments).to(device), _input().to(device)
    flat = x.flatten(2)
    query, key, mask = (
        torch.einsum("dc,bcn->bdn", conv.weight.flatten(1), flat) + conv.bias[:, None]
        for conv in (module.theta.conv, module.phi.conv, module.conv_mask)
    )
    dims = {"channel": 2, "layer": (1, 2), "none": None}[module.centring]
    if dims is not None:
        query, key = (t - t.mean(dim=dims, keepdim=True) for t in (query, key))
    scale = (3**-0.5 if module.use_scale else 1.0) / module.temperature
    pairwise = reference.non_local_map(query, key, module.mode, scale)  # (B, N, N)
    unary = mask.exp() / mask.exp().sum(dim=2, keepdim=True)  # (B, 1, N)
    factor = 1 if module.gamma is None else module.gamma.scale
    views = {view.name: view for view in module.attention_views()}
    assert {name: (view.kind, view.values) for name, view in views.items()} == {
        "": ("position", values),
        "unary": ("everywhere", "shares"),
        "sum": ("position", "weights"),
    }
    for name, whole in {"": pairwise, "sum": factor * pairwise + unary}.items():
        begun = views[name].begin(x)
        for row, column in [(0, 0), (4, 6), (2, 5)]:
            rows = begun([(row, column)]).flatten(2)
            torch.testing.assert_close(rows, whole[:, [row * 7 + column]], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(views["unary"].begin(x)().flatten(2), unary, rtol=1e-10, atol=1e-12)


def test_the_sum_is_what_a_position_gathers_with(device):
    """Without a last projection, the block adds the rows of the view "sum" times the values."""
    module, x = _make(use_out=False).to(device), _input().to(device)
    views = {view.name: view for view in module.attention_views()}
    everywhere = [(row, column) for row in range(5) for column in range(7)]
    whole = views["sum"].begin(x)(everywhere).flatten(2)  # (B, N, N)
    value = torch.einsum("dc,bcn->bdn", module.g.conv.weight.flatten(1), x.flatten(2))
    expected = x + torch.einsum("bij,bcj->bci", whole, value).view_as(x)
    torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-12)
    assert torch.equal(module.without_attention(x, expected), x)


def test_map_does_not_see_what_all_positions_share(device):
    module, x = _make(temperature=1.0).to(device), _input().to(device)
    shifted = x + torch.randn(1, 6, 1, 1, dtype=torch.float64).to(device)
    rows = [module.attention_map(one, [(0, 0), (2, 3)]) for one in (x, shifted)]
    torch.testing.assert_close(rows[0], rows[1], rtol=1e-9, atol=1e-12)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="centring must be one of channel, layer, none, .*got 'row'"):
        DisentangledNonLocal2d(6, centring="row")
    with pytest.raises(ValueError, match="got .layer. and mode=.concatenation."):
        DisentangledNonLocal2d(6, centring="layer", mode="concatenation")
    with pytest.raises(ValueError, match="norm_layer .* use_out=False"):
        DisentangledNonLocal2d(6, use_out=False, norm_layer=nn.BatchNorm2d)
    with pytest.raises(ValueError, match="temperature.*0"):
        DisentangledNonLocal2d(6, temperature=0)
