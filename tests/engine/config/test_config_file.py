"""Reading configs: options reach every place they concern, and errors name what does not exist."""

from pathlib import Path

import pytest

from danseg.engine.config.config_file import load_config
from danseg.errors import UserError

TINY = Path(__file__).parents[1] / "tiny.py"
CONFIGS = Path(__file__).parents[3] / "configs"


def test_a_missing_config_suggests_the_nearest():
    with pytest.raises(UserError, match=r"tinny\.py does not exist; did you mean .*tiny\.py"):
        load_config(TINY.with_name("tinny.py"))
    with pytest.raises(UserError, match=r"did you mean .*danet_r18_camvid\.py"):
        load_config("elsewhere/danet_r18_camvd.py")


def test_a_missing_base_is_named(tmp_path):
    path = tmp_path / "leaf.py"
    path.write_text('_base_ = ["./nowhere.py"]\n')
    with pytest.raises(UserError, match="nowhere.py"):
        load_config(path)


def test_a_config_with_an_error_in_it_is_named(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("model = dict(\n")
    with pytest.raises(UserError, match="broken.py cannot be read: SyntaxError"):
        load_config(path)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("optimizer.lr", "no 'optimizer' at its top level"),
        ("modle.pretrained", "did you mean 'model'"),
        ("model.decode_heads.num_classes", "did you mean 'decode_head'"),
        ("train_pipelin.1.type", "did you mean 'train_pipeline'"),
        ("train_dataloader.dataset.pipeline.99.type", "is not an index"),
        ("train_cfg.max_iters.unit", "nothing below it"),
        ("mistake_in_a_base", "nothing in .* is computed from this name"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(key, message, tmp_path):
    path = tmp_path / "leaf.py"
    path.write_text(f"_base_ = {str(TINY)!r}\nmistake_in_a_base = 3\n")
    with pytest.raises(UserError, match=message):
        load_config(path, {key: 1})


def test_new_arguments_can_be_set():
    config = load_config(TINY, {"optim_wrapper.clip_grad.max_norm": 1, "model.backbone.deep_stem": True})
    assert config.optim_wrapper.clip_grad.max_norm == 1
    assert config.model.backbone.deep_stem is True


def test_exported_names_reach_every_place_that_was_computed_from_them():
    config = load_config(TINY, {"crop_size": (16, 16), "data_root": "/elsewhere", "num_classes": 7})
    crops = [t["crop_size"] for t in config.train_dataloader.dataset.pipeline if t["type"] == "RandomCrop"]
    assert crops == [(16, 16)]
    assert tuple(config.model.data_preprocessor.size) == (16, 16)
    assert config.model.test_cfg.crop_size == (16, 16)
    assert config.model.test_cfg.stride == (10, 10)  # 21 of 32 and 42 of 64
    loaders = (config.train_dataloader, config.val_dataloader, config.test_dataloader)
    assert {loader.dataset.data_root for loader in loaders} == {"/elsewhere"}
    assert config.model.decode_head.num_classes == config.model.auxiliary_head.num_classes == 7


def test_image_scale_reaches_every_resizing_and_keeps_the_ratios_of_tta():
    path = Path(__file__).parents[3] / "configs" / "danet_r101_cityscapes.py"
    config = load_config(path, {"image_scale": (257, 129)})
    train, test = config.train_dataloader.dataset.pipeline, config.test_dataloader.dataset.pipeline
    assert [t["scale"] for t in train if "scale" in t] == [(257, 129)]
    assert [t["scale"] for t in test if t["type"] == "Resize"] == [(257, 129)]
    scales = [t["scale"] for t in config.tta_pipeline[1]["transforms"][0]]
    assert scales[2] == (257, 129) and len(scales) == 6
    assert all(abs(w / 257 - r) < 0.01 for (w, _), r in zip(scales, config.tta_ratios, strict=True))
    with pytest.raises(UserError, match="width and height"):
        load_config(path, {"image_scale": 257})


def test_a_crop_size_that_is_not_two_numbers_is_refused():
    with pytest.raises(UserError, match="height and width"):
        load_config(TINY, {"crop_size": 32})


@pytest.mark.parametrize("parent_first", [True, False])
def test_a_key_and_its_parent_act_in_either_order(parent_first):
    pairs = [("optim_wrapper.clip_grad.max_norm", 1), ("optim_wrapper.clip_grad", {"norm_type": 3})]
    config = load_config(TINY, dict(reversed(pairs) if parent_first else pairs))
    assert config.optim_wrapper.clip_grad == dict(max_norm=1, norm_type=3)


@pytest.mark.parametrize("later", [("model.backbone", None), ("model.backbone", {"depth": 50})])
def test_an_option_that_undoes_another_is_refused(later):
    with pytest.raises(UserError, match=r"model\.backbone\.depth=34 is undone by another option"):
        load_config(TINY, dict([("model.backbone.depth", 34), later]))


def test_options_go_through_lists_tuples_and_what_options_have_made():
    options = {
        "custom_hooks": [{"type": "EMAHook"}],
        "custom_hooks.0.momentum": 1e-3,
        "model.backbone.strides.3": 2,
        "model.data_preprocessor.mean.0": 1.0,
        "test_dataloader.dataset.data_root": "/test",
    }
    config = load_config(TINY, options)
    assert config.custom_hooks == [dict(type="EMAHook", momentum=1e-3)]
    assert config.model.backbone.strides == (1, 2, 1, 2)
    assert config.model.data_preprocessor.mean == [1.0, 116.28, 103.53]
    assert config.val_dataloader.dataset.data_root == "data/cityscapes"  # written as the same dict


def test_a_dict_replaces_or_merges():
    path = CONFIGS / "danet_r18_demo.py"
    optimizer = load_config(path, {"optim_wrapper.optimizer": {"lr": 1.0}}).optim_wrapper.optimizer
    assert optimizer == dict(type="AdamW", lr=1.0, weight_decay=1e-4)
    new = {"_delete_": True, "type": "SGD", "lr": 1.0}
    assert load_config(path, {"optim_wrapper.optimizer": new}).optim_wrapper.optimizer == dict(
        type="SGD", lr=1.0
    )
    with pytest.raises(UserError, match="a dict cannot be merged"):
        load_config(path, {"model.pretrained.a": {"b": 1}, "param_scheduler": {"type": "PolyLR"}})


def test_custom_imports_are_imported(tmp_path):
    path = tmp_path / "leaf.py"
    path.write_text("custom_imports = dict(imports=['no_such_module'])\n")
    with pytest.raises(UserError, match=r"leaf\.py: custom_imports=.*no_such_module"):
        load_config(path)


@pytest.mark.parametrize("name", ["danet_r18_demo", "danet_r50_cityscapes", "danet_r18_folder"])
def test_the_config_that_training_writes_can_be_read(name, tmp_path):
    config = load_config(CONFIGS / f"{name}.py")
    config.dump(tmp_path / "written.py")
    assert load_config(tmp_path / "written.py").to_dict() == config.to_dict()
    # A name that only resembles one that is read is refused there, too.
    (tmp_path / "wrong.py").write_text((tmp_path / "written.py").read_text() + "\ntest_pipeline = []\n")
    with pytest.raises(UserError, match="test_pipeline, which nothing reads"):
        load_config(tmp_path / "wrong.py")


def test_a_checkpoint_that_carries_its_config_is_read_as_one(tmp_path):
    import torch

    path = tmp_path / "best.pth"
    config = load_config("danet_r18_demo")
    torch.save(dict(state_dict=dict(a=torch.zeros(1)), meta=dict(cfg=config.pretty_text)), path)
    read = load_config(path)
    wanted = {name: value for name, value in config.to_dict().items() if name not in ("load_from", "resume")}
    assert read.to_dict() == wanted and read.filename == str(path)
    options = {"model.decode_head.num_classes": 5, "test_dataloader.dataset.data_root": "here"}
    changed = load_config(str(path), options)
    assert changed.model.decode_head.num_classes == 5 and changed.filename == str(path)
    assert changed.test_dataloader.dataset.data_root == "here"
    with pytest.raises(UserError, match="nothing in .*best.pth is computed from this name"):
        load_config(path, {"data_root": "here"})
    with pytest.raises(UserError, match=r"no 'modle' at its top level; did you mean 'model'"):
        load_config(path, {"modle.x": 1})
    with pytest.raises(UserError, match=r"--data is for configs on a folder .*best\.pth carries a config"):
        load_config(path, data="street")
    with pytest.raises(UserError, match=r"none\.pth does not exist"):
        load_config(tmp_path / "none.pth")
