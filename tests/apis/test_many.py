"""Many pictures from files to files: labels as one by one, whatever is finished, fails or differs."""

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from danseg import apis
from danseg.apis import many
from danseg.apis.batches import Batches
from danseg.apis.finished import Record
from danseg.apis.many import BatchJob, predict_one_by_one
from danseg.apis.outputs import Kinds, Writer, asked_kinds
from danseg.apis.predict import InputPipeline
from danseg.apis.sources import VIDEO, Source, find_sources
from danseg.apis.tally import Progress
from danseg.errors import UserError
from danseg.segmentors import predict_labels
from danseg.visualization import overlay, read_image, read_labels
from full_disk import full_disk


@pytest.fixture
def model(near_sighted):
    return near_sighted()


@pytest.fixture
def pictures(tmp_path):
    """Seven pictures of two sizes, in two folders."""
    rng = np.random.default_rng(0)
    for number in range(7):
        path = tmp_path / "in" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (40, 56) if number in (1, 4) else (48, 80)
        coarse = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(path), cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC))
    return tmp_path / "in"


def predict(model, folder, out, *, kinds=None, wanted=None, size=None, workers=2):
    """Predict the pictures of a folder; returns the tally and the sizes of the batches."""
    sources = find_sources([str(folder)], out).sources
    kinds = kinds or asked_kinds(None, False, False)
    pipeline = InputPipeline(model)
    batches = Batches(model, pipeline, size=size, probabilities="probabilities" in kinds.pictures)
    seen, labels = [], batches.labels
    batches.labels = lambda samples: seen.append(len(samples)) or labels(samples)
    out.mkdir(exist_ok=True)
    wanted = {one.name for one in sources} if wanted is None else wanted
    progress = Progress(Record(out, {}), len(wanted))
    writer = Writer(model, pipeline.loader, out, kinds.pictures)
    BatchJob(batches, writer, kinds, progress, workers).carry_out(sources, wanted)
    return progress.tally, seen


@pytest.mark.parametrize("size", [None, 1, 3])
def test_labels_and_overlays_are_those_of_one_by_one(model, pictures, tmp_path, size):
    tally, batches = predict(model, pictures, tmp_path / "out", size=size)
    assert tally.predicted == 7 and not tally.failures
    # In order: a/0 a/2 a/4 | a/6 b/1 b/3 | b/5, of which 4 and 1 are smaller.
    assert batches == {None: [5, 2], 1: [1] * 7, 3: [2, 1, 2, 1, 1]}[size]
    palette = model.dataset_meta["palette"]
    different = total = 0
    for path in sorted(pictures.rglob("*.png")):
        labels = apis.predict(model, path)
        name = path.relative_to(pictures).with_suffix("")
        found = read_labels(tmp_path / "out" / f"{name}_labels.png")
        different, total = different + (found != labels).sum(), total + labels.size
        expected = overlay(read_image(path), found, palette)
        assert (read_image(tmp_path / "out" / f"{name}_overlay.png") == expected).all()
        assert len(np.unique(labels)) > 1
    # A kernel for one picture may round otherwise than that for several: then a tie may go another way.
    assert different <= (0 if size == 1 else 1e-4 * total)


def test_files_do_not_depend_on_what_is_finished(model, pictures, tmp_path):
    whole, half = tmp_path / "whole", tmp_path / "half"
    predict(model, pictures, whole, size=3)
    _, batches = predict(model, pictures, half, size=3, wanted={"b/3"})
    assert batches == [2]  # with a/6, which is not written
    assert sorted(path.name for path in half.rglob("*.png")) == ["3_labels.png", "3_overlay.png"]
    _, batches = predict(model, pictures, half, size=3, wanted={"a/0", "a/2", "a/4", "a/6", "b/1", "b/5"})
    assert batches == [2, 1, 2, 1, 1]
    for path in whole.rglob("*.png"):
        assert (half / path.relative_to(whole)).read_bytes() == path.read_bytes()


def test_bad_pictures_are_named_and_the_others_predicted(model, pictures, tmp_path, capsys):
    (pictures / "text.png").write_text("no picture")
    (pictures / "empty.jpg").touch()
    (pictures / "cut.png").write_bytes((pictures / "a" / "0.png").read_bytes()[:-30])
    cv2.imwrite(str(pictures / "deep.png"), np.full((8, 8, 3), 4000, np.uint16))
    (pictures / "gone.png").symlink_to("nowhere")
    header = (pictures / "a" / "0.png").read_bytes()
    (pictures / "bomb.png").write_bytes(header[:16] + (10**6).to_bytes(4, "big") * 2 + header[24:])
    tally, _ = predict(model, pictures, tmp_path / "out")
    assert tally.predicted == 7
    bad = ("bomb.png", "cut.png", "deep.png", "empty.jpg", "gone.png", "text.png")
    assert len(tally.failures) == len(bad)
    said = capsys.readouterr().err
    for name, message in zip(bad, tally.failures, strict=True):
        assert f"image {pictures / name} cannot be read" in message and f"skipped: {message}" in said


def test_sizes_that_the_network_refuses_are_named(model, pictures, tmp_path, monkeypatch):
    def picky(model, inputs, data_samples):
        if inputs.shape[2] == 40:
            raise RuntimeError("no such size")
        return predict_labels(model, inputs, data_samples)

    monkeypatch.setattr("danseg.apis.batches.predict_labels", picky)
    tally, _ = predict(model, pictures, tmp_path / "out")
    assert tally.predicted == 5
    said = "the network cannot take it: no such size"
    assert tally.failures == [f"image {pictures / name}: {said}" for name in ("a/4.png", "b/1.png")]


def test_a_step_that_fails_names_the_picture(model, pictures, tmp_path, monkeypatch):
    prepared = InputPipeline.prepared

    def failing(self, loaded, image):
        if str(image).endswith("3.png"):
            raise KeyError("scale")
        return prepared(self, loaded, image)

    monkeypatch.setattr(InputPipeline, "prepared", failing)
    tally, _ = predict(model, pictures, tmp_path / "out")
    assert tally.predicted == 6
    assert tally.failures == [
        f"image {pictures / 'b/3.png'}: the test pipeline fails on it: KeyError: 'scale'"
    ]


def test_a_full_disk_ends_all_with_one_message(model, pictures, tmp_path):
    with full_disk(), pytest.raises(UserError, match="cannot write .*_labels.png: File too large"):
        predict(model, pictures, tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_name_that_is_too_long_ends_nothing(model, pictures, tmp_path):
    (pictures / "a" / "0.png").rename(pictures / "a" / f"{'0' * 240}.png")
    tally, _ = predict(model, pictures, tmp_path / "out")
    assert tally.predicted == 6
    [message] = tally.failures
    assert "File name too long" in message


@pytest.mark.parametrize("name", ["cannot be written", "cannot x"])
def test_no_words_in_a_name_end_all(model, pictures, tmp_path, name):
    (pictures / f"{name}.png").write_text("no picture")
    (pictures / "a" / "0.png").rename(pictures / "a" / f"{name}.png")
    tally, _ = predict(model, pictures, tmp_path / "out")
    assert tally.predicted == 7
    [message] = tally.failures
    assert f"{name}.png cannot be read" in message


def test_a_file_in_the_place_of_a_folder_ends_nothing(model, pictures, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b").write_text("a user's")
    tally, _ = predict(model, pictures, tmp_path / "out")
    assert tally.predicted == 4 and len(tally.failures) == 3
    assert all(
        f"cannot make the folder {tmp_path / 'out' / 'b'}: File exists" in one for one in tally.failures
    )


def test_too_little_memory_ends_all(model, pictures, tmp_path, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("danseg.apis.batches.predict_labels", full)
    with pytest.raises(UserError, match="more memory than the GPU has"):
        predict(model, pictures, tmp_path / "out")


def test_what_is_whole_when_a_run_is_stopped_is_finished(model, pictures, tmp_path, monkeypatch):
    labels, calls = many.Batches.labels, []

    def interrupted(self, samples):
        calls.append(len(samples))
        if len(calls) == 3:
            until = time.monotonic() + 20
            while len(list((tmp_path / "out").rglob("[02]_*.png"))) < 4 and time.monotonic() < until:
                time.sleep(0.01)  # the threads write
            raise KeyboardInterrupt
        return labels(self, samples)

    monkeypatch.setattr(many.Batches, "labels", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict(model, pictures, tmp_path / "out", size=2)
    record = Record(tmp_path / "out", {})
    record.read()
    sources = find_sources([str(pictures)], tmp_path / "out").sources
    finished = [one.name for one in sources if record.finished(one, ["trainIds", "overlay"])]
    assert finished == ["a/0", "a/2", "a/4"][: len(finished)] and len(finished) >= 2
    assert not list((tmp_path / "out").rglob("*.part"))


def test_large_pictures_go_one_by_one_unless_asked(model):
    batches = Batches(model, InputPipeline(model))

    def limit(height, width):
        return batches.limit(dict(inputs=torch.empty(3, height, width, device="meta")))

    assert [limit(48, 80), limit(360, 480), limit(1024, 2048), limit(4000, 6000)] == [16, 12, 1, 1]
    assert Batches(model, InputPipeline(model), size=40).limit(dict(inputs=torch.empty(3, 9, 9))) == 40


def test_one_by_one_reports_and_goes_on(tmp_path, pictures):
    sources = [*find_sources([str(pictures)], tmp_path / "out").sources, Source("x.mp4", "x", VIDEO)]
    (tmp_path / "out").mkdir()
    progress = Progress(Record(tmp_path / "out", {}), len(sources))

    def work(source):
        if source.name == "a/2":
            raise UserError("image a/2 cannot be read")
        path = tmp_path / "out" / Path(source.name).name
        path.touch()
        return dict(geotiff=[path])

    predict_one_by_one(progress, sources, work)
    assert progress.tally.predicted == 6 and progress.tally.failures == [
        "image a/2 cannot be read",
        "video x.mp4: --tiles and --attention are for images",
    ]


def test_kinds_are_those_asked_for():
    assert asked_kinds(None, False, False) == Kinds(("trainIds", "overlay"), ("overlay",))
    assert asked_kinds([], False, False) == Kinds(("trainIds",), ("trainIds",))
    assert asked_kinds(["palette", "geotiff"], True, True).pictures == (
        *("palette", "geotiff"),
        *("overlay", "probabilities"),
    )
