import dataclasses
import json

import pytest

from danseg.errors import UserError
from danseg.export.description import Checkpoint, Description, Input, Output, Size

DESCRIPTION = Description(
    network="danet_r50_cityscapes",
    classes=("road", "straße"),
    colours=((128, 64, 128), (244, 35, 232)),
    config="model = dict()\n",
    checkpoint=Checkpoint(name="best.pth", sha256="ab" * 32),
    precision="float32",
    input=Input(
        "image", "float32", "NCHW", "RGB", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)
    ),
    size=Size(batch=None, height=None, width=None),
    output=Output("logits", "float32"),
)


def test_the_text_is_the_agreed_one():
    assert json.loads(DESCRIPTION.to_json()) == {
        "danseg": 1,
        "network": "danet_r50_cityscapes",
        "classes": ["road", "straße"],
        "colours": [[128, 64, 128], [244, 35, 232]],
        "config": "model = dict()\n",
        "checkpoint": {"name": "best.pth", "sha256": "ab" * 32},
        "precision": "float32",
        "input": {
            "name": "image",
            "dtype": "float32",
            "layout": "NCHW",
            "channels": "RGB",
            "mean": [123.675, 116.28, 103.53],
            "std": [58.395, 57.12, 57.375],
        },
        "size": {"batch": None, "height": None, "width": None},
        "output": {"name": "logits", "dtype": "float32", "align_corners": False, "threshold": None},
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"input": Input("image", "uint8", "NHWC", "RGB"), "output": Output("labels", "uint8", True, 0.3)},
        {"input": Input("image", "float32", "NCHW", None), "size": Size(1, 512, 1024), "precision": "int8"},
    ],
)
def test_it_reads_what_it_wrote(changes):
    written = dataclasses.replace(DESCRIPTION, **changes)
    assert Description.from_json(written.to_json(), "model.onnx") == written


@pytest.mark.parametrize(
    "cls, arguments, said",
    [
        (Input, ("image", "int16", "NCHW", "RGB"), "dtype must be one of float32, uint8, got 'int16'"),
        (Input, ("image", "uint8", "CHW", "RGB"), "layout must be one of NCHW, NHWC, got 'CHW'"),
        (Input, ("image", "uint8", "NHWC", "GRB"), "channels must be one of RGB, BGR, None, got 'GRB'"),
        (Output, ("mask", "uint8"), "name must be one of logits, labels, got 'mask'"),
        (Output, ("labels", "int32"), "dtype must be one of float32, uint8, int64, got 'int32'"),
    ],
)
def test_what_is_not_allowed_is_refused(cls, arguments, said):
    with pytest.raises(ValueError, match=said):
        cls(*arguments)


def test_classes_and_colours_are_as_many():
    with pytest.raises(ValueError, match="2 classes, but 1 colours"):
        dataclasses.replace(DESCRIPTION, colours=((0, 0, 0),))
    with pytest.raises(ValueError, match="precision must be one of float32, float16, int8, got 'bfloat16'"):
        dataclasses.replace(DESCRIPTION, precision="bfloat16")


def _without(key):
    found = json.loads(DESCRIPTION.to_json())
    del found[key]
    return json.dumps(found)


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "model.onnx holds no description by danseg"),
        ("{}", "model.onnx holds no description by danseg"),
        ("[1]", "model.onnx holds no description by danseg"),
        ('{"danseg": 2}', "model.onnx describes itself in form 2, and this danseg reads form 1"),
        ('{"danseg": 1}', "model.onnx holds a damaged description"),
        (_without("classes"), "model.onnx holds a damaged description"),
        (_without("precision"), "model.onnx holds a damaged description"),
        (DESCRIPTION.to_json().replace('"NCHW"', '"CHWN"'), "damaged description by danseg .layout must be"),
        (DESCRIPTION.to_json().replace('"RGB", "mean"', '"RGB", "men"'), "model.onnx holds a damaged"),
    ],
)
def test_what_is_no_such_text_is_refused(text, said):
    with pytest.raises(UserError, match=said):
        Description.from_json(text, "model.onnx")
