"""What a resumed training must have in common with its checkpoint, and what may differ."""

import copy
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from torch import nn

from danseg.engine.config.config_file import load_config
from danseg.engine.config.config_names import READ
from danseg.engine.training_settings import (
    _FREE,
    KEY,
    changes_since,
    refusal,
    settings_text,
    trained_images,
)
from danseg.errors import UserError

TINY = Path(__file__).with_name("tiny.py")
# Names that a run reads and that a resumed training may change: what is said, saved, tested and sped up.
FREE = """
    activation_checkpointing compile custom_hooks custom_imports default_hooks default_scope env_cfg
    efficient_conv_bn_eval experiment_name find_unused_parameters launcher load_from log_level log_processor
    model_wrapper_cfg prepare_command recompute resume sync_bn test_cfg test_dataloader test_evaluator
    tta_model tta_pipeline val_cfg val_dataloader val_evaluator visualizer work_dir
""".split()
CHANGED = {  # options, and the entries that they change, with what the checkpoint and what this run has
    "optim_wrapper.optimizer.lr": (0.01, {"optim_wrapper.optimizer.lr": (0.02, 0.01)}),
    "optim_wrapper.optimizer.momentum": (0.8, {"optim_wrapper.optimizer.momentum": (0.9, 0.8)}),
    "optim_wrapper.optimizer.weight_decay": (0.1, {"optim_wrapper.optimizer.weight_decay": (None, 0.1)}),
    "optim_wrapper.optimizer.type": ("ASGD", {"optim_wrapper.optimizer.type": ("SGD", "ASGD")}),
    "optim_wrapper.type": (
        "BFloat16OptimWrapper",
        {"optim_wrapper.type": ("OptimWrapper", "BFloat16OptimWrapper")},
    ),
    "optim_wrapper.clip_grad": (
        {"_delete_": True, "max_norm": 1},
        {"optim_wrapper.clip_grad": (None, {"max_norm": 1})},
    ),
    "optim_wrapper.accumulative_counts": (2, {"optim_wrapper.accumulative_counts": (None, 2)}),
    "optim_wrapper.paramwise_cfg": (
        {"norm_decay_mult": 0.0},
        {"optim_wrapper.paramwise_cfg": (None, {"norm_decay_mult": 0.0})},
    ),
    "param_scheduler.0.power": (1.0, {"param_scheduler.0.power": (0.9, 1.0)}),
    "param_scheduler.0.end": (3, {"param_scheduler.0.end": (4, 3)}),
    "auto_scale_lr.enable": (
        True,
        {"auto_scale_lr": (None, {"enable": True, "base_batch_size": 8})},
    ),
    "train_dataloader.batch_size": (4, {"train_dataloader.batch_size": (2, 4)}),
    "train_dataloader.sampler.shuffle": (False, {"train_dataloader.sampler.shuffle": (True, False)}),
    "train_dataloader.dataset.pipeline.4.prob": (
        0.0,
        {"train_dataloader.dataset.pipeline.4.prob": (0.5, 0.0)},
    ),
    "model.decode_head.loss_decode.loss_weight": (
        2.0,
        {"model.decode_head.loss_decode.loss_weight": (1.0, 2.0)},
    ),
    "model.data_preprocessor.bgr_to_rgb": (False, {"model.data_preprocessor.bgr_to_rgb": (True, False)}),
    "model.backbone.depth": (34, {"model.backbone.depth": (18, 34)}),
    "model.train_cfg.sampler": ({"type": "OHEM"}, {"model.train_cfg.sampler": (None, {"type": "OHEM"})}),
}
UNCHANGED = {
    "train_cfg.val_interval": 1,
    "default_hooks.checkpoint.interval": 1,
    "default_hooks.logger.interval": 7,
    "custom_hooks": [{"type": "EMAHook"}],
    "train_dataloader.num_workers": 3,
    "train_dataloader.persistent_workers": True,
    "train_dataloader.prefetch_factor": 4,
    "train_dataloader.dataset.pipeline.0.backend_args": {"backend": "local"},
    "model.pretrained": "torchvision://resnet18",
    "model.backbone.init_cfg": {"type": "Pretrained", "checkpoint": "a.pth"},
    "model.backbone.with_cp": True,
    "model.test_cfg.mode": "whole",
    "optim_wrapper.optimizer.foreach": True,
    "optim_wrapper.optimizer.type": "torch.optim.SGD",
    "recompute": ["backbone.layer1"],
    "work_dir": "elsewhere",
    "auto_scale_lr.base_batch_size": 16,  # not enabled
}


@pytest.fixture(scope="module")
def base(rendered_root):
    """A config, and its data set."""
    init_default_scope("mmseg")
    config = load_config(TINY, {"data_root": rendered_root})
    return config, DATASETS.build(config.train_dataloader.dataset)


@pytest.fixture
def stand_in(base):
    """Make what is looked at of a runner: config with options, data set, optimiser."""

    def make(options=None, config=None, optimizer=None):
        dataset = DATASETS.build(config.train_dataloader.dataset) if config else base[1]
        config = config or copy.deepcopy(base[0])
        config.merge_from_dict(copy.deepcopy(options or {}))
        loop = SimpleNamespace(
            max_iters=config.train_cfg.max_iters, dataloader=SimpleNamespace(dataset=dataset)
        )
        wrapper = OptimWrapper(optimizer or sgd())
        return SimpleNamespace(cfg=config, train_loop=loop, world_size=1, seed=3, optim_wrapper=wrapper)

    return make


def sgd(**options):
    return torch.optim.SGD(nn.Linear(2, 1).parameters(), **{"lr": 0.02, "momentum": 0.9, **options})


def checkpoint_of(runner):
    return {
        KEY: settings_text(runner),
        "meta": dict(epoch=0, iter=2, seed=runner.seed),
        "optimizer": runner.optim_wrapper.state_dict(),
    }


def changed(found):
    return {one.place: (one.before, one.now) for one in found}


@pytest.fixture
def before(stand_in):
    return checkpoint_of(stand_in())


def test_every_name_of_a_config_is_compared_or_free(before):
    compared = {*json.loads(before[KEY]), "data_preprocessor", "randomness", "optim_wrapper"} - {
        "processes",
        "images",
        "own_data",
    }
    assert compared.isdisjoint(FREE) and compared | {*FREE} == READ
    assert set(_FREE) < compared


@pytest.mark.parametrize("option", CHANGED)
def test_what_changes_a_training_is_named_with_both_values(stand_in, before, option):
    value, differences = CHANGED[option]
    found = changes_since(stand_in({option: value}), before, "a.pth")
    assert changed(found) == differences
    message = refusal(found, "a.pth")
    for place, (then, now) in differences.items():
        assert f"\n  {place}: {then!s} in the checkpoint, {now!s} in this run\n" in message.replace(
            "'OHEM'", "'OHEM'"
        )
        assert f"--cfg-options {place}={then})" in message
    assert "--apply-changes" in message and "load_from=a.pth" in message


@pytest.mark.parametrize("option", [*UNCHANGED])
def test_what_changes_no_training_is_free(stand_in, before, option):
    assert changes_since(stand_in({option: UNCHANGED[option]}), before, "a.pth") == []


def test_the_end_of_a_schedule_may_follow_a_longer_training_and_nothing_else(stand_in, before):
    longer = {"train_cfg.max_iters": 9, "param_scheduler.0.end": 9}
    assert changes_since(stand_in(longer), before, "a.pth") == []
    found = changes_since(stand_in({**longer, "param_scheduler.0.power": 2.0}), before, "a.pth")
    assert changed(found) == {"param_scheduler.0.power": (0.9, 2.0)}


def test_several_differences_are_one_message(stand_in, before):
    options = {"optim_wrapper.optimizer.lr": 1e-3, "train_dataloader.batch_size": 4}
    runner = stand_in(options)
    runner.world_size, runner.seed = 2, 7
    message = refusal(changes_since(runner, before, "a.pth"), "a.pth")
    for line in (
        "optim_wrapper.optimizer.lr: 0.02 in the checkpoint, 0.001 in this run",
        "train_dataloader.batch_size: 2 in the checkpoint, 4 in this run",
        "processes: 1 in the checkpoint, 2 in this run",
        "randomness.seed: 3 in the checkpoint, 7 in this run",
    ):
        assert f"\n  {line}\n" in message
    again = "optim_wrapper.optimizer.lr=0.02 train_dataloader.batch_size=2 randomness.seed=3"
    assert f"(--cfg-options {again})" in message


def test_another_pipeline_is_one_difference(stand_in, before):
    runner = stand_in()
    del runner.cfg.train_dataloader.dataset.pipeline[3:5]
    [one] = changes_since(runner, before, "a.pth")
    assert str(one) == (
        "train_dataloader.dataset.pipeline: [LoadImageFromFile, LoadAnnotations, RandomResize, RandomCrop, "
        "RandomFlip, Ph... in the checkpoint, [LoadImageFromFile, LoadAnnotations, RandomResize, "
        "PhotoMetricDistortion, Pac... in this run"
    )


def test_a_data_set_that_was_moved_is_the_same_and_another_one_is_not(
    tiny, stand_in, before, tmp_path, rendered_root
):
    root = tmp_path / "moved"
    shutil.copytree(rendered_root, root)
    moved = {"data_root": str(root)}
    assert changes_since(stand_in(config=tiny(moved)), before, "a.pth") == []
    absolute = tiny({"data_root": str(root)})
    dataset = absolute.train_dataloader.dataset
    dataset.data_root, dataset.data_prefix = None, {k: f"{root}/{v}" for k, v in dataset.data_prefix.items()}
    prefixes = {f"train_dataloader.dataset.data_prefix.{key}" for key in ("img_path", "seg_map_path")}
    assert changed(changes_since(stand_in(config=absolute), before, "a.pth")).keys() == prefixes
    absolute_before = checkpoint_of(stand_in(config=absolute))
    assert changes_since(stand_in(config=absolute), absolute_before, "a.pth") == []

    [one, *others] = sorted(root.glob("leftImg8bit/train/*/*.png"))
    label = next(root.glob(f"gtFine/train/*/{one.name.removesuffix('_leftImg8bit.png')}*labelTrainIds.png"))
    one.rename(one.with_name("zurich_000009_000019_leftImg8bit.png"))
    label.rename(label.with_name("zurich_000009_000019_gtFine_labelTrainIds.png"))
    [name] = changes_since(stand_in(config=tiny(moved)), before, "a.pth")
    assert (
        name.place == "images"
        and name.before != name.now
        and str(name.now).startswith(f"{len(others) + 1}, ")
    )
    one.with_name("zurich_000009_000019_leftImg8bit.png").unlink()
    [number] = changes_since(stand_in(config=tiny(moved)), before, "a.pth")
    assert f"images: {len(others) + 1}, whose names" in str(number) and f"{len(others)}, whose" in str(number)


@pytest.mark.parametrize(
    ("optimizer", "differences"),
    [
        (sgd(), {}),
        (sgd(lr=0.1), {"lr": (0.02, 0.1)}),
        (sgd(momentum=0.5, weight_decay=1e-3), {"momentum": (0.9, 0.5), "weight_decay": (0, 1e-3)}),
        (sgd(foreach=False), {}),
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_checkpoints_without_settings_are_compared_by_optimisers(stand_in, optimizer, differences, several):
    """Such as mmseg's: a schedule has changed the rate, and its beginning tells."""
    old, runner, name = sgd(), stand_in(optimizer=optimizer), ""
    old.param_groups[0].update(initial_lr=0.02, lr=1e-5)
    state = OptimWrapper(old).state_dict()
    if several:
        runner.optim_wrapper, state, name = OptimWrapperDict(one=runner.optim_wrapper), {"one": state}, "one."
    checkpoint = {"meta": dict(epoch=0, iter=2), "optimizer": state}
    expected = {f"optim_wrapper.{name}optimizer.{key}": values for key, values in differences.items()}
    assert changed(changes_since(runner, checkpoint, "a.pth")) == expected


def test_another_optimiser_and_other_groups_are_told_by_the_state(stand_in):
    checkpoint = {"meta": dict(epoch=0, iter=2), "optimizer": OptimWrapper(sgd()).state_dict()}
    network = nn.Linear(2, 1)
    [one] = changes_since(stand_in(optimizer=torch.optim.Adam(network.parameters())), checkpoint, "a.pth")
    assert one.before == "an optimiser with dampening, momentum, nesterov" and one.now == "Adam"
    groups = torch.optim.SGD([dict(params=[one]) for one in network.parameters()], lr=0.02, momentum=0.9)
    [one] = changes_since(stand_in(optimizer=groups), checkpoint, "a.pth")
    assert (one.before, one.now) == (1, 2)


def test_another_kind_of_loop_is_told_by_the_place(stand_in):
    checkpoint = {"meta": dict(epoch=3, iter=9), "optimizer": {}}
    assert changed(changes_since(stand_in(), checkpoint, "a.pth")) == {"train_cfg.by_epoch": (True, False)}


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_settings_that_are_none_are_a_malformed_checkpoint(stand_in, before, text):
    with pytest.raises(UserError, match="a.pth is malformed: its trained_with"):
        changes_since(stand_in(), {**before, KEY: text}, "a.pth")


def test_settings_of_any_form_are_compared(stand_in, before):
    """A file from anywhere may hold any JSON there; each part is then another one, and none is run."""
    for part in (None, 3, "x", [1], {"type": [2]}):
        text = json.dumps({name: part for name in json.loads(before[KEY])})
        assert changes_since(stand_in(), {**before, KEY: text}, "a.pth")


def test_names_and_ids_of_an_own_set_are_compared(stand_in, base, tmp_path):
    """They stand in its file alone. Where it lies does not matter."""

    def runner(root, **says):
        root.mkdir(exist_ok=True)
        says = dict(danseg=1, images="i", masks="m", names=["a", "b"], train="train.txt") | says
        (root / "dataset.yaml").write_text(json.dumps(says))
        (root / "train.txt").write_text("1.png\t1.png\n")
        config = copy.deepcopy(base[0])
        config.train_dataloader.dataset = dict(
            type="OwnDataset", data_root=str(root), split="train", pipeline=[]
        )
        return stand_in(config=config)

    before = checkpoint_of(runner(tmp_path / "one"))
    assert changes_since(runner(tmp_path / "two"), before, "a.pth") == []
    found = changes_since(runner(tmp_path / "one", names=["a", "c"]), before, "a.pth")
    assert changed(found) == {"own_data.0.names": (["a", "b"], ["a", "c"])}
    assert "--cfg-options" not in refusal(found, "a.pth").partition("--apply-changes")[0]
    found = changes_since(runner(tmp_path / "one", ignore=[255]), before, "a.pth")
    assert changed(found) == {"own_data.0.ids.255": (None, 255)}


def test_the_images_of_a_training_are_told(stand_in, before):
    count, names = trained_images(before)
    [dataset] = [stand_in().train_loop.dataloader.dataset]
    assert count == len(dataset) and len(names) == 16
    for content in (
        {},
        {KEY: None},
        {KEY: "{"},
        {KEY: "[]"},
        {KEY: '{"images": 3}'},
        {KEY: '{"images": "many"}'},
    ):
        assert trained_images(content) is None
    assert trained_images({KEY: '{"images": "12"}'}) == (12, None)
