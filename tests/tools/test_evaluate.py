"""tools/evaluate.py: what it prints, writes and refuses."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def main(tool):
    return tool("evaluate").main


@pytest.fixture
def camvid(tmp_path) -> tuple[Path, Path]:
    """Two frames; (predictions, labels)."""
    predictions, labels = tmp_path / "predictions", tmp_path / "valannot"
    predictions.mkdir()
    labels.mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.array([[0, 0, 1, 11]], np.uint8)).save(labels / f"{name}.png")
        Image.fromarray(np.array([[0, 1, 1, 5]], np.uint8)).save(predictions / f"{name}.png")
    return predictions, labels


def test_prints_and_writes(main, camvid, capsys):
    predictions, labels = camvid
    main([str(predictions), str(labels), "--dataset", "camvid", "--workers", "1"])
    printed = capsys.readouterr()
    assert "mIoU 50.00, mAcc 75.00, aAcc 66.67" in printed.out
    assert "building" in printed.out and "warning" not in printed.err
    written = json.loads((predictions.parent / "predictions_scores.json").read_text())
    assert written["aAcc"] == 2 / 3 * 100 and written["images"] == 2 and written["dataset"] == "camvid"
    assert written["classes"]["sky"]["IoU"] == 50 and written["classes"]["road"]["IoU"] is None
    with open(predictions.parent / "predictions_scores.csv", newline="") as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert float(rows["mean"]["IoU"]) == 50 and rows["sky"]["label_pixels"] == "4"


def test_never_overwrites(main, camvid, tmp_path):
    arguments = [*map(str, camvid), "--dataset", "camvid", "--out", str(tmp_path / "new" / "out")]
    for _ in range(3):
        main([*arguments, "--workers", "1"])
    names = sorted(path.name for path in (tmp_path / "new" / "out").iterdir())
    stems = ["predictions_scores", "predictions_scores_2", "predictions_scores_3"]
    assert names == sorted(f"{stem}{suffix}" for stem in stems for suffix in (".json", ".csv"))


def test_warns_of_unused_predictions(main, camvid, capsys):
    Image.new("L", (2, 2)).save(camvid[0] / "z.png")
    main([*map(str, camvid), "--dataset", "camvid", "--workers", "1"])
    assert "warning: 1 PNG files" in capsys.readouterr().err


def test_one_message_and_status_1(main, camvid, capsys):
    predictions, labels = camvid
    (predictions / "b.png").write_bytes(b"")
    with pytest.raises(SystemExit) as end:
        main([str(predictions), str(labels), "--dataset", "camvid", "--workers", "2"])
    assert end.value.code == 1
    printed = capsys.readouterr()
    assert f"error: {predictions / 'b.png'} cannot be read as a label map" in " ".join(printed.err.split())
    assert "Traceback" not in printed.err and not list(predictions.parent.glob("*scores*"))


def test_missing_folder(main, camvid, capsys):
    with pytest.raises(SystemExit):
        main(["nowhere", str(camvid[1]), "--dataset", "camvid"])
    assert "error: the folder of predictions, nowhere, does not exist" in capsys.readouterr().err


def test_a_full_disk_leaves_neither_file(main, camvid, capsys, monkeypatch):
    write, texts = Path.write_text, []

    def full(self, text, **keywords):
        texts.append(text)
        if len(texts) == 2:  # the CSV
            raise OSError(28, "No space left on device")
        return write(self, text, **keywords)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(SystemExit):
        main([*map(str, camvid), "--dataset", "camvid", "--workers", "1"])
    said = capsys.readouterr()
    assert "predictions_scores.csv: No space left on device" in said.err and "written" not in said.out
    assert len(texts) == 2 and sorted(path.name for path in camvid[0].parent.iterdir()) == [
        "predictions",
        "valannot",
    ]
