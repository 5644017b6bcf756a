"""What a training finds in its folder: refused, moved or cleared away, and nothing lost."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from danseg.engine.validation_record import RECORD, read_record, write_record
from danseg.engine.work_dir import checkpoint_folders, clear_leftovers, prepare_folders, saved_in
from danseg.errors import UserError

SAVED = ["best_mIoU_iter_2.pth", "best_night_mIoU_iter_4.pth", "iter_2.pth", "iter_4.pth"]
OTHERS = ["best.pth", "config.py", "iter_x.pth", "pretrained.pth", "weights_iter_4.pth"]
RESUMED = {"meta": {"iter": 2, "epoch": 0}}


@pytest.fixture
def work(tmp_path):
    """The folder of a training of four iterations, with files of the user's own."""
    folder = tmp_path / "work"
    folder.mkdir()
    for name in (*SAVED, *OTHERS, "last_checkpoint"):
        (folder / name).write_text(name)
    write_record(folder, [{"iteration": step, "mIoU": 0.5} for step in (2, 4)])
    return folder


def config_of(work: Path, **hook) -> Config:
    hooks = {"checkpoint": {"type": "SafeCheckpointHook", **hook}, "logger": {"type": "LoggerHook"}}
    return Config({"work_dir": str(work), "default_hooks": hooks, "custom_hooks": [{"type": "EMAHook"}]})


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def moved(work: Path) -> dict[str, str]:
    [aside] = work.glob("earlier_2*")
    return {path.name: path.read_text() for path in aside.iterdir()}


def test_checkpoints_are_known_by_their_names(work):
    found = [(one.path.name, one.unit, one.count, one.metric) for one in saved_in(work)]
    assert found == [
        ("iter_2.pth", "iter", 2, None),
        ("iter_4.pth", "iter", 4, None),
        ("best_mIoU_iter_2.pth", "iter", 2, "mIoU"),
        ("best_night_mIoU_iter_4.pth", "iter", 4, "night_mIoU"),
    ]


def test_a_folder_with_checkpoints_is_refused_with_three_ways_on(work):
    before = files(work)
    with pytest.raises(UserError) as refused:
        prepare_folders(config_of(work), None, print, refuse=True)
    for word in (str(work), "iter_4.pth", "best_mIoU_iter_2.pth", "--resume", "--work-dir", "--start-over"):
        assert word in str(refused.value)
    assert files(work) == before


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_not_taken_for_checkpoints(tmp_path, name):
    (tmp_path / name).write_text("")
    prepare_folders(config_of(tmp_path), None, pytest.fail, refuse=True)
    assert os.listdir(tmp_path) == [name]


def test_to_start_over_loses_nothing(work):
    said = []
    prepare_folders(config_of(work), None, said.append, refuse=False)
    assert files(work) == set(OTHERS)
    aside = moved(work)
    assert set(aside) == {*SAVED, "last_checkpoint", RECORD}
    assert all(aside[name] == name for name in SAVED)
    assert [one["iteration"] for one in read_record(next(work.glob("earlier_*")))] == [2, 4]
    assert len(said) == 1 and "earlier_2" in said[0] and "iter_2.pth" in said[0]

    for _ in range(3):  # in the same second, perhaps: each gets a folder of its own
        (work / "iter_1.pth").write_text("")
        prepare_folders(config_of(work), None, said.append, refuse=False)
    assert len(list(work.glob("earlier_*"))) == 4 and len(set(said)) == 4
    prepare_folders(config_of(work), None, pytest.fail, refuse=False)


@pytest.mark.parametrize("step", range(len(SAVED) + 2))
@pytest.mark.parametrize("resumed", [None, "iter_2.pth"])
def test_moving_that_is_cut_off_is_finished_the_next_time(work, monkeypatch, step, resumed):
    names = {*SAVED, "last_checkpoint", RECORD}
    found = (str(work / resumed), RESUMED) if resumed else None
    rename, left = os.rename, iter(range(step))

    def dying(*paths):
        if next(left, None) is None:
            raise KeyboardInterrupt
        rename(*paths)

    monkeypatch.setattr(os, "rename", dying)
    with contextlib.suppress(KeyboardInterrupt):
        prepare_folders(config_of(work), found, print, refuse=False)
    monkeypatch.setattr(os, "rename", rename)
    prepare_folders(config_of(work), found, print, refuse=False)
    kept = {"iter_2.pth", "best_mIoU_iter_2.pth", RECORD} if resumed else set()
    assert files(work) == {*OTHERS, *kept}
    aside = {path.name for path in work.glob("earlier_*/*")}
    assert aside == names - kept | ({RECORD} if resumed else set())


@pytest.mark.parametrize("hook", [{}, {"out_dir": "out"}, {"filename_tmpl": "state_{}.pt.pth"}])
def test_checkpoints_elsewhere_and_of_other_names_are_found(tmp_path, monkeypatch, hook):
    monkeypatch.chdir(tmp_path)
    config = config_of(Path("work"), by_epoch=False, **hook)
    place = list(checkpoint_folders(config))[-1]
    assert place == Path("out/work" if "out_dir" in hook else "work")
    place.mkdir(parents=True)
    Path("work").mkdir(exist_ok=True)
    name = hook.get("filename_tmpl", "iter_{}.pth").format(3)
    (place / name).write_text("")
    with pytest.raises(UserError, match=name):
        prepare_folders(config, None, print, refuse=True)


def test_what_is_newer_than_the_resumed_checkpoint_goes_aside(work):
    said = []
    prepare_folders(config_of(work), (str(work / "iter_2.pth"), RESUMED), said.append, refuse=False)
    assert files(work) == {*OTHERS, "iter_2.pth", "best_mIoU_iter_2.pth", "last_checkpoint", RECORD} - {
        "last_checkpoint"
    }
    assert set(moved(work)) == {"iter_4.pth", "best_night_mIoU_iter_4.pth", "last_checkpoint", RECORD}
    assert read_record(work) == [{"iteration": 2, "mIoU": 0.5}]
    assert "iter_4.pth" in said[0]


def test_a_best_one_after_the_newest_checkpoint_stays(work):
    """Its validation comes again."""
    (work / "iter_4.pth").unlink()
    before = files(work)
    prepare_folders(config_of(work), (str(work / "iter_2.pth"), RESUMED), pytest.fail, refuse=False)
    assert files(work) == before and len(read_record(work)) == 2


def test_a_folder_in_which_the_resumed_checkpoint_does_not_lie_holds_another_training(work, tmp_path):
    other = tmp_path / "iter_2.pth"
    prepare_folders(config_of(work), (str(other), RESUMED), print, refuse=False)
    assert files(work) == set(OTHERS) and set(moved(work)) == {*SAVED, "last_checkpoint", RECORD}


def test_what_cannot_be_moved_is_named(work, monkeypatch):
    def full(*names):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(
        UserError, match=r"cannot move .*iter_2\.pth to .*earlier_.*: No space left on device"
    ):
        prepare_folders(config_of(work), None, print, refuse=False)


def test_what_a_killed_writing_left_behind_is_cleared_away(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        names = {
            ".iter_4.pth.4194305-0123abcd.part": False,  # of no process
            "log/.validation.json.4194305-0123abcd.part": False,
            "log/vis_data/.config.py.4194305-0123abcd.part": False,
            f".iter_4.pth.{os.getpid()}-0123abcd.part": False,  # this one has just begun
            ".notes.part": True,
            "iter_4.pth": True,
            f".metrics.json.{child.pid}-0123abcd.part": True,  # another tool is writing it
            f".old.pth.{child.pid}-0123abcd.part": not os.path.exists(
                "/proc/stat"
            ),  # before the process began
        }
        (tmp_path / "log" / "vis_data").mkdir(parents=True)
        for name in names:
            (tmp_path / name).write_text("half")
        os.utime(tmp_path / f".old.pth.{child.pid}-0123abcd.part", (1, 1))
        clear_leftovers(tmp_path)
        assert {name for name in names if (tmp_path / name).exists()} == {
            name for name in names if names[name]
        }
        child.communicate(b"\n")


@pytest.mark.parametrize("content", ["", "{}", "[1, {}]", '[{"iteration": "x"}]'])
def test_a_damaged_record_is_none(tmp_path, content):
    (tmp_path / RECORD).write_text(content)
    assert read_record(tmp_path) == []
