"""Decoding: the values of OpenCV and Pillow, whatever the file, and a message where there are none."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from danseg.datasets import decode

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
def test_rows_of_an_image_are_opencvs(kind):
    whole = cv2.imdecode(np.frombuffer(IMAGES[kind], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    for top, bottom in ((0, HEIGHT), (0, 1), (5, 17), (HEIGHT - 1, HEIGHT), (3, 10**6)):
        rows, size = decode.decode_image_rows(IMAGES[kind], top, bottom)
        assert size == whole.shape[:2]
        np.testing.assert_array_equal(rows, whole[top:bottom])


def test_plain_pngs_take_the_fast_way_and_the_rows_below_are_left_alone(monkeypatch):
    asked = []
    fast = decode.decode_image_png_u8
    assert fast is not None
    monkeypatch.setattr(
        decode, "decode_image_png_u8", lambda data, size, mode: asked.append(size) or fast(data, size, mode)
    )
    for kind, data in IMAGES.items():
        asked.clear()
        decode.decode_image_rows(data, 2, 9)
        assert asked == ([(9, WIDTH)] if kind in ("rgb", "rgb with notes and a gamma") else []), kind


def test_everything_is_decoded_without_kornia_rs(monkeypatch):
    monkeypatch.setattr(decode, "decode_image_png_u8", None)
    np.testing.assert_array_equal(decode.decode_image_rows(PLAIN, 4, 9)[0], PIXELS[4:9])
    np.testing.assert_array_equal(decode.decode_label(encoded(Image.fromarray(IDS))), IDS)


def interlaced() -> bytes:
    """A PNG that Pillow cannot write: the IDS, interlaced, by its seven passes."""
    steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    passes = [IDS[y::down, x::right] for x, y, right, down in steps]
    rows = [b"\0" + row.tobytes() for one in passes for row in one if row.size]
    plain = encoded(Image.fromarray(IDS))
    header = plain[12:28] + b"\1"
    png = plain[:12] + header + struct.pack(">I", zlib.crc32(header)) + plain[-12:]
    return with_chunk(png, b"IDAT", zlib.compress(b"".join(rows)))


LABELS = {
    "grey": encoded(Image.fromarray(IDS)),
    "interlaced": interlaced(),
    "palette": encoded(Image.fromarray(PIXELS).quantize(16)),
    "one bit": encoded(Image.fromarray(IDS > 99)),
    "bmp": encoded(Image.fromarray(IDS), "BMP"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_pillows(kind):
    label = decode.decode_label(LABELS[kind])
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, np.array(Image.open(io.BytesIO(LABELS[kind]))))


@pytest.mark.parametrize(
    "data",
    [b"", b"not an image", PLAIN[: len(PLAIN) // 2], PLAIN[:40], PLAIN[:60] + b"xxxx" + PLAIN[64:]],
    ids=["empty", "text", "half", "header", "overwritten"],
)
def test_damaged_files_are_refused(data):
    with pytest.raises(ValueError, match="copy or download it again"):
        decode.decode_image_rows(data, 0, HEIGHT)
    with pytest.raises(ValueError, match="copy or download it again"):
        decode.decode_label(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (PLAIN, "the label has colours"),
        (cv2.imencode(".png", IDS.astype(np.uint16) * 257)[1].tobytes(), "store ids of 8 bits"),
    ],
    ids=["colours", "16 bits"],
)
def test_what_is_no_map_of_ids_is_refused(data, words):
    with pytest.raises(ValueError, match=words):
        decode.decode_label(data)


def test_id_table_is_what_mmsegs_loading_does(tmp_path):
    from mmseg.datasets.transforms import LoadAnnotations

    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = tmp_path / "ids.png"
    path.write_bytes(encoded(Image.fromarray(every)))
    for reduce_zero_label in (False, True):
        for label_map in (None, {0: 7, 7: 0, 11: 255, 254: 3}):
            info = dict(seg_map_path=str(path), seg_fields=[], reduce_zero_label=reduce_zero_label)
            theirs = LoadAnnotations().transform(info | dict(label_map=label_map))["gt_seg_map"]
            np.testing.assert_array_equal(decode.id_table(reduce_zero_label, label_map)[every], theirs)
