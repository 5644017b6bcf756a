"""Loops, samplers, schedules, hooks and scores: each config is broken in one place."""

import pytest

from broken_config import messages, only_names, tiny_with
from danseg.engine.config.agreement import check_agreement, disagreements

CHECKPOINT = "default_hooks.checkpoint"


def said_about(options, task="train"):
    return check_agreement(tiny_with(options), task)


@pytest.mark.parametrize(
    ("options", "task", "keys"),
    [
        ({"train_cfg": None}, "train", ["train_cfg"]),
        ({"val_evaluator": None}, "train", ["val_evaluator", "val_cfg"]),
        ({"test_cfg": None}, "test", ["test_cfg"]),
        ({"train_dataloader.sampler": None}, "train", ["train_dataloader.sampler"]),
        ({"train_dataloader.batch_size": 0}, "train", ["train_dataloader.batch_size"]),
        ({"train_cfg.val_interval": 0}, "train", ["train_cfg.val_interval"]),
        ({"train_cfg.max_iters": 0.5}, "train", ["train_cfg.max_iters"]),
        ({"optim_wrapper.accumulative_counts": 0}, "train", ["optim_wrapper.accumulative_counts"]),
        ({"auto_scale_lr.base_batch_size": "8"}, "train", ["auto_scale_lr.base_batch_size"]),
        (
            {"val_dataloader.sampler.type": "InfiniteSampler"},
            "train",
            ["val_dataloader.sampler.type", "val_cfg"],
        ),
        (
            {"test_dataloader.sampler.type": "InfiniteSampler"},
            "test",
            ["test_dataloader.sampler.type", "test_cfg"],
        ),
        ({"param_scheduler.0.by_epoch": True}, "train", ["param_scheduler.0.by_epoch", "train_cfg"]),
        ({f"{CHECKPOINT}.by_epoch": True}, "train", [f"{CHECKPOINT}.by_epoch", "train_cfg"]),
        ({"train_cfg.val_begin": 5}, "train", ["train_cfg.val_begin", "train_cfg.max_iters"]),
        (
            {f"{CHECKPOINT}.interval": 5, f"{CHECKPOINT}.save_last": False},
            "train",
            [f"{CHECKPOINT}.interval", f"{CHECKPOINT}.save_last", "train_cfg.max_iters"],
        ),
        ({f"{CHECKPOINT}.save_best": "mDice"}, "train", [f"{CHECKPOINT}.save_best", "val_evaluator"]),
        ({f"{CHECKPOINT}.save_best": ["mIoU", "mIou"]}, "train", [f"{CHECKPOINT}.save_best"]),
        ({f"{CHECKPOINT}.rule": "less"}, "train", [f"{CHECKPOINT}.rule", f"{CHECKPOINT}.save_best"]),
        ({"val_evaluator.prefix": "val"}, "train", [f"{CHECKPOINT}.save_best"]),
        ({"val_evaluator.iou_metrics": ["mIoU", "mDise"]}, "train", ["val_evaluator.iou_metrics"]),
        ({"test_evaluator.iou_metrics": "mIou"}, "test", ["test_evaluator.iou_metrics"]),
        (
            {"optim_wrapper.paramwise_cfg": dict(norm_decay_mul=0.0)},
            "train",
            ["optim_wrapper.paramwise_cfg.norm_decay_mul"],
        ),
    ],
)
def test_a_run_that_contradicts_itself(options, task, keys):
    only_names(messages(options, task), *keys)


@pytest.mark.parametrize("rule", ["greater", None])
@pytest.mark.parametrize("monitor", ["mIoU", "mDice"])
def test_the_score_that_a_hook_follows(monitor, rule):
    config = tiny_with({})
    config.custom_hooks = [dict(type="EarlyStoppingHook", monitor=monitor, rule=rule)]
    found = list(disagreements(config, "train"))
    if monitor == "mIoU":
        assert found == []
    else:
        only_names(found, "custom_hooks.0.monitor", "val_evaluator")


def test_the_score_that_a_schedule_follows():
    config = tiny_with({})
    config.param_scheduler = dict(type="ReduceOnPlateauLR", monitor="loss", by_epoch=False, end=4)
    only_names(list(disagreements(config, "train")), "param_scheduler.monitor")


def test_names_of_scores_by_prefix_and_metric():
    both = [
        dict(type="IoUMetric", iou_metrics=["mFscore"], prefix="mmseg"),
        dict(type="ExactIoUMetric", iou_metrics=["mDice"]),
    ]

    def with_best(name):
        config = tiny_with({f"{CHECKPOINT}.save_best": name})
        config.val_evaluator = both
        return list(disagreements(config, "train"))

    for name in ("mmseg/mFscore", "mmseg/mPrecision", "mmseg/aAcc", "mDice", "mAcc", "aAcc"):
        assert with_best(name) == []
    only_names(with_best("mFscore"), f"{CHECKPOINT}.save_best")
    both.append(dict(type="CityscapesMetric", output_dir="out"))  # nobody knows what it gives
    assert with_best("anything") == []


def test_the_sampler_without_end_in_epochs():
    config = tiny_with({})
    config.train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=2)
    only_names(list(disagreements(config, "train")), "train_dataloader.sampler.type", "train_cfg.type")
    config.train_cfg = dict(by_epoch=True, max_epochs=2)
    assert len(list(disagreements(config, "train"))) == 1


def test_epochs_with_their_schedule():
    config = tiny_with({"train_dataloader.sampler.type": "DefaultSampler", f"{CHECKPOINT}.by_epoch": True})
    config.train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=2)
    config.param_scheduler = [dict(type="PolyLR", end=2, by_epoch=True, convert_to_iter_based=True)]
    assert list(disagreements(config, "train")) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"param_scheduler.0.end": 40000}, "param_scheduler.0.end=40000, but train_cfg.max_iters=4"),
        ({"param_scheduler.0.end": 3}, "stays as it is after that"),
        (
            {"default_hooks.logger.log_metric_by_epoch": True},
            "default_hooks.logger.log_metric_by_epoch is True",
        ),
        ({"log_processor.by_epoch": True}, "log_processor.by_epoch is True"),
        ({f"{CHECKPOINT}.save_best": "auto"}, f"{CHECKPOINT}.save_best='auto'"),
        (
            {"optim_wrapper.accumulative_counts": 3, f"{CHECKPOINT}.interval": 4},
            f"{CHECKPOINT}.interval=4 is no multiple of optim_wrapper.accumulative_counts=3: resumed from a "
            "checkpoint within a step, a training lacks the gradients that were gathered for it; set "
            f"{CHECKPOINT}.interval=3",
        ),
        (
            {"optim_wrapper.accumulative_counts": 4, f"{CHECKPOINT}.interval": 1},
            f"set {CHECKPOINT}.interval=4",
        ),
        (
            {"val_dataloader": None, "val_cfg": None, "val_evaluator": None},
            f"{CHECKPOINT}.save_best='mIoU' has no effect",
        ),
    ],
)
def test_what_a_user_may_want_but_should_know(options, text):
    assert messages(options) == []
    assert [said for said in said_about(options) if text in said]
    assert not [said for said in said_about({}) if text in said]


@pytest.mark.parametrize(("counts", "interval"), [(2, 4), (1, 3), (4, 0), (2, -1)])
def test_checkpoints_at_the_end_of_a_step_are_fine(counts, interval):
    options = {"optim_wrapper.accumulative_counts": counts, f"{CHECKPOINT}.interval": interval}
    assert not [said for said in said_about(options) if "accumulative_counts=" in said]


def test_the_learning_rate_of_another_batch():
    (said,) = said_about({})
    assert "optim_wrapper.optimizer.lr=0.02" in said and "auto_scale_lr.base_batch_size=8" in said
    assert "this run has 2" in said and "would be 0.005" in said  # 0.02 * 2 / 8
    assert said_about({"train_dataloader.batch_size": 8}) == []
    assert said_about({"optim_wrapper.accumulative_counts": 4, f"{CHECKPOINT}.interval": 4}) == []
    assert said_about({"auto_scale_lr.enable": True}) == []
    assert said_about({}, "test") == []
