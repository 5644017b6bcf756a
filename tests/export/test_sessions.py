"""Exported files run with NumPy in and out, and whatever is wrong with one is said in one message."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from danseg.errors import UserError
from danseg.export.description import KEY, Checkpoint, Description, Input, Output, Size
from danseg.export.sessions import NotTakenError, open_session


def described(**changes) -> Description:
    fields = dict(
        network="tiny",
        classes=("road", "car"),
        colours=((1, 2, 3), (4, 5, 6)),
        config="model = dict()\n",
        checkpoint=Checkpoint("best.pth", "00" * 32),
        precision="float32",
        input=Input("image", "float32", "NCHW", "RGB", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        size=Size(None, None, None),
        output=Output("logits", "float32"),
    )
    return Description(**{**fields, **changes})


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, 2, 3, stride=2, padding=1).eval()


def as_onnx(path, description, example=(2, 3, 16, 24)):
    """An ONNX file of the network, with a description or with None."""
    size = description.size if description else Size(None, None, None)
    axes = {place: name for place, name in {0: "batch", 2: "height", 3: "width"}.items()}
    free = {place: name for place, name in axes.items() if getattr(size, name) is None}
    torch.onnx.export(
        network(),
        (torch.zeros(example),),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": free} if free else None,
        dynamo=False,
    )
    model = onnx.load(path)
    if description:
        onnx.helper.set_model_props(model, {KEY: description.to_json()})
    onnx.save(model, path)
    return path


def a_picture(*shape) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def expected(picture: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network()(torch.from_numpy(picture)).numpy()


def test_a_file_runs_at_any_size(tmp_path):
    session = open_session(as_onnx(tmp_path / "tiny.onnx", described()))
    assert session.description == described() and session.device == "cpu"
    for shape in [(1, 3, 16, 24), (3, 3, 9, 31)]:
        assert np.allclose(session(a_picture(*shape)), expected(a_picture(*shape)), atol=1e-5)


def test_a_fixed_batch_takes_any_number_of_pictures(tmp_path):
    session = open_session(as_onnx(tmp_path / "tiny.onnx", described(size=Size(2, None, None))))
    for count in (1, 2, 5):
        picture = a_picture(count, 3, 8, 8)
        assert np.allclose(session(picture), expected(picture), atol=1e-5)


@pytest.mark.parametrize(
    "array, said",
    [
        (a_picture(1, 3, 8, 8).astype(np.float64), r"takes \(B, C, H, W\) float32.* \(1, 3, 8, 8\) float64"),
        (a_picture(3, 8, 8), r"takes \(B, C, H, W\) float32"),
        (a_picture(0, 3, 8, 8), "B of at least 1"),
        (a_picture(1, 3, 8, 10), "for inputs of 8 x 8 .*this one has 8 x 10.*--dynamic"),
        (a_picture(1, 4, 8, 8), "cannot run on an input of shape"),
    ],
)
def test_an_input_that_is_not_taken(tmp_path, array, said):
    session = open_session(as_onnx(tmp_path / "tiny.onnx", described(size=Size(None, 8, 8)), (1, 3, 8, 8)))
    for kind in (UserError, ValueError):  # of one picture among many, and of an argument
        with pytest.raises(kind, match=said):
            session(array)
    assert NotTakenError.__mro__[1:3] == (UserError, ValueError)


def test_a_file_of_another_program_is_refused(tmp_path):
    with pytest.raises(UserError, match="danseg did not export it, or its end is missing; export"):
        open_session(as_onnx(tmp_path / "tiny.onnx", None))


def test_damaged_files_are_refused(tmp_path):
    whole = as_onnx(tmp_path / "whole.onnx", described()).read_bytes()
    for name, content, said in [
        ("empty", b"", "is empty"),
        ("cut", whole[: len(whole) // 2], "says nothing of .*its end is missing"),
        ("shorter", whole[:-20], "cannot be opened by ONNX Runtime .*damaged"),
        ("text", b"not a network", "cannot be opened by ONNX Runtime .*damaged"),
    ]:
        (tmp_path / f"{name}.onnx").write_bytes(content)
        with pytest.raises(UserError, match=f"{name}.onnx {said}"):
            open_session(tmp_path / f"{name}.onnx")


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="absent.onnx cannot be read: it does not exist"):
        open_session(tmp_path / "absent.onnx")
    with pytest.raises(UserError, match=r"best\.pth is no exported network; those end in \.onnx"):
        open_session(tmp_path / "best.pth")


def test_a_missing_provider_and_an_unknown_device(tmp_path):
    path = as_onnx(tmp_path / "tiny.onnx", described())
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(UserError, match="no provider for cuda:1 .*pip install onnxruntime-gpu"):
            open_session(path, "cuda:1")
    with pytest.raises(UserError, match="device 'tpu' is none that ONNX Runtime"):
        open_session(path, "tpu")


def test_a_missing_runtime_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    (tmp_path / "tiny.onnx").write_bytes(b"any")
    with pytest.raises(UserError, match=re.escape("pip install 'danseg[export]'")):
        open_session(tmp_path / "tiny.onnx")


@pytest.mark.parametrize("value, count", [("3", 3), ("2,4", 2), ("", 0), ("many", 0)])
def test_the_number_of_threads(tmp_path, monkeypatch, value, count):
    seen = []
    real = onnxruntime.InferenceSession

    def opened(path, options, providers):
        seen.append(options)
        return real(path, options, providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    path = as_onnx(tmp_path / "tiny.onnx", described())
    open_session(path)
    open_session(path, threads=2)
    assert [one.intra_op_num_threads for one in seen] == [count, 2]
    with pytest.raises(ValueError, match="threads must be a whole number of at least 1, got 0"):
        open_session(path, threads=0)
