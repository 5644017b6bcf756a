"""Tiny networks and batches, and a counter of full-resolution logits."""

from collections.abc import Callable

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import danseg  # noqa: F401  (registers the segmentor and the heads)
from cpu_alone import cpu_alone

CLASSES = 7
WINDOWS = dict(mode="slide", crop_size=(32, 48), stride=(20, 32))
SAME, LARGER = dict(original=(48, 72)), dict(original=(101, 150))
BINARY = dict(type="FCNHead", num_convs=1, num_classes=2, out_channels=1, threshold=0.2)
CASCADE = [dict(type="FCNHead"), dict(type="OCRHead", ocr_channels=8)]
CASES = {
    "same size": (dict(), SAME),
    "resized": (dict(), LARGER),
    "align_corners": (dict(head=dict(type="FCNHead", align_corners=True)), LARGER),
    "padded by the preprocessor": (dict(test_cfg=dict(size_divisor=32)), LARGER),
    "padded by the pipeline": (dict(), dict(LARGER, pad_shape=(48, 72, 3), padding_size=[8, 3, 5, 0])),
    "two images": (dict(), dict(original=[(48, 72), (101, 150)])),
    "flipped": (dict(), dict(LARGER, flip=True, flip_direction="horizontal")),
    "windows": (dict(mode=WINDOWS), SAME),
    "windows of two images": (dict(mode=WINDOWS), dict(original=[(101, 150), (33, 50)])),
    "less than a window": (dict(mode=WINDOWS), dict(original=(31, 33), size=(24, 40))),
    "binary": (dict(head=BINARY), LARGER),
    "binary windows": (dict(head=dict(BINARY, threshold=0.3), mode=WINDOWS), LARGER),
    "three classifiers": (dict(head=dict(type="DAHead", pam_channels=4)), LARGER),
    "cascade": (dict(head=CASCADE), LARGER),
}
ON_GPU = ("resized", "windows of two images", "binary", "three classifiers", "cascade")


def _build(head=None, mode=None, lean=False, device="cpu", **preprocessor) -> nn.Module:
    """A network whose labels change from place to place: mmseg's, or danseg's with equal weights."""
    init_default_scope("mmseg")
    torch.manual_seed(0)
    common = dict(in_channels=64, in_index=3, channels=8, num_classes=CLASSES, norm_cfg=dict(type="BN"))
    heads = head if isinstance(head, list) else [head or dict(type="FCNHead")]
    heads = [{**common, **one} for one in heads]
    cascade = len(heads) > 1  # danseg leaves it to mmseg
    kind = "LeanEncoderDecoder" if lean else "EncoderDecoder"
    config = dict(
        type="CascadeEncoderDecoder" if cascade else kind,
        data_preprocessor=dict(type="SegDataPreProcessor", mean=[0.0] * 3, std=[1.0] * 3, **preprocessor),
        backbone=dict(type="ResNetV1c", depth=18, base_channels=8, stem_channels=8, norm_cfg=dict(type="BN")),
        decode_head=heads if cascade else heads[0],
        test_cfg=mode or dict(mode="whole"),
        **(dict(num_stages=len(heads)) if cascade else {}),
    )
    model = MODELS.build(ConfigDict(config)).eval()
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.3)
        elif name.endswith("conv_seg"):
            nn.init.normal_(module.weight)
            nn.init.zeros_(module.bias)
    return model.to(device)


def _assert_same_labels(labels: torch.Tensor, want: SegDataSample, threshold: float | None) -> None:
    """Labels (H, W) are those of mmseg's ``want``; on a GPU, which rounds otherwise, where none tie."""
    logits, want = want.seg_logits.data, want.pred_sem_seg.data[0]
    assert len(want.unique()) > 1, "a constant prediction compares nothing"
    assert labels.shape == want.shape and labels.device == want.device
    same = labels == want
    if labels.is_cuda:
        best = logits.topk(2, dim=0).values if len(logits) > 1 else None
        margin = (logits[0] - threshold).abs() if best is None else best[0] - best[1]
        clear = margin > 1e-4 * logits.abs().max()
        assert clear.float().mean() > 0.99
        same = same[clear]
    assert same.all()


def _batch(original, size=(48, 72), **meta) -> dict:
    """The packed batch of images resized to ``size``, one for each original size."""
    originals = original if isinstance(original, list) else [original]
    coarse = torch.rand(len(originals), 3, 6, 8, generator=torch.Generator().manual_seed(1)) * 4 - 2
    images = nn.functional.interpolate(coarse, size, mode="bicubic")
    samples = [SegDataSample(metainfo=dict(ori_shape=one, img_shape=size, **meta)) for one in originals]
    return dict(inputs=list(images), data_samples=samples)


class _LargeTensors(TorchDispatchMode):
    """Counts the floating-point tensors of at least a given size that operators make."""

    def __init__(self, numel: int) -> None:
        super().__init__()
        self.numel, self.number = numel, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        known = {leaf.data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and leaf.data_ptr() not in known:
                self.number += leaf.numel() >= self.numel
        return out


@pytest.fixture
def build() -> Callable[..., nn.Module]:
    """``build(head, mode, lean, device, **preprocessor)``; see :func:`_build`."""
    return _build


@pytest.fixture
def assert_same_labels() -> Callable[..., None]:
    """``assert_same_labels(labels, want, threshold)``; see :func:`_assert_same_labels`."""
    return _assert_same_labels


@pytest.fixture
def batch() -> Callable[..., dict]:
    """``batch(original, size, **meta)``; see :func:`_batch`."""
    return _batch


@pytest.fixture
def full_resolution() -> Callable[[], _LargeTensors]:
    """``with full_resolution() as made`` counts the logits that are made for a frame of 160 x 240."""
    return lambda: _LargeTensors(CLASSES * 160 * 240)


@pytest.fixture(
    params=[one if key in ON_GPU else cpu_alone(one) for key, one in CASES.items()], ids=CASES.keys()
)
def case(request) -> tuple[dict, dict]:
    """Arguments of ``build`` and of ``batch``."""
    return request.param


@pytest.fixture(params=[None, WINDOWS], ids=["whole", "windows"])
def mode(request) -> dict | None:
    """A test mode."""
    return request.param
