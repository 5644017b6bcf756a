"""One evaluation of a checkpoint: scores, their JSON, prediction files, pictures."""

import importlib
import json
import math
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from danseg.datasets.wrappers import inner_configs
from danseg.engine.checkpoint import load_state, load_weights, read_checkpoint
from danseg.engine.data import check_data
from danseg.engine.distributed import on_rank_zero
from danseg.engine.runner import DansegRunner, drop_pretrained
from danseg.engine.work_dir import make_work_dir
from danseg.errors import UserError


def configure_test(
    config: Config,
    *,
    tta: bool = False,
    out: str | None = None,
    show_dir: str | None = None,
    format_only: bool = False,
) -> None:
    """Turn a training config into that of one evaluation.

    Args:
        config: changed in place.
        tta: average the predictions over the config's ``tta_pipeline`` (scales and flips).
        out: folder for one PNG of ids an image, in the evaluator's ``output_format``.
        show_dir: folder for one picture an image: image, truth, prediction.
        format_only: write predictions without looking for labels; needs ``out``.

    Raises:
        UserError: the options or the config's parts do not go together.
    """
    for key in ("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler", "auto_scale_lr"):
        config[key] = None
    for key in ("val_dataloader", "val_cfg", "val_evaluator", "load_from"):
        config[key] = None
    config.resume = False
    for key in ("test_dataloader", "test_evaluator"):
        if not config.get(key):
            raise UserError(f"config {config.filename} has no {key}, so there is nothing to test on")
    config.test_cfg = config.get("test_cfg") or {"type": "TestLoop"}
    drop_pretrained(config.model)
    if tta:
        _use_tta(config)
    if format_only and not out:
        raise UserError("--format-only writes predictions and computes no scores: name a folder with --out")
    if out or format_only:
        evaluators = config.test_evaluator
        evaluators = evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]
        writers = [one for one in evaluators if one.get("type") in ("ExactIoUMetric", "IoUMetric")]
        if not writers:
            kinds = ", ".join(str(one.get("type")) for one in evaluators)
            raise UserError(f"--out: test_evaluator ({kinds}) writes no predictions; use ExactIoUMetric")
        writers[0].update(output_dir=out, format_only=format_only)
        if format_only:
            config.test_evaluator = writers[0]
            for dataset in inner_configs(config.test_dataloader.dataset):
                _without_labels(dataset)
    if show_dir:
        importlib.import_module("danseg.visualization.hook")  # registers SaveComparison
        config.custom_hooks = [
            *(config.get("custom_hooks") or []),
            {"type": "SaveComparison", "out_dir": show_dir},
        ]


def _use_tta(config: Config) -> None:
    missing = [key for key in ("tta_model", "tta_pipeline") if not config.get(key)]
    if missing:
        raise UserError(f"--tta: config {config.filename} has no {' and no '.join(missing)}")
    for dataset in inner_configs(config.test_dataloader.dataset):
        dataset.pipeline = config.tta_pipeline
    config.model = {**config.tta_model, "module": config.model}


def _without_labels(dataset: dict) -> None:
    """Take the loading of labels out of a pipeline, test-time augmentation included."""

    def strip(transforms: Any) -> Any:
        if isinstance(transforms, (list, tuple)):
            kept = [strip(one) for one in transforms]
            return [one for one in kept if one is not None and one != []]
        if isinstance(transforms, dict):
            if transforms.get("type") == "LoadAnnotations":
                return None
            if "transforms" in transforms:
                transforms["transforms"] = strip(transforms["transforms"])
        return transforms

    dataset["pipeline"] = strip(dataset["pipeline"])
    dataset["test_mode"] = True


def segmentor(model: nn.Module) -> nn.Module:
    """The network inside the wrappers of distributed running and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def test(config: Config, checkpoint: str, *, log=print) -> dict[str, float]:
    """Evaluate ``checkpoint`` on the test set of a config from :func:`configure_test`.

    Writes ``metrics_<timestamp>.json`` with the unrounded scores into the work dir.

    Returns:
        Means in percent by name; empty when only predictions are written.

    Raises:
        UserError: whatever the user can put right.
    """
    os.environ.setdefault("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    read = on_rank_zero(lambda: read_checkpoint(checkpoint))  # before anything is built
    metric = config.test_evaluator
    with_labels = not (isinstance(metric, dict) and metric.get("format_only"))
    for report in on_rank_zero(lambda: check_data(config, ("test",), with_labels=with_labels)) or ():
        log(report)
    on_rank_zero(lambda: make_work_dir(config.work_dir))
    runner = DansegRunner.from_cfg(config)
    network = segmentor(runner.model)
    on_rank_zero(lambda: load_state(network, read, checkpoint))
    if not is_main_process():
        load_weights(network, checkpoint)
    runner.logger.info(f"Evaluating {checkpoint}")
    metrics = runner.test()
    if is_main_process() and metrics:
        path = Path(runner.work_dir) / f"metrics_{runner.timestamp}.json"
        path.write_text(json.dumps(_report(runner, checkpoint, metrics), indent=2) + "\n", encoding="utf-8")
        runner.logger.info(f"Unrounded scores: {path}")
    return metrics


def _report(runner: DansegRunner, checkpoint: str, metrics: dict[str, float]) -> dict[str, Any]:
    """What the JSON holds: what was evaluated, the means, and every class where the metric has them."""
    report: dict[str, Any] = {
        "config": runner.cfg.filename,
        "checkpoint": os.path.abspath(checkpoint),
        "tta": runner.cfg.model.get("module") is not None,
        **{name: _number(value) for name, value in metrics.items()},
    }
    for metric in runner.test_evaluator.metrics:
        if getattr(metric, "scores", None) is not None:
            report.update(metric.scores.as_dict())
    return report


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None  # JSON has no NaN
