"""Images: OpenCV's values for every kind of file, and an error for files that are no image."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from danseg.errors import UserError
from danseg.io import png
from danseg.io.images import decode_image_rows, read_image, save_image

HEIGHT, WIDTH = 23, 37
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
IDS = PIXELS[..., 0]
TURNED = Image.Exif()
TURNED[0x0112] = 6  # orientation


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def with_chunk(data: bytes, name: bytes, content: bytes) -> bytes:
    """The PNG with one more chunk, after its header."""
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return data[:33] + chunk + data[33:]


def notes() -> PngInfo:
    info = PngInfo()
    info.add_text("camera", "left")
    info.add(b"gAMA", struct.pack(">I", 45455))
    return info


PLAIN = encoded(Image.fromarray(PIXELS))
IMAGES = {
    "rgb": PLAIN,
    "rgb with notes and a gamma": encoded(Image.fromarray(PIXELS), pnginfo=notes()),
    "rgb turned by EXIF": encoded(Image.fromarray(PIXELS), exif=TURNED),
    "rgb with a transparent colour": with_chunk(PLAIN, b"tRNS", struct.pack(">HHH", 1, 2, 3)),
    "rgba": encoded(Image.fromarray(np.dstack([PIXELS, IDS]))),
    "grey": encoded(Image.fromarray(IDS)),
    "palette": encoded(Image.fromarray(PIXELS).quantize(16)),
    "one bit": encoded(Image.fromarray(PIXELS).convert("1")),
    "16 bits": cv2.imencode(".png", PIXELS.astype(np.uint16) * 257)[1].tobytes(),
    "jpeg": encoded(Image.fromarray(PIXELS), "JPEG"),
    "bmp": encoded(Image.fromarray(PIXELS), "BMP"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images_and_their_rows_are_opencvs(tmp_path, kind):
    whole = cv2.imdecode(np.frombuffer(IMAGES[kind], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    for top, bottom in ((0, HEIGHT), (0, 1), (5, 17), (HEIGHT - 1, HEIGHT), (3, 10**6), (0, None)):
        rows, size = decode_image_rows(IMAGES[kind], top, bottom)
        assert size == whole.shape[:2]
        np.testing.assert_array_equal(rows, whole[top:bottom])
    (tmp_path / "straße").write_bytes(IMAGES[kind])
    np.testing.assert_array_equal(read_image(tmp_path / "straße"), whole)


def test_plain_pngs_take_the_fast_way_and_the_rows_below_are_left_alone(monkeypatch):
    asked = []
    fast = png.decode_image_png_u8
    assert fast is not None
    monkeypatch.setattr(
        png, "decode_image_png_u8", lambda data, size, mode: asked.append(size) or fast(data, size, mode)
    )
    for kind, data in IMAGES.items():
        asked.clear()
        decode_image_rows(data, 2, 9)
        assert asked == ([(9, WIDTH)] if kind in ("rgb", "rgb with notes and a gamma") else []), kind


def test_images_are_decoded_without_kornia_rs(monkeypatch):
    monkeypatch.setattr(png, "decode_image_png_u8", None)
    np.testing.assert_array_equal(decode_image_rows(PLAIN, 4, 9)[0], PIXELS[4:9])


@pytest.mark.parametrize(
    "data",
    [b"", b"not an image", PLAIN[: len(PLAIN) // 2], PLAIN[:40], PLAIN[:60] + b"xxxx" + PLAIN[64:]],
    ids=["empty", "text", "half", "header", "overwritten"],
)
def test_a_damaged_image_is_refused_and_named(tmp_path, data):
    with pytest.raises(ValueError, match="copy or download it again"):
        decode_image_rows(data, 0, HEIGHT)
    (tmp_path / "broken.png").write_bytes(data)
    with pytest.raises(UserError, match=rf"broken.png cannot be read \({len(data)} bytes\)"):
        read_image(tmp_path / "broken.png")


def test_missing_images_and_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere.png does not exist"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match="is a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize("compression", [None, 3])
def test_images_come_back_as_they_went_in_red_first(tmp_path, compression):
    path = save_image(PIXELS, tmp_path / "straße.png", compression=compression)
    assert (read_image(path) == PIXELS).all()
    assert cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)[0, 0, 2] == PIXELS[0, 0, 0]


@pytest.mark.parametrize("pixels", [IDS, IDS.astype(np.uint16) * 257, np.dstack([PIXELS, IDS])])
def test_grey_16_bits_and_alpha_are_kept(tmp_path, pixels):
    path = save_image(pixels, tmp_path / "a.png")
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    stored = stored if stored.ndim == 2 else stored[..., [2, 1, 0, 3]]
    assert stored.dtype == pixels.dtype
    np.testing.assert_array_equal(stored, pixels)


def test_a_picture_is_replaced_and_leaves_nothing_beside_it(tmp_path):
    save_image(np.zeros((2, 2), dtype=np.uint8), tmp_path / "a.png")
    save_image(np.ones((3, 3), dtype=np.uint8), tmp_path / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED).shape == (3, 3)


def test_a_folder_in_the_way_of_a_picture_is_named_and_kept(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(UserError, match="a.png is not a file"):
        save_image(np.zeros((2, 2), dtype=np.uint8), tmp_path / "a.png")
    assert (tmp_path / "a.png").is_dir()
