"""Pretrained weights: what fits nothing, is damaged or not finite stops a training before it starts."""

import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from danseg.engine.checkpoints.pretrained import check_pretrained
from danseg.engine.runner import DansegRunner
from danseg.errors import UserError

RESNET = dict(type="ResNetV1c", depth=18, base_channels=8, stem_channels=8)


def backbone(path, **init):
    init_default_scope("mmseg")
    return MODELS.build({**RESNET, "init_cfg": dict(type="Pretrained", checkpoint=str(path), **init)})


@pytest.fixture
def state():
    return dict(backbone("none.pth").state_dict())


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
