"""The check of a config's data before a run."""

import pytest
from mmengine.config import Config

from danseg.engine.data import agreed_num_classes, check_data
from danseg.errors import UserError

CITYSCAPES = dict(type="CityscapesDataset")


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
    [heads(of(19)), heads([of(19), of(19)], of(19)), heads(of(19), [of(19), of(19)])],
    ids=["one head", "a cascade", "two auxiliary heads"],
)
def test_heads_that_agree_with_the_dataset(config):
    assert agreed_num_classes(config, CITYSCAPES) == 19
    wrapped = Config(dict(model=dict(type="SegTTAModel", module=config.model)))
    assert agreed_num_classes(wrapped, CITYSCAPES) == 19


def test_classes_of_the_config_count_for_more_than_the_datasets():
    two = dict(CITYSCAPES, metainfo=dict(classes=("car", "road")))
    assert agreed_num_classes(heads(of(2)), two) == 2


@pytest.mark.parametrize(
    ("config", "dataset", "message"),
    [
        (
            heads(of(7)),
            CITYSCAPES,
            r"has 19 classes, but model\.decode_head\.num_classes is 7.*num_classes=19",
        ),
        (heads([of(19), of(3)]), CITYSCAPES, r"model\.decode_head\.1\.num_classes is 3"),
        (heads(of(19), of(3)), CITYSCAPES, r"model\.auxiliary_head\.num_classes is 3"),
        (heads(dict(type="FCNHead")), CITYSCAPES, "has no num_classes"),
        (heads(of(19)), dict(type="Cityscape"), "no dataset type 'Cityscape'"),
    ],
)
def test_heads_and_datasets_that_do_not_fit(config, dataset, message):
    with pytest.raises(UserError, match=message):
        agreed_num_classes(config, dataset)


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
