"""tools/app.py: which networks it takes, how it starts, what it leaves behind."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import child_process
from bad_files import drawn
from danseg.app import PageLimits
from few_layers import few_layers, few_layers_files

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[str, str]:
    """The config of a network that attends, and its checkpoint."""
    folder = tmp_path_factory.mktemp("app")
    config = few_layers(dict(type="DANetHead", pam_channels=4))
    config.custom_imports = dict(imports=["few_layers"])
    return tuple(map(str, few_layers_files(folder, config)))


@pytest.fixture(autouse=True)
def no_limit_of_opencv(monkeypatch):
    """The tool sets it for its process, which is this one here."""
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**30))


@pytest.mark.parametrize(
    ("typed", "pairs"),
    [
        (["net", "a.pth"], [("net", "a.pth")]),
        (["a.pth"], [("a.pth", "a.pth")]),
        (["net", "a.pth", "other", "b.safetensors"], [("net", "a.pth"), ("other", "b.safetensors")]),
        (["a.pth", "net", "b.pth"], [("a.pth", "a.pth"), ("net", "b.pth")]),
    ],
)
def test_configs_stand_before_their_checkpoints(tool, typed, pairs):
    assert tool("app").parse_args(typed).networks == pairs


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["net"], "name the checkpoint of net behind it"),
        (["net", "other"], "name the checkpoint of net behind it"),
        (["net", "a.pth", "other"], "name the checkpoint of other behind it"),
        (["a.pth", "b.pth", "c.pth"], "3 networks are too many to stand side by side; name at most 2"),
        (["a.pth", "--max-kept", "0"], "expected a whole number from 1"),
        ([], "required"),
    ],
)
def test_others_are_refused(tool, typed, message, capsys):
    with pytest.raises(SystemExit) as ended:
        tool("app").parse_args(typed)
    assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "limits", "how"),
    [
        ([], PageLimits(), dict(host="127.0.0.1", port=7860, share=False, device=None, precision="float32")),
        (
            ["--max-bytes=10", "--max-pixels=9", "--timeout=2.5", "--queue=3", "--max-kept=7", "--share"]
            + ["--host=0.0.0.0", "--port=0", "--device=cpu", "--precision=bfloat16"],
            PageLimits(10, 9, 2.5, 3, 7),
            dict(host="0.0.0.0", port=0, share=True, device="cpu", precision="bfloat16"),
        ),
    ],
)
def test_options_become_limits(tool, trained, monkeypatch, options, limits, how):
    made = []
    monkeypatch.setattr("danseg.app.launch", lambda *arguments, **named: made.append((arguments, named)))
    tool("app").main([*trained, *options])
    [((networks, found), named)] = made
    assert found == limits and named == how and [checkpoint for _, checkpoint in networks] == [trained[1]]


def said_by(tool, capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        tool("app").main([*arguments, "--port", "0", "--device", "cpu"])
    said = capsys.readouterr()
    assert ended.value.code == 1 and "serving" not in said.out
    return said.err


def test_a_network_that_shows_nothing_is_told(tool, tmp_path, capsys):
    config = few_layers()
    config.custom_imports = dict(imports=["few_layers"])
    said = said_by(tool, capsys, *map(str, few_layers_files(tmp_path, config)))
    assert said.startswith("error: FCNHead has no attention to show; these modules have: ")


def test_a_missing_checkpoint_is_told(tool, trained, capsys):
    assert "nothing.pth" in said_by(tool, capsys, trained[0], "nothing.pth")


def test_the_extra_is_named_if_it_is_missing(tool, trained, capsys, monkeypatch):
    from importlib.util import find_spec

    for name in [name for name in sys.modules if name.startswith("danseg.app")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "gradio" else find_spec(name, *rest)
    )
    said = said_by(tool, capsys, *trained)
    assert "the page needs what is not installed: gradio; pip install 'danseg[app]'" in said


@pytest.fixture
def started(trained, tmp_path) -> Iterator[tuple[subprocess.Popen, str]]:
    """A process of the tool that may write where it likes, and its address."""
    for name in ("home", "work", "tmp"):
        (tmp_path / name).mkdir()
    places = dict(HOME=str(tmp_path / "home"), TMPDIR=str(tmp_path / "tmp"))
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "app.py"), *trained, "--port", "0", "--device", "cpu"],
        cwd=tmp_path / "work",
        env=child_process.environment(ROOT, ROOT / "tests" / "support", **places),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said = iter(process.stdout.readline, "")
        found = (
            re.match(r"serving few_layers at (http://127\.0\.0\.1:\d+); Ctrl-C stops it", line)
            for line in said
        )
        yield process, next(filter(None, found))[1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0_and_nothing_is_left(started, tmp_path, number):
    process, address = started
    with httpx.Client(base_url=address, timeout=20) as client:
        assert client.get("/").status_code == 200
        assert client.post("/picture", content=drawn(0)).status_code == 200
        [folder] = (tmp_path / "tmp").glob("danseg-app-*")
        assert len(list(folder.iterdir())) == 1 and folder.stat().st_mode & 0o077 == 0
        with client.stream("GET", "/gradio_api/heartbeat/me") as open_page:  # as every page holds one
            lines = open_page.iter_lines()  # which closes it when it goes
            next(lines)
            process.send_signal(number)
            assert process.wait(4) == 0  # without waiting until the page's connection is given up, for 5 s
    assert process.stdout.read() == f"{number.name}: stopping after 0 requests that were accepted\n"
    left = [
        path for name in ("home", "work", "tmp") for path in (tmp_path / name).rglob("*") if path.is_file()
    ]
    # Caches of Matplotlib's fonts and, on mmseg's original line, of YAPF's grammar.
    assert [path for path in left if {"matplotlib", "YAPF"}.isdisjoint(path.parts)] == []
    assert not folder.exists()
    assert os.listdir(tmp_path / "work") == []
