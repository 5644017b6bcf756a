"""What benchmarks.attention measures on a GPU: every way to compute the operator and the modules.

The bare operator comes by all ways of benchmarks/kernels.py, the modules as danseg's and as mmseg's or mmcv's
("mmseg"), some of them compiled. Differences are from float64: for the operator from the equation in
danseg/ops/reference.py, on some rows of the result; for a module from danseg's own in float64. Gradients are
compared at the smallest size alone, as one vector. Memory that cannot be there is not tried.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.attention_cases import CASES, FORWARD, TRAINING, Case, equal_modules, operations_of
from benchmarks.attention_plan import (
    ALL,
    COMPILED,
    FASTEST,
    NEW_SIZES,
    NEW_SIZES_COMPILED,
    OPERATORS,
    Task,
    plan,
)
from benchmarks.kernels import Attend, compiled, flex, uncompiled
from benchmarks.measure import available_memory
from benchmarks.ways import Figure, Job, Rates, compare, reason, timed
from danseg.engine.measuring import MeasurementError
from danseg.ops import reference

REFERENCE_ROWS = 64  # of a result that are compared
MOST_COMPARED_GRADIENTS = 33 * 33  # positions: the reference holds several maps in float64
WARM_UPS = 2
NEW_SIZE = {FORWARD: "first call at a new size", TRAINING: "first training step at a new size"}


@dataclass(frozen=True)
class Measurer:
    """Carries tasks out.

    Attributes:
        device: where.
        repeats: timed rounds.
        rates: of the device's products.
        compiler: the ``backend`` of ``torch.compile``.
    """

    device: torch.device
    repeats: int
    rates: Rates
    compiler: str = "inductor"

    def jobs(self, names: Sequence[str] = (), quick: bool = False) -> list[Job]:
        """The plan's tasks as jobs, of the named cases, or of all; with ``quick`` at tiny sizes."""
        chosen = [task for task in plan(quick) if not names or task.case in names]
        return [(task.name, partial(self.measure, task)) for task in chosen]

    def measure(self, task: Task) -> list[Figure]:
        """The figures of one task."""
        if task.what in (COMPILED, NEW_SIZES_COMPILED):
            torch.compiler.reset()  # another task's code is not used again, and the compiler counts it
        with task.precision.on():
            if task.what in (NEW_SIZES, NEW_SIZES_COMPILED):
                return self._first_calls(task)
            if task.case in OPERATORS:
                return self._operator(task)
            return self._module(task)

    def _operator(self, task: Task) -> list[Figure]:
        operator, positions = OPERATORS[task.case], task.positions
        attends = self._attends(task)
        operands = self._operands(task, positions)
        maps = len(operands.query)
        rate = self.rates[task.precision]

        def make(name: str, attend: Attend) -> Callable[[], Any]:
            if name.startswith("plain") or name.endswith("math, whole"):
                copies = 2 if task.mode == FORWARD else 4
                self._refuse_if_too_large(copies * maps * positions**2 * task.precision.dtype.itemsize)
            return partial(operands.attend, attend)

        return compare(
            task.question,
            {name: partial(make, name, attend) for name, attend in attends.items()},
            self.device,
            self.repeats,
            operator.operations(positions, task.batch, task.mode),
            rate,
            operands.exact if task.mode == FORWARD or positions <= MOST_COMPARED_GRADIENTS else None,
            operands.compared,
        )

    def _attends(self, task: Task) -> dict[str, Attend]:
        operator = OPERATORS[task.case]
        if task.what == COMPILED:
            return compiled(operator.value_channels, self.compiler)
        if task.what == NEW_SIZES_COMPILED:
            return flex(operator.value_channels, partial(torch.compile, backend=self.compiler))
        widths = operator.channels, operator.value_channels
        ways = uncompiled(*widths, task.precision.dtype, thorough=task.what == ALL)
        if task.what in (FASTEST, NEW_SIZES):
            kernels = {name: way for name, way in ways.items() if "flash" in name or "cuDNN" in name}
            named = ("danseg", "plain") if task.what == FASTEST else ("danseg",)
            return {name: ways[name] for name in named} | kernels
        return ways

    def _first_calls(self, task: Task) -> list[Figure]:
        """Seconds of the first call for other numbers of positions, after the kernels are loaded.

        Each way gets sizes of its own: danseg's kernels are also those of another way, which keep a plan for
        each size.
        """
        question = replace(task.question, mode=NEW_SIZE[task.mode])
        first, second = (replace(question, size=f"near {question.size} ({which})") for which in (1, 2))
        warm, positions = self._operands(task, task.positions), task.positions
        figures = []
        for way, attend in self._attends(task).items():
            try:
                for _ in range(WARM_UPS):
                    warm.attend(attend)
            except Exception as error:  # noqa: BLE001  (no kernel takes it)
                figures.append(Figure(**asdict(first), way=way, note=reason(error)))
                continue
            for new in (first, second):
                positions += 8
                operands = self._operands(task, positions)
                seconds = timed(partial(operands.attend, attend), self.device)[0]
                figures.append(Figure(**asdict(new), way=way, seconds=seconds, rounds=[seconds]))
        return figures

    def _operands(self, task: Task, positions: int) -> "Operands":
        operator = OPERATORS[task.case]
        generator = torch.Generator(self.device).manual_seed(1)

        def draw(channels: int) -> Tensor:
            shape = task.batch * operator.maps, channels, positions
            kind = {"device": self.device, "dtype": task.precision.dtype}
            return torch.randn(shape, generator=generator, **kind).mT  # as of a feature map: (B, N, C)

        training = task.mode == TRAINING
        query, key = draw(operator.channels), draw(operator.channels)
        value = draw(operator.value_channels)
        grad = draw(operator.value_channels) if training else None
        query, key, value = (t.requires_grad_(training) for t in (query, key, value))
        return Operands(query, key, value, grad, operator.channels**-0.5)

    def _module(self, task: Task) -> list[Figure]:
        case, dtype, training = CASES[task.case], task.precision.dtype, task.mode == TRAINING
        sides = ["theirs", "ours"] if case.theirs else ["ours"]
        modules = [m.to(dtype).train(training) for m in equal_modules(case, self.device, sides)]
        by_name = dict(zip(["mmseg", "danseg"][-len(sides) :], modules, strict=True))
        rate = self.rates[task.precision]
        generator = torch.Generator(self.device).manual_seed(1)
        shape = task.batch, case.channels, *task.size
        x, grad = (torch.randn(shape, generator=generator, device=self.device).to(dtype) for _ in range(2))
        grad = grad if training else None

        def exact() -> Tensor:
            module = copy.deepcopy(by_name["danseg"]).double()
            return _comparable(_module_step(module, x.double(), grad.double() if training else None))

        def make(name: str, module: nn.Module) -> Callable[[], Any]:
            if name == "mmseg":
                self._refuse_peer(case, task)
            if task.what == COMPILED:
                module = torch.compile(module, dynamic=False, backend=self.compiler)
            return partial(_module_step, module, x, grad)

        suffix = ", compiled" if task.what == COMPILED else ""
        return compare(
            task.question,
            {name + suffix: partial(make, name, module) for name, module in by_name.items()},
            self.device,
            self.repeats,
            operations_of(case, task.mode, task.size) * task.batch,
            rate,
            exact if not training or task.positions <= MOST_COMPARED_GRADIENTS else None,
            _comparable,
        )

    def _refuse_peer(self, case: Case, task: Task) -> None:
        if task.mode in case.cannot:
            raise MeasurementError(case.cannot[task.mode])
        in_float32 = case.their_bytes(task.positions, task.mode)
        self._refuse_if_too_large(in_float32 * task.batch * task.precision.dtype.itemsize / 4)

    def _refuse_if_too_large(self, needed: float) -> None:
        available = available_memory(self.device)
        if available is not None and needed > 0.9 * available:
            raise MeasurementError(
                f"not tried: it needs about {needed / 2**30:.1f} GiB, of which {available / 2**30:.1f} GiB "
                "are available"
            )


@dataclass(frozen=True)
class Operands:
    """Queries and keys (B, N, C), values (B, N, D), the scale; in training the output's gradient."""

    query: Tensor
    key: Tensor
    value: Tensor
    grad: Tensor | None
    scale: float

    def attend(self, attend: Attend) -> Any:
        """The output, or in training the gradients."""
        operands = self.query, self.key, self.value
        if self.grad is None:
            with torch.no_grad():
                return attend(*operands, self.scale)
        return torch.autograd.grad(attend(*operands, self.scale), operands, self.grad)

    def compared(self, result: Any) -> Tensor:
        """The first rows of an output, or all gradients."""
        return _comparable(result) if isinstance(result, tuple) else result[:, :REFERENCE_ROWS]

    def exact(self) -> Tensor:
        """What is compared, by the equation in float64."""
        operands = [t.detach().double() for t in (self.query, self.key, self.value)]
        if self.grad is None:
            query, key, value = operands
            return reference.attention(query[:, :REFERENCE_ROWS], key, value, self.scale)
        for t in operands:
            t.requires_grad_()
        out = reference.attention(*operands, self.scale)
        return _comparable(torch.autograd.grad(out, operands, self.grad.double()))


def _module_step(module: nn.Module, x: Tensor, grad: Tensor | None) -> Any:
    """The output, or with ``grad`` the gradients of the input and of the parameters."""
    if grad is None:
        with torch.no_grad():
            return module(x)
    x = x.detach().requires_grad_()
    return torch.autograd.grad(module(x), [x, *module.parameters()], grad)


def _comparable(result: Any) -> Tensor:
    """An output as it is; gradients as one vector."""
    return result if isinstance(result, Tensor) else torch.cat([grad.flatten() for grad in result])
