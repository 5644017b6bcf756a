"""Attention inside a backbone, as convolution or plugin, is found, shown and switched off in each block."""

import itertools

import pytest
import torch
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS
from torch import nn

import danseg.attention
from danseg.attention.parts.views import ShowsAttention
from danseg.backbones.variant_resnet import CONV2
from danseg.registry import OWNED_BY_MMCV
from danseg.visualization import attention_modules
from danseg.visualization.attention_recording import record_attention
from danseg.visualization.attention_switch import switched_off

WITH_ATTENTION = [kind for kind, conv2 in CONV2.items() if issubclass(conv2.module, ShowsAttention)]
PLUGINS = [
    name
    for name in danseg.attention.__all__
    if name not in ("NonLocal1d", "NonLocal3d")  # their input is not an image
    and issubclass(getattr(danseg.attention, name), ShowsAttention)
]
BLOCKS = [f"backbone.layer{stage}.{i}" for stage, blocks in enumerate((3, 4, 6, 3), 1) for i in range(blocks)]
IMAGE = torch.randn(2, 3, 40, 56, generator=torch.Generator().manual_seed(1))


def segmentor(**backbone) -> nn.Module:
    """A network of 8 channels in place of 64, in evaluation mode, with no attention at its start."""
    torch.manual_seed(0)
    narrow = dict(depth=50, base_channels=8, stem_channels=8, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    head = dict(type="FCNHead", in_channels=256, channels=8, num_classes=4, num_convs=1)
    with DefaultScope.overwrite_default_scope("mmseg"):  # as a config does
        model = MODELS.build(
            dict(
                type="EncoderDecoder",
                backbone={**narrow, **backbone},
                decode_head={**head, "norm_cfg": dict(type="BN")},
                train_cfg=None,
                test_cfg=dict(mode="whole"),
            )
        )
    for name, parameter in model.named_parameters():
        if name.endswith(("gamma.scale", "fc1.bias", "mlp.0.bias")):  # a ReLU follows biases of one channel
            nn.init.constant_(parameter, 0.7)
        elif not parameter.any():
            nn.init.normal_(parameter, 0.3, 0.5)
    return model.eval()


@torch.no_grad()
def require_shown(model: nn.Module, paths: list[str]) -> None:
    """Each of the modules is found, is shown by what it got, and alone is switched off."""
    assert list(attention_modules(model)) == paths
    with record_attention(model) as recorded:
        logits = model(IMAGE, mode="tensor")
    assert list(recorded) == paths
    for path, one in recorded.items():
        for name, view in one.views.items():
            asked = [(0, 0)] if view.kind == "position" else []
            assert one.show(asked, name).isfinite().all(), (path, name)
    for path in (paths[0], paths[len(paths) // 2], paths[-1]):
        with switched_off(model, path):
            assert not torch.equal(model(IMAGE, mode="tensor"), logits), path
    assert torch.equal(model(IMAGE, mode="tensor"), logits)


def test_there_are_blocks_with_attention():
    assert {"pyramid_split", "pyramid_split_dual", "selective_kernel", "split_attention"} < set(
        WITH_ATTENTION
    )
    assert {"SqueezeExcitation", "CBAM", "PositionAttention"} < set(PLUGINS)


@pytest.mark.parametrize("kind", WITH_ATTENTION)
def test_every_blocks_convolution(kind):
    model = segmentor(type="VariantResNet", conv2=kind)
    require_shown(model, [f"{block}.conv2" for block in BLOCKS])


# Each module at one of the two places: there are many.
@pytest.mark.parametrize(("name", "position"), zip(PLUGINS, itertools.cycle(("after_conv2", "after_conv3"))))
def test_every_blocks_plugin(name, position):
    kind = f"danseg.{name}" if name in OWNED_BY_MMCV else name
    plugin = dict(cfg=dict(type=kind), stages=(False, True, False, True), position=position)
    model = segmentor(type="ResNet", plugins=[plugin])
    of_class = [path for path, one in model.named_modules() if type(one) is getattr(danseg.attention, name)]
    assert [path.rpartition(".")[0] for path in of_class] == [*BLOCKS[3:7], *BLOCKS[13:]]
    require_shown(model, of_class)
