"""The record of finished predictions."""

import json
import os
import subprocess

import pytest

from danseg import apis
from danseg.apis.finished import Record, settings_of, stamp
from danseg.apis.sources import CAMERA, VIDEO, Source
from danseg.errors import UserError

SETTINGS = dict(weights="a", precision="float32")


@pytest.fixture
def source(tmp_path):
    (tmp_path / "x.png").write_bytes(b"1234")
    return Source(str(tmp_path / "x.png"), "sub/x")


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out" / "sub").mkdir(parents=True)
    return tmp_path / "out"


def write(out, end, content=b"content"):
    path = out / f"sub/x_{end}"
    path.write_bytes(content)
    return [path]


def reread(out, settings=SETTINGS):
    record = Record(out, settings)
    record.read()
    return record


def test_what_is_noted_is_finished_and_nothing_else(out, source):
    assert not reread(out).finished(source, ["trainIds"])
    files = dict(trainIds=write(out, "labels.png"))
    assert not reread(out).finished(source, ["trainIds"]), "a file that exists is not taken for finished"
    Record(out, SETTINGS).note(source, stamp(source), files)
    assert reread(out).finished(source, ["trainIds"])
    assert not reread(out).finished(source, ["trainIds", "overlay"])
    assert not reread(out).finished(Source(source.path, "other"), ["trainIds"])


def test_kinds_that_were_written_one_after_another_are_all_finished(out, source):
    Record(out, SETTINGS, 0).note(source, stamp(source), dict(trainIds=write(out, "labels.png")))
    Record(out, SETTINGS, 1).note(source, stamp(source), dict(overlay=write(out, "overlay.png")))
    assert reread(out).finished(source, ["trainIds", "overlay"])
    assert len(list(out.glob(".predicted-*.jsonl"))) == 2


@pytest.mark.parametrize("what", ["output is gone", "output has another size", "input has changed"])
def test_what_has_changed_is_not_finished(out, source, what):
    files = dict(trainIds=write(out, "labels.png"))
    Record(out, SETTINGS).note(source, stamp(source), files)
    [path] = files["trainIds"]
    if what == "output is gone":
        path.unlink()
    elif what == "output has another size":
        path.write_bytes(b"")  # as after a power cut
    else:
        (out.parent / "x.png").write_bytes(b"12345")
    assert not reread(out).finished(source, ["trainIds"])


def test_half_a_line_spoils_no_other(out, source):
    record = Record(out, SETTINGS)
    record.note(Source(source.path, "before"), stamp(source), dict(trainIds=write(out, "labels.png")))
    [file] = out.glob(".predicted-*.jsonl")
    with file.open("ab") as half:
        half.write(b'\n{"name": "sub/x", "inp')
    with file.open("ab") as half:
        half.write(b'\n["no dict"]\n{"name": 3}')
    Record(out, SETTINGS).note(source, stamp(source), dict(trainIds=write(out, "labels.png")))
    found = reread(out)
    assert found.finished(source, ["trainIds"])
    assert found.finished(Source(source.path, "before"), ["trainIds"])


def test_other_settings_are_refused_and_said(out, source):
    Record(out, SETTINGS).note(source, stamp(source), dict(trainIds=write(out, "labels.png")))
    other = reread(out, dict(SETTINGS, precision="bfloat16"))
    assert not other.finished(source, ["trainIds"])
    with pytest.raises(UserError, match=r"predictions of 1 of the 1 .*\(precision float32, now bfloat16\)"):
        other.require_same_settings([source])
    other.require_same_settings([Source(source.path, "another picture")])
    reread(out).require_same_settings([source])


def test_what_is_done_again_is_finished_no_longer(out, source):
    """A picture whose outputs were half done when the process was killed must count as neither."""
    Record(out, SETTINGS).note(source, stamp(source), dict(trainIds=write(out, "labels.png")))
    other = reread(out, dict(SETTINGS, precision="bfloat16"))
    other.forget([source])
    assert not reread(out).finished(source, ["trainIds"])
    other.note(source, stamp(source), dict(trainIds=write(out, "labels.png")))
    assert reread(out, dict(SETTINGS, precision="bfloat16")).finished(source, ["trainIds"])
    assert not reread(out).finished(source, ["trainIds"])


def test_a_camera_is_never_finished(out, source):
    camera = Source("0", "camera_0", CAMERA)
    Record(out, SETTINGS).note(camera, stamp(camera), dict(overlay=write(out, "overlay.mp4")))
    assert not reread(out).finished(camera, ["overlay"])


def test_lines_are_json_with_paths_below_the_folder(out, source):
    Record(out, SETTINGS).note(source, stamp(source), dict(trainIds=write(out, "labels.png")))
    [file] = out.glob(".predicted-*.jsonl")
    first, second = map(json.loads, file.read_text().split("\n")[1:])
    assert first["settings"] == SETTINGS
    assert second["outputs"] == {"trainIds": {"sub/x_labels.png": 7}}


def test_parts_of_killed_processes_that_wrote_here_are_deleted_and_no_others(out, source):
    with subprocess.Popen(["true"]) as killed:
        process = killed.pid
    for number in (process, os.getpid()):
        note_as(out, number)
    note_as(out, process + 1, machine="elsewhere")
    video = Source("x.mp4", "sub/x", VIDEO)
    mine = [
        f"sub/.x_labels.png.{process}-0123abcd.part",
        f"sub/.x_overlay.mp4.{process}-0123abcd.part.mp4",
    ]
    mine.append(f"sub/x/.000001_labels.png.{process}-0123abcd.part")
    others = [
        f"sub/.x_labels.png.{os.getpid()}-0123abcd.part",  # it may still be written
        f"sub/.x_labels.png.{process + 1}-0123abcd.part",  # nobody knows whether it runs there
        f"sub/.x_labels.png.{process + 2}-0123abcd.part",  # it never wrote predictions here
        f"sub/x_labels.png.{process}-0123abcd.part",
        f"sub/.x_labels.png.{process}.part",
        "sub/.notes.part",
        f".x_labels.png.{process}-0123abcd.part",  # not where this run writes
    ]
    for name in (*mine, *others):
        (out / name).parent.mkdir(exist_ok=True, parents=True)
        (out / name).touch()
    reread(out).clear_parts([source, video])
    left = {path.relative_to(out).as_posix() for path in out.rglob("*.part*")}
    assert left == set(others)


def note_as(out, process, machine=None):
    """Let a process of another number begin to write."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("danseg.apis.finished.os.getpid", lambda: process)
        if machine:
            patch.setattr("platform.node", lambda: machine)
        Record(out, SETTINGS).begin()


def test_settings_tell_weights_networks_and_options_apart(near_sighted):
    model = near_sighted()
    first = settings_of(model, precision="float32")
    assert first == settings_of(model, precision="float32")
    assert settings_of(model, precision="bfloat16") == dict(first, precision="bfloat16")
    next(model.parameters()).data[0, 0, 0, 0] += 1e-6
    changed = settings_of(model, precision="float32")
    assert changed["weights"] != first["weights"] and changed["network"] == first["network"]
    model.cfg.model.test_cfg.mode = "slide"
    assert settings_of(model, precision="float32")["network"] != first["network"]


def test_settings_of_every_type_of_weight(camvid, make_config):
    model = apis.load_model(make_config(camvid), None, "cpu").bfloat16()  # and integers
    assert settings_of(model)["weights"]
