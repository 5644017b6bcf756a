"""Exported files run with NumPy in and out, and whatever is wrong with one is said in one message."""

import copy
import pickle
import re
import subprocess
import sys
import threading
import zipfile
from xml.sax.saxutils import quoteattr

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from torch import nn

from child_process import environment
from danseg.errors import UserError
from danseg.export.description import FILE, KEY, Size
from danseg.export.sessions import KINDS, NotTakenError, open_session
from exported_files import SUFFIXES, described, write


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, 2, 3, stride=2, padding=1).eval()


def written(folder, suffix, description, shape=(2, 3, 16, 24)):
    return write(folder / f"tiny{suffix}", network(), torch.zeros(shape), description)


def a_picture(*shape) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def expected(picture: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network()(torch.from_numpy(picture)).numpy()


def test_the_kinds_are_tested():
    assert set(SUFFIXES) == set(KINDS)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_runs_at_any_size(tmp_path, suffix):
    session = open_session(written(tmp_path, suffix, described()))
    assert session.description == described() and session.device == "cpu"
    first = session(a_picture(1, 3, 16, 24))
    for shape in [(3, 3, 9, 31), (2, 3, 64, 64)]:
        assert np.allclose(session(a_picture(*shape)), expected(a_picture(*shape)), atol=1e-5)
    # Later calls leave the numbers of earlier ones alone.
    assert np.allclose(first, expected(a_picture(1, 3, 16, 24)), atol=1e-5)
    assert session(a_picture(1, 3, 16, 24)).flags.writeable  # PyTorch warns of others


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_fixed_batch_takes_any_number_of_pictures(tmp_path, suffix):
    session = open_session(written(tmp_path, suffix, described(size=Size(2, None, None))))
    for count in (1, 2, 5):
        picture = a_picture(count, 3, 8, 8)
        assert np.allclose(session(picture), expected(picture), atol=1e-5)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_threads_may_share_a_session(tmp_path, suffix):
    session = open_session(written(tmp_path, suffix, described()))
    pictures = [a_picture(1, 3, 32, 8 + 8 * number) for number in range(4)]
    wrong = []

    def run(picture, right):
        wrong.extend(not np.allclose(session(picture), right, atol=1e-5) for _ in range(10))

    threads = [threading.Thread(target=run, args=(one, expected(one))) for one in pictures]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 40 and not any(wrong)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "array, said",
    [
        (
            a_picture(1, 3, 8, 8).astype(np.float64),
            r"takes \(B, [C3], H, W\) float32.* \(1, 3, 8, 8\) float64",
        ),
        (a_picture(3, 8, 8), r"takes \(B, [C3], H, W\) float32"),
        (a_picture(0, 3, 8, 8), "B of at least 1"),
        (a_picture(1, 3, 8, 10), "for inputs of 8 x 8 .*this one has 8 x 10.*--dynamic"),
        (a_picture(1, 4, 8, 8), r"(takes \(B, 3, H, W\)|cannot run on an input of shape \(1, 4, 8, 8\))"),
    ],
)
def test_an_input_that_is_not_taken(tmp_path, suffix, array, said):
    session = open_session(written(tmp_path, suffix, described(size=Size(None, 8, 8)), (2, 3, 8, 8)))
    with pytest.raises(NotTakenError, match=said) as caught:
        session(array)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt"])
def test_copies_and_pickles_open_the_file_again(tmp_path, suffix):
    session = open_session(written(tmp_path, suffix, described()), "cpu")
    picture = a_picture(1, 3, 8, 8)
    for other in (copy.deepcopy(session), pickle.loads(pickle.dumps(session))):
        assert other is not session and other.device == "cpu"
        assert np.array_equal(other(picture), session(picture))


def test_too_little_memory_is_not_a_wrong_input(tmp_path):
    session = open_session(written(tmp_path, ".pt", described()))
    session._network = lambda tensor: torch.empty(2**45)
    with pytest.raises(MemoryError, match="allocate memory"):
        session(a_picture(1, 3, 8, 8))


def test_what_is_not_taken_is_a_fault_of_the_user_and_of_an_argument():
    assert issubclass(NotTakenError, UserError) and issubclass(NotTakenError, ValueError)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_a_runtime_does_not_open_is_refused(tmp_path, suffix, caplog, capfd):
    """Files that describe themselves well, but hold no network."""
    path = tmp_path / f"tiny{suffix}"
    text = described().to_json()
    if suffix == ".onnx":
        onnx.save(onnx.helper.set_model_props(model := onnx.ModelProto(), {KEY: text}) or model, path)
    elif suffix == ".xml":
        path.write_text(f"<net><rt_info><{KEY} value={quoteattr(text)}/></rt_info></net>")
        path.with_suffix(".bin").touch()
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"tiny/extra/{FILE}", text)
    with pytest.raises(UserError, match=f"tiny{suffix} cannot be opened by .*damaged.*export it") as caught:
        open_session(path)
    assert "\n" not in str(caught.value)
    assert not caplog.records and capfd.readouterr() == ("", "")


def test_the_weights_beside_an_xml(tmp_path):
    path = written(tmp_path, ".xml", described())
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(UserError, match="cannot be opened by OpenVINO .*damaged"):
        open_session(path)
    weights.unlink()
    with pytest.raises(UserError, match=r"its weights in tiny\.bin beside it, which .*does not exist; copy"):
        open_session(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_device_that_is_not_there(tmp_path, suffix):
    path = written(tmp_path, suffix, described())
    assert open_session(path, "cpu").device == "cpu"
    for device in ("tpu", "cuda:x", "cuda:7"):
        with pytest.raises(UserError, match=f"{device}.* choose"):
            open_session(path, device)


def test_a_missing_provider_is_named(tmp_path, monkeypatch):
    path = written(tmp_path, ".onnx", described())
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UserError, match="no provider for cuda .*has CPUExecutionProvider.*onnxruntime-gpu"):
        open_session(path, "cuda")


@pytest.mark.parametrize("suffix, package", [(".onnx", "onnxruntime"), (".xml", "openvino")])
def test_a_missing_runtime_is_named(tmp_path, monkeypatch, suffix, package):
    path = written(tmp_path, suffix, described())
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"{package} cannot .*{re.escape('danseg[export]')}"):
        open_session(path)


@pytest.mark.parametrize("value, count", [("3", 3), ("2,4", 2), ("", 0), ("many", 0)])
def test_the_number_of_threads(tmp_path, monkeypatch, value, count):
    used = []
    real = onnxruntime.InferenceSession

    def opened(path, options, providers):
        used.append(options.intra_op_num_threads)
        return real(path, options, providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    path = written(tmp_path, ".onnx", described())
    open_session(path)
    open_session(path, threads=2)
    assert used == [count, 2]
    with pytest.raises(ValueError, match="threads must be a whole number of at least 1, got 0"):
        open_session(path, threads=0)


def test_the_threads_of_openvino(tmp_path):
    session = open_session(written(tmp_path, ".xml", described()), threads=1)
    assert session._network.get_property("INFERENCE_NUM_THREADS") == 1
    assert session._network.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32


def test_signals_arrive_when_sessions_of_openvino_are_gone_in_any_order(tmp_path):
    path = written(tmp_path, ".xml", described())
    program = (
        "import os, signal, sys; from danseg.export.sessions import open_session; "
        "first, second = (open_session(sys.argv[1], 'cpu') for _ in range(2)); del first; del second; "
        "signal.signal(signal.SIGTERM, lambda *_: print('arrived', flush=True)); "
        "os.kill(os.getpid(), signal.SIGTERM)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(path)], env=environment(), capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (0, "arrived\n"), run.stderr
