"""Delete an old checkpoint only after the new one is complete."""

import os
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS

from danseg.errors import UserError
from danseg.io.files import whole_file

_UNSCHEDULED = "unscheduled_ckpt"  # what the checkpoint that a signal asked for is called


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, but it deletes an old checkpoint only after the new one is complete.

    If the process is killed or the disk is full, at least the previous checkpoint remains. Because the runner
    writes files atomically, this also holds for ``max_keep_ckpts=1`` and for the best checkpoint.
    """

    # mmengine does not know that more of these is better.
    _default_greater_keys = [*CheckpointHook._default_greater_keys, "mFscore", "mPrecision", "mRecall"]

    _saved_at: int | None = None  # the iteration of the newest checkpoint that is not the best one's
    best_ckpt_path: str | None  # set by mmengine's hook, like the next one
    best_ckpt_path_dict: dict[str, str | None]

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

    def save_now(self, runner: Any, reached: dict[str, int]) -> None:
        """Write a checkpoint outside the schedule, unless there is one. Every rank must call this.

        In a schedule of epochs it is named after its iteration all the same, and goes once its epoch's is
        there.

        Args:
            reached: ``epoch`` and ``iter`` from which a resumed training has to go on.
        """
        if self._saved_at == reached["iter"]:
            return
        if not self.by_epoch:
            self._save_checkpoint_with_step(runner, reached["iter"], dict(reached))
            return
        name = f"iter_{reached['iter']}.pth"
        runner.message_hub.update_info(_UNSCHEDULED, name)
        self._write(runner, name, dict(reached))

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        unscheduled = runner.message_hub.runtime_info.pop(_UNSCHEDULED, None)
        expired: list[int] = []
        if self.max_keep_ckpts > 0:
            ids = [*(i for i in self.keep_ckpt_ids if i != step), step]
            expired, kept = ids[: -self.max_keep_ckpts], ids[-self.max_keep_ckpts :]
            self.keep_ckpt_ids.clear()
            self.keep_ckpt_ids.extend(kept)
            runner.message_hub.update_info("keep_ckpt_ids", kept)
        self._write(runner, self.filename_tmpl.format(step), meta)
        if not is_main_process():
            return
        for old in expired:
            _remove(os.path.join(self.out_dir, self.filename_tmpl.format(old)))
        if unscheduled and self.max_keep_ckpts > 0:
            _remove(os.path.join(self.out_dir, unscheduled))

    def _write(self, runner: Any, name: str, meta: dict) -> None:
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
        self._saved_at = meta["iter"]
        if is_main_process():
            with whole_file(Path(runner.work_dir, "last_checkpoint"), durable=True) as part:
                part.write_text(self.last_ckpt, encoding="utf-8")

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
