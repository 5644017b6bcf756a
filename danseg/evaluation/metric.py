"""The evaluation metric of the configs: mmseg's IoUMetric without its rounding and its limits."""

import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmseg.registry import METRICS

from danseg.errors import UserError
from danseg.evaluation.confusion import Scores, add_sparse, count_pairs, mean, sparse
from danseg.io.files import make_folder
from danseg.io.words import listed
from danseg.label_maps.cityscapes_labels import CLASS_IDS
from danseg.label_maps.id_formats import IdFormat, chosen_format, id_format, prediction_name
from danseg.label_maps.label_png import write_label_map

IOU_METRICS = ("mIoU", "mDice", "mFscore")


@METRICS.register_module()
class ExactIoUMetric(BaseMetric):
    """Mean IoU from exact counts; replaces ``IoUMetric`` in any mmseg config.

    Differences from mmseg's metric:

    * Pixels are counted in int64; scores are float64 and unrounded. The metric returns the means in percent
      (``mIoU``, ``mAcc``, ``aAcc``, ...). It prints the per-class scores as a table and keeps them in
      :attr:`scores`.
    * N processes give exactly the result of one process, even if N does not divide the number of images.
    * A label or a prediction outside the classes is an error that names the file and the ids. mmseg silently
      ignores such pixels.
    * Of several data sets in a ConcatDataset each is scored, too: ``a/mIoU`` beside the ``mIoU`` of all.
    * Predictions are written in a declared format: with a part of a data set's classes, or in another order,
      each class keeps its id. Images of the same name cannot overwrite each other's predictions.

    Attributes:
        scores: a :class:`~danseg.evaluation.confusion.Scores` with the unrounded per-class values of the last
            evaluation, on rank 0; None before the first evaluation, and with ``format_only``.
        names: what the prediction of an image is called, by the image's path: a path below ``output_dir``
            without suffix. It is the image's own name where it is not set.
        sets: the paths of (image, label) in each of several data sets, by name; empty for one data set.
        set_scores: like ``scores``, for each of the ``sets``.

    Args:
        ignore_index: label value that does not count.
        iou_metrics: any of 'mIoU' (mIoU, mAcc), 'mDice' (mDice, mAcc), 'mFscore' (mFscore, mPrecision,
            mRecall); aAcc is always returned, as the last. A class that is labelled but never predicted has
            mFscore 0; mmseg leaves it out of the mean.
        nan_to_num: score of a class without pixels, from 0 to 1; None leaves such a class out of the mean.
        beta: weight of recall in mFscore.
        output_dir: folder for the predictions; None writes none.
        output_format: 'plain' or 'camvid' (train ids), 'cityscapes' (labelIds) or 'ade20k' (ids from 1); see
            :func:`danseg.label_maps.id_formats.id_format`.
        format_only: write predictions and compute no scores, for test sets without labels.
        collect_device: how results reach rank 0: 'gpu' sends them through the process group (also with gloo),
            'cpu' through files in ``collect_dir``, which all ranks must share.
        collect_dir: folder for collect_device='cpu'.
        prefix: text before the names of the results, as in 'prefix/mIoU'.
    """

    # BaseMetric warns if the prefix is None; an empty prefix means the same.
    default_prefix = ""

    def __init__(
        self,
        ignore_index: int = 255,
        iou_metrics: Sequence[str] | str = ("mIoU",),
        nan_to_num: float | None = None,
        beta: float = 1.0,
        output_dir: str | os.PathLike | None = None,
        output_format: str = "plain",
        format_only: bool = False,
        collect_device: str = "gpu",
        collect_dir: str | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.iou_metrics = (iou_metrics,) if isinstance(iou_metrics, str) else tuple(iou_metrics)
        unknown = set(self.iou_metrics) - set(IOU_METRICS)
        if unknown or not self.iou_metrics:
            raise UserError(f"iou_metrics={list(iou_metrics)}: choose from {', '.join(IOU_METRICS)}")
        if format_only and output_dir is None:
            raise UserError("format_only=True writes predictions and nothing else: it needs output_dir")
        if nan_to_num is not None and not 0 <= nan_to_num <= 1:
            raise UserError(
                f"nan_to_num={nan_to_num}: give a score from 0 to 1, not a percentage, or None to leave "
                "classes without pixels out of the mean"
            )
        id_format(output_format, len(CLASS_IDS))  # raises now, not at the first image, if the name is unknown
        self.ignore_index = ignore_index
        self.nan_to_num = nan_to_num
        self.beta = beta
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.output_format = output_format
        self.format_only = format_only
        self.scores: Scores | None = None
        self.names: Mapping[str, str] = {}
        self.sets: Mapping[str, Collection[tuple[str, str]]] = {}
        self.set_scores: dict[str, Scores] = {}
        self._sources: dict[str, str] = {}  # name of a written file -> the image that it belongs to
        if self.output_dir is not None:
            # On every rank, because another rank may write its first file before rank 0 gets here.
            make_folder(self.output_dir, "output_dir")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, from the data set's meta information."""
        classes = (self.dataset_meta or {}).get("classes")
        if not classes:
            raise UserError("the data set names no classes: set metainfo=dict(classes=(...)) in its config")
        return tuple(name.strip() for name in classes)

    def process(self, data_batch: dict | None, data_samples: Sequence[dict]) -> None:
        """Count the predictions of one batch and, if ``output_dir`` is set, write them.

        Args:
            data_batch: not used.
            data_samples: the model's results as dictionaries: ``pred_sem_seg.data`` and ``gt_sem_seg.data``
                of shape (1, H, W), ``img_path``, ``seg_map_path``.

        Raises:
            UserError: an id is outside the classes, a label is missing or has another size, or two images
                have the same name.
        """
        num_classes = len(self.classes)
        for sample in data_samples:
            image_path = _image_path(sample)
            prediction = ids_of(sample["pred_sem_seg"])
            wrong = _outside(prediction, num_classes)
            if wrong.size:
                raise UserError(
                    f"{image_path}: the model predicts the classes {listed(wrong)}, the data set has "
                    f"{num_classes} (0..{num_classes - 1}); set num_classes={num_classes} in every head"
                )
            result: dict = {"image": image_path, "label": str(sample.get("seg_map_path", ""))}
            if not self.format_only:
                label = self.label_of(sample, prediction)
                # Ignored pixels are counted in row C of the table, which compute_metrics drops.
                result["pairs"] = sparse(count_pairs(label, prediction, num_classes + 1))
            if self.output_dir is not None:
                result["file"] = self._write(self.output_dir, image_path, prediction)
            self.results.append(result)

    def label_of(self, sample: dict, prediction: np.ndarray) -> np.ndarray:
        """The label of a sample as it is counted: (H, W) ids 0..C-1, and C where it is ignored.

        Args:
            sample: one of the ``data_samples`` of :meth:`process`.
            prediction: (H, W), whose size it must have.

        Raises:
            UserError: there is no label, or it has another size or an id outside the classes.
        """
        num_classes, image_path = len(self.classes), _image_path(sample)
        label_path = str(sample.get("seg_map_path", f"the label of {image_path}"))
        if "gt_sem_seg" not in sample:
            raise UserError(
                f"{image_path}: there is no label to compare with; for a set without labels use "
                "format_only=True, and for others load the labels in the test pipeline"
            )
        label = ids_of(sample["gt_sem_seg"])
        if label.shape != prediction.shape:
            raise UserError(
                f"{label_path}: the label is {label.shape[0]}x{label.shape[1]} (height x width), the "
                f"prediction {prediction.shape[0]}x{prediction.shape[1]}; image and label must have the "
                "same size, and the labels must be loaded after the test pipeline's Resize"
            )
        ignored = label == self.ignore_index
        wrong = _outside(np.where(ignored, 0, label), num_classes)
        if wrong.size:
            raise UserError(
                f"{label_path}: label ids {listed(wrong)} are outside the {num_classes} classes "
                f"(0..{num_classes - 1}; ignored: {self.ignore_index}); check label_map, reduce_zero_label "
                "and that the files hold train ids"
            )
        return np.where(ignored, num_classes, label)

    def _write(self, folder: Path, image_path: str, prediction: np.ndarray) -> str:
        """Write one prediction and return the file's name."""
        frame = self.names.get(image_path, Path(image_path).stem)
        name = prediction_name(frame, self.output_format)
        _claim(self._sources, name, image_path)
        if "/" in name:
            make_folder((folder / name).parent)
        write_label_map(folder / name, self._format().encode(prediction))
        return name

    def _format(self) -> IdFormat:
        """The format of the files."""
        label_map = (self.dataset_meta or {}).get("label_map")
        return chosen_format(self.output_format, len(self.classes), label_map)

    def evaluate(self, size: int) -> dict:
        """Gather the results of all ranks, compute on rank 0, return the same on all, as in mmengine."""
        try:
            return super().evaluate(size)
        finally:
            self._sources.clear()

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Add up the images' counts, compute the scores and set :attr:`scores`.

        Args:
            results: one entry per image; mmengine has removed the repeated images of the last batch.

        Returns:
            Means in percent, unrounded; empty with ``format_only``.
        """
        self.scores, self.set_scores = None, {}
        if self.output_dir is not None:
            sources: dict[str, str] = {}
            for result in results:  # two ranks may have written files of the same name
                _claim(sources, result["file"], result["image"])
            ids = zip(self._format().class_ids, self.classes, strict=True)
            print_log(
                f"{len(results)} predictions are in {self.output_dir.resolve()}, in the format "
                f"{self.output_format!r}: {listed(f'{number} {name}' for number, name in ids)}",
                logger="current",
            )
        if self.format_only:
            return {}

        self.scores = self.scores_of(results)
        self.set_scores = self._scores_by_set(results)
        title = f"All {len(self.sets)} data sets together:" if self.sets else ""
        print_log(f"{title}\n{self.scores.table()}", logger="current")
        values = self._values(self.scores)
        for name, scores in self.set_scores.items():
            print_log(f"{name}:\n{scores.table()}", logger="current")
            values |= {f"{name}/{key}": value for key, value in self._values(scores).items()}
        return values

    @property
    def absent(self) -> float:
        """The score of a class without pixels, as :class:`~danseg.evaluation.confusion.Scores` has it."""
        return float("nan") if self.nan_to_num is None else self.nan_to_num

    def scores_of(self, results: Sequence[dict]) -> Scores:
        """The scores of some images, by what :meth:`process` has added to ``results`` for each of them."""
        num_classes = len(self.classes)
        table = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
        for result in results:
            add_sparse(table, *result["pairs"])
        return Scores(self.classes, table[:num_classes], self.absent)

    def _scores_by_set(self, results: Sequence[dict]) -> dict[str, Scores]:
        """The scores of each of the ``sets``; a pair of files that is in two of them counts once in each."""
        if not self.sets:
            return {}
        by_files = {(result["image"], result["label"]): result for result in results}
        homeless = [files for files in by_files if not any(files in one for one in self.sets.values())]
        if homeless:
            raise UserError(
                f"it is unknown to which of the data sets {', '.join(self.sets)} the image {homeless[0][0]} "
                f"with label {homeless[0][1] or 'without a path'} belongs; PackSegInputs must keep "
                "img_path and seg_map_path among its meta_keys"
            )
        return {
            name: self.scores_of([result for files, result in by_files.items() if files in one])
            for name, one in self.sets.items()
        }

    def _values(self, scores: Scores) -> dict[str, float]:
        """Means in percent; that of the first of ``iou_metrics`` leads, and ``save_best="auto"`` takes it."""
        per_class: dict[str, np.ndarray] = {}
        for kind in self.iou_metrics:
            if kind == "mIoU":
                per_class |= {"mIoU": scores.iou, "mAcc": scores.acc}
            elif kind == "mDice":
                per_class |= {"mDice": scores.dice, "mAcc": scores.acc}
            else:
                per_class |= {
                    "mFscore": scores.fscore(self.beta),
                    "mPrecision": scores.precision,
                    "mRecall": scores.acc,
                }
        values = {name: mean(column) for name, column in per_class.items()}
        return {name: value * 100 for name, value in {**values, "aAcc": scores.pixel_acc}.items()}


def scores_report(metrics: Sequence[BaseMetric], values: Mapping[str, float]) -> dict[str, Any]:
    """The scores of one evaluation, ready for ``json.dump``: in percent, unrounded, None for nan.

    Args:
        metrics: the evaluator's metrics, which keep the scores of each class.
        values: the means that the evaluation returned.

    Returns:
        ``values``, and what :meth:`Scores.as_dict` has of each :class:`ExactIoUMetric`, under the metric's
        prefix if there are several; the same of each data set under ``sets``.
    """
    report: dict[str, Any] = {}
    scored = [one for one in metrics if isinstance(one, ExactIoUMetric) and one.scores is not None]
    for one in scored:
        content: dict[str, Any] = one.scores.as_dict() if one.scores else {}
        if one.set_scores:
            content["sets"] = {name: scores.as_dict() for name, scores in one.set_scores.items()}
        if len(scored) == 1 or not one.prefix:
            report.update(content)
        else:
            report[one.prefix] = content
    # JSON has no NaN.
    return report | {name: float(value) if math.isfinite(value) else None for name, value in values.items()}


def _image_path(sample: dict) -> str:
    return str(sample.get("img_path", "an image without a path"))


def ids_of(field: dict) -> np.ndarray:
    """The integer ids (H, W) of a ``PixelData`` field of shape (1, H, W) or (H, W)."""
    data: torch.Tensor = field["data"].detach().cpu()
    if data.dim() == 3 and data.shape[0] == 1:
        data = data[0]  # (1, H, W) -> (H, W)
    if data.dim() != 2:
        raise UserError(f"a label map must be (H, W) or (1, H, W), got {tuple(data.shape)}")
    # A head with one output channel applies a threshold and returns 0 and 1 as floats.
    return data.to(torch.int64).numpy()


def _outside(ids: np.ndarray, num_classes: int) -> np.ndarray:
    """The unique ids that are not in 0..num_classes-1; fast if there are none."""
    if not ids.size or (ids.min() >= 0 and ids.max() < num_classes):
        return ids[:0].ravel()
    return np.unique(ids[(ids < 0) | (ids >= num_classes)])


def _claim(sources: dict[str, str], name: str, image_path: str) -> None:
    """Record that the file ``name`` belongs to ``image_path``; raise an error if another image has it."""
    owner = sources.setdefault(name, image_path)
    if owner != image_path:
        raise UserError(
            f"{owner} and {image_path} would both be written to {name}; rename one of the images or "
            "evaluate their folders separately"
        )
