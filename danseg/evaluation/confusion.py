"""Count (label, prediction) pairs exactly, and compute scores from the counts.

Every mIoU that danseg reports is computed in this file. Pixels are counted in int64, counts are divided once
in float64, and nothing is rounded. Counts in float32 are exact only up to 2^24 pixels per class, which is
eight frames of 1024 x 2048. Above that they are rounded, and a histogram that adds ones stops growing.
"""

import contextlib
import csv
import dataclasses
import io
import json
import os
from pathlib import Path

import numpy as np
from prettytable import PrettyTable

from danseg.io.files import whole_file


def count_pairs(labels: np.ndarray, predictions: np.ndarray, size: int) -> np.ndarray:
    """Count how often each (label, prediction) pair of ids occurs.

    Args:
        labels: integer array of any shape, values in [0, size).
        predictions: array of the same shape, values in [0, size).
        size: number of ids.

    Returns:
        (size, size) int64; row = label, column = prediction. The sum is the number of pixels.

    Raises:
        ValueError: the shapes differ or an id lies outside [0, size).
    """
    if labels.shape != predictions.shape:
        raise ValueError(f"labels {labels.shape} and predictions {predictions.shape} differ in shape")
    for name, ids in (("labels", labels), ("predictions", predictions)):
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < size:
            raise ValueError(f"{name} span {ids.min()}..{ids.max()}, allowed are 0..{size - 1}")
    pairs = labels.astype(np.int64).ravel() * size + predictions.astype(np.int64).ravel()
    return np.bincount(pairs, minlength=size * size).astype(np.int64, copy=False).reshape(size, size)


def sparse(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The non-zero entries of a count table as (flat positions, counts), both int64 of shape (K,).

    Processes send each other counts in this form. One image has only a few dozen different pairs, so an
    ADE20K image takes about 1 kB instead of the 180 kB of a full 150 x 150 matrix.
    """
    positions = np.flatnonzero(table)
    return positions, table.ravel()[positions]


def add_sparse(table: np.ndarray, positions: np.ndarray, counts: np.ndarray) -> None:
    """Add what :func:`sparse` returned to ``table``, in place."""
    table.reshape(-1)[positions] += counts


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Element-wise quotient in float64, nan where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    quotient = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


def mean(values: np.ndarray) -> float:
    """Mean over the classes that have a value; nan if no class has one."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """Per-class and mean scores of one confusion matrix: fractions in [0, 1], float64, unrounded.

    ``iou``, ``acc``, ... are (C,) arrays. A class that occurs neither in the labels nor in the predictions
    has IoU nan and does not count in the mean. A class that is only predicted has IoU 0 and Acc nan. The
    output for people, :meth:`percent`, :meth:`as_dict` and :meth:`table`, is in percent.

    Pixels whose label is ignored must not be in the matrix. A prediction may name no class (the Cityscapes
    evaluator permits 'unlabeled', for example). It then counts as an error for the labelled class and for no
    other class, as in the evaluators of Cityscapes and ADE20K.

    Args:
        classes: C names.
        confusion: (C, C + 1) int64 pixel counts; row = label, column = prediction, the last
            column = predictions that name no class.
        absent: the value of a score that is undefined for a class, as a fraction; nan leaves the class out of
            the mean.
    """

    classes: tuple[str, ...]
    confusion: np.ndarray
    absent: float = float("nan")

    def __post_init__(self) -> None:
        count = len(self.classes)
        if self.confusion.shape != (count, count + 1):
            raise ValueError(
                f"confusion of {count} classes must be ({count}, {count + 1}), got {self.confusion.shape}"
            )
        if not np.issubdtype(self.confusion.dtype, np.integer):
            raise ValueError(f"confusion must hold integer counts, got {self.confusion.dtype}")
        if len(set(self.classes)) < count:
            raise ValueError(f"two classes have the same name: {', '.join(self.classes)}")

    @property
    def correct_pixels(self) -> np.ndarray:
        return np.diagonal(self.confusion)

    @property
    def label_pixels(self) -> np.ndarray:
        return self.confusion.sum(axis=1)

    @property
    def predicted_pixels(self) -> np.ndarray:
        return self.confusion[:, :-1].sum(axis=0)

    @property
    def iou(self) -> np.ndarray:
        """correct / (labelled + predicted - correct)."""
        return self._score(
            self.correct_pixels, self.label_pixels + self.predicted_pixels - self.correct_pixels
        )

    @property
    def acc(self) -> np.ndarray:
        """correct / labelled: the recall of every class."""
        return self._score(self.correct_pixels, self.label_pixels)

    @property
    def precision(self) -> np.ndarray:
        """correct / predicted."""
        return self._score(self.correct_pixels, self.predicted_pixels)

    @property
    def dice(self) -> np.ndarray:
        """2 correct / (labelled + predicted)."""
        return self._score(2 * self.correct_pixels, self.label_pixels + self.predicted_pixels)

    def fscore(self, beta: float = 1.0) -> np.ndarray:
        """(1 + beta^2) correct / (beta^2 labelled + predicted).

        This equals the usual formula in precision and recall, except for a class that is labelled but never
        predicted: here it gets 0, there it is undefined. With beta = 1 it is :attr:`dice`.
        """
        weight = beta * beta
        return self._score(
            (1 + weight) * self.correct_pixels, weight * self.label_pixels + self.predicted_pixels
        )

    def _score(self, numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
        return np.nan_to_num(ratio(numerator, denominator), nan=self.absent)

    @property
    def mean_iou(self) -> float:
        return mean(self.iou)

    @property
    def mean_acc(self) -> float:
        return mean(self.acc)

    @property
    def pixel_acc(self) -> float:
        """The share of correct pixels among all pixels that are not ignored (aAcc)."""
        return float(ratio(self.correct_pixels.sum(), self.confusion.sum()))

    def percent(self) -> dict[str, float]:
        """mIoU, mAcc and aAcc in percent, unrounded."""
        return {
            "mIoU": self.mean_iou * 100,
            "mAcc": self.mean_acc * 100,
            "aAcc": self.pixel_acc * 100,
        }

    def as_dict(self) -> dict:
        """All scores in percent as plain Python numbers, with None for nan, ready for ``json.dump``."""

        def number(value: float) -> float | None:
            return None if np.isnan(value) else float(value)

        return {
            **{key: number(value) for key, value in self.percent().items()},
            "unit": "percent",
            "classes": {
                name: {
                    "IoU": number(iou * 100),
                    "Acc": number(acc * 100),
                    "label_pixels": int(labelled),
                    "predicted_pixels": int(predicted),
                }
                for name, iou, acc, labelled, predicted in zip(
                    self.classes, self.iou, self.acc, self.label_pixels, self.predicted_pixels, strict=True
                )
            },
        }

    def table(self) -> str:
        """A text table with one row per class and the means below, in percent with two decimals."""

        def cell(value: float) -> str:
            return "-" if np.isnan(value) else f"{value * 100:.2f}"

        table = PrettyTable(["class", "IoU", "Acc", "label share"])
        table.align = "r"
        table.align["class"] = "l"
        shares = ratio(self.label_pixels, self.confusion.sum())
        rows = [
            [name, cell(iou), cell(acc), cell(share)]
            for name, iou, acc, share in zip(self.classes, self.iou, self.acc, shares, strict=True)
        ]
        table.add_rows(rows[:-1])
        table.add_row(rows[-1], divider=True)
        table.add_row(["mean", cell(self.mean_iou), cell(self.mean_acc), ""])
        summary = ", ".join(
            f"{name} {cell(value)}"
            for name, value in (("mIoU", self.mean_iou), ("mAcc", self.mean_acc), ("aAcc", self.pixel_acc))
        )
        return f"{table.get_string()}\n{summary}"

    def write(self, *paths: str | os.PathLike, **facts) -> None:
        """Write ``.json`` files with :meth:`as_dict`, and ``.csv`` files with one row per class.

        None of them takes its name before all are written, so that none lies there alone.

        The CSV ends with a row ``mean`` (mIoU, mAcc and the total numbers of pixels).

        Args:
            *paths: files to write; existing ones are replaced.
            **facts: what the scores belong to (data set, checkpoint, ...). The JSON starts with them; the CSV
                leaves them out.

        Raises:
            UserError: a file cannot be written.
        """
        texts = {Path(path): self._text(Path(path), facts) for path in paths}
        with contextlib.ExitStack() as stack:
            parts = {stack.enter_context(whole_file(path)): text for path, text in texts.items()}
            for part, text in parts.items():
                part.write_text(text, encoding="utf-8")

    def _text(self, path: Path, facts: dict) -> str:
        content = self.as_dict()
        if path.suffix == ".json":
            return json.dumps({**facts, **content}, indent=2) + "\n"
        if path.suffix != ".csv":
            raise ValueError(f"{path}: scores are written as .json or .csv")
        columns = ["IoU", "Acc", "label_pixels", "predicted_pixels"]
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["class", *columns])
        for name, row in content["classes"].items():
            writer.writerow([name, *(row[column] for column in columns)])
        labelled, predicted = int(self.label_pixels.sum()), int(self.predicted_pixels.sum())
        writer.writerow(["mean", content["mIoU"], content["mAcc"], labelled, predicted])
        return buffer.getvalue()
