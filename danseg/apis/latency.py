"""Measure how long a config's network takes for an image, and what memory, beside mmseg's own form of it."""

import contextlib
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mmseg
import numpy as np
import torch
from mmengine.config import Config
from mmseg.models import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from danseg.apis.counterpart import counterpart
from danseg.apis.model import load_model
from danseg.apis.preparation import PRECISIONS, prepare_for_inference
from danseg.engine.channels import input_channels
from danseg.engine.measuring import MeasurementError, alternate, environment, extra_peak, in_subprocess
from danseg.engine.out_of_memory import explaining_memory
from danseg.errors import UserError
from danseg.segmentors import predict_labels
from danseg.version import __version__

OURS, THEIRS = "danseg", "mmseg"
#: Calls of each side before the first one that is timed.
WARM_UP = 2
_SMALL = (64, 64)  # an image that makes libraries load their code, before memory is measured
REMEDIES = ("take a smaller image (--size)", "fewer at a time (--batch)", "compute in 16 bits (--precision)")


@dataclass(frozen=True)
class Task:
    """What is measured: images that are in memory, to labels.

    Attributes:
        config: of the network, with the test mode in which it predicts.
        checkpoint: file of the weights; None for random ones, which take the same time.
        size: height and width of the images.
        batch: how many images a call takes.
        precision: a key of :data:`danseg.apis.PRECISIONS`. mmseg's side computes in 16 bits by autocast.
        device: such as "cpu" or "cuda:0".
    """

    config: Config
    checkpoint: str | Path | None
    size: tuple[int, int]
    batch: int
    precision: str
    device: str


@dataclass
class Figures:
    """What one side needs.

    Attributes:
        rounds: seconds of each call.
        memory_bytes: peak memory of a call, beyond the weights and the images.
        weights_bytes: memory of parameters and buffers.
        flops: operations of convolutions and matrix products for one image; a multiply-add counts as two.
        parameters: numbers in the network that runs; batch norms of danseg's are folded into convolutions,
            and it has no auxiliary head.
    """

    rounds: list[float]
    memory_bytes: int
    weights_bytes: int
    flops: float
    parameters: int

    @property
    def seconds(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between which the middle half of the rounds lies."""
        low, high = np.percentile(self.rounds, [25, 75])
        return float(low), float(high)


@dataclass
class Latency:
    """The figures of danseg's network, and of mmseg's where there is one; ``notes`` say what to know."""

    task: Task
    sides: dict[str, Figures]
    notes: list[str] = field(default_factory=list)

    @property
    def time_ratio(self) -> float | None:
        """danseg's median over mmseg's: below 1 is faster."""
        if THEIRS not in self.sides:
            return None
        return self.sides[OURS].seconds / self.sides[THEIRS].seconds

    def as_dict(self) -> dict[str, Any]:
        """Everything, of JSON's types."""
        task = self.task
        return {
            "config": str(task.config.filename),
            "checkpoint": None if task.checkpoint is None else str(task.checkpoint),
            "size": list(task.size),
            "batch": task.batch,
            "precision": task.precision,
            "test_cfg": dict(task.config.model.get("test_cfg") or {}),
            "warm_up": WARM_UP,
            "environment": {
                **environment(torch.device(task.device)),
                "danseg": __version__,
                "mmseg": mmseg.__version__,
            },
            "sides": {
                side: {
                    "seconds": one.seconds,
                    "quartiles": list(one.quartiles),
                    "images_per_second": task.batch / one.seconds,
                    **vars(one),
                }
                for side, one in self.sides.items()
            },
            "time_ratio": self.time_ratio,
            "notes": self.notes,
        }


def measure_latency(
    config: Config,
    checkpoint: str | Path | None = None,
    *,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    precision: str = "float32",
    device: str | None = None,
    repeats: int = 20,
) -> Latency:
    """Measure a config's network as it is deployed, :func:`danseg.apis.prepare_for_inference`, and mmseg's.

    A call takes images of 8 bits in the machine's memory to labels on the device, in the config's test mode.
    Both sides take turns, one call each, after :data:`WARM_UP` calls. On a CPU, memory is measured in a
    process of its own a side.

    Args:
        config: from :func:`danseg.engine.config.config_file.load_config`.
        checkpoint, batch, precision: as of :class:`Task`.
        size: height and width. Default: the config's crops.
        device: default: the GPU if there is one, else the CPU.
        repeats: how many calls of each side are timed.

    Raises:
        UserError: the config, the checkpoint, the device or the precision is at fault, or danseg's network
            needs more memory than there is. What goes wrong on mmseg's side is a note.
    """
    model = load_model(config, checkpoint, device)
    size = size or crop_size(config)
    task = Task(config, checkpoint, size, batch, precision, str(next(model.parameters()).device))
    found = Latency(task, {})
    if checkpoint is None:
        found.notes.append("random weights, which take the time of trained ones")
    try:
        with explaining_memory(*REMEDIES):
            calls = {OURS: _measured(task, model, OURS, found)}
    except MeasurementError as error:
        raise UserError(f"{error}. To need less, {', or '.join(REMEDIES)}.") from error
    try:
        with explaining_memory():
            calls[THEIRS] = _measured(task, model, THEIRS, found)
            _warm(calls[THEIRS])
    except (UserError, MeasurementError) as error:
        calls.pop(THEIRS, None)
        found.sides.pop(THEIRS, None)
        found.notes.append(f"not compared with mmseg: {error}")
    with explaining_memory(*REMEDIES):
        _warm(calls[OURS])
        rounds = alternate(list(calls.values()), repeats, torch.device(task.device))
    for side, of_side in zip(calls, rounds, strict=True):
        found.sides[side].rounds = of_side
    return found


def crop_size(config: Config) -> tuple[int, int]:
    """Height and width of the crops on which a config trains.

    Raises:
        UserError: it does not say.
    """
    size = config.get("crop_size") or (config.model.get("data_preprocessor") or {}).get("size")
    if size is None:
        raise UserError(f"config {config.filename} has no crop_size: give the images' --size HEIGHT WIDTH")
    height, width = size
    return height, width


def _warm(call: Callable[[], Any]) -> None:
    for _ in range(WARM_UP):
        call()


def _measured(task: Task, model: BaseSegmentor, side: str, found: Latency) -> Callable[[], Any]:
    """Take all figures of a side but its times; returns its call."""
    network = _network(task, model, side)
    call = _call(task, network, side)
    device = torch.device(task.device)
    if device.type == "cuda":
        _warm(call)
        memory = extra_peak(call, device)
    else:
        memory = in_subprocess(_memory, task, side)
    with FlopCounterMode(display=False) as counter:
        call()
    tensors = [*network.parameters(), *network.buffers()]
    found.sides[side] = Figures(
        rounds=[],
        memory_bytes=memory,
        weights_bytes=sum(one.numel() * one.element_size() for one in tensors),
        flops=counter.get_total_flops() / task.batch,
        parameters=sum(one.numel() for one in network.parameters()),
    )
    return call


@explaining_memory(*REMEDIES)
def _memory(task: Task, side: str) -> int:
    """Extra peak bytes of one side's call. Runs in a process of its own."""
    network = _network(task, load_model(task.config, task.checkpoint, task.device), side)
    with contextlib.suppress(ValueError, RuntimeError):  # some networks take one size alone
        _call(task, network, side, _SMALL)()
    return extra_peak(_call(task, network, side), torch.device(task.device))


def _network(task: Task, model: BaseSegmentor, side: str) -> nn.Module:
    if side == THEIRS:
        return counterpart(model)
    return prepare_for_inference(model, precision=task.precision)


def _call(task: Task, network: Any, side: str, size: tuple[int, int] | None = None) -> Callable[[], Any]:
    """From images to labels, as a user of danseg or of mmseg does it."""
    height, width = size or task.size
    generator = torch.Generator().manual_seed(0)
    shape = (input_channels(task.config.model) or 3, height, width)
    images = [torch.randint(256, shape, generator=generator, dtype=torch.uint8) for _ in range(task.batch)]

    def data() -> dict:
        # New ones for each call: mmseg leaves its logits in them.
        metas = dict(ori_shape=(height, width), img_shape=(height, width))
        return dict(inputs=list(images), data_samples=[SegDataSample(metainfo=metas) for _ in images])

    def ours() -> Any:
        return predict_labels(network, **network.data_preprocessor(data(), training=False))

    def theirs() -> Any:
        with torch.no_grad(), _autocast(task):
            return [one.pred_sem_seg.data for one in network.test_step(data())]

    return theirs if side == THEIRS else ours


def _autocast(task: Task) -> AbstractContextManager:
    dtype = PRECISIONS[task.precision]
    return torch.autocast(torch.device(task.device).type, dtype, enabled=dtype != torch.float32)
