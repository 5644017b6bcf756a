"""tools/check_dataset.py: all data sets of a config, all that is wrong with them, in one go."""

import shutil
from pathlib import Path

import pytest

TINY = Path(__file__).resolve().parents[1] / "engine" / "tiny.py"


@pytest.fixture
def data(tmp_path, rendered_root, monkeypatch):
    """A copy of the rendered set, which may be damaged; no check of it is remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(rendered_root, tmp_path / "data"))


@pytest.fixture
def check(tool, data, capsys):
    """Run the tool; returns its status, what it printed and its errors."""

    def check(*arguments):
        status = 0
        try:
            tool("check_dataset").main([str(TINY), *arguments, "--cfg-options", f"data_root={data}"])
        except SystemExit as end:
            status = end.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return check


def test_a_sound_set_is_described(check):
    status, out, err = check()
    assert (status, "error" in err) == (0, False)
    assert "train: CityscapesDataset, 6 images with labels" in out
    assert "val: CityscapesDataset, 5 images with labels" in out  # and test, which is the same set, once
    assert out.count("images with labels") == 2
    assert "unchanged since their last check" in check("--splits", "val")[1]


def test_every_fault_of_every_split_is_listed_up_to_a_limit(check, data):
    pictures = sorted((data / "leftImg8bit/train").rglob("*.png"))
    for path in pictures[:4]:
        path.write_bytes(path.read_bytes()[:200])
    label = next((data / "gtFine/train").rglob("*_labelTrainIds.png"))
    label.write_bytes(b"")
    gone = next((data / "leftImg8bit/val").rglob("*.png"))
    gone.unlink()
    status, out, err = check()
    assert status == 1 and out == "" and "Traceback" not in err
    assert err.count("error: ") == 2 and "files that cannot be decoded: 5" in err
    frame = gone.name.removesuffix("_leftImg8bit.png")
    assert all(str(path) in err for path in (*pictures[:4], label, f"/{frame}_gtFine"))
    assert "copy or download them again" in err and "labels without an image: 1" in err

    status, out, err = check("--show", "2", "--splits", "train")
    assert status == 1 and "files that cannot be decoded: 5, the first 2" in err
    assert sum(str(path) in err for path in (*pictures[:4], label)) == 2


def test_a_sound_split_beside_a_broken_one_is_described(check, data):
    next((data / "leftImg8bit/train").rglob("*.png")).write_bytes(b"")
    status, out, err = check()
    assert status == 1 and out.startswith("val: ") and err.count("error: ") == 1


def test_a_config_without_the_split_is_told(tool, tmp_path, capsys):
    (tmp_path / "a.py").write_text(f'_base_ = ["{TINY}"]\nval_dataloader = None\n')
    with pytest.raises(SystemExit):
        tool("check_dataset").main([str(tmp_path / "a.py"), "--splits", "val"])
    assert "has no val_dataloader" in capsys.readouterr().err


def test_what_all_splits_lack_is_said_once_and_names_the_command(tool, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["danseg check"])
    with pytest.raises(SystemExit):
        tool("check_dataset").main(["danet_r18_folder", "--cfg-options", f"data_root={tmp_path / 'gone'}"])
    said = capsys.readouterr().err
    assert said.count("error: ") == 1 and "write it with danseg prepare folder " in said
