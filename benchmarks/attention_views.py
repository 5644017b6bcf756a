"""Measure what it costs to show a module's attention: to begin with an input, and a further position.

    python -m benchmarks.attention_views                              # every module, 512 channels at 128x256
    python -m benchmarks.attention_views --cases CBAM PositionAttention
    python -m benchmarks.attention_views --quick                      # narrow modules on small maps
    python -m benchmarks.attention_views --markdown benchmarks/results/NAME.json

A view begins once for a picture: it computes what all its maps need, such as keys. Then, of the kind
"position", each position costs a row of the map; of the other kinds, all is there when the view has begun.
Extra memory is the peak of both together, beyond what is in memory before, in a process of its own for each
view. Of views whose names differ in numbers alone, such as those of heads, the last one is measured.
"""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

import danseg.attention
from benchmarks import report
from benchmarks.command import set_up
from benchmarks.report import size_name
from danseg import attention_table
from danseg.attention.parts.views import View
from danseg.engine.measuring import (
    MIB,
    MeasurementError,
    alternate,
    environment,
    extra_peak,
    in_subprocess,
)
from danseg.errors import UserError, command_line
from danseg.visualization import record_attention

FULL = (512, (128, 256))  # channels, and the features' size: those of a frame of 1024x2048 at stride 8
QUICK = (64, (16, 24))
WARM_UP_SIZE = (12, 20)


@dataclass
class Cost:
    """What one view of a module costs. What was not measured is None, and ``note`` gives the reason.

    Attributes:
        module: its class, with the arguments that make a different network of it.
        view: its name in the table of modules.
        kind: of the view.
        begin_seconds: median of ``begin_rounds``: once for a picture.
        position_seconds: median of ``position_rounds``: a further position; None of a view that is the same
            for all positions.
        extra_bytes: peak of the two together, beyond the weights and the input.
    """

    module: str
    view: str
    kind: str
    begin_seconds: float | None = None
    position_seconds: float | None = None
    extra_bytes: int | None = None
    begin_rounds: list[float] | None = None
    position_rounds: list[float] | None = None
    note: str = ""


@dataclass(frozen=True)
class Case:
    """A module of ``danseg.attention``, by its name and the arguments that make a different network of it."""

    name: str
    arguments: dict[str, Any]

    @property
    def label(self) -> str:
        return attention_table.label(getattr(danseg.attention, self.name), **self.arguments)


CASES = [Case(module.__name__, arguments) for module, arguments in attention_table.modules()]
Question = Callable[[], Tensor]


@torch.no_grad()
def prepared(
    case: Case, channels: int, size: tuple[int, int], device: torch.device
) -> list[tuple[str, View, Tensor]]:
    """The views to measure, each with its name in the table of modules and its input.

    Of a module whose parts have the views, these get what they get from the module.
    """
    torch.manual_seed(0)
    kind = getattr(danseg.attention, case.name)
    module = kind(channels, **case.arguments).to(device).eval()
    generator = torch.Generator(device).manual_seed(1)
    sides = attention_table.features_of(kind, size)
    x = torch.randn(1, channels, *sides, generator=generator, device=device)
    groups = attention_table.groups_of_views(module)
    inputs = {"": x}
    if any(path for _, path, _ in groups):
        with record_attention(module) as recorded:
            module(x)
        inputs = {path: one.x for path, one in recorded.items()}
    return [(label, views[-1], inputs[path]) for label, path, views in groups]


def question(view: View, begun: Callable[..., Tensor], x: Tensor) -> Question:
    """What a view is asked: about the position in the middle, or about all of them."""
    middle = tuple(side // 2 for side in x.shape[2:])
    return partial(begun, [middle]) if view.kind == "position" else begun


@torch.no_grad()
def measure_memory(
    case: Case, number: int, channels: int, size: tuple[int, int], device_type: str
) -> tuple[int, str, str]:
    """Extra peak bytes of one view, its name and its kind; to be called in a process of its own."""
    device = torch.device(device_type)
    _, view, small = prepared(case, channels, WARM_UP_SIZE, device)[number]
    question(view, view.begin(small), small)()
    label, view, x = prepared(case, channels, size, device)[number]
    return extra_peak(lambda: question(view, view.begin(x), x)(), device), label, view.kind


@torch.no_grad()
def measure_time(
    case: Case, channels: int, size: tuple[int, int], device_type: str, repeats: int
) -> tuple[list[list[float]], list[list[float]]]:
    """Seconds of each view's rounds, to begin and to ask for a further position; all take turns."""
    device = torch.device(device_type)
    views = prepared(case, channels, size, device)
    questions = [question(view, view.begin(x), x) for _, view, x in views]  # the warm-up, too
    for ask in questions:
        ask()
    calls = [partial(view.begin, x) for _, view, x in views]
    rounds = alternate([*calls, *questions], repeats, device)
    return rounds[: len(views)], rounds[len(views) :]


def measure(
    case: Case, channels: int, size: tuple[int, int], device: torch.device, repeats: int
) -> list[Cost]:
    """The costs of a module's views, in the order of the table."""
    costs = []
    for number in range(len(prepared(case, channels, WARM_UP_SIZE, torch.device("cpu")))):
        try:
            peak, view, kind = in_subprocess(measure_memory, case, number, channels, size, device.type)
        except MeasurementError as error:
            return [*costs, Cost(case.label, f"view {number + 1}", "", note=f"memory: {error}")]
        costs.append(Cost(case.label, view, kind, extra_bytes=peak))
    if not costs:
        return []
    try:
        to_begin, to_ask = in_subprocess(measure_time, case, channels, size, device.type, repeats)
    except MeasurementError as error:
        for cost in costs:
            cost.note = f"time: {error}"
        return costs
    for cost, begins, asks in zip(costs, to_begin, to_ask, strict=True):
        cost.begin_rounds, cost.begin_seconds = begins, statistics.median(begins)
        if cost.kind == "position":
            cost.position_rounds, cost.position_seconds = asks, statistics.median(asks)
    return costs


COLUMNS = ["module", "shows", "begin, ms", "further position, ms", "extra MiB"]


def _cells(costs: Sequence[Cost]) -> list[list[str]]:
    return [
        [
            f"`{cost.module}`",
            cost.view,
            _number(cost.begin_seconds, 1e-3),
            _number(cost.position_seconds, 1e-3),
            _number(cost.extra_bytes, MIB),
        ]
        for cost in costs
    ]


def _number(value: float | None, unit: float) -> str:
    """Three digits, and no exponent."""
    if value is None:
        return "–"
    digits = 2 - math.floor(math.log10(value / unit)) if value else 0
    return f"{value / unit:.{min(max(digits, 0), 3)}f}"


def markdown(costs: Sequence[Cost], about: dict[str, Any]) -> str:
    """The table of ``docs/attention.md``, and what it was measured on."""
    channels, size = about["channels"], size_name(about["size"])
    lines = ["| " + " | ".join(COLUMNS) + " |", "| --- | --- | ---: | ---: | ---: |"]
    lines += ["| " + " | ".join(cells) + " |" for cells in _cells(costs)]
    notes = [f"- `{cost.module}`, {cost.view}: {cost.note}" for cost in costs if cost.note]
    said = (
        f"One image of {channels} channels at {size}, float32, {about['device_name']}, "
        f"torch {about['torch'].split('+')[0]}; medians of {about['repeats']} rounds."
    )
    return "\n".join([*lines, *([""] if notes else []), *notes, "", said])


def print_results(costs: Sequence[Cost], console: Console) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if index < 2 else "right", no_wrap=True)
    for cells in _cells(costs):
        table.add_row(*(cell.replace("`", "") for cell in cells))
    console.print(table)
    for cost in costs:
        if cost.note:
            console.print(f"{cost.module}, {cost.view}: {cost.note}", highlight=False, soft_wrap=True)


def read(path: Path) -> tuple[list[Cost], dict[str, Any]]:
    """The costs of a stored result, and what they were measured on."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [Cost(**cost) for cost in content["costs"]], content["about"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot read {path} as costs of views ({error}); give a .json file that this benchmark wrote"
        ) from error


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the results."""
    parser = report.parser("attention_views", __doc__.split("\n")[0])
    names = list(dict.fromkeys(case.name for case in CASES))
    parser.add_argument("--cases", nargs="+", choices=names, metavar="MODULE", help=", ".join(names))
    args = parser.parse_args(argv)
    if args.markdown:
        print(markdown(*read(args.markdown)))
        return
    device, repeats = set_up(args)
    channels, size = QUICK if args.quick else FULL
    console = Console(width=max(Console().width, 130))
    costs: list[Cost] = []
    chosen = [case for case in CASES if case.name in (args.cases or names)]
    for case in track(chosen, "views", console=console):
        costs += measure(case, channels, size, device, repeats)
    about = {**environment(device), **report.versions(), "repeats": repeats}
    about |= {"channels": channels, "size": size}
    print_results(costs, console)
    content = {"costs": [asdict(cost) for cost in costs]}
    path = report.store("attention_views", about, content, args.out, args.quick)
    console.print(f"wrote {path}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
