"""The rendered set: its layout, contents and repeatability, and that the official evaluator accepts it."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from danseg.errors import UserError
from danseg.label_maps.cityscapes_labels import LABELS, TRAIN_IDS
from danseg.rendered import street_set
from danseg.rendered.street_set import CITIES, draw_frame, render

SMALL = dict(train=3, val=2, height=64, width=128)


def digests(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read(path):
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels is not None, path
    return pixels


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("rendered") / "set"
    render(root, **SMALL, seed=3, workers=1)
    return root


def test_tree_has_the_cityscapes_layout(small_set):
    images = sorted(small_set.glob("leftImg8bit/*/*/*_leftImg8bit.png"))
    assert [path.parts[-3] for path in images] == ["train"] * SMALL["train"] + ["val"] * SMALL["val"]
    for image in images:
        split, city, name = image.parts[-3:]
        assert city in CITIES[split] and name.split("_")[0] == city
        pixels = read(image)
        assert pixels.shape == (SMALL["height"], SMALL["width"], 3) and pixels.dtype == np.uint8
        stem = small_set / "gtFine" / split / city / name.replace("_leftImg8bit.png", "_gtFine_")
        ids, train_ids, instances, colours = (
            read(f"{stem}{kind}.png") for kind in ("labelIds", "labelTrainIds", "instanceIds", "color")
        )
        assert ids.dtype == train_ids.dtype == np.uint8 and instances.dtype == np.uint16
        assert ids.shape == train_ids.shape == instances.shape == pixels.shape[:2]
        np.testing.assert_array_equal(train_ids, TRAIN_IDS[ids])
        np.testing.assert_array_equal(np.where(instances < 1000, instances, instances // 1000), ids)
        counted = np.unique(instances[instances >= 1000] // 1000)
        assert all(LABELS[i].has_instances for i in counted)
        np.testing.assert_array_equal(colours[..., 2::-1], np.array([row.colour for row in LABELS])[ids])
        assert (colours[..., 3] == 255).all()
    assert len(list(small_set.rglob("*.png"))) == 5 * len(images)


def test_same_seed_same_bytes_whatever_the_number_of_workers_and_frames(small_set, tmp_path):
    render(tmp_path / "two", **SMALL, seed=3, workers=2)
    assert digests(tmp_path / "two") == digests(small_set)
    render(tmp_path / "fewer", **{**SMALL, "train": 2, "val": 1}, seed=3, workers=1)
    fewer = {name: digest for name, digest in digests(tmp_path / "fewer").items() if name.endswith(".png")}
    assert len(fewer) == 15 and fewer.items() <= digests(small_set).items()


def test_splits_frames_and_seeds_differ(small_set):
    images = [digest for name, digest in digests(small_set).items() if "leftImg8bit" in name]
    assert len(set(images)) == len(images) == 5
    choices = [(split, seed) for split in ("train", "val") for seed in (3, 4)]
    frames = [draw_frame(split, 0, height=64, width=128, seed=seed) for split, seed in choices]
    for i, (image, labels) in enumerate(frames):
        assert all((image != other[0]).any() and (labels != other[1]).any() for other in frames[:i])


def test_a_finished_set_is_left_alone_and_a_damaged_one_is_completed(tmp_path, monkeypatch):
    first = render(tmp_path, train=2, val=1, height=32, width=64, workers=1)
    before = digests(tmp_path)
    assert json.loads((tmp_path / "rendered.json").read_text()) == first

    drawn = []

    def counted(split, k, **arguments):
        drawn.append((split, k))
        return draw_frame(split, k, **arguments)

    monkeypatch.setattr(street_set, "draw_frame", counted)
    assert render(tmp_path, train=2, val=1, height=32, width=64, workers=1) == first
    assert drawn == []

    next(tmp_path.glob("gtFine/val/*/*_labelIds.png")).unlink()
    render(tmp_path, train=2, val=1, height=32, width=64, workers=1)
    assert drawn == [("val", 0)] and digests(tmp_path) == before

    # As after an interruption: half a file, and a manifest that does not say "complete".
    image = next(tmp_path.glob("leftImg8bit/train/*/*.png"))
    image.write_bytes(image.read_bytes()[:100])
    (tmp_path / "rendered.json").write_text(json.dumps({**first, "complete": False}))
    render(tmp_path, train=2, val=1, height=32, width=64, workers=1)
    assert digests(tmp_path) == before


def test_an_interrupted_run_leaves_an_unfinished_manifest(tmp_path, monkeypatch):
    def fail(*frame, **arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(street_set, "draw_frame", fail)
        with pytest.raises(KeyboardInterrupt):
            render(tmp_path, train=1, val=0, height=32, width=64, workers=1)
    assert json.loads((tmp_path / "rendered.json").read_text())["complete"] is False
    assert render(tmp_path, train=1, val=0, height=32, width=64, workers=1)["complete"] is True
    assert len(list(tmp_path.rglob("*.png"))) == 5


def test_no_half_files_when_the_disk_is_full(tmp_path, monkeypatch):
    def half(path, content):
        with path.open("wb") as file:
            file.write(bytes(content)[:9])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        with pytest.raises(UserError, match="cannot write .*png: No space left"):
            render(tmp_path, train=1, val=0, height=32, width=64, workers=1)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["rendered.json"]
    render(tmp_path, train=1, val=0, height=32, width=64, workers=1)
    before = digests(tmp_path)
    next(tmp_path.rglob("*_color.png")).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", lambda path, text: half(path, text.encode()))
        with pytest.raises(UserError, match="cannot write .*rendered.json: No space left"):
            render(tmp_path, train=1, val=0, height=32, width=64, workers=1)
    render(tmp_path, train=1, val=0, height=32, width=64, workers=1)
    assert digests(tmp_path) == before


@pytest.mark.parametrize("change", [dict(seed=1), dict(train=3), dict(height=64)])
def test_another_rendered_set_is_not_overwritten(tmp_path, change):
    arguments = dict(train=1, val=1, height=32, width=64, seed=0, workers=1)
    render(tmp_path, **arguments)
    before = digests(tmp_path)
    with pytest.raises(UserError, match="rendered otherwise") as error:
        render(tmp_path, **{**arguments, **change})
    assert str(tmp_path) in str(error.value) and digests(tmp_path) == before


@pytest.mark.parametrize("name", ["leftImg8bit", "gtFine"])
def test_a_tree_that_was_not_rendered_is_not_touched(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="not rendered by danseg") as error:
        render(tmp_path, train=1, val=1, height=32, width=64)
    assert str(tmp_path) in str(error.value)
    assert [path.name for path in tmp_path.rglob("*")] == [name]


@pytest.mark.parametrize("text", ["", "[]", "{}", "not json"])
def test_a_foreign_manifest_is_not_touched(tmp_path, text):
    (tmp_path / "rendered.json").write_text(text)
    with pytest.raises(UserError, match="not a manifest"):
        render(tmp_path, train=1, val=1, height=32, width=64)
    assert (tmp_path / "rendered.json").read_text() == text


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "set").write_text("")
    with pytest.raises(UserError, match="is a file"):
        render(tmp_path / "set", train=1, val=1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (dict(train=-1), "train is -1"),
        (dict(val=1.5), "val is 1.5"),
        (dict(height=31), "height is 31"),
        (dict(width=0), "width is 0"),
        (dict(seed=-1), "seed is -1"),
        (dict(workers=0), "workers is 0"),
    ],
)
def test_bad_arguments_are_named(tmp_path, change, named):
    with pytest.raises(UserError, match=named):
        render(tmp_path / "set", **{**SMALL, **change})
    assert not (tmp_path / "set").exists()


def test_a_bar_is_drawn_on_a_terminal_alone_and_never_on_stdout(tmp_path, capsys, monkeypatch):
    arguments = dict(train=1, val=0, height=32, width=64, workers=1, progress=True)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    render(tmp_path / "log", **arguments)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then treats any stream as a terminal
    render(tmp_path / "terminal", **arguments)
    captured = capsys.readouterr()
    assert "Rendering to" in captured.err and captured.out == ""


def test_the_official_evaluator_accepts_the_tree(small_set):
    """Ground truth as the prediction: IoU 1 for every class that occurs, pixel by pixel and by instance."""
    evaluator = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    arguments = evaluator.args
    truths = sorted(str(path) for path in small_set.glob("gtFine/*/*/*_gtFine_labelIds.png"))
    assert len(truths) == 5
    saved = dict(vars(arguments))
    try:
        arguments.quiet, arguments.JSONOutput = True, False
        # The evaluator's instance scores call a function that NumPy 2.4 removed.
        arguments.evalInstLevelScore = hasattr(np, "in1d")
        results = evaluator.evaluateImgLists(truths, truths, arguments)
    finally:
        vars(arguments).clear()
        vars(arguments).update(saved)

    ids = np.unique(np.concatenate([read(path).ravel() for path in truths]))
    present = {LABELS[i].name for i in ids if LABELS[i].train_id != 255}
    assert len(present) >= 16
    scores = {name: score for name, score in results["classScores"].items() if not np.isnan(score)}
    assert scores == {name: 1.0 for name in present}
    if hasattr(np, "in1d"):
        instance_scores = {n: s for n, s in results["classInstScores"].items() if not np.isnan(s)}
        assert instance_scores and set(instance_scores.values()) == {1.0}
