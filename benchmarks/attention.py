"""Compare danseg's attention modules with mmseg's and mmcv's, in time and memory, with equal weights.

    python -m benchmarks.attention                                  # everything, about twelve minutes
    python -m benchmarks.attention --cases "position attention"     # one module
    python -m benchmarks.attention --quick                          # small sizes, two minutes
    python -m benchmarks.attention --device cuda                    # a GPU: every way, in 80 seconds
    python -m benchmarks.attention --markdown benchmarks/results/NAME.json

docs/performance.md explains what is measured, and why. What is measured on a GPU stands in attention_plan.py.
"""

import argparse
import math
import statistics
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks import report, ways
from benchmarks.arguments import parse_size
from benchmarks.attention_cases import (
    CASES,
    FORWARD,
    TRAINING,
    Case,
    Sizes,
    equal_modules,
    inputs,
    operations_of,
    step,
)
from benchmarks.attention_gpu import Measurer
from benchmarks.attention_plan import OPERATORS
from benchmarks.command import Job, carry_out, set_up
from benchmarks.measure import available_memory, product_rate
from benchmarks.report import Promise, Row, size_name
from danseg.engine.measuring import MeasurementError, alternate, extra_peak, in_subprocess
from danseg.errors import UserError, command_line
from danseg.tool_arguments import parse_count

# What docs/performance.md promises.
PROMISES = {
    ("position attention", FORWARD, "97x97"): Promise(time=0.9, memory=0.12),
    ("position attention", TRAINING, "97x97"): Promise(time=1.0, memory=0.25),
    ("position attention", FORWARD, "128x256"): Promise(time=0.7, memory=0.04),
    ("attention operator", FORWARD, "97x97"): Promise(product_share=0.75),
    ("attention operator", FORWARD, "128x256"): Promise(product_share=0.75),
    ("non-local, embedded_gaussian", FORWARD, "97x97"): Promise(time=0.9, memory=0.25),
    ("non-local, embedded_gaussian", TRAINING, "97x97"): Promise(time=0.9, memory=0.25),
    ("non-local, dot_product", FORWARD, "97x97"): Promise(time=0.25),
    ("non-local, dot_product", TRAINING, "97x97"): Promise(time=0.25),
    ("non-local, concatenation", FORWARD, "32x32"): Promise(time=0.02),
    **{
        ("criss-cross attention", mode, size): Promise(time=0.9, memory=1.0)
        for mode in (FORWARD, TRAINING)
        for size in ("97x97", "64x128")
    },
}


def measure_memory(name: str, side: str, mode: str, size: tuple[int, int], device_type: str) -> int:
    """Extra peak bytes of one implementation; to be called in a process of its own."""
    case, device = CASES[name], torch.device(device_type)
    [module] = equal_modules(case, device, [side])
    step(module, *inputs(case, case.warm_up, mode, device))
    x, grad = inputs(case, size, mode, device)
    return extra_peak(lambda: step(module, x, grad), device)


def measure_time(
    name: str, sides: Sequence[str], mode: str, size: tuple[int, int], device_type: str, repeats: int
) -> tuple[list[list[float]], float, float | None]:
    """Seconds of each side's rounds, the product rate and the largest relative difference.

    The difference is None when only one side is given.
    """
    case, device = CASES[name], torch.device(device_type)
    modules = equal_modules(case, device, sides)
    x, grad = inputs(case, size, mode, device)
    rate = product_rate(device)
    results = [step(module, x, grad) for module in modules]  # The warm-up, too.
    error = _largest_difference(*results) if len(results) == 2 else None
    del results
    rounds = alternate([lambda m=module: step(m, x, grad) for module in modules], repeats, device)
    return rounds, max(rate, product_rate(device)), error


def _largest_difference(theirs: list[Tensor], ours: list[Tensor]) -> float:
    """Largest relative difference of the outputs, the input's gradients, and the parameters' gradients.

    The gradients of all parameters are compared as one vector. The key's bias shifts all energies of a
    row alike, so its gradient is 0 up to rounding and has no magnitude of its own to compare with.
    """
    pairs = list(zip(theirs[:2], ours[:2], strict=True))
    if theirs[2:]:
        pairs.append(tuple(torch.cat([grad.flatten() for grad in side[2:]]) for side in (theirs, ours)))
    return max(_relative_difference(*pair) for pair in pairs)


def _relative_difference(reference: Tensor, other: Tensor) -> float:
    """Largest difference over largest magnitude; NaN, not 0, where either tensor holds one."""
    return ((reference - other).abs().max() / reference.abs().max().clamp_min(1e-30)).item()


def compare(case: Case, mode: str, size: tuple[int, int], device: torch.device, repeats: int) -> list[Row]:
    """One row, for one case at one size; what cannot be measured stays empty, with a note."""
    row = Row(case.name, mode, size_name(size), positions=math.prod(size))
    sides = ["theirs", "ours"]
    needed, available = case.their_bytes(row.positions, mode), available_memory(device)
    if mode in case.cannot:
        sides = ["ours"]
        row.note = case.cannot[mode]
    elif available is not None and needed > 0.9 * available:
        sides = ["ours"]
        row.note = f"mmseg skipped: it needs about {_gib(needed)}, of which {_gib(available)} are available"
    for side in sides:
        try:
            peak = in_subprocess(measure_memory, case.name, side, mode, size, device.type)
        except MeasurementError as error:
            row.note = f"memory of {side}: {error}"
            continue
        setattr(row, f"{side}_extra_bytes", peak)
    if row.theirs_extra_bytes and row.ours_extra_bytes:
        row.memory_ratio = row.ours_extra_bytes / row.theirs_extra_bytes
    try:
        rounds, row.product_rate, row.max_relative_error = in_subprocess(
            measure_time, case.name, sides, mode, size, device.type, repeats
        )
    except MeasurementError as error:
        row.note = f"time: {error}"
        return [row]
    row.floor_seconds = operations_of(case, mode, size) / row.product_rate
    for side, seconds in zip(sides, rounds, strict=True):
        setattr(row, f"{side}_rounds", seconds)
        setattr(row, f"{side}_seconds", statistics.median(seconds))
    if row.theirs_seconds:
        row.time_ratio = row.ours_seconds / row.theirs_seconds
    return [row]


def jobs(sizes: dict[str, Sizes], device: torch.device, repeats: int) -> list[Job]:
    """A job for each case, mode and size, with its share of the time estimated from its operations."""
    return [
        (
            f"{name}, {mode}, {size_name(size)}",
            operations_of(CASES[name], mode, size) + 1e10,
            partial(compare, CASES[name], mode, size, device, repeats),
        )
        for name, modes in sizes.items()
        for mode in modes
        for size in modes[mode]
    ]


def _gib(amount: float) -> str:
    return f"{amount / 2**30:.1f} GiB"


def _on_gpu(args: argparse.Namespace, measurer: Measurer) -> None:
    """Measure the plan for GPUs on the measurer's device."""
    if args.sizes or args.training_sizes:
        raise UserError("--sizes and --training-sizes are for the CPU: on a GPU, choose with --cases")
    planned = measurer.jobs(args.cases or (), args.quick)
    suffix = "_quick" if args.quick else ""
    ways.carry_out("attention", planned, measurer.device, args.seconds, args.out, measurer.rates, suffix)


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the results."""
    parser = report.parser("attention", __doc__.split("\n")[0])
    sizes = {"type": parse_size, "nargs": "+", "metavar": "HxW"}
    names = list(dict.fromkeys([*CASES, *OPERATORS]))
    parser.add_argument("--cases", nargs="+", choices=names, metavar="CASE", help=", ".join(names))
    parser.add_argument("--sizes", **sizes, help="feature maps (default: each case's own)")
    parser.add_argument("--training-sizes", **sizes, help="feature maps for training (default: --sizes)")
    parser.add_argument("--seconds", type=parse_count, default=80, help="on a GPU (default: 80)")
    args = parser.parse_args(argv)
    if args.markdown:
        print(ways.stored_markdown(args.markdown, PROMISES))
        return
    device, repeats = set_up(args)
    if device.type == "cuda":
        _on_gpu(args, Measurer(device, repeats, ways.Rates(device)))
        return
    gpu_only = [name for name in args.cases or () if name not in CASES]
    if gpu_only:
        raise UserError(f"--cases {', '.join(gpu_only)}: these are measured on a GPU alone (--device cuda)")
    chosen = {}
    for name in args.cases or CASES:
        default = CASES[name].quick if args.quick else CASES[name].sizes
        chosen[name] = {
            FORWARD: args.sizes or default[FORWARD],
            TRAINING: args.training_sizes or args.sizes or default[TRAINING],
        }
    carry_out("attention", jobs(chosen, device, repeats), PROMISES, args, device, repeats)


if __name__ == "__main__":
    main()
