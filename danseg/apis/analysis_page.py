"""The text of an analysis: its page, its tables, and the numbers of the tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from prettytable import PrettyTable

from danseg.apis.analysis import Analysis
from danseg.engine.training_curves import LOSS, SCORE, Training
from danseg.evaluation.confusion import Scores, mean

COLUMNS = ["class", "IoU", "Acc", "F1", "boundary_IoU", "label_pixels", "predicted_pixels"]
_CONFUSIONS = 10  # listed, of those that cost most pixels


def analysis_page(analysis: Analysis) -> list[str]:
    """Lines of Markdown: all that is known of a checkpoint, with the pictures beside the page."""
    scores, boundary, calibration = analysis.scores, analysis.boundary, analysis.calibration
    report = analysis.report
    page = [
        f"- config: {_code(report['config'])}",
        f"- checkpoint: {_code(report['checkpoint'])}",
        f"- images: {analysis.images}; the network computes in {report['precision']}{_averaged(report)}",
        "",
        f"**mIoU {_cell(scores.mean_iou)}**, mAcc {_cell(scores.mean_acc)}, aAcc {_cell(scores.pixel_acc)}, "
        f"mean boundary IoU {_cell(boundary.mean)}, expected calibration error {_cell(calibration.error)} "
        "(all in %)",
        "",
        "## Classes",
        "",
        *block(_classes_table(analysis)),
        f"In %, but for pixels. Boundary IoU looks at the pixels within {100 * boundary.share:g} % of the "
        "image's diagonal of an outline. A class that is in neither truth nor prediction is absent; it "
        + ("counts in no mean." if np.isnan(boundary.absent) else f"counts as {100 * boundary.absent:g}."),
        "",
    ]
    if analysis.set_scores:
        page += ["## Data sets", "", *block(_sets_table(analysis.set_scores))]
    page += ["## Confusion", "", "![confusion matrix](confusion.png)", ""]
    if confusions := _confusions(scores):
        page += ["What costs most pixels:", "", *block(confusions)]
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
                f"   ![image {number}]({worst_name(number)})",
                "",
            ]
    return page


def _averaged(report: dict[str, Any]) -> str:
    views = report.get("views") or []
    return f", averaged over {len(views)} views: {', '.join(views)}" if views else ""


def class_rows(analysis: Analysis) -> list[list[Any]]:
    """A row of :data:`COLUMNS` for each class, then one of means and sums; in percent, unrounded."""
    scores = analysis.scores
    columns = [scores.iou, scores.acc, scores.dice, analysis.boundary.scores]
    pixels = [scores.label_pixels, scores.predicted_pixels]
    rows = [
        [name, *(percent(column[k]) for column in columns), *(int(column[k]) for column in pixels)]
        for k, name in enumerate(scores.classes)
    ]
    means = [percent(mean(column)) for column in columns]
    return [*rows, ["mean", *means, *(int(column.sum()) for column in pixels)]]


def _classes_table(analysis: Analysis) -> str:
    table = _table(["class", "IoU", "Acc", "F1", "boundary IoU", "label pixels", "predicted pixels"])
    *rows, last = class_rows(analysis)
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


def runs_table(runs: Mapping[str, Training]) -> str:
    """A text table with one row for each training."""
    table = _table(["training", "starts", "iterations", "last loss", "best mIoU", "at", "last mIoU"])
    for name, one in runs.items():
        losses, scores = one.curves[LOSS], one.curves[SCORE]
        best = max(scores, key=lambda point: point[1], default=None)
        shown = ["-", "-", "-"] if best is None else [f"{best[1]:.2f}", best[0], f"{scores[-1][1]:.2f}"]
        table.add_row([name, one.starts, losses[-1][0], f"{losses[-1][1]:.4g}", *shown])
    return table.get_string()


def _table(columns: Sequence[str]) -> PrettyTable:
    table = PrettyTable(columns)
    table.align = "r"
    table.align[columns[0]] = "l"
    return table


def block(text: str) -> list[str]:
    """Text in Markdown that keeps its columns."""
    return ["```text", text, "```", ""]


def _code(text: object) -> str:
    """Text in Markdown that stands as it is: a file's name may hold anything."""
    shown = str(text).encode("utf-8", "backslashreplace").decode().replace("\n", "\\n").replace("`", "'")
    return f"`{shown}`"


def percent(fraction: float) -> float | None:
    """A fraction as JSON and CSV have it; None for nan."""
    return None if np.isnan(fraction) else float(fraction) * 100


def _cell(fraction: float) -> str:
    return "-" if np.isnan(fraction) else f"{100 * fraction:.2f}"


def worst_name(number: int) -> str:
    """The file of a worst image's picture, from 1 on."""
    return f"worst_{number:02}.png"
