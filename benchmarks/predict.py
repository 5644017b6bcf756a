"""Compare ways to predict many small pictures: mmseg's MMSegInferencer, one by one, and tools/predict.py's.

    python -m benchmarks.predict                                  # 1,000 pictures, a few minutes
    python -m benchmarks.predict --quick                          # fewer pictures
    python -m benchmarks.predict --markdown benchmarks/results/NAME.json

All read the same PNG files with the same weights, and write labels and overlays; models are loaded before.
Seconds are a picture's. One by one is what tools/predict.py did before it knew batches: each picture is
read twice, for the network and to draw on, and all is done in turn. mmseg's inferencer, which is slower, has
the first tenth of the pictures. Labels have to agree. The floor is the network alone, in batches.
"""

import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks import report
from benchmarks.command import Job, carry_out, set_up
from benchmarks.inference import settle
from benchmarks.measure import alternate
from benchmarks.networks import HEADS, Network, read_config
from benchmarks.report import Promise, Row, size_name
from danseg.errors import command_line
from danseg.tool_arguments import parse_count

NETWORK = Network(18, width=8, recipe="camvid")
SIZE = (64, 96)
FULL, QUICK = 1000, 48
# mmseg's inferencer one by one, as it does by itself, and in batches as large as danseg's.
INFERENCER, BATCHES, ONE_BY_ONE = "MMSegInferencer", "MMSegInferencer, batches of 16", "danseg, one by one"
CASE = "small pictures to labels and overlays"
# Rounding decides between two classes in so few pixels.
TIES = 1e-3
PROMISES = {(CASE, ONE_BY_ONE, size_name(SIZE)): Promise(time=1 / 3)}


def configs(network: Network) -> tuple[Any, Any]:
    """mmseg's and danseg's config of a network of another width, tested on whole pictures as they are."""
    found = []
    for side in ("mmseg", "danseg"):
        config = read_config(network)
        model = config.model
        model.type, model.decode_head.type, model.auxiliary_head.type = network.types(side)
        model.update(pretrained=None, test_cfg=dict(mode="whole"))
        model.backbone.update(base_channels=network.width, stem_channels=network.width)
        for part in (model.decode_head, model.auxiliary_head):
            part.in_channels = part.in_channels * network.width // 64
            part.channels = part.channels * network.width // 64
        if side == "mmseg":
            for argument in HEADS[network.head].lacks:
                model.decode_head.pop(argument, None)
        pipeline = [dict(type="LoadImageFromFile"), dict(type="PackSegInputs")]
        config.test_dataloader.dataset.pipeline = config.test_pipeline = pipeline
        config.visualizer = dict(type="SegLocalVisualizer", name="visualizer")
        found.append(config)
    return found[0], found[1]


def draw_pictures(folder: Path, count: int) -> list[Path]:
    """Coarse random colours, smoothed."""
    folder.mkdir()
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        paths.append(folder / f"{number:05}.png")
        cv2.imwrite(str(paths[-1]), cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC))
    return paths


def one_by_one(model: Any, paths: Sequence[Path], out: Path) -> None:
    """Predict pictures in turn, each as a user of ``danseg.apis`` would, labels and overlay."""
    from danseg import apis
    from danseg.label_maps.label_png import write_label_map
    from danseg.visualization import overlay, save_image

    out.mkdir()
    for path in paths:
        image, labels = apis.read_picture(model, path), apis.predict(model, path)
        write_label_map(out / f"{path.stem}_labels.png", labels)
        save_image(overlay(image, labels, model.dataset_meta["palette"]), out / f"{path.stem}_overlay.png")


def in_batches(model: Any, folder: Path, out: Path) -> None:
    """Predict a folder of pictures, as tools/predict.py does."""
    from danseg.apis.batches import Batches
    from danseg.apis.finished import Record
    from danseg.apis.many import BatchJob
    from danseg.apis.outputs import Writer, asked_kinds
    from danseg.apis.predict import InputPipeline
    from danseg.apis.sources import find_sources
    from danseg.apis.tally import Progress

    out.mkdir()
    sources, kinds = find_sources([str(folder)], out).sources, asked_kinds(None, False, False)
    pipeline = InputPipeline(model)
    progress = Progress(Record(out, {}), len(sources), shown=False)
    writer = Writer(model, pipeline.loader, out, kinds.pictures)
    job = BatchJob(Batches(model, pipeline), writer, kinds, progress)
    job.carry_out(sources, {source.name for source in sources})


def network_alone(model: Any, paths: Sequence[Path]) -> Callable[[], None]:
    """A function that makes the labels of all pictures, which are read before, in the same batches."""
    from danseg.apis.batches import PORTION, Batches
    from danseg.apis.predict import InputPipeline, prepared_batch

    batches = Batches(model, InputPipeline(model))
    samples = [{key: one for key, [one] in prepared_batch(model, path).items()} for path in paths]

    def run() -> None:
        for at in range(0, len(samples), PORTION):
            batches.labels(samples[at : at + PORTION])

    return run


def differing(ours: Path, theirs: Path) -> float:
    """The share of pixels whose labels differ.

    Raises:
        RuntimeError: it is more than rounding explains.
    """
    files = sorted(theirs.glob("*_pred.png")) or sorted(theirs.glob("*_labels.png"))  # numbered by mmseg
    names = [f"{int(path.stem.split('_')[0]):05}_labels.png" for path in files]
    pairs = [
        (cv2.imread(str(one), -1), cv2.imread(str(ours / name), -1))
        for one, name in zip(files, names, strict=True)
    ]
    share = float(np.mean([one != other for one, other in pairs]))
    if not pairs or share > TIES or len(np.unique(pairs[0][0])) < 2:
        raise RuntimeError(f"{share:.2g} of the labels of {len(pairs)} pictures differ")
    return share


def compare(count: int, device: torch.device, repeats: int) -> list[Row]:
    """Time all ways in turn on the same pictures."""
    from mmseg.apis import MMSegInferencer

    from danseg.apis import load_model, prepare_for_inference

    theirs_config, ours_config = configs(NETWORK)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        paths = draw_pictures(root / "in", count)
        torch.manual_seed(0)
        model = settle(load_model(ours_config, None, "cpu"))
        weights = root / "weights.pth"
        meta = {key: model.dataset_meta[key] for key in ("classes", "palette")}
        torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=meta)), weights)
        model = prepare_for_inference(model.to(device))
        inferencer = MMSegInferencer(model=theirs_config, weights=str(weights), device=str(device))
        inferencer.show_progress = False

        tenth = [str(path) for path in paths[: max(16, count // 10)]]

        def mmsegs(out: Path, batch_size: int) -> None:
            inferencer.num_pred_imgs = 0
            # Without names of classes drawn into the pictures, which take longer than all else.
            inferencer(tenth, batch_size=batch_size, out_dir=str(out), with_labels=False)

        ways = {
            INFERENCER: partial(mmsegs, batch_size=1),
            BATCHES: partial(mmsegs, batch_size=16),
            ONE_BY_ONE: lambda out: one_by_one(model, paths, out),
            "": lambda out: in_batches(model, root / "in", out),
        }

        def run(way: str) -> Path:
            out = root / f"out {way}"
            shutil.rmtree(out, ignore_errors=True)
            ways[way](out)
            return out

        outs = {way: run(way) for way in ways}  # the warm-up, too
        shares = {
            way: differing(outs[""], out if way == ONE_BY_ONE else out / "pred")
            for way, out in outs.items()
            if way
        }
        counts = {INFERENCER: len(tenth), BATCHES: len(tenth)}
        calls = [*(partial(run, way) for way in ways), network_alone(model, paths)]
        *rounds, floors = alternate(calls, repeats, device)
    seconds = {
        way: [one / counts.get(way, count) for one in of_way]
        for way, of_way in zip(ways, rounds, strict=True)
    }
    rows = []
    for way, share in shares.items():
        row = Row(CASE, way, size_name(SIZE), theirs_rounds=seconds[way], ours_rounds=seconds[""])
        row.theirs_seconds, row.ours_seconds = map(statistics.median, (seconds[way], seconds[""]))
        row.time_ratio = row.ours_seconds / row.theirs_seconds
        row.max_relative_error = share
        row.floor_seconds = statistics.median(floors) / count
        row.note = (
            f"{1 / row.theirs_seconds:.0f} pictures a second, in batches {1 / row.ours_seconds:.0f}; the "
            "difference is the share of pixels with another label"
        )
        rows.append(row)
    return rows


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the results."""
    parser = report.parser("predict", __doc__.split("\n")[0])
    parser.add_argument(
        "--pictures", type=parse_count, help=f"how many (default: {FULL}, with --quick {QUICK})"
    )
    args = parser.parse_args(argv)
    if args.markdown:
        print(report.markdown(report.load(args.markdown), PROMISES))
        return
    device, repeats = set_up(args)
    count = args.pictures or (QUICK if args.quick else FULL)
    jobs: list[Job] = [(CASE, 1, lambda: compare(count, device, repeats))]
    carry_out("predict", jobs, PROMISES, args, device, repeats)


if __name__ == "__main__":
    main()
