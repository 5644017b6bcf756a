"""Write an analysis to a folder: ``report.md``, and beside it every picture and number that it shows.

All files take their names together, when all of them are whole. ``analysis.json`` lists them; the next
analysis in the folder replaces these, and no file of anybody else.
"""

import contextlib
import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from danseg.apis.analysis import Analysis, WorstImage
from danseg.apis.analysis_page import (
    COLUMNS,
    analysis_page,
    block,
    class_rows,
    percent,
    runs_table,
    worst_name,
)
from danseg.engine.training_curves import Training
from danseg.errors import UserError, reason_of
from danseg.io.files import make_folder, whole_file
from danseg.io.source_files import read_file
from danseg.visualization.confusion_figure import confusion_figure
from danseg.visualization.curves_figure import curves_figure
from danseg.visualization.errors_figure import errors_figure
from danseg.visualization.page import save_figure
from danseg.visualization.reliability_figure import reliability_figure

INDEX, PAGE = "analysis.json", "report.md"
_NAMES = re.compile(r"report\.md|(confusion|calibration|curves)\.(png|csv)|classes\.csv|worst_\d+\.png")

Writer = Callable[[Path], object]


def report_folder(out: str, worst: int) -> Path:
    """Make the folder of an analysis, before the work begins.

    Args:
        out: the folder; it may hold other files, or an earlier analysis.
        worst: how many pictures of images there may be.

    Raises:
        UserError: it cannot be made or written to, or holds a file of a name that an analysis needs and that
            no earlier analysis has written.
    """
    folder = make_folder(out, "the folder for the analysis", "choose another --out")
    ours = {INDEX, *_earlier(folder)}
    needed = [
        PAGE,
        "classes.csv",
        *(f"{kind}.{end}" for kind in ("confusion", "calibration", "curves") for end in ("png", "csv")),
    ]
    for name in (*needed, *map(worst_name, range(1, worst + 1))):
        if name not in ours and (folder / name).exists():
            raise UserError(
                f"{folder / name} is of no earlier analysis and would be replaced; choose another --out"
            )
    return folder


def write_report(folder: Path, analysis: Analysis | None, trainings: Sequence[Training]) -> Path:
    """Write the files of an analysis of a checkpoint, of trainings, or of both; returns the page's path.

    Args:
        folder: from :func:`report_folder`.
        analysis: from :func:`danseg.apis.analysis.analyse`.
        trainings: from :func:`danseg.engine.training_curves.read_training`.

    Raises:
        UserError: a file cannot be written; then the folder is as it was.
    """
    files: dict[str, Writer] = {}
    page: list[str] = ["# Analysis", ""]
    index: dict[str, Any] = {}
    if analysis:
        index = _index(analysis)
        files.update(_analysis_files(analysis))
        page += analysis_page(analysis)
    if trainings:
        runs = _by_name(trainings)
        files["curves.png"] = _drawn(lambda: curves_figure({name: one.curves for name, one in runs.items()}))
        files["curves.csv"] = _text(_csv(["run", "curve", "iteration", "value"], _curve_rows(runs)))
        page += ["## Trainings", "", *block(runs_table(runs)), "![curves](curves.png)", ""]
        index["runs"] = [one.folder for one in trainings]
    files[PAGE] = _text("\n".join(page).rstrip() + "\n")
    index["files"] = sorted(files)
    earlier = _earlier(folder)
    with contextlib.ExitStack() as stack:
        for name, write in files.items():
            write(stack.enter_context(whole_file(folder / name)))
        # Entered last, it takes its name first, so that whatever lies there is listed.
        part = stack.enter_context(whole_file(folder / INDEX))
        part.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    for name in earlier - files.keys():
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    return folder / PAGE


def _earlier(folder: Path) -> set[str]:
    """The files of an earlier analysis in a folder; none if its list is not there or is another program's."""
    try:
        content = json.loads(read_file(folder / INDEX))
    except FileNotFoundError:
        return set()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder / INDEX}, the list of an earlier analysis, cannot be read: {reason_of(error)}; choose "
            "another --out, or move the folder's files away"
        ) from error
    listed = content.get("files") if isinstance(content, dict) else None
    if not isinstance(listed, list):
        raise UserError(
            f"{folder / INDEX} is of no earlier analysis and would be replaced; choose another --out"
        )
    return {name for name in listed if isinstance(name, str) and _NAMES.fullmatch(name)}


def _index(analysis: Analysis) -> dict[str, Any]:
    """All numbers that are no table: what ``tools/test.py`` writes, and what is new, in percent."""
    boundary, calibration = analysis.boundary, analysis.calibration
    return {
        **analysis.report,
        "images": analysis.images,
        "boundary": {
            "share_of_diagonal": boundary.share,
            "mean": percent(boundary.mean),
            "classes": dict(zip(analysis.scores.classes, map(percent, boundary.scores), strict=True)),
        },
        "calibration": {
            "ECE": percent(calibration.error),
            "overconfidence": percent(calibration.overconfidence),
            "pixels": int(calibration.pixels.sum()),
        },
        "worst": [{"image": one.path, "mIoU": percent(one.miou)} for one in analysis.worst],
    }


def _analysis_files(analysis: Analysis) -> Iterator[tuple[str, Writer]]:
    scores, calibration = analysis.scores, analysis.calibration
    yield "confusion.png", _drawn(lambda: confusion_figure(scores))
    counts = scores.confusion[:, : len(scores.classes)].tolist()
    rows = [[name, *row] for name, row in zip(scores.classes, counts, strict=True)]
    yield "confusion.csv", _text(_csv(["truth / prediction", *scores.classes], rows))
    yield "classes.csv", _text(_csv(COLUMNS, class_rows(analysis)))
    yield "calibration.png", _drawn(lambda: reliability_figure(calibration))
    yield (
        "calibration.csv",
        _text(
            _csv(
                ["above", "up to", "pixels", "correct_pixels", "mean_confidence"],
                [
                    [
                        number / calibration.bins,
                        (number + 1) / calibration.bins,
                        int(calibration.pixels[number]),
                        int(calibration.correct_pixels[number]),
                        None
                        if np.isnan(calibration.confidence[number])
                        else float(calibration.confidence[number]),
                    ]
                    for number in range(calibration.bins)
                ],
            )
        ),
    )
    for number, image in enumerate(analysis.worst, 1):
        yield worst_name(number), _drawn(partial(_worst_figure, analysis, image))


def _worst_figure(analysis: Analysis, image: WorstImage) -> Figure:
    truth, prediction = image.maps()
    return errors_figure(
        analysis.picture(image.path),
        truth,
        prediction,
        classes=analysis.scores.classes,
        palette=analysis.palette,
        name=Path(image.path).name,
        score=f"mIoU of this image {100 * image.miou:.1f} %",
    )


def _by_name(trainings: Sequence[Training]) -> dict[str, Training]:
    runs: dict[str, Training] = {}
    for one in trainings:
        if one.folder in runs:
            raise UserError(f"--runs names {one.folder} twice; name each work dir once")
        runs[one.folder] = one
    return runs


def _curve_rows(runs: Mapping[str, Training]) -> list[list[Any]]:
    return [
        [name, kind, iteration, value]
        for name, one in runs.items()
        for kind, points in one.curves.items()
        for iteration, value in points
    ]


def _drawn(figure: Callable[[], Figure]) -> Writer:
    """Draws when it is written, so that one figure at a time is in memory."""
    return lambda part: save_figure(figure(), part)


def _text(content: str) -> Writer:
    return lambda part: part.write_text(content, encoding="utf-8", errors="backslashreplace")


def _csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()
