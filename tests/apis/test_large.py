"""danseg.apis.predict_large against whole images, its files, its memory, and its errors."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from danseg import apis
from danseg.apis import large
from danseg.apis.predict import prepared_batch
from danseg.errors import UserError
from danseg.ops import upsampled_argmax

rasterio = pytest.importorskip("rasterio")
pytest.importorskip("rasterio.shutil")


def _picture(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(
        0, 256, (height // 6 + 2, width // 6 + 2, 3), dtype=np.uint8
    )
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _write(path: Path, image: np.ndarray, **profile) -> Path:
    """Write (H, W, 3) RGB, or bands (B, H, W), with GDAL."""
    bands = np.moveaxis(image, 2, 0) if image.shape[2] == 3 else image
    count, height, width = bands.shape
    profile = dict(driver="GTiff", count=count, height=height, width=width, dtype=bands.dtype) | profile
    colours = profile.pop("colours", None)
    with rasterio.open(path, "w", **profile) as file:
        if colours:
            file.colorinterp = [rasterio.enums.ColorInterp[name] for name in colours]
        file.write(bands)
    return path


def _labels(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


def _whole(model, image: np.ndarray) -> np.ndarray:
    """The labels that mmseg predicts for the whole (H, W, 3) RGB image."""
    with torch.no_grad():
        sample = model.test_step(prepared_batch(model, image))[0]
    return sample.pred_sem_seg.data[0].numpy()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("height", "width"),
    [(320, 448), (317, 450), (1300, 130), (96, 601), (50, 61), (128, 129), (521, 128), (9, 300)],
)
def test_a_network_that_sees_less_than_the_edges_of_tiles_labels_as_on_the_whole_image(
    near_sighted, tmp_path, height, width, align_corners
):
    model = near_sighted(align_corners=align_corners)
    source = _write(tmp_path / "large.tif", _picture(height, width))
    whole = _whole(model, _picture(height, width))
    done = apis.predict_large(model, source, tmp_path / "labels.tif", tile=128, overlap=32)
    labels = _labels(done)
    assert labels.dtype == np.uint8 and labels.shape == (height, width)
    assert len(np.unique(whole)) > 5
    # Blending rounds: where two classes tie to the last digit, the pixel may get either one.
    assert (labels != whole).mean() < 5e-5


def test_without_an_overlap_the_edges_of_tiles_show(near_sighted, tmp_path):
    model, image = near_sighted(), _picture(317, 450)
    source, whole = _write(tmp_path / "large.tif", image), _whole(near_sighted(), image)
    labels = _labels(apis.predict_large(model, source, tmp_path / "labels.tif", tile=128, overlap=0))
    assert 1e-4 < (labels != whole).mean() < 0.2


def test_tiles_fade_into_each_other(near_sighted, tmp_path, monkeypatch):
    # A network that sees far gives different logits in each tile; here they are the tile's number.
    numbers, maps = iter(range(9)), []

    def number(model, pixels):
        return torch.full((2, *(-(-length // 8) for length in pixels.shape[1:])), float(next(numbers)))

    def record(logits, size, **options):
        maps.append(logits)
        return upsampled_argmax(logits, size, **options)

    monkeypatch.setattr(large, "_logits", number)
    monkeypatch.setattr(large, "upsampled_argmax", record)
    source = _write(tmp_path / "large.tif", _picture(100, 256))
    apis.predict_large(near_sighted(), source, tmp_path / "labels.tif", tile=128, overlap=64)
    ramp = [0.125, 0.375, 0.625, 0.875]
    expected = [0.0] * 10 + ramp + [1.0] * 4 + [1 + r for r in ramp] + [2.0] * 10
    torch.testing.assert_close(maps[0], torch.tensor(expected).expand(1, 2, 13, 32))


def _encoded(image: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(stream, kind, **options)
    return stream.getvalue()


def _turned(how: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = how
    return exif


_PICTURE = _picture(230, 301)
_BLACK_BORDER = np.dstack([_PICTURE, np.full((230, 301), 255, np.uint8)])
_BLACK_BORDER[:50] = 0
FILES = {
    "png": lambda: _encoded(_PICTURE, "PNG"),
    "jpeg": lambda: _encoded(_PICTURE, "JPEG"),
    "webp": lambda: _encoded(_PICTURE, "WEBP"),
    "bmp": lambda: _encoded(_PICTURE, "BMP"),
    "grey": lambda: _encoded(_PICTURE[..., 0], "PNG"),
    "grey jpeg": lambda: _encoded(_PICTURE[..., 0], "JPEG"),
    "grey with alpha": lambda: _encoded(Image.fromarray(_PICTURE[..., 0]).convert("LA"), "PNG"),
    "alpha": lambda: _encoded(np.dstack([_PICTURE, _PICTURE[..., 0]]), "PNG"),
    "palette": lambda: _encoded(Image.fromarray(_PICTURE).quantize(32), "PNG"),
    "palette tiff": lambda: _encoded(Image.fromarray(_PICTURE).quantize(32), "TIFF"),
    "one bit": lambda: _encoded(Image.fromarray(_PICTURE).convert("1"), "PNG"),
    "one bit tiff": lambda: _encoded(Image.fromarray(_PICTURE).convert("1"), "TIFF"),
    "tiff, 0 is white": lambda: _encoded(_PICTURE[..., 0], "TIFF", tiffinfo={262: 0}),
    "cmyk": lambda: _encoded(Image.fromarray(_PICTURE).convert("CMYK"), "JPEG"),
    "cmyk tiff": lambda: _encoded(Image.fromarray(_PICTURE).convert("CMYK"), "TIFF"),
    "tiff": lambda: _encoded(_PICTURE, "TIFF", compression="tiff_lzw"),
    "tiff with a black border": lambda: _encoded(_BLACK_BORDER, "TIFF"),
    **{
        f"{kind} turned {how}": lambda kind=kind, how=how: (
            _encoded(_PICTURE, kind, tiffinfo={274: how})
            if kind == "TIFF"
            else _encoded(_PICTURE, kind, exif=_turned(how))
        )
        for kind in ("JPEG", "PNG", "TIFF")
        for how in range(1, 9)
    },
}


@pytest.mark.parametrize("kind", FILES)
def test_every_file_gives_the_labels_of_the_whole_picture(near_sighted, tmp_path, kind):
    model, source = near_sighted(), tmp_path / "source"
    source.write_bytes(FILES[kind]())
    whole = apis.predict(model, source)
    upright = not kind.endswith(("turned 5", "turned 6", "turned 7", "turned 8"))
    assert whole.shape == ((230, 301) if upright else (301, 230))
    assert apis.read_picture(model, source).shape[:2] == whole.shape
    labels = _labels(apis.predict_large(model, source, tmp_path / "labels.tif", tile=128, overlap=32))
    assert labels.shape == whole.shape and len(np.unique(whole)) > 1
    assert (labels != whole).mean() < 1e-4
    assert (apis.predict(model, apis.read_picture(model, source)) == whole).all()


@pytest.mark.parametrize("color_type", ["color_ignore_orientation", "unchanged"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_pipeline_that_turns_nothing_is_followed(near_sighted, tmp_path, color_type, kind):
    model, source = near_sighted(loader=dict(color_type=color_type)), tmp_path / "source"
    source.write_bytes(FILES[f"{kind} turned 6"]())
    whole = apis.predict(model, source)
    assert whole.shape == ((301, 230) if kind == "TIFF" else (230, 301))  # decoders always turn TIFFs
    labels = _labels(apis.predict_large(model, source, tmp_path / "labels.tif", tile=128, overlap=32))
    assert labels.shape == whole.shape and (labels != whole).mean() < 1e-4


@pytest.mark.parametrize("how", ["tiled", "infrared", "premultiplied"])
def test_other_tiffs_of_the_same_picture(near_sighted, tmp_path, how):
    model, bands = near_sighted(), np.moveaxis(_PICTURE, 2, 0)
    more = np.concatenate([bands, bands[:1]])
    source = tmp_path / "large.tif"
    if how == "tiled":
        options = dict(tiled=True, blockxsize=64, blockysize=64, compress="deflate", interleave="pixel")
        _write(source, _PICTURE, **options)
    elif how == "infrared":
        _write(source, more, photometric="rgb", ALPHA="NO")
    else:
        _write(source, more, photometric="rgb", ALPHA="PREMULTIPLIED")
    whole = apis.predict(model, source)
    assert (whole == apis.predict(model, _PICTURE)).all()
    labels = _labels(apis.predict_large(model, source, tmp_path / "labels.tif", tile=128, overlap=32))
    assert (labels != whole).mean() < 1e-4


def _cut(data: bytes, kept: float) -> bytes:
    return data[: int(len(data) * kept)]


_SQUARE = _picture(512, 512)
DAMAGED = {
    f"{kind}, {kept}": lambda kind=kind, kept=kept: _cut(_encoded(_SQUARE, kind), kept)
    for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
    for kept in (0.0, 0.3, 0.98)
} | {
    "png without its end": lambda: _encoded(_SQUARE, "PNG")[:-4],
    "png with a flipped bit": lambda: (
        lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 8]) + data[len(data) // 2 + 1 :]
    )(_encoded(_SQUARE, "PNG")),
    "png filled with zeros": lambda: (lambda data: _cut(data, 0.5).ljust(len(data), b"\0"))(
        _encoded(_SQUARE, "PNG")
    ),
    "png of a huge width": lambda: _encoded(_SQUARE, "PNG").replace(
        _encoded(_SQUARE, "PNG")[12:33], _HUGE + zlib.crc32(_HUGE).to_bytes(4, "big")
    ),
}
_HUGE = b"IHDR" + struct.pack(">IIBBBBB", 2**31 - 1, 512, 8, 2, 0, 0, 0)
REFUSED = {
    "16 bits": (np.ones((3, 20, 30), np.uint16), dict(photometric="rgb"), "cut to 8 bits.*-ot Byte -scale"),
    "grey of 16 bits": (np.ones((1, 20, 30), np.uint16), {}, "cut to 8 bits.*-ot Byte -scale"),
    "floats": (np.ones((3, 20, 30), np.float32), dict(photometric="rgb"), "float32.*-ot Byte -scale"),
    "two bands": (np.ones((2, 20, 30), np.uint8), {}, "2 bands"),
    "three bands": (np.ones((3, 20, 30), np.uint8), dict(photometric="minisblack"), "3 bands"),
    "five bands": (np.ones((5, 20, 30), np.uint8), {}, "5 bands"),
    "colours from blue to red": (
        np.ones((3, 20, 30), np.uint8),
        dict(colours=["blue", "green", "red"]),
        "3 bands",
    ),
    "alpha that darkens": (np.full((4, 20, 30), 9, np.uint8), dict(photometric="rgb", ALPHA="YES"), "alpha"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_are_refused_by_tiles_as_by_whole_pictures(near_sighted, tmp_path, kind, capfd):
    model, source = near_sighted(), tmp_path / "source"
    source.write_bytes(DAMAGED[kind]())
    for run in (
        lambda: apis.predict(model, source),
        lambda: apis.predict_large(model, source, tmp_path / "labels.tif", tile=128, overlap=32),
        lambda: apis.read_picture(model, source),
    ):
        with pytest.raises(UserError, match="source cannot be read"):
            run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["camvid", "source"]
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf \n", b"<!-- a picture -->\n"])
def test_a_picture_names_no_other_files_but_a_mosaic_does(near_sighted, tmp_path, before):
    """Whoever sends a picture would choose what is read, from this machine or its network."""
    model, image = near_sighted(), _picture(64, 96)
    part = _write(tmp_path / "part.tif", image)
    mosaic = tmp_path / "mosaic.vrt"
    rasterio.shutil.copy(part, mosaic, driver="VRT")
    apis.predict_large(model, mosaic, tmp_path / "labels.tif", tile=64, overlap=16)
    for name in ("picture.tif", "picture"):
        (tmp_path / name).write_bytes(before + mosaic.read_bytes())
        with pytest.raises(UserError, match=f"{name} cannot be read.*can name other files"):
            apis.predict_large(model, tmp_path / name, tmp_path / "other.tif")
    assert not (tmp_path / "other.tif").exists()


@pytest.mark.parametrize("kind", REFUSED)
def test_other_files_are_refused_by_tiles_as_by_whole_pictures(near_sighted, tmp_path, kind):
    bands, options, message = REFUSED[kind]
    model, source = near_sighted(), _write(tmp_path / "other.tif", bands, **options)
    for run in (
        lambda: apis.predict(model, source),
        lambda: apis.predict_large(model, source, tmp_path / "labels.tif"),
        lambda: apis.read_picture(model, source),
    ):
        with pytest.raises(UserError, match=rf"other\.tif.*{message}"):
            run()
    assert not (tmp_path / "labels.tif").exists()


@pytest.mark.parametrize(
    ("loader", "channels", "dtype"),
    [
        (dict(color_type="grayscale"), 1, np.uint8),
        (dict(color_type="unchanged"), 1, np.uint16),
        (dict(color_type="unchanged", to_float32=True), 3, np.uint16),
        (dict(color_type="unchanged"), 3, np.float32),
        (dict(color_type="unchanged"), 4, np.uint8),
        (dict(color_type="unchanged", to_float32=True), 4, np.uint16),
        (dict(imdecode_backend="pillow"), 3, np.uint8),
    ],
)
def test_a_network_of_other_channels_sees_what_its_pipeline_loads(
    near_sighted, tmp_path, loader, channels, dtype
):
    image = np.dstack([_PICTURE, _PICTURE[..., 1]])[..., :channels].astype(dtype)
    options = dict(photometric="rgb", ALPHA="NO") if channels > 2 else {}
    source = _write(tmp_path / "large.tif", np.moveaxis(image, 2, 0), **options)
    normalise = dict(type="Normalize", mean=[90.0] * channels, std=[70.0] * channels, to_rgb=False)
    model = near_sighted(channels=channels, loader=loader, steps=[normalise])
    order = [0, 1, 2] if channels == 3 else [2, 1, 0, 3][:channels] if channels > 1 else [0]  # RGB at last
    # By hand: the loaded bands, normalised, through the network.
    pixels = torch.from_numpy(((image[..., order].astype(np.float32) - 90) / 70).transpose(2, 0, 1).copy())
    with torch.no_grad():
        logits = model.encode_decode(pixels[None], [dict(img_shape=pixels.shape[1:])])[0]
    whole = apis.predict(model, source)
    assert (whole == logits.argmax(0).numpy()).mean() > 0.9999 and len(np.unique(whole)) > 1
    labels = _labels(apis.predict_large(model, source, tmp_path / "labels.tif", tile=128, overlap=32))
    assert (labels != whole).mean() < 1e-4
    assert (apis.predict(model, image if channels > 1 else image[..., 0]) == whole).all()
    assert apis.read_picture(model, source).shape == (230, 301, 3)


class _Gdal:
    """What mmseg calls of GDAL's own package, which has no wheels, by rasterio."""

    def __init__(self, path):
        self.path = path

    Open = classmethod(lambda cls, path: cls(path))

    def ReadAsArray(self):
        with rasterio.open(self.path) as file:
            return file.read()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_rasters_of_many_bands_are_read_as_mmsegs_step_for_them_reads_them(
    near_sighted, tmp_path, monkeypatch, dtype
):
    monkeypatch.setattr("mmseg.datasets.transforms.loading.gdal", _Gdal)
    bands = np.dstack([_PICTURE, _PICTURE[..., :2]]).astype(dtype)
    source = _write(tmp_path / "bands.tif", np.moveaxis(bands, 2, 0))
    model = near_sighted(channels=5, loader=dict(type="LoadSingleRSImageFromFile"))
    whole = apis.predict(model, source)
    with torch.no_grad():
        pixels = torch.from_numpy(bands.astype(np.float32).transpose(2, 0, 1).copy())
        logits = model.encode_decode(pixels[None], [dict(img_shape=pixels.shape[1:])])[0]
    assert (whole == logits.argmax(0).numpy()).mean() > 0.9999 and len(np.unique(whole)) > 1
    assert (apis.predict(model, bands) == whole).all()
    labels = _labels(apis.predict_large(model, source, tmp_path / "labels.tif", tile=128, overlap=32))
    assert (labels != whole).mean() < 1e-4
    assert apis.read_picture(model, source).shape == (230, 301, 3)
    if dtype == np.float32:
        bands[100, 7] = np.nan
        _write(source, np.moveaxis(bands, 2, 0))
        for run in (
            lambda: apis.predict(model, source),
            lambda: apis.predict_large(model, source, tmp_path / "again.tif", tile=128, overlap=32),
        ):
            with pytest.raises(UserError, match=r"bands\.tif holds values that are not finite"):
                run()


def test_channels_that_the_network_does_not_take_are_named(near_sighted, tmp_path):
    grey = _write(tmp_path / "grey.tif", _PICTURE[..., :1].transpose(2, 0, 1))
    model = near_sighted(channels=4, loader=dict(color_type="unchanged"))
    for run in (
        lambda: apis.predict(model, grey),
        lambda: apis.predict_large(model, grey, tmp_path / "labels.tif"),
    ):
        with pytest.raises(
            UserError, match=r"grey.tif has 1 channels as .*'unchanged'.*takes 4 \(in_channels"
        ):
            run()
    with pytest.raises(ValueError, match="image has 3 channels .* takes 4"):
        apis.predict(model, _PICTURE)


def test_steps_that_need_the_whole_image_are_not_left_out_in_silence(near_sighted, tmp_path):
    source = _write(tmp_path / "large.tif", _PICTURE)
    model = near_sighted(steps=[dict(type="CLAHE")])
    with pytest.raises(UserError, match="CLAHE of the test pipeline"):
        apis.predict_large(model, source, tmp_path / "labels.tif")


def test_a_turned_picture_on_a_map_is_refused(near_sighted, tmp_path):
    place = dict(crs="EPSG:32633", transform=rasterio.transform.from_origin(500000, 5800000, 0.2, 0.2))
    source = _write(tmp_path / "large.tif", _PICTURE, **place)
    data = bytearray(source.read_bytes())
    # GDAL writes no orientation: its tag takes the place of PlanarConfiguration, whose default is the same.
    [start] = struct.unpack_from("<I", data, 4)
    [count] = struct.unpack_from("<H", data, start)
    tags = [struct.unpack_from("<H", data, start + 2 + 12 * i)[0] for i in range(count)]
    struct.pack_into("<HHIHH", data, start + 2 + 12 * tags.index(284), 274, 3, 1, 6, 0)
    source.write_bytes(data)
    with pytest.raises(UserError, match="lies on a map, but its orientation tag turns it"):
        apis.predict_large(near_sighted(), source, tmp_path / "labels.tif")


def test_the_labels_lie_where_the_image_lies_in_compressed_tiles(near_sighted, tmp_path):
    place = dict(
        crs="EPSG:32633", transform=rasterio.transform.from_origin(500000, 5800000, 0.2, 0.2), nodata=0
    )
    source = _write(tmp_path / "large.tif", _picture(600, 520), **place)
    with rasterio.open(apis.predict_large(near_sighted(), source, tmp_path / "labels.tif")) as file:
        assert file.crs == rasterio.CRS.from_epsg(32633) and file.transform == place["transform"]
        assert file.profile["tiled"] and file.compression.name == "deflate"
        assert file.block_shapes == [(512, 512)]
        assert file.nodata is None  # 0 is a class


def test_ground_control_points_are_kept(near_sighted, tmp_path):
    points = [
        rasterio.control.GroundControlPoint(r, c, c * 2.0, 90 - r) for r, c in ((0, 0), (0, 60), (50, 0))
    ]
    source = _write(tmp_path / "large.tif", _picture(50, 61), gcps=points, crs="EPSG:4326")
    with rasterio.open(apis.predict_large(near_sighted(), source, tmp_path / "labels.tif")) as file:
        got, crs = file.gcps
        assert [(p.row, p.col, p.x, p.y) for p in got] == [(p.row, p.col, p.x, p.y) for p in points]
        assert crs == rasterio.CRS.from_epsg(4326)


def test_many_classes_take_two_bytes_and_a_single_one_its_threshold(near_sighted, tmp_path):
    image = _picture(150, 200)
    source = _write(tmp_path / "large.tif", image)
    model = near_sighted(num_classes=300)
    labels = _labels(apis.predict_large(model, source, tmp_path / "many.tif", tile=128, overlap=32))
    assert labels.dtype == np.int16 and labels.max() > 255
    assert (labels != _whole(model, image)).mean() < 1e-4
    model = near_sighted(num_classes=2, out_channels=1, threshold=0.6)
    labels = _labels(apis.predict_large(model, source, tmp_path / "one.tif", tile=128, overlap=32))
    assert np.unique(labels).tolist() == [0, 1]
    assert (labels != _whole(model, image)).mean() < 1e-4


def test_padding_of_the_test_preprocessor_is_left_out(near_sighted, tmp_path):
    image = _picture(317, 131)
    source = _write(tmp_path / "large.tif", image)
    model = near_sighted()
    model.data_preprocessor.test_cfg = dict(size_divisor=256)
    labels = _labels(apis.predict_large(model, source, tmp_path / "labels.tif", tile=128, overlap=32))
    assert model.data_preprocessor.test_cfg == dict(size_divisor=256)
    assert (labels != _whole(near_sighted(), image)).mean() < 1e-4


def test_a_destination_is_only_replaced_when_asked_for(near_sighted, tmp_path):
    source = _write(tmp_path / "large.tif", _picture(50, 61))
    destination = tmp_path / "labels.tif"
    destination.write_text("somebody's")
    with pytest.raises(UserError, match=r"labels.tif exists; name another"):
        apis.predict_large(near_sighted(), source, destination)
    assert destination.read_text() == "somebody's"
    apis.predict_large(near_sighted(), source, str(destination), overwrite=True)
    assert _labels(destination).shape == (50, 61)
    before = source.read_bytes()
    link = tmp_path / "link.tif"
    link.symlink_to(source)
    for same in (source, link):
        with pytest.raises(UserError, match="is the image itself"):
            apis.predict_large(near_sighted(), source, same, overwrite=True)
    assert source.read_bytes() == before


def test_a_failure_leaves_nothing_behind(near_sighted, tmp_path):
    source = _write(tmp_path / "large.tif", _picture(900, 130))
    model = near_sighted()
    calls = []

    def fail_later(module, inputs):
        calls.append(1)
        if len(calls) > 12:
            raise KeyboardInterrupt

    model.backbone.register_forward_pre_hook(fail_later)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        apis.predict_large(model, source, tmp_path / "labels.tif", tile=128, overlap=32)
    assert sorted(tmp_path.iterdir()) == before


def test_an_image_that_is_cut_short_is_named_and_leaves_nothing_behind(near_sighted, tmp_path):
    whole = _write(tmp_path / "large.tif", _picture(900, 130), blockysize=16)
    source = tmp_path / "short.tif"
    source.write_bytes(whole.read_bytes()[:200_000])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"short.tif cannot be read"):
        apis.predict_large(near_sighted(), source, tmp_path / "labels.tif", tile=128, overlap=32)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_a_geotiff_that_was_never_finished_is_refused(near_sighted, tmp_path, interleave):
    profile = dict(driver="GTiff", count=3, height=256, width=256, dtype="uint8", photometric="rgb")
    blocks = dict(tiled=True, blockxsize=128, blockysize=128, sparse_ok=True, interleave=interleave)
    with rasterio.open(tmp_path / "part.tif", "w", **profile, **blocks) as file:
        if interleave == "band":  # the whole of the first band, nothing of the others
            file.write(_picture(256, 256)[..., 0], 1)
        else:
            file.write(np.moveaxis(_picture(128, 128), 2, 0), window=rasterio.windows.Window(0, 0, 128, 128))
    for run in (
        lambda: apis.predict(near_sighted(), tmp_path / "part.tif"),
        lambda: apis.predict_large(near_sighted(), tmp_path / "part.tif", tmp_path / "labels.tif"),
    ):
        with pytest.raises(UserError, match=r"part\.tif cannot be read.*lacks a part of its pixels"):
            run()
    assert not (tmp_path / "labels.tif").exists()


@pytest.mark.parametrize("missing", [20, 5_000, 50_000])  # bytes: at the end, GDAL says nothing
def test_a_full_disk_is_told_and_leaves_nothing_behind(near_sighted, tmp_path, missing):
    resource = pytest.importorskip("resource")
    model, source = near_sighted(), _write(tmp_path / "large.tif", _picture(1100, 1100))
    size = apis.predict_large(model, source, tmp_path / "labels.tif").stat().st_size
    assert size > missing
    before = sorted(tmp_path.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, hard))
    try:
        with pytest.raises(UserError, match=r"again.tif cannot be written"):
            apis.predict_large(model, source, tmp_path / "again.tif")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(tmp_path.iterdir()) == before


def test_bad_arguments_are_named(near_sighted, tmp_path):
    model, source = near_sighted(), _write(tmp_path / "large.tif", _picture(150, 200))
    text = tmp_path / "text.tif"
    text.write_text("no image")
    (tmp_path / "folder.tif").mkdir()
    out = tmp_path / "labels.tif"
    for arguments, message in [
        ((tmp_path / "none.tif", out), {}),
        ((tmp_path, out), {}),
        ((text, out), {}),
        ((source, tmp_path / "labels.png"), {}),
        ((source, tmp_path / "nowhere" / "labels.tif"), {}),
        ((source, tmp_path / "folder.tif"), {}),
    ]:
        with pytest.raises(UserError, match=Path(arguments[0] if arguments[1] == out else arguments[1]).name):
            apis.predict_large(model, *arguments, **message)
    for options, message in [
        (dict(tile=0), "tile.*got 0"),
        (dict(tile=128, overlap=65), "overlap.*64 pixels, got 65"),
        (dict(tile=128, overlap=-1), "overlap.*got -1"),
        (dict(tile=130, overlap=32), "multiple of the network's output stride.*17 logits of 130"),
        (dict(tile=8, overlap=4), "tile 8 is too small"),
    ]:
        with pytest.raises(UserError, match=message):
            apis.predict_large(model, source, out, **options)
        assert not out.exists()


def test_a_cascade_of_heads_is_refused(near_sighted, tmp_path):
    model, source = near_sighted(), _write(tmp_path / "large.tif", _picture(50, 61))
    model.decode_head = nn.ModuleList([model.decode_head])
    with pytest.raises(UserError, match="one decode head"):
        apis.predict_large(model, source, tmp_path / "labels.tif")


def test_rasterio_is_asked_for(near_sighted, tmp_path, monkeypatch):
    source = _write(tmp_path / "large.tif", _picture(50, 61))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(UserError, match=r"pip install 'danseg\[large\]'"):
        apis.predict_large(near_sighted(), source, tmp_path / "labels.tif")


_PEAK = """
import sys, torch
from danseg.apis import predict_large
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS
from PIL import Image
@MODELS.register_module()
class Cheap(torch.nn.Conv2d):
    def __init__(self):
        super().__init__(3, 8, 8, 8)
    def forward(self, x):
        return [super().forward(x)]
fields = dict(in_channels=8, channels=8, in_index=0, num_classes=19, num_convs=0, concat_input=False)
model = EncoderDecoder(
    backbone=dict(type="mmseg.Cheap"),
    decode_head=dict(type="mmseg.FCNHead", **fields),
    data_preprocessor=dict(type="mmseg.SegDataPreProcessor", mean=[0, 0, 0], std=[1, 1, 1]),
)
init_default_scope("mmseg")
pipeline = [dict(type="LoadImageFromFile"), dict(type="PackSegInputs")]
loader = dict(dataset=dict(pipeline=pipeline))
model.cfg = Config(dict(model=dict(backbone=dict(type="Cheap")), test_dataloader=loader))
status = lambda key: int(open("/proc/self/status").read().split(key + ":")[1].split()[0]) * 1024
before = status("VmRSS")
predict_large(model.eval(), *sys.argv[1:], tile=256, overlap=64)
print(status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads peak memory from /proc")
def test_memory_does_not_grow_with_the_height(tmp_path):
    def peak(height: int) -> int:
        source = tmp_path / f"{height}.tif"
        profile = dict(driver="GTiff", count=3, height=height, width=1024, dtype="uint8", compress="deflate")
        with rasterio.open(source, "w", **profile) as file:
            stripe = np.random.default_rng(0).integers(0, 256, (3, 16, 1024), dtype=np.uint8)
            for row in range(0, height, 16):
                file.write(stripe, window=rasterio.windows.Window(0, row, 1024, 16))
        command = [sys.executable, "-c", _PEAK, str(source), str(tmp_path / f"{height}_labels.tif")]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])

    short, tall = peak(2048), peak(4 * 8192)
    pixels = 1024 * 4 * 8192 * 3
    assert tall - short < pixels / 5
