"""Look at what danseg runs on here: Python, PyTorch, devices, mmseg, and what is missing for what.

Nothing is imported before it is looked at, so that what cannot be imported is found and not fatal.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import danseg
from danseg.installed import distributions, unmet, with_fix
from danseg.shipped import in_clone


class Finding(NamedTuple):
    """What was found out about one thing.

    Attributes:
        broken: whether training, testing or predicting cannot work with it; what was said names the fix.
    """

    about: str
    said: str
    broken: bool = False


def findings() -> Iterator[Finding]:
    """All that is found, as it is found."""
    for look in (_danseg, _python, _torch, _gpus, _cpu, _mmseg, _operators, _needed, _extras):
        try:
            yield from look()
        except Exception as error:  # whatever a broken installation raises
            yield Finding(look.__name__.strip("_"), _reason(error), broken=True)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def _danseg() -> Iterator[Finding]:
    folder = Path(danseg.__file__).parent
    yield Finding("danseg", f"{danseg.__version__}, a {'clone' if in_clone() else 'wheel'}, in {folder}")


def _python() -> Iterator[Finding]:
    yield Finding("Python", f"{platform.python_version()}, {sys.executable}, on {platform.platform()}")


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:
        yield Finding("PyTorch", f"cannot be imported ({_reason(error)}): pip install torch", broken=True)
        return
    build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for the CPU"
    yield Finding("PyTorch", f"{torch.__version__}, built {build}")


def _gpus() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    driver = _driver()
    if not torch.cuda.is_available():
        if driver is None:
            said = "none"
        elif torch.version.cuda is None:
            said = f"not used: there is NVIDIA's driver {driver}, but PyTorch is built for the CPU alone"
        else:
            hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
            why = (
                f"CUDA_VISIBLE_DEVICES={hidden!r}"
                if hidden is not None
                else "the driver may be too old for it"
            )
            said = f"not used: PyTorch finds none with NVIDIA's driver {driver}; {why}"
        yield Finding("GPU", said)
        return
    yield Finding("driver", f"{driver or 'unknown'}; cuDNN {torch.backends.cudnn.version()}")
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        name = f"GPU {index}"
        try:
            one = torch.ones(1, 8, 8, 8, device=f"cuda:{index}")
            torch.nn.functional.conv2d(one, one[:, :, :3, :3]).sum().item()
        except RuntimeError as error:
            yield Finding(name, f"{facts.name} cannot compute: {_reason(error)}", broken=True)
            continue
        with torch.cuda.device(index):
            bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        memory = f"{facts.total_memory / 2**30:.0f} GiB"
        has = "has bfloat16 (--amp bfloat16, --precision bfloat16)" if bfloat16 else "has no bfloat16"
        yield Finding(name, f"{facts.name}, capability {facts.major}.{facts.minor}, {memory}, {has}")


def _driver() -> str | None:
    """The version of NVIDIA's driver, as the kernel's module says it; None if there is none."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return None
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return found[0] if found else None


def _cpu() -> Iterator[Finding]:
    from danseg.io.parallel import available_cpus

    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _number(Path("/sys/fs/cgroup/memory.max"))
    memory = f"{min(pages, limit or pages) / 2**30:.1f} GiB of memory"
    available = re.search(r"^MemAvailable:\s+(\d+) kB", _text(Path("/proc/meminfo")), re.MULTILINE)
    if available:
        memory += f", {int(available[1]) / 2**20:.1f} GiB of it available on the machine"
    yield Finding("CPU", f"{available_cpus()} of {os.cpu_count()} cores to use, {memory}")
    if Path("/dev/shm").is_dir():
        shared = shutil.disk_usage("/dev/shm")
        yield Finding(
            "/dev/shm", f"{shared.free / 2**30:.1f} GiB free, through which data workers hand over images"
        )
    if importlib.util.find_spec("torch") is not None:
        ratio = _bfloat16_to_float32()
        worth = "worth it" if ratio < 0.8 else "not worth it"
        yield Finding(
            "bfloat16",
            f"on the CPU a convolution takes {ratio:.1f} of float32's time: {worth} (--precision bfloat16)",
        )


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _bfloat16_to_float32() -> float:
    """The time of a convolution in bfloat16 over that in float32, on the CPU."""
    import torch

    def seconds(dtype: torch.dtype) -> float:
        x, weight = torch.ones(1, 128, 48, 48, dtype=dtype), torch.ones(128, 128, 3, 3, dtype=dtype)
        began = time.perf_counter()
        torch.nn.functional.conv2d(x, weight)
        return time.perf_counter() - began

    with torch.no_grad():
        pairs = [(seconds(torch.bfloat16), seconds(torch.float32)) for _ in range(20)]
    ours, plain = map(min, zip(*pairs, strict=True))
    return ours / plain


MM = ("mmseg", "mmengine", "mmcv")


def _mmseg() -> Iterator[Finding]:
    owners = {module: distributions().get(module, []) for module in MM}
    both = {module: names for module, names in owners.items() if len(names) > 1}
    if both:
        module, names = next(iter(both.items()))
        yield Finding(
            "mmseg",
            f"{module} comes from {' and '.join(names)}, which overwrite one another: uninstall both lines "
            "and install one (pip install 'danseg[onedl]')",
            broken=True,
        )
        return
    missing = [module for module in MM if importlib.util.find_spec(module) is None]
    if missing:
        yield Finding(
            "mmseg",
            f"{', '.join(missing)} not installed: danseg.attention and danseg.ops work; to train, test and "
            "predict: pip install 'danseg[onedl]'",
            broken=True,
        )
        return
    lines = {_line(names[0]) for names in owners.values() if names}
    said = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for names in owners.values() for name in names
    )
    if len(lines) > 1:
        yield Finding(
            "mmseg",
            f"of two lines, which do not fit together: {said}; uninstall them and install one (pip install "
            "'danseg[onedl]')",
            broken=True,
        )
        return
    try:
        importlib.import_module("danseg.registration")
    except Exception as error:
        yield Finding("mmseg", f"danseg cannot be registered with it ({said}): {_reason(error)}", broken=True)
        return
    line = "maintained" if lines == {"onedl"} else "original"
    yield Finding("mmseg", f"the {line} line: {said or 'not installed by pip'}")


def _line(name: str) -> str:
    """The extra of danseg that installs this package of the mm family."""
    return "onedl" if name.startswith("onedl-") else "openmmlab"


def _operators() -> Iterator[Finding]:
    if any(importlib.util.find_spec(module) is None for module in MM):
        return
    try:
        importlib.import_module("mmcv._ext")
        said = "compiled (danseg needs none)"
    except ImportError:
        said = "not compiled; danseg needs none"
        if getattr(sys.modules.get("mmcv.ops"), "__name__", "") == "danseg.mmcv_ops":
            said += ", and supplies those that mmseg cannot be imported without"
    yield Finding("mmcv.ops", said)


def _needed() -> Iterator[Finding]:
    """What training needs, of danseg itself and of the extra of the line that is installed."""
    line = next((_line(name) for name in distributions().get("mmseg", ())), "onedl")
    missing = unmet().get("", []) + unmet().get(line, [])
    if missing:
        yield Finding("needed", f"not there as needed: {with_fix(missing)}", broken=True)


def _extras() -> Iterator[Finding]:
    if not unmet():
        yield Finding("extras", "danseg is not installed here, only imported; pip would know what they need")
    for extra, missing in unmet().items():
        if extra and extra not in ("onedl", "openmmlab"):
            yield Finding(f"[{extra}]", with_fix(missing) if missing else "complete")


def show(found: Finding) -> str:
    """A finding as a line."""
    return f"{found.about:<12} {'BROKEN: ' if found.broken else ''}{found.said}"


def report(tell: Callable[[str], None] = print) -> int:
    """Tell all findings, and return the number of those that are broken."""
    broken = 0
    for found in findings():
        tell(show(found))
        broken += found.broken
    return broken
