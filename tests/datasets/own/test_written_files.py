"""Files are never written over a user's own, renewed by the same command, and taken back after a failure."""

import numpy as np
import pytest
from PIL import Image

from danseg.datasets.own.written_files import IGNORED_COLOUR, written_files
from danseg.errors import UserError
from danseg.label_maps.label_png import read_label_map

ARGUMENTS = dict(val=0.2)
MASK = np.array([[0, 1], [1, 255]], np.uint8)
COLOURS = [(1, 2, 3), (4, 5, 6)]


def write(folder, *, arguments=ARGUMENTS, text="text", mask=MASK, colours=COLOURS, more=()):
    with written_files(folder, arguments) as files:
        files.add_mask("masks/sub/a.png", mask, colours)
        files.add_text("a.txt", text)
        for name in more:
            files.add_text(name, name)
        return files.finish()


def state(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_is_written(tmp_path):
    write(tmp_path / "x/y")
    assert state(tmp_path) == {"x/y/a.txt", "x/y/masks/sub/a.png", "x/y/prepared.json"}
    assert (read_label_map(tmp_path / "x/y/masks/sub/a.png") == MASK).all()
    with Image.open(tmp_path / "x/y/masks/sub/a.png") as image:
        palette = np.array(image.getpalette()).reshape(256, 3)
    assert palette[[0, 1, 2, 254, 255]].tolist() == [
        *map(list, COLOURS),
        [0] * 3,
        [0] * 3,
        list(IGNORED_COLOUR),
    ]


def test_a_failure_takes_back_what_this_run_made(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x/mine").touch()
    for folder in ("x", "new/one"):
        with pytest.raises(ZeroDivisionError), written_files(tmp_path / folder, ARGUMENTS) as files:
            files.add_mask("masks/a.png", MASK, COLOURS)
            files.add_text("a.txt", "text")
            raise ZeroDivisionError
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine", "x"]


def test_a_failure_keeps_what_was_there(tmp_path):
    write(tmp_path)
    with pytest.raises(KeyboardInterrupt), written_files(tmp_path, ARGUMENTS) as files:
        files.add_text("a.txt", "text")
        files.add_text("b.txt", "more")
        raise KeyboardInterrupt
    assert state(tmp_path) == {"a.txt", "masks/sub/a.png", "prepared.json"}


def test_the_same_command_renews_its_files(tmp_path):
    write(tmp_path, more=["old.txt"])
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in ("a.txt", "masks/sub/a.png")}
    assert write(tmp_path, more=["old.txt"]) == []
    assert times == {name: (tmp_path / name).stat().st_mtime_ns for name in times}  # not even touched
    write(tmp_path, text="new", mask=1 - np.minimum(MASK, 1))
    assert (tmp_path / "a.txt").read_text() == "new" and not (tmp_path / "old.txt").exists()
    assert (read_label_map(tmp_path / "masks/sub/a.png") == [[1, 0], [0, 0]]).all()
    write(tmp_path, colours=[(9, 9, 9), (8, 8, 8)])
    with Image.open(tmp_path / "masks/sub/a.png") as image:
        assert image.getpalette()[:3] == [9, 9, 9]


def test_a_run_that_was_killed_is_finished_by_the_next(tmp_path):
    write(tmp_path)
    (tmp_path / "prepared.json").unlink()
    (tmp_path / "a.txt").unlink()
    write(tmp_path)
    assert state(tmp_path) == {"a.txt", "masks/sub/a.png", "prepared.json"}


@pytest.mark.parametrize("name", ["a.txt", "masks/sub/a.png"])
def test_a_users_file_stays(tmp_path, name):
    (tmp_path / "masks/sub").mkdir(parents=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"{name} is there and was not written by this command"):
        write(tmp_path)
    assert state(tmp_path) == {name} and (tmp_path / name).read_text() == "mine"


def test_a_folder_in_the_way(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(UserError, match="a.txt is in the way: it is a folder; name another --out"):
        write(tmp_path)


@pytest.mark.parametrize("name", ["a.txt", "masks/sub/a.png"])
def test_a_file_that_was_changed_stays(tmp_path, name):
    write(tmp_path)
    (tmp_path / name).write_text("changed")
    with pytest.raises(UserError, match="was changed since"):
        write(tmp_path, text="new")
    assert (tmp_path / name).read_text() == "changed"


def test_a_changed_file_that_is_no_more_part_of_the_set_is_named(tmp_path):
    write(tmp_path, more=["old.txt"])
    (tmp_path / "old.txt").write_text("changed")
    assert write(tmp_path) == ["old.txt"]
    assert (tmp_path / "old.txt").read_text() == "changed"


def test_other_arguments(tmp_path):
    write(tmp_path)
    with pytest.raises(UserError, match=r"with other arguments \(group None, now 'x', val 0.2, now 0.3\)"):
        write(tmp_path, arguments=dict(val=0.3, group="x"))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"arguments": 1, "files": {}}'])
def test_a_record_of_something_else(tmp_path, text):
    (tmp_path / "prepared.json").write_text(text)
    with pytest.raises(UserError, match="prepared.json is no record of this command"):
        write(tmp_path)
    assert state(tmp_path) == {"prepared.json"}
