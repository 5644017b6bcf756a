"""A loss that is not finite ends a training, with advice."""

from types import SimpleNamespace

import pytest
import torch

from danseg.engine.hooks import NonFiniteLossHook
from danseg.engine.hooks.non_finite_loss import non_finite_names
from danseg.errors import UserError


def runner(last=None, **scaler):
    info = dict(last_ckpt=last) if last else {}
    wrapper = SimpleNamespace(get_lr=lambda: dict(lr=[0.5]), **scaler)
    return SimpleNamespace(iter=6, optim_wrapper=wrapper, message_hub=SimpleNamespace(runtime_info=info))


def outputs(loss):
    return dict(loss=torch.tensor(loss), aux=torch.tensor(2.0))


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_the_message_says_when_and_what_to_do(loss):
    with pytest.raises(UserError) as caught:
        NonFiniteLossHook().after_train_iter(runner("iter_4.pth"), 6, outputs=outputs(loss))
    message = str(caught.value)
    assert f"the loss became {loss} at iteration 7 (aux 2)" in message
    assert "bfloat16" not in message
    assert "learning rate was 0.5" in message and "iter_4.pth is from before" in message


def test_a_scaled_loss_may_overflow_now_and_then():
    hook, scaled = NonFiniteLossHook(), runner(loss_scaler=None)
    for _ in range(3):
        for _ in range(hook.scaled_patience - 1):
            hook.after_train_iter(scaled, 6, outputs=outputs(float("inf")))
        hook.after_train_iter(scaled, 6, outputs=outputs(1.0))  # the count starts again
    with pytest.raises(UserError, match="no checkpoint had been saved.*train in bfloat16 .--amp bfloat16"):
        for _ in range(hook.scaled_patience):
            hook.after_train_iter(scaled, 6, outputs=outputs(float("inf")))


def test_weights_that_are_not_finite_are_named():
    state = dict(a=torch.ones(2), b=torch.tensor([1, float("nan")]), c=torch.tensor(2), d="text")
    assert non_finite_names(state) == ["b"]
