"""How the benchmarks measure time, extra memory and the machine's matrix-product rate.

Nothing here knows what is measured: a benchmark passes plain functions and gets numbers.

* :func:`in_subprocess` runs one measurement in a fresh process. The memory of earlier work
  cannot distort a later figure, and a process killed for memory costs one figure, not the run.
* :func:`extra_peak` is the memory that a call needs beyond what was in use before it.
* :func:`alternate` times several calls in turn (a, b, a, b, ...), so that a machine that
  slows down slows all of them.
* :func:`product_rate` is the rate that the machine's matrix products reach; floors are computed from it.
"""

import ctypes
import gc
import multiprocessing
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from danseg.ops.products import product

MIB = 2**20


class MeasurementError(Exception):
    """A measurement did not finish; the message says what stopped it."""


def in_subprocess(function: Callable[..., Any], *args: Any, fresh: bool = False) -> Any:
    """``function(*args)`` in a fresh process; function, arguments and result must pickle.

    Args:
        function, args: what to call.
        fresh: whether to start a new interpreter, so that its memory includes the libraries it loads.

    Raises:
        MeasurementError: when the process raises, or dies (a kill for want of memory).
    """
    if not fresh and "forkserver" in multiprocessing.get_all_start_methods():
        # The process is forked from a server that has imported everything and computed nothing: it
        # is as clean as a new interpreter, and saves its seconds of imports.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["danseg", "mmseg.models"])
    else:
        context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, torch.get_num_threads(), function, args))
    process.start()
    sender.close()  # The child holds the only other end: its death ends recv().
    try:
        failed, result = receiver.recv()
    except EOFError:
        process.join()
        hint = ", most likely for want of memory" if process.exitcode == -9 else ""
        raise MeasurementError(f"the measuring process ended with status {process.exitcode}{hint}") from None
    finally:
        receiver.close()
    process.join()
    if failed:
        raise MeasurementError(result)
    return result


def _send_result(sender: Any, threads: int, function: Callable[..., Any], args: tuple) -> None:
    torch.set_num_threads(threads)
    try:
        message = (False, function(*args))
    except Exception as error:  # noqa: BLE001  (whatever it was, the parent reports it)
        message = (True, f"{type(error).__name__}: {error}")
    sender.send(message)
    sender.close()


def extra_peak(work: Callable[[], Any], device: torch.device) -> int:
    """Bytes that ``work()`` needs at its peak, beyond what is in memory before the call.

    Call ``work`` once on a small input first: libraries load code and start threads on
    their first call. On CUDA this is the allocator's peak. On Linux it is the peak of
    the resident set, reset just before the call. Elsewhere it is the growth of the
    process's lifetime peak, which is too low if something larger ran in the process before.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    _return_free_memory()
    reset = _reset_resident_peak()
    before = _status_bytes("VmRSS") if reset else _lifetime_peak()
    work()
    return max(0, (_status_bytes("VmHWM") if reset else _lifetime_peak()) - before)


def process_peak() -> int:
    """Peak memory of this process so far, in bytes, including its libraries.

    It is meant for a process that :func:`in_subprocess` started with ``fresh``.
    """
    # Not the lifetime's peak on Linux: it begins with that of the process that started this one.
    return _status_bytes("VmHWM") if Path("/proc/self/status").exists() else _lifetime_peak()


def _return_free_memory() -> None:
    """Give freed heap pages back, or a call that reuses them would seem to need nothing."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):  # Not glibc: its allocator has no such call.
        pass


def _reset_resident_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")  # 5 resets VmHWM, see proc(5).
    except OSError:
        return False
    return True


def _status_bytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024


def _lifetime_peak() -> int:
    import resource  # Unix only, and needed only where /proc is missing.

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere


def alternate(calls: Sequence[Callable[[], Any]], repeats: int, device: torch.device) -> list[list[float]]:
    """Time calls that take turns: the seconds of each call in each round. Warm the calls up before."""
    seconds = [[] for _ in calls]
    for _ in range(repeats):
        for call, row in zip(calls, seconds, strict=True):
            _synchronize(device)
            start = time.perf_counter()
            result = call()
            _synchronize(device)
            row.append(time.perf_counter() - start)
            del result  # freed while the clock is stopped
    return seconds


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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


def device_name(device: torch.device) -> str:
    """Model of the device, with the number of threads on a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    model = found[1] if found else platform.processor() or platform.machine()
    return f"{model} {torch.get_num_threads()}cores"


def environment(device: torch.device) -> dict[str, Any]:
    """The device and the software versions that a figure depends on, besides the code under test."""
    return {
        "device": device.type,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "logical_cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tf32": device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32,
    }


def slug(text: str) -> str:
    """``text`` as part of a file name: lower case, hyphens for everything but letters and digits."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("(r)", "").replace("(tm)", "")).strip("-")
