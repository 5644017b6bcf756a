"""From a network's logits to the labels of images, which needs no logits at the images' resolution."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmseg.models import BaseSegmentor, EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.structures import SegDataSample
from torch import Tensor

from danseg.ops import upsampled_argmax

# What stands between the logits and the labels in mmseg; a class with its own goes its own way.
_SEGMENTOR_METHODS = (
    "inference",
    "whole_inference",
    "slide_inference",
    "encode_decode",
    "postprocess_result",
    "_forward",
)
_HEAD_METHODS = ("predict", "predict_by_feat")


@dataclass(frozen=True)
class CoarseLogits:
    """An image's logits on the grid that the network gives them on, and how mmseg resizes them.

    Attributes:
        logits: ``(C, h, w)``.
        size: height and width of the image, H and W.
        align_corners: of every resize.
        threshold: the probability above which a head of one channel says 1; None for several channels.
        through: height and width that the logits are resized to first, those of the network's input.
        padding: columns on the left and the right and rows at the top and the bottom that are then cut off.
    """

    logits: Tensor
    size: Sequence[int]
    align_corners: bool
    threshold: float | None = None
    through: Sequence[int] | None = None
    padding: Sequence[int] = (0, 0, 0, 0)

    def labels(self) -> Tensor:
        """Class ids (H, W), those of :meth:`resized` up to ties; see :func:`danseg.ops.upsampled_argmax`."""
        return upsampled_argmax(
            self.logits[None],
            self.size,
            align_corners=self.align_corners,
            through=self.through,
            padding=self.padding,
            threshold=self.threshold,
        )[0]

    def resized(self) -> Tensor:
        """What mmseg calls ``seg_logits``: (C, H, W), probabilities where there is one channel."""
        how = dict(mode="bilinear", align_corners=self.align_corners, warning=False)
        logits = self.logits[None]
        if self.through is not None:
            logits = resize(logits, size=tuple(self.through), **how)
        left, right, top, bottom = self.padding
        height, width = logits.shape[2:]
        logits = logits[:, :, top : height - bottom, left : width - right]
        logits = resize(logits, size=tuple(self.size), **how)[0]
        return logits if self.threshold is None else logits.sigmoid()


@torch.no_grad()
def predict_labels(
    model: BaseSegmentor, inputs: Tensor, data_samples: Sequence[SegDataSample]
) -> list[Tensor]:
    """The labels that ``model.predict`` gives, without full-resolution logits also where mmseg makes them.

    Args:
        model: any segmentor in eval mode. An ``EncoderDecoder`` of mmseg's is treated like a
            ``LeanEncoderDecoder``; a class with a ``predict`` of its own is asked for its own labels.
        inputs: ``(B, 3, H, W)`` from the model's data preprocessor.
        data_samples: B samples with the meta information that pipeline and preprocessor noted.

    Returns:
        B tensors of class ids, (height, width) of their image.
    """
    if type(model).predict is EncoderDecoder.predict:
        coarse = coarse_logits(model, inputs, data_samples)
        if coarse is not None:
            return [one.labels() for one in coarse]
    return [result.pred_sem_seg.data[0] for result in model.predict(inputs, data_samples)]


def coarse_logits(
    model: BaseSegmentor, inputs: Tensor, data_samples: Sequence[SegDataSample]
) -> list[CoarseLogits] | None:
    """The logits of each image before mmseg resizes them; overlapping windows are already averaged.

    Args:
        model, inputs, data_samples: as for :func:`predict_labels`.

    Returns:
        One entry an image; None where this cannot be told: the model or its head does not go from
        logits to labels as mmseg's ``EncoderDecoder`` and ``BaseDecodeHead`` do, or an image was flipped.
    """
    metas = [sample.metainfo for sample in data_samples]
    if not _goes_as_mmseg(model) or any(meta.get("flip") for meta in metas):
        return None
    if model.test_cfg.get("mode") == "slide":
        logits, through = _mean_of_windows(model, inputs), None
    else:
        logits, through = head_logits(model, inputs), _resized_to(metas[0])
    return [
        CoarseLogits(
            one,
            meta["ori_shape"][:2],
            model.align_corners,
            threshold=model.decode_head.threshold if len(one) == 1 else None,
            through=through,
            padding=meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0))),
        )
        for one, meta in zip(logits, metas, strict=True)
    ]


def head_logits(model: BaseSegmentor, inputs: Tensor) -> Tensor:
    """Logits (B, C, h, w) as the head gives them; of several classifiers, the first one's, as in mmseg."""
    logits = model(inputs, mode="tensor")
    return logits[0] if isinstance(logits, (list, tuple)) else logits


def _goes_as_mmseg(model: BaseSegmentor) -> bool:
    return _inherits(model, EncoderDecoder, _SEGMENTOR_METHODS) and _inherits(
        model.decode_head, BaseDecodeHead, _HEAD_METHODS
    )


def _inherits(one: object, base: type, methods: Sequence[str]) -> bool:
    return all(getattr(type(one), name, None) is getattr(base, name) for name in methods)


def _resized_to(meta: dict) -> Sequence[int]:
    """Height and width that mmseg's heads resize the logits of a batch to, from its first image's."""
    is_window = isinstance(meta["img_shape"], torch.Size)
    return meta["img_shape" if is_window or "pad_shape" not in meta else "pad_shape"][:2]


def _mean_of_windows(model: EncoderDecoder, inputs: Tensor) -> Tensor:
    """Mean logits (B, C, H, W) of overlapping windows, as ``slide_inference`` in a third of its memory."""
    crop, stride = model.test_cfg.crop_size, model.test_cfg.stride
    batch, _, *size = inputs.shape
    logits = inputs.new_zeros(batch, model.out_channels, *size)
    counts = inputs.new_zeros(size)
    for rows in _windows(size[0], crop[0], stride[0]):
        for columns in _windows(size[1], crop[1], stride[1]):
            window = inputs[:, :, rows, columns]
            # A torch.Size tells the head that this is a window.
            logits[:, :, rows, columns] += model.encode_decode(
                window, [{"img_shape": window.shape[2:]}] * batch
            )
            counts[rows, columns] += 1
    return logits.div_(counts)


def _windows(length: int, crop: int, stride: int) -> list[slice]:
    """Where windows lie on one axis: a stride apart, the last one moved back to the end."""
    number = max(length - crop + stride - 1, 0) // stride + 1
    ends = [min(i * stride + crop, length) for i in range(number)]
    return [slice(max(end - crop, 0), end) for end in ends]
