"""Turn a network's logits into the labels of images, without making logits at the images' resolution."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmseg.models import BaseSegmentor, EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.structures import SegDataSample
from torch import Tensor

from danseg.ops import upsampled_argmax
from danseg.ops.inputs import energy_dtype
from danseg.ops.upsampled_argmax import taps

# mmseg's methods that turn logits into labels. A class that overrides one of them keeps its own way.
_SEGMENTOR_METHODS = (
    "inference",
    "whole_inference",
    "slide_inference",
    "encode_decode",
    "postprocess_result",
    "_forward",
)
_HEAD_METHODS = ("predict", "predict_by_feat")
#: What is wrong with a network that gives no numbers.
NOT_FINITE = (
    "the network's logits are not finite (nan or inf), so that its labels mean nothing; compute in float32, "
    "or take another checkpoint"
)
# The methods ``predict`` of segmentors whose labels are those of coarse logits, where there are any.
COARSE_PREDICTS = {EncoderDecoder.predict}


@dataclass(frozen=True)
class CoarseLogits:
    """An image's logits at the network's output resolution, and how mmseg would resize them.

    Attributes:
        logits: ``(C, h, w)``.
        size: height and width of the image, H and W.
        align_corners: the argument of every resize.
        threshold: for a head with one channel, the probability above which the label is 1; else None.
        through: height and width of the network's input, to which the logits are resized first; None to
            resize them to the image directly.
        padding: what is cut off next: columns on the left and on the right, rows at the top and the bottom.
    """

    logits: Tensor
    size: Sequence[int]
    align_corners: bool
    threshold: float | None = None
    through: Sequence[int] | None = None
    padding: Sequence[int] = (0, 0, 0, 0)

    def labels(self) -> Tensor:
        """Class ids (H, W), equal to those of :meth:`resized` except at ties.

        See :func:`danseg.ops.upsampled_argmax`.
        """
        return self._labels_of(self.logits[None])[0]

    def _labels_of(self, logits: Tensor) -> Tensor:
        return upsampled_argmax(
            logits,
            self.size,
            align_corners=self.align_corners,
            through=self.through,
            padding=self.padding,
            threshold=self.threshold,
        )

    def at(self, x: int, y: int) -> Tensor:
        """One pixel (C,) of :meth:`resized` before any sigmoid, in at least float32."""
        shape = self.logits.shape[1:]
        through = shape if self.through is None else self.through
        left, right, top, bottom = self.padding
        picked = self.logits.to(energy_dtype(self.logits.dtype))
        for axis, place, edges in ((1, y, (top, bottom)), (2, x, (left, right))):
            cells, weights = taps(
                torch.tensor([place]),
                shape[axis - 1],
                through[axis - 1],
                edges,
                self.size[axis - 1],
                self.align_corners,
            )
            cells, weights = cells[0].to(picked.device), weights[0].to(picked)
            view = [-1 if one == axis else 1 for one in range(3)]
            picked = (picked.index_select(axis, cells) * weights.view(view)).sum(axis, keepdim=True)
        return picked.flatten()

    def resized(self) -> Tensor:
        """mmseg's ``seg_logits`` (C, H, W); probabilities if there is only one channel."""
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
    """The labels that ``model.predict`` gives, if possible without full-resolution logits.

    Args:
        model: any segmentor in eval mode. mmseg's ``EncoderDecoder`` is treated like a
            ``LeanEncoderDecoder``. Another class that overrides ``predict`` gives its labels.
        inputs: ``(B, 3, H, W)`` from the model's data preprocessor.
        data_samples: B samples with the meta information from pipeline and preprocessor.

    Returns:
        B tensors of class ids, each (height, width) of its image. Taken from coarse logits, up to 256 classes
        are uint8: an eighth of the bytes of ``pred_sem_seg`` to copy from a GPU.

    Raises:
        ValueError: the model is in training mode.
    """
    require_eval_mode(model)
    if type(model).predict in COARSE_PREDICTS:
        coarse = coarse_logits(model, inputs, data_samples)
        if coarse is not None:
            return _labels(coarse)
    # With a single channel mmseg's labels are floating-point numbers.
    return [result.pred_sem_seg.data[0].long() for result in model.predict(inputs, data_samples)]


def _labels(coarse: Sequence[CoarseLogits]) -> list[Tensor]:
    """The labels of several images, to the bit those of each; coarse logits of equal images in one call."""
    first = coarse[0]
    equal = all(tuple(one.size) == tuple(first.size) and one.padding == first.padding for one in coarse)
    if first.through is None or not equal:  # those of windows are large, and a batch of them would be a copy
        return [one.labels() for one in coarse]
    return list(first._labels_of(torch.stack([one.logits for one in coarse])))


@torch.no_grad()
def predict_probabilities(
    model: BaseSegmentor, inputs: Tensor, data_samples: Sequence[SegDataSample]
) -> list[tuple[Tensor, Tensor]]:
    """The labels of :func:`predict_labels` with the probabilities of all classes, image by image.

    Args:
        model, inputs, data_samples: as for :func:`predict_labels`.

    Returns:
        For each image its labels and the float32 softmax of its ``seg_logits``, (C, height, width). A head
        with one channel, the probability of label 1, has C = 2. Of one image, logits and probabilities of
        that size are alive together, two or, by windows, three times 4 C · height · width bytes.

    Raises:
        ValueError: the model is in training mode.
    """
    require_eval_mode(model)
    coarse = coarse_logits(model, inputs, data_samples) if type(model).predict in COARSE_PREDICTS else None
    if coarse is not None:
        return [(one.labels(), as_probabilities(one.resized())) for one in coarse]
    return [
        (result.pred_sem_seg.data[0].long(), as_probabilities(result.seg_logits.data))
        for result in model.predict(inputs, data_samples)
    ]


def as_probabilities(seg_logits: Tensor) -> Tensor:
    """Of mmseg's ``seg_logits`` (C, H, W), which are a probability already if there is one channel."""
    seg_logits = seg_logits.float()
    return torch.cat([1 - seg_logits, seg_logits]) if len(seg_logits) == 1 else seg_logits.softmax(dim=0)


def require_eval_mode(model: BaseSegmentor) -> None:
    """Refuse a model in training mode: its labels would change from call to call, and so would the model.

    Raises:
        ValueError: the model is in training mode.
    """
    if model.training:
        raise ValueError(
            f"{type(model).__name__} is in training mode, in which dropout draws and batch norm takes and "
            "keeps the statistics of this image; call model.eval() first"
        )


def coarse_logits(
    model: BaseSegmentor, inputs: Tensor, data_samples: Sequence[SegDataSample]
) -> list[CoarseLogits] | None:
    """The logits of each image before mmseg resizes them, averaged over overlapping windows.

    Args:
        model, inputs, data_samples: as for :func:`predict_labels`.

    Returns:
        One entry per image. None if an image was flipped, or if the model or its head overrides how mmseg's
        ``EncoderDecoder`` and ``BaseDecodeHead`` turn logits into labels.
    """
    metas = [sample.metainfo for sample in data_samples]
    if not _goes_as_mmseg(model) or any(meta.get("flip") for meta in metas):
        return None
    if model.test_cfg.get("mode") == "slide":
        logits, through = _mean_of_windows(model, inputs), None
    else:
        logits, through = head_logits(model, inputs), _resized_to(metas[0])
    return [_coarse(model, one, meta, through) for one, meta in zip(logits, metas, strict=True)]


def image_logits(model: BaseSegmentor, inputs: Tensor, data_samples: Sequence[SegDataSample]) -> CoarseLogits:
    """The logits of one image before mmseg resizes them, whose labels are those of ``model.predict``.

    They can be differentiated.

    Args:
        model, inputs, data_samples: as for :func:`predict_labels`, of one image.

    Returns:
        Logits of the image's size where a class turns logits into labels in its own way: C · height · width.
    """
    coarse = coarse_logits(model, inputs, data_samples) if type(model).predict in COARSE_PREDICTS else None
    if coarse is not None:
        return coarse[0]
    [result] = model.predict(inputs, [sample.clone() for sample in data_samples])  # it writes into them
    logits = result.seg_logits.data
    if len(logits) == 1:  # mmseg's are probabilities
        logits = logits.logit(torch.finfo(logits.dtype).eps)
    size = logits.shape[1:]
    return CoarseLogits(logits, size, model.align_corners, _threshold(model, logits), through=size)


def _coarse(model: BaseSegmentor, logits: Tensor, meta: dict, through: Sequence[int] | None) -> CoarseLogits:
    return CoarseLogits(
        logits,
        meta["ori_shape"][:2],
        model.align_corners,
        threshold=_threshold(model, logits),
        through=through,
        padding=meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0))),
    )


def _threshold(model: BaseSegmentor, logits: Tensor) -> float | None:
    if len(logits) > 1:
        return None
    heads = model.decode_head
    last: Any = heads[-1] if isinstance(heads, torch.nn.ModuleList) else heads
    return last.threshold


def head_logits(model: BaseSegmentor, inputs: Tensor) -> Tensor:
    """The head's logits (B, C, h, w); with several classifiers, those of the first one, as in mmseg."""
    logits = model(inputs, mode="tensor")
    return logits[0] if isinstance(logits, (list, tuple)) else logits


def _goes_as_mmseg(model: BaseSegmentor) -> bool:
    return inherits(model, EncoderDecoder, _SEGMENTOR_METHODS) and inherits(
        model.decode_head, BaseDecodeHead, _HEAD_METHODS
    )


def inherits(one: object, base: type, methods: Sequence[str]) -> bool:
    """Whether the class of ``one`` leaves all these methods as they are in ``base``."""
    return all(getattr(type(one), name, None) is getattr(base, name) for name in methods)


def _resized_to(meta: dict) -> Sequence[int]:
    """Height and width to which mmseg's heads resize the logits of a batch; ``meta`` is its first image's."""
    is_window = isinstance(meta["img_shape"], torch.Size)
    return meta["img_shape" if is_window or "pad_shape" not in meta else "pad_shape"][:2]


def _mean_of_windows(model: EncoderDecoder, inputs: Tensor) -> Tensor:
    """Mean logits (B, C, H, W) of overlapping windows: ``slide_inference`` in a third of the memory."""
    crop, stride = model.test_cfg.crop_size, model.test_cfg.stride
    batch, _, *size = inputs.shape
    logits = inputs.new_zeros(batch, model.out_channels, *size)
    counts = inputs.new_zeros(size)
    for rows in _windows(size[0], crop[0], stride[0]):
        for columns in _windows(size[1], crop[1], stride[1]):
            window = inputs[:, :, rows, columns]
            # Passing a torch.Size tells the head that this is a window.
            logits[:, :, rows, columns] += model.encode_decode(
                window, [{"img_shape": window.shape[2:]}] * batch
            )
            counts[rows, columns] += 1
    return logits.div_(counts)


def _windows(length: int, crop: int, stride: int) -> list[slice]:
    """Positions of the windows along one axis: one stride apart; the last one ends where the axis ends."""
    number = max(length - crop + stride - 1, 0) // stride + 1
    ends = [min(i * stride + crop, length) for i in range(number)]
    return [slice(max(end - crop, 0), end) for end in ends]
