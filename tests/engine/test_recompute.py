"""danseg.engine.recompute: the same training in less memory."""

import copy

import pytest
import torch
from mmseg.registry import MODELS
from torch import nn

from danseg.engine.recompute import recompute, take_over_with_cp
from danseg.errors import UserError


def _model() -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(True), nn.Dropout(0.5), nn.Conv2d(8, 8, 1)
    )
    return nn.ModuleDict(dict(body=body, head=nn.Conv2d(8, 2, 1)))


def _step(model: nn.Module, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, int]:
    """The loss of one step on fixed images, and the number of bytes that autograd saved for it.

    Other types than float32 are those of mixed precision.
    """
    torch.manual_seed(1)
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    device = next(model.parameters()).device
    x = torch.randn(2, 3, 12, 16).to(device)  # like images, which need no gradient
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
    ):
        loss = model["head"](model["body"](x)).square().mean()
    loss.backward()
    return loss, sum(kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_loss_gradients_and_statistics_stay_the_same_and_less_is_kept(device, dtype):
    plain, ours = _model().to(device), _model().to(device)
    recompute(ours, ["body"])
    (want, all_kept), (got, kept) = _step(plain, dtype), _step(ours, dtype)
    assert torch.equal(got, want)
    for (name, p), q in zip(plain.named_parameters(), ours.parameters(), strict=True):
        # A GPU may sum a gradient in another order each time.
        near = {} if device.type == "cuda" else dict(rtol=0, atol=0)
        torch.testing.assert_close(q.grad, p.grad, **near, msg=name)
    for (name, p), q in zip(plain.named_buffers(), ours.buffers(), strict=True):
        assert torch.equal(q, p), name  # each batch is counted once
    assert plain["body"][1].num_batches_tracked == 1
    assert kept < all_kept / 2


def test_names_of_parameters_stay_and_a_copy_is_a_model_of_its_own():
    model = _model()
    names = list(model.state_dict())
    recompute(model, ["body"])
    assert list(model.state_dict()) == names
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert _step(model)[0] > 0
    assert _step(twin)[0] == 0


def test_evaluation_is_the_plain_forward_pass():
    plain, ours = _model().eval(), _model().eval()
    recompute(ours, ["body"])
    x = torch.randn(1, 3, 5, 7)
    with torch.no_grad():
        assert torch.equal(ours["body"](x), plain["body"](x))


@pytest.mark.parametrize(("name", "there"), [("body.9", "body has 0, 1"), ("neck.conv", "body, head")])
def test_an_unknown_name_is_refused_with_those_that_exist(name, there):
    with pytest.raises(UserError, match=f"{name}.*{there}"):
        recompute(_model(), [name])


def test_a_second_derivative_is_the_plain_one():
    found = []
    for recomputed in (False, True):
        torch.manual_seed(0)
        model = nn.ModuleDict(dict(body=nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Tanh())))
        if recomputed:
            recompute(model, ["body"])
        x = torch.randn(2, 3, 5, 6).requires_grad_()
        [slope] = torch.autograd.grad(model["body"](x).square().sum(), x, create_graph=True)
        slope.square().sum().backward()
        found.append((x.grad, model["body"][1].running_mean, model["body"][1].num_batches_tracked))
    assert found[0][0].abs().sum() > 0
    for want, got in zip(*found, strict=True):
        torch.testing.assert_close(got, want)


def test_a_compiled_network_trains_the_same():
    plain, ours = _model(), _model()
    for model in (plain, ours):
        model["body"][3] = nn.Identity()  # dropout is drawn differently when it is compiled
    recompute(ours, ["body"])
    x = torch.randn(2, 3, 12, 16)
    step = torch.compile(lambda x: ours["head"](ours["body"](x)).square().mean(), backend="aot_eager")
    got, want = step(x), plain["head"](plain["body"](x)).square().mean()
    for loss in (got, want):
        loss.backward()
    torch.testing.assert_close(got, want)
    for p, q in zip(plain.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad)
    for p, q in zip(plain.buffers(), ours.buffers(), strict=True):
        torch.testing.assert_close(q, p)


def test_a_part_of_a_part_is_recomputed_once():
    plain, ours = _model(), _model()
    recompute(ours, ["body.1", "body", "body"])
    (want, _), (got, _) = _step(plain), _step(ours)
    assert torch.equal(got, want) and ours["body"][1].num_batches_tracked == 1


@pytest.mark.parametrize("depth", [18, 50])
def test_with_cp_counts_a_batch_once(depth):
    arguments = dict(
        type="ResNetV1c", depth=depth, base_channels=4, stem_channels=4, norm_cfg=dict(type="BN")
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = MODELS.build(arguments)
        checkpointed = MODELS.build({**arguments, "with_cp": True})
    checkpointed.load_state_dict(plain.state_dict())
    ours = copy.deepcopy(checkpointed)
    taken = take_over_with_cp(ours)
    assert taken == [f"layer{i + 1}.{j}" for i, n in enumerate(plain.stage_blocks) for j in range(n)]
    recompute(ours, taken)
    x = torch.randn(2, 3, 32, 32)
    for model in (plain, ours, checkpointed):
        model.train()
        sum(feature.square().mean() for feature in model(x)).backward()
    for (name, p), q in zip(plain.named_buffers(), ours.buffers(), strict=True):
        torch.testing.assert_close(q, p, msg=name)
    for (name, p), q in zip(plain.named_parameters(), ours.named_parameters(), strict=True):
        torch.testing.assert_close(q[1].grad, p.grad, msg=name)
    assert checkpointed.layer2[0].bn1.num_batches_tracked == 2  # what it is about


def test_with_cp_without_batch_norms_stays():
    block = nn.LayerNorm(4)
    block.with_cp = True
    assert take_over_with_cp(nn.Sequential(block)) == [] and block.with_cp
