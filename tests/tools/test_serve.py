"""tools/serve.py: a process that answers, and stops when it is told to."""

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import child_process
from danseg.apis import load_model
from danseg.serve import Limits

ROOT = Path(__file__).resolve().parents[2]
TINY = str(ROOT / "tests" / "engine" / "tiny.py")
HEAD = b'--x\r\nContent-Disposition: form-data; name="image"; filename="x.pgm"\r\n\r\n'
BODY = HEAD + b"P5 96 64 255\n" + bytes(64 * 96) + b"\r\n--x--\r\n"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("serve") / "weights.pth"
    torch.save(dict(state_dict=load_model(TINY, None, "cpu").state_dict(), meta={}), path)
    return str(path)


@pytest.fixture(autouse=True)
def no_limit_of_opencv(monkeypatch):
    """The tool sets it for its process, which is this one here."""
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**30))


@pytest.fixture
def started(weights) -> Iterator[tuple[subprocess.Popen, int]]:
    """A process of the tool that answers, and its port."""
    command = [sys.executable, "tools/serve.py", TINY, weights, "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=child_process.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        said = iter(process.stdout.readline, "")
        lines = (re.match(r"serving tiny at http://127\.0\.0\.1:(\d+) ", line) for line in said)
        yield process, int(next(filter(None, lines))[1])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def connect(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=30)


def ask(port: int, method: str, path: str, body: bytes | None = None) -> http.client.HTTPResponse:
    connection = connect(port)
    connection.request(method, path, body, {"Content-Type": "multipart/form-data; boundary=x"})
    return connection.getresponse()


def test_sigterm_answers_what_was_accepted_refuses_the_rest_and_ends_with_0(started):
    process, port = started
    answer = ask(port, "POST", "/segment?output=areas", BODY)
    assert answer.status == 200 and json.load(answer)["width"] == 96
    half = connect(port)
    half.putrequest("POST", "/segment?output=areas")
    half.putheader("Content-Type", "multipart/form-data; boundary=x")
    half.putheader("Content-Length", str(len(BODY)))
    half.endheaders(BODY[:1000])
    while b"danseg_queue_length 1.0\n" not in ask(port, "GET", "/metrics").read():
        time.sleep(0.01)

    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "SIGTERM: stopping after 1 requests that were accepted\n"
    refused = ask(port, "POST", "/segment", BODY)
    assert refused.status == 503 and "stopping" in json.load(refused)["error"]
    assert (ask(port, "GET", "/readyz").status, ask(port, "GET", "/healthz").status) == (503, 200)
    half.send(BODY[1000:])
    answer = half.getresponse()
    assert answer.status == 200 and json.load(answer)["height"] == 64
    assert process.wait(20) == 0 and process.stdout.read() == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "expected a whole number from 0 to 65535"),
        (["--timeout", "0"], "expected a number from 0.001"),
        (["--queue", "0"], "expected a whole number from 1"),
        (["--max-wait", "-1"], "expected a number from 0"),
    ],
)
def test_a_wrong_number_is_told(tool, arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        tool("serve").main([TINY, "weights.pth", *arguments])
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_what_is_not_there_is_told_before_it_listens(tool, capsys):
    with pytest.raises(SystemExit) as ended:
        tool("serve").main([TINY, "nothing.pth", "--port", "0"])
    said = capsys.readouterr()
    assert ended.value.code == 1 and "nothing.pth" in said.err and said.out == ""


@pytest.mark.parametrize(
    ("options", "limits", "together"),
    [
        ([], Limits(), 16),
        (
            ["--max-bytes=10", "--max-pixels=9999", "--timeout=2.5", "--queue=3", "--max-wait=7"]
            + ["--batch-size=2"],
            Limits(bytes=10, pixels=9999, seconds=2.5, queue=3, wait=0.007),
            2,
        ),
    ],
)
def test_options_become_limits(tool, weights, monkeypatch, options, limits, together):
    made = []
    monkeypatch.setattr("danseg.serve.serve", lambda app, service, listening: made.append(service))
    tool("serve").main([TINY, weights, "--port", "0", "--device", "cpu", *options])
    [service] = made
    assert service.limits == limits and service.name == "tiny" and service._batches.portion == together


def test_the_extra_is_named_if_it_is_missing(tool, capsys, monkeypatch):
    from importlib.util import find_spec

    for name in [name for name in sys.modules if name.startswith("danseg.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "uvicorn" else find_spec(name, *rest)
    )
    with pytest.raises(SystemExit) as ended:
        tool("serve").main([TINY, "weights.pth", "--port", "0"])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "uvicorn" in said and "fastapi" not in said and "pip install 'danseg[serve]'" in said
