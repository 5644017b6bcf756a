"""Compare danseg's attention with mmseg's, in time and memory, with equal weights.

    python -m benchmarks.attention                    # all sizes, about ten minutes on 2 cores
    python -m benchmarks.attention --quick            # small sizes, half a minute
    python -m benchmarks.attention --markdown benchmarks/results/NAME.json

What is measured, and why so: docs/performance.md.
"""

import argparse
import csv
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor, nn

from benchmarks.measure import (
    MIB,
    MeasurementError,
    alternate,
    available_memory,
    environment,
    extra_peak,
    in_subprocess,
    product_rate,
    slug,
)
from danseg.attention import PositionAttention
from danseg.errors import UserError, command_line
from danseg.version import __version__

FORWARD, TRAINING = "forward", "training"
# 65 and 97 are what 513 and 769 crops become at output stride 8, 128x256 is a whole 1024x2048 frame.
SIZES = {FORWARD: [(65, 65), (97, 97), (128, 256)], TRAINING: [(65, 65), (97, 97)]}
QUICK_SIZES = {FORWARD: [(33, 33), (48, 64)], TRAINING: [(33, 33), (48, 64)]}
# Large enough that libraries set up what they keep (threads, code, packing buffers) before memory is read.
WARM_UP_SIZE = (33, 32)


@dataclass(frozen=True)
class Case:
    """One module in two implementations that share parameter names.

    Attributes:
        name: what the tables call it.
        theirs: builds the peer's module.
        ours: builds danseg's.
        channels: of the input feature map.
        operations: ``(positions, mode)`` to the operations that no exact implementation saves.
        their_bytes: ``(positions, mode)`` to roughly what the peer's module needs, so that a
            size which cannot fit is skipped with a reason.
    """

    name: str
    theirs: Callable[[], nn.Module]
    ours: Callable[[], nn.Module]
    channels: int
    operations: Callable[[int, str], float]
    their_bytes: Callable[[int, str], float]


CHANNELS, QUERY_CHANNELS = 512, 64


def _mmseg_position_attention() -> nn.Module:
    try:
        from mmseg.models.decode_heads.da_head import PAM
    except ImportError as error:
        raise UserError(
            f"this benchmark compares with mmseg, which cannot be imported ({error}); "
            'install it with: pip install -e ".[onedl]"'
        ) from error
    return PAM(CHANNELS, QUERY_CHANNELS)


def _danseg_position_attention() -> nn.Module:
    return PositionAttention(CHANNELS, QUERY_CHANNELS)


def _attention_operations(positions: int, mode: str) -> float:
    """The two products with the map; in the backward pass each has two of its own size."""
    forward = 2.0 * positions**2 * (QUERY_CHANNELS + CHANNELS)
    return forward if mode == FORWARD else 3 * forward


def _plain_map_bytes(positions: int, mode: str) -> float:
    """The map before and after softmax, in training with their gradients, and a few feature maps."""
    maps = 2 if mode == FORWARD else 4
    return 4.0 * (maps * positions**2 + 10 * positions * CHANNELS)


CASES = {
    case.name: case
    for case in [
        Case(
            name="position attention",
            theirs=_mmseg_position_attention,
            ours=_danseg_position_attention,
            channels=CHANNELS,
            operations=_attention_operations,
            their_bytes=_plain_map_bytes,
        ),
    ]
}
# What docs/performance.md promises of position attention: (mode, size) to the least memory ratio.
# The time ratio is to be 1 or less at each of them.
PROMISES = {(FORWARD, (97, 97)): 8.0, (TRAINING, (97, 97)): 3.0, (FORWARD, (128, 256)): 20.0}


@dataclass
class Row:
    """One comparison; None where it was not measured, with the reason in ``note``."""

    case: str
    mode: str
    height: int
    width: int
    positions: int
    theirs_seconds: float | None = None
    ours_seconds: float | None = None
    time_ratio: float | None = None  # ours / theirs, the median of the rounds
    theirs_extra_bytes: int | None = None
    ours_extra_bytes: int | None = None
    memory_ratio: float | None = None  # theirs / ours
    floor_seconds: float | None = None
    product_rate: float | None = None  # operations per second
    max_relative_error: float | None = None
    theirs_rounds: list[float] | None = None
    ours_rounds: list[float] | None = None
    note: str = ""


def _modules(case: Case, device: torch.device, sides: Sequence[str]) -> list[nn.Module]:
    """The named sides ("theirs", "ours") with the same weights and non-zero scales."""
    torch.manual_seed(0)
    theirs = case.theirs()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.numel() == 1:  # A scale that starts at 0 and would hide the attention.
                parameter.fill_(0.7)
    modules = {"theirs": theirs}
    if "ours" in sides:
        modules["ours"] = case.ours()
        modules["ours"].load_state_dict(theirs.state_dict())
    return [modules[side].to(device) for side in sides]


def _inputs(
    case: Case, size: tuple[int, int], mode: str, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """The feature map and, in training, the gradient that comes back from the layers above."""
    generator = torch.Generator().manual_seed(1)
    shape = (1, case.channels, *size)
    x = torch.randn(shape, generator=generator).to(device)
    if mode == FORWARD:
        return x, None
    return x.requires_grad_(), torch.randn(shape, generator=generator).to(device)


def _step(module: nn.Module, x: Tensor, grad: Tensor | None) -> list[Tensor]:
    """One forward pass, and with ``grad`` one backward pass: the output and all gradients."""
    if grad is None:
        with torch.no_grad():
            return [module(x)]
    out = module(x)
    return [out.detach(), *torch.autograd.grad(out, [x, *module.parameters()], grad)]


def measure_memory(name: str, side: str, mode: str, size: tuple[int, int], device_type: str) -> int:
    """Extra peak bytes of one implementation. Runs in a process of its own."""
    case, device = CASES[name], torch.device(device_type)
    [module] = _modules(case, device, [side])
    _step(module, *_inputs(case, WARM_UP_SIZE, mode, device))
    x, grad = _inputs(case, size, mode, device)
    return extra_peak(lambda: _step(module, x, grad), device)


def measure_time(
    name: str, sides: Sequence[str], mode: str, size: tuple[int, int], device_type: str, repeats: int
) -> tuple[list[list[float]], float, float | None]:
    """Seconds of each side's rounds, the product rate and the largest relative difference.

    The difference is None when only one side is given.
    """
    case, device = CASES[name], torch.device(device_type)
    modules = _modules(case, device, sides)
    x, grad = _inputs(case, size, mode, device)
    rate = product_rate(device)
    results = [_step(module, x, grad) for module in modules]  # The warm-up, too.
    error = _largest_difference(*results) if len(results) == 2 else None
    del results
    rounds = alternate([lambda m=module: _step(m, x, grad) for module in modules], repeats, device)
    return rounds, max(rate, product_rate(device)), error


def _largest_difference(theirs: list[Tensor], ours: list[Tensor]) -> float:
    """Over the output, the input's gradient, and the parameters' gradients taken together.

    Together, because the key's bias shifts all energies of a row alike: its gradient is
    0 but for rounding, and has no magnitude of its own to compare with.
    """
    pairs = list(zip(theirs[:2], ours[:2], strict=True))
    if theirs[2:]:
        pairs.append(tuple(torch.cat([grad.flatten() for grad in side[2:]]) for side in (theirs, ours)))
    return max(_relative_difference(*pair) for pair in pairs)


def _relative_difference(reference: Tensor, other: Tensor) -> float:
    """Largest difference over largest magnitude; NaN, not 0, where either tensor holds one."""
    return ((reference - other).abs().max() / reference.abs().max().clamp_min(1e-30)).item()


def compare(case: Case, mode: str, size: tuple[int, int], device: torch.device, repeats: int) -> Row:
    """Measure one case at one size; what cannot be measured is left empty, with a note."""
    row = Row(case.name, mode, *size, positions=size[0] * size[1])
    sides = ["theirs", "ours"]
    needed, available = case.their_bytes(row.positions, mode), available_memory(device)
    if available is not None and needed > 0.9 * available:
        sides = ["ours"]
        row.note = f"mmseg skipped: it needs about {_gib(needed)}, of which {_gib(available)} are available"
    for side in sides:
        try:
            peak = in_subprocess(measure_memory, case.name, side, mode, size, device.type)
        except MeasurementError as error:
            row.note = f"memory of {side}: {error}"
            continue
        setattr(row, f"{side}_extra_bytes", peak)
    if row.theirs_extra_bytes and row.ours_extra_bytes:
        row.memory_ratio = row.theirs_extra_bytes / row.ours_extra_bytes
    try:
        rounds, row.product_rate, row.max_relative_error = in_subprocess(
            measure_time, case.name, sides, mode, size, device.type, repeats
        )
    except MeasurementError as error:
        row.note = f"time: {error}"
        return row
    row.floor_seconds = case.operations(row.positions, mode) / row.product_rate
    for side, seconds in zip(sides, rounds, strict=True):
        setattr(row, f"{side}_rounds", seconds)
        setattr(row, f"{side}_seconds", statistics.median(seconds))
    if row.theirs_seconds:
        row.time_ratio = row.ours_seconds / row.theirs_seconds
    return row


def run(
    sizes: dict[str, list[tuple[int, int]]], device: torch.device, repeats: int, console: Console
) -> list[Row]:
    """Measure every case in every mode at every size, with a progress bar."""
    jobs = [(case, mode, size) for case in CASES.values() for mode in sizes for size in sizes[mode]]
    # A job's length goes with the square of its positions; the estimate of the time left follows it.
    weights = [case.operations(math.prod(size), mode) + 1e10 for case, mode, size in jobs]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    rows = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=round(sum(weights) / 1e10))
        for (case, mode, size), weight in zip(jobs, weights, strict=True):
            progress.update(task, description=f"{case.name}, {mode}, {_size(size)}")
            rows.append(compare(case, mode, size, device, repeats))
            progress.advance(task, weight / 1e10)
    return rows


# Ratios: the time is danseg's over mmseg's, the memory mmseg's over danseg's.
COLUMNS = [
    "mode",
    "size",
    "mmseg s",
    "danseg s",
    "time ratio",
    "floor s",
    "mmseg MiB",
    "danseg MiB",
    "memory ratio",
    "difference",
]


def table_cells(rows: list[Row]) -> list[list[str]]:
    """Strings under :data:`COLUMNS`, one list a row."""
    return [
        [
            row.mode,
            f"{row.height}x{row.width}",
            _number(row.theirs_seconds, ".3g"),
            _number(row.ours_seconds, ".3g"),
            _number(row.time_ratio, ".2f"),
            _number(row.floor_seconds, ".3g"),
            _number(row.theirs_extra_bytes, ".0f", MIB),
            _number(row.ours_extra_bytes, ".0f", MIB),
            _number(row.memory_ratio, ".1f"),
            _number(row.max_relative_error, ".1e"),
        ]
        for row in rows
    ]


def promises_kept(rows: list[Row]) -> list[str]:
    """One line for each promise that ``rows`` measured: kept or missed, and by how much."""
    lines = []
    for row in rows:
        least = PROMISES.get((row.mode, (row.height, row.width)))
        if least is None or row.memory_ratio is None or row.time_ratio is None:
            continue
        kept = "kept" if row.memory_ratio >= least and row.time_ratio <= 1 else "MISSED"
        lines.append(
            f"{kept}: {row.mode} {row.height}x{row.width}: {row.memory_ratio:.1f}x less extra memory "
            f"(promised {least:g}x) in {row.time_ratio:.2f} of the time (promised 1 at most)"
        )
    return lines


def markdown(rows: list[Row]) -> str:
    """The results as Markdown: a table for each module, its notes and promises below it."""
    blocks = []
    for name, of_case in _by_case(rows):
        lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * 2 + "---:|" * (len(COLUMNS) - 2)]
        lines += ["| " + " | ".join(cells) + " |" for cells in table_cells(of_case)]
        blocks += [f"**{name}**", "\n".join(lines)]
        blocks += ["\n".join(f"- {line}" for line in _notes(of_case) + promises_kept(of_case))]
    return "\n\n".join(block for block in blocks if block)


def _print_results(rows: list[Row]) -> None:
    # Wider than some terminals: a wrapped line can be read, a number cut short cannot.
    console = Console(width=max(Console().width, 110))
    for name, of_case in _by_case(rows):
        table = Table(title=name, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for index, column in enumerate(COLUMNS):
            table.add_column(column, justify="left" if index < 2 else "right", no_wrap=True)
        for cells in table_cells(of_case):
            table.add_row(*cells)
        console.print(table)
        for line in _notes(of_case) + promises_kept(of_case):
            console.print(line, highlight=False, soft_wrap=True)


def _by_case(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    names = dict.fromkeys(row.case for row in rows)
    return [(name, [row for row in rows if row.case == name]) for name in names]


def _notes(rows: list[Row]) -> list[str]:
    return [f"{row.mode} {row.height}x{row.width}: {row.note}" for row in rows if row.note]


def _number(value: float | None, form: str, unit: float = 1) -> str:
    return "–" if value is None else format(value / unit, form)


def _gib(amount: float) -> str:
    return f"{amount / 2**30:.1f} GiB"


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _versions() -> dict[str, str]:
    """Versions of danseg and of the distribution that provides mmseg."""
    versions = {"danseg": __version__}
    for name in ("onedl-mmsegmentation", "mmsegmentation"):
        try:
            versions["mmseg"] = version(name)
        except PackageNotFoundError:
            continue
        versions["mmseg_distribution"] = name
    return versions


def save(rows: list[Row], about: dict[str, Any], folder: Path, suffix: str) -> list[Path]:
    """Write NAME.json (everything), NAME.csv (the table's numbers) and NAME.png (the plot)."""
    stem = (
        f"attention_{about['device']}-{slug(about['device_name'])}"
        f"_torch{about['torch'].split('+')[0]}_mmseg{about.get('mmseg', '')}{suffix}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}{ending}" for ending in (".json", ".csv", ".png")]
    content = {"about": about, "rows": [asdict(row) for row in rows]}
    paths[0].write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    names = [field.name for field in fields(Row) if not field.name.endswith("_rounds")]
    with paths[1].open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    _plot(rows, f"{about['device_name']}, torch {about['torch']}, float32", paths[2])
    return paths


def load(path: Path) -> list[Row]:
    """The rows of a stored NAME.json."""
    try:
        return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot read {path} as a result of this benchmark ({error}); name a .json file it wrote"
        ) from error


def _plot(rows: list[Row], title: str, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)  # No window, and no state of pyplot touched.
    time_axes, memory_axes = figure.subplots(1, 2)
    styles = {FORWARD: "-", TRAINING: "--"}
    for mode in dict.fromkeys(row.mode for row in rows):
        of_mode = sorted((row for row in rows if row.mode == mode), key=lambda row: row.positions)
        for side, label, color in (("theirs", "mmseg", "tab:red"), ("ours", "danseg", "tab:blue")):
            look = {"color": color, "linestyle": styles[mode], "marker": "o", "label": f"{label}, {mode}"}
            _line(time_axes, of_mode, f"{side}_seconds", 1, **look)
            _line(memory_axes, of_mode, f"{side}_extra_bytes", MIB, **look)
        look = {"color": "gray", "linestyle": styles[mode], "label": f"floor, {mode}"}
        _line(time_axes, of_mode, "floor_seconds", 1, **look)
    time_axes.set(title="time", ylabel="seconds")
    memory_axes.set(title="extra peak memory", ylabel="MiB")
    for axes in (time_axes, memory_axes):
        axes.set(xscale="log", yscale="log", xlabel="positions N = H·W")
        axes.grid(True, which="both", alpha=0.25)
        axes.legend(fontsize="small")
    figure.suptitle(f"{', '.join(dict.fromkeys(row.case for row in rows))}: {title}")
    figure.savefig(path, dpi=120)


def _line(axes: Any, rows: list[Row], field: str, unit: float, **look: Any) -> None:
    points = [(row.positions, getattr(row, field) / unit) for row in rows if getattr(row, field) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), **look)


def _parse_size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"a size is HEIGHTxWIDTH, for example 97x97, got {text!r}")
    return int(parts[0]), int(parts[1])


def _parse_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the results."""
    description = __doc__.split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention", description=description)
    sizes = {"type": _parse_size, "nargs": "+", "metavar": "HxW"}
    parser.add_argument("--quick", action="store_true", help="small sizes, 3 rounds: a check, not a result")
    parser.add_argument("--sizes", **sizes, help="feature maps (default: 65x65 97x97 128x256)")
    parser.add_argument(
        "--training-sizes", **sizes, help="feature maps for training (default: --sizes, else 65x65 97x97)"
    )
    parser.add_argument("--repeats", type=_parse_count, help="timed rounds (default: 5, with --quick 3)")
    parser.add_argument("--threads", type=_parse_count, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    results = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=results, help="folder to write to (default: %(default)s)")
    parser.add_argument(
        "--markdown", type=Path, metavar="JSON", help="print a stored result as Markdown, measure nothing"
    )
    args = parser.parse_args(argv)
    if args.markdown:
        print(markdown(load(args.markdown)))
        return
    _mmseg_position_attention()  # Says at once how to install mmseg, not after a minute in a child.
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this PyTorch sees no CUDA device; use --device cpu")
    if args.threads:
        torch.set_num_threads(args.threads)
    defaults = QUICK_SIZES if args.quick else SIZES
    chosen = {
        FORWARD: args.sizes or defaults[FORWARD],
        TRAINING: args.training_sizes or args.sizes or defaults[TRAINING],
    }
    console = Console()
    repeats = args.repeats or (3 if args.quick else 5)
    rows = run(chosen, device, repeats, console)
    about = {**environment(device), **_versions(), "repeats": repeats}
    _print_results(rows)
    for path in save(rows, about, args.out, "_quick" if args.quick else ""):
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
