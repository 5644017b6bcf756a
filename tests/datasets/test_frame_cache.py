"""The cache of unpacked frames: it is used if it is valid, and never if it is not."""

import json
import os
import shutil
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from danseg.datasets import LoadTrainingCrop, frame_cache
from danseg.datasets.frame_cache import CacheReport, find_cache, forget_caches, write_cache
from danseg.errors import UserError

FRAMES = 3


@pytest.fixture
def root(tmp_path) -> Path:
    """A data set of three frames, one a JPEG."""
    rng = np.random.default_rng(0)
    for folder in ("train", "trainannot"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    for k in range(FRAMES):
        image, label = rng.integers(0, 256, (40, 60, 3), np.uint8), rng.integers(0, 9, (40, 60), np.uint8)
        Image.fromarray(image).save(tmp_path / "set/train" / (f"{k}.jpg" if k == 2 else f"{k}.png"))
        Image.fromarray(label).save(tmp_path / "set/trainannot" / f"{k}.png")
    yield tmp_path / "set"
    forget_caches()


def paths(root: Path) -> tuple[list[str], list[str]]:
    return [
        sorted(str(path) for path in (root / name).iterdir() if not path.name.startswith("."))
        for name in ("train", "trainannot")
    ]


def write(root: Path) -> CacheReport:
    return write_cache(root, *paths(root), progress=False)


def samples(root: Path, **options) -> list[dict]:
    forget_caches()
    transform = LoadTrainingCrop(scale=(60, 40), crop_size=(20, 30), **options)
    made = []
    for seed, (image, label) in enumerate(zip(*paths(root), strict=True)):
        np.random.seed(seed)
        made.append(transform(dict(img_path=image, seg_map_path=label, seg_fields=[])))
    return made


def assert_same(one: list[dict], other: list[dict]) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a["img"], b["img"])
        np.testing.assert_array_equal(a["gt_seg_map"], b["gt_seg_map"])
        assert (a["ori_shape"], a["img_shape"], a["flip"]) == (b["ori_shape"], b["img_shape"], b["flip"])


def array(root: Path, name: str) -> Path:
    return root / "danseg_cache" / f"{name}.npy"


# --- a valid cache is used ------------------------------------------------------------------------------


def test_samples_from_the_cache_are_those_from_the_files(root, monkeypatch):
    expected = samples(root)
    report = write(root)
    assert (report.frames, report.written, report.size) == (6, 6, 3 * 40 * 60 * 4 + 6 * 128)
    assert "6 unpacked images and labels" in str(report) and "(6 written now, 0 up to date)" in str(report)

    def refuse(*args, **kwargs):
        raise AssertionError("decoded in spite of the cache")

    module = "danseg.datasets.transforms.load_training_crop"
    monkeypatch.setattr(f"{module}.decode_image_rows", refuse)
    monkeypatch.setattr(f"{module}.decode_label_map", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(samples(root), expected)
    with pytest.raises(AssertionError, match="decoded"):
        samples(root, cache=False)


def test_the_format_is_the_documented_one(root):
    write(root)
    index = json.loads((root / "danseg_cache/index.json").read_text())
    assert index["format"] == 1 and len(index["files"]) == 6
    entry = index["files"]["train/0.png"]
    source = root / "train/0.png"
    assert entry["bytes"] == source.stat().st_size and entry["mtime_ns"] == source.stat().st_mtime_ns
    assert entry["shape"] == [40, 60, 3] and len(entry["sha256"]) == 64
    np.testing.assert_array_equal(np.load(array(root, "train/0.png")), np.array(Image.open(source)))
    label = np.array(Image.open(root / "trainannot/1.png"))
    np.testing.assert_array_equal(np.load(array(root, "trainannot/1.png")), label)


def test_a_second_call_writes_nothing_and_a_third_only_what_is_new(root):
    write(root)
    before = {path: path.stat().st_mtime_ns for path in (root / "danseg_cache").rglob("*.npy")}
    assert write(root).written == 0
    assert before == {path: path.stat().st_mtime_ns for path in (root / "danseg_cache").rglob("*.npy")}
    for folder in ("train", "trainannot"):
        shutil.copy(root / folder / "0.png", root / folder / "7.png")
    report = write(root)
    assert (report.frames, report.written) == (8, 2)
    for folder in ("train", "trainannot"):
        (root / folder / "7.png").unlink()
    assert write(root).frames == 6
    assert not array(root, "train/7.png").exists()  # a frame without a source is deleted


def test_an_interrupted_call_leaves_what_it_had_and_the_next_goes_on(root, monkeypatch):
    unpack = frame_cache._unpack

    def stop(path, *rest):
        if path.endswith("trainannot/1.png"):
            raise KeyboardInterrupt
        return unpack(path, *rest)

    monkeypatch.setattr(frame_cache, "_unpack", stop)
    with pytest.raises(KeyboardInterrupt):
        write(root)
    monkeypatch.setattr(frame_cache, "_unpack", unpack)
    done = len(json.loads((root / "danseg_cache/index.json").read_text())["files"])
    assert done < 6
    assert not list((root / "danseg_cache").rglob("*.part*"))
    with pytest.warns(UserWarning, match="it lacks train"):
        assert_same(samples(root), samples(root, cache=False))
    report = write(root)
    assert (report.frames, report.written) == (6, 6 - done)


def test_files_that_were_copied_or_touched_are_taken_as_unchanged(root):
    expected = samples(root)
    write(root)
    for path in (path for kind in paths(root) for path in kind):
        os.utime(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(samples(root), expected)


# --- an invalid cache is not used -----------------------------------------------------------------------


@pytest.mark.parametrize("keep_size", [False, True])
@pytest.mark.parametrize("name", ["train/1.png", "trainannot/1.png"])
def test_a_source_that_changed_is_used_itself(root, name, keep_size):
    write(root)
    path = root / name
    pixels = 255 - np.array(Image.open(path))
    if keep_size:  # one bit of a pixel; the size stays the same
        pixels = 255 - pixels
        pixels.flat[0] ^= 1
        data = path.read_bytes()
        Image.fromarray(pixels).save(path, compress_level=0)
        write(root)
        stored = path.stat().st_size
        pixels.flat[0] ^= 1
        Image.fromarray(pixels).save(path, compress_level=0)
        assert path.stat().st_size == stored and path.read_bytes() != data
    else:
        Image.fromarray(pixels).save(path)
    with pytest.warns(UserWarning) as told:
        got = samples(root)
    assert_same(got, samples(root, cache=False))
    assert len(told) == 1
    assert f"{path} has changed since" in str(told[0].message)
    assert "tools/prepare_dataset.py ... --cache" in str(told[0].message)
    assert write(root).written == 1  # renewed: only what changed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(samples(root), got)


def test_another_size_tells_a_change_even_if_the_time_does_not(root):
    write(root)
    path = root / "train/0.png"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    Image.new("RGB", (60, 40), (1, 2, 3)).save(path)
    os.utime(path, ns=times)
    with pytest.warns(UserWarning, match="has changed since"):
        assert_same(samples(root), samples(root, cache=False))
    assert write(root).written == 1


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def overwrite(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)


def reshape(path: Path) -> None:
    np.save(path, np.load(path)[::2])


@pytest.mark.parametrize("damage", [cut, overwrite, reshape, Path.unlink])
def test_a_damaged_array_is_not_used(root, damage):
    write(root)
    damage(array(root, "train/0.png"))
    with pytest.warns(UserWarning, match=r"train/0\.png\.npy (cannot be read|holds uint8)"):
        assert_same(samples(root), samples(root, cache=False))
    if damage is not overwrite:  # only reading the whole file would show it
        assert write(root).written == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"format": 1, "files": {"train/0.png"', "index.json is damaged"),
        ('{"format": 2, "files": {}}', "has format 2, this danseg reads format 1"),
        ('{"format": 1, "files": {"train/0.png": {"bytes": 3}}}', "format"),
        ("[]", "index.json is damaged"),
    ],
)
def test_an_index_that_cannot_be_read_is_said_once_and_written_anew(root, text, words):
    expected = samples(root)
    write(root)
    (root / "danseg_cache/index.json").write_text(text)
    with pytest.warns(UserWarning, match=words) as told:
        assert_same(samples(root), expected)
    assert len(told) == 1
    assert write(root).written == 6


def test_a_cache_serves_its_own_data_set_alone(root, tmp_path):
    write(root)
    shutil.copytree(root / "train", tmp_path / "other/train")
    assert find_cache(str(tmp_path / "other/train/0.png")) is None
    assert find_cache(str(root / "train/0.png")).root == root


# --- a cache that cannot be written ---------------------------------------------------------------------


def test_a_disk_without_room_is_refused_before_anything_is_written(root, monkeypatch):
    monkeypatch.setattr(frame_cache.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 28_000))
    with pytest.raises(UserError, match=r"a cache of 6 more images and labels needs 0\.00 GiB .* are free"):
        write(root)
    assert not (root / "danseg_cache").exists()
    monkeypatch.setattr(frame_cache.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 30_000))
    assert write(root).written == 6


def test_a_damaged_source_is_named(root):
    path = root / "train/1.png"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"train/1\.png cannot be unpacked: .*copy or download it again"):
        write(root)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"train/1\.png cannot be read"):
        write(root)


@pytest.mark.parametrize("what", ["turned", "deep"])
def test_a_source_that_training_would_refuse_is_not_unpacked(root, what):
    path = root / "train" / "1.png"
    if what == "turned":
        exif = Image.Exif()
        exif[0x0112] = 3
        with Image.open(path) as image:
            image.save(path, exif=exif)
    else:
        cv2.imwrite(str(path), np.full((64, 128, 3), 4000, np.uint16))
    words = dict(turned="orientation 3.*exif_transpose", deep="cut to 8 bits")[what]
    with pytest.raises(UserError, match=rf"train/1\.png cannot be unpacked: .*{words}"):
        write(root)


def test_frames_outside_the_root_are_refused(root, tmp_path):
    stranger = tmp_path / "stranger.png"
    shutil.copy(root / "train/0.png", stranger)
    with pytest.raises(UserError, match=r"stranger\.png is not below .*set"):
        write_cache(root, [str(stranger)], [], progress=False)


def test_a_place_that_cannot_be_written_to_is_named(root):
    (root / "danseg_cache").write_text("in the way")
    with pytest.raises(UserError, match="danseg_cache"):
        write(root)
