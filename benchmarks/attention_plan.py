"""What benchmarks.attention measures on a GPU, the most important first."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.attention_cases import CASES, CHANNELS, FORWARD, TRAINING
from benchmarks.report import size_name
from benchmarks.ways import BFLOAT16, FLOAT16, FLOAT32, PRECISIONS, TF32, Precision, Question

MODES = (FORWARD, TRAINING)
TINY, CROP, FRAME, LARGE = (33, 33), (97, 97), (128, 256), (256, 512)
QUICK = {TINY: (5, 7), CROP: (8, 9), FRAME: (8, 16), LARGE: (16, 16)}
# What a task measures.
ALL, LIKELY, FASTEST, COMPILED, NEW_SIZES, NEW_SIZES_COMPILED = (
    "all ways",
    "likely ways",
    "fastest kernels",
    "compiled",
    "new sizes",
    "new sizes, compiled",
)


@dataclass(frozen=True)
class Operator:
    """The bare operator for queries and keys of ``channels`` and values of ``value_channels``.

    Attributes:
        maps: how many maps one image has.
    """

    channels: int
    value_channels: int
    maps: int = 1

    def operations(self, positions: int, batch: int, mode: str) -> float:
        """Of the products that no exact way avoids; each has two of its size in the backward pass."""
        products = 2.0 * batch * self.maps * positions**2 * (self.channels + self.value_channels)
        return products * (1 if mode == FORWARD else 3)


MAIN = "attention operator"
OPERATORS = {
    MAIN: Operator(64, CHANNELS),
    "attention operator, 256 and 256": Operator(256, 256),  # non-local, disentangled non-local
    "attention operator, 512 and 256": Operator(512, 256),  # non-local, Gaussian
    "attention operator, 256 and 512, 64 maps": Operator(256, 512, maps=64),  # interlaced
}
FAR_MAPS = (13, 13)  # of the interlaced module at 97x97
NAMES = [*OPERATORS, *(name for name in CASES if name not in OPERATORS)]


@dataclass(frozen=True)
class Task:
    """One table of the result.

    Attributes:
        case: a name in ``OPERATORS`` or ``CASES``.
        what: all ways but compiled ones; those of them that are likely fast; danseg, the plain form and the
            fastest kernels; compiled ways; first calls at new sizes, of kernels or of compiled FlexAttention.
    """

    case: str
    mode: str
    size: tuple[int, int]
    batch: int
    precision: Precision
    what: str = LIKELY

    @property
    def name(self) -> str:
        where = f"{self.mode}, {size_name(self.size)}, batch {self.batch}, {self.precision.name}"
        return f"{self.case}: {self.what}, {where}"

    @property
    def positions(self) -> int:
        """Of each map."""
        maps = OPERATORS[self.case].maps if self.case in OPERATORS else 1
        if maps > 1 and self.size == CROP:
            return math.prod(FAR_MAPS)
        return -(-math.prod(self.size) // maps)

    @property
    def question(self) -> Question:
        return Question(self.case, self.mode, size_name(self.size), self.batch, self.precision.name)


def plan(quick: bool = False) -> list[Task]:
    """All tasks, the most important first; with ``quick`` at tiny sizes."""
    tasks = _plan()
    return list(dict.fromkeys(replace(task, size=QUICK[task.size]) for task in tasks)) if quick else tasks


def _plan() -> list[Task]:
    both = (FLOAT32, BFLOAT16)
    attention, embedded = "position attention", "non-local, embedded_gaussian"
    others = [name for name in CASES if name not in (MAIN, attention)]
    alone = [name for name in others if CASES[name].theirs is None]

    def tasks(
        cases: Sequence[str],
        sizes: Sequence[tuple[int, int]],
        precisions: Sequence[Precision],
        what: str = LIKELY,
        batch: int = 1,
        modes: Sequence[str] = MODES,
    ) -> Iterator[Task]:
        for size, precision, case, mode in itertools.product(sizes, precisions, cases, modes):
            yield Task(case, mode, size, batch, precision, what)

    large = [attention, "criss-cross attention", "non-local, dot_product", "interlaced sparse attention"]
    wide = [name for name in OPERATORS if OPERATORS[name].maps == 1 and name != MAIN]
    windows = [name for name in OPERATORS if OPERATORS[name].maps > 1]
    return [
        *tasks([MAIN], [CROP], [BFLOAT16, FLOAT32], ALL),
        *tasks([attention], [CROP, FRAME], PRECISIONS),
        *tasks(others, [CROP], both),
        *tasks([MAIN], [FRAME], PRECISIONS),
        *tasks([*wide, *windows], [CROP], both),
        *tasks([MAIN], [CROP], [BFLOAT16], NEW_SIZES),
        *tasks(others, [FRAME], both),
        *tasks([MAIN, attention], [CROP, FRAME], both, FASTEST, batch=2),
        *tasks([MAIN], [LARGE], [BFLOAT16], FASTEST),
        *tasks(large, [LARGE], [BFLOAT16], modes=[FORWARD]),
        *tasks([MAIN], [CROP], [BFLOAT16], COMPILED),
        *tasks([MAIN, attention], [TINY], both, modes=[TRAINING]),
        *tasks(others, [CROP], [TF32, FLOAT16]),
        *tasks(others, [CROP], both, batch=2),
        *tasks([MAIN], [CROP], [TF32, FLOAT16], ALL),
        *tasks([attention], [CROP], [BFLOAT16], COMPILED),
        *tasks([MAIN, attention], [CROP], [FLOAT32], COMPILED),
        *tasks([MAIN], [CROP], [FLOAT32], NEW_SIZES),
        *tasks([MAIN], [CROP], [BFLOAT16], NEW_SIZES_COMPILED),
        *tasks([embedded], [CROP], [BFLOAT16], COMPILED),
        *tasks([MAIN], [TINY], PRECISIONS, ALL, modes=[TRAINING]),
        *tasks(others, [TINY], both, modes=[TRAINING]),
        *tasks([attention], [LARGE], [BFLOAT16], modes=[TRAINING]),
        *tasks(alone, [CROP], [BFLOAT16], COMPILED, modes=[FORWARD]),
        *tasks([MAIN], [FRAME], [BFLOAT16], COMPILED),
        *tasks(others, [FRAME], both, batch=2),
        *tasks(others, [FRAME], [TF32, FLOAT16]),
    ]
