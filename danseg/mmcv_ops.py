"""A stand-in for ``mmcv.ops``, without which the original line of mmseg cannot be imported.

mmsegmentation 1.2.2 always imports two functions of ``mmcv.ops``. mmcv provides wheels with the compiled
operators of that package only for old versions of PyTorch; without them even ``import mmseg.utils`` fails.
:func:`install` then puts this module in the place of ``mmcv.ops``. It holds the two functions, in plain
PyTorch. Every other name raises ``ModuleNotFoundError``, as without the stand-in. mmseg expects this error
from operators that it can do without.

The maintained line guards these imports itself and does not need this module, but for the focal loss on GPUs
(:mod:`danseg.heads.pixel_losses`).
"""

import sys
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor


def install() -> None:
    """Put this module in the place of ``mmcv.ops`` if mmseg needs it to be imported; else do nothing."""
    try:
        import mmseg.utils  # noqa: F401  (the part of mmseg that everything else in it imports)
    except ModuleNotFoundError as error:
        if error.name not in ("mmcv._ext", "mmcv.ops"):
            raise
        import mmcv

        mmcv.ops = sys.modules["mmcv.ops"] = sys.modules[__name__]


def point_sample(input: Tensor, points: Tensor, align_corners: bool = False, **kwargs) -> Tensor:
    """Values of a feature map at points between its pixels.

    Args:
        input: (B, C, H, W).
        points: (B, P, 2) or (B, H', W', 2), x before y, each from 0 at one border to 1 at the other.
        align_corners: whether 0 and 1 are the centres of the outermost pixels instead of their outer edges.
        **kwargs: ``mode`` and ``padding_mode`` of :func:`torch.nn.functional.grid_sample`.

    Returns:
        (B, C, P) or (B, C, H', W').
    """
    grid = 2 * points - 1
    if points.dim() == 4:
        return F.grid_sample(input, grid, align_corners=align_corners, **kwargs)
    # (B, P, 2) -> (B, 1, P, 2); (B, C, 1, P) -> (B, C, P)
    return F.grid_sample(input, grid[:, None], align_corners=align_corners, **kwargs)[:, :, 0]


def sigmoid_focal_loss(
    input: Tensor, target: Tensor, gamma: float, alpha: float, weight: None, reduction: str
) -> Tensor:
    """Focal loss of each class separately, not reduced, as mmseg's ``FocalLoss`` calls it on a GPU::

        p = sigmoid(input)
        out = -alpha (1 - p)^gamma log p             where the class is the target
        out = -(1 - alpha) p^gamma log(1 - p)        elsewhere

    Paper: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv 1708.02002.

    Args:
        input: logits (N, C).
        target: classes (N,); values outside 0..C-1 belong to no class.
        gamma: exponent that reduces the weight of well classified examples.
        alpha: weight of the target class.
        weight: None.
        reduction: "none".

    Returns:
        (N, C).
    """
    if weight is not None or reduction != "none":
        raise NotImplementedError(
            f"danseg's stand-in for mmcv's sigmoid_focal_loss got weight={weight}, reduction={reduction!r}; "
            "it does what mmseg asks for, weight=None and reduction='none'. Install mmcv with its operators"
        )
    is_target = target[:, None] == torch.arange(input.shape[1], device=target.device)
    positive = alpha * (-input).sigmoid() ** gamma * F.logsigmoid(input)
    negative = (1 - alpha) * input.sigmoid() ** gamma * F.logsigmoid(-input)
    return -torch.where(is_target, positive, negative)


def __getattr__(name: str) -> NoReturn:
    if name.startswith("__"):  # Python looks such names up in any module
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise ModuleNotFoundError(
        f"mmcv.ops.{name} is missing: mmcv is installed without its compiled operators, and danseg replaces "
        "only point_sample and sigmoid_focal_loss. For criss-cross and point-wise spatial attention "
        "use danseg's CCNetHead and PSANetHead, which need no compiled operator",
        name="mmcv._ext",
    )
