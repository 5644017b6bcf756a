"""Inference on a GPU in many ways: frames to labels, logits to labels, the loss's share of a step, windows.

``python -m benchmarks.inference --device cuda`` takes this plan. A frame is normalised and on the device, and
so are its labels, unless a way says otherwise. Weights are random, as in benchmarks/inference.py. The
"difference" of labels is the share of pixels whose label is another than in mmseg's float32 (danseg's, where
this mmcv lacks what mmseg's head needs). In 16 bits mmseg's model runs under autocast. "plain" resizes the
logits to the labels' size, and takes their argmax or cross entropy.

The memory of a CUDA graph is the pool that it keeps; other memory is the peak of a call.
"""

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cuda_graphs import Graph, with_pools
from benchmarks.frames import COMPILING_SECONDS, FramePlan, Network, share_of_others
from benchmarks.inference import Size, smooth
from benchmarks.report import size_name
from benchmarks.ways import BFLOAT16, FLOAT16, FLOAT32, TF32, Call, Figure, Job, Precision, Question, Rates
from danseg.ops import upsampled_argmax, upsampled_cross_entropy

FRAMES, BATCHES, LABELS, LOSS, TILES = "frames", "batches", "labels", "loss", "tiles"
WINDOWS, LARGE, COMPILED = "windows", "large images", "compiled"
LOSS_CASE = "loss of logits, with its gradient"
CASES = (FRAMES, LABELS, LOSS, TILES, BATCHES, WINDOWS, LARGE, COMPILED)


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        frames: of networks.
        precisions: of the first network and of logits; of the other networks, the first two.
        labels: classes, and the sizes of logits and labels.
        loss: batch, classes, and the sizes of logits and labels.
        tile_mib: memory of a tile of upsampled logits.
    """

    frames: FramePlan
    precisions: Sequence[Precision]
    labels: Sequence[tuple[int, Size, Size]]
    loss: tuple[int, int, Size, Size]
    tile_mib: Sequence[int]


FULL = Plan(
    FramePlan(
        networks=[
            f"{network}_cityscapes_512x1024"
            for network in ("danet_r50", "fcn_r50", "ccnet_r50", "danet_r101", "psanet_r50")
        ],
        frame=(1024, 2048),
        batch=4,
        crop=769,
        stride=513,
        tile=1024,
        overlap=256,
    ),
    precisions=(BFLOAT16, TF32, FLOAT32, FLOAT16),
    # A frame of Cityscapes, and one of ADE20K with its short side at 512.
    labels=[(19, (128, 256), (1024, 2048)), (150, (64, 86), (512, 683))],
    loss=(2, 19, (97, 97), (769, 769)),
    tile_mib=[8, 32, 64, 256],
)
QUICK = Plan(
    FramePlan(
        networks=[f"{network}_r18_camvid" for network in ("danet", "fcn", "ccnet", "psanet")],
        frame=(128, 192),
        batch=2,
        crop=96,
        stride=64,
        tile=96,
        overlap=32,
    ),
    precisions=(BFLOAT16, TF32, FLOAT32, FLOAT16),
    labels=[(5, (16, 24), (128, 192))],
    loss=(2, 5, (17, 17), (129, 129)),
    tile_mib=[1, 64],
)


def with_constants(module: str, values: dict[str, Any], call: Call) -> Call:
    """A call under other values of a module's constants."""
    there = importlib.import_module(module)

    def run() -> Any:
        before = {name: getattr(there, name) for name in values}
        vars(there).update(values)
        try:
            return call()
        finally:
            vars(there).update(before)

    return run


def _logits(batch: int, classes: int, coarse: Size, precision: Precision, device: torch.device) -> Tensor:
    logits = torch.stack([smooth(classes, coarse, cell=4).roll(i, -1) for i in range(batch)])
    return logits.to(device, precision.dtype)


def resized_argmax(logits: Tensor, size: Size) -> Tensor:
    """Labels (B, H, W) by way of all logits at their resolution."""
    return F.interpolate(logits, size, mode="bilinear").argmax(1)


def labels(
    classes: int,
    coarse: Size,
    size: Size,
    precision: Precision,
    device: torch.device,
    tile_mib: Sequence[int],
) -> list[Figure]:
    """Logits to labels; with tiles of several sizes, if there are any."""
    logits = _logits(1, classes, coarse, precision, device)
    ours = partial(upsampled_argmax, size=size)
    of_all: dict[str, Callable[[], Call]] = {"danseg": lambda: partial(ours, logits)}
    if not tile_mib:
        of_all["plain"] = lambda: partial(resized_argmax, logits, size)
        of_all["danseg, CUDA graph"] = lambda: Graph(ours, logits)
    module = "danseg.ops.upsampled_argmax"
    for mib in tile_mib:
        for columns in (128, 512, 2048):
            values = dict(_TILE_BYTES_GPU=mib * 2**20, _TILE_COLUMNS_GPU=columns)
            call = with_constants(module, values, partial(ours, logits))
            of_all[f"danseg, {mib} MiB, {columns} columns"] = partial(_same, call)
    return with_pools(
        Question("logits to labels", f"{classes} classes", size_name(size), 1, precision.name),
        of_all,
        device,
        reference=lambda: resized_argmax(logits.double(), size),
        within=precision.on(),
        distance=share_of_others,
    )


def _same(call: Call) -> Call:
    return call


def loss(
    batch: int,
    classes: int,
    coarse: Size,
    size: Size,
    precision: Precision,
    device: torch.device,
    tile_mib: Sequence[int],
) -> list[Figure]:
    """The loss of logits, and its gradient; with blocks of several sizes, if there are any."""
    logits = _logits(batch, classes, coarse, precision, device).requires_grad_()
    label = smooth(classes, size, cell=64).argmax(0).expand(batch, *size).contiguous()
    label[:, : size[0] // 16] = 255
    label = label.to(device)

    def plain(logits: Tensor) -> Tensor:
        resized = F.interpolate(logits, size, mode="bilinear")
        value = F.cross_entropy(
            resized.to(torch.promote_types(logits.dtype, torch.float32)),
            label,
            ignore_index=255,
            reduction="sum",
        )
        return torch.autograd.grad(value, logits)[0]

    def ours(logits: Tensor) -> Tensor:
        return torch.autograd.grad(upsampled_cross_entropy(logits, label)[0], logits)[0]

    of_all: dict[str, Callable[[], Call]] = {"danseg": lambda: partial(ours, logits)}
    if not tile_mib:
        of_all["plain"] = lambda: partial(plain, logits)
        of_all["danseg, CUDA graph"] = lambda: Graph(ours, logits)
    for mib in tile_mib:
        values = dict(_DEVICE_BLOCK_BYTES=mib * 2**20)
        call = with_constants("danseg.ops.upsampled_cross_entropy", values, partial(ours, logits))
        of_all[f"danseg, {mib} MiB"] = partial(_same, call)
    return with_pools(
        Question(LOSS_CASE, f"{classes} classes", size_name(size), batch, precision.name),
        of_all,
        device,
        reference=lambda: plain(logits.detach().double().requires_grad_()),
        within=precision.on(),
    )


def jobs(plan: Plan, device: torch.device, rates: Rates, seconds: float, cases: Sequence[str]) -> list[Job]:
    """What is to be measured, in order of importance."""
    latest = time.monotonic() + seconds - COMPILING_SECONDS
    first, *others = (Network(config, plan.frames, device) for config in plan.frames.networks)
    found: list[tuple[str, str, Callable[[], list[Figure]]]] = []

    def add(case: str, what: str, measure: Callable[..., list[Figure]], *args: Any, **kwargs: Any) -> None:
        found.append((case, f"{case}: {what}", partial(measure, *args, **kwargs)))

    for precision in plan.precisions[:2]:
        add(FRAMES, f"{first.name}, {precision.name}", first.to_labels, precision, 1, rates)
    for classes, coarse, size in plan.labels:
        for precision in plan.precisions:
            what = f"{classes} classes, {precision.name}"
            add(LABELS, what, labels, classes, coarse, size, precision, device, [])
    for precision in plan.precisions:
        add(LOSS, precision.name, loss, *plan.loss, precision, device, [])
    for precision in plan.precisions[2:]:
        add(FRAMES, f"{first.name}, {precision.name}", first.to_labels, precision, 1, rates)
    for network in others:
        for precision in plan.precisions[:2]:
            what = f"{network.name}, {precision.name}"
            add(FRAMES, what, network.to_labels, precision, 1, rates, brief=True)
    for classes, coarse, size in plan.labels:
        add(TILES, f"{classes} classes", labels, classes, coarse, size, FLOAT32, device, plan.tile_mib)
    add(TILES, "loss", loss, *plan.loss, FLOAT32, device, plan.tile_mib)
    for precision in plan.precisions[:2]:
        what = f"{first.name}, {precision.name}"
        add(WINDOWS, what, first.to_labels, precision, 1, rates, windows=True)
    for network in (first, *others):
        what = f"{network.name} x{plan.frames.batch}"
        add(BATCHES, what, network.to_labels, BFLOAT16, plan.frames.batch, rates, brief=True)
    add(LARGE, first.name, first.large, BFLOAT16)
    for by_hand in (True, False):
        what = f"{first.name}, {'graph by hand' if by_hand else 'reduce-overhead'}"
        add(COMPILED, what, first.compiled, BFLOAT16, rates, latest, by_hand)
    return [(what, measure) for case, what, measure in found if case in cases]
