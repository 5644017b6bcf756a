"""Preparing data sets: what is written, what is kept, and what is refused."""

import importlib.util
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from danseg.datasets import prepare, prepare_cityscapes
from danseg.errors import UserError

SIZE = (6, 40)  # height, width
# The official pairs of labelId and trainId; every other labelId is ignored in training.
TRAIN_ID_OF = dict(zip((7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33), range(19), strict=True))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def files(root: Path) -> dict[str, bytes]:
    """Content of every file below a folder, hidden ones included."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


# --- Cityscapes -----------------------------------------------------------------------------------------


def frame(root: Path, split: str, kind: str) -> Path:
    if kind == "leftImg8bit":
        return root / f"leftImg8bit/{split}/ulm/ulm_000000_000019_leftImg8bit.png"
    return root / f"gtFine/{split}/ulm/ulm_000000_000019_gtFine_{kind}"


@pytest.fixture
def cityscapes(tmp_path):
    """A training and a validation frame with all 34 labelIds, laid out as in the official archives."""
    root = tmp_path / "cityscapes"
    for split in ("train", "val"):
        save(frame(root, split, "leftImg8bit"), noise(*SIZE, 3))
        save(frame(root, split, "labelIds.png"), np.resize(np.arange(34), SIZE).astype(np.uint8))
    return root


def test_train_ids_from_label_ids(cityscapes):
    reports = prepare.cityscapes(cityscapes, progress=False)
    ids = np.asarray(Image.open(frame(cityscapes, "val", "labelIds.png")))
    train_ids = np.asarray(Image.open(frame(cityscapes, "val", "labelTrainIds.png")))
    assert train_ids.dtype == np.uint8
    expected = np.vectorize(lambda i: TRAIN_ID_OF.get(i, 255))(ids)
    np.testing.assert_array_equal(train_ids, expected)
    assert [report.split_name for report in reports] == ["train", "val"]
    assert not reports[0].absent


def test_existing_train_ids_are_kept(cityscapes):
    own = np.resize(np.array([4, 5], np.uint8), SIZE)
    save(frame(cityscapes, "train", "labelTrainIds.png"), own)
    before = files(cityscapes)
    prepare.cityscapes(cityscapes, progress=False)
    after = files(cityscapes)
    assert set(after) - set(before) == {str(frame(Path(), "val", "labelTrainIds.png"))}
    assert all(after[name] == content for name, content in before.items())
    prepare.cityscapes(cityscapes, progress=False)
    assert files(cityscapes) == after


def polygons(path: Path, label: str = "car") -> None:
    objects = [
        dict(label="road", polygon=[[0, 0], [39, 0], [39, 5], [0, 5]]),
        dict(label=label, polygon=[[0, 0], [9, 0], [9, 5], [0, 5]]),
        dict(label="static", polygon=[[30, 0], [39, 0], [39, 5], [30, 5]]),
    ]
    path.write_text(json.dumps(dict(imgWidth=SIZE[1], imgHeight=SIZE[0], objects=objects)))


def test_train_ids_from_polygons(cityscapes):
    pytest.importorskip("cityscapesscripts")
    frame(cityscapes, "train", "labelIds.png").unlink()
    polygons(frame(cityscapes, "train", "polygons.json"))
    prepare.cityscapes(cityscapes, progress=False)
    train_ids = np.asarray(Image.open(frame(cityscapes, "train", "labelTrainIds.png")))
    assert train_ids[0, [0, 20, 35]].tolist() == [13, 0, 255]
    assert not [name for name in files(cityscapes) if ".part" in name]


@pytest.mark.slow
def test_polygons_in_processes(cityscapes, monkeypatch):
    pytest.importorskip("cityscapesscripts")
    for split in ("train", "val"):
        frame(cityscapes, split, "labelIds.png").unlink()
        polygons(frame(cityscapes, split, "polygons.json"))
    monkeypatch.setattr(prepare_cityscapes, "_POLYGONS_PER_PROCESS", 1)
    monkeypatch.setattr(prepare_cityscapes, "available_cpus", lambda: 2)
    prepare.cityscapes(cityscapes, progress=False)
    for split in ("train", "val"):
        assert np.asarray(Image.open(frame(cityscapes, split, "labelTrainIds.png")))[0, 0] == 13


@pytest.mark.parametrize("damage", ["unknown label", "half a file"])
def test_damaged_polygons_are_named_and_leave_nothing(cityscapes, damage):
    pytest.importorskip("cityscapesscripts")
    frame(cityscapes, "train", "labelIds.png").unlink()
    path = frame(cityscapes, "train", "polygons.json")
    polygons(path, label="dragon" if damage == "unknown label" else "car")
    if damage == "half a file":
        path.write_text(path.read_text()[:50])
    with pytest.raises(UserError, match="ulm_000000_000019_gtFine_polygons.json"):
        prepare.cityscapes(cityscapes, progress=False)
    assert not [name for name in files(cityscapes / "gtFine/train") if "TrainIds" in name]


def test_polygons_without_cityscapesscripts(cityscapes, monkeypatch):
    frame(cityscapes, "train", "labelIds.png").unlink()
    polygons(frame(cityscapes, "train", "polygons.json"))
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "cityscapesscripts" else real(name, *rest),
    )
    with pytest.raises(UserError, match=r"pip install 'danseg\[cityscapes\]'"):
        prepare.cityscapes(cityscapes, progress=False)


def test_no_cityscapes(tmp_path):
    with pytest.raises(UserError, match="gtFine_trainvaltest.zip") as error:
        prepare.cityscapes(tmp_path / "cityscapes", progress=False)
    assert str(tmp_path / "cityscapes") in str(error.value)


def test_cityscapes_without_images(cityscapes):
    frame(cityscapes, "val", "leftImg8bit").unlink()
    with pytest.raises(UserError, match="leftImg8bit/val"):
        prepare.cityscapes(cityscapes, progress=False)


@pytest.mark.parametrize(
    ("content", "words"),
    [(np.full(SIZE, 40, np.uint8), "holds the ids 40;"), (noise(*SIZE, 3), "RGB"), (None, "cannot be read")],
)
def test_bad_label_ids_are_named_and_leave_nothing(cityscapes, content, words):
    path = frame(cityscapes, "train", "labelIds.png")
    if content is None:
        path.write_bytes(path.read_bytes()[:60])
    else:
        save(path, content)
    with pytest.raises(UserError, match=rf"ulm_000000_000019_gtFine_labelIds.png.*{words}"):
        prepare.cityscapes(cityscapes, progress=False)
    assert not [name for name in files(cityscapes / "gtFine/train") if "TrainIds" in name]


# --- ADE20K ---------------------------------------------------------------------------------------------


@pytest.fixture
def ade(tmp_path):
    """The unpacked archive: one image per split with ids from 0 to 150."""
    root = tmp_path / "source/ADEChallengeData2016"
    for split, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        save(root / f"images/{split}/{name}.jpg", noise(1, 151, 3))
        save(root / f"annotations/{split}/{name}.png", np.arange(151, dtype=np.uint8)[None])
    (root / "objectInfo150.txt").write_text("not needed")
    return root


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files(folder.parent).items():
            archive.writestr(name, content)
    return target


def test_ade20k_from_the_archive(ade, tmp_path):
    archive = zipped(ade, tmp_path / "ADEChallengeData2016.zip")
    reports = prepare.ade20k(archive, tmp_path / "ade", progress=False)
    expected = files(ade)
    del expected["objectInfo150.txt"]
    assert files(tmp_path / "ade") == expected
    assert [(report.split_name, report.images) for report in reports] == [("train", 1), ("val", 1)]
    assert prepare.ade20k(archive, tmp_path / "ade", progress=False)[
        0
    ].cached  # the second time nothing is written
    assert files(tmp_path / "ade") == expected


@pytest.mark.parametrize("above", [False, True])
def test_ade20k_from_a_folder(ade, tmp_path, above):
    prepare.ade20k(ade.parent if above else ade, tmp_path / "ade", progress=False)
    assert len(files(tmp_path / "ade")) == 4


def test_ade20k_in_its_place(ade):
    before = files(ade)
    assert len(prepare.ade20k(ade, ade, progress=False)) == 2
    assert files(ade) == before


def test_a_set_in_its_place_may_be_read_only(ade, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK)  # root, in containers, may write
    assert len(prepare.ade20k(ade, ade, progress=False)) == 2


def test_interrupted_unpacking_is_completed(ade, tmp_path):
    archive = zipped(ade, tmp_path / "a.zip")
    prepare.ade20k(archive, tmp_path / "ade", progress=False)
    whole = files(tmp_path / "ade")
    (tmp_path / "ade/images/training/ADE_train_00000001.jpg").unlink()
    prepare.ade20k(archive, tmp_path / "ade", progress=False)
    assert files(tmp_path / "ade") == whole


def test_archive_cut_short(ade, tmp_path):
    archive = zipped(ade, tmp_path / "a.zip")
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(UserError, match="a.zip.*download"):
        prepare.ade20k(archive, tmp_path / "ade", progress=False)
    assert not (tmp_path / "ade").exists()


def test_damaged_member_is_named_and_leaves_no_file(ade, tmp_path):
    archive = zipped(ade, tmp_path / "a.zip")
    with zipfile.ZipFile(archive) as opened:
        name = next(n for n in opened.namelist() if "annotations/training" in n)
        offset = opened.getinfo(name).header_offset + 30 + len(name)
    data = bytearray(archive.read_bytes())
    data[offset + 20] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(UserError, match="ADE_train_00000001.png.*download"):
        prepare.ade20k(archive, tmp_path / "ade", progress=False)
    assert files(tmp_path / "ade/annotations/training") == {}


def test_archive_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("ADEChallengeData2016/images/training/../../../../evil.jpg", "x")
    with pytest.raises(UserError, match="images/training"):
        prepare.ade20k(tmp_path / "x.zip", tmp_path / "ade", progress=False)
    assert not list(tmp_path.rglob("evil.jpg"))


def test_missing_source(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path / "nothing.zip")):
        prepare.ade20k(tmp_path / "nothing.zip", tmp_path / "ade", progress=False)


# --- CamVid ---------------------------------------------------------------------------------------------


@pytest.fixture
def camvid(tmp_path):
    root = tmp_path / "source"
    for split, suffix in (("train", ".jpg"), ("val", ".png"), ("test", ".png")):
        save(root / split / f"{split}1{suffix}", noise(*SIZE, 3))
        save(root / f"{split}annot" / f"{split}1.png", np.resize(np.arange(12), SIZE).astype(np.uint8))
    (root / "train/.DS_Store").write_text("hidden")
    (root / "train/notes.txt").write_text("not an image")
    return root


def test_camvid(camvid, tmp_path):
    reports = prepare.camvid(camvid, tmp_path / "camvid", progress=False)
    assert [report.split_name for report in reports] == ["train", "val", "test"]
    expected = files(camvid)
    del expected["train/.DS_Store"], expected["train/notes.txt"]
    assert files(tmp_path / "camvid") == expected
    assert len(prepare.camvid(camvid, tmp_path / "camvid", progress=False)) == 3


def test_camvid_below_a_folder_of_its_name(camvid, tmp_path):
    (tmp_path / "tutorial").mkdir()
    camvid.rename(tmp_path / "tutorial/CamVid")
    assert len(prepare.camvid(tmp_path / "tutorial", tmp_path / "camvid", progress=False)) == 3


def test_camvid_without_test_split(camvid, tmp_path):
    for path in [*(camvid / "test").iterdir(), *(camvid / "testannot").iterdir()]:
        path.unlink()
    (camvid / "test").rmdir()
    (camvid / "testannot").rmdir()
    assert len(prepare.camvid(camvid, tmp_path / "camvid", progress=False)) == 2


def test_camvid_links(camvid, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare.camvid("source", "camvid", link=True, progress=False)
    link = tmp_path / "camvid/train/train1.jpg"
    assert link.is_symlink() and link.resolve() == camvid / "train/train1.jpg"
    assert len(prepare.camvid("source", "camvid", link=True, progress=False)) == 3


def test_camvid_layout(camvid, tmp_path):
    (camvid / "valannot").rename(camvid / "val_labels")
    with pytest.raises(UserError, match="lacks the folders valannot"):
        prepare.camvid(camvid, tmp_path / "camvid", progress=False)


def test_damaged_source_is_refused_before_anything_is_copied(camvid, tmp_path):
    (camvid / "valannot/val1.png").write_bytes(b"")
    with pytest.raises(UserError, match="valannot/val1.png"):
        prepare.camvid(camvid, tmp_path / "camvid", progress=False)
    assert not (tmp_path / "camvid").exists()


@pytest.mark.parametrize(
    ("name", "reason"), [("train/train1.jpg", "other content"), ("train/mine.png", "another file")]
)
def test_what_the_user_had_is_never_overwritten_or_mixed(camvid, tmp_path, name, reason):
    path = tmp_path / "camvid" / name
    save(path, noise(9, 9, 3))
    before = files(tmp_path / "camvid")
    with pytest.raises(UserError, match=f"nothing was written.*{name}"):
        prepare.camvid(camvid, tmp_path / "camvid", progress=False)
    assert files(tmp_path / "camvid") == before


def test_same_size_and_other_content_is_not_the_same(camvid, tmp_path):
    data = bytearray((camvid / "val/val1.png").read_bytes())
    data[-20] ^= 1
    path = tmp_path / "camvid/val/val1.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    with pytest.raises(UserError, match="val1.png"):
        prepare.camvid(camvid, tmp_path / "camvid", progress=False)


def test_place_that_cannot_be_written(camvid, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the folder"):
        prepare.camvid(camvid, tmp_path / "file/camvid", progress=False)


# --- Pascal VOC 2012 ------------------------------------------------------------------------------------


@pytest.fixture
def voc(tmp_path):
    """A frame of each split, one that is in no list, and one for boxes alone."""
    root = tmp_path / "VOCdevkit/VOC2012"
    for name in ("2007_000001", "2007_000002", "2007_000003", "2008_000001"):
        save(root / f"JPEGImages/{name}.jpg", noise(*SIZE, 3))
    for name in ("2007_000001", "2007_000002", "2007_000003"):
        picture = Image.fromarray(np.resize(np.append(np.arange(21), 255), SIZE).astype(np.uint8), "P")
        picture.putpalette(bytes(range(256)) * 3)
        path = root / f"SegmentationClass/{name}.png"
        path.parent.mkdir(exist_ok=True)
        picture.save(path)
    for split, name in (("train", "2007_000001"), ("val", "2007_000002")):
        path = root / f"ImageSets/Segmentation/{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n")
    return root


@pytest.mark.parametrize("place", ["", "..", "../.."], ids=["VOC2012", "VOCdevkit", "the archive's folder"])
def test_voc2012(voc, tmp_path, place):
    root = tmp_path / "voc"
    reports = prepare.voc2012(voc / place, root, progress=False)
    assert [(one.split_name, one.images) for one in reports] == [("train", 1), ("val", 1)]
    # Every id 0 to 20 is a class; 255, the border, is none.
    assert not reports[0].absent and reports[0].ignored == SIZE[0] * SIZE[1] // 22
    expected = files(voc)
    for name in (
        "JPEGImages/2007_000003.jpg",
        "JPEGImages/2008_000001.jpg",
        "SegmentationClass/2007_000003.png",
    ):
        del expected[name]
    assert files(root) == expected
    assert len(prepare.voc2012(voc, root, progress=False)) == 2


def test_voc2012_is_refused_where_it_is_something_else(voc, tmp_path):
    (tmp_path / "VOCtrainval.tar").write_bytes(b"")
    with pytest.raises(UserError, match="is no folder: unpack it"):
        prepare.voc2012(tmp_path / "VOCtrainval.tar", tmp_path / "voc", progress=False)
    (voc / "SegmentationClass/2007_000002.png").unlink()
    with pytest.raises(UserError, match="images without a label: 1"):
        prepare.voc2012(voc, tmp_path / "voc", progress=False)
    (voc / "ImageSets/Segmentation/val.txt").unlink()
    with pytest.raises(UserError, match=r"list of frames: .*val\.txt is no file"):
        prepare.voc2012(voc, tmp_path / "voc", progress=False)
    (voc / "ImageSets").rename(tmp_path / "sets")
    with pytest.raises(UserError, match="lacks the folders ImageSets/Segmentation"):
        prepare.voc2012(voc, tmp_path / "voc", progress=False)
    assert not (tmp_path / "voc").exists()


# --- the rendered set -----------------------------------------------------------------------------------


def test_demo(tmp_path):
    root = tmp_path / "demo"
    sizes = dict(train=1, val=1, height=32, width=64, seed=3, progress=False)
    reports = prepare.demo(root, **sizes)
    assert [(report.split_name, report.images) for report in reports] == [("train", 1), ("val", 1)]
    assert reports[0].sizes == {(32, 64): 1}
    with pytest.raises(UserError, match="seed"):
        prepare.demo(root, **{**sizes, "seed": 4})


def test_demo_is_refused_where_a_real_set_lies(cityscapes):
    before = files(cityscapes)
    with pytest.raises(UserError):
        prepare.demo(cityscapes, train=1, val=1, height=32, width=64, progress=False)
    assert files(cityscapes) == before
