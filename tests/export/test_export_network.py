"""Files of every format against mmseg's own prediction, run by the formats' own runtimes."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmseg.structures import SegDataSample
from torch.nn import functional as F

from danseg.apis.preparation import prepared_to_leave
from danseg.errors import UserError
from danseg.export import deployed_network, onnx_file
from danseg.export.description import FILE, KEY, Description
from danseg.export.export_network import export_network
from danseg.export.formats import FORMATS
from danseg.export.sessions import openvino_core
from few_layers import CLASSES, few_layers, few_layers_model
from full_disk import full_disk

SIZE = (48, 72)
every_format = pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)


def exported(model, folder, kind, **options):
    """Export a model; returns the file and what is known of it."""
    weights = folder / "weights.pth"
    torch.save(dict(state_dict=model.state_dict()), weights)
    out = folder / "out" / f"net{kind.suffix}"
    narrow = options.get("precision") == "float16" and not kind.compresses
    found = export_network(
        prepared_to_leave(model),
        weights,
        out,
        kind=kind,
        narrow=prepared_to_leave(model, precision="float16") if narrow else None,
        **{"size": SIZE, **options},
    )
    return out, found


def run(path: Path, array: np.ndarray) -> tuple[str, np.ndarray]:
    """What the file says of itself, and gives, by its runtime alone."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session.get_modelmeta().custom_metadata_map[KEY], session.run(None, {"image": array})[0]
    if path.suffix == ".xml":
        core = openvino_core()
        model = core.read_model(path)
        network = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return model.get_rt_info(KEY).astype(str), network(array)[0]
    extra_files = {FILE: ""}
    if path.suffix == ".pt2":
        network = torch.export.load(path, extra_files=extra_files).module()
    else:
        network = torch.jit.load(path, _extra_files=extra_files)
    text = extra_files[FILE]
    with torch.no_grad():
        return text.decode() if isinstance(text, bytes) else text, network(torch.from_numpy(array)).numpy()


def pictures(*shape) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def predicted(model, rgb: np.ndarray) -> np.ndarray:
    """Labels by mmseg's own steps, from a picture as OpenCV loads it, of the network as it was loaded."""
    loaded = rgb[..., ::-1] if rgb.shape[-1] == 3 else rgb
    size = rgb.shape[1:3]
    data = dict(
        inputs=[torch.from_numpy(np.ascontiguousarray(one)).permute(2, 0, 1) for one in loaded],
        data_samples=[SegDataSample(metainfo=dict(ori_shape=size, img_shape=size)) for _ in rgb],
    )
    return np.stack([one.pred_sem_seg.data[0].numpy() for one in model.test_step(data)])


@pytest.fixture(scope="module")
def model():
    return few_layers_model(few_layers())


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """By format: a file of logits for any size."""
    folder = tmp_path_factory.mktemp("logits")
    return {name: exported(model, folder, kind, dynamic=True)[0] for name, kind in FORMATS.items()}


@pytest.fixture(scope="module")
def label_files(model, tmp_path_factory):
    """By format: a file from pictures to labels for any size."""
    folder = tmp_path_factory.mktemp("labels")
    options = dict(dynamic=True, with_preprocessing=True, labels=True)
    return {name: exported(model, folder, kind, **options)[0] for name, kind in FORMATS.items()}


@every_format
@pytest.mark.parametrize("shape", [(1, 48, 72), (3, 65, 33), (2, 130, 90)])
def test_logits_are_those_of_the_network(kind, shape, model, files):
    rgb = pictures(*shape, 3)
    normal = (rgb.astype(np.float32) - np.float32([123, 116, 104])) / np.float32([58, 57, 56])
    array = np.ascontiguousarray(normal.transpose(0, 3, 1, 2))
    _, found = run(files[kind.name], array)
    with torch.no_grad():
        [*features] = model.extract_feat(torch.from_numpy(array))
        expected = model.decode_head(features).numpy()
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert abs(found - expected).max() < 1e-5 * abs(expected).max()


@every_format
@pytest.mark.parametrize("shape", [(1, 48, 72), (3, 65, 33)])
def test_labels_are_those_that_mmseg_predicts(kind, shape, model, label_files):
    rgb = pictures(*shape, 3)
    _, found = run(label_files[kind.name], rgb)
    expected = predicted(model, rgb)
    assert found.dtype == np.uint8 and found.shape == shape
    assert len(np.unique(expected)) > 2 and (found != expected).sum() <= 1


@every_format
def test_a_file_says_what_it_is(kind, model, files, label_files):
    text, _ = run(files[kind.name], np.zeros((1, 3, 40, 40), np.float32))
    said = Description.from_json(text, "")
    assert (said.network, said.classes[1], len(said.colours)) == ("network", "class 1", CLASSES)
    assert said.input.mean == (123, 116, 104) and said.input.channels == "RGB"
    assert (said.input.layout, said.output.name, said.size.height) == ("NCHW", "logits", None)
    weights = (files[kind.name].parent.parent / "weights.pth").read_bytes()
    assert said.checkpoint.sha256 == hashlib.sha256(weights).hexdigest()
    assert said.checkpoint.name == "weights.pth" and "FewLayers" in said.config
    text, _ = run(label_files[kind.name], pictures(1, 40, 40, 3))
    said = Description.from_json(text, "")
    assert (said.input.dtype, said.input.layout, said.input.channels) == ("uint8", "NHWC", "RGB")
    assert said.input.mean is said.input.std is None
    assert (said.output.name, said.output.dtype) == ("labels", "uint8")


@every_format
def test_a_file_tells_nothing_of_the_machine(kind, files):
    for path in files[kind.name].parent.glob(f"{files[kind.name].stem}.*"):
        content = path.read_bytes()
        assert str(Path(__file__).parents[2]).encode() not in content
        assert b"site-packages" not in content


ALONE = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("danseg", "mmseg", "mmengine", "mmcv"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import numpy as np, onnxruntime, openvino, torch
array = np.load(sys.argv[1])
onnx, xml, pt2, pt = sys.argv[2:]
core = openvino.Core()
settings = {"INFERENCE_PRECISION_HINT": "f32"}
tensor = torch.from_numpy(array)
np.savez(
    sys.argv[1] + ".npz",
    onnxruntime.InferenceSession(onnx).run(None, {"image": array})[0],
    core.compile_model(core.read_model(xml), "CPU", settings)(array)[0],
    torch.export.load(pt2).module()(tensor).numpy(),
    torch.jit.load(pt)(tensor).numpy(),
)
assert not {"danseg", "mmseg", "mmengine", "mmcv"} & set(sys.modules)
"""


def test_files_run_where_danseg_is_not(label_files, tmp_path):
    rgb = tmp_path / "pictures.npy"
    np.save(rgb, pictures(2, 50, 70, 3))
    names = ("onnx", "openvino", "torch-export", "torchscript")
    assert set(names) == set(label_files)
    arguments = [str(label_files[name]) for name in names]
    done = subprocess.run([sys.executable, "-c", ALONE, rgb, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, found in zip(names, np.load(f"{rgb}.npz").values(), strict=True):
        np.testing.assert_array_equal(found, run(label_files[name], np.load(rgb))[1])


@pytest.mark.parametrize("name", ["onnx", "torch-export"])  # the others number the names of a process
def test_a_second_export_is_the_same(name, model, files, tmp_path):
    again, _ = exported(model, tmp_path, FORMATS[name], dynamic=True)
    assert again.read_bytes() == files[name].read_bytes()


@every_format
def test_one_size_in_16_bits(kind, model, files, tmp_path):
    out, found = exported(model, tmp_path, kind, size=(40, 56), precision="float16")
    assert (found.description.size.batch, found.description.size.height, found.smallest) == (1, 40, None)
    assert {(row.height, row.width) for row in found.verification.rows} == {(40, 56)}
    assert 0 < max(row.difference for row in found.verification.rows) < 1e-2
    array = np.random.default_rng(0).normal(size=(1, 3, 40, 56)).astype(np.float32)
    (text, narrow), (_, wide) = run(out, array), run(files[kind.name], array)
    assert Description.from_json(text, "").precision == "float16"
    assert narrow.dtype == np.float32 and narrow.shape == (1, CLASSES, 10, 14)
    assert 0 < abs(narrow - wide).max() < 1e-2 * abs(wide).max()
    if kind.name != "torchscript":  # which leaves the size to its reader
        with pytest.raises(Exception):  # noqa: B017  (each runtime has its own)
            run(out, np.zeros((1, 3, 40, 64), np.float32))


@pytest.mark.parametrize("kind", [one for one in FORMATS.values() if "int8" in one.precisions])
def test_8_bits(kind, model, files, tmp_path):
    photos = [pictures(60, 80, 3), pictures(30, 100, 3)]
    out, found = exported(model, tmp_path, kind, precision="int8", photos=photos, dynamic=True)
    assert {path.suffix for path in out.parent.iterdir()} <= {".onnx", ".xml", ".bin"}
    assert not list(out.parent.glob("*float32*")) and found.description.precision == "int8"
    array = np.random.default_rng(0).normal(size=(1, 3, 64, 40)).astype(np.float32)
    (text, narrow), (_, wide) = run(out, array), run(files[kind.name], array)
    assert Description.from_json(text, "").precision == "int8"
    assert 1e-4 < abs(narrow - wide).max() / abs(wide).max() < 0.1


def test_8_bits_are_for_colours(tmp_path):
    model = few_layers_model(few_layers(channels=4))
    with pytest.raises(UserError, match="--precision int8 is for pictures of 3 channels, .* takes 4"):
        exported(model, tmp_path, FORMATS["onnx"], precision="int8", photos=[pictures(60, 80, 4)])


def test_a_file_that_is_wrong_is_not_left_behind(model, tmp_path, monkeypatch):
    forward = deployed_network.DeployedNetwork.forward
    monkeypatch.setattr(deployed_network.DeployedNetwork, "forward", lambda self, x: forward(self, x) * 1.001)
    with pytest.raises(
        UserError, match=r"net\S+ is not written: on pictures of 48 x 72 its logits differ by 0.001 of"
    ):
        exported(model, tmp_path, FORMATS["torchscript"])
    assert not list((tmp_path / "out").iterdir())


def test_labels_that_are_wrong_are_not_left_behind(model, tmp_path, monkeypatch):
    def nearest(logits, size, **_):
        return F.interpolate(logits, size, mode="nearest").argmax(1)

    monkeypatch.setattr(deployed_network, "upsampled_argmax", nearest)
    with pytest.raises(
        UserError, match=r"is not written: [89]\d.\d\d % of its labels are those of the network"
    ):
        exported(model, tmp_path, FORMATS["torchscript"], labels=True)
    assert not list((tmp_path / "out").iterdir())


def test_a_file_that_is_there(model, tmp_path):
    kind = FORMATS["torchscript"]
    out, _ = exported(model, tmp_path, kind)
    before = out.read_bytes()
    with pytest.raises(UserError, match=r"net.pt exists; name another --out, or replace it by --overwrite"):
        exported(model, tmp_path, kind)
    assert out.read_bytes() == before
    exported(model, tmp_path, kind, size=(40, 56), overwrite=True)
    assert out.read_bytes() != before and list(out.parent.iterdir()) == [out]


@every_format
def test_a_full_disk(kind, model, tmp_path, monkeypatch):
    out = tmp_path / "out" / f"net{kind.suffix}"
    out.parent.mkdir()
    out.write_text("old")
    write, room = type(kind).write, 2000

    def on_a_full_disk(*arguments):
        with full_disk(room):
            return write(*arguments)

    monkeypatch.setattr(type(kind), "write", on_a_full_disk)
    with pytest.raises(UserError, match=r"cannot write .*net.*(File too large|the disk may be full)"):
        exported(model, tmp_path, kind, overwrite=True)
    assert list(out.parent.iterdir()) == [out] and out.read_text() == "old"


def test_weights_that_are_too_many_for_one_file(model, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "INSIDE", 1000)
    out, _ = exported(model, tmp_path, FORMATS["onnx"])
    assert sorted(path.name for path in out.parent.iterdir()) == ["net.onnx", "net.onnx.data"]
    assert run(out, np.zeros((1, 3, *SIZE), np.float32))[1].shape[1] == CLASSES


def test_axes_have_names(files):
    graph = onnx.load(files["onnx"]).graph
    assert [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim] == [
        *("batch", 3, "height", "width")
    ]
    assert [one.name for one in (*graph.input, *graph.output)] == ["image", "logits"]


# Networks of every other kind, through the format that is written fastest.
KINDS = {
    "several classifiers": (few_layers(dict(type="DAHead", pam_channels=4)), {}),
    "aligned corners": (few_layers(dict(type="FCNHead", align_corners=True)), {}),
    "BGR": (few_layers(data_preprocessor=dict(bgr_to_rgb=False)), {}),
    "no mean": (few_layers(data_preprocessor=dict(mean=None, std=None)), {}),
    "one channel": (
        few_layers(dict(type="FCNHead", num_classes=2, out_channels=1, threshold=0.4)),
        {},
    ),
    "padded pictures": (few_layers(data_preprocessor=dict(test_cfg=dict(size_divisor=32))), {}),
    "cascade": (
        few_layers(
            [dict(type="FCNHead"), dict(type="OCRHead", ocr_channels=4)],
            type="CascadeEncoderDecoder",
            num_stages=2,
        ),
        {},
    ),
    "many classes": (few_layers(dict(type="FCNHead", num_classes=300)), dict(size=(16, 24))),
}


@pytest.mark.parametrize("name", KINDS)
def test_labels_of_every_kind_of_network(name, tmp_path):
    config, options = KINDS[name]
    model = few_layers_model(config)
    options = dict(dynamic=True, with_preprocessing=True, labels=True) | options
    out, _ = exported(model, tmp_path, FORMATS["torchscript"], **options)
    rgb = pictures(2, 64, 96, 3)
    expected = predicted(model, rgb)
    text, found = run(out, rgb)
    said = Description.from_json(text, "")
    assert said.output.dtype == ("int64" if name == "many classes" else "uint8") == found.dtype.name
    assert said.output.threshold == (0.4 if name == "one channel" else None)
    assert said.output.align_corners is (name == "aligned corners")
    assert len(np.unique(expected)) > 1 and (found != expected).mean() < 1e-3


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_other_channels(channels, tmp_path):
    model = few_layers_model(few_layers(channels=channels))
    out, found = exported(model, tmp_path, FORMATS["torchscript"], labels=True, with_preprocessing=True)
    assert found.description.input.channels is None
    assert run(out, pictures(1, *SIZE, channels))[1].shape == (1, *SIZE)


def test_windows(tmp_path):
    windows = dict(mode="slide", crop_size=(32, 32), stride=(16, 16))
    model = few_layers_model(few_layers(test_cfg=windows))
    kind = FORMATS["torchscript"]
    with pytest.raises(UserError, match="--labels: the config tests by windows"):
        exported(model, tmp_path, kind, labels=True)
    out, _ = exported(model, tmp_path, kind, size=(32, 32))
    assert run(out, np.zeros((1, 3, 32, 32), np.float32))[1].shape == (1, CLASSES, 8, 8)
