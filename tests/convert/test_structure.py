import pytest
import torch
from mmseg.registry import MODELS

from danseg.convert.foreign_file import Absent, Tensors
from danseg.convert.structure import UNSAID, defaults, feature_channels, head, resnet
from danseg.engine.config.config_file import load_config
from danseg.errors import UserError
from danseg.heads.counterparts import HEADS
from danseg.mmseg_import import building_quietly
from danseg.recipes import recipes
from danseg.shipped import shipped


def shapes(config: dict) -> Tensors:
    """The tensors of what a config builds, without memory for their numbers."""
    with building_quietly(), torch.device("meta"):
        return Tensors(MODELS.build({**config, "norm_cfg": dict(type="BN")}).state_dict())


BACKBONES = [
    *(dict(type="ResNet", depth=depth) for depth in (18, 34, 50, 101, 152)),
    dict(type="ResNet", depth=50, in_channels=4, stem_channels=16, base_channels=32),
    dict(type="ResNetV1c", depth=101, stem_channels=128),
    dict(type="ResNetV1d", depth=18),
    dict(type="VariantResNet", depth=50, conv2="pyramid_split"),
    dict(type="VariantResNet", depth=101, conv2=dict(type="pyramid_split", groups=(32,) * 4), base_width=128),
    *(
        dict(
            type="VariantResNet", depth=depth, conv2="split_attention_pooled", deep_stem=True, avg_down=True,
            stem_channels=stem,
        )
        for depth, stem in [(50, 64), (101, 128), (200, 128), (269, 128)]
    ),
    dict(
        type="VariantResNet", depth=50, conv2=dict(type="split_attention_pooled", radix=4, groups=2),
        base_width=80, deep_stem=True, avg_down=True,
    ),
]  # fmt: skip


@pytest.mark.parametrize("config", BACKBONES, ids=str)
def test_a_backbone_is_told_by_its_tensors(config):
    found = resnet(shapes(config))
    usual = defaults(MODELS.get(config["type"]))
    assert {name: found.get(name, usual.get(name)) for name in config} == config
    assert all(value == config.get(name, usual.get(name)) for name, value in found.items() if name != "type")


@pytest.mark.parametrize("depth, stage, channels", [(18, 3, 512), (50, 3, 2048), (101, 2, 1024)])
def test_channels_of_a_stage(depth, stage, channels):
    assert feature_channels(dict(base_channels=64, depth=depth), stage) == channels


def test_other_numbers_of_blocks_are_refused():
    tensors = shapes(dict(type="ResNet", depth=50))
    cut = Tensors({name: value for name, value in tensors.items() if not name.startswith("layer3.5")})
    with pytest.raises(
        UserError, match=r"3, 4, 5, 3 bottlenecks in its stages; ResNets that can be built have 2"
    ):
        resnet(cut)


LEAVES = [r.name for r in recipes(shipped("configs")) if r.name.endswith("_r50_ade20k") and r.network in
          ("danet", "nonlocal", "ccnet", "psanet", "gcnet", "isanet", "dnlnet", "fcn")]  # fmt: skip
LEAVES += ["nonlocal_r50_cityscapes_concatenation", "nonlocal_r50_cityscapes_gaussian"]


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_head_is_told_by_its_tensors(leaf):
    for part in ("decode_head", "auxiliary_head"):
        config = load_config(leaf).model[part].to_dict()
        found = head(shapes(config))
        usual = defaults(MODELS.get(config["type"]))
        assert found["type"] == config["type"]
        for name, value in found.items():
            other = config.get(name, usual.get(name))
            assert value == other or tuple(value) == tuple(other), name


def test_every_head_that_mmseg_has_too_is_told():
    assert {load_config(leaf).model.decode_head.type for leaf in LEAVES} == HEADS.keys()


@pytest.mark.parametrize("psa_type", ["collect", "distribute", "bi-direction"])
def test_what_the_tensors_of_psanet_do_not_say(psa_type):
    config = load_config("psanet_r50_ade20k").model.decode_head | dict(psa_type=psa_type)
    found = head(shapes(config))
    assert ("psa_type" in found) == (psa_type == "bi-direction")
    assert found["mask_size"] == (66, 66) and set(UNSAID["PSANetHead"]) == {"mask_size", "psa_type"}


def test_a_head_of_the_multiplying_kind():
    config = load_config("gcnet_r50_ade20k").model.decode_head
    config |= dict(fusion_types=("channel_mul",), pooling_type="avg", ratio=1 / 8)
    found = head(shapes(config))
    assert (found["fusion_types"], found["pooling_type"], found["ratio"]) == (("channel_mul",), "avg", 1 / 8)


def test_another_head_is_refused():
    with pytest.raises(
        UserError, match="head is none that danseg has; its first tensors are conv_seg.weight, ppm"
    ):
        head(Tensors({"conv_seg.weight": torch.zeros(3, 4, 1, 1), "ppm.0": torch.zeros(1)}))


def test_a_tensor_that_is_not_there_is_named_in_full():
    with pytest.raises(Absent, match="decode_head.conv_seg.weight"):
        head(Tensors({"decode_head.convs.0.conv.weight": torch.zeros(1)}).below("decode_head"))
