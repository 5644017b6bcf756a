"""Measure what it costs to see where a network looks: the first position of a picture, and a second click.

    python -m benchmarks.exploration                              # a frame of 1024x2048, half an hour
    python -m benchmarks.exploration --cases danet ccnet
    python -m benchmarks.exploration --quick                      # narrow networks, a small picture
    python -m benchmarks.exploration --markdown benchmarks/results/NAME.json

A plain pass is ``predict``: a picture in memory to its labels. The first position is ``explore`` and one map
of the network's first view; both take turns. A second click asks another position of the same exploration:
each view by itself, the probabilities, a channel. The effect of the last module is asked for once, which is
a pass, and then again. Memory is the extra peak of a process of its own, and what is kept.
"""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from benchmarks import report
from benchmarks.command import set_up
from benchmarks.inference import settle, smooth
from benchmarks.networks import CONFIGS
from benchmarks.report import size_name
from danseg.engine.measuring import (
    MeasurementError,
    alternate,
    environment,
    extra_peak,
    in_subprocess,
)
from danseg.errors import UserError, command_line

# Configs of networks that are tested on whole frames, by the names of the networks.
NETWORKS = {
    name: f"{name}_r50_cityscapes_512x1024"
    for name in ("danet", "nonlocal", "ccnet", "psanet", "isanet", "dnlnet", "gcnet")
}
NETWORKS |= {name: f"{name}_r50_cityscapes" for name in ("epsanet", "psdanet")}
FULL, QUICK = (64, (1024, 2048)), (8, (64, 128))  # channels of the first stage, and the picture's size
WARM_UP_SIZE = (64, 128)
# What the first position and a second click may cost; below, seconds on two cores.
MEMORY, TIME, CLICK = 1e9, 1.2, 0.2


@dataclass
class Cost:
    """What it costs to explore a picture. What was not measured is None, and ``note`` gives the reason.

    Attributes:
        network: a key of :data:`NETWORKS`.
        view: the network's first one, whose map is asked for.
        plain_seconds, plain_bytes: median and extra peak of a plain pass.
        first_seconds, first_bytes: of the exploration with its first position.
        kept_bytes: what the exploration keeps from the start.
        clicks: median seconds of a second click, by what is asked.
        effect_seconds: of the first question about the effect of the last module.
    """

    network: str
    view: str = ""
    plain_seconds: float | None = None
    first_seconds: float | None = None
    plain_bytes: int | None = None
    first_bytes: int | None = None
    kept_bytes: int | None = None
    clicks: dict[str, float] = field(default_factory=dict)
    effect_seconds: float | None = None
    plain_rounds: list[float] | None = None
    first_rounds: list[float] | None = None
    note: str = ""


@torch.no_grad()
def build(name: str, width: int, device: torch.device) -> Any:
    """A network of danseg's configs, prepared for inference, with random weights of the usual sizes."""
    from danseg.apis import load_model, prepare_for_inference
    from danseg.engine.config.config_file import load_config

    config = load_config(CONFIGS / f"{NETWORKS[name]}.py")
    model = config.model
    model.test_cfg = dict(mode="whole")
    dataset = config.test_dataloader.dataset  # its pictures are not resized
    dataset.pipeline = [step for step in dataset.pipeline if step["type"] != "Resize"]
    if width != 64:
        model.backbone.update(base_channels=width)
        if "stem_channels" in model.backbone:
            model.backbone.stem_channels = width
        for part in (model.decode_head, model.auxiliary_head):
            for key in ("in_channels", "channels", "pam_channels", "isa_channels"):
                if key in part:
                    part[key] = part[key] * width // 64
    torch.manual_seed(0)
    return prepare_for_inference(settle(load_model(config, None, str(device))))


def picture(size: tuple[int, int]) -> np.ndarray:
    """Smooth random colours (H, W, 3) uint8."""
    return smooth(3, size, cell=16).mul(40).add(128).clamp(0, 255).byte().permute(1, 2, 0).numpy()


def first_position(model: Any, image: np.ndarray) -> Any:
    """Explore a picture and ask for one map of the first view; returns the exploration."""
    from danseg.apis import explore

    exploration = explore(model, image)
    height, width = image.shape[:2]
    exploration.attention(next(iter(exploration.views)), [(width // 2, height // 2)])
    return exploration


def measure_memory(name: str, width: int, size: tuple[int, int], device_type: str) -> dict[str, int]:
    """Extra peaks of a plain pass and of a first position, and what is kept. For a process of its own."""
    from danseg.apis import predict

    device = torch.device(device_type)
    model, image = build(name, width, device), picture(size)
    for call in (predict, first_position):
        call(model, picture(WARM_UP_SIZE))
    plain = extra_peak(lambda: predict(model, image), device)
    kept: list[Any] = []
    peak = extra_peak(lambda: kept.append(first_position(model, image)), device)
    return dict(plain=plain, first=peak, kept=kept[0].nbytes)


def questions(exploration: Any) -> dict[str, Callable[[tuple[int, int]], Any]]:
    """What a click can ask, by its name."""
    asked: dict[str, Callable[[tuple[int, int]], Any]] = {
        key: partial(_attention, exploration, key) for key in exploration.views
    }
    for key, view in exploration.views.items():
        if view.kind == "channels":
            try:
                exploration.channel_classes(key)
            except UserError:  # those of a part inside
                continue
            asked[f"{key}, its strongest channel"] = partial(exploration.strongest_channel, key)
    last = exploration.modules[-1]
    asked[f"{last}, its effect"] = partial(_effect, exploration, last)
    return {**asked, "probabilities": exploration.probabilities}


def _attention(exploration: Any, key: str, position: tuple[int, int]) -> Any:
    return exploration.attention(key, [position])


def _effect(exploration: Any, module: str, position: tuple[int, int]) -> Any:
    return exploration.effect(module, [position])


def measure_time(
    name: str, width: int, size: tuple[int, int], device_type: str, repeats: int
) -> dict[str, Any]:
    """The rounds of a plain pass and of a first position, and the median of every second click."""
    from danseg.apis import predict

    device = torch.device(device_type)
    model, image = build(name, width, device), picture(size)
    for call in (predict, first_position):
        call(model, picture(WARM_UP_SIZE))
    calls = [partial(predict, model, image), partial(first_position, model, image)]
    plain, first = alternate(calls, repeats, device)
    exploration = first_position(model, image)
    height, across = size
    [[effect]] = alternate([partial(exploration.effect, exploration.modules[-1])], 1, device)
    clicks: dict[str, float] = {}
    for asked, ask in questions(exploration).items():
        ask((across // 3, height // 3))  # the first one, which begins the view
        seconds = [
            alternate([partial(ask, (across * n // (repeats + 2), height * n // (repeats + 2)))], 1, device)[
                0
            ][0]
            for n in range(1, repeats + 1)
        ]
        clicks[asked] = statistics.median(seconds)
    view = next(iter(exploration.views))
    return dict(plain=plain, first=first, clicks=clicks, effect=effect, view=view)


def measure(name: str, width: int, size: tuple[int, int], device: torch.device, repeats: int) -> Cost:
    cost = Cost(name)
    try:
        found = in_subprocess(measure_memory, name, width, size, device.type)
        cost.plain_bytes, cost.first_bytes, cost.kept_bytes = found["plain"], found["first"], found["kept"]
        times = in_subprocess(measure_time, name, width, size, device.type, repeats)
    except MeasurementError as error:
        cost.note = str(error)
        return cost
    cost.view, cost.clicks, cost.effect_seconds = times["view"], times["clicks"], times["effect"]
    cost.plain_rounds, cost.first_rounds = times["plain"], times["first"]
    cost.plain_seconds, cost.first_seconds = map(statistics.median, (times["plain"], times["first"]))
    return cost


COLUMNS = [
    "network",
    "first view",
    "plain s",
    "first position s",
    "ratio",
    "plain MB",
    "first position MB",
    "kept MB",
    "slowest second click, ms",
    "effect, first s",
]


def cells(cost: Cost) -> list[str]:
    """Strings for :data:`COLUMNS`."""
    slowest = max(cost.clicks, key=lambda one: cost.clicks[one], default="")
    click = f"{cost.clicks[slowest] * 1e3:.0f} ({slowest})" if slowest else "–"
    ratio = cost.first_seconds / cost.plain_seconds if cost.first_seconds and cost.plain_seconds else None
    return [
        cost.network,
        cost.view or "–",
        *(report._number(one, ".3g") for one in (cost.plain_seconds, cost.first_seconds, ratio)),
        *(report._number(one, ".0f", 1e6) for one in (cost.plain_bytes, cost.first_bytes, cost.kept_bytes)),
        click,
        report._number(cost.effect_seconds, ".3g"),
    ]


def promises(cost: Cost) -> list[str]:
    """What was promised of a frame, and whether it is kept; nothing of what was not measured."""
    said = []
    if cost.first_bytes is not None and cost.plain_bytes is not None:
        more = max(0, cost.first_bytes - cost.plain_bytes)
        said.append(
            (more <= MEMORY, f"{more / 1e9:.2f} GB more than a plain pass (promised {MEMORY / 1e9:g})")
        )
    if cost.first_seconds and cost.plain_seconds:
        ratio = cost.first_seconds / cost.plain_seconds
        said.append((ratio <= TIME, f"{ratio:.2f} of its time (promised {TIME})"))
    if cost.clicks:
        slowest = max(cost.clicks.values())
        said.append((slowest <= CLICK, f"a second click {slowest:.3f} s (promised {CLICK})"))
    return [f"{'kept' if kept else 'MISSED'}: {cost.network}: {text}" for kept, text in said]


def markdown(costs: Sequence[Cost], about: dict[str, Any]) -> str:
    """The table, the promises, and what it was measured on."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * 2 + "---:|" * (len(COLUMNS) - 2)]
    lines += ["| " + " | ".join(cells(cost)) + " |" for cost in costs]
    notes = [f"- {cost.network}: {cost.note}" for cost in costs if cost.note]
    if about["size"] == list(FULL[1]):
        notes += [f"- {line}" for cost in costs for line in promises(cost)]
    said = (
        f"A picture of {size_name(about['size'])}, float32, prepared for inference, {about['device_name']}, "
        f"torch {about['torch'].split('+')[0]}; medians of {about['repeats']} rounds."
    )
    return "\n".join([*lines, "", *notes, *([""] if notes else []), said])


def read(path: Path) -> tuple[list[Cost], dict[str, Any]]:
    """The costs of a stored result, and what they were measured on."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [Cost(**cost) for cost in content["costs"]], content["about"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot read {path} as costs of explorations ({error}); give a .json file that this benchmark "
            "wrote"
        ) from error


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the results."""
    parser = report.parser("exploration", __doc__.split("\n")[0])
    parser.add_argument(
        "--cases", nargs="+", choices=list(NETWORKS), metavar="NETWORK", help=", ".join(NETWORKS)
    )
    args = parser.parse_args(argv)
    if args.markdown:
        print(markdown(*read(args.markdown)))
        return
    device, repeats = set_up(args)
    width, size = QUICK if args.quick else FULL
    console = Console(width=max(Console().width, 130))
    names = args.cases or list(NETWORKS)
    costs = [
        measure(name, width, size, device, repeats) for name in track(names, "networks", console=console)
    ]
    about = {**environment(device), **report.versions(), "repeats": repeats, "size": list(size)}
    console.print(markdown(costs, about), highlight=False, markup=False, soft_wrap=True)
    content = {"costs": [asdict(cost) for cost in costs]}
    path = report.store("exploration", about, content, args.out, args.quick)
    console.print(f"wrote {path}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
