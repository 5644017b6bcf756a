"""Whatever a picture is given as, its pixels are those of its file, or it is refused by one message."""

import io
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from PIL import Image, ImageCms

from danseg.apis.pictures import CHANNEL_ORDERS, load
from danseg.datasets.loading import loading_step
from danseg.errors import UserError

HEIGHT, WIDTH = 24, 37
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY = PIXELS[..., 0]
RGBA = np.dstack([PIXELS, GREY])
TENSOR = torch.from_numpy(PIXELS).permute(2, 0, 1)


@pytest.fixture(autouse=True)
def scope():
    init_default_scope("mmseg")


def loader(color_type="color", **options):
    return loading_step([dict(type="LoadImageFromFile", color_type=color_type, **options)])


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def read_only(pixels: np.ndarray) -> np.ndarray:
    pixels = pixels.copy()
    pixels.flags.writeable = False
    return pixels


SAME = {
    "array": (PIXELS, {}),
    "bgr": (PIXELS[..., ::-1], dict(channel_order="bgr")),
    "rgba": (RGBA, {}),
    "bgra": (RGBA[..., [2, 1, 0, 3]], dict(channel_order="bgr")),
    "negative strides": (np.ascontiguousarray(PIXELS[::-1, ::-1])[::-1, ::-1], {}),
    "columns first": (np.asfortranarray(PIXELS), {}),
    "part of an array": (np.pad(PIXELS, ((1, 2), (3, 4), (0, 0)))[1:-2, 3:-4], {}),
    "read-only": (read_only(PIXELS), {}),
    "masked nowhere": (np.ma.array(PIXELS, mask=False), {}),
    "float32": (PIXELS / np.float32(255), dict(unit_range=True)),
    "float64": (PIXELS / 255, dict(unit_range=True)),
    "float bgr": (PIXELS[..., ::-1] / 255, dict(unit_range=True, channel_order="bgr")),
    "uint8 beside floats": (PIXELS, dict(unit_range=True)),
    "tensor": (TENSOR, {}),
    "contiguous tensor": (TENSOR.contiguous(), {}),
    "bgr tensor": (TENSOR.flip(0), dict(channel_order="bgr")),
    "rgba tensor": (torch.from_numpy(RGBA).permute(2, 0, 1), {}),
    "float tensor": (TENSOR / 255, dict(unit_range=True)),
    "half tensor": ((TENSOR / 255).half(), dict(unit_range=True)),
    "with a gradient": ((TENSOR / 255).double().requires_grad_(), dict(unit_range=True)),
    "negated tensor": (torch.complex(TENSOR.float(), TENSOR / -255.0).conj().imag, dict(unit_range=True)),
    "parameter": (torch.nn.Parameter(TENSOR / 255), dict(unit_range=True)),
    "bytes": (encoded(Image.fromarray(PIXELS)), {}),
    "bytearray": (bytearray(encoded(Image.fromarray(PIXELS))), {}),
    "memoryview": (memoryview(encoded(Image.fromarray(PIXELS))), {}),
    "PIL": (Image.fromarray(PIXELS), {}),
    "PIL with alpha": (Image.fromarray(RGBA), {}),
}


@pytest.mark.parametrize("kind", SAME)
def test_every_kind_stands_for_the_pixels_of_its_file(tmp_path, kind):
    image, options = SAME[kind]
    (tmp_path / "picture.png").write_bytes(encoded(Image.fromarray(PIXELS)))
    expected = load(loader(), tmp_path / "picture.png")
    np.testing.assert_array_equal(expected["img"][..., ::-1], PIXELS)
    before = np.array(image) if isinstance(image, np.ndarray) else None
    found = load(loader(), image, **options)
    np.testing.assert_array_equal(found["img"], expected["img"])
    assert found["img"].dtype == np.uint8 and found["img"].flags.writeable
    assert found["ori_shape"] == expected["ori_shape"] and found["img_path"] is None
    if before is not None:
        assert not np.shares_memory(found["img"], image)
        np.testing.assert_array_equal(image, before)


def test_a_tensor_on_any_device(device):
    found = load(loader(), TENSOR.to(device))["img"]
    np.testing.assert_array_equal(found[..., ::-1], PIXELS)


def test_grey_is_grey_in_either_order():
    for order in CHANNEL_ORDERS:
        for grey in (GREY, GREY[..., None], torch.from_numpy(GREY)[None], Image.fromarray(GREY)):
            for color_type, expected in (("color", np.dstack([GREY] * 3)), ("grayscale", GREY)):
                found = load(loader(color_type), grey, channel_order=order)["img"]
                np.testing.assert_array_equal(found, expected)


PALETTE = Image.fromarray(PIXELS).quantize(16)
CLEAR = PALETTE.copy()
CLEAR.info["transparency"] = bytes(range(16))


@pytest.mark.parametrize("color_type", ["color", "unchanged", "color_ignore_orientation"])
@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(PIXELS),
        Image.fromarray(GREY),
        Image.fromarray(GREY > 100),
        Image.fromarray(RGBA),
        Image.fromarray(np.dstack([GREY, PIXELS[..., 1]]), "LA"),
        PALETTE,
        CLEAR,
        Image.fromarray(GREY.astype(np.uint16) * 16),
    ],
    ids=["RGB", "L", "1", "RGBA", "LA", "P", "P with alpha", "I;16"],
)
def test_a_pil_image_is_what_its_png_is(color_type, image):
    data = encoded(image)
    try:
        expected = load(loader(color_type), data)["img"]
    except UserError:
        assert image.mode == "I;16" and color_type != "unchanged"
        for one in (image, Image.open(io.BytesIO(data))):
            with pytest.raises(ValueError, match="must be uint8, 0 to 255.*got uint16"):
                load(loader(color_type), one)
        return
    for one in (image, Image.open(io.BytesIO(data))):
        found = load(loader(color_type), one)["img"]
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


@pytest.mark.parametrize("mode", ["RGBa", "La"])
def test_colours_that_are_multiplied_with_alpha_are_divided_by_it(mode):
    plain = Image.fromarray(np.dstack([PIXELS if mode == "RGBa" else GREY, np.full_like(GREY, 128)]))
    applied = plain.convert(mode)
    for color_type in ("color", "unchanged"):
        expected = load(loader(color_type), plain)["img"].astype(int)
        found = load(loader(color_type), applied)["img"]
        assert found.shape == expected.shape and np.abs(found - expected).max() <= 2


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "HSV", "RGBX"])
def test_other_colours_become_what_pillow_makes_of_them(mode):
    image = Image.fromarray(PIXELS).convert("RGB")
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    else:
        image = image.convert(mode)
    found = load(loader(), image)["img"][..., ::-1]
    # As far as Pillow's own way back; CMYK and HSV lose little, LAB and YCbCr some levels.
    assert np.abs(found.astype(int) - PIXELS).mean() < 8


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("how", range(10))
def test_orientation_turns_a_pil_image_as_its_file(kind, how):
    """Also those that are none, 0 and 9."""
    exif = Image.Exif()
    exif[0x0112] = how
    options = dict(tiffinfo={274: how}) if kind == "TIFF" else dict(exif=exif)
    data = encoded(Image.fromarray(PIXELS), kind, **options)
    if kind == "WEBP":  # which Pillow and OpenCV decode alike if nothing is lost
        data = encoded(Image.fromarray(PIXELS), kind, lossless=True, **options)
    for color_type in ("color", "color_ignore_orientation"):
        expected = load(loader(color_type), data)["img"]
        turns = how in (5, 6, 7, 8) and (color_type == "color" or kind == "TIFF")
        assert expected.shape[:2] == ((WIDTH, HEIGHT) if turns else (HEIGHT, WIDTH))
        image = Image.open(io.BytesIO(data))
        size, tolerance = image.size, 3 if kind == "JPEG" else 0
        for _ in range(2):  # it is not changed
            found = load(loader(color_type), image)["img"]
            assert found.shape == expected.shape
            assert np.abs(found.astype(int) - expected).max() <= tolerance
        if kind != "TIFF":  # which Pillow turns when it loads it
            assert image.size == size


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_notes_do_not_refuse_a_pil_image():
    image = Image.fromarray(PIXELS)
    image.info["exif"] = b"Exif\0\0MM\0*\0\0\0\x08\0\x09no notes"
    np.testing.assert_array_equal(load(loader(), image)["img"][..., ::-1], PIXELS)


def test_a_damaged_pil_image_is_named(tmp_path):
    path = tmp_path / "cut.png"
    path.write_bytes(encoded(Image.fromarray(PIXELS))[:-200])
    with pytest.raises(UserError, match=r"^image .*cut\.png cannot be read: "):
        load(loader(), Image.open(path))
    with pytest.raises(UserError, match=r"^image \(PIL, RGB, 37x24\) cannot be read: "):
        load(loader(), Image.open(io.BytesIO(path.read_bytes())))


def test_colours_that_pillow_cuts_to_8_bits_are_refused(tmp_path):
    import cv2

    for suffix in ("png", "tif"):
        path = tmp_path / f"deep.{suffix}"
        cv2.imwrite(str(path), PIXELS.astype(np.uint16) * 16)
        for color_type in ("color", "unchanged"):
            with pytest.raises(
                UserError, match=rf"^image .*deep\.{suffix} has 16 bits a channel, of which Pillow keeps 8"
            ):
                load(loader(color_type), Image.open(path))


def quantised() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to drop them
        return torch.quantize_per_tensor(TENSOR.float(), 1.0, 0, torch.quint8)


WITH_NAN = (TENSOR / 255).index_put((torch.tensor(1), torch.tensor(2), torch.tensor(3)), torch.tensor(np.nan))
REFUSED = {
    "floats": (TENSOR / 255, {}, r"uint8, 0 to 255, got torch\.float32; .* unit_range=True"),
    "float array": (PIXELS / 255, {}, r"uint8, 0 to 255, got float64; .* unit_range=True"),
    "bfloat16": ((TENSOR / 255).bfloat16(), {}, r"got torch\.bfloat16; .* unit_range=True"),
    "0..255 as 0..1": (TENSOR.float(), dict(unit_range=True), r"0\.\.1 .* values from 0 to 255"),
    "normalised": (TENSOR / 127.5 - 1, dict(unit_range=True), "values from -1 to 1; .*undo a normalisation"),
    "nan": (WITH_NAN, dict(unit_range=True), "not finite"),
    "inf": (np.full((3, 4), np.inf), dict(unit_range=True), "not finite"),
    "channels last": (TENSOR.permute(1, 2, 0), {}, r"\(C, H, W\), got \(24, 37, 3\).*\.permute\(2, 0, 1\)"),
    "ambiguous": (TENSOR[..., :3], {}, r"got \(3, 24, 3\).*ambiguous: give it as an array"),
    "grey of two dimensions": (TENSOR[0], {}, r"\(C, H, W\), got \(24, 37\)"),
    "a batch": (TENSOR[None], {}, r"got \(1, 3, 24, 37\).*several images as a list"),
    "a batch of arrays": (PIXELS[None], {}, r"got \(1, 24, 37, 3\); give several images as a list"),
    "two channels": (TENSOR[:2], {}, r"\(H, W\) or .*got \(24, 37, 2\)"),
    "channels first": (PIXELS.transpose(2, 0, 1), {}, r"got \(3, 24, 37\)"),
    "no rows": (TENSOR[:, :0], {}, "none of them 0"),
    "no columns": (TENSOR[..., :0], {}, "none of them 0"),
    "no channels": (TENSOR[:0], {}, "none of them 0"),
    "no rows of floats": (PIXELS[:0] / 255, dict(unit_range=True), "none of them 0"),
    "int64": (TENSOR.long(), {}, "got int64"),
    "16 bits": (PIXELS.astype(np.uint16), {}, "got uint16"),
    "bool": (TENSOR > 3, {}, "got bool"),
    "complex": (TENSOR * 1j, {}, "got complex64"),
    "conjugated": ((TENSOR * 1j).conj(), {}, "got complex64"),
    "objects": (PIXELS.astype(object), {}, "got object"),
    "sparse": (TENSOR.float().to_sparse(), {}, "plain numbers.*sparse"),
    "meta": (TENSOR.to("meta"), {}, "plain numbers.*on meta"),
    "quantised": (quantised(), {}, "plain numbers.*quint8"),
    "masked": (np.ma.array(PIXELS, mask=PIXELS > 250), {}, "masked pixels"),
    "five channels as bgr": (
        np.dstack([PIXELS, PIXELS[..., :2]]),
        dict(channel_order="bgr"),
        r"4 with alpha",
    ),
    "another order": (PIXELS, dict(channel_order="rbg"), "channel_order must be one of rgb, bgr, got 'rbg'"),
    "another order of a path": (Path("x"), dict(channel_order="RGB"), "channel_order must be one of"),
    "None": (
        None,
        {},
        r"must be a path, the bytes of a file, .* or a PIL image \(several as a list\), got NoneType",
    ),
    "an open file": (io.BytesIO(), {}, "got BytesIO"),
    "a generator": (iter([PIXELS]), {}, "several as a list.*, got list_iterator"),
    "a list": ([PIXELS], {}, r"must be a single picture here, got a list of 1; predict and Segmenter take"),
    "floats of PIL": (Image.fromarray(PIXELS[..., 0].astype(np.float32)), {}, "uint8, 0 to 255.*got float32"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_none_is_refused_by_one_message(kind):
    image, options, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message) as caught:
        load(loader(), image, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no image", encoded(Image.fromarray(PIXELS))[:-40]])
def test_damaged_bytes_are_a_users_error(content):
    with pytest.raises(UserError, match=f"^{re.escape(f'image of {len(content)} bytes cannot be read: ')}"):
        load(loader(), content)


def test_a_pipeline_that_keeps_values_gets_them():
    deep = GREY.astype(np.uint16) * 16
    for one in (deep, Image.fromarray(deep)):
        np.testing.assert_array_equal(load(loader("unchanged"), one)["img"], deep)
    floats = PIXELS.astype(np.float32) / 7
    found = load(loader("unchanged"), torch.from_numpy(floats).permute(2, 0, 1))["img"]
    np.testing.assert_array_equal(found[..., ::-1], floats)


def test_a_step_that_turns_no_files_turns_no_pil_image():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(encoded(Image.fromarray(PIXELS), exif=exif)))
    as_stored = loader(imdecode_backend="tifffile")
    np.testing.assert_array_equal(load(as_stored, image)["img"], PIXELS)
