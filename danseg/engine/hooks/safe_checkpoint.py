"""Delete an old checkpoint only after the new one is complete, and know from the files which there are."""

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop

from danseg.engine.dispensable import Dispensable
from danseg.engine.distributed import decided_on_rank_zero
from danseg.engine.hooks.unwritten_checkpoints import STOP, UnwrittenCheckpoints
from danseg.engine.validation_record import read_record
from danseg.engine.work_dir import NAMES, NOTE, Saved, saved_in
from danseg.errors import UserError
from danseg.io.files import whole_file
from danseg.io.words import listed


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, but it deletes an old checkpoint only after the new one is complete.

    If the process is killed or the disk is full, at least the previous checkpoint remains. Because the runner
    writes files atomically, this also holds for ``max_keep_ckpts=1`` and for the best checkpoint.

    A checkpoint cannot know what is written after it, such as the best one of the validation that follows. A
    resumed training therefore takes from the files in its folder which checkpoints there are, and which has
    the best of the scores stored in them; what a killed training could not delete any more goes then.
    So a checkpoint is written once, where mmengine's hook writes it again after a new best.

    Args:
        on_full_disk: "stop" ends the training if a checkpoint cannot be written; "go_on" warns, and tries
            again when the next one is due. The last one has to be written in any case.
        arguments: those of mmengine's hook.
    """

    # mmengine does not know that more of these is better.
    _default_greater_keys = [*CheckpointHook._default_greater_keys, "mFscore", "mPrecision", "mRecall"]

    best_ckpt_path: str | None  # set by mmengine's hook, like the next one
    best_ckpt_path_dict: dict[str, str | None]
    last_ckpt: str | None
    _saved_at: int | None = None  # the iteration of the newest checkpoint that is not the best one's

    def __init__(self, *args: Any, on_full_disk: str = STOP, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unwritten = UnwrittenCheckpoints(on_full_disk)
        self._note = Dispensable(NOTE)

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        with self._unwritten(self, runner, runner.iter + 1):
            super().after_train_iter(runner, *args, **kwargs)

    def after_train_epoch(self, runner: Any) -> None:
        with self._unwritten(self, runner, runner.iter):
            super().after_train_epoch(runner)

    def after_val_epoch(self, runner: Any, metrics: Any) -> None:
        with self._unwritten(self, runner, runner.iter):
            super().after_val_epoch(runner, metrics)

    def before_train(self, runner: Any) -> None:
        info = runner.message_hub.runtime_info
        local = "://" not in str(self.out_dir)
        self._resumed = local and runner.iter > 0
        self._kept: list[str] = []  # names, from the oldest on
        if local:  # a checkpoint says what was known before it was written, and where that was
            stale = ("keep_ckpt_ids", "last_ckpt", "best_ckpt", "best_score")
            for name in [one for one in info if one.startswith(stale)]:
                del info[name]
        super().before_train(runner)
        if not self._resumed:
            return
        self._kept, metric = decided_on_rank_zero(lambda: (self._clear(runner), self._metric(runner)))
        if self._kept:
            self._tell_kept(runner)
            self._write_note(runner)
            step = runner.epoch if self.by_epoch else runner.iter
            if self._kept[-1] in (f"iter_{runner.iter}.pth", self.filename_tmpl.format(step)):
                self._saved_at = runner.iter
        if metric:
            self._init_rule(self.rules, [metric])
        if self.save_best and self.key_indicators != ["auto"]:
            self._take_best(runner)

    def _names(self) -> dict[str, str]:
        return {**NAMES, self.filename_tmpl: "epoch" if self.by_epoch else "iter"}

    def _clear(self, runner: Any) -> list[str]:
        """Delete checkpoints beyond those to keep; return the names of the others, from the oldest on."""

        def iteration(one: Saved) -> float:
            loop = runner.train_loop
            by_epoch = one.unit == "epoch" and isinstance(loop, EpochBasedTrainLoop)
            return one.count * (loop.max_iters / loop.max_epochs if by_epoch else 1)

        progress = {"iter": runner.iter, "epoch": runner.epoch}
        found = [one for one in saved_in(self.out_dir, self._names()) if one.metric is None]
        found = sorted((one for one in found if not one.newer_than(progress)), key=iteration)
        names = [one.path.name for one in found]
        expired = names[: -self.max_keep_ckpts] if self.max_keep_ckpts > 0 else []
        for name in expired:
            _remove(os.path.join(self.out_dir, name))
        if expired:
            runner.logger.info(f"max_keep_ckpts={self.max_keep_ckpts}: {listed(expired)} removed")
        return names[len(expired) :]

    def _metric(self, runner: Any) -> str | None:
        """What save_best="auto" means, if a validation was recorded: the first of its scores."""
        if self.save_best is None or self.key_indicators != ["auto"]:
            return None
        scores = [name for one in read_record(runner.work_dir)[-1:] for name in one if name != "iteration"]
        return scores[0] if scores else None

    def _tell_kept(self, runner: Any) -> None:
        """Tell mmengine which checkpoints there are, and which is the newest."""
        self.last_ckpt = os.path.join(self.out_dir, self._kept[-1])
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        start, _, end = self.filename_tmpl.partition("{}")
        steps = [re.fullmatch(rf"{re.escape(start)}(\d+){re.escape(end)}", name) for name in self._kept]
        runner.message_hub.update_info("keep_ckpt_ids", [int(step[1]) for step in steps if step])

    def _write_note(self, runner: Any) -> None:
        note = Path(runner.work_dir, NOTE)
        with contextlib.suppress(OSError, ValueError):
            if note.read_text(encoding="utf-8") == self.last_ckpt:
                return
        with self._note(), whole_file(note, durable=True) as part:
            part.write_text(str(self.last_ckpt), encoding="utf-8")

    def _take_best(self, runner: Any) -> None:
        """Find the best checkpoint of every metric among the files."""
        best = decided_on_rank_zero(lambda: self._best_files(runner))
        for key, (score, path) in best.items():
            self._is_best(runner, key, score, path)

    def _is_best(self, runner: Any, key: str, score: float, path: str) -> None:
        runner.message_hub.update_info(self._info("best_score", key), score)
        runner.message_hub.update_info(self._info("best_ckpt", key), path)
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = path
        else:
            self.best_ckpt_path_dict[key] = path

    def _info(self, what: str, key: str) -> str:
        """The name under which mmengine's message hub holds it."""
        return what if len(self.key_indicators) == 1 else f"{what}_{key}"

    def _best_files(self, runner: Any) -> dict[str, tuple[float, str]]:
        """Score and path of the best checkpoint of each metric; the others of the metric are deleted."""
        found: dict[str, list[tuple[float, str]]] = {_in_name(key): [] for key in self.key_indicators}
        for one in saved_in(self.out_dir, self._names()):
            if one.metric is None:
                continue
            if one.metric not in found:
                runner.logger.warning(
                    f"{one.path} has the best score of another metric than save_best={self.key_indicators}, "
                    "so the two are not compared; it is kept"
                )
                continue
            key = next(key for key in self.key_indicators if _in_name(key) == one.metric)
            try:
                found[one.metric].append((_best_score(one.path, key), str(one.path)))
            except UserError as error:
                runner.logger.warning(f"not compared with, and kept: {error}")
        best = {}
        for key, rule in zip(self.key_indicators, self.rules, strict=True):
            files = sorted(found[_in_name(key)], key=lambda one: one[0], reverse=rule != "less")
            if files:
                best[key] = files[0]
            for _, path in files[1:]:
                _remove(path)
                runner.logger.info(f"{path} removed, {files[0][1]} is better")
        return best

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        self._write(runner, self.filename_tmpl.format(step), meta)

    def save_now(self, runner: Any, reached: Mapping[str, int]) -> None:
        """Write a checkpoint whose turn has not come, unless there is one. Every rank must call this.

        It is named after its iteration, in a schedule of epochs too, and counts among ``max_keep_ckpts``.

        Args:
            runner: the training's.
            reached: ``epoch`` and ``iter`` from which a resumed training has to go on.
        """
        if self._saved_at != reached["iter"]:
            name = "iter_{}.pth" if self.by_epoch else self.filename_tmpl
            self._write(runner, name.format(reached["iter"]), dict(reached))

    def _write(self, runner: Any, name: str, meta: dict) -> None:
        names = [*(one for one in self._kept if one != name), name]
        keep = self.max_keep_ckpts if self.max_keep_ckpts > 0 else len(names)
        expired, self._kept = names[:-keep], names[-keep:]
        self._tell_kept(runner)
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
        if not is_main_process():
            return
        self._write_note(runner)
        for old in expired:
            _remove(os.path.join(self.out_dir, old))

    def improved(self, runner: Any, scores: Mapping[str, float | None]) -> list[str]:
        """The metrics of ``save_best`` of which these scores are the best so far."""
        info, found = runner.message_hub.runtime_info, []
        for key, rule in zip(self.key_indicators, self.rules, strict=True) if self.save_best else ():
            score, best = scores.get(key), info.get(self._info("best_score", key))
            if score is None:
                continue
            if self.is_better_than[key](score, self.init_value_map[rule] if best is None else best):
                found.append(key)
        return found

    def _save_best_checkpoint(self, runner: Any, metrics: dict) -> None:
        if not self.save_best:
            return
        if self.key_indicators == ["auto"]:  # from the first validation on, its metric is known
            self._init_rule(self.rules, [next(iter(metrics))])
            if self._resumed:
                self._take_best(runner)
        for key in self.key_indicators:
            if key not in metrics:
                raise UserError(f"save_best={key!r} is not among the metrics: {', '.join(metrics)}")
        unit, step = ("epoch", runner.epoch) if self.by_epoch else ("iter", runner.iter)
        for key in self.improved(runner, metrics):
            before = runner.message_hub.runtime_info.get(self._info("best_ckpt", key))
            name = f"best_{_in_name(key)}_{self.filename_tmpl.format(step)}"
            path = os.path.join(self.out_dir, name)
            self._is_best(runner, key, metrics[key], path)
            runner.save_checkpoint(
                self.out_dir,
                filename=name,
                file_client_args=self.file_client_args,
                save_optimizer=False,
                save_param_scheduler=False,
                meta={"epoch": runner.epoch, "iter": runner.iter},
                by_epoch=False,
                backend_args=self.backend_args,
            )
            runner.logger.info(
                f"The best checkpoint with {metrics[key]:0.4f} {key} at {step} {unit} is saved to {name}."
            )
            if before and before != path and is_main_process():
                _remove(before)


def _in_name(metric: str) -> str:
    return metric.replace("/", "_")


def _best_score(path: Path, metric: str) -> float:
    """The score with which a best checkpoint was saved.

    Raises:
        UserError: the file is damaged or holds none.
    """
    from danseg.engine.checkpoints.checkpoint import read_checkpoint  # it imports another hook

    info = (read_checkpoint(path).get("message_hub") or {}).get("runtime_info") or {}
    for suffix in (f"_{metric}", ""):  # as one of several metrics, or alone
        if os.path.basename(str(info.get(f"best_ckpt{suffix}"))) == path.name:
            try:
                return float(info[f"best_score{suffix}"])
            except (KeyError, TypeError, ValueError):
                break
    raise UserError(f"{path} holds no best score of {metric}")


def _remove(path: str) -> None:
    if os.path.isfile(path):
        os.remove(path)
