"""Evaluate a checkpoint: compute scores, write them as JSON, write predictions and pictures."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process

from danseg.engine.checkpoints.checkpoint import load_state, read_checkpoint
from danseg.engine.checkpoints.downloads import local_file
from danseg.engine.config.agreement import check_agreement
from danseg.engine.config.exported_model import runs_exported
from danseg.engine.data import check_data
from danseg.engine.distributed import on_every_rank, on_rank_zero
from danseg.engine.runner import DansegRunner
from danseg.engine.summary import augmented_views
from danseg.errors import UserError
from danseg.evaluation.metric import scores_report
from danseg.io.files import make_folder, whole_file
from danseg.io.words import listed


def test(config: Config, checkpoint: str, *, log: Callable[[str], None] = print) -> dict[str, float]:
    """Evaluate ``checkpoint`` on the test set of a config.

    Writes the unrounded scores to ``metrics_<timestamp>.json`` in the work dir.

    Args:
        config: a config from :func:`danseg.engine.config.options.configure_test`.
        checkpoint: file that a training wrote, of safetensors, or an address of either; or the exported
            network that the config's model runs.
        log: where messages go before the runner's logger exists. The logger later repeats them in its file.

    Returns:
        Mean scores in percent, by name; empty if only predictions are written.

    Raises:
        UserError: any problem that the user can fix.
    """
    runner = ready_runner(config, checkpoint, log=log)
    metrics = runner.test()
    if is_main_process() and metrics:
        path = Path(runner.work_dir) / f"metrics_{runner.timestamp}.json"
        with whole_file(path) as part:
            report = json.dumps(evaluation_report(runner, checkpoint, metrics), indent=2)
            part.write_text(report + "\n", encoding="utf-8")
        runner.logger.info(f"Unrounded scores: {path}")
    return metrics


def ready_runner(config: Config, checkpoint: str, *, log: Callable[[str], None] = print) -> DansegRunner:
    """A runner that is ready to test: data and config are checked, and the weights are loaded.

    The arguments and errors are those of :func:`test`.
    """
    warnings = on_every_rank(lambda: check_agreement(config, "test"))
    exported = on_every_rank(lambda: runs_exported(config, checkpoint))
    if not exported:
        on_rank_zero(lambda: local_file(checkpoint))  # fetched once for all that share a cache
        read = on_every_rank(lambda: read_checkpoint(checkpoint))  # before anything is built
    metric = config.test_evaluator
    with_labels = not (isinstance(metric, dict) and metric.get("format_only"))
    reports = [f"warning: {warning}" for warning in warnings] if is_main_process() else []
    reports += on_rank_zero(lambda: check_data(config, ("test",), with_labels=with_labels)) or ()
    for report in reports:
        log(report)
    on_rank_zero(lambda: make_folder(config.work_dir, "the work dir", "choose --work-dir"))
    runner = DansegRunner.from_cfg(config)
    for report in reports:
        runner.logger.info(report)
    if exported:
        network: Any = runner.network
        read = dict(meta=dict(dataset_meta=network.backbone.dataset_meta))
    else:
        on_every_rank(lambda: load_state(runner.network, read, checkpoint))
    on_every_rank(lambda: _compare_classes(runner, read, checkpoint))
    runner.weights = str(checkpoint)
    return runner


def evaluation_report(runner: DansegRunner, checkpoint: str, metrics: dict[str, float]) -> dict[str, Any]:
    """What was tested, the means, and, if available, each class's scores, ready for ``json.dump``."""
    return {
        "config": runner.cfg.filename,
        "checkpoint": checkpoint if "://" in checkpoint else os.path.abspath(checkpoint),
        "tta": runner.cfg.model.get("module") is not None,
        "views": augmented_views(runner.cfg),
        **scores_report(runner.test_evaluator.metrics, metrics),
    }


def _compare_classes(runner: DansegRunner, read: dict, checkpoint: str) -> None:
    """Compare the classes that a checkpoint was trained with to those of the test set.

    Raises:
        UserError: they are the same in another order, so that every score would be that of another class.
    """
    meta = read.get("meta") or {}
    trained = (meta.get("dataset_meta") or {}).get("classes") or meta.get("CLASSES") or ()
    trained = [str(name).strip() for name in trained]
    tested = getattr(runner.test_dataloader.dataset, "metainfo", {}).get("classes") or ()
    tested = [str(name).strip() for name in tested]
    if not trained or not tested or trained == tested:
        return
    if sorted(trained) == sorted(tested):
        raise UserError(
            f"{checkpoint} was trained with the same classes in another order ({listed(trained)}) than those "
            f"of the test set ({listed(tested)}): give the data set's metainfo the former"
        )
    runner.logger.warning(
        f"{checkpoint} was trained with other classes ({listed(trained)}) than those it is tested with "
        f"({listed(tested)}); the scores compare them by their ids"
    )
