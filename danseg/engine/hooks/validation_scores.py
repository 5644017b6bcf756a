"""Keep the scores of a training's validations in files, and make up for one that was cut off."""

import json
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop

from danseg.engine.dispensable import Dispensable
from danseg.engine.distributed import decided_on_rank_zero
from danseg.engine.hooks.safe_checkpoint import SafeCheckpointHook
from danseg.engine.validation_record import RECORD, read_record, write_record
from danseg.evaluation.metric import scores_report
from danseg.io.files import whole_file

VALIDATION = "validation.json"


@HOOKS.register_module()
class ValidationScoresHook(Hook):
    """Writes the scores of each validation.

    Those of the newest, with every class, go to ``validation.json`` beside the log, as ``iteration`` and what
    ``tools/test.py`` writes of its scores. Those of all, without classes, go to ``validations.json`` in the
    work dir (:mod:`danseg.engine.validation_record`).

    A training may end between a checkpoint and the validation that follows it. When it is resumed from that
    checkpoint, it validates first of all. So it does if a score was recorded whose best checkpoint is gone.
    """

    priority = "LOWEST"  # what others do before a training, or after a validation, is done

    def __init__(self) -> None:
        self._training = False
        self._record: list[dict[str, Any]] = []
        self._writing = Dispensable(f"{VALIDATION} and {RECORD}")

    def before_train(self, runner: Any) -> None:
        self._training = True
        if runner.iter == 0:
            return
        if is_main_process():
            self._record = read_record(runner.work_dir)
        if runner.val_loop is not None and decided_on_rank_zero(lambda: self._is_missing(runner)):
            runner.val_loop.run()

    def _is_missing(self, runner: Any) -> bool:
        if not is_due(runner.train_loop):
            return False
        scores = next((one for one in self._record if one["iteration"] == runner.iter), None)
        if scores is None:
            return True
        return any(
            isinstance(hook, SafeCheckpointHook) and hook.improved(runner, scores) for hook in runner.hooks
        )

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        if not (self._training and metrics and is_main_process()):
            return
        report = {"iteration": runner.iter, **scores_report(runner.val_evaluator.metrics, metrics)}
        others = [one for one in self._record if one["iteration"] != runner.iter]
        entry = {"iteration": runner.iter, **scores_report((), metrics)}
        self._record = sorted([*others, entry], key=lambda one: one["iteration"])
        with self._writing():
            with whole_file(Path(runner.log_dir) / VALIDATION) as part:
                part.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
            write_record(runner.work_dir, self._record)


def is_due(loop: BaseLoop) -> bool:
    """Whether a training that was not interrupted validates where ``loop`` is about to begin."""
    if isinstance(loop, EpochBasedTrainLoop):
        done, end = loop.epoch, loop.max_epochs
        between = loop.iter == loop.epoch * len(loop.dataloader)
    elif isinstance(loop, IterBasedTrainLoop):
        done, end, between = loop.iter, loop.max_iters, True
    else:
        return loop.iter >= loop.max_iters
    loop._decide_current_val_interval()
    return done >= max(loop.val_begin, 1) and (done >= end or (between and done % loop.val_interval == 0))
