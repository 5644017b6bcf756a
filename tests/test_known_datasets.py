"""The records of the data sets, compared with the configs' bases and with mmseg's data sets."""

from pathlib import Path

import numpy as np
import pytest
from mmseg.registry import DATASETS

from danseg.engine.config.config_file import load_config
from danseg.errors import UserError
from danseg.known_datasets import KNOWN_DATASETS, command_for, known_dataset

BASES = [
    path
    for path in sorted((Path(__file__).parents[1] / "configs/_base_/datasets").glob("*.py"))
    if load_config(path).dataset_type != "OwnDataset"  # which a file describes
]
SPLITS = {"train_dataloader": "train", "val_dataloader": "val", "test_dataloader": "val"}


def test_every_set_has_a_base():
    roots = {load_config(path).data_root for path in BASES}
    assert roots == {one.root for one in KNOWN_DATASETS.values()}


@pytest.mark.parametrize("path", BASES, ids=lambda path: path.stem)
def test_a_base_says_what_the_record_says(path):
    base = load_config(path)
    [record] = [one for one in KNOWN_DATASETS.values() if one.root == base.data_root]
    assert base.prepare_command == record.prepare_command() == record.prepare_command(record.root)
    assert base.num_classes == len(record.classes) == len(record.metainfo["palette"])
    assert base.val_evaluator.output_format == base.test_evaluator.output_format == record.output_format
    for loader, split in SPLITS.items():
        config = record.config(record.root, split)
        assert {key: base[loader].dataset[key] for key in config} == config
        built = DATASETS.build(dict(base[loader].dataset, pipeline=[], lazy_init=True))
        assert built.ann_file == (f"{record.root}/{record.lists[split]}" if record.lists else "")
        assert built.seg_map_suffix == record.label_suffix
        if record.name != "camvid":  # it accepts either suffix for each file
            assert (built.img_suffix,) == record.image_suffixes


@pytest.mark.parametrize("record", KNOWN_DATASETS.values(), ids=lambda record: record.name)
def test_the_formats_fit_the_classes(record):
    assert len(record.published_format().class_ids) == len(record.classes)
    assert all(name == name.strip() for name in record.classes)
    # A telltale id names no class, is among the published ids, and is also the train id of a class.
    published = record.published_format()
    assert record.telltale_ids <= published.void_ids & set(range(len(record.classes)))


def test_names():
    assert known_dataset("ade20k").type == "ADE20KDataset"
    with pytest.raises(
        UserError, match="unknown data set 'voc'; choose one of cityscapes, ade20k, camvid, voc2012, demo"
    ):
        known_dataset("voc")


@pytest.mark.parametrize(
    ("name", "command"),
    [("cityscapes", "cityscapes ELSE"), ("ade20k", "ade20k SOURCE ELSE"), ("demo", "demo ELSE")],
)
def test_the_command_for_another_folder(name, command):
    record, command = known_dataset(name), f"python tools/prepare_dataset.py {command}"
    assert record.prepare_command("ELSE") == command_for(record.prepare_command(), "ELSE") == command
    assert record.prepare_command("a b").endswith(" 'a b'")


def test_another_command_stays_as_it_is():
    assert command_for("make data", "ELSE") == "make data" and command_for(None, "ELSE") is None
    assert command_for("python tools/prepare_dataset.py demo", "") == "python tools/prepare_dataset.py demo"


def test_the_frame_of_a_prediction():
    frames = {"ulm_000000_000019": None, "ulm_000001_000019": None}
    cityscapes, camvid = known_dataset("cityscapes"), known_dataset("camvid")
    assert cityscapes.frame_of("ulm_000001_000019_pred_labelIds", frames) == "ulm_000001_000019"
    assert cityscapes.frame_of("ulm_000001_0000199", frames) is None
    assert camvid.frame_of("ulm_000001_000019", frames) == "ulm_000001_000019"
    assert camvid.frame_of("ulm_000001_000019_pred", frames) is None


def test_camvids_published_labels_are_what_loading_ignores(tmp_path):
    record = known_dataset("camvid")
    built = DATASETS.build(dict(record.config(tmp_path, "train"), pipeline=[], lazy_init=True))
    [void] = record.published_format().void_ids
    assert built.label_map == {void: 255}
    np.testing.assert_array_equal(record.published_format().class_ids, np.arange(11))
