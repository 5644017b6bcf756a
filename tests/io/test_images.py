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
from danseg.io.image_headers import UnusableImage, orientation
from danseg.io.images import decode_image_rows, encode_animation, read_image, save_image

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


def grey_png(bits: int) -> bytes:
    """A grey PNG of a few bits a sample, which Pillow does not write."""
    samples = np.random.default_rng(bits).integers(0, 256, (HEIGHT, -(-WIDTH * bits // 8)), dtype=np.uint8)
    rows = np.pad(samples, ((0, 0), (1, 0))).tobytes()  # each row starts with its filter, 0 for none
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, 0, 0, 0, 0)
    empty = with_chunk(PLAIN[:8] + 25 * b"\0" + PLAIN[-12:], b"IDAT", zlib.compress(rows))
    return empty[:8] + with_chunk(33 * b"\0", b"IHDR", header)[33:] + empty[33:]


IMAGES = {
    "rgb": PLAIN,
    "rgb with notes and a gamma": encoded(Image.fromarray(PIXELS), pnginfo=notes()),
    "rgb turned by EXIF": encoded(Image.fromarray(PIXELS), exif=TURNED),
    "rgb with a transparent colour": with_chunk(PLAIN, b"tRNS", struct.pack(">HHH", 1, 2, 3)),
    "rgba": encoded(Image.fromarray(np.dstack([PIXELS, IDS]))),
    "grey": encoded(Image.fromarray(IDS)),
    "palette": encoded(Image.fromarray(PIXELS).quantize(16)),
    "one bit": encoded(Image.fromarray(PIXELS).convert("1")),
    "grey of 1 bit": grey_png(1),
    "grey of 2 bits": grey_png(2),
    "grey of 4 bits": grey_png(4),
    "palette with a transparent colour": encoded(Image.fromarray(PIXELS).quantize(16), transparency=3),
    "jpeg": encoded(Image.fromarray(PIXELS), "JPEG"),
    "bmp": encoded(Image.fromarray(PIXELS), "BMP"),
    "cmyk": encoded(Image.fromarray(PIXELS).convert("CMYK"), "JPEG"),
    "webp": encoded(Image.fromarray(PIXELS), "WEBP", lossless=True),
    "tiff": encoded(Image.fromarray(PIXELS), "TIFF"),
    "tiff of one bit": encoded(Image.fromarray(IDS).convert("1"), "TIFF"),
    "tiff, 0 is white": encoded(Image.fromarray(IDS), "TIFF", tiffinfo={262: 0}),
    "tiff with opaque alpha": encoded(Image.fromarray(np.dstack([PIXELS, np.full_like(IDS, 255)])), "TIFF"),
}
DAMAGED = {
    f"{kind}, {how}": mend(encoded(Image.fromarray(PIXELS), kind.strip(), **options))
    for kind, options in {
        "PNG": {},
        "JPEG": {},
        "JPEG ": dict(progressive=True),
        "TIFF": {},
        "TIFF ": dict(compression="tiff_lzw"),
        "BMP": {},
        "WEBP": {},
        "PPM": {},
    }.items()
    for how, mend in {
        "half": lambda data: data[: len(data) // 2],
        "without the last rows": lambda data: data[: int(len(data) * 0.97)],
        "without the last byte": lambda data: data[:-1],
    }.items()
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


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_is_cut_short_is_refused(kind):
    with pytest.raises(ValueError, match="copy or download it again"):
        decode_image_rows(DAMAGED[kind])


def test_a_wrong_checksum_is_refused():
    at = PLAIN.rfind(b"IEND") - 8  # the checksum of the pixels
    with pytest.raises(ValueError, match="wrong checksum.*copy or download it again"):
        decode_image_rows(PLAIN[:at] + bytes([PLAIN[at] ^ 1]) + PLAIN[at + 1 :])


@pytest.mark.parametrize("size", [(2**31 - 1, HEIGHT), (WIDTH, 2**31 - 1), (2**20, 2**20), (0, 5)])
@pytest.mark.parametrize("colour", [png.RGB, png.GREY])
def test_a_header_that_promises_more_than_the_file_holds_is_refused(size, colour):
    header = struct.pack(">IIBBBBB", *size, 8, colour, 0, 0, 0)
    data = with_chunk(PLAIN[:33], b"IHDR", header)[33:]
    data = PLAIN[:8] + data + PLAIN[33:]
    assert png.decode_plain_png(data, colour) is None
    with pytest.raises(ValueError, match="copy or download it again"):
        decode_image_rows(data, 0, 4)


def test_a_panic_of_the_decoder_is_no_end_of_the_program(monkeypatch):
    class Panic(BaseException):
        """What pyo3 raises: no Exception."""

    def panic(*args):
        raise Panic

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(png, "decode_image_png_u8", panic)
    np.testing.assert_array_equal(decode_image_rows(PLAIN)[0], PIXELS)
    monkeypatch.setattr(png, "decode_image_png_u8", interrupt)
    with pytest.raises(KeyboardInterrupt):
        decode_image_rows(PLAIN)


def tiff(bands: np.ndarray, **options) -> bytes:
    """Bands (H, W, C) as GDAL writes them."""
    rasterio = pytest.importorskip("rasterio")
    with rasterio.MemoryFile() as memory:
        count = bands.shape[2]
        profile = dict(driver="GTiff", count=count, height=HEIGHT, width=WIDTH, dtype=bands.dtype) | options
        with memory.open(**profile) as file:
            file.write(np.moveaxis(bands, 2, 0))
        return memory.read()


@pytest.mark.parametrize("interleave", ["band", "pixel"])
@pytest.mark.parametrize(
    "tiled", [dict(), dict(tiled=True, blockxsize=16, blockysize=16, compress="deflate")]
)
def test_a_tiff_that_lacks_pixels_is_refused(interleave, tiled):
    whole = tiff(PIXELS, interleave=interleave, photometric="rgb", **tiled)
    np.testing.assert_array_equal(decode_image_rows(whole)[0], PIXELS)
    for cut in (1, 50, 500):
        with pytest.raises(UnusableImage, match="lacks a part of its pixels: copy"):
            decode_image_rows(whole[:-cut])


TWELVE_BITS = (PIXELS.astype(np.uint16) * 16)[..., ::-1]
DEEP = {
    "png": lambda: cv2.imencode(".png", TWELVE_BITS)[1].tobytes(),
    "grey png": lambda: cv2.imencode(".png", TWELVE_BITS[..., 0])[1].tobytes(),
    "pgm": lambda: cv2.imencode(".pgm", TWELVE_BITS[..., 0])[1].tobytes(),
    "tiff": lambda: cv2.imencode(".tiff", TWELVE_BITS)[1].tobytes(),
    "float": lambda: tiff(PIXELS.astype(np.float32), photometric="rgb"),
    "grey float": lambda: tiff(IDS[..., None].astype(np.float32)),
    "grey of 12 bits": lambda: tiff(TWELVE_BITS[..., :1], nbits=12),
    "grey of 32 bits": lambda: tiff(IDS[..., None].astype(np.int32)),
}


@pytest.mark.parametrize("kind", DEEP)
def test_more_than_8_bits_are_refused_with_the_fix(tmp_path, kind):
    (tmp_path / "deep").write_bytes(DEEP[kind]())
    with pytest.raises(UserError, match=r"deep cannot be read.*(int|float).*cut to 8 bits: .*-scale"):
        read_image(tmp_path / "deep")


def test_bands_that_are_no_colours_are_refused():
    # OpenCV reads the first band of these alone, and says nothing.
    for bands in (PIXELS[..., :2], PIXELS, np.dstack([PIXELS, IDS])):
        with pytest.raises(
            UnusableImage, match=f"{bands.shape[2]} bands.*the first alone: .*PHOTOMETRIC=RGB"
        ):
            decode_image_rows(tiff(bands, photometric="minisblack"))
    with pytest.raises(UnusableImage, match="5 bands.*none: "):
        decode_image_rows(tiff(np.dstack([PIXELS, PIXELS[..., :2]])))
    infrared = tiff(np.dstack([PIXELS, IDS]), photometric="rgb", ALPHA="NO")
    np.testing.assert_array_equal(decode_image_rows(infrared)[0], PIXELS)


def test_alpha_may_not_darken_a_tiff():
    alpha = np.where(np.arange(WIDTH) < 9, 0, 255).astype(np.uint8)
    half = np.dstack([PIXELS, np.broadcast_to(alpha, IDS.shape)])
    with pytest.raises(UnusableImage, match="alpha.*without alpha"):
        decode_image_rows(tiff(half, ALPHA="YES", photometric="rgb"))
    black = np.where(half[..., 3:] > 0, half, 0)  # what a map without data at its border looks like
    found = decode_image_rows(tiff(black, ALPHA="YES", photometric="rgb"))[0]
    np.testing.assert_array_equal(found, black[..., :3])
    np.testing.assert_array_equal(decode_image_rows(encoded(Image.fromarray(half)))[0], PIXELS)  # a PNG


@pytest.mark.parametrize("how", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_pictures_are_turned_as_their_orientation_says(kind, how):
    exif = Image.Exif()
    exif[0x0112] = how
    options = dict(tiffinfo={274: how}) if kind == "TIFF" else dict(exif=exif)
    smooth = Image.fromarray(cv2.resize(PIXELS[:4, :5], (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))
    data = encoded(smooth, kind, **options)
    upright = {
        1: lambda image: image,
        2: lambda image: image[:, ::-1],
        3: lambda image: image[::-1, ::-1],
        4: lambda image: image[::-1],
        5: lambda image: image.swapaxes(0, 1),
        6: lambda image: image[::-1].swapaxes(0, 1),
        7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
        8: lambda image: image[:, ::-1].swapaxes(0, 1),
    }[how]
    rows, size = decode_image_rows(data, 2, 20)
    plain = np.asarray(Image.open(io.BytesIO(encoded(smooth, kind))).convert("RGB"))
    assert size == ((HEIGHT, WIDTH) if how < 5 else (WIDTH, HEIGHT))
    assert np.abs(rows.astype(int) - upright(plain)[2:20]).max() < 3
    assert orientation(data) == how


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
    with pytest.raises(UserError, match="nowhere.png cannot be read: it does not exist"):
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


def test_an_animation_keeps_its_frames_and_its_colours():
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 3, axis=2).repeat(40, 0)
    frames = [ramp.copy() for _ in range(3)]
    for number, one in enumerate(frames):
        one[5:15, 10 * number : 10 * number + 10] = (53, 240, 255)  # moves
    with Image.open(io.BytesIO(encode_animation(iter(frames), 120))) as animation:
        assert (animation.format, animation.n_frames, animation.info["loop"]) == ("GIF", 3, 0)
        for number, expected in enumerate(frames):
            animation.seek(number)
            assert animation.info["duration"] == 120
            found = np.asarray(animation.convert("RGB"), int)
            assert np.abs(found - expected).max() < 12
