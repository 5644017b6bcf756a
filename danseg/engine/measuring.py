"""Measure the time of calls that take turns, and the memory that a call needs.

Nothing here knows what is measured: a caller passes plain functions and gets numbers.

* :func:`in_subprocess` runs one measurement in a fresh process. The memory of earlier work
  cannot distort a later figure, and a process killed for memory costs one figure, not the run.
* :func:`extra_peak` is the memory that a call needs beyond what was in use before it.
* :func:`alternate` times several calls in turn (a, b, a, b, ...), so that a machine that
  slows down slows all of them.
"""

import ctypes
import gc
import multiprocessing
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from danseg.errors import UserError

MIB = 2**20


class MeasurementError(Exception):
    """A measurement did not finish; the message says what stopped it."""


def in_subprocess(function: Callable[..., Any], *args: Any, fresh: bool = False) -> Any:
    """``function(*args)`` in a fresh process; function, arguments and result must pickle.

    Args:
        function, args: what to call.
        fresh: whether to start a new interpreter, so that its memory includes the libraries it loads.

    Raises:
        UserError: the function raised one.
        MeasurementError: it raised another error, or its process died (a kill for want of memory).
    """
    if not fresh and "forkserver" in multiprocessing.get_all_start_methods():
        # The process is forked from a server that has imported everything and computed nothing: it
        # is as clean as a new interpreter, and saves its seconds of imports.
        context: Any = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["danseg.heads"])  # and mmseg with it
    else:
        context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, torch.get_num_threads(), function, args))
    process.start()
    sender.close()  # The child holds the only other end: its death ends recv().
    try:
        failure, result = receiver.recv()
    except EOFError:
        process.join()
        hint = ", most likely for want of memory" if process.exitcode == -9 else ""
        raise MeasurementError(f"the measuring process ended with status {process.exitcode}{hint}") from None
    finally:
        receiver.close()
    process.join()
    if failure is not None:
        raise failure
    return result


def _send_result(sender: Any, threads: int, function: Callable[..., Any], args: tuple) -> None:
    torch.set_num_threads(threads)
    failure: Exception | None = None
    result = None
    try:
        result = function(*args)
    except UserError as error:
        failure = error
    except Exception as error:  # noqa: BLE001  (whatever it was, the parent reports it)
        failure = MeasurementError(f"{type(error).__name__}: {error}")
    sender.send((failure, result))
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
        with open("/proc/self/clear_refs", "w") as switch:
            switch.write("5")  # 5 resets VmHWM, see proc(5).
    except OSError:
        return False
    return True


def _status_bytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _lifetime_peak() -> int:
    import resource  # Unix only, and needed only where /proc is missing.

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere


def alternate(calls: Sequence[Callable[[], Any]], repeats: int, device: torch.device) -> list[list[float]]:
    """Time calls that take turns: the seconds of each call in each round. Warm the calls up before."""
    seconds: list[list[float]] = [[] for _ in calls]
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
