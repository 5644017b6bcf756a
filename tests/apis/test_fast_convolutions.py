import copy
import io
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from danseg.apis import prepare_for_inference
from danseg.apis.fast_convolutions import PointwiseConv2d, WinogradConv2d, faster


def _conv(**settings) -> nn.Conv2d:
    torch.manual_seed(0)
    conv = nn.Conv2d(**{**dict(in_channels=256, out_channels=256, kernel_size=3, padding=1), **settings})
    return conv.requires_grad_(False)


def _fast(conv: nn.Conv2d) -> nn.Module:
    [(path, layer)] = faster(conv).items()
    assert path == ""
    return layer


@pytest.mark.parametrize("dilation", [1, 2])
def test_a_layer_computes_its_convolution(dilation):
    conv = _conv(padding=dilation, dilation=dilation)
    layer = _fast(conv)
    x = torch.randn(2, 256, 16, 33)
    got, want = layer(x), conv(x)
    assert not torch.equal(got, want)  # it goes another way
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()
    assert torch.equal(layer.weight, conv.weight)
    assert "Winograd" in repr(layer) and "Winograd" not in repr(conv)


def test_small_maps_and_other_types_are_convolved_as_ever():
    conv = _conv()
    layer = _fast(conv)
    small = torch.randn(1, 256, 9, 9)
    assert torch.equal(layer(small), conv(small))
    assert not layer.workspace._free
    wide = torch.randn(1, 256, 16, 32, dtype=torch.float64)
    assert torch.equal(copy.deepcopy(layer).double()(wide), copy.deepcopy(conv).double()(wide))


def test_layers_of_a_model_and_its_copies_share_one_workspace():
    wide, narrow = _conv(), _conv(in_channels=512)
    layers = faster(nn.ModuleDict(dict(wide=wide, narrow=narrow)))
    x = torch.randn(1, 512, 16, 32)
    inputs = dict(wide=x[:, :256], narrow=x)
    want = {name: layer(inputs[name]) for name, layer in layers.items()}
    [workspace] = {layer.workspace for layer in layers.values()}
    [piece] = workspace._free
    assert len(piece) == 36 * 512 * 256
    copies = copy.deepcopy(layers)
    for name in ("narrow", "wide"):
        assert torch.equal(copies[name](inputs[name]), want[name])
    assert workspace._free == [piece]


def test_threads_have_a_piece_each():
    layer = _fast(_conv())
    xs = torch.randn(6, 1, 256, 16, 32)
    want = [layer(x) for x in xs]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            assert all(map(torch.equal, pool.map(layer, xs), want))
    assert 1 <= len(layer.workspace._free) <= 3


def test_a_layer_survives_copying_and_saving():
    layer = _fast(_conv())
    x = torch.randn(1, 256, 16, 32)
    want = layer(x)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for other in (copy.deepcopy(layer), torch.load(file, weights_only=False)):
        assert torch.equal(other(x), want)


@pytest.mark.parametrize("bias", [True, False])
def test_a_pointwise_layer_is_a_product_on_channels_last(bias):
    conv = _conv(in_channels=24, out_channels=40, kernel_size=1, padding=0, bias=bias)
    layer = _fast(conv)
    assert isinstance(layer, PointwiseConv2d)
    assert "matrix product" in repr(layer)
    x = torch.randn(2, 24, 5, 7)
    assert torch.equal(layer(x), conv(x))
    last = x.contiguous(memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter:
        got = layer(last)
    assert torch.ops.aten.convolution not in counter.get_flop_counts().get("Global", {})
    torch.testing.assert_close(got, conv(x))
    assert got.is_contiguous(memory_format=torch.channels_last)
    layer.requires_grad_()
    layer(last).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "settings",
    [
        dict(kernel_size=1),  # with padding
        dict(kernel_size=5),
        dict(kernel_size=(3, 1)),
        dict(stride=2),
        dict(groups=2),
        dict(padding="same"),
        dict(padding_mode="reflect"),
        dict(in_channels=128),
        dict(out_channels=128),
    ],
    ids=str,
)
def test_other_convolutions_are_left(settings):
    assert faster(_conv())
    assert not faster(_conv(**settings))
    assert not faster(_fast(_conv()))


@pytest.fixture(scope="module")
def model():
    """A narrow ResNet with a head of 256 channels: one of its 3x3 convolutions is wide on both sides."""
    init_default_scope("mmseg")
    torch.manual_seed(0)
    norm = dict(type="BN")
    backbone = dict(type="ResNetV1c", depth=18, base_channels=8, stem_channels=8, norm_cfg=norm)
    config = dict(
        type="EncoderDecoder",
        data_preprocessor=dict(type="SegDataPreProcessor"),
        backbone=dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), **backbone),
        decode_head=dict(type="GCNetHead", in_channels=64, channels=256, num_classes=5, norm_cfg=norm),
        test_cfg=dict(mode="whole"),
    )
    return MODELS.build(config).eval()


def _wide(model: nn.Module) -> list[str]:
    return [path for path, layer in model.named_modules() if isinstance(layer, WinogradConv2d)]


@torch.no_grad()
def test_prepared_networks_have_such_layers_and_equal_logits(model):
    prepared = prepare_for_inference(model)
    assert _wide(prepared) == ["decode_head.convs.1.conv", "decode_head.conv_cat.conv"]
    image = torch.randn(1, 3, 136, 264)  # maps of 17x33
    want, got = (one(image, mode="tensor") for one in (model, prepared))
    assert (got - want).abs().max() <= 2e-5 * want.abs().max()
    assert torch.equal(got.argmax(1), want.argmax(1))


def test_one_argument_leaves_all_convolutions_as_they_are(model):
    assert not _wide(prepare_for_inference(model, fast_convolutions=False))
    assert not _wide(prepare_for_inference(model, precision="bfloat16"))
    assert not _wide(model)
