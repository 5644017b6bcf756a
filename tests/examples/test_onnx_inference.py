"""The example for users without danseg: in a process without danseg and PyTorch it gives the model's labels."""

import ast
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from child_process import ROOT, environment
from danseg import apis
from danseg.apis.predict import prepared_batch
from exported_files import write_model

EXAMPLE = ROOT / "examples" / "onnx_inference.py"
# Runs the example for several files with all modules out of reach but those that it may use.
SCRIPT = """
import json, runpy, sys
for name in ("danseg", "torch", "mmseg", "mmengine", "mmcv", "cv2", "PIL", "onnx"):
    sys.modules[name] = None
main = runpy.run_path(sys.argv[1])["main"]
for arguments in json.loads(sys.argv[2]):
    main(*arguments)
"""
CONFIG = """
default_scope = "mmseg"
model = dict(
    type="LeanEncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor", mean=[120.0, 110.0, 100.0], std=[60.0, 61.0, 62.0], bgr_to_rgb={rgb}
    ),
    backbone=dict(type="ResNetV1c", depth=18, base_channels=8, stem_channels=8),
    decode_head=dict(type="FCNHead", num_convs=1, in_channels=64, channels=8, {head}),
    test_cfg=dict(mode="whole"),
)
pipeline = [dict(type="LoadImageFromFile"), dict(type="PackSegInputs")]
test_dataloader = dict(dataset=dict(
    type="BaseSegDataset", metainfo=dict(classes={classes}), pipeline=pipeline
))
"""
# How the network is made, and how it is written.
CASES = {
    "logits": (dict(), dict()),
    "preprocessing": (dict(), dict(with_preprocessing=True)),
    "labels": (dict(), dict(with_preprocessing=True, labels=True)),
    "normalised labels": (dict(), dict(labels=True)),
    "blue first": (dict(rgb=False), dict()),
    "corners": (dict(head="num_classes=5, align_corners=True"), dict()),
    "one channel": (dict(head="num_classes=2, out_channels=1, threshold=0.5", classes="ab"), dict()),
    "one size": (dict(), dict(size=(50, 70), batch=1)),
}


def network(folder, rgb=True, head="num_classes=5", classes="abcde"):
    (folder / "tiny.py").write_text(CONFIG.format(rgb=rgb, head=head, classes=list(classes)))
    torch.manual_seed(2)
    model = apis.load_model(folder / "tiny.py", None, "cpu")
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    with torch.no_grad():  # so that every class is the best somewhere
        data = model.data_preprocessor(prepared_batch(model, folder / "street.png"))
        model.decode_head.conv_seg.bias -= model(**data, mode="tensor").mean((0, 2, 3))
    return model


@pytest.fixture
def picture(tmp_path):
    coarse = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (70, 50), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / "street.png"), picture[..., ::-1])
    header = b"P6\n# a remark\n70 50\n255\n"
    (tmp_path / "street.ppm").write_bytes(header + picture.tobytes())
    return picture


def run(*calls):
    command = [sys.executable, "-c", SCRIPT, str(EXAMPLE), repr([list(map(str, one)) for one in calls])]
    command[-1] = command[-1].replace("'", '"')
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=100)


def test_labels_are_the_models(picture, tmp_path):
    expected = {}
    for name, (made, how) in CASES.items():
        model = network(tmp_path, **made)
        write_model(tmp_path / f"{name}.onnx", model, **how)
        expected[name] = apis.predict(model, tmp_path / "street.png")
    street = tmp_path / "street.ppm"
    ran = run(*((tmp_path / f"{name}.onnx", street, tmp_path / f"{name}.pgm") for name in CASES))
    assert ran.returncode == 0, ran.stderr
    for name, labels in expected.items():
        found = cv2.imread(str(tmp_path / f"{name}.pgm"), cv2.IMREAD_UNCHANGED)
        assert found.shape == labels.shape == (50, 70) and len(np.unique(labels)) > 1, name
        assert (found != labels).sum() <= 1, name


def test_another_picture_is_refused(picture, tmp_path):
    write_model(tmp_path / "a.onnx", network(tmp_path))
    ran = run((tmp_path / "a.onnx", tmp_path / "street.png", tmp_path / "a.pgm"))
    assert ran.returncode == 1 and "street.png is no PPM of 8 bits" in ran.stderr
    assert "Traceback" not in ran.stderr and not (tmp_path / "a.pgm").exists()


def test_it_is_as_short_and_as_alone_as_it_says():
    lines = EXAMPLE.read_text().splitlines()
    assert len(lines) < 60
    nodes = [node for node in ast.walk(ast.parse("\n".join(lines))) if isinstance(node, ast.Import)]
    names = {alias.name for node in nodes for alias in node.names}
    assert names - sys.stdlib_module_names == {"numpy", "onnxruntime"}
