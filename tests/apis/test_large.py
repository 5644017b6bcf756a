"""danseg.apis.predict_large against whole images, its files, its memory, and its errors."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import torch
from mmseg.registry import MODELS
from rasterio.transform import from_origin
from torch import nn

from danseg import apis
from danseg.apis import large
from danseg.apis.predict import prepared_batch
from danseg.errors import UserError
from danseg.ops import upsampled_argmax


@MODELS.register_module(force=True)
class NearSighted(nn.Module):
    """A network of stride 8 whose cells see only 7 pixels beyond their own: less than a tile's edge."""

    def __init__(self, init_cfg=None, pretrained=None, channels=16):
        super().__init__()
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(3 if i == 0 else channels, channels, 3, 2, 1), nn.Tanh())
                for i in range(3)
            )
        )

    def forward(self, x):
        return [self.layers(x)]


@pytest.fixture
def near_sighted(camvid, make_config):
    """``near_sighted(align_corners=..., out_channels=...)``: a model whose test pipeline resizes nothing."""

    def make(**head):
        fields = dict(type="FCNHead", num_convs=0, concat_input=False)
        config = make_config(camvid, head=fields)
        config.model.backbone = dict(type="NearSighted")
        config.model.decode_head.update(in_channels=16, channels=16, in_index=0, **head)
        pipeline = config.test_dataloader.dataset.pipeline
        config.test_dataloader.dataset.pipeline = [step for step in pipeline if step["type"] != "Resize"]
        classes = [str(i) for i in range(config.model.decode_head.num_classes)]
        config.test_dataloader.dataset.update(type="BaseSegDataset", metainfo=dict(classes=classes))
        torch.manual_seed(0)
        model = apis.load_model(config, None, "cpu")
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.3)
        return model

    return make


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


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiled", "alpha", "bgr"])
def test_other_files_of_the_same_picture(near_sighted, tmp_path, suffix):
    model, image = near_sighted(), _picture(230, 301)
    bands = np.moveaxis(image, 2, 0)
    if suffix == "png" or suffix == "jpg":
        source = tmp_path / f"large.{suffix}"
        cv2.imwrite(str(source), image[..., ::-1])
        with rasterio.open(source) as file:
            image = np.moveaxis(file.read(), 0, 2).copy()  # JPEG decoders differ a little
    elif suffix == "tiled":
        options = dict(tiled=True, blockxsize=64, blockysize=64, compress="deflate", interleave="pixel")
        source = _write(tmp_path / "large.tif", image, **options)
    elif suffix == "alpha":
        rgba = np.concatenate([bands, np.zeros_like(bands[:1])])
        source = _write(
            tmp_path / "large.tif", rgba, photometric="rgb", colours=["red", "green", "blue", "alpha"]
        )
    else:
        source = _write(tmp_path / "large.tif", bands[::-1], colours=["blue", "green", "red"])
    labels = _labels(apis.predict_large(model, source, tmp_path / "labels.tif", tile=128, overlap=32))
    assert (labels != _whole(model, image)).mean() < 1e-4


def test_the_labels_lie_where_the_image_lies_in_compressed_tiles(near_sighted, tmp_path):
    place = dict(crs="EPSG:32633", transform=from_origin(500000, 5800000, 0.2, 0.2), nodata=0)
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


def _gray(height=20, width=30, count=1, dtype=np.uint8):
    return np.ones((count, height, width), dtype)


@pytest.mark.parametrize(
    ("bands", "options", "message"),
    [
        (_gray(), {}, r"has 1 bands \(gray\).*three bands"),
        (_gray(count=2), {}, "has 2 bands"),
        (_gray(count=4), dict(colours=["red", "green", "blue", "undefined"]), "has 4 bands.*undefined"),
        (_gray(count=5), {}, "has 5 bands"),
        (_gray(count=3, dtype=np.uint16), {}, "holds uint16.*8 bits.*-ot Byte"),
        (_gray(count=3, dtype=np.float32), {}, "holds float32"),
    ],
)
def test_rasters_of_another_kind_are_refused_with_the_fix(near_sighted, tmp_path, bands, options, message):
    source = _write(tmp_path / "other.tif", bands, **options)
    with pytest.raises(UserError, match=rf"other\.tif.*{message}"):
        apis.predict_large(near_sighted(), source, tmp_path / "labels.tif")
    assert not (tmp_path / "labels.tif").exists()


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
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS
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
