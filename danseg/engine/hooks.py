"""Hooks that keep a training's results sound: checkpoints and their order, merged statistics, NaN."""

import math
import os
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS

from danseg.engine.checkpoint import publish_file
from danseg.engine.distributed import average_batch_norm
from danseg.errors import UserError


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, except that nothing old is deleted before the new is whole.

    A kill or a full disk at any moment leaves at least the checkpoint before. Together with the
    runner's atomic writing this holds for ``max_keep_ckpts=1`` and for the best checkpoint too.
    """

    def before_train(self, runner: Any) -> None:
        super().before_train(runner)
        # A resumed checkpoint knows the best one by the path it had, perhaps in another folder;
        # the best of the folder that was copied from is not this run's to delete.
        if self.save_best is not None and len(self.key_indicators) == 1:
            self.best_ckpt_path = self._here(self.best_ckpt_path)
        elif self.save_best is not None:
            self.best_ckpt_path_dict = {k: self._here(p) for k, p in self.best_ckpt_path_dict.items()}

    def _here(self, path: str | None) -> str | None:
        return os.path.join(self.out_dir, os.path.basename(path)) if path else None

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        expired: list[int] = []
        if self.max_keep_ckpts > 0:
            ids = [*(i for i in self.keep_ckpt_ids if i != step), step]
            expired, kept = ids[: -self.max_keep_ckpts], ids[-self.max_keep_ckpts :]
            self.keep_ckpt_ids.clear()
            self.keep_ckpt_ids.extend(kept)
            runner.message_hub.update_info("keep_ckpt_ids", kept)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = os.path.join(self.out_dir, name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if not is_main_process():
            return
        note = os.path.join(runner.work_dir, "last_checkpoint")
        with open(note + ".part", "w", encoding="utf-8") as file:
            file.write(self.last_ckpt)
        publish_file(note + ".part", note)
        for old in expired:
            _remove(os.path.join(self.out_dir, self.filename_tmpl.format(old)))

    def _save_best_checkpoint(self, runner: Any, metrics: dict) -> None:
        if not self.save_best:
            return
        for key in self.key_indicators:
            if key != "auto" and key not in metrics:
                raise UserError(f"save_best={key!r} is not among the metrics: {', '.join(metrics)}")
        # mmengine deletes the best it knows of before it saves the next: let it know of none.
        if len(self.key_indicators) == 1:
            before, self.best_ckpt_path = self.best_ckpt_path, None
            super()._save_best_checkpoint(runner, metrics)
            self.best_ckpt_path = self._keep_one(before, self.best_ckpt_path)
        else:
            befores = dict(self.best_ckpt_path_dict)
            self.best_ckpt_path_dict = dict.fromkeys(befores)
            super()._save_best_checkpoint(runner, metrics)
            self.best_ckpt_path_dict = {
                key: self._keep_one(before, self.best_ckpt_path_dict[key]) for key, before in befores.items()
            }

    @staticmethod
    def _keep_one(before: str | None, after: str | None) -> str | None:
        """The best checkpoint from now on; the one before is deleted if another took its place."""
        if before and after and before != after and is_main_process():
            _remove(before)
        return after or before


def _remove(path: str) -> None:
    if os.path.isfile(path):
        os.remove(path)


@HOOKS.register_module()
class MergeBatchNormHook(Hook):
    """Merges the processes' BatchNorm statistics before a validation.

    Checkpoints merge them as well (:meth:`danseg.engine.runner.DansegRunner.save_checkpoint`), so
    that the figures of a validation are those of the checkpoint saved beside it.
    """

    def before_val_epoch(self, runner: Any) -> None:
        average_batch_norm(runner.model)


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stops a training whose loss is NaN or infinite, before such weights replace sound ones."""

    priority = "VERY_HIGH"

    # float16 training overflows now and then; its scaler skips the step and the weights stay sound.
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
        scaled = hasattr(runner.optim_wrapper, "loss_scaler")
        if self._in_a_row < (self.scaled_patience if scaled else 1):
            return
        parts = ", ".join(f"{name} {value.item():.4g}" for name, value in outputs.items() if name != "loss")
        raise UserError(
            f"the loss became {outputs['loss'].item()} at iteration {runner.iter + 1} ({parts}); "
            f"{advice_on_divergence(runner)}"
        )


def advice_on_divergence(runner: Any) -> str:
    """What to do about weights or losses that are no longer finite."""
    rates = runner.optim_wrapper.get_lr()
    rate = max(next(iter(rates.values()), [math.nan]))
    last = runner.message_hub.runtime_info.get("last_ckpt")
    kept = f"the checkpoint {last} is from before" if last else "no checkpoint had been saved"
    return (
        f"training stopped, and {kept}. The learning rate was {rate:.4g}: lower it "
        "(--cfg-options optim_wrapper.optimizer.lr=...) or clip the gradients "
        "(--cfg-options optim_wrapper.clip_grad.max_norm=1)"
    )


def non_finite_names(state: dict[str, Any]) -> list[str]:
    """Names of the tensors in a state dict that hold NaN or infinity."""
    return [
        name
        for name, value in state.items()
        if torch.is_tensor(value) and value.is_floating_point() and not torch.isfinite(value).all()
    ]
