"""From a network's logits to the labels of images, which needs no logits at the images' resolution."""

from collections.abc import Sequence

import torch
from mmengine.structures import PixelData
from mmseg.models import BaseSegmentor, EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.structures import SegDataSample
from torch import Tensor

from danseg.ops import upsampled_argmax

# What stands between the logits and the labels in mmseg; a class with its own goes its own way.
_SEGMENTOR_METHODS = (
    "predict",
    "inference",
    "whole_inference",
    "slide_inference",
    "encode_decode",
    "postprocess_result",
    "_forward",
)
_HEAD_METHODS = ("predict", "predict_by_feat")


@torch.no_grad()
def predict_labels(
    model: BaseSegmentor, inputs: Tensor, data_samples: Sequence[SegDataSample]
) -> list[Tensor]:
    """The labels that ``model.predict`` gives, in less time and memory.

    mmseg resizes the logits to the network's input and then to the image, and takes the best class.
    Here both resizes and the search go tile by tile; see :func:`danseg.ops.upsampled_argmax` for
    what rounding leaves to chance. Sliding windows are added up at the input's resolution, once.

    Args:
        model: a segmentor in eval mode. One that does not go from logits to labels as mmseg's
            ``EncoderDecoder`` and ``BaseDecodeHead`` do, is asked for its own labels.
        inputs: ``(B, 3, H, W)`` from the model's data preprocessor.
        data_samples: B samples with the meta information that pipeline and preprocessor noted.

    Returns:
        B tensors of class ids, (height, width) of their image.
    """
    metas = [sample.metainfo for sample in data_samples]
    if not _goes_as_mmseg(model) or any(meta.get("flip") for meta in metas):
        return [result.pred_sem_seg.data[0] for result in type(model).predict(model, inputs, data_samples)]
    if model.test_cfg.get("mode") == "slide":
        logits, through = _slide(model, inputs), None
    else:
        logits, through = model._forward(inputs), _resized_to(metas[0])
    threshold = model.decode_head.threshold if logits.shape[1] == 1 else None
    return [
        upsampled_argmax(
            one[None],
            meta["ori_shape"][:2],
            align_corners=model.align_corners,
            through=through,
            padding=meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0))),
            threshold=threshold,
        )[0]
        for one, meta in zip(logits, metas, strict=True)
    ]


def predict_labels_alone(model: BaseSegmentor) -> None:
    """Let ``model.predict``, and so ``test_step``, give ``pred_sem_seg`` without ``seg_logits``."""

    def predict(inputs: Tensor, data_samples: Sequence[SegDataSample]) -> Sequence[SegDataSample]:
        for sample, labels in zip(data_samples, predict_labels(model, inputs, data_samples), strict=True):
            sample.pred_sem_seg = PixelData(data=labels[None].long())
        return data_samples

    model.predict = predict


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


def _slide(model: EncoderDecoder, inputs: Tensor) -> Tensor:
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
