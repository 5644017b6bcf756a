"""What the attention modules are and cost, read from their docstrings and measured from their code.

No number here is written by hand. The modules run on fake tensors, which have sizes but hold no numbers, so
that the table can be made on any machine.
"""

import functools
import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import danseg.attention
from danseg.attention.compact_non_local import KERNELS
from danseg.attention.non_local import MODES
from danseg.attention.parts.views import View, attention_modules
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
    return [row(module, **arguments) for module, arguments in modules()]


def modules() -> list[tuple[Any, dict[str, Any]]]:
    """The classes of ``danseg.attention``, with the arguments that make a different network of them."""
    return [
        (getattr(danseg.attention, name), arguments)
        for name in danseg.attention.__all__
        for arguments in _VARIANTS.get(name, [{}])
    ]


def label(module: type[nn.Module], **arguments) -> str:
    """A class with the arguments that make a different network of it."""
    return module.__name__ + "".join(f'({key}="{value}")' for key, value in arguments.items())


def features_of(module: type[nn.Module], size: tuple[int, int]) -> tuple[int, ...]:
    """The size of its features: that of an image's, or as many positions in a row, or in a single frame."""
    return {1: (math.prod(size),), 2: size, 3: (1, *size)}[getattr(module, "dims", 2)]


@functools.cache
def row(module: type[nn.Module], **arguments) -> Row:
    """The row of ``module``, made with its defaults but for ``arguments``."""
    name = module.__name__
    with FakeTensorMode(), torch.no_grad():
        made = module(CHANNELS, **arguments).eval()
        parameters = sum(parameter.numel() for parameter in made.parameters())
        with FlopCounterMode(display=False) as counter:
            made(torch.empty(1, CHANNELS, *features_of(module, SIZE)))
    equation, paper, venue, arxiv = _from_docstring(module.__doc__ or "", *arguments.values())
    return Row(
        module=label(module, **arguments),
        config=f"danseg.{name}" if name in OWNED_BY_MMCV else name,
        parameters=parameters,
        operations=counter.get_total_flops(),
        shows=", ".join(called for called, *_ in groups_of_views(made)) or None,
        equation=equation,
        paper=paper,
        venue=venue,
        arxiv=arxiv,
    )


def groups_of_views(module: nn.Module) -> list[tuple[str, str, list[View]]]:
    """A module's views: what to call each group, the path of the part that has it, and the group's views.

    Views whose names differ in numbers alone are one group. The first view, which has no name, is called by
    its kind; so are others whose names do not say their kind. Those of parts stand behind the part's path.
    """
    found = []
    for path, part in attention_modules(module).items():
        groups: dict[tuple[str, str], list[View]] = {}
        for view in part.attention_views():
            groups.setdefault((view.kind, re.sub(r"\d+", "0", view.name)), []).append(view)
        for (kind, _), views in groups.items():
            names = " to ".join(f"`{name}`" for name in dict.fromkeys((views[0].name, views[-1].name)))
            if not views[0].name:
                names = kind
            elif not views[0].name.startswith(kind):
                names += f" ({kind})"
            found.append((f"{path}: {names}" if path else names, path, views))
    return found


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
