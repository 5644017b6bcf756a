"""Editing a config: each option reaches its place, or an error says why it cannot."""

import importlib.util
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, EarlyStoppingHook

from danseg.engine.config import options
from danseg.engine.config.config_file import load_config
from danseg.engine.config.options import (
    add_tensorboard,
    choose_work_dir,
    configure_test,
    configure_training,
    continue_from,
    count_when_resumed,
    drop_pretrained,
    keep_checkpoints,
    pretrained_source,
    use_mixed_precision,
)
from danseg.errors import UserError

TINY = Path(__file__).parents[1] / "tiny.py"
SCHEDULES = Path(__file__).parents[3] / "configs" / "_base_" / "schedules"


def wrapped(**extra):
    return Config({"optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "SGD"}, **extra}})


def test_the_default_precision_follows_the_device(monkeypatch):
    for device, kind in (("cpu", "BFloat16OptimWrapper"), ("cuda", "AmpOptimWrapper")):
        monkeypatch.setattr(options, "get_device", lambda device=device: device)
        config = wrapped()
        use_mixed_precision(config, "auto")
        assert config.optim_wrapper.type == kind


def test_float16_on_cpu_is_refused(monkeypatch):
    monkeypatch.setattr(options, "get_device", lambda: "cpu")
    with pytest.raises(UserError, match="needs a GPU; on CPU use --amp bfloat16"):
        use_mixed_precision(wrapped(), "float16")


def test_a_wrapper_with_a_precision_of_its_own_is_not_replaced():
    with pytest.raises(UserError, match="'ApexOptimWrapper'"):
        use_mixed_precision(wrapped(type="ApexOptimWrapper"), "bfloat16")


def test_options_of_a_training_reach_the_config():
    config = load_config(TINY)
    configure_training(
        config,
        launcher="pytorch",
        work_dir="w",
        seed=3,
        deterministic=True,
        amp="bfloat16",
        auto_scale_lr=True,
    )
    assert (config.launcher, config.work_dir) == ("pytorch", "w")
    assert config.randomness == dict(seed=3, deterministic=True)
    assert config.optim_wrapper.type == "BFloat16OptimWrapper"
    assert config.auto_scale_lr.enable


def test_without_options_a_config_decides():
    config = load_config(TINY, {"randomness": dict(seed=5)})
    configure_training(config)
    assert (config.launcher, config.work_dir) == ("none", "work_dirs/tiny")
    assert config.randomness == dict(seed=5)
    assert config.optim_wrapper.type == "OptimWrapper"
    assert not config.auto_scale_lr.enable

    config = load_config(TINY, {"work_dir": "of_the_config"})
    configure_training(config)
    assert config.work_dir == "of_the_config" and config.randomness == dict(seed=None)


def test_a_learning_rate_for_an_unknown_batch_is_not_scaled():
    config = load_config(TINY, {"auto_scale_lr": None})
    with pytest.raises(UserError, match=r"auto_scale_lr\.base_batch_size=N"):
        configure_training(config, auto_scale_lr=True)


def test_curves_go_to_tensorboard_where_it_is(monkeypatch):
    def kinds(found):
        config = load_config(TINY, {"visualizer.vis_backends": None})
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
        add_tensorboard(config)
        add_tensorboard(config)  # it is not added twice
        return [backend["type"] for backend in config.visualizer.vis_backends]

    assert kinds(None) == ["LocalVisBackend"]
    assert kinds(object()) == ["LocalVisBackend", "TensorboardVisBackend"]


@pytest.mark.parametrize("kind", ["CheckpointHook", "mmengine.CheckpointHook", CheckpointHook])
def test_a_hook_that_deletes_before_it_writes_is_replaced_aloud(kind):
    config = Config(
        dict(
            default_hooks=dict(checkpoint=dict(type=kind, interval=2)),
            custom_hooks=[dict(type=kind, interval=1), dict(type="EMAHook")],
        )
    )
    said = keep_checkpoints(config)
    assert "SafeCheckpointHook takes the place of the config's CheckpointHook" in said
    assert config.default_hooks.checkpoint == dict(type="SafeCheckpointHook", interval=2)
    assert [hook["type"] for hook in config.custom_hooks] == ["SafeCheckpointHook", "EMAHook"]
    assert keep_checkpoints(config) is None


@pytest.mark.parametrize("kind", ["EarlyStoppingHook", "mmengine.EarlyStoppingHook", EarlyStoppingHook])
def test_early_stopping_counts_when_resumed(kind):
    hooks = [dict(type=kind, monitor="mIoU"), dict(type="EMAHook")]
    config = Config(dict(default_hooks=dict(stop=dict(type=kind, monitor="mAcc")), custom_hooks=hooks))
    count_when_resumed(config)
    assert config.default_hooks.stop == dict(type="SafeEarlyStoppingHook", monitor="mAcc")
    assert [hook["type"] for hook in config.custom_hooks] == ["SafeEarlyStoppingHook", "EMAHook"]
    count_when_resumed(Config(dict()))


@pytest.mark.parametrize(
    ("hooks", "expected"),
    [
        (None, dict(type="SafeCheckpointHook")),
        (dict(), dict(type="SafeCheckpointHook")),
        (dict(checkpoint=None), None),
        (dict(checkpoint=dict(type="MyCheckpointHook")), dict(type="MyCheckpointHook")),
    ],
    ids=["no hooks", "none named", "switched off", "the user's own"],
)
def test_other_checkpoint_hooks_stay(hooks, expected):
    config = Config(dict(default_hooks=hooks))
    assert keep_checkpoints(config) is None
    assert config.default_hooks.checkpoint == expected


def test_every_schedule_names_the_hook_it_means():
    paths = sorted(SCHEDULES.glob("*.py"))
    assert paths
    for path in paths:
        assert load_config(path).default_hooks.checkpoint.type == "SafeCheckpointHook", path.name


def test_a_resumed_run_takes_the_checkpoints_seed_unless_one_is_given():
    for given, expected in ((None, 7), (3, 3)):
        config = load_config(TINY, {"model.pretrained": "weights.pth"})
        configure_training(config, seed=given)
        continue_from(config, "iter_2.pth", {"meta": {"seed": 7}})
        assert config.resume and config.load_from == "iter_2.pth"
        assert config.randomness.seed == expected
        assert config.model.pretrained is None  # all weights come from the checkpoint


def test_a_test_has_nothing_of_a_training():
    config = load_config(TINY, {"model.pretrained": "weights.pth", "load_from": "a.pth", "resume": True})
    configure_test(config, launcher="slurm", work_dir="w")
    assert (config.launcher, config.work_dir) == ("slurm", "w")
    for key in ("train_dataloader", "train_cfg", "optim_wrapper", "val_dataloader", "load_from"):
        assert config[key] is None
    assert not config.resume and config.model.pretrained is None
    assert config.test_evaluator.get("output_dir") is None


def test_pictures_are_a_hook_beside_the_configs_own():
    config = load_config(TINY, {"custom_hooks": [dict(type="EmptyCacheHook")]})
    configure_test(config, show_dir="shown")
    assert config.custom_hooks == [dict(type="EmptyCacheHook"), dict(type="SaveComparison", out_dir="shown")]


def test_augmentation_wraps_the_model():
    config = load_config(TINY)
    configure_test(config, tta=True)
    assert config.model.type == "LeanTTAModel" and config.model.module.type == "LeanEncoderDecoder"
    assert config.test_dataloader.dataset.pipeline[1].type == "TestTimeAug"


@pytest.mark.parametrize("tta", [False, True])
def test_predictions_alone_need_no_labels(tta):
    config = load_config(TINY)
    configure_test(config, tta=tta, out="out", format_only=True)
    assert config.test_evaluator.format_only and config.test_evaluator.output_dir == "out"
    assert "LoadAnnotations" not in str(config.test_dataloader.dataset.pipeline)
    assert "PackSegInputs" in str(config.test_dataloader.dataset.pipeline)
    assert config.test_dataloader.dataset.test_mode


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"test_dataloader": None}, {}, "has no test_dataloader"),
        ({"test_evaluator": None}, {}, "has no test_evaluator"),
        ({"tta_pipeline": None}, {"tta": True}, "has no tta_pipeline"),
        ({}, {"format_only": True}, "--out"),
        ({"test_evaluator.type": "CityscapesMetric"}, {"out": "out"}, "CityscapesMetric.*use ExactIoUMetric"),
    ],
)
def test_options_of_a_test_that_do_not_go_together(changes, arguments, message):
    with pytest.raises(UserError, match=message):
        configure_test(load_config(TINY, changes), **arguments)


def test_pretrained_weights_are_found_and_dropped():
    for model, source in (
        (dict(pretrained="a.pth"), "a.pth"),
        (dict(backbone=dict(pretrained="b.pth")), "b.pth"),
        (dict(backbone=dict(init_cfg=dict(type="Pretrained", checkpoint="c.pth"))), "c.pth"),
        (dict(pretrained="open-mmlab://resnet50_v1c"), "open-mmlab://resnet50_v1c (https://"),
        (dict(pretrained="timm://resnet50d"), "timm://resnet50d (https://"),
        (dict(pretrained="torchvision://resnet5"), "torchvision://resnet5"),
        (dict(pretrained="https://host/a.pth"), "https://host/a.pth"),
        (dict(pretrained=None, backbone=dict(init_cfg=[dict(type="Kaiming")])), None),
    ):
        found = pretrained_source(model)
        assert found == source if source is None else found.startswith(source)
        drop_pretrained(model)
        assert pretrained_source(model) is None


def test_a_config_made_in_code_has_to_name_its_work_dir():
    with pytest.raises(UserError, match="set work_dir"):
        choose_work_dir(Config(dict()), None)
    config = Config(dict())
    choose_work_dir(config, "here")
    assert config.work_dir == "here"
