"""What headers tell: whether a file is whole, how its picture is turned."""

import io
import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from danseg.io.image_headers import UnusableImage, mapped, orientation, require_whole

PIXELS = np.random.default_rng(0).integers(0, 256, (23, 37, 3), dtype=np.uint8)
TURNED = Image.Exif()
TURNED[0x0112] = 6


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


PLAIN = encoded(Image.fromarray(PIXELS))


def test_an_orientation_is_found_without_decoding_pixels(tmp_path):
    assert orientation(b"") == orientation(PLAIN) == orientation(b"RIFF and no more") == 1
    assert orientation(encoded(Image.fromarray(PIXELS), "WEBP", exif=TURNED)) == 6
    wrong = Image.Exif()
    wrong[0x0112] = 77
    assert orientation(encoded(Image.fromarray(PIXELS), "JPEG", exif=wrong)) == 1
    (tmp_path / "a.jpg").write_bytes(encoded(Image.fromarray(PIXELS), "JPEG", exif=TURNED))
    (tmp_path / "empty").write_bytes(b"")
    with mapped(tmp_path / "a.jpg") as data, mapped(tmp_path / "empty") as empty:
        assert orientation(data) == 6 and orientation(empty) == 1
        require_whole(data)
        with pytest.raises(UnusableImage, match="0 bytes"):
            require_whole(empty)


def test_the_thumbnail_of_a_jpeg_is_not_its_end():
    small = encoded(Image.fromarray(PIXELS[:4, :4]), "JPEG")
    whole = encoded(Image.fromarray(PIXELS), "JPEG")
    noted = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(small) + 2) + small + whole[2:]
    require_whole(noted)
    require_whole(noted + b"notes of a camera behind the picture")
    with pytest.raises(UnusableImage, match="cut short"):
        require_whole(noted[:-9])


def test_a_refusal_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(UnusableImage("deep", "a reason")))
    assert (error.kind, error.reason) == ("deep", "a reason") and str(error).startswith("a reason: save it")
