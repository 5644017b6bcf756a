"""Every kind of damaged or misplaced data is named before it can do harm."""

import io
import os
import shlex

import cv2
import numpy as np
import pytest
from mmseg.registry import DATASETS
from PIL import Image

from danseg.datasets import check, check_contents
from danseg.datasets.check import check_dataset
from danseg.datasets.check_report import merged
from danseg.errors import UserError
from danseg.known_datasets import KNOWN_DATASETS

SIZE = (6, 8)  # height, width


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Give each test its own cache, so that it sees neither another test's nor the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def save(path, pixels: np.ndarray, **kwargs) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **kwargs)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def cityscapes(tmp_path):
    """Three training frames of 19 classes and 255."""
    root = tmp_path / "cityscapes"
    ids = np.resize(np.append(np.arange(19), 255), SIZE).astype(np.uint8)
    for k in range(3):
        save(root / f"leftImg8bit/train/aachen/aachen_{k:06d}_000019_leftImg8bit.png", noise(*SIZE, 3))
        save(root / f"gtFine/train/aachen/aachen_{k:06d}_000019_gtFine_labelTrainIds.png", ids)
    return root


def config(root, **kwargs) -> dict:
    prefix = dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train")
    return dict(type="CityscapesDataset", data_root=str(root), data_prefix=prefix, **kwargs)


def image(root, k: int = 1):
    return root / f"leftImg8bit/train/aachen/aachen_{k:06d}_000019_leftImg8bit.png"


def label(root, k: int = 1):
    return root / f"gtFine/train/aachen/aachen_{k:06d}_000019_gtFine_labelTrainIds.png"


def message(root, num_classes: int = 19, **kwargs) -> str:
    """The message of the error that checking the Cityscapes tree raises."""
    with pytest.raises(UserError) as error:
        check_dataset(config(root), num_classes, split_name="train", progress=False, **kwargs)
    return str(error.value)


def passes(root, **kwargs) -> check.DatasetReport:
    return check_dataset(config(root), 19, split_name="train", progress=False, **kwargs)


# --- what is good ---------------------------------------------------------------------------------------


def test_report(cityscapes):
    report = passes(cityscapes)
    assert (report.images, report.labels, report.sizes) == (3, 3, {SIZE: 3})
    # 48 pixels an image: ids 0 to 18 and 255, over and over.
    expected = np.bincount(np.resize(np.append(np.arange(19), 19), 48), minlength=20) * 3
    assert report.pixels == expected[:19].tolist()
    assert report.images_with == [3] * 19 == passes(cityscapes).images_with  # counted, then remembered
    assert merged([passes(cityscapes), passes(cityscapes)]).images_with == [6] * 19
    assert report.ignored == expected[19]
    assert report.absent == [] and report.warnings == []
    text = str(report)
    assert "3 images with labels" in text and str(cityscapes) in text and "6x8 (3)" in text
    assert "road 6.52%" in text  # 9 of 138 labelled pixels


def test_absent_classes_are_told(cityscapes):
    for k in range(3):
        save(label(cityscapes, k), np.resize(np.array([13, 14], np.uint8), SIZE))
    report = passes(cityscapes)
    assert report.absent == [name for name in report.classes if name not in ("car", "truck")]
    assert "absent: road" in str(report)


def test_wrappers(cityscapes):
    one = config(cityscapes, pipeline=[dict(type="LoadImageFromFile")])
    repeated = dict(type="RepeatDataset", times=5, dataset=one)
    report = check_dataset(repeated, 19, split_name="train", progress=False)
    assert report.images == 3
    both = dict(type="ConcatDataset", datasets=[one, repeated])
    report = check_dataset(both, 19, split_name="train", progress=False)
    assert report.images == 6 and report.sizes == {SIZE: 6} and sum(report.pixels) == 2 * 138
    assert "pipeline" in one  # the caller's config is not changed


def test_rendered_set(rendered_root):
    report = passes(rendered_root)
    assert report.images == 6 and report.sizes == {(64, 128): 6}


def test_palette_and_one_bit_labels_are_ids(cityscapes):
    indexed = Image.fromarray(np.resize(np.arange(19), SIZE).astype(np.uint8), mode="P")
    indexed.putpalette(list(range(256)) * 3)
    indexed.save(label(cityscapes, 0))
    Image.fromarray(np.eye(*SIZE, dtype=bool)).save(label(cityscapes, 1))
    report = passes(cityscapes)
    assert report.pixels[1] > 0


def test_jpegs_of_which_a_decoder_warns_are_told_now_and_later(tmp_path):
    pytest.importorskip("kornia_rs")
    dataset = dict(with_ids(tmp_path, 0, 1), img_suffix=".jpg")
    picture = tmp_path / "images" / "a.jpg"
    save(picture, noise(*SIZE, 3), quality=90)
    assert checked(dataset).warnings == []
    data = picture.read_bytes()
    picture.write_bytes(data[:-2] + bytes(20) + data[-2:])
    for cached in (False, True):
        report = checked(dataset)
        assert report.cached is cached
        assert [f"1 JPEGs have errors in their data, over which decoders guess: {picture}"] == [
            one.partition(";")[0] for one in report.warnings
        ]


def test_a_split_without_labels(cityscapes):
    for k in range(3):
        label(cityscapes, k).unlink()
    report = passes(cityscapes, with_labels=False)
    assert (report.images, report.labels, report.absent) == (3, 0, [])
    assert "3 images without labels" in str(report)


# --- labels that leave nothing to learn, or to score -------------------------------------------------------


def with_ids(root, *ids: int, kind: str = "BaseSegDataset", **arguments) -> dict:
    """A data set of one frame of two classes, whose label holds ``ids``, once each and then the last."""
    save(root / "images" / "a.png", noise(*SIZE, 3))
    flat = np.full(SIZE[0] * SIZE[1], ids[-1], np.uint8)
    flat[: len(ids)] = ids
    save(root / "labels" / "a.png", flat.reshape(SIZE))
    prefix = dict(img_path="images", seg_map_path="labels")
    common = dict(data_root=str(root), data_prefix=prefix, img_suffix=".png")
    return dict(type=kind, **common, **{"metainfo": dict(classes=("land", "water")), **arguments})


def checked(dataset: dict, num_classes: int = 2, split: str = "train") -> check.DatasetReport:
    return check_dataset(dataset, num_classes, split_name=split, progress=False)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_mask_of_0_and_255_is_refused_until_its_ids_are_told(tmp_path, split):
    with pytest.raises(UserError, match=r"0 and 255 alone.*FolderDataset.*label_ids=\(0, 255\)"):
        checked(with_ids(tmp_path, 0, 255), split=split)
    with pytest.raises(UserError, match="0 and 255 alone"):  # the second time the files are known
        checked(with_ids(tmp_path, 0, 255), split=split)
    report = checked(with_ids(tmp_path, 0, 255, kind="FolderDataset", label_ids=(0, 255)), split=split)
    assert report.pixels == [1, 47] and report.ignored == 0
    report = checked(with_ids(tmp_path, 0, 255, kind="FolderDataset", label_ids=(255, 0)), split=split)
    assert report.pixels == [47, 1] and report.ignored == 0
    assert checked(with_ids(tmp_path, 0, 1, 255), split=split).pixels == [1, 1]


@pytest.mark.parametrize("ids", [(1,), (0, 255)], ids=["one class", "one class and ignored pixels"])
def test_training_on_one_class_is_refused_and_validation_warns(tmp_path, ids):
    dataset = with_ids(tmp_path, *ids, metainfo=dict(classes=("land", "water", "ice")))
    name = "water" if ids == (1,) else "land"
    with pytest.raises(
        UserError, match=f"every labelled pixel of the train split .* is {name}, of 3 classes"
    ):
        checked(dataset, 3)
    [warning] = checked(dataset, 3, split="val").warnings
    assert f"is {name}, of 3 classes" in warning


def test_one_class_of_one_is_refused_too(tmp_path):
    with pytest.raises(UserError, match="nothing to learn"):
        checked(with_ids(tmp_path, 0, 255, metainfo=dict(classes=("water",))), 1)


def test_two_sets_of_one_class_each_are_one_of_two(tmp_path):
    both = [with_ids(tmp_path / "a", 0), with_ids(tmp_path / "b", 1)]
    assert checked(dict(type="ConcatDataset", datasets=both)).pixels == [48, 48]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("ids", "more"), [((255,), {}), ((0, 255), dict(reduce_zero_label=True)), ((7,), dict(ignore_index=7))]
)
def test_labels_without_any_class_are_refused(tmp_path, split, ids, more):
    with pytest.raises(UserError, match="not one pixel .* belongs to a class|0 and 255 alone"):
        checked(with_ids(tmp_path, *ids, **more), split=split)


@pytest.mark.parametrize("ids", [(0, 10, 20), (0, 127, 255), (1, 2, 3), (3, 7, 9, 255)])
def test_other_ids_are_refused_with_the_option_that_tells_them(tmp_path, ids):
    classes = dict(classes=("land", "water", "ice"))
    asked = ids[:3]
    with pytest.raises(UserError) as error:
        checked(with_ids(tmp_path, *ids, metainfo=classes), 3)
    assert f'type="FolderDataset", label_ids={asked}' in str(error.value) or "reduce_zero_label" in str(
        error.value
    )
    told = with_ids(tmp_path, *ids, metainfo=classes, kind="FolderDataset", label_ids=asked)
    assert sum(checked(told, 3).pixels) == 48 - 45 * (len(ids) == 4)


def test_ids_of_no_class_can_be_told(tmp_path):
    told = dict(kind="FolderDataset", label_ids=(0, 255))
    with pytest.raises(UserError, match=r"(?s)a\.png: 127 .*ids that mean no class in the latter"):
        checked(with_ids(tmp_path, 0, 127, 255, **told))
    report = checked(with_ids(tmp_path, 0, 127, 255, void_ids=(127,), **told))
    assert report.pixels == [1, 46] and report.ignored == 1


def test_ids_that_are_not_told_are_refused(tmp_path):
    told = dict(kind="FolderDataset", label_ids=(0, 255))
    with pytest.raises(
        UserError, match=r"(?s)labels with ids outside the classes.*a\.png: 1, 254 \(2 pixels\)"
    ):
        checked(with_ids(tmp_path, 1, 254, 0, 255, **told))


# --- what is missing ------------------------------------------------------------------------------------


def test_missing_set(tmp_path):
    text = message(tmp_path / "nowhere", prepare_command="python tools/prepare_dataset.py cityscapes X")
    assert str(tmp_path / "nowhere/leftImg8bit/train") in text
    assert str(tmp_path / "nowhere/gtFine/train") in text
    assert "python tools/prepare_dataset.py cityscapes X" in text


@pytest.mark.parametrize("record", KNOWN_DATASETS.values(), ids=lambda record: record.name)
def test_the_command_prepares_the_folder_that_is_missing(record, tmp_path):
    for root in (record.root, str(tmp_path / "a set")):
        with pytest.raises(UserError) as refused:
            check_dataset(
                record.config(root, "train"),
                len(record.classes),
                split_name="train",
                prepare_command=record.prepare_command(),
                progress=False,
            )
        [line] = [one for one in str(refused.value).splitlines() if one.startswith("Prepare it with: ")]
        arguments = shlex.split(line.removeprefix("Prepare it with: ").partition("   ")[0])
        assert (root in arguments) == (root != record.root or record.name == "cityscapes")


def test_missing_set_is_told_with_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path / "data/cityscapes/gtFine/train") in message("data/cityscapes")


def test_missing_frame_list(cityscapes):
    with pytest.raises(UserError, match="frames.txt"):
        check_dataset(config(cityscapes, ann_file="frames.txt"), 19, split_name="train", progress=False)


def test_empty_folder(cityscapes):
    for k in range(3):
        image(cityscapes, k).unlink()
    text = message(cityscapes, prepare_command="the command")
    assert "has no image" in text and "_leftImg8bit.png" in text and "empty" in text and "the command" in text


def test_files_of_another_suffix(cityscapes):
    with pytest.raises(UserError, match="such as aachen/aachen_000000_000019_leftImg8bit.png"):
        wrong = config(cityscapes, img_suffix=".tif")
        check_dataset(wrong, 19, split_name="train", progress=False)


def test_image_without_label(cityscapes):
    label(cityscapes).unlink()
    text = message(cityscapes)
    assert "images without a label: 1" in text and image(cityscapes).name in text
    assert image(cityscapes, 0).name not in text


def test_wrong_label_suffix_shows_what_is_there(cityscapes):
    with pytest.raises(UserError, match="files such as aachen/aachen_000000_000019_gtFine_labelTrainIds.png"):
        wrong = config(cityscapes, seg_map_suffix="_mask.png")
        check_dataset(wrong, 19, split_name="train", progress=False)


@pytest.mark.parametrize("source", ["labelIds.png", "polygons.json"])
def test_half_prepared(cityscapes, source):
    for k in range(3):
        path = label(cityscapes, k)
        path.rename(path.with_name(path.name.replace("labelTrainIds.png", source)))
    text = message(cityscapes, prepare_command="something else")
    assert "half prepared" in text and label(cityscapes).name in text
    assert f"python tools/prepare_dataset.py cityscapes {cityscapes}" in text


def test_a_label_without_its_image_is_no_smaller_set(cityscapes):
    image(cityscapes).unlink()
    text = message(cityscapes)
    assert f"labels without an image: 1\n    {label(cityscapes)}\n  add the images" in text
    (cityscapes / "frames.txt").write_text("aachen/aachen_000000_000019\naachen/aachen_000002_000019\n")
    chosen = config(cityscapes, ann_file="frames.txt")
    assert check_dataset(chosen, 19, split_name="train", progress=False).images == 2
    first = config(cityscapes, indices=1)
    assert check_dataset(first, 19, split_name="train", progress=False).images == 1


NO_FILES = {
    "it is a FIFO": os.mkfifo,
    "it is a folder": lambda path: path.mkdir(),
    "it is a link to lost.png, which does not exist": lambda path: path.symlink_to("lost.png"),
}


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("which", [image, label])
@pytest.mark.parametrize("why", NO_FILES)
def test_what_is_no_file_is_named_instead_of_left_out(cityscapes, why, which, listed):
    which(cityscapes).unlink()
    NO_FILES[why](which(cityscapes))
    frames = [f"aachen/aachen_{k:06d}_000019" for k in range(3)]
    (cityscapes / "frames.txt").write_text("\n".join(frames))
    chosen = config(cityscapes, **(dict(ann_file="frames.txt") if listed else {}))
    with pytest.raises(UserError) as error:
        check_dataset(chosen, 19, split_name="train", progress=False)
    assert f"{which(cityscapes)}: {why}\n" in str(error.value)
    assert "or remove what has their names" in str(error.value)


@pytest.mark.parametrize("why", NO_FILES)
@pytest.mark.parametrize("name", ["train/a.jpg", "train/b.png", "trainannot/b.png"])
def test_what_is_no_file_in_camvids_folders(camvid, why, name):
    (camvid / name).unlink()
    NO_FILES[why](camvid / name)
    with pytest.raises(UserError, match=f"{name}: {why}"):
        check_dataset(camvid_config(camvid), 11, split_name="train", progress=False)


def test_a_folder_that_cannot_be_read_is_named(cityscapes, monkeypatch):
    real = os.scandir

    def refuse(path):
        if str(path).endswith("train/aachen"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert "Permission denied" in message(cityscapes) and "train/aachen" in message(cityscapes)


def test_listed_frame_without_image(cityscapes):
    (cityscapes / "frames.txt").write_text("aachen/aachen_000000_000019\naachen/aachen_000077_000019\n")
    with pytest.raises(UserError, match="aachen_000077_000019_leftImg8bit.png"):
        listed = config(cityscapes, ann_file="frames.txt")
        check_dataset(listed, 19, split_name="train", progress=False)


# --- what is damaged ------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [image, label])
@pytest.mark.parametrize("keep", [0, 0.5, 0.9])
def test_truncated_png(cityscapes, which, keep):
    save(image(cityscapes), noise(64, 64, 3))
    save(label(cityscapes), noise(64, 64) % 19)
    path = which(cityscapes)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    text = message(cityscapes)
    assert "cannot be decoded: 1" in text and str(path) in text and "download" in text
    assert image(cityscapes, 0).name not in text


def test_truncated_jpeg(camvid):
    path = camvid / "train/a.jpg"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(UserError, match=r"cannot be decoded(.|\n)*train/a\.jpg"):
        check_dataset(camvid_config(camvid), 11, split_name="train", progress=False)


def test_file_that_is_no_image(cityscapes):
    image(cityscapes).write_text("<html>404</html>")
    assert f"{image(cityscapes)}: 16 bytes that are no image" in message(cityscapes)


def test_16_bit_colour_image(cityscapes):
    # Pillow reads such a file as 8 bits without a warning.
    cv2.imwrite(str(image(cityscapes)), noise(*SIZE, 3).astype(np.uint16) * 257)
    text = message(cityscapes)
    assert "more than 8 bits" in text and f"{image(cityscapes)}: its samples are uint16" in text
    assert "gdal_translate -ot Byte -scale" in text
    keeps = dict(config(cityscapes), pipeline=[dict(type="LoadImageFromFile", color_type="unchanged")])
    assert check_dataset(keeps, 19, split_name="train", progress=False).images == 3
    with pytest.raises(UserError, match="more than 8 bits"):  # the other config's pass is not this one's
        check_dataset(config(cityscapes), 19, split_name="train", progress=False)


def test_16_bit_label(cityscapes):
    save(label(cityscapes), np.full(SIZE, 5, np.uint16))
    assert f"{label(cityscapes)}: 16 bits" in message(cityscapes)


def test_label_of_another_size(cityscapes):
    save(label(cityscapes), np.zeros((SIZE[0], SIZE[1] + 1), np.uint8))
    text = message(cityscapes)
    assert "differ from their image in size" in text and f"{label(cityscapes)}: 6x9 instead of 6x8" in text


def test_label_of_colours(cityscapes):
    save(label(cityscapes), noise(*SIZE, 3))
    assert f"{label(cityscapes)}: RGB" in message(cityscapes)


def test_turned_jpeg(camvid):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(camvid / "train/a.jpg", noise(*SIZE, 3), exif=exif)
    with pytest.raises(UserError, match=r"EXIF orientation(.|\n)*train/a\.jpg: orientation 6"):
        check_dataset(camvid_config(camvid), 11, split_name="train", progress=False)


@pytest.mark.parametrize("color_type", ["color_ignore_orientation", "unchanged"])
def test_a_pipeline_that_turns_nothing_may_have_the_tag(camvid, color_type):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(camvid / "train/a.jpg", noise(*SIZE, 3), exif=exif)
    pipeline = [dict(type="LoadImageFromFile", color_type=color_type)]
    kept = dict(camvid_config(camvid), pipeline=pipeline)
    assert check_dataset(kept, 11, split_name="train", progress=False).sizes == {SIZE: 2}


@pytest.mark.parametrize("missing", [1, 4])
def test_a_png_without_its_end_is_damaged_as_for_training(cityscapes, missing):
    path = image(cityscapes)
    path.write_bytes(path.read_bytes()[:-missing])
    text = message(cityscapes)
    assert "cannot be decoded: 1" in text and f"{path}: a PNG that is cut short" in text


def test_bands_and_alpha_that_loading_would_lose_are_named(cityscapes):
    rasterio = pytest.importorskip("rasterio")
    for k, (count, options) in enumerate([(2, {}), (4, dict(photometric="rgb", ALPHA="YES"))]):
        profile = dict(driver="GTiff", count=count, height=SIZE[0], width=SIZE[1], dtype="uint8", **options)
        with rasterio.open(image(cityscapes, k), "w", **profile) as file:
            file.write(noise(count, *SIZE))
    text = message(cityscapes)
    assert "read some alone: 1" in text and f"{image(cityscapes, 0)}: a TIFF of 2 bands" in text
    assert "multiply their colours by: 1" in text and "without alpha" in text


@pytest.mark.parametrize("kind", ["PhotoMetricDistortion", "FastPhotoMetricDistortion"])
def test_colours_that_a_distortion_would_lose_are_named(cityscapes, kind):
    load, distort = dict(type="LoadImageFromFile", color_type="unchanged"), dict(type=kind)
    distorted = dict(config(cityscapes), pipeline=[load, distort])
    assert check_dataset(distorted, 19, split_name="train", progress=False).images == 3
    cv2.imwrite(str(image(cityscapes, 0)), noise(*SIZE, 3).astype(np.uint16) * 16)
    save(image(cityscapes, 1), noise(*SIZE))
    with pytest.raises(UserError) as error:
        check_dataset(distorted, 19, split_name="train", progress=False)
    text = str(error.value)
    assert "PhotoMetricDistortion cannot change or would cut to 0..255: 2" in text and "take it out" in text
    assert f"{image(cityscapes, 0)}: 6x8x3 of uint16" in text
    assert f"{image(cityscapes, 1)}: 6x8 of uint8" in text
    without = dict(config(cityscapes), pipeline=[load])
    assert check_dataset(without, 19, split_name="train", progress=False).images == 3


def test_images_that_another_step_loads_are_only_opened(cityscapes):
    from mmseg.registry import TRANSFORMS

    @TRANSFORMS.register_module(force=True)
    class NeedsTwoFiles:
        pass

    other = dict(config(cityscapes), pipeline=[dict(type="mmseg.NeedsTwoFiles")])
    assert check_dataset(other, 19, split_name="train", progress=False).sizes == {SIZE: 3}
    with pytest.raises(UserError, match="first step of the pipeline.*NoSuchStep"):
        wrong = dict(config(cityscapes), pipeline=[dict(type="NoSuchStep")])
        check_dataset(wrong, 19, split_name="train", progress=False)


def test_upright_exif_tag_is_fine(camvid):
    exif = Image.Exif()
    exif[0x0112] = 1
    save(camvid / "train/a.jpg", noise(*SIZE, 3), exif=exif)
    assert check_dataset(camvid_config(camvid), 11, split_name="train", progress=False).images == 2


def test_jpeg_label(cityscapes):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(buffer, format="JPEG")
    label(cityscapes).write_bytes(buffer.getvalue())
    text = message(cityscapes)
    assert "JPEG" in text and str(label(cityscapes)) in text


def test_many_offenders_are_counted_and_the_first_named(cityscapes):
    for k in range(8):
        save(image(cityscapes, k), noise(*SIZE, 3))
        label(cityscapes, k).write_bytes(b"")
    text = message(cityscapes)
    assert "cannot be decoded: 8, the first 5" in text
    assert [label(cityscapes, k).name in text for k in range(8)] == [True] * 5 + [False] * 3


def test_all_kinds_are_told_at_once(cityscapes):
    image(cityscapes, 0).write_bytes(b"")
    save(label(cityscapes, 1), np.full(SIZE, 77, np.uint8))
    text = message(cityscapes)
    assert "cannot be decoded" in text and "outside the classes" in text


# --- ids and classes ------------------------------------------------------------------------------------


def test_wrong_ids(cityscapes):
    ids = np.zeros(SIZE, np.uint8)
    ids[0, :4] = [30, 31, 32, 99]
    save(label(cityscapes), ids)
    text = message(cityscapes)
    assert f"{label(cityscapes)}: 30 to 32, 99 (4 pixels)" in text
    assert "allowed are 0 to 18, 255" in text


def test_label_ids_under_the_name_of_train_ids(cityscapes):
    save(label(cityscapes), np.full(SIZE, 26, np.uint8))
    assert f"python tools/prepare_dataset.py cityscapes {cityscapes}" in message(cityscapes)


def test_label_ids_by_suffix(cityscapes):
    for k in range(3):
        path = label(cityscapes, k)
        ids = np.full(SIZE, 26, np.uint8)
        save(path.with_name(path.name.replace("TrainIds", "Ids")), ids)
    with pytest.raises(UserError, match="_gtFine_labelTrainIds.png"):
        wrong = config(cityscapes, seg_map_suffix="_gtFine_labelIds.png")
        check_dataset(wrong, 19, split_name="train", progress=False)


@pytest.mark.parametrize("classes", [18, 25])
def test_number_of_classes(cityscapes, classes):
    text = message(cityscapes, num_classes=classes)
    assert f"{classes} classes" in text and "CityscapesDataset" in text and "19" in text


def test_unknown_dataset(cityscapes):
    wrong = dict(config(cityscapes), type="CityscapeDataset")
    with pytest.raises(UserError, match="CityscapeDataset"):
        check_dataset(wrong, 19, split_name="train", progress=False)


@pytest.fixture
def camvid(tmp_path):
    """A JPEG and a PNG frame with every label value from 0 to 11."""
    root = tmp_path / "camvid"
    for name in ("a.jpg", "b.png"):
        save(root / "train" / name, noise(*SIZE, 3))
        save(root / "trainannot" / f"{name[0]}.png", np.resize(np.arange(12), SIZE).astype(np.uint8))
    return root


def camvid_config(root) -> dict:
    prefix = dict(img_path="train", seg_map_path="trainannot")
    return dict(type="CamVidDataset", data_root=str(root), data_prefix=prefix)


def test_camvid_void_is_allowed_and_ignored(camvid):
    report = check_dataset(camvid_config(camvid), 11, split_name="train", progress=False)
    assert report.ignored == 8 and sum(report.pixels) == 88
    save(camvid / "trainannot/b.png", np.full(SIZE, 12, np.uint8))
    with pytest.raises(UserError, match=r"trainannot/b\.png: 12 \(48 pixels\)(.|\n)*0 to 11, 255"):
        check_dataset(camvid_config(camvid), 11, split_name="train", progress=False)


def test_camvid_twins(camvid):
    save(camvid / "train/a.png", noise(*SIZE, 3))
    with pytest.raises(UserError, match="a.png"):
        check_dataset(camvid_config(camvid), 11, split_name="train", progress=False)


def test_ade20k_zero_is_ignored_and_ids_move_down(tmp_path):
    save(tmp_path / "images/training/x.jpg", noise(1, 151, 3))
    save(tmp_path / "annotations/training/x.png", np.arange(151, dtype=np.uint8)[None])
    prefix = dict(img_path="images/training", seg_map_path="annotations/training")
    ade = dict(type="ADE20KDataset", data_root=str(tmp_path), data_prefix=prefix)
    report = check_dataset(ade, 150, split_name="train", progress=False)
    assert report.pixels == [1] * 150 and report.ignored == 1
    with pytest.raises(UserError, match=r"x\.png: 150 \(1 pixel\)(.|\n)*reduce_zero_label=True"):
        check_dataset(dict(ade, reduce_zero_label=False), 150, split_name="train", progress=False)


# --- the second run -------------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """A list that collects each path when it is decoded."""
    paths = []
    original = check_contents._decode_pair
    monkeypatch.setattr(
        check_contents, "_decode_pair", lambda *args: paths.extend(args[:2]) or original(*args)
    )
    return paths


def test_second_run_decodes_nothing_and_says_the_same(cityscapes, decoded, cache):
    first = passes(cityscapes)
    assert len(decoded) == 6 and not first.cached
    second = passes(cityscapes)
    assert len(decoded) == 6 and second.cached
    assert (second.sizes, second.pixels, second.ignored) == (first.sizes, first.pixels, first.ignored)
    assert not list(cityscapes.rglob("*.json")) and len(list(cache.rglob("*.json"))) == 1


def test_changed_file_is_decoded_again(cityscapes, decoded):
    passes(cityscapes)
    status = label(cityscapes).stat()
    data = label(cityscapes).read_bytes()
    label(cityscapes).write_bytes(b"\0" * len(data))  # the size stays the same, the time changes
    os.utime(label(cityscapes), ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert "cannot be decoded" in message(cityscapes)


def test_new_and_lost_files_are_seen(cityscapes, decoded):
    passes(cityscapes)
    save(image(cityscapes, 3), noise(*SIZE, 3))
    save(label(cityscapes, 3), np.zeros(SIZE, np.uint8))
    assert passes(cityscapes).images == 4
    label(cityscapes).unlink()
    assert "without a label" in message(cityscapes)


def test_failure_is_not_remembered(cityscapes):
    label(cityscapes).write_bytes(b"")
    assert message(cityscapes) == message(cityscapes)


def test_other_classes_are_another_check(cityscapes):
    passes(cityscapes)
    part = config(cityscapes, metainfo=dict(classes=("road", "sidewalk")))
    report = check_dataset(part, 2, split_name="train", progress=False)
    assert not report.cached and report.pixels == [9, 9]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"sizes": [], "raw_pixels": [1]}', "\0\0"])
def test_damaged_cache_is_ignored(cityscapes, decoded, cache, content):
    passes(cityscapes)
    (entry,) = cache.rglob("*.json")
    entry.write_text(content)
    assert not passes(cityscapes).cached and len(decoded) == 12
    assert passes(cityscapes).cached


def test_cache_that_cannot_be_written(cityscapes, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert passes(cityscapes).images == 3


@pytest.mark.parametrize(
    ("kind", "chosen", "first"), [("CityscapesDataset", (13, 0), 0), ("ADE20KDataset", (12, 0), 1)]
)
def test_chosen_classes_are_counted_and_the_others_are_ignored(tmp_path, kind, chosen, first):
    """A label with id k at k + 1 pixels; in ADE20K's files the classes count from 1, and 0 is no class."""
    names = DATASETS.get(kind).METAINFO["classes"]
    ids = np.repeat(np.arange(19), np.arange(1, 20)).astype(np.uint8).reshape(10, 19)
    save(tmp_path / "images/a.png", noise(10, 19, 3))
    save(tmp_path / "labels/a.png", ids)
    dataset = dict(
        type=kind,
        data_root=str(tmp_path),
        data_prefix=dict(img_path="images", seg_map_path="labels"),
        img_suffix=".png",
        seg_map_suffix=".png",
        metainfo=dict(classes=[names[place] for place in chosen]),
    )
    report = checked(dataset)
    assert report.classes == tuple(names[place] for place in chosen)
    assert report.pixels == [place + first + 1 for place in chosen]
    assert report.ignored == 190 - sum(report.pixels)
    save(tmp_path / "labels/a.png", np.maximum(ids, 151) if first else np.maximum(ids, 19))
    with pytest.raises(UserError, match="ids outside the classes"):
        checked(dataset)
