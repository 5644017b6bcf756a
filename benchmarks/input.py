"""Compare danseg's training input with mmseg's: from PNG files to packed crops, on one thread.

    python -m benchmarks.input                                  # about a minute
    python -m benchmarks.input --quick                          # fewer frames and rounds
    python -m benchmarks.input --data data/cityscapes           # frames of a real Cityscapes
    python -m benchmarks.input --device cuda                    # all cores into a GPU: 25 seconds
    python -m benchmarks.input --markdown benchmarks/results/NAME.json

Both sides get the same files, from memory, and the same seeds, hence the same crops. docs/performance.md
explains what is measured, and why. What is measured with a GPU is in input_gpu.py.
"""

import argparse
import contextlib
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import report, ways
from benchmarks.command import require_mmseg, set_up
from benchmarks.report import Promise, Row, size_name
from danseg.engine.measuring import environment
from danseg.errors import UserError, command_line
from danseg.tool_arguments import parse_count

CROP = (512, 1024)
FRAME = (1024, 2048)
CASE, FROM_PNG, FROM_CACHE = "training input", "plain", "cached"
PROMISES = {
    (CASE, FROM_PNG, size_name(CROP)): Promise(time=0.5),
    (CASE, FROM_CACHE, size_name(CROP)): Promise(time=0.25),
}
STAGES = ("image", "label", "resize, crop, flip", "colour", "pack")
SIDES = ("mmseg", "danseg", "danseg, cached")
# Drawn frames have independent noise in each pixel. A camera's optics and demosaicing smooth such noise, and
# these values imitate that. Unsmoothed PNGs have 3.7 MB, smoothed ones 2.2 to 2.5 MB, those of Cityscapes 2.2
# to 2.4 MB.
BLUR, SENSOR_NOISE, NOISE_BLUR = 0.8, 1.0, 0.7


class Side:
    """One implementation: its transforms, each with the stage that its time is added to."""

    def __init__(self, transforms: Sequence[tuple[str, Any]]) -> None:
        self.transforms = transforms
        self.first = transforms[0][1]

    def __call__(self, samples: Sequence[dict], seed: int) -> dict[str, float]:
        """Seconds per image of each stage, averaged over all samples."""
        np.random.seed(seed)
        seconds = dict.fromkeys(STAGES, 0.0)
        for sample in samples:
            result = dict(sample, seg_fields=[])
            for stage, transform in self.transforms:
                start = time.perf_counter()
                result = transform(result)
                seconds[stage] += time.perf_counter() - start
            for stage, part in getattr(self.first, "reading", {}).items():
                seconds[stage] += part
                seconds["resize, crop, flip"] -= part  # it was counted there
        return {stage: total / len(samples) for stage, total in seconds.items()}


def mmsegs_pipeline() -> list[dict[str, Any]]:
    """mmseg's transforms, as its Cityscapes configs name them."""
    return [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations"),
        dict(type="RandomResize", scale=FRAME[::-1], ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type="RandomCrop", crop_size=CROP, cat_max_ratio=0.75),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PhotoMetricDistortion"),
        dict(type="PackSegInputs"),
    ]


def mmsegs_side() -> Side:
    """mmseg's transforms, built."""
    from mmengine.registry import init_default_scope
    from mmseg.registry import TRANSFORMS

    init_default_scope("mmseg")
    stages = [*STAGES[:2], *STAGES[2:3] * 3, *STAGES[3:]]
    return Side(
        [(stage, TRANSFORMS.build(one)) for stage, one in zip(stages, mmsegs_pipeline(), strict=True)]
    )


def dansegs_side(cache: bool) -> Side:
    """The transforms of danseg's Cityscapes configs."""
    from mmseg.datasets.transforms import PackSegInputs

    from danseg.datasets import FastPhotoMetricDistortion, LoadTrainingCrop

    class TimedLoad(LoadTrainingCrop):
        """Records how much of its time it spends on reading each of the two files."""

        def transform(self, results: dict) -> dict:
            self.reading = {}
            return super().transform(results)

        def _read_label(self, *args: Any) -> Any:
            return self._timed("label", super()._read_label, *args)

        def _read_rows(self, *args: Any) -> Any:
            return self._timed("image", super()._read_rows, *args)

        def _timed(self, stage: str, function: Any, *args: Any) -> Any:
            start = time.perf_counter()
            result = function(*args)
            self.reading[stage] = time.perf_counter() - start
            return result

    transforms = (
        TimedLoad(scale=FRAME[::-1], crop_size=CROP, cache=cache),
        FastPhotoMetricDistortion(),
        PackSegInputs(),
    )
    return Side(list(zip(STAGES[2:], transforms, strict=True)))


def rendered_frames(root: Path, count: int) -> None:
    """Draw street scenes of Cityscapes' size that are as hard to decompress as photographs."""
    from danseg.io.parallel import parallel_map
    from danseg.rendered.street_set import render

    render(root, train=count, val=0, height=FRAME[0], width=FRAME[1])
    pictures = sorted((root / "leftImg8bit").rglob("*.png"))
    parallel_map(_add_noise, [*enumerate(pictures)], description="noise", progress=False)
    for path in (root / "gtFine").rglob("*_labelTrainIds.png"):
        Image.open(path).save(path)  # by Pillow, as the official scripts write them


def _add_noise(numbered: tuple[int, Path]) -> None:
    number, path = numbered
    noise = np.random.default_rng(number).normal(0, SENSOR_NOISE, (*FRAME, 3)).astype(np.float32)
    frame = cv2.GaussianBlur(cv2.imread(str(path)), (0, 0), BLUR)
    frame = np.clip(np.rint(frame + cv2.GaussianBlur(noise, (0, 0), NOISE_BLUR)), 0, 255)
    Image.fromarray(frame[..., ::-1].astype(np.uint8)).save(path)


def copied_frames(source: Path, root: Path, count: int) -> None:
    """Copy training frames, evenly spread over a Cityscapes tree."""
    images = sorted((source / "leftImg8bit" / "train").glob("*/*_leftImg8bit.png"))
    if not images:
        raise UserError(f"--data {source}: there is no leftImg8bit/train/CITY/*_leftImg8bit.png in it")
    for image in images[:: max(1, len(images) // count)][:count]:
        label = Path(_label_of(image))
        if not label.is_file():
            raise UserError(
                f"--data {source}: {label} is missing; write it with: python tools/prepare_dataset.py "
                f"cityscapes {source}"
            )
        for path in (image, label):
            target = root / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def _label_of(image: Path) -> str:
    folder = str(image.parent).replace("leftImg8bit", "gtFine")
    return f"{folder}/{image.name.replace('_leftImg8bit.png', '_gtFine_labelTrainIds.png')}"


def list_samples(root: Path) -> list[dict]:
    """One dict per frame, as a data set gives it to the transforms."""
    images = sorted((root / "leftImg8bit").rglob("*.png"))
    common = dict(reduce_zero_label=False, label_map=None)
    return [dict(img_path=str(image), seg_map_path=_label_of(image), **common) for image in images]


def make_cache(root: Path, samples: Sequence[dict]) -> None:
    """Unpack the samples' files into the frame cache below ``root``."""
    from danseg.datasets.frame_cache import write_cache

    files = [sorted({sample[key] for sample in samples}) for key in ("img_path", "seg_map_path")]
    write_cache(root, *files, progress=False)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch and OpenCV use one thread, as in a worker of a data loader."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def largest_difference(theirs: Side, ours: Side, samples: Sequence[dict]) -> float:
    """Largest difference of the two sides' crops before the colours change, as a share of 255.

    Raises:
        RuntimeError: if a label differs.
    """
    worst = 0
    for seed, sample in enumerate(samples):
        crops = []
        for side in (theirs, ours):
            np.random.seed(seed)
            result = dict(sample, seg_fields=[])
            for stage, transform in side.transforms:
                if stage in STAGES[:3]:
                    result = transform(result)
            crops.append(result)
        if not np.array_equal(crops[0]["gt_seg_map"], crops[1]["gt_seg_map"]):
            raise RuntimeError(f"the labels of {sample['img_path']} differ with seed {seed}")
        worst = max(worst, int(cv2.absdiff(crops[0]["img"], crops[1]["img"]).max()))
    return worst / 255


def compare(root: Path, samples: Sequence[dict], repeats: int, console: Console) -> tuple[list[Row], dict]:
    """Measure the three sides in turn.

    Returns:
        Two rows, and the milliseconds of each side's stages, medians of the rounds.
    """
    make_cache(root, samples)
    sides = dict(zip(SIDES, (mmsegs_side(), dansegs_side(False), dansegs_side(True)), strict=True))
    rounds: dict[str, list[dict]] = {name: [] for name in SIDES}
    with one_thread(), Progress(console=console, transient=True) as progress:
        task = progress.add_task("rounds", total=repeats + 1)
        different = [
            largest_difference(sides[SIDES[0]], sides[name], samples) for name in SIDES[1:]
        ]  # The warm-up, too.
        progress.advance(task)
        for seed in range(repeats):
            for name, side in sides.items():
                rounds[name].append(side(samples, seed))
            progress.advance(task)
    totals = {name: [sum(one.values()) for one in of_side] for name, of_side in rounds.items()}
    theirs = totals[SIDES[0]]
    rows = []
    for name, mode, error in zip(SIDES[1:], (FROM_PNG, FROM_CACHE), different, strict=True):
        row = Row(CASE, mode, size_name(CROP), theirs_rounds=theirs, ours_rounds=totals[name])
        row.theirs_seconds, row.ours_seconds = (statistics.median(side) for side in (theirs, totals[name]))
        row.time_ratio = row.ours_seconds / row.theirs_seconds
        row.max_relative_error = error
        rows.append(row)
    stages = {
        name: {stage: statistics.median(one[stage] for one in of_side) * 1e3 for stage in STAGES}
        for name, of_side in rounds.items()
    }
    # Decoding both files is the least work.
    rows[0].floor_seconds = (stages[SIDES[1]]["image"] + stages[SIDES[1]]["label"]) / 1e3
    return rows, stages


def stage_cells(rows: Sequence[Row], stages: dict[str, dict[str, float]]) -> list[list[str]]:
    """Milliseconds by stage and side, with the totals, images per second and ratios below them."""
    seconds = dict(zip(SIDES, (rows[0].theirs_seconds, *(row.ours_seconds for row in rows)), strict=True))
    cells = [[stage, *(f"{stages[name][stage]:.1f}" for name in SIDES)] for stage in STAGES]
    cells.append(["all", *(f"{seconds[name] * 1e3:.1f}" for name in SIDES)])
    cells.append(["images per second and core", *(f"{1 / seconds[name]:.1f}" for name in SIDES)])
    ratios = (f"{seconds[SIDES[0]] / seconds[name]:.1f}x" for name in SIDES)
    return [*cells, ["ratio", *ratios]]


def print_stages(rows: Sequence[Row], stages: dict[str, dict[str, float]], console: Console) -> None:
    """Print the stages as a table."""
    table = Table(title="ms an image", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for index, column in enumerate(("stage", *SIDES)):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for cells in stage_cells(rows, stages):
        table.add_row(*cells)
    console.print(table)


def markdown(path: Path) -> str:
    """Both tables of a stored result, as Markdown; of a result with a GPU, its table."""
    table = ways.stored_markdown(path, PROMISES)
    content = json.loads(path.read_text(encoding="utf-8"))
    if "figures" in content:
        return table
    stages = content["about"].get("stages_ms")
    if stages is None:
        raise UserError(f"{path} is not a result of this benchmark: it has no stages")
    rows = report.load(path)
    lines = ["| ms an image | " + " | ".join(SIDES) + " |", "|---|" + "---:|" * len(SIDES)]
    lines += ["| " + " | ".join(cells) + " |" for cells in stage_cells(rows, stages)]
    return table + "\n\n" + "\n".join(lines)


def plot(stages: dict[str, dict[str, float]], title: str, path: Path) -> None:
    """Plot one bar per side, made of its stages."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    left = np.zeros(len(SIDES))
    for stage in STAGES:
        width = np.array([stages[name][stage] for name in SIDES])
        axes.barh(SIDES, width, left=left, label=stage)
        left += width
    axes.invert_yaxis()
    axes.set(xlabel="ms an image, one thread", title=title)
    figure.legend(fontsize="small", ncols=len(STAGES), loc="outside lower center")
    figure.savefig(path, dpi=90)


def prepare_frames(root: Path, source: Path | None, count: int, console: Console) -> None:
    """Copy or draw frames below ``root``."""
    with console.status(f"preparing {count} frames of {size_name(FRAME)}"):
        if source:
            copied_frames(source, root, count)
        else:
            rendered_frames(root, count)


def _into_gpu(args: argparse.Namespace) -> None:
    """Measure what all cores bring to a GPU."""
    from benchmarks import input_gpu

    begun = time.monotonic()
    device, _ = set_up(args)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare_frames(root, args.data, args.frames or (4 if args.quick else 16), Console())
        left = args.seconds - (time.monotonic() - begun)
        input_gpu.carry_out(root, device, left, args.out, "_quick" if args.quick else "")


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the results."""
    parser = report.parser("input", __doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, metavar="ROOT", help="Cityscapes to take frames from")
    parser.add_argument("--frames", type=parse_count, help="frames (default: 24, with --quick 8)")
    parser.add_argument(
        "--seconds", type=parse_count, default=20, help="with a GPU: time for all of it (default: 20)"
    )
    args = parser.parse_args(argv)
    if args.markdown:
        print(markdown(args.markdown))
        return
    if args.threads not in (None, 1):
        raise UserError("input is made by one thread of a CPU: leave out --device and --threads")
    if args.device == "cuda":
        _into_gpu(args)
        return
    require_mmseg()
    console = Console()
    repeats = args.repeats or (3 if args.quick else 5)
    frames = args.frames or (8 if args.quick else 24)
    with tempfile.TemporaryDirectory() as folder, one_thread():
        root = Path(folder)
        prepare_frames(root, args.data, frames, console)
        samples = list_samples(root)
        sizes = [Path(sample["img_path"]).stat().st_size / 1e6 for sample in samples]
        rows, stages = compare(root, samples, repeats, console)
        about = {**environment(torch.device("cpu")), **report.versions(), "repeats": repeats}
    about |= {
        "opencv": cv2.__version__,
        "frames": f"{len(samples)} {'of ' + str(args.data) if args.data else 'rendered'}",
        "png_megabytes": [round(size, 2) for size in (min(sizes), max(sizes))],
        "stages_ms": stages,
    }
    report.print_results(rows, PROMISES)
    print_stages(rows, stages, console)
    paths = report.save("input", rows, about, args.out, "_quick" if args.quick else "")
    picture = paths[0].with_suffix(".png")
    plot(stages, f"{about['device_name']}: {size_name(FRAME)} PNG to a {size_name(CROP)} crop", picture)
    for path in (*paths, picture):
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
