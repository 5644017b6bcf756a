"""Heads, their losses and their pixel samplers: each config is broken in one place."""

import json

import numpy as np
import pytest

from broken_config import messages, only_names, tiny_with
from danseg.engine.config.agreement import check_agreement
from danseg.errors import UserError

HEAD, AUXILIARY = "model.decode_head", "model.auxiliary_head"
TWO = {
    f"{HEAD}.num_classes": 2,
    f"{AUXILIARY}.num_classes": 2,
    "train_dataloader.dataset.metainfo": dict(classes=("ground", "water")),
    "val_dataloader.dataset.metainfo": dict(classes=("ground", "water")),
}
ONE_CHANNEL = {
    **TWO,
    f"{HEAD}.out_channels": 1,
    f"{HEAD}.threshold": 0.5,
    f"{HEAD}.loss_decode.use_sigmoid": True,
}
OHEM = dict(type="OHEMPixelSampler", thresh=0.7, min_kept=100)


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({f"{HEAD}.out_channels": 7}, [f"{HEAD}.out_channels", f"{HEAD}.num_classes"]),
        ({f"{AUXILIARY}.out_channels": 7}, [f"{AUXILIARY}.out_channels", f"{AUXILIARY}.num_classes"]),
        (
            {f"{HEAD}.out_channels": 1, f"{HEAD}.loss_decode.use_sigmoid": True, f"{HEAD}.threshold": 0.5},
            [f"{HEAD}.out_channels", f"{HEAD}.num_classes"],
        ),
        ({f"{HEAD}.threshold": 0.5}, [f"{HEAD}.threshold", f"{HEAD}.out_channels"]),
        ({**ONE_CHANNEL, f"{HEAD}.threshold": 50}, [f"{HEAD}.threshold"]),
        (
            {**ONE_CHANNEL, f"{HEAD}.loss_decode.use_sigmoid": False},
            [f"{HEAD}.loss_decode.use_sigmoid", f"{HEAD}.out_channels"],
        ),
        (
            {**TWO, f"{AUXILIARY}.out_channels": 1},
            [f"{AUXILIARY}.loss_decode.use_sigmoid", f"{AUXILIARY}.out_channels"],
        ),
        (
            {**ONE_CHANNEL, f"{HEAD}.loss_decode": dict(type="LovaszLoss", reduction="none")},
            [f"{HEAD}.loss_decode.loss_type", f"{HEAD}.out_channels"],
        ),
        (
            {**ONE_CHANNEL, f"{HEAD}.loss_decode": dict(type="TverskyLoss")},
            [f"{HEAD}.loss_decode.type", f"{HEAD}.out_channels"],
        ),
        (
            {**ONE_CHANNEL, f"{HEAD}.loss_decode": dict(type="DiceLoss", use_sigmoid=False)},
            [f"{HEAD}.loss_decode.use_sigmoid", f"{HEAD}.out_channels"],
        ),
        (
            {f"{HEAD}.loss_decode": dict(type="LovaszLoss", reduction="none", loss_type="binary")},
            [f"{HEAD}.loss_decode.loss_type", f"{HEAD}.out_channels"],
        ),
        (
            {
                "model.type": "EncoderDecoder",  # whose mmseg heads compute their losses themselves
                f"{AUXILIARY}.loss_decode": dict(
                    type="CrossEntropyLoss", use_sigmoid=True, class_weight=[1.0] * 19
                ),
            },
            [f"{AUXILIARY}.loss_decode.class_weight", f"{AUXILIARY}.loss_decode.use_sigmoid"],
        ),
        ({f"{HEAD}.sampler": {**OHEM, "thresh": 70}}, [f"{HEAD}.sampler.thresh"]),
        ({f"{HEAD}.sampler": {**OHEM, "min_kept": 1}}, [f"{HEAD}.sampler.min_kept"]),
        (
            {
                **TWO,
                "model.type": "EncoderDecoder",
                f"{AUXILIARY}.out_channels": 1,
                f"{AUXILIARY}.threshold": 0.5,
                f"{AUXILIARY}.loss_decode.use_sigmoid": True,
                f"{AUXILIARY}.sampler": OHEM,
            },
            [f"{AUXILIARY}.sampler.thresh", f"{AUXILIARY}.out_channels"],
        ),
        (
            {f"{HEAD}.sampler": OHEM, f"{HEAD}.loss_decode.use_sigmoid": True},
            [f"{HEAD}.sampler", f"{HEAD}.loss_decode.use_sigmoid"],
        ),
        (
            {f"{HEAD}.sampler": OHEM, f"{HEAD}.loss_decode": dict(type="DiceLoss", use_sigmoid=False)},
            [f"{HEAD}.sampler", f"{HEAD}.loss_decode.type"],
        ),
    ],
)
def test_a_head_that_contradicts_itself(options, keys):
    only_names(messages(options), *keys)


@pytest.mark.parametrize(
    "options",
    [
        {**ONE_CHANNEL, f"{HEAD}.sampler": OHEM},
        {
            f"{AUXILIARY}.loss_decode": dict(
                type="CrossEntropyLoss", use_sigmoid=True, class_weight=[1.0] * 19
            )
        },
    ],
)
def test_what_danseg_computes_and_mmseg_would_not(options):
    assert not messages(options)


def test_one_class_is_too_few():
    one = {"metainfo": dict(classes=("water",))}
    options = {f"{split}_dataloader.dataset.{key}": v for split in ("train", "val") for key, v in one.items()}
    found = messages({**options, f"{HEAD}.num_classes": 1, f"{AUXILIARY}.num_classes": 1})
    assert any(f"{HEAD}.num_classes=1: labels need two classes" in one for one in found)
    assert any(f"{AUXILIARY}.num_classes=1: labels need two classes" in one for one in found)


@pytest.mark.parametrize("options", [TWO, ONE_CHANNEL, {f"{HEAD}.sampler": OHEM}], ids=["two", "one", "ohem"])
def test_heads_that_agree(options):
    assert messages(options) == []


def test_the_threshold_that_mmseg_takes_is_said():
    config = tiny_with({**ONE_CHANNEL, f"{HEAD}.threshold": None})
    assert any(
        f"{HEAD}.threshold is not set" in said and "0.3" in said for said in check_agreement(config, "train")
    )
    assert not any("threshold" in said for said in check_agreement(tiny_with(ONE_CHANNEL), "train"))


@pytest.mark.parametrize(
    ("place", "loss"),
    [
        (f"{HEAD}.loss_decode", dict(type="CrossEntropyLoss", class_weight=[1.0] * 18)),
        (f"{AUXILIARY}.loss_decode", dict(type="CrossEntropyLoss", class_weight=[1.0] * 20)),
        (f"{HEAD}.loss_decode", dict(type="FocalLoss", class_weight=[1.0, 2.0])),
        (f"{HEAD}.loss_decode", dict(type="LovaszLoss", reduction="none", class_weight=[1.0, 2.0])),
        (f"{HEAD}.loss_decode", dict(type="TverskyLoss", class_weight=[1.0, 2.0])),
    ],
    ids=str,
)
@pytest.mark.parametrize("listed", [False, True])
def test_class_weights_of_another_length(place, loss, listed):
    value = [dict(type="DiceLoss", use_sigmoid=False), loss] if listed else loss
    place_of_weights = f"{place}.1.class_weight" if listed else f"{place}.class_weight"
    found = messages({place: value})
    only_names(found, place_of_weights, f"{place.rpartition('.')[0]}.num_classes=19".partition("=")[0])
    assert f"{len(loss['class_weight'])} numbers" in found[0] and "=19" in found[0]


def test_class_weights_of_one_channel():
    options = {**ONE_CHANNEL, f"{HEAD}.loss_decode.class_weight": [0.3, 0.7]}
    only_names(messages(options), f"{HEAD}.loss_decode.class_weight", f"{HEAD}.out_channels")


@pytest.mark.parametrize("suffix", ["npy", "json"])
def test_class_weights_in_a_file(tmp_path, suffix):
    def options(count):
        path = tmp_path / f"{count}.{suffix}"
        if suffix == "npy":
            np.save(path, np.ones(count))
        else:
            path.write_text(json.dumps([1.0] * count))
        return {f"{HEAD}.loss_decode.class_weight": str(path)}

    assert messages(options(19)) == []
    only_names(messages(options(18)), f"{HEAD}.loss_decode.class_weight", f"{HEAD}.num_classes")


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ("none.npy", "does not exist"),
        ("weights.pkl", "can run code"),  # mmseg would read these, with all that they contain
        ("weights.yaml", "can run code"),
        ([float("nan"), *[1.0] * 18], "finite"),
        ([-1.0, *[1.0] * 18], "not negative"),
        (["a"] * 19, "one number a class"),
        (3.0, "one number a class"),
    ],
)
def test_class_weights_that_are_none(weights, reason):
    found = messages({f"{HEAD}.loss_decode.class_weight": weights})
    only_names(found, f"{HEAD}.loss_decode.class_weight")
    assert reason in found[0]


def test_every_head_of_a_cascade_and_every_auxiliary_head_is_compared():
    config = tiny_with({})
    heads = [dict(config.model.decode_head) for _ in range(2)]
    heads[1]["out_channels"] = 5
    others = [dict(config.model.auxiliary_head) for _ in range(2)]
    others[1]["loss_decode"] = dict(type="CrossEntropyLoss", class_weight=[1.0, 1.0])
    config.model.update(decode_head=heads, auxiliary_head=others)
    with pytest.raises(UserError) as caught:
        check_agreement(config, "train")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and "disagrees with itself" in lines[0]
    assert f"{HEAD}.1.out_channels=5" in lines[1]
    assert f"{AUXILIARY}.1.loss_decode.class_weight has 2" in lines[2]
