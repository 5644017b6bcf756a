"""Show where and how a checkpoint is wrong, and how trainings went.

    python tools/analyze.py CONFIG CHECKPOINT --out analysis
    python tools/analyze.py --runs work_dirs/a work_dirs/b --out curves

writes into the folder ``report.md``, a page of tables and pictures that are files beside it: the confusion
matrix, IoU, accuracy, F1 and boundary IoU of every class, calibration, the worst images, and the curves of
trainings. The scores are those of ``tools/test.py``, to the last digit.
"""

import argparse
from collections.abc import Sequence

from danseg.tool_arguments import (
    add_cfg_options,
    add_data,
    add_device,
    add_precision,
    add_trained,
    add_work_dir,
    number,
    parse_trained,
)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Analyse a checkpoint on its config's test set, and draw the curves of trainings. Writes "
        "report.md and what it shows into a folder.",
        epilog="An earlier analysis in the folder is replaced; other files there stay.",
    )
    add_trained(parser, optional=True, exported=True)
    add_data(parser)
    parser.add_argument(
        "--runs",
        nargs="+",
        default=[],
        metavar="DIR",
        help="work dirs of trainings, whose loss, learning rate and mIoU are drawn on one plot",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the report; made if needed")
    parser.add_argument(
        "--worst",
        type=number(int, 0, 999),
        default=8,
        metavar="N",
        help="how many of the worst images to draw (default: %(default)s)",
    )
    parser.add_argument(
        "--bins",
        type=number(int, 1, 1000),
        default=15,
        metavar="N",
        help="bins of confidence of the calibration (default: %(default)s)",
    )
    parser.add_argument(
        "--boundary",
        type=number(float, 1e-6, 1),
        default=0.02,
        metavar="SHARE",
        help="width of the bands of boundary IoU, as a share of an image's diagonal (default: %(default)s)",
    )
    add_work_dir(parser, "the test's log")
    add_device(parser)
    add_precision(parser, note=", as it is tested")
    add_cfg_options(parser)
    args = parse_trained(parser, argv)
    if not args.config and not args.runs:
        parser.error("name what to analyse: CONFIG CHECKPOINT, or --runs DIR ...")
    return args


def run(args: argparse.Namespace) -> None:
    from danseg.apis.analysis_report import report_folder, write_report
    from danseg.engine.training_curves import read_training

    trainings = [read_training(folder) for folder in args.runs]
    analysis = None
    folder = report_folder(args.out, args.worst)
    if args.config:
        from danseg.apis.analysis import analyse
        from danseg.engine.config.cfg_options import parse_options
        from danseg.engine.config.options import configure_test
        from danseg.engine.stalled import watched
        from danseg.export.exported_config import trained_config

        config = trained_config(args.config, parse_options(args.cfg_options), args.data)
        configure_test(config, work_dir=args.work_dir)
        options = dict(worst=args.worst, bins=args.bins, boundary=args.boundary)
        with watched(5):
            analysis = analyse(
                config, args.checkpoint, device=args.device, precision=args.precision, **options
            )
    print(f"report: {write_report(folder, analysis, trainings)}")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
