"""Labels without full-resolution logits against mmseg's own ``predict``."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import danseg  # noqa: F401  (registers the heads)
from danseg.engine.labels import predict_labels, predict_labels_alone

CLASSES = 7
WINDOWS = dict(mode="slide", crop_size=(32, 48), stride=(20, 32))


def build(head=None, mode=None, kind="EncoderDecoder", **preprocessor) -> nn.Module:
    """A tiny network whose labels change from place to place."""
    init_default_scope("mmseg")
    torch.manual_seed(0)
    common = dict(in_channels=64, in_index=3, channels=8, num_classes=CLASSES, norm_cfg=dict(type="BN"))
    heads = head if isinstance(head, list) else [head or dict(type="FCNHead")]
    heads = [{**common, **one} for one in heads]
    cascade = kind == "CascadeEncoderDecoder"
    config = dict(
        type=kind,
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
    return model


def batch(original, size=(48, 72), **meta) -> dict:
    """What a pipeline packs of images, one an original size, that were resized to ``size``."""
    originals = original if isinstance(original, list) else [original]
    coarse = torch.rand(len(originals), 3, 6, 8, generator=torch.Generator().manual_seed(1)) * 4 - 2
    images = nn.functional.interpolate(coarse, size, mode="bicubic")
    samples = [SegDataSample(metainfo=dict(ori_shape=one, img_shape=size, **meta)) for one in originals]
    return dict(inputs=list(images), data_samples=samples)


def both(model, data) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Labels of mmseg and danseg for copies of a batch."""
    copy = dict(inputs=data["inputs"], data_samples=[sample.clone() for sample in data["data_samples"]])
    with torch.no_grad():
        theirs = [result.pred_sem_seg.data[0] for result in model.test_step(data)]
        ours = predict_labels(model, **model.data_preprocessor(copy, False))
    for labels in theirs:
        assert len(labels.unique()) > 1, "a constant prediction compares nothing"
    return theirs, ours


SAME, LARGER = dict(original=(48, 72)), dict(original=(101, 150))
BINARY = dict(type="FCNHead", num_convs=1, num_classes=2, out_channels=1, threshold=0.2)
CASCADE = [dict(type="FCNHead"), dict(type="OCRHead", ocr_channels=8)]


@pytest.mark.parametrize(
    ("model", "data"),
    [
        pytest.param(dict(), SAME, id="same size"),
        pytest.param(dict(), LARGER, id="resized"),
        pytest.param(dict(head=dict(type="FCNHead", align_corners=True)), LARGER, id="align_corners"),
        pytest.param(dict(test_cfg=dict(size_divisor=32)), LARGER, id="padded by the preprocessor"),
        pytest.param(
            dict(),
            dict(LARGER, pad_shape=(48, 72, 3), padding_size=[8, 3, 5, 0]),
            id="padded by the pipeline",
        ),
        pytest.param(dict(), dict(original=[(48, 72), (101, 150)]), id="two images"),
        pytest.param(dict(), dict(LARGER, flip=True, flip_direction="horizontal"), id="flipped"),
        pytest.param(dict(mode=WINDOWS), SAME, id="windows"),
        pytest.param(dict(mode=WINDOWS), dict(original=[(101, 150), (33, 50)]), id="windows of two images"),
        pytest.param(dict(mode=WINDOWS), dict(original=(31, 33), size=(24, 40)), id="less than a window"),
        pytest.param(dict(head=BINARY), LARGER, id="binary"),
        pytest.param(dict(head=dict(BINARY, threshold=0.3), mode=WINDOWS), LARGER, id="binary windows"),
        pytest.param(dict(head=dict(type="DAHead", pam_channels=4)), LARGER, id="three classifiers"),
        pytest.param(dict(kind="CascadeEncoderDecoder", head=CASCADE), LARGER, id="cascade"),
    ],
)
def test_labels_are_mmsegs(model, data):
    theirs, ours = both(build(**model), batch(**data))
    assert [labels.shape for labels in ours] == [labels.shape for labels in theirs]
    for ours_of_one, theirs_of_one in zip(ours, theirs, strict=True):
        assert (ours_of_one == theirs_of_one).all()


class Largest(TorchDispatchMode):
    """Counts the floating-point tensors of at least a size that operators make."""

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


@pytest.mark.parametrize(("mode", "made"), [(None, 0), (WINDOWS, 1)], ids=["whole", "windows"])
def test_full_resolution_logits_are_not_made_or_once_for_windows(mode, made):
    model = build(mode=mode)
    data = model.data_preprocessor(batch((160, 240), size=(160, 240)), False)
    full = CLASSES * 160 * 240
    with torch.no_grad(), Largest(full) as seen:
        predict_labels(model, **data)
    assert seen.number == made
    with torch.no_grad(), Largest(full) as seen:
        model.predict(**data)
    assert seen.number >= 2, "mmseg makes them twice, or this sees nothing"


@pytest.mark.parametrize(
    "head", [None, dict(type="DAHead", pam_channels=4)], ids=["mmseg's way", "its own way"]
)
def test_predict_gives_mmsegs_labels_and_no_logits(head):
    model, data = build(head), batch((101, 150))
    with torch.no_grad():
        [want] = model.test_step(data)
        predict_labels_alone(model)
        [found] = model.test_step(batch((101, 150)))
    assert torch.equal(found.pred_sem_seg.data, want.pred_sem_seg.data)
    assert found.pred_sem_seg.data.dtype == want.pred_sem_seg.data.dtype
    assert "seg_logits" not in found or head, "those of its own way come along"
