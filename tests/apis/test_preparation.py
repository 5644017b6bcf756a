"""prepare_for_inference: equal results from fewer operations, whatever the network."""

import copy
import io
from functools import partial

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import danseg.heads
from cpu_alone import cpu_alone, one_on_gpu
from danseg import apis
from danseg.backbones.variant_resnet import CONV2
from danseg.engine.tf32 import exact_convolutions
from danseg.errors import UserError
from own_test import own_test

RESNET = dict(type="ResNetV1c", depth=18, base_channels=8, stem_channels=8)
FCN = dict(type="FCNHead", num_convs=1)
# Widths that remain divisible when the networks have 8 channels instead of 64.
WIDTHS = dict(res2net=128, hs_resnet=80)


def head_arguments(name: str) -> dict:
    """The arguments that the head's own test passes."""
    return dict(type=name, **own_test(getattr(danseg.heads, name)).ARGS)


def build(head: dict = FCN, backbone: dict = RESNET, channels: int = 64, **model) -> nn.Module:
    """A tiny network with an auxiliary head, and no parameter at a value that hides its effect."""
    init_default_scope("mmseg")
    torch.manual_seed(0)
    norm, strides = dict(type="SyncBN"), dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    head = dict(in_channels=channels, in_index=3, channels=16, num_classes=5, norm_cfg=norm, **head)
    config = dict(
        type="EncoderDecoder",
        data_preprocessor=dict(type="SegDataPreProcessor", mean=[123.675] * 3, std=[58.0] * 3),
        backbone={**strides, "norm_cfg": norm, **backbone},
        decode_head=head,
        auxiliary_head=[dict(FCN, in_channels=channels // 2, in_index=2, channels=8, num_classes=5)],
        test_cfg=dict(mode="whole"),
    )
    return draw(MODELS.build(ConfigDict({**config, **model}))).eval()


def draw(model: nn.Module) -> nn.Module:
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0.1, 0.2)
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
    for name, parameter in model.named_parameters():
        if name.endswith(("gamma.scale", "se.fc1.bias")):
            nn.init.constant_(parameter, 0.7)
        elif name.endswith("conv_seg.weight"):
            nn.init.normal_(parameter)
    return model


def image(size: tuple[int, int] = (65, 97)) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model(x.to(next(model.parameters()).device), mode="tensor")


def balanced(model: nn.Module) -> nn.Module:
    """The model, with a bias that makes every class win in a part of the image."""
    with torch.no_grad():
        model.decode_head.conv_seg.bias -= logits(model, image()).mean((0, 2, 3))
    return model


def norms(module: nn.Module) -> int:
    return sum(isinstance(one, _BatchNorm) for one in module.modules())


def assert_equal_logits(prepared: nn.Module, model: nn.Module) -> None:
    """Compare logits to the tolerance that the docstring states, and labels except at near ties."""
    want, found = logits(model, image()), logits(prepared, image())
    tolerance = (1e-4 if want.is_cuda else 1e-5) * want.abs().max()
    assert found.dtype == torch.float32 and found.device == want.device
    assert (found - want).abs().max() <= tolerance
    best = want.topk(2, dim=1).values
    clear = best[:, 0] - best[:, 1] > 2 * tolerance
    assert clear.float().mean() > 0.99 and len(want.argmax(1).unique()) > 1
    assert (found.argmax(1) == want.argmax(1))[clear].all()


every_head = pytest.mark.parametrize("name", danseg.heads.__all__)
every_conv2 = pytest.mark.parametrize("kind", list(CONV2))


def test_rounding_to_tf32_does_not_keep_batch_norms(device, monkeypatch):
    """Where it may be, as a user's GPU has it: a changed result would undo the folding."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    model = build().to(device)
    prepared = apis.prepare_for_inference(model)
    assert norms(prepared) == 0 < norms(model) and torch.backends.cudnn.allow_tf32
    with exact_convolutions():
        want, found = (logits(one, image().to(device)) for one in (model, prepared))
    assert (found - want).abs().max() <= 1e-4 * want.abs().max()


def with_conv2(kind: str, device: torch.device) -> nn.Module:
    backbone = dict(RESNET, type="VariantResNet", depth=50, conv2=kind, base_width=WIDTHS.get(kind))
    return balanced(build(backbone=backbone, channels=256).to(device))


@pytest.mark.parametrize("name", one_on_gpu(danseg.heads.__all__))
def test_every_head_gives_equal_logits_without_batch_norms(name, device):
    model = balanced(build(head_arguments(name)).to(device))
    prepared = apis.prepare_for_inference(model)
    assert type(prepared) is type(model) and not prepared.training
    assert norms(model) > 20 and norms(prepared) == 0
    assert_equal_logits(prepared, model)


@pytest.mark.parametrize("kind", one_on_gpu(CONV2))
def test_every_backbone_gives_equal_logits(kind, device):
    model = with_conv2(kind, device)
    prepared = apis.prepare_for_inference(model)
    # The batch norms that remain follow a sum or a concatenation, not a convolution.
    assert norms(prepared) < 0.5 * norms(model)
    assert_equal_logits(prepared, model)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_backbone_of_other_channels_is_prepared(channels):
    model = build(backbone=dict(RESNET, in_channels=channels), data_preprocessor=None)
    prepared = apis.prepare_for_inference(model)
    assert norms(prepared) == 0
    x = image()[:, :1].repeat(1, channels, 1, 1)
    torch.testing.assert_close(logits(prepared, x), logits(model, x), rtol=1e-4, atol=1e-4)


@every_head
def test_every_head_in_float16_is_near_float32_on_a_gpu(name, device):
    model = balanced(build(head_arguments(name)).to(device))
    if device.type == "cpu":
        with pytest.raises(UserError, match="float16 needs a GPU; on a CPU use bfloat16"):
            apis.prepare_for_inference(model, precision="float16")
        return
    prepared = apis.prepare_for_inference(model, precision="float16")
    want, found = logits(model, image()), logits(prepared, image())
    assert found.dtype == torch.float32
    assert 1e-5 < (found - want).abs().max() / want.abs().max() < 0.01
    assert (found.argmax(1) == want.argmax(1)).float().mean() > 0.98


@pytest.mark.parametrize("name", one_on_gpu(danseg.heads.__all__))
def test_every_head_in_bfloat16_is_near_float32(name, device):
    model = balanced(build(head_arguments(name)).to(device))
    prepared = apis.prepare_for_inference(model, precision="bfloat16")
    want, found = logits(model, image()), logits(prepared, image())
    assert found.dtype == torch.float32
    error = (found - want).abs().max() / want.abs().max()
    assert 1e-4 < error < 0.05
    assert (found.argmax(1) == want.argmax(1)).float().mean() > 0.95


@pytest.mark.parametrize("kind", one_on_gpu(CONV2))
def test_every_backbone_in_bfloat16_is_near_float32(kind, device):
    model = with_conv2(kind, device)
    prepared = apis.prepare_for_inference(model, precision="bfloat16")
    want, found = logits(model, image()), logits(prepared, image())
    assert 1e-4 < (found - want).abs().max() / want.abs().max() < 0.05
    left = [module for module in prepared.modules() if isinstance(module, _BatchNorm)]
    assert all(norm.running_var.dtype == torch.float32 for norm in left), "float16 ends at 65504"


def saved_and_loaded(model: nn.Module) -> nn.Module:
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


@every_head
@pytest.mark.parametrize("copied", [saved_and_loaded, copy.deepcopy], ids=["saved", "copied"])
def test_every_prepared_head_survives_saving_and_copying(name, copied):
    prepared = apis.prepare_for_inference(balanced(build(head_arguments(name))), precision="bfloat16")
    twin = copied(prepared)
    assert (logits(twin, image()) == logits(prepared, image())).all()
    nn.init.zeros_(next(twin.backbone.parameters()))
    assert (logits(twin, image()) != logits(prepared, image())).any(), "the copy has weights of its own"


@every_head
def test_a_cuda_graph_captures_every_prepared_head(name, device):
    if device.type == "cpu":
        pytest.skip("needs a CUDA device")
    prepared = apis.prepare_for_inference(
        balanced(build(head_arguments(name))).to(device), precision="bfloat16"
    )
    x = image().to(device)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        logits(prepared, x)  # the first call loads libraries, which cannot be captured
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        captured = logits(prepared, x)
    x.neg_()
    graph.replay()
    want = logits(prepared, x)
    assert (captured - want).abs().max() <= 1e-2 * want.abs().max()


def test_the_given_model_does_not_change():
    model = build(dict(type="DANetHead", pam_channels=4)).train()
    names, weights = [name for name, _ in model.named_modules()], copy.deepcopy(model.state_dict())
    apis.prepare_for_inference(model, precision="bfloat16")
    assert [name for name, _ in model.named_modules()] == names
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]) and value.dtype == weights[name].dtype
    assert model.training and model.backbone.out_indices == (0, 1, 2, 3) and model.with_auxiliary_head
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_inference_does_not_use_is_dropped():
    model = build(dict(type="DANetHead", pam_channels=4))
    prepared = apis.prepare_for_inference(model)
    assert not prepared.with_auxiliary_head
    head = prepared.decode_head
    assert head.pam_conv_seg is None and head.cam_conv_seg is None and head.conv_seg is not None
    assert prepared.backbone.out_indices == (3,) and head.in_index == 0
    assert len(prepared.backbone(image())) == 1
    assert not any("auxiliary" in name or "pam_conv_seg" in name for name in prepared.state_dict())
    weight = prepared.backbone.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.requires_grad


def test_heads_that_read_several_maps_or_count_from_the_end_keep_what_they_read():
    several = dict(FCN, in_channels=[16, 64], in_index=[1, -1], input_transform="resize_concat")
    model = build()
    model.decode_head = MODELS.build(dict(several, channels=16, num_classes=5))
    draw(model).eval()
    prepared = apis.prepare_for_inference(model)
    assert prepared.backbone.out_indices == (1, 3) and prepared.decode_head.in_index == [0, 1]
    assert_equal_logits(prepared, model)


def test_a_cascade_keeps_what_any_of_its_heads_reads(device):
    norm = dict(type="BN")
    common = dict(channels=16, num_classes=5, norm_cfg=norm)
    heads = [
        dict(FCN, in_channels=32, in_index=2, **common),
        dict(type="OCRHead", in_channels=64, in_index=3, ocr_channels=8, **common),
    ]
    model = build(type="CascadeEncoderDecoder", num_stages=2, decode_head=heads).to(device)
    prepared = apis.prepare_for_inference(model)
    assert prepared.backbone.out_indices == (2, 3)
    assert [head.in_index for head in prepared.decode_head] == [0, 1]
    assert_equal_logits(prepared, model)


class ShiftedWeight(nn.Conv2d):
    """A convolution that changes its weight before it uses it."""

    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


class Pitfalls(nn.Module):
    """Convolutions with batch norms that must not be folded into them, and two with norms that can be."""

    def __init__(self) -> None:
        super().__init__()
        conv = partial(nn.Conv2d, 8, 8, 3, padding=1, bias=False)
        self.stem = nn.Conv2d(3, 8, 3, stride=8)
        # Registered in another order than they are used: the first norm follows the second convolution.
        self.conv_a, self.norm_b = conv(), nn.BatchNorm2d(8)
        self.conv_b, self.norm_a = conv(), nn.BatchNorm2d(8)
        self.twice, self.norm_twice = conv(), nn.BatchNorm2d(8)
        self.shared_norm, self.conv_c, self.conv_d = nn.BatchNorm2d(8), conv(), conv()
        self.also_added, self.norm_added = conv(), nn.BatchNorm2d(8)
        self.rectified, self.relu, self.norm_rectified = conv(), nn.ReLU(inplace=True), nn.BatchNorm2d(8)
        self.shifted, self.norm_shifted = ShiftedWeight(8, 8, 1), nn.BatchNorm2d(8)
        self.by_batch, self.norm_by_batch = conv(), nn.BatchNorm2d(8, track_running_stats=False)
        self.grouped, self.norm_grouped = nn.ConvTranspose2d(8, 8, 2, groups=2), nn.BatchNorm2d(8)
        self.up, self.norm_up = nn.ConvTranspose2d(8, 64, 2, stride=2), nn.BatchNorm2d(64)

    def forward(self, x):
        x = self.stem(x)
        x = self.norm_b(self.conv_b(x)) + self.norm_a(self.conv_a(x))
        x = self.norm_twice(self.twice(self.twice(x)))
        x = self.shared_norm(self.conv_d(self.shared_norm(self.conv_c(x))))
        y = self.also_added(x)
        x = self.norm_added(y) + y
        x = self.norm_rectified(self.relu(self.rectified(x)))
        x = self.norm_shifted(self.shifted(x))
        x = self.norm_by_batch(self.by_batch(x))
        x = self.norm_grouped(self.grouped(x))
        return None, None, None, self.norm_up(self.up(x))


def test_only_batch_norms_that_take_all_of_one_convolution_are_folded(device):
    model = build()
    model.backbone = Pitfalls()
    for layer in model.backbone.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.track_running_stats:
            layer.running_mean.normal_(0, 0.5)
            layer.running_var.uniform_(0.5, 1.5)
    nn.init.normal_(model.decode_head.conv_seg.weight)
    model.eval().to(device)
    prepared = apis.prepare_for_inference(model)
    folded = {name for name, one in prepared.backbone.named_children() if isinstance(one, nn.Identity)}
    assert folded == {"norm_a", "norm_b", "norm_up"}
    assert_equal_logits(prepared, model)


def test_a_change_that_the_result_does_not_survive_is_undone():
    class Watchful(type(build().backbone)):
        """Reads attributes of its batch norms, which tracing tensors does not show."""

        def forward(self, x):
            return tuple(y * (1 + norms(self)) for y in super().forward(x))

    model = build()
    model.backbone.__class__ = Watchful
    prepared = apis.prepare_for_inference(model)
    assert norms(prepared.backbone) == norms(model.backbone) > 0
    assert not prepared.with_auxiliary_head and prepared.backbone.out_indices == (3,)
    assert_equal_logits(prepared, model)


def test_a_head_that_is_made_for_one_size_is_watched_at_its_windows():
    head = dict(type="PSANetHead", mask_size=(4, 6), compact=True, shrink_factor=2)
    windows = dict(mode="slide", crop_size=(64, 96), stride=(32, 48))
    model = build(head, test_cfg=ConfigDict(windows))
    prepared = apis.prepare_for_inference(model)
    assert norms(prepared) == 0
    x = image((64, 96))
    assert torch.allclose(logits(prepared, x), logits(model, x), atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "settings",
    [dict(), cpu_alone(dict(mode=dict(mode="slide", crop_size=(32, 32), stride=(24, 24))))],
    ids=["whole", "slide"],
)
def test_a_prepared_model_predicts_and_shows_its_attention(
    camvid, tmp_path, settings, precision, make_config, make_checkpoint, device
):
    config = make_config(camvid, **settings)
    model = apis.load_model(config, make_checkpoint(config, tmp_path / "weights.pth"), device)
    prepared = apis.prepare_for_inference(model, precision=precision)
    path = camvid / "val" / "a.png"
    agreement = (apis.predict(prepared, path) == apis.predict(model, path)).mean()
    assert agreement > (0.999 if precision == "float32" else 0.95)
    maps, want = (
        apis.attention_maps(one, path, [(3, 3), (60, 50)])["decode_head.pam"] for one in (prepared, model)
    )
    tolerance = (1e-4 if precision == "float32" else 0.1) * (1 if device.type == "cpu" else 2)
    np.testing.assert_allclose(maps.rows, want.rows, rtol=tolerance)
    assert prepared.dataset_meta == model.dataset_meta and prepared.cfg.model == model.cfg.model


def test_test_step_of_mmseg_takes_a_prepared_model(device):
    model = build().to(device)
    prepared = apis.prepare_for_inference(model, precision="bfloat16")
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=dict(ori_shape=(80, 120), img_shape=(65, 97)))
    data = dict(inputs=[(image()[0] * 50 + 100).byte()], data_samples=[sample])
    with torch.no_grad():
        result = prepared.test_step(data)[0]
    assert result.seg_logits.data.dtype == torch.float32
    assert result.pred_sem_seg.data.shape == (1, 80, 120)


class OneConvolution(nn.Module):
    """The smallest backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 64, 3, stride=8), nn.BatchNorm2d(64)

    def forward(self, x):
        return None, None, None, self.norm(self.conv(x)).relu()


@pytest.mark.slow
def test_compiled_for_a_gpu_it_gives_the_same_logits(device):
    if device.type == "cpu":
        pytest.skip("a C++ compiler takes too long; what is compiled is tested below")
    model = build(head_arguments("DANetHead"))
    model.backbone = OneConvolution()  # few layers: each takes the compiler seconds
    model = balanced(model.eval().to(device))
    eager, compiled = (
        apis.prepare_for_inference(model, precision="bfloat16", compile=each) for each in (False, True)
    )
    want, found = logits(eager, image()), logits(compiled, image())
    assert found.dtype == torch.float32 and found.device == device
    assert (found - want).abs().max() / want.abs().max() < 0.03


@pytest.fixture
def compilations(monkeypatch) -> list:
    """The functions that are compiled; they run eagerly, because a C++ compiler takes too long for a test."""
    seen, real = [], torch.compile

    def compile_eagerly(function):
        seen.append(function)
        return real(function, backend="eager")

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    yield seen
    torch.compiler.reset()


def test_compile_compiles_backbone_and_head(camvid, tmp_path, compilations, make_config, make_checkpoint):
    config = make_config(camvid)
    model = apis.load_model(config, make_checkpoint(config, tmp_path / "weights.pth"), "cpu")
    prepared = apis.prepare_for_inference(model, compile=True)
    assert [one.__self__ for one in compilations] == [prepared.backbone, prepared.decode_head]
    path = camvid / "val" / "a.png"
    labels = apis.predict(prepared, path)
    assert (labels == apis.predict(model, path)).mean() > 0.999
    # Compiled code does not call hooks, but here they are called, even after compiled code has run.
    maps, want = (apis.attention_maps(one, path, [(3, 3)]) for one in (prepared, model))
    np.testing.assert_allclose(maps["decode_head.pam"].rows, want["decode_head.pam"].rows, rtol=1e-4)

    twin = copy.deepcopy(prepared)
    nn.init.zeros_(twin.decode_head.conv_seg.weight)
    assert len(np.unique(apis.predict(twin, path))) == 1, "a copy runs the code, and the weights, of its own"
    assert (apis.predict(prepared, path) == labels).all()

    compilations.clear()
    loaded = saved_and_loaded(prepared)
    assert [one.__self__ for one in compilations] == [loaded.backbone, loaded.decode_head]
    assert (apis.predict(loaded, path) == labels).all()


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("half", "precision must be one of float32, bfloat16, float16, got 'half'"),
        ("float16", "float16 needs a GPU; on a CPU use bfloat16"),
    ],
)
def test_a_precision_that_does_not_go_is_refused(precision, message):
    with pytest.raises(UserError, match=message):
        apis.prepare_for_inference(build(), precision=precision)


def test_models_of_another_kind_or_prepared_before_are_refused(monkeypatch):
    with pytest.raises(UserError, match="got Conv2d"):
        apis.prepare_for_inference(nn.Conv2d(1, 1, 1))
    prepared = apis.prepare_for_inference(build(), precision="bfloat16")
    with pytest.raises(UserError, match="holds torch.bfloat16"):
        apis.prepare_for_inference(prepared)
    monkeypatch.delattr(torch.compiler, "set_stance")
    with pytest.raises(UserError, match="needs PyTorch 2.6"):
        apis.prepare_for_inference(build(), compile=True)


def test_heads_are_enumerated():
    assert len(danseg.heads.__all__) >= 10
    assert all(issubclass(getattr(danseg.heads, name), BaseDecodeHead) for name in danseg.heads.__all__)
