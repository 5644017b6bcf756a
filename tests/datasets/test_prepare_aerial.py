"""Large pictures cut into tiles: put together again they are what they were, and labels mean the same."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmseg.datasets import LoveDADataset, PotsdamDataset
from PIL import Image

from danseg.dataset_file import read_dataset_file
from danseg.datasets.prepare_aerial import PUBLISHED, aerial
from danseg.engine.config.config_file import load_config
from danseg.errors import UserError

SIZE = (70, 45)
CONFIG = Path(__file__).parents[2] / "configs/danet_r50_folder.py"
rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def scene(classes: int, low: int = 0) -> tuple[np.ndarray, np.ndarray]:
    blocks = rng.integers(low, classes, (SIZE[0] // 5, SIZE[1] // 5)).astype(np.uint8)
    return rng.integers(0, 256, (*SIZE, 3), np.uint8), blocks.repeat(5, 0).repeat(5, 1)


@pytest.fixture
def own(tmp_path):
    """Two pictures for training and one to validate; ids 0, 10 and 11, and 255."""
    truth = {}
    for name in ("a/1", "b/1", "2"):
        image, ids = scene(4)
        save(tmp_path / f"mine/images/{name}.png", image)
        save(tmp_path / f"mine/masks/{name}.png", np.array([0, 10, 11, 255], np.uint8)[ids])
        truth[name] = image, np.array([0, 1, 1, 255], np.uint8)[ids]
    says = dict(danseg=1, images="images", masks="masks", names=["land", "water"], ignore=[255])
    says |= dict(colours=[[1, 2, 3], [4, 5, 6]], train="train.txt", val="val.txt")
    text = json.dumps(says).replace("}", ', "mapping": {0: 0, 10: 1, 11: 1}}')
    (tmp_path / "mine/dataset.yaml").write_text(text)
    (tmp_path / "mine/train.txt").write_text("a/1.png\ta/1.png\nb/1.png\tb/1.png\n")
    (tmp_path / "mine/val.txt").write_text("2.png\t2.png\n")
    return tmp_path / "mine", truth


def tiles(root: Path, split: str) -> dict[str, list[tuple[int, int, np.ndarray, np.ndarray]]]:
    """The tiles of each picture: top, left, pixels and ids."""
    found: dict[str, list] = {}
    for image, mask in read_dataset_file(root).pairs(split):
        name, top, left = str(Path(image).relative_to(root / f"images/{split}"))[:-4].rsplit("_", 2)
        pixels, ids = np.asarray(Image.open(image)), np.asarray(Image.open(mask))
        found.setdefault(name, []).append((int(top), int(left), pixels, ids))
    return found


@pytest.mark.parametrize(("tile", "overlap"), [(32, 8), (32, 0), (64, 16), (512, 128)])
def test_the_tiles_put_together_are_the_pictures(own, tmp_path, tile, overlap):
    source, truth = own
    aerial(source, tmp_path / "out", tile=tile, overlap=overlap, progress=False)
    for split, names in (("train", ("a/1", "b/1")), ("val", ("2",))):
        found = tiles(tmp_path / "out", split)
        assert found.keys() == set(names)
        for name in names:
            image, classes = truth[name]
            seen = np.zeros(SIZE, int)
            for top, left, pixels, ids in found[name]:
                part = np.s_[top : top + tile, left : left + tile]
                np.testing.assert_array_equal(pixels, image[part])
                np.testing.assert_array_equal(ids, classes[part])
                seen[part] += 1
                if split == "train":
                    assert ids.shape == tuple(min(side, tile) for side in SIZE) or not overlap
            assert seen.min() == 1  # nothing is lost
            if split == "val":
                assert seen.max() == 1  # nothing is scored twice
            elif tile == 32 and overlap == 8:
                assert sorted({top for top, *_ in found[name]}) == [0, 24, 38]
    file = read_dataset_file(tmp_path / "out")
    assert file.names == ("land", "water") and file.colours == ((1, 2, 3), (4, 5, 6))


def test_it_is_trained_by_a_folder_recipe(own, tmp_path):
    aerial(own[0], tmp_path / "out", tile=32, overlap=8, progress=False)
    config = load_config(CONFIG, data=str(tmp_path / "out"))
    assert config.crop_size == (32, 32) and config.num_classes == 2


def test_tiles_without_a_class_are_left_out_and_a_second_run_changes_nothing(own, tmp_path):
    source, _ = own
    mask = np.full(SIZE, 255, np.uint8)
    mask[:10, :10], mask[:10, 10:20] = 0, 10
    save(source / "masks/2.png", mask)
    aerial(source, tmp_path / "out", tile=32, overlap=0, progress=False)
    assert [(top, left) for top, left, *_ in tiles(tmp_path / "out", "val")["2"]] == [(0, 0)]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    aerial(source, tmp_path / "out", tile=32, overlap=0, progress=False)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")} == before
    save(source / "images/2.png", scene(4)[0])  # what has changed is cut again
    aerial(source, tmp_path / "out", tile=32, overlap=0, progress=False)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    assert {path.name for path in after if after[path] != before[path]} == {"2_0_0.png"}
    with pytest.raises(UserError, match="prepared with other arguments .tile 32, now 16"):
        aerial(source, tmp_path / "out", tile=16, overlap=0, progress=False)


def potsdam(root: Path) -> dict[str, np.ndarray]:
    """Pictures of the official training and test, with a blurred pixel; as ISPRS names them."""
    truth = {}
    palette = np.array(PotsdamDataset.METAINFO["palette"], np.uint8)
    for name in ("top_potsdam_2_10", "top_potsdam_2_13"):
        image, classes = scene(6)
        colours = palette[classes]
        colours[0, 0], classes[0, 0] = (252, 255, 0), 255
        save(root / f"2_Ortho_RGB/{name}_RGB.tif", image)
        save(root / f"5_Labels_all/{name}_label.tif", colours)
        truth[name] = classes
    return truth


def loveda(root: Path) -> dict[str, np.ndarray]:
    truth = {}
    for split, place in (("Train", "Urban"), ("Train", "Rural"), ("Val", "Urban")):
        image, ids = scene(8)
        save(root / f"{split}/{place}/images_png/7.png", image)
        save(root / f"{split}/{place}/masks_png/7.png", ids)
        truth[f"{split} {place}/7"] = np.where(ids == 0, 255, ids - 1)
    return truth


def test_potsdams_colours_are_classes_and_its_test_pictures_validate(tmp_path):
    truth = potsdam(tmp_path / "source")
    aerial(tmp_path / "source", tmp_path / "out", published="potsdam", progress=False)
    for split, name in (("train", "top_potsdam_2_10"), ("val", "top_potsdam_2_13")):
        [(_, _, _, ids)] = tiles(tmp_path / "out", split)[name]
        np.testing.assert_array_equal(ids, truth[name])
    assert read_dataset_file(tmp_path / "out").names == PotsdamDataset.METAINFO["classes"]


def test_lovedas_0_is_no_data(tmp_path):
    truth = loveda(tmp_path / "source")
    aerial(tmp_path / "source", tmp_path / "out", published="loveda", progress=False)
    for split in ("train", "val"):
        for name, [(_, _, _, ids)] in tiles(tmp_path / "out", split).items():
            np.testing.assert_array_equal(ids, truth[f"{split.capitalize()} {name}"])
    assert read_dataset_file(tmp_path / "out").names == LoveDADataset.METAINFO["classes"]


LABEL = "5_Labels_all/top_potsdam_2_13_label.tif"
MASK = "Val/Urban/masks_png/7.png"


@pytest.mark.parametrize(
    ("published", "spoil", "message"),
    [
        ("potsdam", lambda root: (root / LABEL).unlink(), "1 picture in .* without a label"),
        ("potsdam", lambda root: (root / "2_Ortho_RGB").rename(root.parent / "away"), "is not Potsdam"),
        (
            "potsdam",
            lambda root: save(root / LABEL, np.ones((*SIZE, 3), np.uint8)),
            "100% of its pixels have other colours",
        ),
        (
            "potsdam",
            lambda root: save(root / LABEL, np.zeros((9, 8, 3), np.uint8) + 255),
            "label.tif has 9x8 pixels, .*RGB.tif 70x45: put the right label beside it",
        ),
        ("potsdam", lambda root: save(root / "top_potsdam_2_13_RGB.tif", scene(6)[0]), "same picture"),
        ("loveda", lambda root: (root / MASK).unlink(), "1 picture in .* without a label"),
        ("loveda", lambda root: (root / "Train").rename(root / "Test"), "is not LoveDA"),
        ("loveda", lambda root: save(root / MASK, np.full(SIZE, 9, np.uint8)), "holds id 9"),
    ],
)  # fmt: skip
def test_what_is_not_as_published_is_refused_and_leaves_nothing(tmp_path, published, spoil, message):
    assert published in PUBLISHED
    globals()[published](tmp_path / "source")
    spoil(tmp_path / "source")
    with pytest.raises(UserError, match=message):
        aerial(tmp_path / "source", tmp_path / "out", published=published, progress=False)
    assert not (tmp_path / "out").exists()


def test_bad_arguments_and_ids(own, tmp_path):
    source, _ = own
    with pytest.raises(UserError, match="give a side above 0, and less overlap than that"):
        aerial(source, tmp_path / "out", tile=64, overlap=64)
    with pytest.raises(UserError, match="choose one of potsdam, loveda"):
        aerial(source, tmp_path / "out", published="vaihingen")
    with pytest.raises(UserError, match="there is no .*nowhere"):
        aerial(tmp_path / "nowhere", tmp_path / "out")
    save(source / "masks/2.png", np.full(SIZE, 7, np.uint8))
    with pytest.raises(UserError, match="2.png holds the ids 7, of which .*dataset.yaml says nothing"):
        aerial(source, tmp_path / "out", progress=False)
