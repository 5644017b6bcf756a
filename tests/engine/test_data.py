"""The check of a config's data before a run."""

import numpy as np
import pytest
from mmengine.config import Config

from danseg.engine.data import check_data, number_of_classes
from danseg.errors import UserError


def heads(decode, auxiliary=None):
    model = dict(decode_head=decode, **(dict(auxiliary_head=auxiliary) if auxiliary else {}))
    return Config(dict(model=model))


def of(number):
    return dict(type="FCNHead", num_classes=number)


def test_each_dataset_is_reported_once(tiny):
    config = tiny()
    train, test = check_data(config, ("train", "val", "test"))  # val and test are the same
    assert train.startswith("train: CityscapesDataset, 6 images")
    assert test.startswith("val: CityscapesDataset, 5 images")
    assert check_data(tiny({"val_dataloader": None}), ("val",)) == []


def test_missing_data_is_named_with_the_command_that_makes_it(tiny, tmp_path):
    with pytest.raises(UserError, match=r"(?s)none/leftImg8bit.*tools/prepare_dataset\.py demo"):
        check_data(tiny({"data_root": str(tmp_path / "none")}), ("train",))


@pytest.mark.parametrize(
    "config",
    [heads(of(19)), heads([of(19), of(19)], of(19)), heads(dict(type="FCNHead"), [of(19), of(19)])],
    ids=["one head", "a cascade", "two auxiliary heads"],
)
def test_the_number_of_classes(config):
    assert number_of_classes(config) == 19
    wrapped = Config(dict(model=dict(type="SegTTAModel", module=config.model)))
    assert number_of_classes(wrapped) == 19


def test_a_model_without_classes():
    with pytest.raises(UserError, match=r"model\.decode_head has no num_classes"):
        number_of_classes(heads(dict(type="FCNHead")))


@pytest.fixture
def mixed_sizes(tmp_path):
    """A folder of validation frames in Cityscapes' layout, one of 64x128 and one of 64x96."""
    from danseg.io.images import save_image
    from danseg.label_maps.label_png import write_label_map

    for index, width in enumerate((128, 96)):
        image = tmp_path / f"leftImg8bit/val/a/a_{index}_leftImg8bit.png"
        label = tmp_path / f"gtFine/val/a/a_{index}_gtFine_labelTrainIds.png"
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        save_image(np.zeros((64, width, 3), np.uint8), image)
        write_label_map(label, (np.arange(64 * width) % 19).astype(np.uint8).reshape(64, width))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("resizing", "fits"),
    [
        ([], False),
        ([dict(type="Resize", scale=(64, 32), keep_ratio=True)], False),
        ([dict(type="Resize", scale_factor=0.5, keep_ratio=True)], False),
        ([dict(type="Resize", scale=(64, 32), keep_ratio=False)], True),
        ([dict(type="Resize", scale=(64, 32))], True),
        ([dict(type="ResizeToMultiple", size_divisor=32)], True),  # not known to this check
    ],
)
def test_images_of_one_batch_have_one_size(tiny, mixed_sizes, resizing, fits):
    config = tiny({"data_root": mixed_sizes, "val_dataloader.batch_size": 2})
    config.val_dataloader.dataset.pipeline[1:1] = resizing
    if fits:
        check_data(config, ("val",))
    else:
        with pytest.raises(UserError, match=r"val_dataloader\.batch_size=2.*32x48, 32x64|64x96, 64x128"):
            check_data(config, ("val",))
    config.val_dataloader.batch_size = 1
    check_data(config, ("val",))


@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: dict(type="ConcatDataset", datasets=[one])])
def test_the_splits_have_their_classes_in_one_order(tiny, wrap):
    def ordered(train, val):
        config = tiny({"num_classes": 2})
        for split, classes in (("train", train), ("val", val)):
            loader = config[f"{split}_dataloader"]
            loader.dataset = wrap(dict(loader.dataset, metainfo=dict(classes=classes)))
        return config

    check_data(ordered(("car", "road"), ("car", "road")), ("train", "val"))
    with pytest.raises(
        UserError, match="val_dataloader has the classes of train_.* road, car instead of car, r"
    ):
        check_data(ordered(("car", "road"), ("road", "car")), ("train", "val"))


def test_lists_of_loaders_or_data_sets_are_refused_with_the_wrapper_that_takes_them(tiny):
    config = tiny()
    one = config.val_dataloader
    config.val_dataloader = [one, one]
    with pytest.raises(UserError, match="val_dataloader lists 2 loaders.*ConcatDataset"):
        check_data(config, ("val",))
    config.val_dataloader = dict(one, dataset=[one.dataset, one.dataset])
    with pytest.raises(UserError, match="lists 2 data sets.*ConcatDataset"):
        check_data(config, ("val",))


def test_pictures_of_training_in_the_validation_are_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not any("images of train" in report for report in check_data(tiny(), ("train", "val")))
    own = tiny()
    own.val_dataloader.dataset.data_prefix = own.train_dataloader.dataset.data_prefix
    _, val = check_data(own, ("train", "val"))
    text = " ".join(val.split())
    assert "warning: 6 of 6 images of val are images of train too, " in text
    assert "_leftImg8bit.png (in train: " in text and "give it images of its own" in text
    assert len(check_data(own, ("val",))) == 1 and "images of train" not in check_data(own, ("val",))[0]
    own.val_dataloader.dataset = own.train_dataloader.dataset
    assert check_data(own, ("train", "val"))[1].startswith(
        "val: the data set of train\n  warning: its scores"
    )
