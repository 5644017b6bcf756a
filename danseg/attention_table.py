"""What the attention modules are and cost, read from their docstrings and measured from their code.

No number here is written by hand. The modules run on fake tensors, which have sizes but hold no numbers, so
that the table can be made on any machine.
"""

import functools
import itertools
import math
import re
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import danseg.attention
from danseg.attention.compact_non_local import KERNELS
from danseg.attention.non_local import MODES
from danseg.attention.parts.views import attention_modules
from danseg.registry import OWNED_BY_MMCV

CHANNELS = 512
SIZE = (97, 97)  # the features of a 769x769 crop at stride 8

# The pairwise functions of these blocks are different networks.
_VARIANTS = {
    "NonLocal2d": [dict(mode=mode) for mode in MODES],
    "CompactGeneralizedNonLocal": [dict(kernel=kernel) for kernel in KERNELS],
}


class Row(NamedTuple):
    """One module: what the table says about it."""

    module: str  # with the arguments that make it this row's
    config: str  # its type in a config
    parameters: int  # at CHANNELS channels
    operations: int  # of one image of CHANNELS x SIZE; a multiply-add counts as two
    shows: str | None  # the views of its attention
    equation: str  # of the output
    paper: str
    venue: str
    arxiv: str | None


def rows() -> list[Row]:
    """A row for each class of ``danseg.attention``, one for each variant that is a different network."""
    return [
        row(getattr(danseg.attention, name), **arguments)
        for name in danseg.attention.__all__
        for arguments in _VARIANTS.get(name, [{}])
    ]


@functools.cache
def row(module: type[nn.Module], **arguments) -> Row:
    """The row of ``module``, made with its defaults but for ``arguments``."""
    name = module.__name__
    dims = getattr(module, "dims", 2)
    # The same number of positions in one and in three dimensions.
    size = {1: (math.prod(SIZE),), 2: SIZE, 3: (1, *SIZE)}[dims]
    with FakeTensorMode(), torch.no_grad():
        made = module(CHANNELS, **arguments).eval()
        parameters = sum(parameter.numel() for parameter in made.parameters())
        with FlopCounterMode(display=False) as counter:
            made(torch.empty(1, CHANNELS, *size))
    equation, paper, venue, arxiv = _from_docstring(module.__doc__ or "", *arguments.values())
    return Row(
        module=name + "".join(f'({key}="{value}")' for key, value in arguments.items()),
        config=f"danseg.{name}" if name in OWNED_BY_MMCV else name,
        parameters=parameters,
        operations=counter.get_total_flops(),
        shows=_shows(made),
        equation=equation,
        paper=paper,
        venue=venue,
        arxiv=arxiv,
    )


def _shows(module: nn.Module) -> str | None:
    """The names of a module's views, with their kinds where the names do not say them.

    The first view has no name, but its kind. Of views whose names differ in numbers alone, the first and the last are named. Views of parts stand
    behind the part's name.
    """
    shown = []
    for path, part in attention_modules(module).items():
        of_kinds = itertools.groupby(
            part.attention_views(), lambda view: (view.kind, re.sub(r"\d+", "0", view.name))
        )
        for (kind, _), views in of_kinds:
            names = [_named(view.name, kind) for view in views]
            what = ", ".join(names) if len(names) < 3 else f"{names[0]} to {names[-1]}"
            shown.append(f"{path}: {what}" if path else what)
    return ", ".join(shown) or None


def _named(view: str, kind: str) -> str:
    if not view:
        return kind
    return f"`{view}`" if view.startswith(kind) else f"`{view}` ({kind})"


def _from_docstring(doc: str, *variant: str) -> tuple[str, str, str, str | None]:
    """Equation of the output, title and venue of the paper, and its arXiv number if it has one.

    The equation of a variant is completed by the line that begins with its name and a colon.
    """
    # Behind a # stands a remark, and blanks part an equation from the next.
    lines = [re.sub(r"\s{2,}", ", ", line.partition("#")[0].strip()) for line in doc.splitlines()]
    equation = next(line for line in lines if re.match(r"out\S* = ", line))
    for name in variant:
        equation += ", " + next(line for line in lines if line.startswith(f"{name}:")).partition(":, ")[2]
    paper = re.search(
        r'Paper: [^"]*"([^"]+)", ([^.]*?), (?:arXiv (\d{4}\.\d{4,5})|no arXiv id)', " ".join(doc.split())
    )
    if paper is None:
        raise ValueError(f"the docstring names no paper: {doc!r}")
    return equation, paper[1], paper[2], paper[3]


_COLUMNS = ("module", "type in a config", "parameters", "operations", "shows")


def _cells(row: Row) -> list[str]:
    return [row.module, row.config, _counted(row.parameters), _counted(row.operations), row.shows or "none"]


def _counted(number: int) -> str:
    """A count to three digits, such as 9.87 G."""
    power = min(len(str(number)) - 1, 12) // 3
    return f"{number / 1000**power:.3g} {['', 'k', 'M', 'G', 'T'][power]}".strip()


def markdown(rows: Iterable[Row]) -> str:
    """The table as Markdown."""
    lines = [[*_COLUMNS, "equation", "paper"], ["---"] * 2 + ["---:"] * 2 + ["---"] * 3]
    for row in rows:
        module, config, *others = _cells(row)
        link = f"[{row.paper}](https://arxiv.org/abs/{row.arxiv})" if row.arxiv else row.paper
        paper = f"{link}, {row.venue}"
        lines.append([f"`{module}`", f"`{config}`", *others, f"`{row.equation}`", paper])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _arxiv(row: Row) -> str:
    return f"arXiv {row.arxiv}" if row.arxiv else "no arXiv id"


def text(rows: Iterable[Row]) -> str:
    """The table for a terminal, with equation and paper below each module's numbers."""
    rows = list(rows)
    cells = [list(_COLUMNS), *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    head, *lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )
    return f"{head}\n" + "".join(
        f"{line}\n    {row.equation}\n    {row.paper}, {row.venue}, {_arxiv(row)}\n"
        for line, row in zip(lines, rows, strict=True)
    )
