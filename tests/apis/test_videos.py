"""Videos and cameras: every frame, at its rate, or one message."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from danseg import apis
from danseg.apis import videos
from danseg.apis.batches import Batches
from danseg.apis.finished import Record
from danseg.apis.outputs import Kinds, Writer
from danseg.apis.predict import InputPipeline
from danseg.apis.sources import CAMERA, VIDEO, Source
from danseg.apis.tally import Progress
from danseg.errors import UserError
from danseg.visualization import overlay, read_labels
from full_disk import full_disk

FRAMES, RATE = 11, 12.5


@pytest.fixture
def model(near_sighted):
    return near_sighted()


def record_video(path, frames=FRAMES, size=(48, 80), codec="MJPG"):
    """Moving coarse colours."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), RATE, size[::-1])
    for number in range(frames):
        writer.write(np.roll(picture, 3 * number, axis=1))
    writer.release()
    return path


def frames_of(path):
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


def predict(model, source, out, kinds=("overlay",), size=4):
    out.mkdir(exist_ok=True)
    pipeline = InputPipeline(model)
    progress = Progress(Record(out, {}), 1)
    batches = Batches(model, pipeline, size=size, probabilities="probabilities" in kinds)
    writer = Writer(model, pipeline.loader, out, kinds)
    with ThreadPoolExecutor(2) as pool:
        videos.predict_video(source, batches, writer, Kinds(kinds, kinds), progress, pool, ahead=3)
    return progress


def test_a_video_becomes_a_video_of_the_same_frames_and_rate(model, tmp_path):
    path = record_video(tmp_path / "drive.avi")
    source = Source(str(path), "sub/drive", VIDEO)
    kinds = ("trainIds", "overlay", "probabilities")
    progress = predict(model, source, tmp_path / "out", kinds)
    given, _ = frames_of(path)
    shown, rate = frames_of(tmp_path / "out" / "sub" / "drive_overlay.mp4")
    assert (len(given), len(shown), rate) == (FRAMES, FRAMES, RATE)
    assert progress.tally.predicted == 1 and len(progress.tally.written) == 2 * FRAMES + 1
    for number, (frame, drawn) in enumerate(zip(given, shown, strict=True)):
        rgb = frame[..., ::-1]
        stem = tmp_path / "out" / "sub" / "drive" / f"{number:06}"
        labels = read_labels(f"{stem}_labels.png")
        assert (labels != apis.predict(model, rgb)).mean() < 1e-3 and len(np.unique(labels)) > 1
        scores = np.load(f"{stem}_probabilities.npy").astype(np.float32)
        assert (scores.argmax(0) == labels).mean() > 0.99
        # MPEG-4 loses a little; of another frame it would be far more.
        expected = overlay(rgb, labels, model.dataset_meta["palette"])[..., ::-1]
        assert cv2.absdiff(drawn, expected).mean() < 12
    progress.record.read()
    assert progress.record.finished(source, kinds)


def test_a_frame_of_odd_sides_is_shown_whole(model, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        odd = [np.full((49, 81, 3), 10 * number, np.uint8) for number in range(3)]
        patch.setattr(videos.Capture, "__iter__", lambda self: iter(odd))
        path = record_video(tmp_path / "x.avi")
        predict(model, Source(str(path), "x", VIDEO), tmp_path / "out")
    shown, _ = frames_of(tmp_path / "out" / "x_overlay.mp4")
    assert [frame.shape for frame in shown] == [(50, 82, 3)] * 3


def damaged(path, how):
    if how == "gone":
        path.unlink()
    elif how == "text":
        path.write_text("no video")
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("gone", "cannot be read: it does not exist"),
        ("text", "cannot be read: it is none that OpenCV decodes"),
        ("empty", "cannot be read: it is none that OpenCV decodes"),
        ("half", r"breaks off after \d+ of 40 frames"),
    ],
)
def test_a_damaged_video_is_one_message_and_leaves_nothing(model, tmp_path, how, says):
    path = record_video(tmp_path / "x.avi", frames=40)
    damaged(path, how)
    progress = predict(model, Source(str(path), "x", VIDEO), tmp_path / "out", ("trainIds", "overlay"))
    [message] = progress.tally.failures
    with pytest.raises(UserError, match=f"video {path} {says}"):
        raise UserError(message)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_full_disk_is_noticed_when_the_video_is_read_again(model, tmp_path):
    path = record_video(tmp_path / "x.avi", frames=40)
    with full_disk(2000), pytest.raises(UserError, match="cannot write .*x_overlay.mp4"):
        predict(model, Source(str(path), "x", VIDEO), tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_camera_is_read_by_its_number_until_it_ends(model, tmp_path, monkeypatch):
    path, asked, capture = record_video(tmp_path / "x.avi"), [], cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda what: opened(what))

    def opened(what):
        asked.append(what)
        return capture(str(path)) if what == 3 else capture(what)

    progress = predict(model, Source("3", "camera_3", CAMERA), tmp_path / "out")
    assert asked[0] == 3 and not progress.tally.failures
    assert len(frames_of(tmp_path / "out" / "camera_3_overlay.mp4")[0]) == FRAMES


def test_ctrl_c_ends_a_camera_and_keeps_its_video(model, tmp_path, monkeypatch):
    path, capture = record_video(tmp_path / "x.avi"), cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda what: capture(str(path) if what == 0 else what))
    labels, calls = Batches.labels, []

    def interrupted(self, samples):
        if not calls:
            os.kill(os.getpid(), signal.SIGINT)
        calls.append(len(samples))
        return labels(self, samples)

    monkeypatch.setattr(Batches, "labels", interrupted)
    before = signal.getsignal(signal.SIGINT)
    progress = predict(model, Source("0", "camera_0", CAMERA), tmp_path / "out")
    assert progress.tally.predicted == 1 and sum(calls) < FRAMES
    assert len(frames_of(tmp_path / "out" / "camera_0_overlay.mp4")[0]) == sum(calls)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_camera_that_is_not_there_is_named(model, tmp_path):
    progress = predict(model, Source("63", "camera_63", CAMERA), tmp_path / "out")
    [message] = progress.tally.failures
    assert message.startswith("camera 63 cannot be opened: it is not there")
