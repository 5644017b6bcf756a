"""What headers tell: whether a file is whole, how its picture is turned."""

import io
import pickle
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from danseg.io.image_headers import (
    UnusableImage,
    mapped,
    orientation,
    require_plausible_size,
    require_whole,
    stored_size,
    tiff_tags,
)

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


def test_the_size_is_read_from_the_header_alone(tmp_path):
    for name, content in dict(a=PLAIN, cut=PLAIN[:60], none=b"no picture", empty=b"").items():
        (tmp_path / name).write_bytes(content)
    assert stored_size(tmp_path / "a") == stored_size(tmp_path / "cut") == (23, 37)
    assert [stored_size(tmp_path / name) for name in ("none", "empty", "missing", ".")] == [None] * 4


@pytest.mark.parametrize("kind", ["AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"])
def test_the_size_of_every_format_is_known_in_a_process_that_has_opened_none(kind, tmp_path):
    (tmp_path / "a").write_bytes(encoded(Image.fromarray(PIXELS), kind))
    code = "import sys; from danseg.io.image_headers import stored_size; print(stored_size(sys.argv[1]))"
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True, text=True)
    assert run.stdout == "(23, 37)\n", run.stderr


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


def _fit_for(change, data: bytes, place: int) -> bytes:
    return data[:place] + change + data[place + len(change) :]


@pytest.mark.parametrize("kind", ["L", "RGB"])
@pytest.mark.parametrize(
    "options", [{}, dict(progressive=True), dict(subsampling=0), dict(restart_marker_rows=1)]
)
def test_a_jpeg_whose_header_claims_more_blocks_than_it_has_bits_is_cut_short(kind, options):
    """Its decoder would make the rest grey. One grey level is the least that a JPEG of its size can hold."""
    side = 2000
    data = encoded(Image.new(kind, (side, side), 128), "JPEG", quality=1, optimize=True, **options)
    require_whole(data)
    place = next(data.index(mark) for mark in (b"\xff\xc0", b"\xff\xc2") if mark in data) + 5
    assert data[place : place + 4] == struct.pack(">HH", side, side)
    with pytest.raises(UnusableImage, match="a JPEG that is cut short"):
        require_whole(_fit_for(struct.pack(">HH", 60000, 60000), data, place))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_every_place_at_which_a_file_is_cut_is_refused(kind):
    data = encoded(Image.fromarray(PIXELS[:8, :8]), kind)
    require_whole(data)
    for length in range(8, len(data)):
        with pytest.raises(UnusableImage, match="cut short"):
            require_whole(data[:length])


@pytest.mark.parametrize("strips", [1, 4])
def test_every_flipped_bit_of_deflated_strips_is_refused(strips):
    rows = -(-PIXELS.shape[0] // strips)
    picture = Image.fromarray(PIXELS)
    data = encoded(picture, "TIFF", compression="tiff_adobe_deflate", tiffinfo={278: rows})
    tags = tiff_tags(data)
    assert len(tags[273]) == strips
    require_whole(data)
    for offset, size in zip(tags[273], tags[279], strict=True):
        for place in range(offset, offset + size, 37):
            with pytest.raises(UnusableImage, match=f"a TIFF with a wrong checksum after byte {offset}"):
                require_whole(_fit_for(bytes([data[place] ^ 4]), data, place))
        with pytest.raises(UnusableImage, match="wrong checksum"):  # the last byte is of the checksum
            require_whole(_fit_for(bytes([data[offset + size - 1] ^ 1]), data, offset + size - 1))


def _claiming(kind: str, width: int, height: int) -> bytes:
    """A small file of one colour whose header claims another size."""
    data = encoded(Image.new("P" if kind == "GIF" else "RGB", (64, 64)), kind)
    place, form = {"BMP": (18, "<ii"), "GIF": (6, "<HH"), "PNG": (16, ">II"), "PPM": (3, "")}[kind]
    if kind == "PPM":
        return b"P6\n%d %d\n255\n" % (width, height) + data[13:]
    data = _fit_for(struct.pack(form, width, height), data, place)
    return _fit_for(struct.pack(">I", zlib.crc32(data[12:29])), data, 29) if kind == "PNG" else data


@pytest.mark.parametrize("kind", ["BMP", "GIF", "PNG", "PPM"])
def test_a_header_that_claims_far_more_than_the_file_can_hold_is_refused(kind):
    for side in (10_000, 65_000):
        with pytest.raises(UnusableImage, match=f"claims {side}x{side} pixels, too many for"):
            require_plausible_size(_claiming(kind, side, side))
    require_plausible_size(_claiming(kind, 4000, 4000))  # 48 MB: no harm


def test_large_pictures_of_their_own_size_are_plausible():
    require_plausible_size(encoded(Image.new("RGB", (9000, 9000))))  # one colour, as tightly as a PNG goes
    with pytest.raises(UnusableImage, match="claims 9000x9000"):
        require_plausible_size(encoded(Image.new("RGB", (9000, 9000)), "WEBP", lossless=True, method=0))
    for unknown in (b"", b"\x89PNG", b"no picture at all", PLAIN[:20]):
        require_plausible_size(unknown)


_REFUSING_ALL = """
import contextlib, sys
from danseg.errors import UserError
from danseg.io.images import read_image
from danseg.label_maps.label_png import read_label_map

def run():
    for path in sys.argv[1:]:
        for read in (read_image, read_label_map):
            try:
                read(path)
            except UserError:
                continue
            raise SystemExit("accepted")

with contextlib.suppress(UserError):
    read_image(sys.argv[1])  # imports what it needs
print(peak_growth(run))
"""


def test_what_a_header_claims_costs_no_memory(tmp_path, extra_peak):
    paths = []
    for kind in ("BMP", "GIF", "PNG", "PPM"):
        paths.append(tmp_path / kind)
        paths[-1].write_bytes(_claiming(kind, 20_000, 20_000))
    jpeg = encoded(Image.fromarray(PIXELS), "JPEG")
    place = jpeg.index(b"\xff\xc0") + 5
    paths.append(tmp_path / "jpeg")
    paths[-1].write_bytes(_fit_for(struct.pack(">HH", 20_000, 20_000), jpeg, place))
    assert extra_peak(_REFUSING_ALL, *map(str, paths)) < 2**24
