"""Compare danseg's decode heads with mmseg's, in time and memory, with equal weights.

    python -m benchmarks.heads                              # every head that mmseg can build
    python -m benchmarks.heads --cases DANetHead GCNetHead
    python -m benchmarks.heads --quick                      # narrow heads on small maps
    python -m benchmarks.heads --device cuda                # a GPU: two images, three precisions, 60 seconds
    python -m benchmarks.heads --markdown benchmarks/results/NAME.json

Forward is evaluation of one image, from the backbone's features to logits. Training is the losses at the
labels' resolution and the gradients of the input and of every parameter. docs/performance.md explains what
is measured, and why.
"""

import copy
import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import report, ways
from benchmarks.command import carry_out, set_up
from benchmarks.measure import product_rate
from benchmarks.report import Row, size_name
from benchmarks.ways import BFLOAT16, FLOAT32, TF32, Figure, Job, Precision, Question, Rates
from danseg.engine.measuring import MeasurementError, alternate, extra_peak, in_subprocess
from danseg.errors import command_line
from danseg.heads import counterparts
from danseg.tool_arguments import parse_count

FORWARD, TRAINING = "forward", "training"
NUM_CLASSES, STRIDE = 19, 8
WARM_UP_SIZE = (16, 24)


# A head's own arguments for 512 channels, as in mmseg's configs.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "DANetHead": dict(pam_channels=64),
    "NonLocalHead": dict(reduction=2, use_scale=True, mode="embedded_gaussian"),
    "CCNetHead": dict(recurrence=2),
    "PSANetHead": dict(
        mask_size=(97, 97), psa_type="bi-direction", compact=False, shrink_factor=2, psa_softmax=True
    ),
    "GCNetHead": dict(ratio=1 / 4, pooling_type="att", fusion_types=("channel_add",)),
    "ISANetHead": dict(isa_channels=256, down_factor=(8, 8)),
    "DNLNetHead": dict(reduction=2, use_scale=False, mode="embedded_gaussian", temperature=0.05),
    "FullyConvolutionalHead": dict(num_convs=2),
}
FULL = ((2048, 512), [(64, 64)])  # input and own channels; 64x64 comes from 512x512 crops
QUICK = ((64, 16), [(32, 32)])
# The same on a GPU, where crops of 769x769 come in pairs.
FULL_ON_GPU, QUICK_ON_GPU = ((2048, 512), (97, 97)), ((64, 16), (16, 16))
IMAGES_ON_GPU = 2
# Parameters stay in float32 under autocast.
AUTOCAST = "bfloat16 by autocast"


def build(name: str, side: str, channels: tuple[int, int], device: torch.device) -> nn.Module:
    """One side's head ("theirs" or "ours"), with random numbers for zeros that would hide the attention."""
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    import danseg.heads  # noqa: F401

    init_default_scope("mmseg")
    arguments = dict(ARGUMENTS[name])
    for key in ("pam_channels", "isa_channels"):
        if key in arguments:
            arguments[key] = max(1, arguments[key] * channels[1] // 512)
    torch.manual_seed(0)
    config = dict(
        type=counterparts.HEADS[name] if side == "theirs" else name,
        in_channels=channels[0],
        channels=channels[1],
        num_classes=NUM_CLASSES,
        dropout_ratio=0.0,
        norm_cfg=dict(type="BN"),
        **arguments,
    )
    with device:  # a GPU draws the weights in a moment
        head = MODELS.build(config)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in head.parameters():
            if parameter.numel() == 1:
                parameter.fill_(0.7)
            elif not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + 0.5)
    return head.to(device)


def _step(head: nn.Module, inputs: tuple[Tensor, list | None], autocast: bool = False) -> list[Tensor]:
    """Logits; in training the total loss, and its gradients of the input and of all parameters together.

    With ``autocast``, logits and loss are computed in bfloat16 where PyTorch does so.
    """
    x, samples = inputs
    narrow = torch.autocast(x.device.type, torch.bfloat16, enabled=autocast)
    if samples is None:
        with torch.no_grad(), narrow:
            out = head.eval()([x])
        return [out[0] if isinstance(out, (tuple, list)) else out]
    with narrow:
        losses = head.train().loss([x], samples, None)
        loss = sum(value for key, value in losses.items() if "loss" in key)
    by_x, *by_parameters = torch.autograd.grad(loss, [x, *head.parameters()])
    return [loss.detach(), by_x, torch.cat([grad.flatten() for grad in by_parameters])]


def _inputs(
    channels: int, size: tuple[int, int], mode: str, device: torch.device, images: int = 1
) -> tuple[Tensor, list | None]:
    """Features and, in training, each image's labels at eight times their size."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    generator = torch.Generator(device).manual_seed(1)
    x = torch.randn(images, channels, *size, generator=generator, device=device)
    if mode == FORWARD:
        return x, None
    labels = torch.randint(0, NUM_CLASSES, (images, 1, *size), generator=generator, device=device)
    labels = labels.repeat_interleave(STRIDE, 2).repeat_interleave(STRIDE, 3)
    return x.requires_grad_(), [SegDataSample(gt_sem_seg=PixelData(data=of_one)) for of_one in labels]


def measure_memory(
    name: str, side: str, channels: tuple[int, int], mode: str, size: tuple[int, int], device_type: str
) -> int:
    """Extra peak bytes of one side; to be called in a process of its own."""
    device = torch.device(device_type)
    head = build(name, side, channels, device)
    _step(head, _inputs(channels[0], WARM_UP_SIZE, mode, device))
    inputs = _inputs(channels[0], size, mode, device)
    return extra_peak(lambda: _step(head, inputs), device)


def measure_time(
    name: str,
    sides: Sequence[str],
    channels: tuple[int, int],
    mode: str,
    size: tuple[int, int],
    device_type: str,
    repeats: int,
) -> tuple[list[list[float]], float, float | None]:
    """Seconds of each side's rounds, the product rate, and the largest relative difference of two sides."""
    device = torch.device(device_type)
    heads = [build(name, side, channels, device) for side in sides]
    for head in heads[1:]:
        head.load_state_dict(heads[0].state_dict())
    inputs = _inputs(channels[0], size, mode, device)
    rate = product_rate(device)
    results = [_step(head, inputs) for head in heads]  # the warm-up, too
    error = None
    if len(results) == 2:
        error = max(
            ((ours - theirs).abs().max() / theirs.abs().max()).item()
            for theirs, ours in zip(*results, strict=True)
        )
    del results
    rounds = alternate([partial(_step, head, inputs) for head in heads], repeats, device)
    return rounds, max(rate, product_rate(device)), error


def compare(
    name: str,
    channels: tuple[int, int],
    mode: str,
    size: tuple[int, int],
    device: torch.device,
    repeats: int,
) -> list[Row]:
    """One row; mmseg's side stays empty, with the reason, if its head cannot be built."""
    row = Row(name, mode, size_name(size), math.prod(size))
    sides = ["theirs", "ours"]
    try:
        build(name, "theirs", channels, torch.device("cpu"))
    except (ImportError, RuntimeError) as error:
        sides = ["ours"]
        row.note = f"mmseg's {counterparts.HEADS[name]} cannot be built here: {str(error).splitlines()[0]}"
    for side in sides:
        try:
            peak = in_subprocess(measure_memory, name, side, channels, mode, size, device.type)
        except MeasurementError as error:
            row.note = f"memory of {side}: {error}"
            continue
        setattr(row, f"{side}_extra_bytes", peak)
    rounds, row.product_rate, row.max_relative_error = in_subprocess(
        measure_time, name, sides, channels, mode, size, device.type, repeats
    )
    for side, seconds in zip(sides, rounds, strict=True):
        setattr(row, f"{side}_rounds", seconds)
        setattr(row, f"{side}_seconds", statistics.median(seconds))
    if row.theirs_seconds:
        row.time_ratio = row.ours_seconds / row.theirs_seconds
    if row.theirs_extra_bytes and row.ours_extra_bytes:
        row.memory_ratio = row.ours_extra_bytes / row.theirs_extra_bytes
    return [row]


def gpu_jobs(
    names: Sequence[str], quick: bool, device: torch.device, repeats: int, rates: Rates
) -> list[Job]:
    """What is measured on a GPU, the most important first: steps of training, then evaluation."""
    channels, size = QUICK_ON_GPU if quick else FULL_ON_GPU
    return [
        (
            f"{name}, {mode}, {size_name(size)}, {AUTOCAST if precision is BFLOAT16 else precision.name}",
            partial(compare_on_gpu, name, channels, mode, size, precision, device, repeats, rates),
        )
        for mode in (TRAINING, FORWARD)
        for precision in (BFLOAT16, FLOAT32, TF32)
        for name in names
    ]


def compare_on_gpu(
    name: str,
    channels: tuple[int, int],
    mode: str,
    size: tuple[int, int],
    precision: Precision,
    device: torch.device,
    repeats: int,
    rates: Rates,
) -> list[Figure]:
    """Both sides' figures of one head; bfloat16 is by autocast.

    Logits of the first image are compared with those of danseg's head in float64.
    """
    autocast = precision is BFLOAT16
    kind = AUTOCAST if autocast else precision.name
    inputs = x, _ = _inputs(channels[0], size, mode, device, IMAGES_ON_GPU)
    ours = build(name, "ours", channels, device)

    def make_theirs() -> Callable[[], list[Tensor]]:
        theirs = build(name, "theirs", channels, device)
        theirs.load_state_dict(ours.state_dict())
        return partial(_step, theirs, inputs, autocast)

    def exact() -> Tensor:
        return _step(copy.deepcopy(ours).double(), (x[:1].double(), None))[0]

    with precision.on():
        rates[precision]  # is stored beside the figures
        return ways.compare(
            Question(name, mode, size_name(size), IMAGES_ON_GPU, kind),
            {"mmseg": make_theirs, "danseg": lambda: partial(_step, ours, inputs, autocast)},
            device,
            repeats,
            reference=exact if mode == FORWARD else None,
            compared=lambda results: results[0][:1] if mode == FORWARD else results[0],
        )


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the results."""
    parser = report.parser("heads", __doc__.split("\n")[0])
    parser.add_argument(
        "--cases", nargs="+", choices=list(ARGUMENTS), metavar="HEAD", help=", ".join(ARGUMENTS)
    )
    parser.add_argument("--seconds", type=parse_count, default=45, help="on a GPU (default: 45)")
    args = parser.parse_args(argv)
    if args.markdown:
        print(ways.stored_markdown(args.markdown, {}))
        return
    device, repeats = set_up(args)
    if device.type == "cuda":
        rates, suffix = Rates(device), "_quick" if args.quick else ""
        planned = gpu_jobs(args.cases or list(ARGUMENTS), args.quick, device, repeats, rates)
        ways.carry_out("heads", planned, device, args.seconds, args.out, rates, suffix)
        return
    channels, sizes = QUICK if args.quick else FULL
    jobs = [
        (
            f"{name}, {mode}, {size_name(size)}",
            1.0 if mode == FORWARD else 3.0,
            partial(compare, name, channels, mode, size, device, repeats),
        )
        for name in args.cases or ARGUMENTS
        for mode in (FORWARD, TRAINING)
        for size in sizes
    ]
    carry_out("heads", jobs, {}, args, device, repeats)


if __name__ == "__main__":
    main()
