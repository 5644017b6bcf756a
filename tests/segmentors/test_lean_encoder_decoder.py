"""danseg's segmentor compared with mmseg's: labels, logits, and which of them makes logits when."""

import pickle
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from torch import nn

from danseg.segmentors import LeanEncoderDecoder

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))
assert CONFIGS


@torch.no_grad()
def run(model: nn.Module, step: str, data: dict) -> list:
    return getattr(model, step)(data)


@pytest.mark.parametrize("step", ["val_step", "test_step"])
def test_labels_and_logits_are_mmsegs(build, batch, case, step):
    arguments, images = case
    theirs = run(build(**arguments), step, batch(**images))
    ours = run(build(**arguments, lean=True), step, batch(**images))
    for found, want in zip(ours, theirs, strict=True):
        assert set(found.keys()) == set(want.keys()) and "seg_logits" in found
        for key in want.keys():
            assert found.get(key).data.dtype == want.get(key).data.dtype
        assert torch.equal(found.pred_sem_seg.data, want.pred_sem_seg.data)
        assert torch.equal(found.seg_logits.data, want.seg_logits.data)


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


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_names_it(path):
    assert Config.fromfile(path).model.type == LeanEncoderDecoder.__name__
