"""danseg's segmentor compared with mmseg's: labels, logits, and which of them makes logits when."""

import pickle
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.structures import SegDataSample
from torch import nn

from cpu_alone import cpu_alone
from danseg.errors import UserError
from danseg.heads import FullyConvolutionalHead
from danseg.segmentors import LeanEncoderDecoder
from deterministic import deterministic

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))
assert CONFIGS


@torch.no_grad()
def run(model: nn.Module, step: str, data: dict) -> list:
    return getattr(model, step)(data)


@pytest.mark.parametrize("step", [cpu_alone("val_step"), "test_step"])
def test_labels_and_logits_are_mmsegs(build, batch, case, step, device, assert_same_labels):
    arguments, images = case
    theirs = run(build(**arguments, device=device), step, batch(**images))
    model = build(**arguments, lean=True, device=device)
    ours = run(model, step, batch(**images))
    tolerance = 1e-5 if device.type == "cuda" else 0
    for found, want in zip(ours, theirs, strict=True):
        assert set(found.keys()) == set(want.keys()) and "seg_logits" in found
        for key in want.keys():
            assert found.get(key).data.dtype == want.get(key).data.dtype
        threshold = getattr(model.decode_head, "threshold", None)
        assert_same_labels(found.pred_sem_seg.data[0], want, threshold)
        torch.testing.assert_close(
            found.seg_logits.data, want.seg_logits.data, rtol=tolerance, atol=tolerance
        )


def test_without_samples_it_is_mmsegs(build, batch):
    inputs = torch.stack(batch((48, 72))["inputs"])
    with torch.no_grad():
        [found], [want] = (build(lean=lean)(inputs, mode="predict") for lean in (True, False))
    assert torch.equal(found.pred_sem_seg.data, want.pred_sem_seg.data)


class Keeps(BaseMetric):
    """A user's own metric, which keeps the labels and, on request, the logits."""

    def __init__(self, *keys):
        super().__init__(prefix="keeps")
        self.keys = keys

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            assert isinstance(sample["seg_logits"], dict)
            self.results.append([sample[key]["data"] for key in self.keys])

    def compute_metrics(self, results):
        return dict(kept=results)


def test_only_a_metric_that_reads_logits_pays_for_them(build, batch, full_resolution, mode):
    frame, found = dict(original=(160, 240), size=(160, 240)), {}
    for keys in (("pred_sem_seg",), ("pred_sem_seg", "seg_logits")):
        evaluator = Evaluator(Keeps(*keys))
        with full_resolution() as made:
            evaluator.process(run(build(mode=mode, lean=True), "val_step", batch(**frame)))
        found[keys] = evaluator.evaluate(1)["keeps/kept"]
        windows = int(mode is not None)  # the mean over its windows has full resolution
        assert made.number == windows if keys == ("pred_sem_seg",) else made.number > windows
    [[labels, logits]] = found[keys]
    [want] = run(build(mode=mode), "val_step", batch(**frame))
    torch.testing.assert_close(logits, want.seg_logits.data, rtol=0, atol=1e-5)
    assert torch.equal(labels, want.pred_sem_seg.data)


def test_what_mmengine_dumps_holds_logits_and_loads_without_danseg(build, batch, tmp_path):
    path = tmp_path / "predictions.pkl"
    evaluator = Evaluator(dict(type="DumpResults", out_file_path=str(path)))
    evaluator.process(run(build(lean=True), "test_step", batch((101, 150))))
    evaluator.evaluate(1)
    assert b"danseg" not in path.read_bytes()
    [stored] = pickle.loads(path.read_bytes())
    [want] = run(build(), "test_step", batch((101, 150)))
    torch.testing.assert_close(stored["seg_logits"]["data"], want.seg_logits.data, rtol=0, atol=1e-5)


def small_fcn(seed: int, kind: type = FCNHead, **changes) -> FCNHead:
    torch.manual_seed(seed)
    common = dict(in_channels=32, in_index=2, channels=8, num_convs=1, norm_cfg=dict(type="BN"))
    return kind(**{**common, "num_classes": 7, **changes})


def losses(
    model: nn.Module, others: FCNHead | list[FCNHead], classes: int = 7, last: int | None = None
) -> dict[str, torch.Tensor]:
    """Of a batch of two images with ignored pixels, with further heads; the same for every model.

    ``last`` is the label of the first image's last pixel.
    """
    device = next(model.parameters()).device
    model.auxiliary_head = (nn.ModuleList(others) if isinstance(others, list) else others).to(device)
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, classes, (2, 1, 48, 72), generator=generator)
    labels[:, :, :9] = 255
    labels[0, 0, -1, -1] = classes - 1 if last is None else last
    images, labels = torch.randn(2, 3, 48, 72, generator=generator).to(device), labels.to(device)
    torch.manual_seed(3)  # the same dropout
    return model.loss(images, [SegDataSample(gt_sem_seg=PixelData(data=one)) for one in labels])


@pytest.mark.parametrize(
    "head",
    [cpu_alone(None), dict(type="DAHead", pam_channels=4), cpu_alone(dict(type="DANetHead", pam_channels=4))],
)
@pytest.mark.parametrize("several", [cpu_alone(False), True])
def test_losses_are_mmsegs_with_mmsegs_heads_too(build, head, several, device):
    def found(lean):
        others = [small_fcn(1), small_fcn(2)] if several else small_fcn(1)
        return losses(build(head=head, lean=lean, device=device), others)

    want, got = found(False), found(True)
    assert list(got) == list(want) and ("aux_1.loss_ce" in got) is several
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("several", [cpu_alone(False), True])
@pytest.mark.parametrize("changes", [{}, dict(num_classes=9)], ids=["decode head", "auxiliary head"])
def test_a_label_that_is_no_class_is_named_with_mmsegs_heads_too(build, several, changes, device):
    # 7 is no class of the decode head, nor of an auxiliary head beside one of more classes.
    model = build(head=dict(type="FCNHead", **changes), lean=True, device=device)
    others = [small_fcn(1), small_fcn(2)] if several else small_fcn(1)
    with pytest.raises(ValueError, match="from 0 to 6 or ignore_index, got 7; num_classes must match"):
        losses(model, others, last=7)
    assert losses(model, others)["decode.loss_ce"].isfinite(), "CUDA works on"


def test_a_training_step_of_a_network_repeats_to_the_bit(build, device):
    steps = []
    with deterministic():
        for _ in range(2):
            model = build(head=dict(type="DANetHead", pam_channels=4), lean=True, device=device)
            model.train()
            found = losses(model, small_fcn(1))
            sum(value for key, value in found.items() if "loss" in key).backward()
            steps.append({key: parameter.grad for key, parameter in model.named_parameters()})
    assert not [key for key, grad in steps[0].items() if not torch.equal(grad, steps[1][key])]


def test_heads_of_mmseg_lose_and_score_what_dansegs_do(build, device):
    # In mmseg, DiceLoss counts ignored pixels and takes a single channel for class 0; acc_seg is constant.
    one = dict(num_classes=2, out_channels=1, threshold=0.4, loss_decode=dict(type="DiceLoss"))
    theirs = small_fcn(1, **one)
    ours = FullyConvolutionalHead(
        in_channels=32, in_index=2, channels=8, num_convs=1, norm_cfg=dict(type="BN"), **one
    )
    ours.load_state_dict(theirs.state_dict())
    got, want = (losses(build(lean=True, device=device), head, classes=2) for head in (theirs, ours))
    assert "aux.acc_seg" in got
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("several", [False, True])
def test_losses_of_mmsegs_heads_are_checked_before_the_training(build, several):
    model = build(lean=True)
    silent = small_fcn(1, loss_decode=dict(type="CrossEntropyLoss", loss_name="ce"))
    model.auxiliary_head = nn.ModuleList([silent]) if several else silent
    theirs = build(head=dict(type="DAHead", pam_channels=4), lean=True)  # which calls its losses itself
    theirs.decode_head.loss_decode._loss_name = "ce"
    with pytest.raises(UserError, match=r"model\.decode_head \(DAHead\): .*loss_name='loss_ce'"):
        theirs.init_weights()
    place = r"model\.auxiliary_head(\.0)? \(FCNHead\): .*loss_name='loss_ce'"
    with pytest.raises(UserError, match=place):
        model.init_weights()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_names_it(path):
    assert Config.fromfile(path).model.type == LeanEncoderDecoder.__name__
