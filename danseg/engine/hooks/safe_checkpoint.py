"""Delete an old checkpoint only after the new one is complete."""

import os
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS

from danseg.engine.dispensable import Dispensable
from danseg.engine.hooks.unwritten_checkpoints import STOP, UnwrittenCheckpoints
from danseg.errors import UserError
from danseg.io.files import whole_file


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, but it deletes an old checkpoint only after the new one is complete.

    If the process is killed or the disk is full, at least the previous checkpoint remains. Because the runner
    writes files atomically, this also holds for ``max_keep_ckpts=1`` and for the best checkpoint.

    Args:
        on_full_disk: "stop" ends the training if a checkpoint cannot be written; "go_on" warns, and tries
            again when the next one is due. The last one has to be written in any case.
        arguments: those of mmengine's hook.
    """

    # mmengine does not know that more of these is better.
    _default_greater_keys = [*CheckpointHook._default_greater_keys, "mFscore", "mPrecision", "mRecall"]

    best_ckpt_path: str | None  # set by mmengine's hook, like the next one
    best_ckpt_path_dict: dict[str, str | None]

    def __init__(self, *args: Any, on_full_disk: str = STOP, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unwritten = UnwrittenCheckpoints(on_full_disk)
        self._note = Dispensable("last_checkpoint")

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        with self._unwritten(self, runner):
            super().after_train_iter(runner, *args, **kwargs)

    def after_train_epoch(self, runner: Any) -> None:
        with self._unwritten(self, runner):
            super().after_train_epoch(runner)

    def after_val_epoch(self, runner: Any, metrics: Any) -> None:
        with self._unwritten(self, runner):
            super().after_val_epoch(runner, metrics)

    def before_train(self, runner: Any) -> None:
        super().before_train(runner)
        if is_main_process():
            # A run killed while writing leaves a temporary file, which may be as large as a checkpoint.
            for part in Path(self.out_dir).glob(".*.pth.*.part"):
                part.unlink(missing_ok=True)
        # A resumed checkpoint stores the path of the best one, which may lie in another folder if the work
        # dir was copied. Look for it in this run's folder, so that the original is not deleted.
        if self.save_best is not None and len(self.key_indicators) == 1:
            self.best_ckpt_path = self._here(self.best_ckpt_path)
            self._forget_best_of_another_metric(runner, self.key_indicators[0])
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
        path = Path(runner.work_dir, "last_checkpoint")
        with self._note(), whole_file(path, durable=True) as part:
            part.write_text(self.last_ckpt, encoding="utf-8")
        for old in expired:
            _remove(os.path.join(self.out_dir, self.filename_tmpl.format(old)))

    def _save_best_checkpoint(self, runner: Any, metrics: dict) -> None:
        if not self.save_best:
            return
        for key in self.key_indicators:
            if key != "auto" and key not in metrics:
                raise UserError(f"save_best={key!r} is not among the metrics: {', '.join(metrics)}")
        # mmengine deletes the best checkpoint it knows before it saves the next one: hide it from mmengine.
        if len(self.key_indicators) == 1:
            if self.key_indicators[0] == "auto":  # from the first validation on, mmengine knows its metric
                self._forget_best_of_another_metric(runner, next(iter(metrics)))
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

    def _forget_best_of_another_metric(self, runner: Any, key: str) -> None:
        """A resumed checkpoint holds the best score of the ``save_best`` that it was written with."""
        info = runner.message_hub.runtime_info
        best = info.get("best_ckpt")
        if best and key != "auto" and not os.path.basename(best).startswith(f"best_{key.replace('/', '_')}_"):
            runner.logger.warning(
                f"{best} has the best score of another metric than save_best={key!r}, so the two are not "
                "compared; it is kept"
            )
            self.best_ckpt_path = None
            for name in ("best_ckpt", "best_score"):
                info.pop(name, None)

    @staticmethod
    def _keep_one(before: str | None, after: str | None) -> str | None:
        """Return the best checkpoint from now on; delete the previous one if a new one replaces it."""
        if before and after and before != after and is_main_process():
            _remove(before)
        return after or before


def _remove(path: str) -> None:
    if os.path.isfile(path):
        os.remove(path)
