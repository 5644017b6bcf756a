"""Stop a training whose loss is NaN or infinite."""

import math
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from danseg.errors import UserError


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stops a training whose loss is NaN or infinite, before broken weights overwrite good ones."""

    priority = "VERY_HIGH"

    # The loss may be non-finite this often in a row in float16 training, which overflows now and then: its
    # scaler skips such a step and the weights stay good.
    scaled_patience = 20

    def __init__(self) -> None:
        self._in_a_row = 0

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        if not outputs or "loss" not in outputs or math.isfinite(outputs["loss"].item()):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        if self._in_a_row < (self.scaled_patience if _scaled(runner) else 1):
            return
        parts = ", ".join(f"{name} {value.item():.4g}" for name, value in outputs.items() if name != "loss")
        raise UserError(
            f"the loss became {outputs['loss'].item()} at iteration {runner.iter + 1} ({parts}); "
            f"{advice_on_divergence(runner)}"
        )


def advice_on_divergence(runner: Any) -> str:
    """A message that says what to do when weights or losses are no longer finite."""
    rates = runner.optim_wrapper.get_lr()
    rate = max(next(iter(rates.values()), [math.nan]))
    last = runner.message_hub.runtime_info.get("last_ckpt")
    kept = f"the checkpoint {last} is from before" if last else "no checkpoint had been saved"
    # bfloat16 has the range of float32, and needs no scaling of the loss.
    wider = ", or train in bfloat16 (--amp bfloat16)" if _scaled(runner) else ""
    return (
        f"training stopped, and {kept}. The learning rate was {rate:.4g}: lower it "
        "(--cfg-options optim_wrapper.optimizer.lr=...) or clip the gradients "
        f"(--cfg-options optim_wrapper.clip_grad.max_norm=1){wider}"
    )


def _scaled(runner: Any) -> bool:
    """Whether losses are scaled, as in float16: now and then a step overflows and is left out."""
    return hasattr(runner.optim_wrapper, "loss_scaler")


def non_finite_names(state: dict[str, Any]) -> list[str]:
    """Names of the tensors in a state dict that hold NaN or infinity."""
    return [
        name
        for name, value in state.items()
        if torch.is_tensor(value) and value.is_floating_point() and not torch.isfinite(value).all()
    ]
