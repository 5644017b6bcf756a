"""--data: what follows from a set, what wins over it, and what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image

from danseg.engine.config.agreement import check_agreement
from danseg.engine.config.cfg_options import parse_options
from danseg.engine.config.config_file import load_config
from danseg.engine.config.own_data import about_data, settings_from
from danseg.errors import UserError

CONFIGS = Path(__file__).parents[3] / "configs"
R18 = CONFIGS / "danet_r18_folder.py"
# One leaf of each folder recipe, and the one whose head has a size.
LEAVES = [R18, CONFIGS / "danet_r50_folder.py", CONFIGS / "psanet_r50_folder.py"]


def make(folder: Path, train: list[tuple[int, int]], val: list[tuple[int, int]], **more: str) -> str:
    """A set of images of these heights and widths; nothing reads their masks here."""
    for split, sizes in dict(train=train, val=val).items():
        for number, (height, width) in enumerate(sizes):
            path = folder / f"images/{split}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if (height, width) != (0, 0):
                Image.fromarray(np.zeros((height, width), np.uint8)).save(path)
        names = [f"{split}{number}.png\t{split}{number}.png\n" for number in range(len(sizes))]
        (folder / f"{split}.txt").write_text("".join(names))
    lines = dict(
        danseg="1", images="images", masks="masks", names="[a, b, c]", train="train.txt", val="val.txt"
    )
    (folder / "dataset.yaml").write_text(
        "".join(f"{key}: {value}\n" for key, value in (lines | more).items())
    )
    return str(folder)


@pytest.fixture
def mine(tmp_path) -> str:
    return make(tmp_path / "mine", [(90, 130)] * 40, [(90, 130)] * 4)


def values(data: str) -> dict:
    return {name: setting.value for name, setting in settings_from(data).items()}


@pytest.mark.parametrize(
    ("train", "crop", "batch", "length"),
    [
        # Sides by 8, up to 512; 2**20 pixels, 8 images or a quarter of the set a batch; 50 passes.
        ([(90, 130)] * 40, (88, 128), 8, 300),  # 50 * 40 / 8 = 250, by hundreds
        ([(90, 130)] * 16, (88, 128), 4, 200),
        ([(20, 30)] * 4, (32, 32), 2, 200),  # smaller images are padded
        ([(600, 400)] * 400, (512, 400), 5, 4000),
        ([(1024, 2048)] * 40, (512, 512), 4, 500),
        ([(64, 64)] * 3 + [(200, 96)] * 2, (64, 64), 2, 200),  # the median, of what there is
        ([(64, 96)] * 2 + [(96, 64)] * 2, (64, 64), 2, 200),
    ],
)
def test_crop_batch_and_length_follow_from_the_training_images(tmp_path, train, crop, batch, length):
    found = values(make(tmp_path, train, [(64, 64)]))
    assert (found["crop_size"], found["batch_size"], found["max_iters"]) == (crop, batch, length)
    assert found["num_classes"] == 3


@pytest.mark.parametrize(
    ("size", "mode"), [((1024, 1024), "whole"), ((1024, 1025), "slide"), ((9, 9), "whole")]
)
def test_windows_are_for_images_much_larger_than_the_crop(tmp_path, size, mode):
    data = make(tmp_path, [(64, 64)] * 8, [(64, 64), size])
    test = load_config(R18, data=data).model.test_cfg
    assert test == (
        dict(mode="whole") if mode == "whole" else dict(mode="slide", crop_size=(64, 64), stride=(42, 42))
    )


def test_the_length_has_bounds(tmp_path, monkeypatch):
    data = make(tmp_path, [(64, 64)], [(64, 64)])
    (tmp_path / "train.txt").write_text("train0.png\ttrain0.png\n" * 10_000)
    assert values(data)["max_iters"] == 20_000


def test_a_test_split_is_tested_where_there_is_one(tmp_path, mine):
    assert load_config(R18, data=mine).test_dataloader.dataset.split == "val"
    data = make(tmp_path / "three", [(64, 64)], [(64, 64)], test="val.txt")
    config = load_config(R18, data=data)
    assert config.test_dataloader.dataset.split == "test" and config.val_dataloader.dataset.split == "val"


def test_images_that_cannot_be_read_are_the_checks_to_name(tmp_path):
    data = make(tmp_path, [(0, 0)] * 8, [(0, 0)])
    (tmp_path / "images/train0.png").write_bytes(b"none")
    config = load_config(R18, data=data)
    assert config.crop_size == (512, 512) and config.model.decode_head.num_classes == 3


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_every_recipe_computes_with_it_and_agrees(path, mine):
    config = load_config(path, data=mine)
    model = config.model
    assert model.decode_head.num_classes == model.auxiliary_head.num_classes == config.num_classes == 3
    crop = config.train_dataloader.dataset.pipeline[0].crop_size
    assert model.data_preprocessor.size == crop == config.crop_size == (88, 128)
    assert config.train_dataloader.batch_size == config.auto_scale_lr.base_batch_size == 8
    assert config.train_cfg.max_iters == config.param_scheduler[-1].end == config.max_iters == 300
    assert config.param_scheduler[0].end == config.param_scheduler[1].begin == 15
    assert config.default_hooks.checkpoint.interval == config.train_cfg.val_interval == 30
    for split in ("train", "val", "test"):
        assert config[f"{split}_dataloader"].dataset.data_root == mine
    assert not [step for step in config.val_dataloader.dataset.pipeline if step.type == "Resize"]
    assert check_agreement(config, "train", "test") == []


def test_options_and_own_configs_win(mine, tmp_path):
    options = dict(crop_size=(64, 64), max_iters=20, image_scale=(65, 45), num_workers=0)
    config = load_config(R18, options, data=mine)
    assert config.model.data_preprocessor.size == (64, 64)
    assert config.train_cfg.max_iters == config.param_scheduler[-1].end == 20
    assert config.train_dataloader.batch_size == 8  # follows from the set, still
    assert config.train_dataloader.persistent_workers is False
    assert config.val_dataloader.dataset.pipeline[1] == dict(type="Resize", scale=(65, 45), keep_ratio=True)
    assert config.train_dataloader.dataset.pipeline[0].scale == (65, 45)

    own = tmp_path / "own.py"
    own.write_text(f"_base_ = {str(R18)!r}\nbatch_size = 2 * _base_.batch_size\nmax_iters = 50\n")
    config = load_config(own, data=mine)
    assert (config.train_dataloader.batch_size, config.train_cfg.max_iters) == (16, 50)
    assert config.crop_size == (88, 128)
    child = tmp_path / "child.py"
    child.write_text(
        "_base_ = 'own.py'\ncrop_size = (32, 40)\nmodel = dict(decode_head=dict(pam_channels=2))\n"
    )
    config = load_config(child, dict(max_iters=70), data=mine)
    assert config.model.data_preprocessor.size == (32, 40) and config.train_cfg.max_iters == 70
    assert config.train_dataloader.batch_size == 16 and config.num_classes == 3


def test_what_follows_and_what_was_set_is_told(mine):
    told = "\n".join(about_data(load_config(R18, dict(max_iters=20), data=mine)))
    assert "crop_size = (88, 128)" in told and "90x130" in told
    assert "max_iters = 20" in told and "set; from the data 300" in told
    assert about_data(load_config(R18)) == []


def test_large_images_are_told(tmp_path):
    data = make(tmp_path, [(3000, 4000)] * 2, [(9, 9)])
    assert "a 45th of an image, unless image_scale" in settings_from(data)["crop_size"].why


@pytest.mark.parametrize("name", ["danet_r50_cityscapes", "ccnet_r18_camvid"])
def test_other_configs_are_refused_and_the_right_ones_named(name, mine):
    network = name.partition("_")[0]
    with pytest.raises(
        UserError, match=rf"configs/{network}_r18_folder.py.*One of your own has one of these"
    ):
        load_config(CONFIGS / f"{name}.py", data=mine)


def test_a_config_that_training_has_written_names_its_set(mine, tmp_path):
    load_config(R18, data=mine).dump(tmp_path / "danet_r18_folder.py")
    assert load_config(tmp_path / "danet_r18_folder.py").num_classes == 3
    with pytest.raises(UserError, match="all values written out, .* and names its set: leave --data out"):
        load_config(tmp_path / "danet_r18_folder.py", data=mine)


def test_a_set_that_the_config_names_is_taken_without_data(mine, tmp_path, monkeypatch):
    by_option, given = load_config(R18, dict(data_root=mine)), load_config(R18, data=mine)
    assert by_option.to_dict() == given.to_dict()
    own = tmp_path / "own.py"
    own.write_text(f"_base_ = {str(R18)!r}\ndata_root = {mine!r}\ncrop_size = (32, 40)\n")
    config = load_config(own)
    assert config.model.data_preprocessor.size == (32, 40) and config.num_classes == 3
    assert load_config(R18, dict(data_root=str(tmp_path / "elsewhere"))).num_classes == 2
    Path(mine, "dataset.yaml").write_text("backbone: resnet\n")
    with pytest.raises(UserError, match="unknown key 'backbone'"):
        load_config(own)


def test_a_set_is_named_once(mine, tmp_path):
    with pytest.raises(UserError, match="both name the data set: give one of them"):
        load_config(R18, dict(data_root="elsewhere"), data=mine)
    own = tmp_path / "own.py"
    own.write_text(f"_base_ = {str(R18)!r}\ndata_root = 'elsewhere'\n")
    with pytest.raises(UserError, match="data_root='elsewhere', which .*own.py or --cfg-options sets"):
        load_config(own, data=mine)
    own.write_text(f"_base_ = {str(R18)!r}\ndata_root = {mine!r}\n")
    assert load_config(own, data=mine).num_classes == 3


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: (root / "dataset.yaml").unlink(), "tools/prepare_dataset.py folder IMAGES MASKS"),
        (lambda root: (root / "train.txt").write_text(""), "train.txt lists no pair"),
        (lambda root: (root / "val.txt").unlink(), "val.txt cannot be read: it does not exist"),
        (
            lambda root: (root / "dataset.yaml").write_text("backbone: resnet\nlr: 1\n"),
            "unknown key 'backbone'",
        ),
    ],
)
def test_a_set_that_is_none_is_refused(mine, spoil, said):
    spoil(Path(mine))
    with pytest.raises(UserError, match=said):
        load_config(R18, data=mine)


@pytest.mark.parametrize("value", [100, "wide", (1, 2, 3)])
def test_an_image_scale_that_is_none_is_refused(mine, value):
    with pytest.raises(UserError, match="image_scale=.*: give width and height"):
        load_config(R18, dict(image_scale=value), data=mine)


def test_the_page_has_a_row_for_each_setting(mine):
    page = (CONFIGS.parent / "docs/own_data.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)`", page.partition("## What follows from the set")[2], re.MULTILINE)
    assert sorted(rows) == sorted({*settings_from(mine), "image_scale"} - {"data_root"})


def test_what_the_page_says_of_pretrained_weights_fits(mine):
    page = (CONFIGS.parent / "docs/own_data.md").read_text(encoding="utf-8")
    [options] = re.findall(r"`--cfg-options (model\.backbone\.base[^`]*)`", page)
    config = load_config(R18, parse_options(options.split()), data=mine)
    assert config.model.pretrained == "open-mmlab://resnet18_v1c"
    config.model.pretrained = None
    init_default_scope("mmseg")
    network = MODELS.build(config.model)
    widths = [len(network.backbone.stem[0].weight), network.decode_head.in_channels]
    assert widths == [32, 512]  # ResNetV1c's stem begins with half of its channels
