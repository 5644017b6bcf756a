"""Test-time augmentation: average what a network predicts for several views of an image."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseTTAModel
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor


@MODELS.register_module()
class LeanTTAModel(BaseTTAModel):
    """Averages probabilities over views of an image: scales and flips, as the config's ``tta_pipeline``.

    Replaces mmseg's ``SegTTAModel`` and gives its labels, except for heads with one output channel. Their
    ``seg_logits`` are probabilities already, of which mmseg takes the sigmoid once more: all of them then lie
    above 0.5. Here they are averaged as they are, and the head's threshold applies to the average. Heads with
    more channels are averaged as softmax, also those that learn with one sigmoid per class.

    A single view gives the labels that the network gives without augmentation. The logits of one view at a
    time have the image's resolution, where the segmentor makes them on the first read
    (:class:`~danseg.segmentors.LazyLogits`).

    Args:
        module: the network, or its config.
        data_preprocessor: replaces that of the network; None keeps it.
    """

    def merge_preds(self, data_samples_list: Sequence[Sequence[SegDataSample]]) -> list[SegDataSample]:
        """Merge the views of every image of a batch.

        Args:
            data_samples_list: for every image its views, each with ``seg_logits`` (C, H, W) turned back and
                resized to the image.

        Returns:
            One sample per image: that of its first view that is not flipped, with ``pred_sem_seg`` (1, H, W)
            of the average. Its ``seg_logits`` are the average itself for one channel, else its logarithm, so
            that their sigmoid is not needed and their softmax is the average, as without augmentation.
        """
        return [self._merged(views) for views in data_samples_list]

    def _merged(self, views: Sequence[SegDataSample]) -> SegDataSample:
        if len(views) == 1:
            return views[0]
        average = _probabilities(views[0])
        for view in views[1:]:
            average += _probabilities(view)
        average /= len(views)
        if len(average) == 1:
            labels, logits = average > self.module.decode_head.threshold, average
        else:
            labels, logits = average.argmax(dim=0, keepdim=True), average.log()
        # A pipeline that loads the label before it flips has flipped the label, too.
        merged = next((view for view in views if not view.metainfo.get("flip")), views[0])
        merged.pred_sem_seg = PixelData(data=labels.to(merged.pred_sem_seg.data.dtype))
        merged.seg_logits = PixelData(data=logits)
        return merged


def _probabilities(view: SegDataSample) -> Tensor:
    """A new tensor (C, H, W) of at least float32; the view no longer keeps its logits."""
    logits = view.seg_logits.data
    del view.seg_logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.softmax(dim=0) if len(logits) > 1 else logits.clone()
