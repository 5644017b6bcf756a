"""The programs in docs/runtimes.md: compiled and run, and their labels are the network's."""

import importlib.metadata
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from mmseg.registry import MODELS

from danseg.export.deployed_network import DeployedNetwork
from danseg.export.description import Input
from danseg.export.normalisation import Normalisation
from documents import ROOT
from exported_files import described, write

COMPILER = shutil.which("g++") or shutil.which("clang++")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")]
PACKAGES = {"onnx": Path(onnxruntime.__path__[0]), "openvino": Path(openvino.__path__[0])}


def finds(header: str) -> bool:
    """Whether the compiler finds a header, as in /usr/include or in a folder that CPATH names."""
    source = f"#include <{header}>\n"
    ran = subprocess.run(
        [COMPILER, "-std=c++17", "-E", "-x", "c++", "-"], input=source.encode(), capture_output=True
    )
    return ran.returncode == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the page's programs, a network in both forms, a picture, and the network's labels."""
    folder = tmp_path_factory.mktemp("cpp")
    page = (ROOT / "docs" / "runtimes.md").read_text()
    for program in re.findall(r"```cpp\n(// (?:\w+\.\w+): .*?)```", page, re.DOTALL):
        (folder / program.split()[1].rstrip(":")).write_text(program)
    torch.manual_seed(0)
    backbone = dict(type="ResNetV1c", depth=18, base_channels=8, stem_channels=8)
    head = dict(type="FCNHead", num_convs=0, in_channels=64, channels=64, concat_input=False, num_classes=5)
    model = MODELS.build(dict(type="LeanEncoderDecoder", backbone=backbone, decode_head=head)).eval()
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    does = Normalisation(3, "RGB", (120.0, 110.0, 100.0), (60.0, 61.0, 62.0))
    network = DeployedNetwork(model, does, labels=True)
    coarse = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (70, 50), interpolation=cv2.INTER_CUBIC)
    pixels = torch.from_numpy(picture[None])
    with torch.no_grad():
        model.decode_head.conv_seg.bias -= model(pixels.permute(0, 3, 1, 2) / 60 - 2, mode="tensor").mean(
            (0, 2, 3)
        )
        for suffix in (".onnx", ".xml"):
            about = described(input=Input("image", "uint8", "NHWC", "RGB"), output=network.output)
            write(folder / f"network{suffix}", network, torch.zeros(2, 40, 48, 3, dtype=torch.uint8), about)
        np.save(folder / "labels.npy", network(pixels)[0].numpy())
    (folder / "street.ppm").write_bytes(b"P6\n70 50\n255\n" + picture.tobytes())
    return folder


def compiled(folder, name, *libraries):
    command = [COMPILER, "-std=c++17", "-Wall", "-Wextra", "-Werror", f"{name}.cpp", "-o", name, *libraries]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr


def check(folder, name, file):
    command = [f"./{name}", file, "street.ppm", f"{name}.pgm"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    found, expected = cv2.imread(str(folder / f"{name}.pgm"), -1), np.load(folder / "labels.npy")
    assert found.shape == expected.shape and len(np.unique(expected)) > 2
    assert (found != expected).sum() <= 1
    command[2] = "network.onnx"
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 1 and "network.onnx is no PPM of 8 bits" in ran.stderr


def test_openvino(folder):
    package = PACKAGES["openvino"]
    [library] = (package / "libs").glob("libopenvino.so*")
    places = ["-isystem", str(package / "include"), f"-Wl,-rpath,{package / 'libs'}"]
    compiled(folder, "segment_openvino", *places, str(library))
    check(folder, "segment_openvino", "network.xml")
    check(folder, "segment_openvino", "network.onnx")


def test_onnx_runtime(folder):
    if not finds("onnxruntime_cxx_api.h"):
        pytest.skip("needs the headers of ONNX Runtime, by CPATH for one; its package has none")
    version = importlib.metadata.version("onnxruntime")
    library = folder / "libonnxruntime.so.1"  # as the library in the package calls itself
    library.symlink_to(PACKAGES["onnx"] / "capi" / f"libonnxruntime.so.{version}")
    compiled(folder, "segment_onnx", str(library), f"-Wl,-rpath,{folder}")
    check(folder, "segment_onnx", "network.onnx")
