"""Classes and ignored values of data, heads and metrics: each config is broken in one place."""

import pytest

from broken_config import messages, only_names, tiny_with
from danseg.engine.config.agreement import check_agreement, disagreements

TRAIN, VAL = "train_dataloader.dataset", "val_dataloader.dataset"
HEAD, AUXILIARY = "model.decode_head", "model.auxiliary_head"


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({f"{HEAD}.num_classes": 7}, [f"{HEAD}.num_classes", TRAIN]),
        ({f"{AUXILIARY}.num_classes": 3}, [f"{AUXILIARY}.num_classes", TRAIN]),
        (
            {f"{VAL}.metainfo": dict(classes=("a", "b"))},
            [VAL, f"{HEAD}.num_classes", f"{AUXILIARY}.num_classes"],
        ),
        ({f"{TRAIN}.metainfo": dict(classes="water")}, [f"{TRAIN}.metainfo.classes"]),
        ({f"{TRAIN}.metainfo": dict(classes=3)}, [f"{TRAIN}.metainfo.classes"]),
        ({f"{TRAIN}.metainfo": dict(classes=tuple("abcdefghijklmnopqra"))}, [f"{TRAIN}.metainfo.classes"]),
    ],
)
def test_classes_and_heads_that_differ(options, keys):
    only_names(messages(options), *keys)


def test_a_file_of_class_names_is_read(tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(f"class{n}" for n in range(19)))
    assert messages({f"{TRAIN}.metainfo": dict(classes=str(tmp_path / "names.txt"))}) == []
    (tmp_path / "names.txt").write_text("ground\nwater\n")
    found = messages({f"{TRAIN}.metainfo": dict(classes=str(tmp_path / "names.txt"))})
    assert len(found) == 1 and "has 2 classes" in found[0]


def test_heads_are_compared_with_each_other_where_the_data_set_names_no_classes():
    config = tiny_with({f"{AUXILIARY}.num_classes": 3})
    for split in ("train", "val"):
        config[f"{split}_dataloader"].dataset.type = "BaseSegDataset"
    only_names(list(disagreements(config, "train")), f"{HEAD}.num_classes", f"{AUXILIARY}.num_classes")


@pytest.mark.parametrize(
    "key",
    [
        f"{TRAIN}.ignore_index",
        f"{TRAIN}.pipeline.3.ignore_index",  # RandomCrop
        f"{HEAD}.ignore_index",
        f"{AUXILIARY}.ignore_index",
        "model.data_preprocessor.seg_pad_val",
        f"{VAL}.ignore_index",
        "val_evaluator.ignore_index",
    ],
)
def test_one_value_for_pixels_that_do_not_count(key):
    found = messages({key: 0})
    only_names(found, key)
    assert f"{key}=0" in found[0] and "=255" in found[0]


@pytest.mark.parametrize(
    ("transform", "key"),
    [
        (dict(type="RandomRotate", prob=0.5, degree=9, seg_pad_val=0), "seg_pad_val"),
        (dict(type="Pad", size=(32, 64), pad_val=dict(img=0, seg=0)), "pad_val.seg"),
        (dict(type="RandomRotate", prob=0.5, degree=9), None),
        (dict(type="Pad", size=(32, 64), pad_val=dict(img=0, seg=255)), None),
    ],
)
def test_transforms_that_pad_labels(transform, key):
    config = tiny_with({})
    config.train_dataloader.dataset.pipeline.insert(5, transform)
    found = list(disagreements(config, "train"))
    if key is None:
        assert found == []
    else:
        only_names(found, f"{TRAIN}.pipeline.5.{key}")


@pytest.mark.parametrize("key", ["ignore_index", "ignore_label"])
def test_losses_with_an_ignored_value_of_their_own(key):
    loss = dict(type="TverskyLoss") if key == "ignore_index" else dict(type="OhemCrossEntropy")
    assert messages({f"{HEAD}.loss_decode": loss}) == []
    only_names(messages({f"{HEAD}.loss_decode": {**loss, key: 0}}), f"{HEAD}.loss_decode.{key}")


def test_another_value_everywhere_is_fine():
    places = (f"{TRAIN}.ignore_index", f"{TRAIN}.pipeline.3.ignore_index", f"{HEAD}.ignore_index")
    places += (f"{AUXILIARY}.ignore_index", "model.data_preprocessor.seg_pad_val")
    assert messages(dict.fromkeys(places, 19)) == []


def test_a_test_has_nothing_to_do_with_the_heads_value():
    assert messages({f"{HEAD}.ignore_index": 0}, "test") == []
    only_names(messages({"test_evaluator.ignore_index": 0}, "test"), "test_evaluator.ignore_index")


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        (
            {f"{TRAIN}.pipeline.1.reduce_zero_label": True},
            [f"{TRAIN}.pipeline.1.reduce_zero_label", f"{TRAIN}.reduce_zero_label"],
        ),
        ({f"{VAL}.reduce_zero_label": True}, [f"{VAL}.reduce_zero_label", f"{TRAIN}.reduce_zero_label"]),
    ],
)
def test_label_zero_is_one_thing(options, keys):
    only_names(messages(options), *keys)


def test_heads_with_labels_of_their_own_are_left_alone():
    config = tiny_with({})
    edges = dict(config.model.auxiliary_head, type="STDCHead", num_classes=2)
    config.model.auxiliary_head = [config.model.auxiliary_head, edges]
    assert list(disagreements(config, "train")) == []
    assert check_agreement(config, "train")


def test_no_picture_is_unpickled():
    step = dict(type="LoadBiomedicalImageFromFile")
    assert messages({f"{TRAIN}.pipeline.0": {**step, "decode_backend": "numpy"}}) == []
    only_names(messages({f"{TRAIN}.pipeline.0": {**step, "decode_backend": "pickle"}}), "decode_backend")
