"""What loops, samplers, schedules, hooks and scores of a run have to agree on."""

import math
from collections.abc import Iterator
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, LoggerHook
from mmengine.optim.scheduler import ReduceOnPlateauParamScheduler
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmseg.evaluation import IoUMetric

from danseg.engine.config.building import unread_paramwise_keys
from danseg.engine.config.config_parts import Part, as_dict
from danseg.engine.config.rules.run import Run, is_a, is_known, takes
from danseg.engine.config.signatures import argument
from danseg.engine.config.total_batch import total_batch
from danseg.evaluation.metric import IOU_METRICS, ExactIoUMetric
from danseg.io.words import did_you_mean

# The means that each of `iou_metrics` gives, after aAcc.
_MEANS = {
    "mIoU": ("mIoU", "mAcc"),
    "mDice": ("mDice", "mAcc"),
    "mFscore": ("mFscore", "mPrecision", "mRecall"),
}
_TOGETHER = {
    "train": ("train_dataloader", "train_cfg", "optim_wrapper"),
    "val": ("val_dataloader", "val_cfg", "val_evaluator"),
    "test": ("test_dataloader", "test_cfg", "test_evaluator"),
}


def all_or_none(run: Run) -> Iterator[str]:
    """The entries without which a task or its validation cannot run."""
    for what in ("train", "val") if run.task == "train" else ("test",):
        keys = _TOGETHER[what]
        missing = [key for key in keys if run.config.get(key) is None]
        if missing and (what == run.task or len(missing) < len(keys)):
            rest = "" if what == run.task else f", or none of {', '.join(keys)} for a run without validation"
            yield f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set: set it{rest}"
    for split in run.splits:
        loader = run.config[f"{split}_dataloader"]
        for key in ("dataset", "sampler"):
            if loader.get(key) is None:
                example = ": dict(type='DefaultSampler', shuffle=False)" if key == "sampler" else ""
                yield f"{split}_dataloader.{key} is missing{example}"
        if list(run.datasets(split)) and not list(run.transforms(split)):
            yield f"{split}_dataloader.dataset.pipeline has no transforms: the last one is PackSegInputs"


def endless_samplers(run: Run) -> Iterator[str]:
    """A sampler without end belongs to a loop that counts iterations."""
    for split in run.splits:
        for key in ("sampler", "batch_sampler"):
            sampler = next(run.at(f"{split}_dataloader.{key}"), None)
            if not is_a(sampler, InfiniteSampler) or sampler is None:
                continue
            said = f"{sampler.place}.type={sampler.config['type']!r} never ends"
            if split != "train":
                yield f"{said}, so neither would {split}_cfg: set {sampler.place}.type=DefaultSampler"
            elif is_a(run.loop("train"), EpochBasedTrainLoop):
                yield (
                    f"{said}, so neither would an epoch of train_cfg: set {sampler.place}.type="
                    "DefaultSampler, or train_cfg.type=IterBasedTrainLoop"
                )


def iterations_or_epochs(run: Run) -> Iterator[str]:
    """``by_epoch`` of schedules and hooks in a training whose loop counts iterations and has no epochs."""
    if run.task != "train" or not is_a(run.loop("train"), IterBasedTrainLoop):
        return
    loop = "train_cfg counts iterations (IterBasedTrainLoop)"
    for scheduler in run.schedulers():
        if argument(scheduler, "by_epoch") and not scheduler.config.get("convert_to_iter_based"):
            yield (
                f"{scheduler.place}.by_epoch=True never takes a step, because {loop}: set "
                f"{scheduler.place}.by_epoch=False"
            )
    for hook in run.hooks():
        interval = argument(hook, "interval")
        counts = not isinstance(interval, int) or interval > 0
        known = is_known(hook) or is_a(hook, CheckpointHook)
        if known and takes(hook, "by_epoch") and argument(hook, "by_epoch") and counts:
            yield (
                f"{hook.place}.by_epoch=True counts epochs, but {loop}: set {hook.place}.by_epoch=False, "
                "with intervals in iterations"
            )


def logs_by_epoch(run: Run) -> Iterator[str]:
    """A warning: logs whose axis is the epoch, of which such a training has one."""
    if run.task != "train" or not is_a(run.loop("train"), IterBasedTrainLoop):
        return
    wrong = [
        f"{hook.place}.log_metric_by_epoch"
        for hook in run.hooks()
        if is_a(hook, LoggerHook) and argument(hook, "log_metric_by_epoch")
    ]
    wrong += [f"{part.place}.by_epoch" for part in run.at("log_processor") if argument(part, "by_epoch")]
    if wrong:
        yield (
            f"{' and '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} True, but train_cfg counts "
            "iterations: logs and curves would show epoch 1 throughout; set False"
        )


def never_reached(run: Run) -> Iterator[str]:
    """Validations and checkpoints that begin after the training's end."""
    length, unit = _length(run)
    loop = run.loop("train") if run.task == "train" else None
    if length is None or loop is None:
        return
    begin = argument(loop, "val_begin")
    if isinstance(begin, int) and begin > length and "val" in run.splits:
        yield f"train_cfg.val_begin={begin}, but train_cfg.{unit}={length}: the training is never validated"
    for hook in run.hooks():
        if not is_a(hook, CheckpointHook) or not _same_unit(run, hook):
            continue
        interval, last = argument(hook, "interval"), argument(hook, "save_last")
        start = argument(hook, "save_begin") or 0
        if not isinstance(interval, int) or not isinstance(start, int):
            continue
        if (interval <= 0 or interval > length or start > length) and not last:
            yield (
                f"{hook.place}.interval={interval} and {hook.place}.save_last=False, but "
                f"train_cfg.{unit}={length}: no checkpoint would be saved"
            )


def _length(run: Run) -> tuple[int | None, str]:
    """How long the training is, and in what it is counted."""
    loop = run.loop("train")
    unit = "max_epochs" if is_a(loop, EpochBasedTrainLoop) else "max_iters"
    length = loop.config.get(unit) if loop is not None else None
    return (length if isinstance(length, int) else None), unit


def _same_unit(run: Run, part: Part) -> bool:
    return bool(argument(part, "by_epoch")) == is_a(run.loop("train"), EpochBasedTrainLoop)


def schedule_ends(run: Run) -> Iterator[str]:
    """A warning: the last schedule ends before or after the training does."""
    length, unit = _length(run)
    ends = {}
    for scheduler in run.schedulers():
        end = scheduler.config.get("end")
        if end is None or not _same_unit(run, scheduler) or scheduler.config.get("convert_to_iter_based"):
            return  # ends with the training, or in another unit
        if isinstance(end, (int, float)) and not math.isinf(end):
            ends[f"{scheduler.place}.end"] = end
    if length is not None and ends and max(ends.values()) != length:
        place = max(ends, key=lambda key: ends[key])
        what = "stays as it is after that" if ends[place] < length else "does not reach the end of its curve"
        yield f"{place}={ends[place]}, but train_cfg.{unit}={length}: the learning rate {what}"


def scores(run: Run) -> Iterator[str]:
    """Names of scores, in hooks and schedules that follow one, against those that validation gives."""
    for split in run.splits:
        for metric in run.metrics(split):
            for name in _asked(metric) or ():
                if name not in IOU_METRICS and is_a(metric, (IoUMetric, ExactIoUMetric)):
                    hint = did_you_mean(name, IOU_METRICS)
                    yield f"{metric.place}.iou_metrics={name!r}: choose from {', '.join(IOU_METRICS)}{hint}"
    if run.task != "train" or "val" not in run.splits:
        return
    known = _names(run)
    for place, name, rule in _followed(run):
        if known is None:
            continue
        several = len(list(run.datasets("val"))) > 1  # ExactIoUMetric gives "set/mIoU" for each of them
        if several and name.rpartition("/")[2] in known:
            continue
        if name not in known and name != "auto":
            yield (
                f"{place}={name!r} is not among the scores of val_evaluator: "
                f"{', '.join(known)}{did_you_mean(name, known)}"
            )
        elif rule == "less":
            at = f"{place.rpartition('.')[0]}.rule"
            yield f"{at}='less' keeps the worst {name}: set {at}='greater' for {place}={name!r}"


def best_of_nothing(run: Run) -> Iterator[str]:
    """Warnings: a best checkpoint that is never saved, or is the best by a score that nobody named."""
    if run.task != "train":
        return
    for place, name, _ in _followed(run):
        if "val" not in run.splits:
            yield f"{place}={name!r} has no effect, because the training is never validated"
        elif name == "auto" and len(known := _names(run) or ()) > 1:
            yield f"{place}='auto' follows the first of {', '.join(known)}: name the one you mean"


def _asked(metric: Part) -> tuple[str, ...] | None:
    asked: Any = argument(metric, "iou_metrics")
    return (asked,) if isinstance(asked, str) else tuple(map(str, asked)) if _is_list(asked) else None


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _names(run: Run) -> list[str] | None:
    """Names of the scores of a validation; None if a metric is not one of danseg's or mmseg's."""
    names: list[str] = []
    for metric in run.metrics("val"):
        asked = _asked(metric)
        if not is_a(metric, (IoUMetric, ExactIoUMetric)) or asked is None:
            return None
        prefix = argument(metric, "prefix")
        own = ["aAcc", *(name for one in asked for name in _MEANS.get(one, ()))]
        if argument(metric, "format_only"):
            own = []
        names += [f"{prefix}/{name}" if prefix else name for name in own]
    return list(dict.fromkeys(names)) or None


def _followed(run: Run) -> Iterator[tuple[str, str, Any]]:
    """Place, name and rule of every score that a hook or a schedule follows."""
    for part in [*run.hooks(), *run.schedulers()]:
        key = "save_best" if is_a(part, CheckpointHook) else "monitor"
        if not is_a(part, (CheckpointHook, EarlyStoppingHook, ReduceOnPlateauParamScheduler)):
            continue
        names: Any = part.config.get(key)
        rules = argument(part, "rule")
        names = [names] if isinstance(names, str) else names if _is_list(names) else []
        rules = list(rules) if _is_list(rules) else [rules]
        for index, name in enumerate(map(str, names)):
            rule = rules[index] if index < len(rules) else rules[0] if rules else None
            yield f"{part.place}.{key}", name, rule if key == "save_best" or "rule" in part.config else None


def unread_rules(run: Run) -> Iterator[str]:
    """Keys of ``optim_wrapper.paramwise_cfg`` that nothing reads."""
    if run.task == "train":
        yield from unread_paramwise_keys(run.config)


def batch_of_the_recipe(run: Run) -> Iterator[str]:
    """A warning: the learning rate was chosen for another total batch."""
    if run.task != "train":
        return
    scale = as_dict(run.config.get("auto_scale_lr"))
    base, total = scale.get("base_batch_size"), total_batch(run.config, run.world_size)
    if not base or not total or base == total or scale.get("enable"):
        return
    rate = as_dict(as_dict(run.config.get("optim_wrapper")).get("optimizer")).get("lr")
    other = f", which would be {rate * total / base:g}" if isinstance(rate, (int, float)) else ""
    yield (
        f"optim_wrapper.optimizer.lr={rate} is for a total batch of auto_scale_lr.base_batch_size={base}, "
        f"this run has {total}: --auto-scale-lr scales it{other}"
    )


def checkpoints_within_a_step(run: Run) -> Iterator[str]:
    """A warning: checkpoints between the iterations whose gradients are gathered for one step."""
    gathered = as_dict(run.config.get("optim_wrapper")).get("accumulative_counts") or 1
    for hook in run.hooks() if run.task == "train" else ():
        interval = argument(hook, "interval")
        if not is_a(hook, CheckpointHook) or argument(hook, "by_epoch") or not isinstance(interval, int):
            continue
        if interval > 0 and interval % gathered:
            whole = max(round(interval / gathered), 1) * gathered
            yield (
                f"{hook.place}.interval={interval} is no multiple of optim_wrapper.accumulative_counts="
                f"{gathered}: resumed from a checkpoint within a step, a training lacks the gradients that "
                f"were gathered for it; set {hook.place}.interval={whole}"
            )


DISAGREEMENTS = (
    all_or_none,
    endless_samplers,
    iterations_or_epochs,
    never_reached,
    scores,
    unread_rules,
)
WARNINGS = (logs_by_epoch, schedule_ends, best_of_nothing, batch_of_the_recipe, checkpoints_within_a_step)
