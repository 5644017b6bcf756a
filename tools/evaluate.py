"""Score a folder of predicted PNG files against a folder of label maps; no model is needed.

Prints IoU and accuracy of every class, mIoU, mAcc and aAcc, and writes the unrounded scores to
NAME_scores.json and NAME_scores.csv, where NAME is the name of PRED_DIR. Both files go to the folder
--out, or beside PRED_DIR. Existing files are kept; the new ones then get a number.

    python tools/evaluate.py work_dirs/danet/predictions data/cityscapes/gtFine/val --dataset cityscapes
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pred_dir", type=Path, help="folder of predictions, searched recursively")
    parser.add_argument(
        "gt_dir",
        type=Path,
        help="label maps: gtFine/val (cityscapes, demo), annotations/validation (ade20k), valannot (camvid), "
        "SegmentationClass (voc2012), or the masks of your own data set",
    )
    parser.add_argument(
        "--dataset",
        required=True,
        help="cityscapes, ade20k, camvid, voc2012 or demo, or the folder of your own data set's dataset.yaml",
    )
    parser.add_argument(
        "--split", help="of your own data set, or of voc2012: train, val or test (default: val)"
    )
    parser.add_argument(
        "--pred-ids",
        choices=("labelIds", "trainIds"),
        help="ids in the predictions: labelIds, as the data set publishes them and its server expects them "
        "(default), or trainIds, counted from 0 (default for your own data set)",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="score these classes alone, in this order, as with metainfo.classes in a config (default: all)",
    )
    parser.add_argument("--out", type=Path, help="folder for the JSON and CSV (default: beside PRED_DIR)")
    parser.add_argument("--workers", type=int, help="number of processes (default: one per CPU core)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    from danseg.evaluation.folders import evaluate_folders
    from danseg.io.files import make_folder

    there = args.pred_dir.is_dir()  # otherwise the missing folder is the better message, and has no parent
    out_dir = args.out or (args.pred_dir.resolve().parent if there else Path())
    if there:
        make_folder(out_dir, fix="name another folder with --out")
    result = evaluate_folders(
        args.pred_dir,
        args.gt_dir,
        args.dataset,
        prediction_ids=args.pred_ids,
        split=args.split,
        classes=args.classes,
        workers=args.workers,
        progress=True,
    )
    print(result.scores.table())
    if result.unused:
        print(
            f"warning: {len(result.unused)} PNG files in {args.pred_dir} belong to no label map and do not "
            f"count; the first is {result.unused[0]}",
            file=sys.stderr,
        )
    stem = _free_stem(out_dir, f"{args.pred_dir.resolve().name}_scores")
    paths = [out_dir / f"{stem}{suffix}" for suffix in (".json", ".csv")]
    result.scores.write(
        *paths,
        dataset=args.dataset,
        predictions=str(args.pred_dir.resolve()),
        labels=str(args.gt_dir.resolve()),
        images=len(result.pairs),
    )
    for path in paths:
        print(f"written: {path}")


def _free_stem(folder: Path, stem: str) -> str:
    """``stem``, or ``stem_2``, ``stem_3``, ... if files of that name exist."""
    candidate, number = stem, 1
    while any((folder / f"{candidate}{suffix}").exists() for suffix in (".json", ".csv")):
        number += 1
        candidate = f"{stem}_{number}"
    return candidate


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
