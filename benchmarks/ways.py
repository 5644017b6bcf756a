"""Many ways to compute one thing on a GPU, beside each other, within the minutes that there are.

A benchmark on the CPU compares two sides, each figure in a process of its own (measure.py, report.py). On a
GPU there are more sides (compiled code, PyTorch's kernels, precisions), calls last milliseconds, and the
allocator knows the peak of each call exactly, so that one process measures all. The order of the jobs is
their importance: what the time does not reach is named in the result.
"""

import csv
import gc
import json
import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks import fastest, report
from benchmarks.measure import product_rate, slug
from benchmarks.report import Promises, versions
from danseg.engine.measuring import MIB, MeasurementError, environment, extra_peak
from danseg.errors import UserError

# Enough calls in a round for the clock, and no more rounds than this many seconds hold.
ROUND_SECONDS = 2e-3
WAY_SECONDS = 0.25


@dataclass(frozen=True)
class Precision:
    """A type to compute in, and how float32 products are made.

    Attributes:
        name: what the tables call it.
        dtype: of parameters and inputs.
        tf32: whether float32 matrix products and convolutions may round their inputs to TF32; None is what
            PyTorch does unless it is told, convolutions alone.
    """

    name: str
    dtype: torch.dtype
    tf32: bool | None = False

    @contextmanager
    def on(self):
        """Compute in it: set PyTorch's switches for TF32, and put them back."""
        backends = torch.backends
        before = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32
        backends.cuda.matmul.allow_tf32 = self.tf32 is True
        backends.cudnn.allow_tf32 = self.tf32 is not False
        try:
            yield
        finally:
            backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32 = before


FLOAT32 = Precision("float32", torch.float32)
TF32 = Precision("float32, TF32", torch.float32, tf32=True)
TF32_CONVOLUTIONS = Precision("float32, TF32 convolutions", torch.float32, tf32=None)
BFLOAT16 = Precision("bfloat16", torch.bfloat16)
FLOAT16 = Precision("float16", torch.float16)
PRECISIONS = (FLOAT32, TF32, BFLOAT16, FLOAT16)


@dataclass(frozen=True)
class Question:
    """What several ways compute: a row's first columns."""

    case: str
    mode: str
    size: str
    batch: int
    precision: str


@dataclass
class Figure:
    """One way's answer. What was not measured is None, and ``note`` gives the reason.

    Attributes:
        seconds: median of ``rounds``; compiling and the first call are not in it.
        first_seconds: the first call, which compiles or chooses kernels.
        extra_bytes: peak beyond what was allocated before the call.
        product_share: of the rate of large matrix products in this precision, as measured on the device.
        difference: from the reference, relative to its norm.
    """

    case: str
    mode: str
    size: str
    batch: int
    precision: str
    way: str
    seconds: float | None = None
    first_seconds: float | None = None
    extra_bytes: int | None = None
    product_share: float | None = None
    difference: float | None = None
    rounds: list[float] | None = None
    note: str = ""


Call = Callable[[], Any]


def compare(
    question: Question,
    ways: Mapping[str, Callable[[], Call]],
    device: torch.device,
    repeats: int = 5,
    operations: float | None = None,
    rate: float | None = None,
    reference: Callable[[], Tensor] | None = None,
    compared: Callable[[Any], Tensor] | None = None,
    within: AbstractContextManager | None = None,
    distance: Callable[[Tensor, Tensor], float] | None = None,
) -> list[Figure]:
    """One figure for each way; a way that fails gets a note instead of numbers.

    Args:
        question: what they all compute.
        ways: for each name, a function that makes the call: it builds modules, captures a graph. Only then is
            the call made and timed. Its first result, if it is a tensor, is compared with the reference's.
        repeats: timed rounds, in turns; each round is as many calls as fill two milliseconds.
        operations: of the products that no exact way avoids, for the share of ``rate``.
        rate: of large products in this precision, see :class:`Rates`.
        reference: the exact result, in float64.
        compared: takes from a call's result what the reference has: some rows, or all gradients as one.
        within: a context that the calls run in, such as ``Precision.on()``.
        distance: of a result from the reference; by default, relative to its norm.
    """
    figures = {name: Figure(**asdict(question), way=name) for name in ways}
    calls: dict[str, tuple[Call, int]] = {}
    with within or nullcontext():
        exact = reference() if reference is not None else None
        for name, make in ways.items():
            figure = figures[name]
            try:
                call = make()
                figure.first_seconds, out = timed(call, device)
                out = compared(out) if compared else out
                if exact is not None and isinstance(out, Tensor):
                    figure.difference = (distance or relative_difference)(out, exact)
                del out
                figure.extra_bytes = extra_peak(call, device)
                once = timed(call, device)[0]
                calls[name] = call, max(1, round(ROUND_SECONDS / max(once, 1e-6)))
            except Exception as error:  # noqa: BLE001  (no kernel takes it, or memory is short: the table says so)
                figure.note = reason(error)
            finally:
                _free(device)
        rounds: dict[str, list[float]] = {name: [] for name in calls}
        spent = dict.fromkeys(calls, 0.0)
        for _ in range(repeats):
            for name, (call, count) in calls.items():
                if spent[name] < WAY_SECONDS or len(rounds[name]) < 3:
                    seconds = timed(call, device, count)[0]
                    rounds[name].append(seconds / count)
                    spent[name] += seconds
    for name, of_way in rounds.items():
        figure = figures[name]
        figure.rounds, figure.seconds = of_way, statistics.median(of_way)
        if operations and rate:
            figure.product_share = operations / figure.seconds / rate
    calls.clear()
    _free(device)
    return list(figures.values())


def relative_difference(out: Tensor, exact: Tensor) -> float:
    """``|out - exact| / |exact|`` in float64; NaN where either holds one."""
    return ((out.double() - exact.double()).norm() / exact.double().norm()).item()


def timed(call: Call, device: torch.device, count: int = 1) -> tuple[float, Any]:
    """Seconds of ``count`` calls together, and the last result."""
    _synchronize(device)
    start = time.perf_counter()
    for _ in range(count):
        out = call()
    _synchronize(device)
    return time.perf_counter() - start, out


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def reason(error: Exception) -> str:
    """Why a way has no figures, for its note."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    if isinstance(error, MeasurementError):
        return " ".join(str(error).split())[:240]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160] if lines else ''}"


class Rates:
    """The device's rate of large matrix products, measured once for each precision."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._known: dict[str, float] = {}

    def __getitem__(self, precision: Precision) -> float:
        if precision.name not in self._known:
            with precision.on():
                size = 8192 if self._device.type == "cuda" else 512
                self._known[precision.name] = product_rate(self._device, size, dtype=precision.dtype)
        return self._known[precision.name]

    def known(self) -> dict[str, float]:
        """Operations per second by precision, of those that were asked for."""
        return dict(self._known)


Job = tuple[str, Callable[[], list[Figure]]]  # name, function that measures


def carry_out(
    benchmark: str,
    jobs: Sequence[Job],
    device: torch.device,
    seconds: float,
    folder: Path,
    rates: Rates | None = None,
    suffix: str = "",
    estimates: Mapping[str, float] | None = None,
) -> list[Figure]:
    """Measure until the seconds are used, write the results after each job, print them as they come.

    A job that has begun is finished; one that has an estimate only begins if that many seconds are left. A
    benchmark that is ended from outside keeps what was measured.
    """
    console = Console(width=max(Console().width, 150))
    end = time.monotonic() + seconds
    figures: list[Figure] = []
    left, failed = [name for name, _ in jobs], {}
    # Garbage is collected for every way. To look through the libraries' objects takes longer than a way.
    gc.freeze()
    for name, measure in jobs:
        if time.monotonic() + (estimates or {}).get(name, 0) >= end:
            continue
        begun = time.monotonic()
        left.remove(name)
        _free(device)
        gc.freeze()  # what earlier jobs made and keep, such as the compiler's objects
        try:
            new = measure()
        except Exception as error:  # noqa: BLE001  (the other jobs may work, and the minutes may not come again)
            traceback.print_exc()
            failed[name] = reason(error)
            _free(device)
            continue
        figures += new
        about = {**environment(device), **versions(), "seconds": seconds, "left_out": left, "failed": failed}
        about["product_rates"] = rates.known() if rates else {}
        paths = save(benchmark, figures, about, folder, suffix)
        console.print(_table(new, f"{name}, {time.monotonic() - begun:.1f} s"))
    gc.unfreeze()
    fastest.print_verdicts(figures)
    for path in paths if figures else []:
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    for name, why in failed.items():
        console.print(f"failed: {name}: {why}", highlight=False)
    if left:
        console.print(f"not measured within {seconds:g} s: {'; '.join(left)}", highlight=False)
    return figures


COLUMNS = ["case", "mode", "size", "batch", "precision", "way"]
COLUMNS += ["ms", "per s", "MiB", "share", "difference", "first s"]


def _cells(figure: Figure) -> list[str]:
    return [
        figure.case,
        figure.mode,
        figure.size,
        str(figure.batch),
        figure.precision,
        figure.way,
        _number(figure.seconds, ".3g", 1e-3),
        _number(figure.batch / figure.seconds if figure.seconds else None, ".3g"),
        _number(figure.extra_bytes, ".0f", MIB),
        _number(figure.product_share, ".0%"),
        _number(figure.difference, ".0e"),
        _number(figure.first_seconds, ".2g"),
    ]


def _number(value: float | None, form: str, unit: float = 1) -> str:
    return "–" if value is None else format(value / unit, form)


def _table(figures: Sequence[Figure], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if index < 6 else "right", no_wrap=True)
    table.add_column("note", overflow="fold")
    for figure in figures:
        table.add_row(*_cells(figure), figure.note)
    return table


def markdown(figures: Sequence[Figure]) -> str:
    """The figures as Markdown: the fastest ways, and a table for each case with what failed below it."""
    blocks = [fastest.markdown(figures)]
    for case in dict.fromkeys(figure.case for figure in figures):
        of_case = [figure for figure in figures if figure.case == case]
        lines = ["| " + " | ".join(COLUMNS[1:]) + " |", "|" + "---|" * 5 + "---:|" * (len(COLUMNS) - 6)]
        lines += ["| " + " | ".join(_cells(f)[1:]) + " |" for f in of_case if f.seconds is not None]
        blocks += [f"**{case}**", "\n".join(lines)]
        notes: dict[str, list[str]] = {}
        for f in of_case:
            if f.note:
                notes.setdefault(f"{f.way}: {f.note}", []).append(
                    f"{f.mode} {f.size} x{f.batch} {f.precision}"
                )
        blocks += ["\n".join(f"- {note} ({', '.join(where)})" for note, where in notes.items())]
    return "\n\n".join(block for block in blocks if block)


def save(
    benchmark: str, figures: Sequence[Figure], about: dict[str, Any], folder: Path, suffix: str = ""
) -> list[Path]:
    """Write NAME.json (everything) and NAME.csv (the table's numbers); return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    device, torch_version = f"{about['device']}-{slug(about['device_name'])}", about["torch"].split("+")[0]
    stem = f"{benchmark}_{device}_torch{torch_version}{suffix}"
    content = {"about": about, "figures": [asdict(figure) for figure in figures]}
    paths = [folder / f"{stem}.json", folder / f"{stem}.csv"]
    paths[0].write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    names = [field.name for field in fields(Figure) if field.name != "rounds"]
    with paths[1].open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(figure) for figure in figures)
    return paths


def load(path: Path) -> list[Figure]:
    """The figures of a stored NAME.json."""
    try:
        return [Figure(**figure) for figure in json.loads(path.read_text(encoding="utf-8"))["figures"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot read {path} as figures of a GPU ({error}); give a .json file that a benchmark with "
            "--device cuda wrote"
        ) from error


def stored_markdown(path: Path, promises: Promises) -> str:
    """A stored result as Markdown: of a GPU's figures, or of a CPU's rows with what is promised of them."""
    try:
        of_gpu = "figures" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        of_gpu = False  # what is wrong with the file, the reader says
    return markdown(load(path)) if of_gpu else report.markdown(report.load(path), promises)
