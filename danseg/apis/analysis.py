"""Analyse a checkpoint: test it once, and keep the counts that tell where and how it is wrong.

The scores are those of ``tools/test.py``: the same runner, the same loop, the same counts. A hook looks at
each prediction on its way and adds to counts; of the worst images it keeps label maps, compressed.
"""

import heapq
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel
from mmengine.runner import Runner
from mmseg.structures import SegDataSample

from danseg.apis.model import chosen_device
from danseg.apis.preparation import prepare_for_inference
from danseg.datasets.loading import load_shown, loading_step
from danseg.datasets.metainfo import metainfo_of
from danseg.datasets.wrappers import inner_datasets
from danseg.engine.test import evaluation_report, ready_runner
from danseg.errors import UserError
from danseg.evaluation.boundary_iou import BoundaryIoU
from danseg.evaluation.calibration import Calibration
from danseg.evaluation.confusion import Scores
from danseg.evaluation.metric import ExactIoUMetric, ids_of
from danseg.segmentors import label_confidences
from danseg.segmentors.labels import NOT_FINITE


@dataclass(frozen=True)
class WorstImage:
    """An image with a low score.

    Attributes:
        path: its file.
        miou: mean IoU over the classes in its truth or its prediction, a fraction.
    """

    path: str
    miou: float
    _shape: tuple[int, int]
    _maps: tuple[bytes, bytes]

    def maps(self) -> tuple[np.ndarray, np.ndarray]:
        """Truth and prediction, (H, W) uint16; in the truth, C means ignored."""
        truth, prediction = (
            np.frombuffer(zlib.decompress(data), np.uint16).reshape(self._shape) for data in self._maps
        )
        return truth, prediction


@dataclass(frozen=True)
class Analysis:
    """What :func:`analyse` has found.

    Attributes:
        report: what ``tools/test.py`` writes of its scores.
        scores: the exact scores over all images.
        set_scores: of several data sets, those of each.
        boundary: boundary IoU of each class.
        calibration: how far confidences can be trusted.
        worst: the images with the lowest mIoU, the lowest first.
        images: number of images.
        palette: colour of each class.
        picture: reads an image's file to draw on: (H, W, 3) uint8, RGB.
    """

    report: dict[str, Any]
    scores: Scores
    set_scores: Mapping[str, Scores]
    boundary: BoundaryIoU
    calibration: Calibration
    worst: Sequence[WorstImage]
    images: int
    palette: Sequence[tuple[int, int, int]]
    picture: Callable[[str], np.ndarray]


def analyse(
    config: Config,
    checkpoint: str,
    *,
    worst: int = 8,
    bins: int = 15,
    boundary: float = 0.02,
    device: str | None = None,
    precision: str = "float32",
    log: Callable[[str], None] = print,
) -> Analysis:
    """Test a checkpoint on the config's test set, in the memory of one image and of counts.

    Args:
        config: from :func:`danseg.engine.config.options.configure_test`.
        checkpoint: file that a training wrote, of safetensors, or an address of either.
        worst: how many of the worst images to keep.
        bins: of the calibration.
        boundary: width of the bands of boundary IoU, as a share of an image's diagonal.
        device: where to compute. Default: the GPU if there is one, else the CPU.
        precision: "float32": the network as it is tested; or a type in which
            :func:`~danseg.apis.prepare_for_inference` lets it compute.
        log: where messages go before the runner's logger exists.

    Raises:
        UserError: any problem that the user can fix; there are no labels, or the evaluator is another one.
    """
    there = chosen_device(device)  # before anything is built
    watch = _Watch(worst, bins, boundary)
    runner = ready_runner(config, checkpoint, log=log)
    runner.model = runner.model.to(there)
    if precision != "float32":
        prepared = prepare_for_inference(runner.network, precision=precision)
        if isinstance(runner.model, BaseTTAModel):
            runner.model.module = prepared
        else:
            runner.model = prepared
    runner.register_hook(watch)
    metrics = runner.test()
    dataset = runner.test_loop.dataloader.dataset
    loader = loading_step(next(inner_datasets(dataset)).pipeline.transforms)
    return Analysis(
        {**evaluation_report(runner, checkpoint, metrics), "precision": precision},
        watch.metric.scores,  # type: ignore[arg-type]
        watch.metric.set_scores,
        watch.boundary,
        watch.calibration,
        watch.lowest(),
        len(dataset),
        metainfo_of(dataset)["palette"],
        lambda path: load_shown(loader, path),
    )


class _Watch(Hook):
    """Adds each prediction of a test to the counts."""

    metric: ExactIoUMetric
    boundary: BoundaryIoU

    def __init__(self, worst: int, bins: int, share: float) -> None:
        self._most, self._share = worst, share
        BoundaryIoU(1, share)  # which refuses a wrong share, before anything is read
        self.calibration = Calibration(bins)
        self._worst: list[tuple[float, int, WorstImage]] = []  # a heap, whose first is the best of them
        self._images = 0

    def before_test(self, runner: Runner) -> None:
        metrics = runner.test_evaluator.metrics
        found = [one for one in metrics if isinstance(one, ExactIoUMetric) and not one.format_only]
        if not found:
            kinds = ", ".join(type(one).__name__ for one in metrics)
            raise UserError(
                f"test_evaluator ({kinds}) keeps no counts of pixels to analyse; use "
                "dict(type='ExactIoUMetric'), without format_only"
            )
        self.metric = found[0]
        self.boundary = BoundaryIoU(len(self.metric.classes), self._share, self.metric.absent)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[SegDataSample] | None = None,
    ) -> None:
        outputs = outputs or ()
        counted = self.metric.results[len(self.metric.results) - len(outputs) :]
        for sample, result in zip(outputs, counted, strict=True):
            fields = sample.to_dict()
            predictions = ids_of(fields["pred_sem_seg"])
            labels = self.metric.label_of(fields, predictions)
            self.boundary.add(labels, predictions)
            known = labels < len(self.metric.classes)
            confidences = label_confidences(sample).float().cpu().numpy()
            if np.isnan(confidences).any():
                raise UserError(f"{result['image']}: {NOT_FINITE}")
            self.calibration.add(confidences[known], (labels == predictions)[known])
            self._keep(result["image"], self.metric.scores_of([result]).mean_iou, labels, predictions)

    def _keep(self, path: str, miou: float, labels: np.ndarray, predictions: np.ndarray) -> None:
        """Remember an image as long as it is among the worst; one without a labelled pixel has no score."""
        self._images += 1
        key = (-miou, -self._images)  # of equal scores, the first images
        if np.isnan(miou) or not self._most or len(self._worst) == self._most and key < self._worst[0][:2]:
            return
        maps = [zlib.compress(ids.astype(np.uint16).tobytes(), 1) for ids in (labels, predictions)]
        entry = (*key, WorstImage(path, miou, labels.shape, (maps[0], maps[1])))
        (heapq.heappush if len(self._worst) < self._most else heapq.heapreplace)(self._worst, entry)

    def lowest(self) -> list[WorstImage]:
        return [image for *_, image in sorted(self._worst, key=lambda one: one[:2], reverse=True)]
