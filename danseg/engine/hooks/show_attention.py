"""The hook behind ``tools/train.py --show-attention``: how attention forms, picture by picture."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, autocast

from danseg.datasets.loading import load_shown, loading_step
from danseg.datasets.metainfo import metainfo_of
from danseg.datasets.output_names import output_names
from danseg.datasets.wrappers import inner_datasets
from danseg.engine.dispensable import Dispensable
from danseg.errors import StopsAllError
from danseg.segmentors.labels import image_logits


@HOOKS.register_module()
class ShowAttention(Hook):
    """Draws prediction and attention of a few pictures at every validation of a training.

    The pictures lie at equal distances in the validation set, the positions in the middles of their largest
    segments, by the truth: both stay the same through the training. A figure shows what
    :func:`danseg.visualization.overview_figure` does for the views of the head, or of the whole network if
    the head has none. It goes to all back ends of the run's visualiser under ``attention/NAME``, with the
    iteration as its step: to a PNG below ``vis_data/vis_image`` of the log's folder, to TensorBoard.

    It costs the first process one pass for each picture, and changes nothing in the training. The weights are
    those that the validation has, a moving average's too. A picture passes through the network as a whole,
    also where the config tests by windows. A network that shows no attention is drawn without, which is said
    once; so is a picture that does not fit in memory or cannot be written, and the training goes on.

    Args:
        pictures: how many; all if there are fewer.
        positions: how many of each picture.

    Raises:
        ValueError: one of these is no whole number of at least 1.
    """

    priority = "ABOVE_NORMAL"  # at the end of a validation before EMAHook, which takes its weights back

    def __init__(self, pictures: int = 3, positions: int = 3) -> None:
        for name, value in (("pictures", pictures), ("positions", positions)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        self.pictures, self.positions = pictures, positions
        self._training = self._said = False
        self._chosen: dict[int, list[tuple[int, int]]] = {}  # positions by the picture's place in the set
        self._drawing = Dispensable("pictures of attention")

    def before_train(self, runner: Runner) -> None:
        """Draw from now on: not if a validation runs by itself."""
        self._training = True

    @torch.no_grad()
    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Draw the pictures."""
        if not self._training or not is_main_process():
            return
        dataset = runner.val_loop.dataloader.dataset
        count = min(self.pictures, len(dataset))
        with self._drawing():
            names = output_names(dataset)
            for place in (round((k + 0.5) * len(dataset) / count - 0.5) for k in range(count)):
                try:
                    self._show(runner, place, names)
                except torch.OutOfMemoryError as error:
                    raise StopsAllError("a whole picture takes more memory than the GPU has left") from error

    def _show(self, runner: Any, place: int, names: Mapping[str, str]) -> None:
        # Not above: matplotlib takes half a second to import, and few trainings draw.
        from danseg.visualization import overview_figure, segment_centres
        from danseg.visualization.page import pixels
        from danseg.visualization.shown_view import placement_of, shown_view, usual_views, view_keys

        loader, network = runner.val_loop.dataloader, runner.network
        batch = loader.collate_fn([loader.dataset[place]])
        data = network.data_preprocessor(batch, training=False)
        [sample] = data["data_samples"]
        with autocast(enabled=getattr(runner.val_loop, "fp16", False)):
            prediction, recorded = self._passed(runner, data)
            truth = sample.gt_sem_seg.data[0].cpu().numpy() if "gt_sem_seg" in sample else None
            if truth is not None and truth.shape != prediction.shape:  # resized with the picture
                truth = None
            meta = metainfo_of(loader.dataset)
            classes = meta["classes"]
            if place not in self._chosen:
                drawn = prediction if truth is None else truth
                # Every second segment may be of what is not labelled.
                found = segment_centres(drawn, 2 * self.positions)
                inside = [(x, y) for x, y in found if 0 <= drawn[y, x] < len(classes)]
                self._chosen[place] = inside[: self.positions] or found[:1]
            keys = view_keys(recorded)
            shown = [
                shown_view(path, recorded[path], view.name, self._chosen[place], placement_of(data))
                for path, view in (keys[key] for key in usual_views(keys))
            ]
        first = loading_step(next(inner_datasets(loader.dataset)).pipeline.transforms)
        name = names[sample.img_path]
        figure = overview_figure(
            load_shown(first, sample.img_path),
            truth,
            prediction,
            shown,
            classes=classes,
            palette=meta["palette"],
            name=f"{name}, iteration {runner.iter}",
        )
        runner.visualizer.add_image(f"attention/{name}", pixels(figure), runner.iter)

    def _passed(self, runner: Any, data: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        """The labels of a picture, and its recorded attention, of which there may be none."""
        from danseg.visualization import record_attention

        prediction = None
        try:
            with record_attention(runner.network) as recorded:
                prediction = _labels(runner.network, data)
            return prediction, recorded
        except StopsAllError as error:  # there is none to record, or none of it runs in inference
            if not self._said:
                self._said = True
                runner.logger.info(f"ShowAttention: {error}; its pictures show the prediction alone")
            return _labels(runner.network, data) if prediction is None else prediction, {}


def _labels(network: Any, data: Mapping[str, Any]) -> np.ndarray:
    """The labels (H, W) of a picture that passes through the network as a whole."""
    before: Any = network.test_cfg
    network.test_cfg = ConfigDict(before or {}, mode="whole")
    try:
        return image_logits(network, **data).labels().cpu().numpy().astype(np.int64)
    finally:
        network.test_cfg = before
