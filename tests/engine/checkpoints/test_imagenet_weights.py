"""Addresses of ImageNet weights. Nothing is fetched; test_downloads.py does that from this machine."""

import re
import sys

import pytest

from danseg.engine.checkpoints.downloads import address_of
from danseg.engine.checkpoints.imagenet_weights import timm_models, torchvision_models


@pytest.mark.parametrize("models", [timm_models, torchvision_models])
def test_every_file_tells_its_hash_and_its_network(models):
    known = models()
    assert len(known) > 30
    for name, address in known.items():
        assert re.fullmatch(r"https://[\w./-]+-[0-9a-f]{8,}\.pth", address), name
        network = re.match(r"(?:wide_)?resne(?:x?t)\d+", name)
        assert not network or network[0] in address.rpartition("/")[2], name
    files = [address.rpartition("/")[2] for name, address in known.items() if "in1k" in name]
    assert len(files) == len({*files}), "two trainings have one file"


# From the pages of torchvision's and timm's models.
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("torchvision://resnet50", "download.pytorch.org/models/resnet50-0676ba61.pth"),
        ("torchvision://resnet50.imagenet1k_v1", "download.pytorch.org/models/resnet50-0676ba61.pth"),
        ("torchvision://resnet50.imagenet1k_v2", "download.pytorch.org/models/resnet50-11ad3fa6.pth"),
        ("torchvision://resnet101.default", "download.pytorch.org/models/resnet101-cd907fc2.pth"),
        ("torchvision://resnet18.default", "download.pytorch.org/models/resnet18-f37072fd.pth"),
        ("timm://resnet50.tv2_in1k", "download.pytorch.org/models/resnet50-11ad3fa6.pth"),
        ("timm://resnet50d", "download/v0.1-weights/resnet50d_ra2-464e36ba.pth"),
        ("timm://resnet50d.a1_in1k", "download/v0.1-rsb-weights/resnet50d_a1_0-e20cff14.pth"),
        ("timm://resnet50", "download/v0.1-rsb-weights/resnet50_a1_0-14fe96d1.pth"),
        ("timm://resnext101_32x8d", "download.pytorch.org/models/resnext101_32x8d-8ba56ff5.pth"),
    ],
)
def test_names_mean_what_their_packages_mean(name, file, monkeypatch):
    for package in ("torchvision", "timm"):
        monkeypatch.setitem(sys.modules, package, None)  # neither is needed
    assert address_of(name).endswith(file)
