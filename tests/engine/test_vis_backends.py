"""Back ends of a visualiser: whole lines and pictures, and mmengine's names."""

import json
import sys
from types import ModuleType

import numpy as np
import pytest
from mmengine.registry import VISBACKENDS
from mmengine.visualization import LocalVisBackend, Visualizer
from mmengine.visualization.vis_backend import BaseVisBackend

from danseg.engine.vis_backends import dispensable
from danseg.visualization import read_image
from full_disk import full_disk

PICTURE = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)


def built(folder, *backends):
    config = dispensable({"vis_backends": list(backends)})
    return Visualizer(**config, name=folder.name, save_dir=str(folder))


def test_each_line_and_picture_is_whole_and_the_next_ones_come(tmp_path, capsys):
    shown = built(tmp_path, {"type": "LocalVisBackend"})
    shown.add_scalars({"loss": np.float32(2)}, step=1)
    shown.add_image("a", PICTURE, 1)
    with full_disk(room=30):  # a line and a picture begin, and do not end
        shown.add_scalars({"loss": 1.0}, step=2)
        shown.add_image("a", PICTURE, 2)
    shown.add_scalars({"loss": 0.5}, step=3)
    shown.add_image("b/c", PICTURE, 3)
    lines = (tmp_path / "vis_data" / "scalars.json").read_text().splitlines()
    assert list(map(json.loads, lines)) == [{"loss": 2, "step": 1}, {"loss": 0.5, "step": 3}]
    pictures = tmp_path / "vis_data" / "vis_image"
    found = sorted(path for path in pictures.rglob("*") if path.is_file())
    assert found == [pictures / "a_1.png", pictures / "b" / "c_3.png"]
    assert all((read_image(path) == PICTURE).all() for path in found)


@VISBACKENDS.register_module()
class Sent(BaseVisBackend):
    """A back end of a user, to which nothing gets through at first."""

    def __init__(self, save_dir, fails_with):
        super().__init__(save_dir)
        self.fails_with, self.sent = fails_with, []

    def _init_env(self): ...

    @property
    def experiment(self):
        return self.sent

    def add_scalar(self, name, value, step=0):
        if self.fails_with:
            raise self.fails_with
        self.sent.append((name, value, step))


def test_a_back_end_of_any_kind_may_fail_and_the_others_still_get_all(tmp_path):
    shown = built(
        tmp_path,
        {"type": "Sent", "fails_with": OSError(5, "Input/output error"), "name": "mine"},
        {"type": LocalVisBackend},
    )
    shown.add_scalar("loss", 1.0, 1)
    backend = shown.get_backend("mine")
    assert backend.experiment == []
    backend.backend.fails_with = None
    shown.add_scalar("loss", 0.5, 2)
    assert backend.experiment == backend.sent == [("loss", 0.5, 2)]
    backend.backend.fails_with = ZeroDivisionError()  # a bug is no full disk
    with pytest.raises(ZeroDivisionError):
        shown.add_scalar("loss", 0.5, 3)
    [path] = (tmp_path / "vis_data").glob("*.json")
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
    assert shown.get_backend("LocalVisBackend") is not None  # the name that mmengine would give it


def test_a_config_keeps_its_back_ends(tmp_path):
    visualizer = {"type": "Visualizer", "vis_backends": [{"type": "LocalVisBackend", "name": "mine"}]}
    dispensable(visualizer)
    assert visualizer["vis_backends"] == [{"type": "LocalVisBackend", "name": "mine"}]
    assert dispensable({"type": "Visualizer"})["vis_backends"] == []


def test_weights_and_biases_gets_the_step_of_every_value(tmp_path, monkeypatch):
    said = []
    wandb = ModuleType("wandb")
    for name in ("init", "define_metric", "log", "finish"):
        setattr(wandb, name, lambda *args, _name=name, **kwargs: said.append((_name, args)))
    wandb.Image = lambda image: "picture"
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    shown = built(tmp_path, {"type": "WandbVisBackend"})
    shown.add_scalars({"loss": 1.0}, step=50)
    shown.add_scalar("mIoU", 2.0, step=50)
    shown.add_image("a", PICTURE, 70)
    shown.close()
    assert ("define_metric", ("*",)) in said
    logged = [args[0] for name, args in said if name == "log"]
    assert logged == [{"loss": 1.0, "step": 50}, {"mIoU": 2.0, "step": 50}, {"a": "picture", "step": 70}]
    assert said[-1] == ("finish", ())
