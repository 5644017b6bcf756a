"""Compare one training step of a whole network with mmseg's, in time and memory, with equal weights.

    python -m benchmarks.training                    # DANet-R50, 512x512, two images: about ten minutes
    python -m benchmarks.training --quick            # a small network: shows that it runs, not how fast
    python -m benchmarks.training --device cuda      # a GPU: four networks, many ways, in 95 seconds
    python -m benchmarks.training --markdown benchmarks/results/NAME.json

A step is mmengine's ``train_step``: normalised images through backbone and heads, the losses of all
classifiers, the backward pass and SGD. danseg runs as in its configs, where the backward pass recomputes the
early stages (``recompute``), and also without recomputing. docs/performance.md explains what is measured, and
why. What is measured on a GPU is in training_gpu.py.
"""

import math
import statistics
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import report, training_gpu, ways
from benchmarks.command import carry_out, set_up
from benchmarks.measure import product_rate
from benchmarks.networks import DANSEG, MMSEG, Network, segmentor
from benchmarks.report import Promise, Row, size_name
from benchmarks.training_batch import BATCH, batch
from danseg.engine.measuring import alternate, in_subprocess, process_peak
from danseg.errors import UserError, command_line
from danseg.tool_arguments import parse_count

# As in configs/_base_/models/dilated_resnet.py.
RECOMPUTED = ("backbone.stem", "backbone.layer1", "backbone.layer2")
THEIRS = "mmseg"
# danseg's variants: what is recomputed, and the precision.
WAYS = {
    "float32": (RECOMPUTED, torch.float32),
    "float32, recompute=[]": ((), torch.float32),
    "bfloat16": (RECOMPUTED, torch.bfloat16),
}
FULL, QUICK = (Network(50), (512, 512)), (Network(50, width=8), (128, 128))
PROMISES = {("DANet-R50 training step", "float32", "512x512"): Promise(time=0.95, memory=0.85)}


class Training:
    """One side's model, optimiser and batch."""

    def __init__(self, network: Network, side: str, size: tuple[int, int], device: torch.device) -> None:
        from mmengine.optim import build_optim_wrapper

        from danseg.engine.recompute import recompute

        torch.manual_seed(0)
        # Without dropout, whose random numbers each side draws in its own order.
        types = MMSEG if side == THEIRS else DANSEG
        self.model = segmentor(network, types, dropout_ratio=0.0, crop_size=size)
        for name, parameter in self.model.named_parameters():
            if name.endswith("gamma.scale"):
                parameter.data.fill_(0.7)  # at 0 it would hide the attention
        names, dtype = ((), torch.float32) if side == THEIRS else WAYS[side]
        recompute(self.model, names)
        self.model = self.model.to(device).train()
        wrapper = "OptimWrapper" if dtype == torch.float32 else "BFloat16OptimWrapper"
        optimizer = dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=5e-4)
        self.optimizer = build_optim_wrapper(self.model, dict(type=wrapper, optimizer=optimizer))
        self.data = batch(size)

    def step(self) -> dict[str, Tensor]:
        """Take a step and return the losses."""
        return self.model.train_step(dict(self.data), self.optimizer)


def measure_memory(network: Network, side: str, size: tuple[int, int], device_type: str) -> int:
    """Peak bytes of a process that takes two steps: the second one includes the optimiser's state."""
    device = torch.device(device_type)
    training = Training(network, side, size, device)
    for _ in range(2):
        training.step()
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else process_peak()


def measure_time(
    network: Network, size: tuple[int, int], device_type: str, repeats: int
) -> tuple[dict[str, list[float]], float, float, dict[str, float]]:
    """Seconds of each side's rounds, a step's operations, the product rate, differences of the first loss."""
    device = torch.device(device_type)
    sides = {side: Training(network, side, size, device) for side in (THEIRS, *WAYS)}
    weights = sides[THEIRS].model.state_dict()
    for training in sides.values():
        training.model.load_state_dict(weights)
    rate = product_rate(device)
    first = {side: _total(training.step()) for side, training in sides.items()}  # the warm-up, too
    differences = {side: abs(loss / first[THEIRS] - 1) for side, loss in first.items()}
    operations = 3 * _operations(sides[THEIRS].model, size, device)
    rounds = alternate([training.step for training in sides.values()], repeats, device)
    rate = max(rate, product_rate(device))
    return dict(zip(sides, rounds, strict=True)), operations, rate, differences


def _total(losses: dict[str, Tensor]) -> float:
    return losses["loss"].item()


@torch.no_grad()
def _operations(model: nn.Module, size: tuple[int, int], device: torch.device) -> float:
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(BATCH, 3, *size, device=device), mode="tensor")
    return counter.get_total_flops()


def compare(network: Network, size: tuple[int, int], device: torch.device, repeats: int) -> list[Row]:
    """One row for each of danseg's variants, beside mmseg in float32."""
    fresh = device.type == "cpu"
    peaks = {
        side: in_subprocess(measure_memory, network, side, size, device.type, fresh=fresh)
        for side in (THEIRS, *WAYS)
    }
    rounds, operations, rate, differences = in_subprocess(measure_time, network, size, device.type, repeats)
    rows = []
    for way in WAYS:
        row = Row(f"{network.name} training step", way, size_name(size), math.prod(size))
        row.theirs_rounds, row.ours_rounds = rounds[THEIRS], rounds[way]
        row.theirs_seconds, row.ours_seconds = (statistics.median(rounds[side]) for side in (THEIRS, way))
        row.time_ratio = row.ours_seconds / row.theirs_seconds
        row.theirs_extra_bytes, row.ours_extra_bytes = peaks[THEIRS], peaks[way]
        row.memory_ratio = peaks[way] / peaks[THEIRS]
        row.max_relative_error = differences[way]
        if WAYS[way][1] == torch.float32:
            row.product_rate, row.floor_seconds = rate, operations / rate
        rows.append(row)
    return rows


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the results."""
    parser = report.parser("training", __doc__.split("\n")[0])
    parser.add_argument(
        "--seconds", type=parse_count, default=90, help="on a GPU: time to measure in (default: 90)"
    )
    parser.add_argument(
        "--cases", nargs="+", metavar="TEXT", help="on a GPU: measure what has one of these in its name"
    )
    args = parser.parse_args(argv)
    if args.markdown:
        print(ways.stored_markdown(args.markdown, PROMISES))
        return
    device, repeats = set_up(args)
    if device.type == "cuda":
        plan, suffix = (training_gpu.QUICK, "_quick") if args.quick else (training_gpu.FULL, "")
        training_gpu.carry_out(plan, device, repeats, args.seconds, args.out, suffix, args.cases or ())
        return
    if args.cases:
        raise UserError("--cases are those of a GPU: leave it out, or add --device cuda")
    network, size = QUICK if args.quick else FULL
    what = f"{network.name}, {size_name(size)}"
    jobs = [(what, 1.0, partial(compare, network, size, device, repeats))]
    carry_out("training", jobs, PROMISES, args, device, repeats)


if __name__ == "__main__":
    main()
