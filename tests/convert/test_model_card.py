"""The card has a head that the hub's readers take, and says what the file says."""

import pytest
import torch
import yaml

from danseg.convert.model_card import model_card
from danseg.engine.config.config_file import load_config
from danseg.engine.config.stored_config import config_to_text

WEIGHTS = {"a": torch.zeros(500_000), "b": torch.zeros(500_000), "bn.num_batches_tracked": torch.tensor(1)}
SCORES = dict(measured="test", mIoU=72.345, aAcc=90.0, unit="percent", tta=False, views=1)


@pytest.fixture(scope="module")
def meta():
    config = load_config("danet_r50_cityscapes")
    return {
        "cfg": config_to_text(config),
        "dataset_meta": {"classes": ["road", "a|b"], "palette": [[1, 2, 3], [4, 5, 6]]},
        "published": {
            "danseg": "1.2",
            "network": "danet_r50_cityscapes",
            "training": dict(iterations=80000, epochs=0, seed=7, averaged=True, converted_from=None),
            "data": dict(sets=["cityscapes"], images=2975, names="0123abcd"),
            "scores": SCORES,
            "sha256": "f" * 64,
        },
    }


def parts(text: str) -> tuple[dict, str]:
    empty, head, body = text.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(head), body


def test_the_head_is_that_of_a_model_of_the_hub(meta):
    head, _ = parts(model_card("danet-01234567.pth", meta, WEIGHTS))
    assert {key: head[key] for key in ("library_name", "pipeline_tag", "datasets", "metrics")} == dict(
        library_name="danseg",
        pipeline_tag="image-segmentation",
        datasets=["cityscapes"],
        metrics=["mean_iou"],
    )
    [index] = head["model-index"]
    assert index["name"] == "danet_r50_cityscapes"
    [result] = index["results"]
    assert result["dataset"] == dict(name="cityscapes", type="cityscapes")
    assert result["metrics"] == [
        dict(type="mean_iou", value=72.34, name="mIoU"),
        dict(type="accuracy", value=90.0, name="aAcc"),
    ]


def test_the_body_says_what_it_is_how_it_was_trained_and_measured(meta):
    _, body = parts(model_card("danet-01234567.pth", meta, WEIGHTS))
    for line in (
        "Semantic segmentation: DANetHead on ResNetV1c-50, 2 classes, 1.00 million weights (float32).",
        'prediction = Segmenter("danet-01234567.pth")("picture.png")',
        "| 0 | road | 1, 2, 3 |",
        "| 1 | a&#124;b | 4, 5, 6 |",
        "| data | cityscapes; 2975 images; the digest of their names is 0123abcd |",
        "| started from | open-mmlab://resnet50_v1c |",
        "| iterations | 80000 |",
        "| optimiser | SGD, lr=0.01, momentum=0.9, weight_decay=0.0005 |",
        "| weights | averaged over the training |",
        "| seed | 7 |",
        "In percent, of the test set.",
        "| mIoU | 72.34 |",
    ):
        assert f"\n{line}\n" in body, line
    assert "f" * 64 in body and "| epochs |" not in body


def test_a_network_that_was_not_measured_says_so(meta):
    head, body = parts(
        model_card("a.pth", {**meta, "published": {**meta["published"], "scores": None}}, WEIGHTS)
    )
    assert "model-index" not in head and "\nNot measured.\n" in body
