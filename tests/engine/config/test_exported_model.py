"""Whether a config runs the exported file that is named as its weights."""

import os

import pytest
from mmengine.config import Config

from danseg.engine.config.exported_model import runs_exported
from danseg.errors import UserError


def config_of(path):
    return Config(dict(model=dict(backbone=dict(type="ExportedNetwork", file=os.path.abspath(path)))))


def test_a_config_runs_the_file_that_it_names():
    config = config_of("a.onnx")
    assert runs_exported(config, "a.onnx") and runs_exported(config, os.path.abspath("a.onnx"))
    augmented = Config(dict(model=dict(type="LeanTTAModel", module=config.model)))
    assert runs_exported(augmented, "./a.onnx")


def test_checkpoints_are_loaded():
    plain = Config(dict(model=dict(backbone=dict(type="ResNet"))))
    assert not runs_exported(plain, "a.pth") and not runs_exported(plain, None)


@pytest.mark.parametrize("config", [Config(dict(model=dict())), config_of("b.onnx")])
def test_another_config_is_refused(config):
    with pytest.raises(UserError, match=r"a\.onnx is an exported network, .*name it alone"):
        runs_exported(config, "a.onnx")
