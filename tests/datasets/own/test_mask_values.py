"""Ids are told from colours for each kind of file; kinds that keep neither exactly are refused by reason."""

import numpy as np
import pytest
from PIL import Image

from danseg.datasets.own.mask_values import RefusedMask, hexadecimal, look_at, read_colours, read_ids

IDS = np.array([[0, 1, 1], [255, 0, 1]], np.uint8)
COLOURS = np.array([[(1, 2, 3), (9, 9, 9), (9, 9, 9)], [(255, 0, 0), (1, 2, 3), (9, 9, 9)]], np.uint8)


def palette(ids):
    image = Image.fromarray(ids, "P")
    image.putpalette([10, 20, 30, 40, 50, 60] + [0] * 762)
    return image


@pytest.mark.parametrize(
    ("image", "suffix", "plain"),
    [
        (Image.fromarray(IDS), "png", True),
        (Image.fromarray(IDS), "bmp", True),
        (Image.fromarray(IDS), "tif", True),
        (Image.fromarray(IDS), "pgm", False),
        (palette(IDS), "png", True),
        (Image.fromarray(IDS.astype(np.uint16)), "png", False),
        (Image.fromarray(IDS.astype(np.int32)), "tif", False),
        (Image.fromarray(np.dstack([IDS] * 3)), "png", False),
        (Image.fromarray(np.dstack([IDS] * 3 + [np.full_like(IDS, 255)])), "png", False),
        (Image.fromarray(np.dstack([IDS, np.full_like(IDS, 255)])), "png", False),
        (Image.fromarray(np.dstack([IDS] * 3)), "webp", False),
    ],
)
def test_ids(tmp_path, image, suffix, plain):
    path = tmp_path / f"x.{suffix}"
    image.save(path, **(dict(lossless=True) if suffix == "webp" else {}))
    found = look_at(path)
    assert (found.size, found.plain) == ((2, 3), plain)
    assert found.ids == {0: 2, 1: 3, 255: 1}
    assert (read_ids(path) == IDS).all()


def test_ids_of_16_bits(tmp_path):
    own = IDS.astype(np.uint16) * 200
    Image.fromarray(own).save(tmp_path / "x.png")
    assert look_at(tmp_path / "x.png").ids == {0: 2, 200: 3, 51000: 1}
    assert (read_ids(tmp_path / "x.png") == own).all()


@pytest.mark.parametrize("alpha", [False, True])
def test_colours(tmp_path, alpha):
    pixels = np.dstack([COLOURS, np.full((2, 3), 255, np.uint8)]) if alpha else COLOURS
    Image.fromarray(pixels).save(tmp_path / "x.png")
    found = look_at(tmp_path / "x.png")
    assert found.ids is None and not found.plain and found.size == (2, 3)
    assert {hexadecimal(one): count for one, count in found.colours.items()} == {
        "1 2 3": 2,
        "9 9 9": 3,
        "255 0 0": 1,
    }
    assert read_colours(tmp_path / "x.png")[1, 0] == 0xFF0000


def test_the_colours_that_ids_show(tmp_path):
    palette(IDS).save(tmp_path / "x.png")
    shown = {hexadecimal(one): count for one, count in look_at(tmp_path / "x.png").colours.items()}
    assert shown == {"10 20 30": 2, "40 50 60": 3, "0 0 0": 1}
    Image.fromarray(IDS).save(tmp_path / "x.png")
    assert read_colours(tmp_path / "x.png").tolist() == [[0, 0x010101, 0x010101], [0xFFFFFF, 0, 0x010101]]


@pytest.mark.parametrize(
    ("image", "name", "said"),
    [
        (Image.fromarray(IDS), "x.jpg", "JPEG, whose compression changes ids and colours"),
        (Image.fromarray(COLOURS), "x.webp", "WEBP, whose compression"),
        (Image.fromarray(IDS), "x.jp2", "JPEG2000, whose compression"),
        (Image.fromarray(np.dstack([COLOURS, IDS])), "x.png", r"see-through pixels \(alpha\)"),
        (Image.fromarray(IDS.astype(np.float32)), "x.tif", "F samples of 32 bits"),
        (Image.fromarray(IDS.astype(np.int32) * -1), "x.tif", "ids beyond 65535"),
        (Image.fromarray(COLOURS).convert("CMYK"), "x.tif", "CMYK samples"),
    ],
)
def test_refused(tmp_path, image, name, said):
    image.save(tmp_path / name)
    with pytest.raises(RefusedMask, match=said) as caught:
        look_at(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("kind", [np.uint16, np.uint8])
def test_what_is_no_mask(tmp_path, kind):
    values = np.arange(90 * 90).reshape(90, 90)
    photograph = np.stack([values // 256, values % 256, values * 0], axis=-1).astype(np.uint8)
    Image.fromarray(values.astype(kind) if kind == np.uint16 else photograph).save(tmp_path / "x.png")
    with pytest.raises(RefusedMask, match="holds more than 4096 different values, as photographs"):
        look_at(tmp_path / "x.png")


def test_damaged_or_missing(tmp_path):
    Image.fromarray(IDS).save(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes((tmp_path / "x.png").read_bytes()[:-20])
    with pytest.raises(RefusedMask, match="x.png cannot be read: a PNG that is cut short"):
        look_at(tmp_path / "x.png")
    with pytest.raises(RefusedMask, match="y.png cannot be read: it does not exist"):
        look_at(tmp_path / "y.png")
