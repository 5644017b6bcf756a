"""The folder of an analysis: what the page says, and whose files are replaced."""

import csv
import json
import zlib

import numpy as np
import pytest

from danseg.apis import analysis_report
from danseg.apis.analysis import Analysis, WorstImage
from danseg.apis.analysis_report import report_folder, write_report
from danseg.engine.training_curves import LOSS, RATE, SCORE, Training
from danseg.errors import UserError
from danseg.evaluation.boundary_iou import BoundaryIoU
from danseg.evaluation.calibration import Calibration
from danseg.evaluation.confusion import Scores
from danseg.io import images
from full_disk import full_disk

CLASSES = ("road", "a class, with | and `marks`", "sky")
TRAINING = Training(
    "work_dirs/a", 2, {LOSS: [(1, 2.0), (2, 1.0)], RATE: [(1, 0.1)], SCORE: [(1, 60.0), (2, 50.0)]}
)


def analysis(worst: int = 2, sets=()) -> Analysis:
    labels, predictions = np.array([[0, 0, 1, 3], [0, 0, 1, 1]]), np.array([[0, 0, 1, 1], [0, 1, 1, 0]])
    confusion = np.array([[3, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0]], dtype=np.int64)
    scores, boundary, calibration = Scores(CLASSES, confusion), BoundaryIoU(3), Calibration(4)
    boundary.add(labels, predictions)
    calibration.add(np.array([0.9, 0.9, 0.6]), np.array([True, False, True]))
    maps = tuple(zlib.compress(ids.astype(np.uint16).tobytes()) for ids in (labels, predictions))
    image = WorstImage("/data/a `b`.png", 0.25, labels.shape, maps)
    report = dict(config="c.py", checkpoint="w.pth", precision="float32", **scores.as_dict())
    picture = np.zeros((2, 4, 3), np.uint8)
    palette = [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
    return Analysis(
        report, scores, dict(sets), boundary, calibration, [image] * worst, 7, palette, lambda path: picture
    )


def write(out, found=None, trainings=()):
    return write_report(report_folder(str(out), 8), found, trainings)


def test_numbers_of_the_page_and_of_the_files(tmp_path):
    found = analysis(sets={"a": analysis().scores})
    page = write(tmp_path / "new" / "out", found, [TRAINING]).read_text()
    folder = tmp_path / "new" / "out"
    assert "**mIoU 55.00**, mAcc 70.83, aAcc 71.43" in page
    assert "| sky (absent)" in page and "(absent)" in page and "counts in no mean" in page
    rows = {row[0]: row[1:] for row in csv.reader((folder / "classes.csv").read_text().splitlines())}
    assert rows["road"][:3] == ["60.0", "75.0", "75.0"] and rows["road"][4:] == ["4", "4"]
    assert rows["sky"] == ["", "", "", "", "0", "0"]
    assert (
        float(rows["mean"][0]) == found.scores.percent()["mIoU"] == pytest.approx(100 * (3 / 5 + 2 / 4) / 2)
    )
    assert float(rows["mean"][2]) == pytest.approx(100 * (6 / 8 + 4 / 6) / 2)
    assert float(rows["mean"][3]) == found.boundary.mean * 100
    counts = list(csv.reader((folder / "confusion.csv").read_text().splitlines()))
    assert counts[0][1:] == list(CLASSES) and counts[1][1:] == ["3", "1", "0"]
    bins = list(csv.DictReader((folder / "calibration.csv").read_text().splitlines()))
    assert [row["pixels"] for row in bins] == ["0", "0", "1", "2"] and bins[3]["mean_confidence"] == "0.9"
    index = json.loads((folder / "analysis.json").read_text())
    assert index["mIoU"] == found.scores.mean_iou * 100 and index["boundary"]["classes"]["sky"] is None
    assert index["calibration"]["ECE"] == found.calibration.error * 100
    assert set(index["files"]) | {"analysis.json"} == {path.name for path in folder.iterdir()}
    for name in index["files"]:
        if name.endswith(".png"):
            assert f"({name})" in page and images.read_image(folder / name).size
    assert "| work_dirs/a |      2 |          2 |         1 |     60.00 |  1 |     50.00 |" in page
    curves = list(csv.reader((folder / "curves.csv").read_text().splitlines()))
    assert ["work_dirs/a", LOSS, "2", "1.0"] in curves
    assert "`/data/a 'b'.png`" in page


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures of 30 kB that are none, as drawing takes most of the time."""
    monkeypatch.setattr(
        analysis_report, "_drawn", lambda figure: lambda part: part.write_bytes(bytes(30_000))
    )


@pytest.mark.usefixtures("undrawn")
def test_an_earlier_analysis_is_replaced_in_its_own_files_alone(tmp_path):
    (tmp_path / "notes.md").write_text("mine")
    (tmp_path / "worst_100.png").write_text("mine")
    write(tmp_path, analysis(worst=3), [TRAINING])
    assert (tmp_path / "worst_03.png").exists() and (tmp_path / "curves.png").exists()
    write(tmp_path, analysis(worst=1))
    names = {path.name for path in tmp_path.iterdir()}
    assert {"notes.md", "worst_100.png", "worst_01.png", "confusion.png"} <= names
    assert not {"worst_02.png", "worst_03.png", "curves.png", "curves.csv"} & names
    write(tmp_path, None, [TRAINING])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"notes.md", "worst_100.png", "curves.png", "curves.csv", "report.md", "analysis.json"}
    assert "confusion" not in (tmp_path / "report.md").read_text()


def test_the_same_twice_is_the_same_to_the_byte(tmp_path):
    write(tmp_path / "a", analysis(worst=0), [TRAINING])
    write(tmp_path / "b", analysis(worst=0), [TRAINING])
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / x).iterdir()} for x in "ab")
    assert first == second


@pytest.mark.parametrize("name", ["report.md", "confusion.png", "worst_08.png", "analysis.json"])
def test_a_file_of_anybody_else_is_not_replaced(name, tmp_path):
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=f"{name} is of no earlier analysis .*--out"):
        report_folder(str(tmp_path), 8)
    assert (tmp_path / name).read_text() == "{}"


@pytest.mark.usefixtures("undrawn")
def test_a_list_that_names_other_files_deletes_none(tmp_path):
    folder = tmp_path / "out"
    write(folder, analysis())
    index = json.loads((folder / "analysis.json").read_text())
    (tmp_path / "precious").write_text("x")
    (folder / "mine.txt").write_text("x")
    index["files"] += ["../precious", "mine.txt", 3]
    (folder / "analysis.json").write_text(json.dumps(index))
    write(folder, None, [TRAINING])
    assert (tmp_path / "precious").exists() and (folder / "mine.txt").exists()


@pytest.mark.parametrize(("out", "words"), [("", "has no name"), ("/dev/null/x", "Not a directory")])
def test_a_folder_that_cannot_be_is_one_message(out, words):
    with pytest.raises(UserError, match=rf"{words}.*--out"):
        report_folder(out, 8)


def test_an_unreadable_list_is_one_message(tmp_path):
    (tmp_path / "analysis.json").write_text("{")
    with pytest.raises(UserError, match=r"analysis\.json.*cannot be read.*--out"):
        report_folder(str(tmp_path), 8)


@pytest.mark.usefixtures("undrawn")
def test_a_full_disk_leaves_the_folder_as_it_was(tmp_path):
    write(tmp_path, analysis(worst=1))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with full_disk(room=20_000), pytest.raises(UserError, match="File too large"):
        write(tmp_path, analysis(worst=2), [TRAINING])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_same_run_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match="names work_dirs/a twice"):
        write(tmp_path, None, [TRAINING, TRAINING])
    assert list(tmp_path.iterdir()) == []
