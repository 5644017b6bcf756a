import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from converted_networks import assert_equal_logits
from danseg.apis import load_model
from danseg.apis.counterpart import mmseg_form
from danseg.convert.from_mmseg import _NETWORKS
from danseg.engine.config.config_file import load_config
from danseg.errors import UserError
from danseg.heads.counterparts import HEADS
from danseg.mmseg_import import building_quietly

# What mmseg cannot build without compiled operators, or not as it was published.
UNBUILT = {"CCNetHead", "PSANetHead"}
LEAVES = {kind: f"{network}_r50_cityscapes" for kind, network in _NETWORKS.items()}
SMALL = {
    "backbone.base_channels": 8,
    "backbone.stem_channels": 8,
    "decode_head.in_channels": 256,
    "decode_head.channels": 16,
    "auxiliary_head.in_channels": 128,
    "auxiliary_head.channels": 8,
}
OWN = {
    "DANetHead": {"pam_channels": 4},
    "ISANetHead": {"isa_channels": 8},
    "PSANetHead": {"mask_size": (7, 7)},
}
CLASSES = tuple(f"thing {number}" for number in range(19))


def small_config(kind: str, **changed) -> Config:
    """The config of a small network whose decode head is of a type; ``changed`` is of the model."""
    options = {f"model.{key}": value for key, value in SMALL.items()}
    options |= {f"model.decode_head.{key}": value for key, value in OWN.get(kind, {}).items()}
    return load_config(LEAVES[kind], options | {f"model.{k}": v for k, v in changed.items()})


def theirs(config: Config) -> tuple[torch.nn.Module, dict]:
    """mmseg's network of a config in float64, with random weights, and the config of its model."""
    init_default_scope("mmseg")
    model = mmseg_form(config.model)
    if config.model.decode_head.type in UNBUILT:
        built = config.model
    else:
        built = model
    torch.manual_seed(0)
    with building_quietly():
        network = (
            revert_sync_batchnorm(MODELS.build(copy.deepcopy({**built, "pretrained": None}))).double().eval()
        )
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand_like(tensor) + 0.5)
            elif tensor.is_floating_point():
                fan = tensor[0].numel() if tensor.dim() > 1 else 1
                tensor.copy_(torch.randn_like(tensor) * fan**-0.5)
    named = {
        part: {**value, "type": getattr(value["type"], "__name__", value["type"])}
        if isinstance(value, dict) and "type" in value
        else value
        for part, value in model.items()
    }
    return network, {**named, "type": "EncoderDecoder"}


def old_text(model: dict, **others) -> str:
    """A config as mmseg 0.x kept it: the preprocessing stands beside the model."""
    model = {key: value for key, value in model.items() if key != "data_preprocessor"}
    norm = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
    rest = dict(
        dataset_type="CityscapesDataset",
        img_norm_cfg=norm,
        crop_size=(769, 769),
        data=dict(train=dict(type="CityscapesDataset", pipeline=[dict(type="Normalize", **norm)])),
        optimizer=dict(type="SGD", lr=0.01),
        checkpoint_config=dict(by_epoch=False, interval=8000),
        load_from=None,
    )
    return Config(dict(model=model, **{**rest, **others})).pretty_text


def logits_of(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits = network.decode_head(network.extract_feat(images))
    return (
        logits[0] if isinstance(logits, tuple) else logits
    )  # mmseg's DANet gives those of its branches, too


@pytest.mark.parametrize("kind", LEAVES)
def test_a_checkpoint_of_0_x(kind, image, brought):
    network, model = theirs(small_config(kind))
    meta = dict(mmseg_version="0.11.0", config=old_text(model), CLASSES=CLASSES, PALETTE=[[1, 2, 3]] * 19)
    logits = logits_of(network, image)
    converted = brought("mmseg", {"state_dict": network.state_dict(), "meta": meta, "optimizer": {}})
    ours = assert_equal_logits(converted, image, logits)
    assert converted.base == f"danseg::{LEAVES[kind]}" and not converted.assumed
    assert ours.dataset_meta["classes"] == CLASSES and ours.dataset_meta["palette"][0] == (1, 2, 3)
    assert ours.align_corners and ours.cfg.model.test_cfg.mode == "slide"


def test_every_head_that_mmseg_has_too_is_tested():
    assert LEAVES.keys() == HEADS.keys()


def test_a_checkpoint_of_1_x_names_the_recipe_of_its_crop(image, brought):
    network, model = theirs(small_config("DANetHead"))
    model["data_preprocessor"] |= dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], bgr_to_rgb=False)
    for head in ("decode_head", "auxiliary_head"):
        model[head] = {**model[head], "align_corners": False}
    model["test_cfg"] = dict(mode="whole")
    text = Config(dict(model=model, crop_size=(512, 1024))).pretty_text
    meta = dict(cfg=text, dataset_meta=dict(classes=CLASSES), iter=80000)
    converted = brought("mmseg", {"state_dict": network.state_dict(), "meta": meta, "message_hub": {}})
    assert converted.base == "danseg::danet_r50_cityscapes_512x1024"
    config = load_config(converted.config)
    assert config.model.data_preprocessor.mean == [1.0, 2.0, 3.0]
    assert config.model.data_preprocessor.bgr_to_rgb is False
    assert not load_model(converted.checkpoint, device="cpu").align_corners
    assert config.model.test_cfg.mode == "whole"


@pytest.mark.parametrize(
    "kind, changed",
    [
        ("NonLocalHead", {"decode_head.mode": "dot_product"}),
        ("NonLocalHead", {"decode_head.use_scale": False}),
        ("DNLNetHead", {"decode_head.temperature": 0.2}),
        ("ISANetHead", {"decode_head.down_factor": (3, 2)}),
        ("CCNetHead", {"decode_head.recurrence": 1}),
        ("FullyConvolutionalHead", {"decode_head.act_cfg": dict(type="LeakyReLU", negative_slope=0.1)}),
        ("FullyConvolutionalHead", {"decode_head.dilation": 2, "decode_head.concat_input": False}),
        ("FullyConvolutionalHead", {"backbone.contract_dilation": False}),
        ("FullyConvolutionalHead", {"backbone.multi_grid": (1, 2, 4), "backbone.dilations": (1, 1, 1, 2)}),
        ("FullyConvolutionalHead", {"backbone.strides": (1, 2, 2, 1)}),
    ],
)
def test_what_its_tensors_do_not_say_is_read_from_its_config(kind, changed, image, brought):
    network, model = theirs(small_config(kind, **changed))
    logits = logits_of(network, image)
    content = {"state_dict": network.state_dict(), "meta": dict(config=old_text(model))}
    assert_equal_logits(brought("mmseg", content), image, logits)


def test_without_a_config_the_recipes_values_are_assumed(image, brought):
    network, _ = theirs(small_config("FullyConvolutionalHead"))
    converted = brought("mmseg", {"state_dict": network.state_dict()})
    assert_equal_logits(converted, image, logits_of(network, image))
    assert converted.assumed and "assumed" in converted.described()


def test_a_compact_mask_of_one_direction_is_mmsegs(brought):
    changed = {"decode_head.compact": True, "decode_head.psa_type": "collect"}
    network, model = theirs(small_config("PSANetHead", **changed))
    content = {"state_dict": network.state_dict(), "meta": dict(config=old_text(model))}
    head = load_model(brought("mmseg", content).checkpoint, device="cpu").decode_head
    assert (head.compact, head.swap_compact, head.psa_type) == (True, True, "collect")


@pytest.mark.parametrize(
    "text, said",
    [
        ("model = __import__('os').mkdir('ran')", "cannot be read as data"),
        ("import os\nos.mkdir('ran')", "cannot be read as data"),
        (
            "model = dict(decode_head=dict(type='PSPHead'))",
            "has a PSPHead, and its tensors are those of a Fully",
        ),
    ],
)
def test_its_config_is_data(text, said, brought, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network, _ = theirs(small_config("FullyConvolutionalHead"))
    with pytest.raises(UserError, match=said):
        brought("mmseg", {"state_dict": network.state_dict(), "meta": dict(config=text)})
    assert not (tmp_path / "ran").exists() and not (tmp_path / "ours").exists()


def test_several_auxiliary_heads_are_refused(brought):
    network, _ = theirs(small_config("FullyConvolutionalHead"))
    weights = {n.replace("auxiliary_head.", "auxiliary_head.0."): v for n, v in network.state_dict().items()}
    with pytest.raises(UserError, match="several auxiliary heads"):
        brought("mmseg", {"state_dict": weights})
