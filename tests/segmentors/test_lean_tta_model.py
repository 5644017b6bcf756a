"""Test-time augmentation: one view equals none, several equal a plain average, written out in float64."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch.nn.functional import interpolate

from cpu_alone import cpu_alone
from danseg.engine.config.options import configure_test
from danseg.segmentors import LeanTTAModel

TINY = Path(__file__).parents[1] / "engine" / "tiny.py"
IMAGE = (101, 150)
SIGMOID = dict(
    type="FCNHead", num_convs=1, loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0)
)
HEADS = {
    "softmax": dict(type="FCNHead"),
    "one channel": dict(SIGMOID, num_classes=2, out_channels=1),
    "one channel, threshold 0.62": dict(SIGMOID, num_classes=2, out_channels=1, threshold=0.62),
    "one channel, threshold 0.5": dict(SIGMOID, num_classes=2, out_channels=1, threshold=0.5),
    "a sigmoid per class": SIGMOID,
}


@pytest.fixture(params=HEADS.values(), ids=HEADS.keys())
def head(request) -> dict:
    return request.param


@torch.no_grad()
def network(build, batch, head=None, **arguments):
    """A network; with one channel, the head's threshold lies amid its probabilities; else classes balance.

    Amid them it lies in the widest gap: at a pixel's value, it ties where the map is flat, at its border.
    """
    model = build(head=head, **arguments)
    logits = model.test_step(batch(IMAGE))[0].seg_logits.data
    if model.out_channels == 1:
        threshold = torch.tensor(model.decode_head.threshold)
        values = logits.flatten().sort().values
        middle = values[len(values) // 4 : -len(values) // 4]
        gap = middle.diff().argmax()
        between = middle[gap : gap + 2].mean()
        model.decode_head.conv_seg.bias += threshold.logit() - between.logit()
    else:
        model.decode_head.conv_seg.bias -= logits.mean((1, 2))
    return model


@torch.no_grad()
def merged(model, views: list[dict], kind: str = "LeanTTAModel") -> list[SegDataSample]:
    tta = MODELS.build(dict(type=kind, module=model))
    return tta.test_step({key: [view[key] for view in views] for key in views[0]})


def three_views(batch, original=IMAGE) -> list[dict]:
    """Two scales and a flip; the flipped one has the flipped image."""
    flipped = batch(original, (72, 96), img_path="a.png", flip=True, flip_direction="horizontal")
    flipped["inputs"] = [image.flip(2) for image in flipped["inputs"]]
    return [batch(original, (48, 72), img_path="a.png"), batch(original, (72, 96), img_path="a.png"), flipped]


@pytest.mark.parametrize("lean", [True, cpu_alone(False)], ids=["lean", "mmseg's"])
@pytest.mark.parametrize("times", [cpu_alone(1), 2])
def test_one_view_however_often_gives_the_labels_without_augmentation(
    build, batch, mode, head, lean, times, device, assert_same_labels
):
    model = network(build, batch, head, mode=mode, lean=lean, device=device)
    with torch.no_grad():
        wants = model.test_step(batch([IMAGE, (48, 72)]))
    found = merged(model, [batch([IMAGE, (48, 72)]) for _ in range(times)])
    for one, want in zip(found, wants, strict=True):
        labels, expected = one.pred_sem_seg.data, want.pred_sem_seg.data
        assert_same_labels(labels[0], want, model.decode_head.threshold)
        assert labels.dtype == expected.dtype
        first, second = (x.seg_logits.data for x in (one, want))
        if len(first) > 1:
            first, second = first.softmax(0), second.softmax(0)
        torch.testing.assert_close(first, second, rtol=0, atol=1e-6)


@torch.no_grad()
def plain_average(model, views: list[dict], threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels (H, W) and how far each pixel is from a tie, from raw logits, whole images, in float64."""
    total = 0
    for view in views:
        data = model.data_preprocessor(view)
        logits = model(data["inputs"], mode="tensor").double()
        logits = interpolate(logits, view["inputs"][0].shape[1:], mode="bilinear")
        if view["data_samples"][0].metainfo.get("flip"):
            logits = logits.flip(3)
        logits = interpolate(logits, IMAGE, mode="bilinear")[0]
        total = total + (logits.softmax(0) if len(logits) > 1 else 1 / (1 + (-logits).exp()))
    average = total / len(views)
    if len(average) == 1:
        return (average[0] > threshold).long(), (average[0] - threshold).abs()
    best = average.topk(2, dim=0).values
    return average.argmax(0), best[0] - best[1]


@pytest.mark.parametrize("lean", [True, cpu_alone(False)], ids=["lean", "mmseg's"])
def test_two_scales_and_a_flip_are_averaged(build, batch, head, lean, device):
    model = network(build, batch, head, lean=lean, device=device)
    want, margin = plain_average(model, three_views(batch), model.decode_head.threshold)
    [found] = merged(model, three_views(batch))
    clear = margin > 1e-5
    assert clear.float().mean() > 0.99 and len(want.unique()) > 1
    assert torch.equal(found.pred_sem_seg.data[0][clear].long(), want[clear])


@pytest.mark.parametrize("head", [HEADS["softmax"], HEADS["a sigmoid per class"]], ids=["softmax", "sigmoid"])
def test_with_several_channels_its_labels_are_mmsegs(build, batch, mode, head, device, assert_same_labels):
    theirs, ours = (
        network(build, batch, head, mode=mode, lean=lean, device=device) for lean in (False, True)
    )
    [want], [found] = merged(theirs, three_views(batch), "SegTTAModel"), merged(ours, three_views(batch))
    # Beside its labels, mmseg's sample has the logits of the first view; danseg's has the averages.
    assert_same_labels(want.pred_sem_seg.data[0], found, None)


def test_the_sample_that_is_kept_has_the_unflipped_label(build, batch):
    views = three_views(batch)[::-1]
    for number, view in enumerate(views):
        view["data_samples"][0].gt_sem_seg = PixelData(data=torch.full((1, *IMAGE), number))
    [found] = merged(build(lean=True), views)
    assert not found.metainfo.get("flip") and found.gt_sem_seg.data.unique().tolist() == [1]


def test_logits_in_half_precision_are_averaged_in_float32(build, batch, device):
    model, views = network(build, batch, lean=True, device=device), three_views(batch)
    step = model.test_step

    def rounded(data):
        samples = step(data)
        for sample in samples:
            sample.seg_logits = PixelData(data=sample.seg_logits.data.bfloat16())
        return samples

    model.test_step = rounded
    [found] = merged(model, views)
    assert found.seg_logits.data.dtype == torch.float32
    assert found.seg_logits.data.shape == (model.num_classes, *IMAGE)
    torch.testing.assert_close(found.seg_logits.data.exp().sum(0), torch.ones(IMAGE, device=device))


def test_logits_of_one_view_at_a_time_have_the_images_resolution(build, batch, monkeypatch):
    from danseg.segmentors.labels import CoarseLogits

    alive, made = [], []
    resized = CoarseLogits.resized

    def counted(self):
        import gc
        import weakref

        gc.collect()
        made.append(sum(ref() is not None for ref in alive))
        logits = resized(self)
        alive.append(weakref.ref(logits))
        return logits

    monkeypatch.setattr(CoarseLogits, "resized", counted)
    merged(build(lean=True), [batch(IMAGE) for _ in range(5)])
    assert len(made) == 5 and max(made) <= 1


@pytest.mark.parametrize("kind", ["SegTTAModel", "mmseg.SegTTAModel", MODELS.get("SegTTAModel")])
def test_it_takes_the_place_of_mmsegs(kind):
    config = Config.fromfile(TINY)
    config.tta_model = dict(type=kind)
    configure_test(config, tta=True)
    assert config.model.type == "LeanTTAModel" and isinstance(LeanTTAModel, type)
    config = Config.fromfile(TINY)
    config.tta_model = dict(type="MyTTAModel", weight=2)
    configure_test(config, tta=True)
    assert config.model.type == "MyTTAModel" and config.model.weight == 2
