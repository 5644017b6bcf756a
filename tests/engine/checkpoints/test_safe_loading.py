"""What mmengine loads while a network is built or started: by danseg's reader, and no longer than that."""

import os

import pytest
import torch
from mmengine.runner import CheckpointLoader
from torch import nn

from danseg.engine.checkpoints.safe_loading import reading_safely
from danseg.engine.runner import DansegRunner
from danseg.errors import UserError


class Malicious:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_mmengine_loads_safely_and_only_within_the_block(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    before = dict(CheckpointLoader._schemes)
    file, ran = tmp_path / "a.pth", tmp_path / "ran"
    torch.save({"state_dict": {"a": torch.ones(1)}, "meta": Malicious(ran)}, file)
    with pytest.raises(UserError, match="refused: it holds"), reading_safely():
        CheckpointLoader.load_checkpoint(str(file))
    with reading_safely(), reading_safely():
        pass
    with reading_safely():
        with pytest.raises(Exception, match="mkdir"):
            torch.load(file)
        torch.save({"model": {"a": torch.ones(1)}}, file)  # a form that some networks read themselves
        assert list(CheckpointLoader.load_checkpoint(str(file), map_location="cpu")) == ["model"]
    assert not ran.exists() and CheckpointLoader._schemes == before
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_every_kind_of_source_that_mmengine_knows_is_taken_over_or_named_here():
    elsewhere = {r"(\S+\:)?s3://", r"(\S+\:)?petrel://", "pavi://"}  # stores that need packages of their own
    with reading_safely():
        kept = {p for p, loader in CheckpointLoader._schemes.items() if loader.__name__ != "load_from_danseg"}
    assert kept == elsewhere


def test_a_run_starts_from_safetensors_and_leaves_no_trace(tiny, tmp_path, monkeypatch):
    torch_form = pytest.importorskip("safetensors.torch")
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    runner = DansegRunner.from_cfg(tiny())
    weights = {n: torch.full_like(v, 0.5) for n, v in runner.model.backbone.state_dict().items()}
    torch_form.save_file(weights, tmp_path / "a.safetensors")
    runner = DansegRunner.from_cfg(tiny({"model.pretrained": str(tmp_path / "a.safetensors")}))
    with reading_safely():
        runner._init_model_weights()
    convolutions = [m for m in runner.model.backbone.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) > 10 and all((m.weight == 0.5).all() for m in convolutions)
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
