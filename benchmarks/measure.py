"""What the benchmarks alone measure of a machine: the rate of its matrix products, and its free memory.

Floors are computed from the rate. Time and memory of calls are measured by :mod:`danseg.engine.measuring`.
"""

import re
import statistics
from pathlib import Path

import torch
import torch.nn.functional as F

from danseg.engine.measuring import alternate
from danseg.ops.products import product


def product_rate(
    device: torch.device, size: int = 1536, repeats: int = 3, dtype: torch.dtype = torch.float32
) -> float:
    """Operations per second of a ``size`` x ``size`` matrix product in ``dtype``.

    On a CPU it is the best of ``torch.mm``, a 1x1 convolution and the product of danseg's operators.
    They may use different libraries, any of which can be the fastest, and a floor must not depend on
    a slower one. (On CUDA a convolution may round to TF32, which is another kind of product.)
    """
    # Random, not constant: products of zeros and ones draw less power, and run faster, on GPUs.
    a = torch.rand(size, size, device=device, dtype=dtype)
    b = torch.rand(size, size, device=device, dtype=dtype)
    out = torch.empty(size, size, device=device, dtype=dtype)
    side = max(d for d in range(1, int(size**0.5) + 1) if size % d == 0)
    image = a.view(1, size, side, size // side)
    kernel = b.view(size, size, 1, 1)
    with torch.no_grad():
        calls = [lambda: torch.mm(a, b, out=out)]
        if device.type == "cpu":
            calls += [lambda: F.conv2d(image, kernel), lambda: product(a[None], b[None])]
        alternate(calls, 1, device)  # warm-up
        seconds = alternate(calls, repeats, device)
    return 2 * size**3 / min(statistics.median(row) for row in seconds)


def available_memory(device: torch.device) -> int | None:
    """Bytes that a new process may use; None if the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        meminfo = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    amounts = [int(re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)[1]) * 1024]
    # Inside a container a process cannot use all of the machine's memory: its cgroup sets a limit.
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        if limit != "max":
            amounts.append(int(limit) - used)
    except (OSError, ValueError):
        pass
    return min(amounts)


def slug(text: str) -> str:
    """``text`` as part of a file name: lower case, hyphens for everything but letters and digits."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("(r)", "").replace("(tm)", "")).strip("-")
