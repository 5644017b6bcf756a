"""Keep the scores of a training's last validation in a file, and make up for one that was cut off."""

import json
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from danseg.engine.dispensable import Dispensable
from danseg.evaluation.metric import scores_report
from danseg.io.files import whole_file

VALIDATION = "validation.json"


@HOOKS.register_module()
class ValidationScoresHook(Hook):
    """Writes the scores of each validation, with those of every class, to ``validation.json`` beside the log.

    The file holds the newest validation, as ``iteration`` and what ``tools/test.py`` writes of its scores.

    A training may end between its last checkpoint and the validation that follows it. Resumed from that
    checkpoint it has no iteration left, after which mmengine would validate, so it validates first of all.
    """

    priority = "VERY_LOW"  # what others do before a training, or after a validation, is done

    def __init__(self) -> None:
        self._training = False
        self._writing = Dispensable(VALIDATION)

    def before_train(self, runner: Any) -> None:
        self._training = True
        if runner.iter >= runner.max_iters and runner.val_loop is not None:
            runner.val_loop.run()

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        if not (self._training and metrics and is_main_process()):
            return
        report = {"iteration": runner.iter, **scores_report(runner.val_evaluator.metrics, metrics)}
        with self._writing(), whole_file(Path(runner.log_dir) / VALIDATION) as part:
            part.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
