"""Export every network in every format, and compare its files with it at sizes other than the exported one.

    python -m benchmarks.export_matrix                       # every head, and AttentionHead with every module
    python -m benchmarks.export_matrix --networks DANetHead CBAM
    python -m benchmarks.export_matrix --formats TorchScript

Weights are drawn so that the attention counts: no scale is zero, no statistics are those of a start. The
table has, by network and format, the largest difference from the network's logits over their largest one, and
the share of positions with the same class, over three sizes and batches. ONNX runs in ONNX Runtime.
"""

import argparse
import inspect
import json
import re
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks import exported_files, report
from benchmarks.arguments import RESULTS
from benchmarks.command import require_mmseg
from danseg.engine.measuring import environment
from danseg.errors import command_line

TRACED = (6, 10)
RUNS = [((5, 7), 3), ((17, 23), 1), ((12, 9), 3)]  # sizes and batches
MOST_DIFFERENCE, LEAST_AGREEMENT = 1e-4, 0.9999
COMMON = dict(in_channels=24, channels=16, num_classes=5, norm_cfg=dict(type="BN"))
#: What heads have no default for.
NEEDED = {
    "DANetHead": dict(pam_channels=4),
    "ISANetHead": dict(isa_channels=8),
    "PSANetHead": dict(mask_size=(5, 7)),
}


@dataclass
class Cell:
    """What one network's file of one format computes."""

    network: str
    format: str
    difference: float | None = None  # the largest, over the largest logit
    agreement: float | None = None  # share of positions with the same class
    seconds: float | None = None  # of the export
    error: str = ""

    @property
    def kept(self) -> bool:
        measured = self.difference is not None and self.agreement is not None
        return measured and self.difference <= MOST_DIFFERENCE and self.agreement >= LEAST_AGREEMENT


def networks() -> dict[str, dict]:
    """The configs of all heads, and of ``AttentionHead`` with each module for feature maps, by name."""
    import danseg.attention
    import danseg.heads
    from danseg.attention.non_local import MODES

    found = {name: dict(type=name, **NEEDED.get(name, {})) for name in danseg.heads.__all__}
    del found["AttentionHead"]
    for name in danseg.attention.__all__:
        module = getattr(danseg.attention, name)
        if getattr(module, "dims", 2) != 2:
            continue
        # With the prefix, because mmcv has classes of its own under two of the names.
        found[name] = dict(type="AttentionHead", attention=dict(type=f"danseg.{name}"))
        if "mode" in inspect.signature(module).parameters:
            del found[name]
            for mode in MODES:
                found[f"{name}, {mode}"] = dict(
                    type="AttentionHead", attention=dict(type=f"danseg.{name}", mode=mode)
                )
    return found


def build(config: dict) -> nn.Module:
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope("mmseg")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mmseg's losses, which nothing here computes
        head = MODELS.build({**COMMON, **config})
    exported_files.draw(head)
    return exported_files.OneInput(head).eval()


def feature_map(batch: int, size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, COMMON["in_channels"], *size, generator=generator)


def measure(name: str, network: nn.Module, form: str, folder: Path) -> Cell:
    cell = Cell(name, form)
    try:
        start = time.perf_counter()
        stem = folder / re.sub(r"\W+", "_", f"{name} {form}")
        path = exported_files.write(form, network, feature_map(2, TRACED), stem, (0, 2, 3))
        cell.seconds = time.perf_counter() - start
        run = exported_files.opened(path)
        differences, equal, positions = [], 0, 0
        for size, batch in RUNS:
            x = feature_map(batch, size)
            with torch.no_grad():
                wanted = network(x)
            found = run(x)
            differences.append(((found - wanted).abs().max() / wanted.abs().max()).item())
            same = found.argmax(1) == wanted.argmax(1)
            equal, positions = equal + int(same.sum()), positions + same.numel()
        cell.difference, cell.agreement = max(differences), equal / positions
    except Exception as error:  # noqa: BLE001  (whatever an exporter or a runtime raises belongs in the table)
        cell.error = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return cell


def _print(cells: list[Cell], forms: list[str]) -> None:
    console = Console(width=max(Console().width, 130))
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("network", *forms):
        table.add_column(column, no_wrap=True)
    by_place = {(cell.network, cell.format): cell for cell in cells}
    for name in dict.fromkeys(cell.network for cell in cells):
        table.add_row(name, *(_text(by_place[name, form]) for form in forms))
    console.print(table)
    missed = [cell for cell in cells if not cell.kept]
    for cell in missed:
        console.print(f"MISSED: {cell.network}, {cell.format}: {cell.error or _text(cell)}", soft_wrap=True)
    limits = f"at most {MOST_DIFFERENCE:g} and at least {LEAST_AGREEMENT:.2%}"
    console.print(f"{len(cells) - len(missed)} of {len(cells)} files are within {limits}", soft_wrap=True)


def _text(cell: Cell) -> str:
    return "–" if cell.difference is None else f"{cell.difference:.1e}, {cell.agreement:.2%}"


@command_line
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.export_matrix", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--formats", nargs="+", choices=list(exported_files.FORMATS), metavar="FORMAT")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder to write to (default: %(default)s)")
    args = parser.parse_args(argv)
    require_mmseg()
    configs = networks()
    if unknown := sorted(set(args.networks or ()) - set(configs)):
        parser.error(f"--networks takes {', '.join(configs)}, got {', '.join(unknown)}")
    forms = args.formats or list(exported_files.FORMATS)
    console = Console(stderr=True)
    about = {**environment(torch.device("cpu")), **report.versions(), "sizes": RUNS, "traced": TRACED}
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{report.stem('export_matrix', about, '')}.json"
    cells: list[Cell] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.networks or configs:
            network = build(configs[name])
            for form in forms:
                cells.append(measure(name, network, form, Path(folder)))
                console.print(f"{name}, {form}: {_text(cells[-1])}", highlight=False, soft_wrap=True)
    _print(cells, forms)
    content = {"about": about, "cells": [asdict(cell) for cell in cells]}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    console.print(f"wrote {path}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
