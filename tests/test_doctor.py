"""danseg doctor: what it finds here, and what it says of installations that are broken in different ways."""

import builtins
import importlib.metadata
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

import danseg
from danseg import doctor, installed
from danseg.doctor import Finding


@pytest.fixture(autouse=True)
def anew():
    """What is remembered of the installation belongs to one test."""
    yield
    installed.distributions.cache_clear()
    installed.unmet.cache_clear()


def said(look) -> str:
    return "\n".join(doctor.show(found) for found in look())


def broken(look) -> list[str]:
    return [found.said for found in look() if found.broken]


@pytest.fixture
def metadata(monkeypatch):
    """Make pip know these distributions, with their versions, and what they are imported as."""

    def install(distributions: dict[str, tuple[str, str]], *requirements: str, extras: tuple[str, ...] = ()):
        def version(name):
            if name not in distributions:
                raise importlib.metadata.PackageNotFoundError(name)
            return distributions[name][1]

        owners: dict[str, list[str]] = {}
        for name, (module, _) in distributions.items():
            owners.setdefault(module, []).append(name)
        header = {"Provides-Extra": list(extras)}
        found = type("", (), {"requires": requirements, "metadata": type("", (), {"get_all": header.get})})
        monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: owners)
        monkeypatch.setattr(importlib.metadata, "version", version)
        monkeypatch.setattr(importlib.metadata, "distribution", lambda name: found)

    return install


MAINTAINED = {f"onedl-mm{name}": (f"mm{module}", "1.0") for name, module in {
    "segmentation": "seg", "engine": "engine", "cv": "cv"}.items()}  # fmt: skip
ORIGINAL = {
    "mmsegmentation": ("mmseg", "1.2.2"),
    "mmengine": ("mmengine", "0.10.7"),
    "mmcv-lite": ("mmcv", "2.1.0"),
}


@pytest.mark.slow
def test_here_everything_is_found_and_nothing_is_broken():
    found = {one.about: one for one in doctor.findings()}
    assert not [one for one in found.values() if one.broken]
    assert danseg.__version__ in found["danseg"].said and "a clone" in found["danseg"].said
    assert torch.__version__ in found["PyTorch"].said
    for module in ("mmseg", "mmengine", "mmcv"):
        version = sys.modules[module].__version__ if module in sys.modules else ""
        assert version in found["mmseg"].said
    line = "maintained" if "onedl" in found["mmseg"].said else "original"
    assert f"the {line} line" in found["mmseg"].said
    assert "danseg needs none" in found["mmcv.ops"].said
    assert {"[large]", "[cityscapes]"} < set(found)


def test_the_status_says_that_something_is_broken(tool, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "findings", lambda: iter([Finding("a", "fine"), Finding("b", "not", True)]))
    with pytest.raises(SystemExit) as ended:
        tool("doctor").main([])
    assert ended.value.code == 1
    assert capsys.readouterr().out.splitlines() == ["a            fine", "b            BROKEN: not"]
    monkeypatch.setattr(doctor, "findings", lambda: iter([Finding("a", "fine")]))
    tool("doctor").main([])


def test_a_look_that_fails_is_a_finding(monkeypatch):
    def look():
        yield Finding("one", "seen")
        raise OSError("the rest\nof it")

    monkeypatch.setattr(doctor, "_python", look)
    monkeypatch.setattr(doctor, "_mmseg", lambda: iter(()))
    found = list(doctor.findings())
    at = found.index(Finding("one", "seen"))
    assert found[at + 1] == Finding("look", "OSError: the rest", broken=True) and len(found) > at + 2


def test_a_torch_that_cannot_be_imported(monkeypatch):
    original = builtins.__import__

    def refuse(name, *arguments, **named):
        if name == "torch":
            raise OSError("libcudart.so.12: cannot open shared object file")
        return original(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    [message] = broken(doctor._torch)
    assert "libcudart.so.12" in message and "pip install torch" in message


@pytest.mark.parametrize(
    ("driver", "cuda", "hidden", "message"),
    [
        (None, None, None, "none"),
        (
            "570.86.15",
            None,
            None,
            "there is NVIDIA's driver 570.86.15, but PyTorch is built for the CPU alone",
        ),
        ("470.1", "13.0", None, "finds none with NVIDIA's driver 470.1; the driver may be too old for it"),
        ("570.86.15", "13.0", "", "CUDA_VISIBLE_DEVICES=''"),
    ],
)
def test_why_no_gpu_is_used(driver, cuda, hidden, message, monkeypatch, without_gpu):
    monkeypatch.setattr(doctor, "_driver", lambda: driver)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    [found] = doctor._gpus()
    assert message in found.said and not found.broken  # the CPU does it too


@pytest.mark.cuda
def test_gpus_are_named():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    text = said(doctor._gpus)
    assert torch.cuda.get_device_name(0) in text and "BROKEN" not in text and "GiB" in text
    assert doctor._driver() in text


def test_the_drivers_version_is_read(monkeypatch):
    text = (
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 2025\nGCC version:  gcc 12.2.0"
    )
    monkeypatch.setattr(Path, "read_text", lambda self: text)
    assert doctor._driver() == "570.86.15"


def test_the_machine():
    text = said(doctor._cpu)
    assert "cores to use" in text and "GiB of memory" in text and "of float32's time" in text


def test_what_is_missing_breaks_no_line_but_its_own(monkeypatch):
    """rich, which draws the bars that danseg shows, is needed; processors are counted without it."""
    for name in [one for one in sys.modules if one.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "danseg.io.parallel", raising=False)
    monkeypatch.setitem(sys.modules, "rich", None)
    assert "cores to use" in said(doctor._cpu)


def test_both_lines_in_one_place_are_broken(metadata):
    metadata({**MAINTAINED, **ORIGINAL})
    [message] = broken(doctor._mmseg)
    assert (
        "mmseg comes from mmsegmentation and onedl-mmsegmentation" in message and "'danseg[onedl]'" in message
    )


def test_parts_of_two_lines_are_broken(metadata):
    metadata({**MAINTAINED, "onedl-mmcv": ("other", "1"), "mmcv-lite": ("mmcv", "2.1.0")})
    [message] = broken(doctor._mmseg)
    assert "of two lines, which do not fit together" in message and "mmcv-lite 2.1.0" in message


def test_without_mmseg_it_says_what_works_and_what_to_install(metadata, monkeypatch):
    metadata({})
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mmseg" else find(name))
    [message] = broken(doctor._mmseg)
    assert (
        message.startswith("mmseg not installed: danseg.attention")
        and "pip install 'danseg[onedl]'" in message
    )
    assert not said(doctor._operators)


def test_an_mmseg_that_cannot_be_used(metadata, monkeypatch):
    metadata(ORIGINAL)

    def fail(name):
        raise AssertionError("MMCV==9 is used but incompatible")

    monkeypatch.setattr(importlib, "import_module", fail)
    [message] = broken(doctor._mmseg)
    assert "mmcv-lite 2.1.0" in message and "MMCV==9 is used but incompatible" in message


REQUIREMENTS = (
    "torch>=2.5",
    'onedl-mmcv<3,>=2.3.6; extra == "onedl"',
    'opencv-python>=4.8; extra == "onedl"',
    'ftfy; extra == "openmmlab"',
    'rasterio>=1.4; extra == "large"',
    'tensorboard>=2.14; extra == "tensorboard"',
)
EXTRAS = ("onedl", "openmmlab", "large", "tensorboard")


def test_what_is_missing_for_which_extra(metadata):
    there = {
        "torch": ("torch", "2.13.0+cpu"),
        "onedl-mmcv": ("mmcv", "2.3.6"),
        "onedl-mmsegmentation": ("mmseg", "1.4.2"),
        "opencv-python-headless": ("cv2", "5.0.0.93"),  # the same module
        "rasterio": ("rasterio", "1.3.1"),
    }
    metadata(there, *REQUIREMENTS, extras=EXTRAS)
    assert broken(doctor._needed) == []
    assert {found.about: found.said for found in doctor._extras()} == {
        "[large]": "rasterio 1.3.1 is installed: pip install 'rasterio>=1.4'",
        "[tensorboard]": "tensorboard is missing: pip install 'tensorboard>=2.14'",
    }


def test_what_training_needs_is_broken_without_it(metadata):
    there = {
        "torch": ("torch", "2.4.1"),
        "onedl-mmcv": ("mmcv", "2.3.5"),
        "onedl-mmsegmentation": ("mmseg", "1.4.2"),
    }
    metadata(there, *REQUIREMENTS, extras=EXTRAS)
    [message] = broken(doctor._needed)
    assert "torch 2.4.1 is installed" in message and "onedl-mmcv 2.3.5 is installed" in message
    assert "pip install 'torch>=2.5' 'onedl-mmcv<3,>=2.3.6' 'opencv-python>=4.8'" in message
    assert "ftfy" not in message  # of the other line


def test_a_danseg_that_pip_does_not_know(metadata, monkeypatch):
    def unknown(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", unknown)
    assert broken(doctor._needed) == []
    assert "danseg is not installed here, only imported" in said(doctor._extras)
