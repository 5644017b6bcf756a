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
from prettytable import PrettyTable

from danseg.apis.analysis import Analysis, WorstImage
from danseg.engine.training_curves import LOSS, SCORE, Training
from danseg.errors import UserError, reason_of
from danseg.evaluation.confusion import Scores, mean
from danseg.io.files import make_folder, whole_file
from danseg.io.source_files import read_file
from danseg.visualization.confusion_figure import confusion_figure
from danseg.visualization.curves_figure import curves_figure
from danseg.visualization.errors_figure import errors_figure
from danseg.visualization.page import save_figure
from danseg.visualization.reliability_figure import reliability_figure

INDEX, PAGE = "analysis.json", "report.md"
_NAMES = re.compile(r"report\.md|(confusion|calibration|curves)\.(png|csv)|classes\.csv|worst_\d+\.png")
_CONFUSIONS = 10  # of the page's list

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
    for name in (*needed, *map(_worst_name, range(1, worst + 1))):
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
        page += _analysis_page(analysis)
    if trainings:
        runs = _by_name(trainings)
        files["curves.png"] = _drawn(lambda: curves_figure({name: one.curves for name, one in runs.items()}))
        files["curves.csv"] = _text(_csv(["run", "curve", "iteration", "value"], _curve_rows(runs)))
        page += ["## Trainings", "", *_block(_runs_table(runs)), "![curves](curves.png)", ""]
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
            "mean": _number(boundary.mean),
            "classes": dict(zip(analysis.scores.classes, map(_number, boundary.scores), strict=True)),
        },
        "calibration": {
            "ECE": _number(calibration.error),
            "overconfidence": _number(calibration.overconfidence),
            "pixels": int(calibration.pixels.sum()),
        },
        "worst": [{"image": one.path, "mIoU": _number(one.miou)} for one in analysis.worst],
    }


def _analysis_files(analysis: Analysis) -> Iterator[tuple[str, Writer]]:
    scores, calibration = analysis.scores, analysis.calibration
    yield "confusion.png", _drawn(lambda: confusion_figure(scores))
    counts = scores.confusion[:, : len(scores.classes)].tolist()
    rows = [[name, *row] for name, row in zip(scores.classes, counts, strict=True)]
    yield "confusion.csv", _text(_csv(["truth / prediction", *scores.classes], rows))
    yield "classes.csv", _text(_csv(_COLUMNS, _class_rows(analysis)))
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
        yield _worst_name(number), _drawn(partial(_worst_figure, analysis, image))


def _worst_name(number: int) -> str:
    return f"worst_{number:02}.png"


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


def _analysis_page(analysis: Analysis) -> list[str]:
    scores, boundary, calibration = analysis.scores, analysis.boundary, analysis.calibration
    report = analysis.report
    page = [
        f"- config: {_code(report['config'])}",
        f"- checkpoint: {_code(report['checkpoint'])}",
        f"- images: {analysis.images}; the network computes in {report['precision']}",
        "",
        f"**mIoU {_cell(scores.mean_iou)}**, mAcc {_cell(scores.mean_acc)}, aAcc {_cell(scores.pixel_acc)}, "
        f"mean boundary IoU {_cell(boundary.mean)}, expected calibration error {_cell(calibration.error)} "
        "(all in %)",
        "",
        "## Classes",
        "",
        *_block(_classes_table(analysis)),
        f"In %, but for pixels. Boundary IoU looks at the pixels within {100 * boundary.share:g} % of the "
        "image's diagonal of an outline. A class that is in neither truth nor prediction is absent; it "
        + ("counts in no mean." if np.isnan(boundary.absent) else f"counts as {100 * boundary.absent:g}."),
        "",
    ]
    if analysis.set_scores:
        page += ["## Data sets", "", *_block(_sets_table(analysis.set_scores))]
    page += ["## Confusion", "", "![confusion matrix](confusion.png)", ""]
    if confusions := _confusions(scores):
        page += ["What costs most pixels:", "", *_block(confusions)]
    page += [
        "## Calibration",
        "",
        "![reliability diagram](calibration.png)",
        "",
        "Confidence is the probability that the network gives to its label. ECE is the mean distance between "
        f"confidence and the share of labels that are right, over {calibration.bins} bins of confidence.",
        "",
    ]
    if analysis.worst:
        page += ["## Worst images", ""]
        for number, image in enumerate(analysis.worst, 1):
            page += [
                f"{number}. mIoU {100 * image.miou:.2f} %: {_code(image.path)}",
                "",
                f"   ![image {number}]({_worst_name(number)})",
                "",
            ]
    return page


_COLUMNS = ["class", "IoU", "Acc", "F1", "boundary_IoU", "label_pixels", "predicted_pixels"]


def _class_rows(analysis: Analysis) -> list[list[Any]]:
    """A row of :data:`_COLUMNS` for each class, then one of means and sums; in percent, unrounded."""
    scores = analysis.scores
    columns = [scores.iou, scores.acc, scores.dice, analysis.boundary.scores]
    pixels = [scores.label_pixels, scores.predicted_pixels]
    rows = [
        [name, *(_number(column[k]) for column in columns), *(int(column[k]) for column in pixels)]
        for k, name in enumerate(scores.classes)
    ]
    means = [_number(mean(column)) for column in columns]
    return [*rows, ["mean", *means, *(int(column.sum()) for column in pixels)]]


def _classes_table(analysis: Analysis) -> str:
    table = _table(["class", "IoU", "Acc", "F1", "boundary IoU", "label pixels", "predicted pixels"])
    *rows, last = _class_rows(analysis)
    for number, (name, *scores, labelled, predicted) in enumerate([*rows, last], 1):
        note = "" if labelled or predicted else " (absent)"
        shown = ["-" if one is None else f"{one:.2f}" for one in scores]
        divider = number == len(rows)
        table.add_row([name + note, *shown, f"{labelled:,}", f"{predicted:,}"], divider=divider)
    return table.get_string()


def _sets_table(sets: Mapping[str, Scores]) -> str:
    table = _table(["data set", "mIoU", "mAcc", "aAcc"])
    for name, scores in sets.items():
        table.add_row([name, *(_cell(one) for one in (scores.mean_iou, scores.mean_acc, scores.pixel_acc))])
    return table.get_string()


def _confusions(scores: Scores) -> str:
    """The pairs of classes that are confused in most pixels; empty if none are."""
    counts = scores.confusion[:, : len(scores.classes)].copy()
    np.fill_diagonal(counts, 0)
    table = _table(["truth", "taken for", "pixels", "% of the truth"])
    table.align["taken for"] = "l"
    for place in np.argsort(-counts, axis=None, kind="stable")[:_CONFUSIONS]:
        row, column = divmod(int(place), len(scores.classes))
        if counts[row, column]:
            share = 100 * counts[row, column] / scores.label_pixels[row]
            table.add_row(
                [scores.classes[row], scores.classes[column], f"{counts[row, column]:,}", f"{share:.1f}"]
            )
    return table.get_string() if table.rows else ""


def _by_name(trainings: Sequence[Training]) -> dict[str, Training]:
    runs: dict[str, Training] = {}
    for one in trainings:
        if one.folder in runs:
            raise UserError(f"--runs names {one.folder} twice; name each work dir once")
        runs[one.folder] = one
    return runs


def _runs_table(runs: Mapping[str, Training]) -> str:
    table = _table(["training", "starts", "iterations", "last loss", "best mIoU", "at", "last mIoU"])
    for name, one in runs.items():
        losses, scores = one.curves[LOSS], one.curves[SCORE]
        best = max(scores, key=lambda point: point[1], default=None)
        shown = ["-", "-", "-"] if best is None else [f"{best[1]:.2f}", best[0], f"{scores[-1][1]:.2f}"]
        table.add_row([name, one.starts, losses[-1][0], f"{losses[-1][1]:.4g}", *shown])
    return table.get_string()


def _curve_rows(runs: Mapping[str, Training]) -> list[list[Any]]:
    return [
        [name, kind, iteration, value]
        for name, one in runs.items()
        for kind, points in one.curves.items()
        for iteration, value in points
    ]


def _table(columns: Sequence[str]) -> PrettyTable:
    table = PrettyTable(columns)
    table.align = "r"
    table.align[columns[0]] = "l"
    return table


def _block(text: str) -> list[str]:
    return ["```text", text, "```", ""]


def _code(text: object) -> str:
    """Text in Markdown that stands as it is: a file's name may hold anything."""
    shown = str(text).encode("utf-8", "backslashreplace").decode().replace("\n", "\\n").replace("`", "'")
    return f"`{shown}`"


def _number(fraction: float) -> float | None:
    return None if np.isnan(fraction) else float(fraction) * 100


def _cell(fraction: float) -> str:
    return "-" if np.isnan(fraction) else f"{100 * fraction:.2f}"


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
