"""Pictures are loaded as mmseg's own steps load them, from files and from arrays, or refused with the fix."""

import io
import re

import cv2
import mmcv
import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS
from PIL import Image

from danseg.datasets.loading import load_picture, loading_step, shown, turned_by
from danseg.errors import UserError

rasterio = pytest.importorskip("rasterio")

HEIGHT, WIDTH = 24, 37
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY = PIXELS[..., 0]
RGBA = np.dstack([PIXELS, GREY])
COLOUR_TYPES = (
    "color",
    "color_ignore_orientation",
    "grayscale",
    "grayscale_ignore_orientation",
    "unchanged",
)


def encoded(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    (Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels).save(stream, kind, **options)
    return stream.getvalue()


def tiff(bands: np.ndarray, **options) -> bytes:
    with rasterio.MemoryFile() as memory:
        profile = dict(driver="GTiff", count=bands.shape[2], height=HEIGHT, width=WIDTH, dtype=bands.dtype)
        with memory.open(**profile, **options) as file:
            file.write(np.moveaxis(bands, 2, 0))
        return memory.read()


TURNED = Image.Exif()
TURNED[0x0112] = 6
GOOD = {
    "rgb": encoded(PIXELS),
    "jpeg": encoded(PIXELS, "JPEG"),
    "turned jpeg": encoded(PIXELS, "JPEG", exif=TURNED),
    "turned png": encoded(PIXELS, exif=TURNED),
    "turned tiff": encoded(PIXELS, "TIFF", tiffinfo={274: 6}),
    "grey": encoded(GREY),
    "rgba": encoded(RGBA),
    "palette": encoded(Image.fromarray(PIXELS).quantize(16)),
    "one bit": encoded(Image.fromarray(PIXELS).convert("1")),
    "cmyk": encoded(Image.fromarray(PIXELS).convert("CMYK"), "JPEG"),
    "tiff": encoded(PIXELS, "TIFF"),
    "tiff with infrared": tiff(RGBA, photometric="rgb", ALPHA="NO"),
}
DEEP = {
    "16 bits": cv2.imencode(".png", PIXELS.astype(np.uint16) * 16)[1].tobytes(),
    "grey of 16 bits": cv2.imencode(".png", GREY.astype(np.uint16) * 16)[1].tobytes(),
    "float": tiff(PIXELS.astype(np.float32), photometric="rgb"),
}


@pytest.fixture(autouse=True)
def scope():
    init_default_scope("mmseg")


def step(**options):
    return dict(type="LoadImageFromFile", **options)


def stored(tmp_path, data: bytes):
    path = tmp_path / "picture"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("backend", ["cv2", "pillow"])
@pytest.mark.parametrize("color_type", COLOUR_TYPES)
def test_files_give_the_numbers_of_mmsegs_own_step(tmp_path, color_type, backend):
    config = step(color_type=color_type, imdecode_backend=backend, to_float32=color_type == "color")
    own, loader = TRANSFORMS.build(config), loading_step([config])
    for kind, data in {**GOOD, **(DEEP if color_type == "unchanged" and backend == "cv2" else {})}.items():
        path = stored(tmp_path, data)
        expected, found = own(dict(img_path=str(path))), load_picture(loader, path)
        np.testing.assert_array_equal(found["img"], expected["img"], err_msg=kind)
        assert found["img"].dtype == expected["img"].dtype, kind
        assert {key: found[key] for key in expected if key != "img"} == {
            key: expected[key] for key in expected if key != "img"
        }
        turns = kind.startswith("turned") and (color_type in ("color", "grayscale") or "tiff" in kind)
        size = (WIDTH, HEIGHT) if turns else (HEIGHT, WIDTH)
        assert turned_by(loader, data) == (6 if turns else 1), kind
        assert found["ori_shape"] == size


@pytest.mark.parametrize("backend", ["cv2", "pillow"])
@pytest.mark.parametrize("color_type", COLOUR_TYPES)
def test_the_content_of_a_file_is_loaded_as_the_file(tmp_path, color_type, backend):
    loader = loading_step(
        [step(color_type=color_type, imdecode_backend=backend, to_float32=backend == "cv2")]
    )
    for kind, data in {**GOOD, **DEEP, "no image": b"no image", "cut": GOOD["rgb"][:-40]}.items():
        path = stored(tmp_path, data)
        try:
            expected = load_picture(loader, path)
        except UserError as error:
            reason = str(error).replace(f"image {path}", f"image of {len(data)} bytes")
            with pytest.raises(UserError, match=f"^{re.escape(reason)}$"):
                load_picture(loader, data)
            continue
        found = load_picture(loader, data)
        np.testing.assert_array_equal(found["img"], expected.pop("img"), err_msg=kind)
        assert found["img_path"] is None
        assert {key: found[key] for key in expected} == {**expected, "img_path": None}


@pytest.mark.parametrize("color_type", COLOUR_TYPES[:-1])
@pytest.mark.parametrize("kind", DEEP)
def test_a_step_that_would_cut_to_8_bits_is_not_let_to(tmp_path, kind, color_type):
    loader = loading_step([step(color_type=color_type)])
    with pytest.raises(UserError, match="picture cannot be read.*cut to 8 bits.*color_type='unchanged'"):
        load_picture(loader, stored(tmp_path, DEEP[kind]))


@pytest.mark.parametrize("color_type", COLOUR_TYPES)
def test_damaged_files_are_named_by_every_step(tmp_path, color_type):
    loader = loading_step([step(color_type=color_type)])
    for data in (b"", b"no image", GOOD["rgb"][:-40], GOOD["jpeg"][:-40], GOOD["tiff"][:-40]):
        with pytest.raises(UserError, match="picture cannot be read"):
            load_picture(loader, stored(tmp_path, data))
    with pytest.raises(UserError, match=r"nowhere\.png cannot be read: it does not exist"):
        load_picture(loader, tmp_path / "nowhere.png")
    with pytest.raises(UserError, match="is a folder"):
        load_picture(loader, tmp_path)


def test_a_tiff_is_not_read_in_part_and_not_darkened(tmp_path):
    half = np.dstack([PIXELS, np.full_like(GREY, 128)])
    for color_type in COLOUR_TYPES:
        loader = loading_step([step(color_type=color_type)])
        with pytest.raises(UserError, match="4 bands"):
            load_picture(loader, stored(tmp_path, tiff(RGBA, photometric="minisblack", ALPHA="NO")))
        with pytest.raises(UserError, match="alpha"):
            load_picture(loader, stored(tmp_path, tiff(half, photometric="rgb", ALPHA="YES")))
    deep = half.astype(np.uint16)
    loader = loading_step([step(color_type="unchanged")])
    found = load_picture(loader, stored(tmp_path, tiff(deep, photometric="rgb", ALPHA="NO")))["img"]
    np.testing.assert_array_equal(found, deep[..., [2, 1, 0, 3]])


@pytest.mark.parametrize(
    ("color_type", "pixels"),
    [
        ("color", PIXELS),
        ("color", GREY),
        ("color", GREY[..., None]),
        ("color", RGBA),
        ("color_ignore_orientation", PIXELS),
        ("grayscale", GREY),
        ("unchanged", GREY),
        ("unchanged", PIXELS),
        ("unchanged", RGBA),
        ("unchanged", PIXELS.astype(np.uint16) * 16),
        ("unchanged", GREY.astype(np.uint16) * 16),
        ("color", PIXELS[::-1, ::2]),
        ("color", np.asfortranarray(PIXELS)),
        ("unchanged", RGBA[:, ::-1]),
        ("grayscale", GREY.T),
    ],
)
def test_an_array_is_what_its_file_is(tmp_path, color_type, pixels):
    bgr = pixels if pixels.ndim == 2 or pixels.shape[2] == 1 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    path = stored(tmp_path, cv2.imencode(".png", np.ascontiguousarray(bgr))[1].tobytes())
    before = pixels.copy()
    for to_float32 in (False, True):
        loader = loading_step([step(color_type=color_type, to_float32=to_float32)])
        from_file, from_array = load_picture(loader, path)["img"], load_picture(loader, pixels)["img"]
        np.testing.assert_array_equal(from_array, from_file)
        assert from_array.dtype == from_file.dtype
        assert not np.shares_memory(from_array, pixels)
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize(
    ("color_type", "pixels", "message"),
    [
        ("color", PIXELS / np.float32(255), "uint8, 0 to 255.*float32.*scale"),
        ("color", PIXELS.astype(np.float64), "got float64"),
        ("color", PIXELS.astype(np.uint16), "got uint16"),
        ("color", PIXELS.astype(bool), "got bool"),
        ("color", PIXELS.astype(np.int64), "got int64"),
        ("color", PIXELS[None], r"\(H, W, channels\).*\(1, 24, 37, 3\)"),
        ("color", PIXELS[0, :, 0], "none of them 0, got"),
        ("color", PIXELS[:0], "none of them 0"),
        ("color", PIXELS[:, :0], "none of them 0"),
        ("color", PIXELS[..., :0], "none of them 0"),
        ("color", PIXELS[..., :2], r"\(H, W\) or \(H, W, 3\) RGB or \(H, W, 4\) RGBA"),
        ("color", PIXELS.transpose(2, 0, 1), r"got \(3, 24, 37\)"),
        ("grayscale", PIXELS, r"must be \(H, W\), as LoadImageFromFile\(color_type='grayscale'\)"),
        ("unchanged", PIXELS.astype(np.float64), "uint8, uint16, int16 or float32.*float64"),
        ("unchanged", np.full((3, 4), np.nan, np.float32), "not finite"),
        ("color", None, "a file's path or a NumPy array, got NoneType"),
        ("color", [[1]], "got list"),
        ("color", Image.fromarray(PIXELS), "got Image"),
    ],
)
def test_an_array_of_another_kind_is_refused(color_type, pixels, message):
    with pytest.raises(ValueError, match=message):
        load_picture(loading_step([step(color_type=color_type)]), pixels)


def test_all_bands_are_taken_where_the_step_loads_all(tmp_path):
    bands = np.random.default_rng(1).random((HEIGHT, WIDTH, 6), dtype=np.float32)
    np.save(tmp_path / "bands.npy", bands)
    if "LoadImageFromNpyFile" not in TRANSFORMS and TRANSFORMS.get("LoadImageFromNpyFile") is None:
        pytest.skip("this mmseg has no such step")
    loader = loading_step([dict(type="LoadImageFromNpyFile")])
    np.testing.assert_array_equal(load_picture(loader, tmp_path / "bands.npy")["img"], bands)
    np.testing.assert_array_equal(load_picture(loader, bands)["img"], bands)
    bands[3, 3] = np.inf
    np.save(tmp_path / "bands.npy", bands)
    with pytest.raises(UserError, match=r"bands\.npy holds values that are not finite"):
        load_picture(loader, tmp_path / "bands.npy")
    assert shown(loader, bands[:2]).shape == (2, WIDTH, 3)


def test_pixels_and_bytes_are_refused_where_nobody_knows_what_a_step_makes_of_them():
    @TRANSFORMS.register_module(force=True)
    class LoadsInAnotherWay:
        def __call__(self, results):
            return results

    for source, kind in ((PIXELS, "array"), (GOOD["rgb"], "bytes")):
        with pytest.raises(ValueError, match=rf"LoadsInAnotherWay\(\), which takes no {kind}; give the path"):
            load_picture(loading_step([dict(type="LoadsInAnotherWay")]), source)


@pytest.mark.parametrize("color_type", ["color", "unchanged"])
def test_what_is_drawn_on_is_the_picture(tmp_path, color_type):
    loader = loading_step([step(color_type=color_type)])
    for kind in ("rgb", "grey", "rgba"):
        image = load_picture(loader, stored(tmp_path, GOOD[kind]))["img"]
        expected = np.dstack([GREY] * 3) if kind == "grey" else PIXELS
        np.testing.assert_array_equal(shown(loader, image), expected)
        assert shown(loader, image).flags.c_contiguous
    deep = np.array([[100, 4095], [2097, 100]], np.uint16)
    np.testing.assert_array_equal(shown(loader, deep)[..., 1], [[0, 255], [127, 0]])
    np.testing.assert_array_equal(shown(loader, deep * 0), np.zeros((2, 2, 3)))


def test_a_step_that_takes_pixels_counts_as_the_one_that_read_them(tmp_path):
    taken, read = (loading_step([dict(type=f"LoadImageFrom{what}")]) for what in ("NDArray", "File"))
    for source in (PIXELS, GREY, stored(tmp_path, GOOD["rgb"])):
        np.testing.assert_array_equal(load_picture(taken, source)["img"], load_picture(read, source)["img"])


def test_mmcvs_global_backend_is_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(mmcv.image.io, "imread_backend", "pillow")
    config = step(imdecode_backend=None)
    path = stored(tmp_path, encoded(Image.fromarray(PIXELS).convert("LA")))
    expected = TRANSFORMS.build(config)(dict(img_path=str(path)))["img"]
    np.testing.assert_array_equal(load_picture(loading_step([config]), path)["img"], expected)
