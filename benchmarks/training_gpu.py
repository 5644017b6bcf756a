"""The plan of ``python -m benchmarks.training --device cuda``: a training step in every precision.

For each network and crop of danseg's configs, a step of mmseg's network is timed in turns with a step of
danseg's, which recomputes the early stages in its backward pass, as its configs say, or recomputes nothing.
All begin with the same weights, have no dropout, and get the same two images from pinned memory. As in the
configs, cuDNN searches for the fastest convolutions; the first step does so, and is not in the times.

Every step is taken in every precision of :data:`PRECISIONS`. "float32" rounds nothing. PyTorch, unless it is
told otherwise, lets convolutions on a GPU round their inputs to TF32: "float32, TF32 convolutions". "float32,
TF32" also lets matrix products do so. "bfloat16" and "float16" are autocast over float32 weights, as with
``--amp``; float16 has mmengine's loss scaling.

Memory is the allocator's peak of a process that trains this way alone: weights, optimiser's state and step.
The difference is that of the first loss from mmseg's in float32 (danseg's, where mmseg's cannot be built).
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import ways
from benchmarks.measure import slug
from benchmarks.networks import HEADS, Network, read_config, segmentor
from benchmarks.report import size_name
from benchmarks.training_batch import BATCH, batch
from benchmarks.ways import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    TF32,
    TF32_CONVOLUTIONS,
    Figure,
    Job,
    Precision,
    Question,
)
from danseg.errors import UserError

MODE = "training step"
MMSEGS, DANSEGS, KEEPS_ALL = "mmseg", "danseg", "danseg, recompute=[]"
WAYS = (MMSEGS, DANSEGS, KEEPS_ALL)
COMPILED = f"{KEEPS_ALL}, compiled"
PRECISIONS = (FLOAT32, TF32_CONVOLUTIONS, TF32, BFLOAT16, FLOAT16)
# Peaks in GB with two images that mmseg's model zoo publishes, in float32 on V100s, by the ResNet's depth.
PUBLISHED_GB = {
    ("danet", "cityscapes_512x1024"): {50: 7.4, 101: 10.9},
    ("danet", "cityscapes"): {50: 8.8, 101: 12.8},
    ("ccnet", "cityscapes_512x1024"): {50: 6.0, 101: 9.5},
    ("ccnet", "cityscapes"): {50: 6.8, 101: 10.7},
    ("nonlocal", "cityscapes_512x1024"): {50: 7.4, 101: 10.9},
    ("nonlocal", "cityscapes"): {50: 8.9, 101: 12.8},
    ("psanet", "cityscapes_512x1024"): {50: 7.0, 101: 10.5},
    ("psanet", "cityscapes"): {50: 7.9, 101: 11.9},
}
# So that the weights stay where all ways begin, however many steps a GPU takes.
LEARNING_RATE = 1e-4
# mmengine begins with 65536 and halves it after a step that overflows, which the optimiser then leaves out.
LOSS_SCALE = 128.0


class Case:
    """One network on crops of one size, in all ways; each is built when it is first asked for.

    Args:
        network: which one.
        size: of the crops; by default, the config's.
        device: where it trains.
    """

    def __init__(self, network: Network, size: tuple[int, int] | None, device: torch.device) -> None:
        self.network, self.device = network, device
        self.size = size or tuple(read_config(network).crop_size)
        self.name = network.name
        self._models: dict[str, nn.Module] = {}
        self._cannot: dict[str, Exception] = {}
        self.free()

    def free(self) -> None:
        """Keep nothing on the device."""
        self._models.clear()
        self._weights: dict[str, Tensor] | None = None
        self._data: dict[str, list] | None = None
        self._reference: Tensor | None = None

    @property
    def data(self) -> dict[str, list]:
        """The batch, as :func:`benchmarks.training_batch.batch` makes it."""
        if self._data is None:
            self._data = batch(self.size, pinned=self.device.type == "cuda")
        return self._data

    def model(self, way: str) -> nn.Module:
        """The network of a way, with the weights that all ways begin with."""
        if way in self._cannot:
            raise self._cannot[way]
        if way not in self._models:
            self._models[way] = self._build(way).to(self.device).train()
        if self._weights is None:
            self._weights = _weights(self._models[way])
        self._models[way].load_state_dict(self._weights)
        return self._models[way]

    def _build(self, way: str) -> nn.Module:
        from danseg.engine.recompute import recompute

        torch.manual_seed(0)
        types = self.network.types("mmseg" if way == MMSEGS else "danseg")
        try:
            model = segmentor(self.network, types, dropout_ratio=0.0, crop_size=self.size)
        except (RuntimeError, UserError) as error:
            # Not again in each precision: the backbone is built before the head is refused.
            self._cannot[way] = error.with_traceback(None)
            raise
        if way == DANSEGS:
            recompute(model, read_config(self.network).recompute)
        return model

    def reference(self) -> Tensor:
        """The first loss in float32."""
        if self._reference is None:
            try:
                model = self.model(MMSEGS)
            except (RuntimeError, UserError):
                model = self.model(DANSEGS)
            with FLOAT32.on(), torch.no_grad():
                losses = model(**model.data_preprocessor(dict(self.data), True), mode="loss")
            self._reference = model.parse_losses(losses)[0]
        return self._reference

    def optimizer(self, model: nn.Module, precision: Precision) -> Any:
        """The config's, in a precision; its wrapper runs the forward pass in that precision."""
        from mmengine.optim import build_optim_wrapper

        from danseg.engine.config.options import use_mixed_precision

        config = read_config(self.network)
        config.optim_wrapper.optimizer.lr = LEARNING_RATE
        if precision.dtype != torch.float32:
            use_mixed_precision(config, precision.name)
        if precision is FLOAT16:
            config.optim_wrapper.loss_scale = dict(init_scale=LOSS_SCALE)
        return build_optim_wrapper(model, config.optim_wrapper)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a model's weights, without the zeros of a new head that would hide its attention."""
    with torch.no_grad():
        for name, parameter in model.decode_head.named_parameters():
            if name.endswith(("scale", "weight")) and not parameter.any():
                parameter.fill_(0.7)
    return {name: value.clone() for name, value in model.state_dict().items()}


def _step(train_step: Any, data: dict[str, list], optimizer: Any) -> Tensor:
    """Take a step and return its loss."""
    return train_step(dict(data), optimizer)["loss"].detach()


def _held_bytes(model: nn.Module, optimizer: Any) -> int:
    """Bytes that training holds between its steps."""
    tensors = [*model.parameters(), *model.buffers()]
    tensors += [one.grad for one in model.parameters() if one.grad is not None]
    for state in optimizer.optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, Tensor)]
    return sum(one.numel() * one.element_size() for one in tensors)


@contextmanager
def _convolutions_searched() -> Iterator[None]:
    """As ``env_cfg.cudnn_benchmark`` of the configs."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def measure(case: Case, precision: Precision, repeats: int, backend: str | None = None) -> list[Figure]:
    """Figures of a case in one precision.

    Args:
        case: what is trained.
        precision: in which.
        repeats: timed rounds at most.
        backend: of ``torch.compile``: the network and its losses are compiled, and compared with eager ones.
            The rest of the step stays as it is: mmengine's ``compile=True`` compiles all of it, and all of it
            again in the second step, because mmengine counts steps. Without it, :data:`WAYS` are compared.
    """
    built: dict[str, tuple[nn.Module, Any]] = {}

    def make(way: str) -> Any:
        model = case.model(way)
        optimizer = case.optimizer(model, precision)
        if way == COMPILED:
            model.compile(backend=backend, dynamic=False)
        built[way] = model, optimizer
        return partial(_step, model.train_step, case.data, optimizer)

    chosen = (KEEPS_ALL, COMPILED) if backend else WAYS
    question = Question(case.name, MODE, size_name(case.size), BATCH, precision.name)
    try:
        with _convolutions_searched():
            figures = ways.compare(
                question,
                {way: partial(make, way) for way in chosen},
                case.device,
                repeats,
                reference=case.reference,
                within=precision.on(),
            )
    finally:
        if backend:
            torch._dynamo.reset()  # its code keeps the model alive
    for figure in figures:
        if figure.seconds is None or figure.extra_bytes is None:
            continue
        figure.extra_bytes += _held_bytes(*built[figure.way])
        published = PUBLISHED_GB[case.network.head, case.network.recipe].get(case.network.depth)
        if precision is FLOAT32 and published:
            figure.note = f"peak {figure.extra_bytes / 1e9:.1f} GB; mmseg publishes {published} GB"
        if figure.difference is not None and not math.isfinite(figure.difference):
            figure.note = "; ".join(filter(None, [figure.note, "the loss is not finite"]))
    return figures


@dataclass(frozen=True)
class Plan:
    """What is measured, in this order.

    Attributes:
        networks: with the size of the crops, None for the config's, and the precisions.
        compiled: a network that is compiled too, its crops and the precision.
        backend: of ``torch.compile``.
        compile_seconds: that compiling is begun with, at least.
    """

    networks: Sequence[tuple[Network, tuple[int, int] | None, Sequence[Precision]]]
    compiled: tuple[Network, tuple[int, int] | None, Precision]
    backend: str = "inductor"
    compile_seconds: float = 70.0


RECIPES = ("cityscapes_512x1024", "cityscapes")
# The precisions of the other networks, whose float32 with TF32 in convolutions alone tells little more.
FEWER = (FLOAT32, BFLOAT16, FLOAT16, TF32)
FULL = Plan(
    networks=[
        (
            Network(depth, head=head, recipe=recipe),
            None,
            PRECISIONS if (depth, head) == (50, "danet") else FEWER,
        )
        for depth in (50, 101)
        for head in HEADS
        for recipe in RECIPES
    ],
    compiled=(Network(50), None, BFLOAT16),
)
QUICK = Plan(
    networks=[(Network(50, width=8), (128, 128), PRECISIONS)],
    compiled=(Network(50, width=8), (128, 128), BFLOAT16),
)


def jobs(plan: Plan, device: torch.device, repeats: int) -> tuple[list[Job], dict[str, float]]:
    """The plan's jobs, and the seconds that compiling is estimated to take, by the job's name."""
    cases = [(Case(network, size, device), precisions) for network, size, precisions in plan.networks]
    network, size, precision = plan.compiled
    last = Case(network, size, device)
    everything = [*(case for case, _ in cases), last]

    def measure_alone(case: Case, precision: Precision, backend: str | None = None) -> list[Figure]:
        for other in everything:
            if other is not case:
                other.free()
        return measure(case, precision, repeats, backend)

    def name(case: Case, precision: Precision) -> str:
        return f"{case.name} {size_name(case.size)} {precision.name}"

    found = [
        (name(case, precision), partial(measure_alone, case, precision))
        for case, precisions in cases
        for precision in precisions
    ]
    compiled = f"{name(last, precision)}, compiled"
    found.append((compiled, partial(measure_alone, last, precision, plan.backend)))
    return found, {compiled: plan.compile_seconds}


def carry_out(
    plan: Plan,
    device: torch.device,
    repeats: int,
    seconds: float,
    folder: Path,
    suffix: str = "",
    cases: Sequence[str] = (),
) -> list[Figure]:
    """Measure a plan, or those of its jobs whose names hold one of the ``cases``.

    Raises:
        UserError: no job's name does.
    """
    found, estimates = jobs(plan, device, repeats)
    chosen = [job for job in found if not cases or any(case.lower() in job[0].lower() for case in cases)]
    if not chosen:
        raise UserError(
            f"--cases {' '.join(cases)}: of no such name; there are: {'; '.join(n for n, _ in found)}"
        )
    suffix = "_".join(["", *map(slug, cases)]) + suffix  # a part does not take the place of the whole
    return ways.carry_out("training", chosen, device, seconds, folder, suffix=suffix, estimates=estimates)
