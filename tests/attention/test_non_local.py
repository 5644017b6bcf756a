"""NonLocal1d, 2d and 3d in all modes: the equations in float64, mmcv's blocks, what each starts as."""

import pytest
import torch
from torch import nn

from cpu_alone import one_on_gpu
from danseg.attention import NonLocal1d, NonLocal2d, NonLocal3d
from danseg.attention.non_local import MODES
from danseg.ops import reference

_NAMES = [
    "g.conv.weight",
    "g.conv.bias",
    "conv_out.conv.weight",
    "conv_out.bn.weight",
    "conv_out.bn.bias",
    "theta.conv.weight",
    "theta.conv.bias",
    "phi.conv.weight",
    "phi.conv.bias",
]
PARAMETER_NAMES = {name: _NAMES for name in ("NonLocal1d", "NonLocal2d", "NonLocal3d")}
# φ's bias adds one number to a whole row of energies, which the softmax cancels. Weights sum to 1, so g's
# bias reaches every position alike, and the batch norm, in training, cancels it.
ZERO_GRADIENT = {name: ["g.conv.bias", "phi.conv.bias"] for name in PARAMETER_NAMES}

VARIANTS = {name: [dict(sub_sample="input")] for name in PARAMETER_NAMES}

FORMS = {NonLocal1d: (9,), NonLocal2d: (5, 7), NonLocal3d: (3, 5, 4)}

every_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
forms_and_one_on_gpu = pytest.mark.parametrize("form", one_on_gpu(FORMS), ids=lambda form: form.__name__)
every_mode = pytest.mark.parametrize("mode", MODES)
pooled_or_not = pytest.mark.parametrize("sub_sample", [False, True], ids=["whole", "sub_sample"])
any_pooling = pytest.mark.parametrize("sub_sample", [False, True, "input"], ids=["whole", "after", "before"])


def _make(form, **arguments) -> nn.Module:
    torch.manual_seed(0)
    module = form(6, **arguments).double().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.1, 0.5)
    if module.conv_out.norm is not None:
        module.conv_out.norm.running_mean.normal_(0, 0.2)
        module.conv_out.norm.running_var.uniform_(0.5, 1.5)
    return module


def _input(form, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(2, 6, *FORMS[form], generator=torch.Generator().manual_seed(1), dtype=dtype)


def _pool(x: torch.Tensor) -> torch.Tensor:
    """The maximum over pairs in each spatial dimension, not over frames; an odd last entry is dropped."""
    first = 3 if x.dim() == 5 else 2
    for dim in range(first, x.dim()):
        half = x.shape[dim] // 2
        pairs = x.narrow(dim, 0, 2 * half).unflatten(dim, (half, 2))
        x = pairs.amax(dim + 1)
    return x


def _projected(x: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    conv = next(m for m in layer.modules() if hasattr(m, "weight"))
    out = torch.einsum("dc,bcn->bdn", conv.weight.flatten(1), x.flatten(2)) + conv.bias[:, None]
    return out.unflatten(2, x.shape[2:])


def _expected(module: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The equations' map (B, N, M) and output."""
    # mmcv's code pools what g and φ give, the authors' code what they take.
    before = _pool if module.sub_sample == "input" else (lambda t: t)
    after = _pool if module.sub_sample is True else (lambda t: t)
    g = after(_projected(before(x), module.g)).flatten(2)
    if module.mode == "gaussian":
        theta, phi = x, after(before(x))
    else:
        theta, phi = _projected(x, module.theta), after(_projected(before(x), module.phi))
    scale = theta.shape[1] ** -0.5 if module.mode == "embedded_gaussian" and module.use_scale else 1.0
    w = module.concat_project.conv.weight.flatten() if module.mode == "concatenation" else None
    weight = reference.non_local_map(theta.flatten(2), phi.flatten(2), module.mode, scale, w)
    conv, bn = module.conv_out.conv, module.conv_out.norm
    w_out, b_out = conv.weight.flatten(1), conv.bias
    if bn is not None:  # in evaluation it is one more linear map
        factor = bn.weight / (bn.running_var + bn.eps).sqrt()
        w_out, b_out = factor[:, None] * w_out, bn.bias - factor * bn.running_mean
    out = reference.non_local(x.flatten(2), weight, g, w_out, b_out)
    return weight, out.unflatten(2, x.shape[2:])


@forms_and_one_on_gpu
@every_mode
@any_pooling
def test_equals_the_equation(form, mode, sub_sample, device):
    module, x = _make(form, mode=mode, sub_sample=sub_sample).to(device), _input(form).to(device)
    torch.testing.assert_close(module(x), _expected(module, x)[1], rtol=1e-10, atol=1e-12)


def test_without_scale_and_without_normalisation(device):
    module, x = _make(NonLocal2d, use_scale=False, norm_layer=None).to(device), _input(NonLocal2d).to(device)
    torch.testing.assert_close(module(x), _expected(module, x)[1], rtol=1e-10, atol=1e-12)
    assert module.conv_out.conv.bias is not None


@forms_and_one_on_gpu
@every_mode
@any_pooling
def test_every_parameter_is_trained(form, mode, sub_sample, device):
    module, x = (
        _make(form, mode=mode, sub_sample=sub_sample).to(device),
        _input(form).to(device).requires_grad_(),
    )
    expected = torch.autograd.grad(_expected(module, x)[1].square().sum(), (x, *module.parameters()))
    got = torch.autograd.grad(module(x).square().sum(), (x, *module.parameters()))
    names = ["x", *(name for name, _ in module.named_parameters())]
    largest = max(grad.abs().max() for grad in expected)
    for name, one, other in zip(names, got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10 * largest.item())
        softmax_cancels = name.startswith("phi") and name.endswith("bias") and "gaussian" in mode
        assert softmax_cancels or one.abs().max() > 1e-6 * largest, name


@every_form
@every_mode
def test_starts_as_the_identity_with_small_projections(form, mode):
    module, x = form(6, mode=mode), _input(form, torch.float32)
    assert torch.equal(module(x), x)
    assert 0.003 < module.g.conv.weight.std() < 0.03
    nn.init.ones_(module.conv_out.norm.weight)
    module.init_weights()  # what mmengine calls after a backbone's blanket initialisation
    assert torch.equal(module(x), x)


@every_mode
@pooled_or_not
def test_weights_go_both_ways_with_mmcv_and_outputs_are_equal(mode, sub_sample, device):
    blocks = pytest.importorskip("mmcv.cnn")
    import danseg.attention

    for form in FORMS:
        theirs = getattr(blocks.bricks.non_local, form.__name__)(
            6, mode=mode, sub_sample=sub_sample, norm_cfg=dict(type=f"BN{form.dims}d")
        )
        theirs = theirs.double().eval()
        ours = getattr(danseg.attention, form.__name__)(6, mode=mode, sub_sample=sub_sample).double().eval()
        for parameter in theirs.parameters():
            nn.init.normal_(parameter, 0.1, 0.5)
        ours.load_state_dict(theirs.state_dict(), strict=True)
        theirs.load_state_dict(ours.state_dict(), strict=True)
        assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
        ours, theirs, x = (one.to(device) for one in (ours, theirs, _input(form)))
        with torch.no_grad():  # mmcv's concatenation cannot be differentiated
            torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-12)


@forms_and_one_on_gpu
@every_mode
@any_pooling
def test_map_rows_are_those_of_the_equation(form, mode, sub_sample, device):
    module, x = _make(form, mode=mode, sub_sample=sub_sample).to(device), _input(form).to(device)
    size = FORMS[form]
    positions = [tuple(0 for _ in size), tuple(side - 1 for side in size)]
    rows = module.attention_map(x, positions)
    assert rows.shape[2:] == (_pool(x).shape[2:] if sub_sample else size)
    expected = _expected(module, x)[0][:, [0, -1]]
    torch.testing.assert_close(rows.flatten(2), expected, rtol=1e-10, atol=1e-12)
    [view] = module.attention_views()
    assert (view.kind, view.name) == ("position", "")
    assert view.values == ("shares" if "gaussian" in mode else "weights")
    begun = view.begin(x)
    for number, position in enumerate(positions):
        torch.testing.assert_close(begun([position]), rows[:, [number]], rtol=1e-12, atol=1e-15)
    if "gaussian" in mode:
        torch.testing.assert_close(rows.flatten(2).sum(-1), torch.ones(2, 2, dtype=torch.float64).to(device))


@every_form
@every_mode
def test_without_attention_it_gives_its_input(form, mode):
    module, x = _make(form, mode=mode), _input(form)
    assert not torch.allclose(module(x), x)
    assert torch.equal(module.without_attention(x, module(x)), x)


def test_pooling_before_and_after_the_projections_are_different_networks(device):
    before, after = (_make(NonLocal2d, sub_sample=kind).to(device) for kind in ("input", True))
    after.load_state_dict(
        {n.replace("g.", "g.0.").replace("phi.", "phi.0."): v for n, v in before.state_dict().items()}
    )
    x = _input(NonLocal2d).to(device)
    assert (before(x) - after(x)).abs().max() > 1e-2


@pytest.mark.parametrize("size", [(1, 7), (5, 1), (1, 1)])
def test_sub_sampling_leaves_something_of_one_row_or_column(size, device):
    x = torch.randn(1, 6, *size).to(device)
    assert _make(NonLocal2d, sub_sample=True).to(device).float()(x).shape == x.shape


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="gaussian, embedded_gaussian, dot_product, concatenation.*'dot'"):
        NonLocal2d(8, mode="dot")
    with pytest.raises(ValueError, match="reduction.*0"):
        NonLocal2d(8, reduction=0)
    with pytest.raises(ValueError, match="sub_sample must be True, False or \"input\", got 'x'"):
        NonLocal2d(8, sub_sample="x")
    with pytest.raises(ValueError, match="batch_norm.*'bn'"):
        NonLocal2d(8, norm_layer="bn")
    with pytest.raises(ValueError, match="frame 3, row 0, column 0.*frames go from 0 to 2"):
        _make(NonLocal3d).attention_map(_input(NonLocal3d), [(3, 0, 0)])
    with pytest.raises(ValueError, match=r"\(row, column\).*\(1, 2, 3\)"):
        _make(NonLocal2d).attention_map(_input(NonLocal2d), [(1, 2, 3)])
