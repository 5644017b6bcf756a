"""Compare DANet's exported heads in ONNX Runtime: danseg's, in blocks, and mmseg's with its map of all pairs.

    python -m benchmarks.exported_attention              # 128x256 features, those of a frame of 1024x2048
    python -m benchmarks.exported_attention --quick      # narrow heads on small maps
    python -m benchmarks.exported_attention --markdown benchmarks/results/NAME.json

Both heads have the same weights, and are exported with another size than they run at. Memory is measured in a
process for each file; for the times, both files take turns in one process.
"""

import statistics
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import exported_files, report
from benchmarks.command import carry_out, set_up
from benchmarks.report import Promise, Row, size_name
from danseg.engine.measuring import MeasurementError, alternate, extra_peak, in_subprocess
from danseg.errors import command_line

CPU = torch.device("cpu")
FORMS = ("ONNX", "ONNX, older exporter")
FULL = ((2048, 512), (128, 256))  # input and own channels; the features' size
QUICK = ((64, 16), (40, 48))
TRACED = (12, 20)
CASE = "DANet head in ONNX Runtime"
PROMISES = {(CASE, form, size_name(FULL[1])): Promise(time=1.1, memory=0.1) for form in FORMS}


def _export(form: str, side: str, channels: tuple[int, int], stem: Path) -> Path:
    from benchmarks.heads import build

    head = exported_files.OneInput(build("DANetHead", side, channels, CPU)).eval()
    return exported_files.write(form, head, _features(channels, TRACED, images=2), stem, (0, 2, 3))


def _features(channels: tuple[int, int], size: tuple[int, int], images: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(images, channels[0], *size, generator=generator)


def _memory(path: Path, channels: tuple[int, int], size: tuple[int, int]) -> int:
    run, x = exported_files.opened(path), _features(channels, size)
    run(_features(channels, TRACED))  # warm-up
    return extra_peak(lambda: run(x), CPU)


def _times(
    paths: list[Path], channels: tuple[int, int], size: tuple[int, int], repeats: int
) -> tuple[list[list[float]], float]:
    """Seconds of each file's rounds, and the largest difference over the largest logit."""
    runs, x = [exported_files.opened(path) for path in paths], _features(channels, size)
    theirs, ours = (run(x) for run in runs)
    seconds = alternate([partial(run, x) for run in runs], repeats, CPU)
    return seconds, ((ours - theirs).abs().max() / theirs.abs().max()).item()


def measure(form: str, channels: tuple[int, int], size: tuple[int, int], repeats: int) -> list[Row]:
    row = Row(case=CASE, mode=form, size=size_name(size))
    with tempfile.TemporaryDirectory() as folder:
        try:
            paths = [
                in_subprocess(_export, form, side, channels, Path(folder, side))
                for side in ("theirs", "ours")
            ]
            memory = [in_subprocess(_memory, path, channels, size) for path in paths]
            row.theirs_extra_bytes, row.ours_extra_bytes = memory
            row.memory_ratio = memory[1] / memory[0]
            seconds, row.max_relative_error = in_subprocess(_times, paths, channels, size, repeats)
            row.theirs_rounds, row.ours_rounds = seconds
            row.theirs_seconds, row.ours_seconds = (statistics.median(one) for one in seconds)
            row.time_ratio = row.ours_seconds / row.theirs_seconds
        except MeasurementError as error:
            row.note = str(error)
    return [row]


@command_line
def main(argv: list[str] | None = None) -> None:
    args = report.parser("exported_attention", __doc__.splitlines()[0]).parse_args(argv)
    if args.markdown:
        print(report.markdown(report.load(args.markdown), PROMISES))
        return
    args.device = "cpu"
    device, repeats = set_up(args)
    channels, size = QUICK if args.quick else FULL
    jobs = [(form, 1.0, partial(measure, form, channels, size, repeats)) for form in FORMS]
    carry_out("exported_attention", jobs, PROMISES, args, device, repeats)


if __name__ == "__main__":
    main()
