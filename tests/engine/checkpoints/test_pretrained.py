"""Pretrained weights: all of them are taken, or a training stops before it starts."""

import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from safetensors.torch import save_file

from danseg.engine.checkpoints.pretrained import check_pretrained
from danseg.engine.checkpoints.safe_loading import reading_safely
from danseg.engine.runner import DansegRunner
from danseg.errors import UserError

RESNET = dict(type="ResNetV1c", depth=18, base_channels=8, stem_channels=8)


def backbone(path, **init):
    init_default_scope("mmseg")
    return MODELS.build({**RESNET, "init_cfg": dict(type="Pretrained", checkpoint=str(path), **init)})


@pytest.fixture
def state():
    return dict(backbone("none.pth").state_dict())


# Where PyTorch's ResNets with three convolutions in front keep what mmseg has in ``stem``, by its place.
DEEP = {"0": "conv1.0", "1": "conv1.1", "3": "conv1.3", "4": "conv1.4", "6": "conv1.6", "7": "bn1"}


def drawn(network) -> dict[str, torch.Tensor]:
    """The network's weights, all drawn anew."""
    own = network.state_dict().items()
    return {name: torch.rand_like(v) if v.is_floating_point() else v + 7 for name, v in own}


def published_names(weights) -> dict[str, torch.Tensor]:
    """Weights as torchvision and timm name them, with a classifier."""
    found = {"fc.weight": torch.zeros(1000, 8), "fc.bias": torch.zeros(1000)}
    for name, value in weights.items():
        stem, _, rest = name.partition(".")
        place, _, last = rest.partition(".")
        found[f"{DEEP[place]}.{last}" if stem == "stem" else name] = value
    return found


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_weights_that_fit_in_part_are_taken(tmp_path, state, prefix):
    other = {f"{prefix}{name}": value for name, value in state.items()}
    if prefix != "module.":  # all names have it, or none
        other["fc.weight"] = torch.ones(3)
    torch.save(other, tmp_path / "a.pth")
    check_pretrained(backbone(tmp_path / "a.pth", **(dict(prefix=prefix) if prefix == "backbone." else {})))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {f"backbone.{n}": v for n, v in s.items()}, "no parameter of .*a.pth fits ResNetV1c"),
        (lambda s: {n: v[None, None] for n, v in s.items()}, "no parameter of .*a.pth fits ResNetV1c"),
        (lambda s: s | {"layer1.0.conv1.weight": s["layer1.0.conv1.weight"] / 0}, "1 weights hold NaN"),
        (lambda s: s | {"layer1.0.conv1.weight": 1}, "has no 'state_dict'"),
        (lambda s: [s], "holds a list"),
    ],
)
def test_weights_that_do_no_good_are_refused(tmp_path, state, change, message):
    torch.save(change(state), tmp_path / "a.pth")
    with pytest.raises(UserError, match=message) as caught:
        check_pretrained(backbone(tmp_path / "a.pth"))
    assert "Use an earlier or another file" in str(caught.value) or "model.pretrained=None" in str(
        caught.value
    )


def test_a_training_does_not_start_from_weights_that_fit_nothing(tiny, tmp_path):
    torch.save({"nothing": torch.ones(1)}, tmp_path / "a.pth")
    config = tiny({"model.pretrained": str(tmp_path / "a.pth")})
    with pytest.raises(UserError, match=r"no parameter of the pretrained weights .*a\.pth fits"):
        DansegRunner.from_cfg(config).train()


KINDS = [
    dict(type="ResNet", depth=18),
    dict(type="ResNet", depth=50, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,)),
    dict(type="ResNetV1c", depth=50),
    dict(type="ResNetV1d", depth=50),
    dict(type="ResNeXt", depth=50, groups=2, base_width=8),
    dict(type="VariantResNet", depth=50, conv2="pyramid_split", deep_stem=True),
]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind['type']}{kind['depth']}")
def test_weights_under_the_names_of_torchvision_and_timm_are_all_taken(kind, suffix, tmp_path):
    init_default_scope("mmseg")
    path = tmp_path / f"weights{suffix}"
    small = dict(base_channels=8, stem_channels=8)
    whole = {key: value for key, value in kind.items() if key in ("type", "depth", "groups", "base_width")}
    whole = kind if kind["type"] == "VariantResNet" else whole
    wanted = drawn(MODELS.build({**whole, **small}))
    saved = published_names(wanted)
    save_file(saved, path) if suffix == ".safetensors" else torch.save(saved, path)
    for how in (dict(init_cfg=dict(type="Pretrained", checkpoint=str(path))), dict(pretrained=str(path))):
        network = MODELS.build({**kind, **small, **how})
        check_pretrained(network)
        with reading_safely():
            network.init_weights()
        for name, value in network.state_dict().items():
            assert torch.equal(value, wanted[name]), name


def test_a_backbone_may_have_plugins_and_other_channels(tmp_path):
    init_default_scope("mmseg")
    small = dict(type="ResNetV1c", depth=50, base_channels=8, stem_channels=8)
    wanted = drawn(MODELS.build(small))
    torch.save(published_names(wanted), tmp_path / "a.pth")
    plugins = [dict(cfg=dict(type="CBAM"), stages=(False, True, True, True), position="after_conv3")]
    init = dict(init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "a.pth")))
    network = MODELS.build({**small, **init, "plugins": plugins, "in_channels": 5})
    check_pretrained(network)
    with reading_safely():
        network.init_weights()
    own = network.state_dict()
    assert len(own) > len(wanted)
    assert all(torch.equal(own[name], wanted[name]) for name in wanted if name != "stem.0.weight")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(type="ResNet"), r"stem has one convolution \(ResNet\), and theirs three .*stem\.0\.weight"),
        (dict(type="ResNetV1d"), r"parameters (unknown|of another shape).*layer2\.0\.downsample"),
        (dict(depth=101), r"missing in the checkpoint: layer3\.6\.conv1\.weight"),
        (dict(norm_cfg=dict(type="GN", num_groups=2)), r"missing .*gn1"),
        (
            dict(type="VariantResNet", conv2="pyramid_split", deep_stem=True),
            r"unknown .*layer1\.0\.conv2\.weight",
        ),
        (dict(base_channels=16), r"of another shape: "),
    ],
    ids=lambda value: str(value)[:30],
)
def test_weights_of_another_resnet_are_refused_with_what_is_left(change, said, tmp_path):
    init_default_scope("mmseg")
    small = dict(type="ResNetV1c", depth=50, base_channels=8, stem_channels=8)
    torch.save(published_names(drawn(MODELS.build(small))), tmp_path / "a.pth")
    init = dict(init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "a.pth")))
    with pytest.raises(
        UserError, match=rf"(?s)weights .*a\.pth are not those of this {change.get('type', 'R')}.*{said}"
    ):
        check_pretrained(MODELS.build({**small, **init, **change}))


def test_a_weight_without_a_place_is_named(tmp_path, state):
    torch.save(state | {"projector.weight": torch.ones(3)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"1 parameters unknown to the model: projector\.weight"):
        check_pretrained(backbone(tmp_path / "a.pth"))
