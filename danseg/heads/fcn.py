"""FCN: convolutions and a classifier, without attention.

Long et al., "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015, arXiv 1411.4038.
"""

from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS

from danseg.heads.loss import UpsampledLoss


@MODELS.register_module()
class FullyConvolutionalHead(UpsampledLoss, FCNHead):
    """mmseg's ``FCNHead``, whose losses need no full-resolution logits.

    It is the baseline to compare attention with, and the auxiliary head of the networks with attention.
    Arguments, parameter names, outputs and losses are those of ``FCNHead``, except that ignored pixels count
    in no loss (:func:`danseg.heads.loss.head_losses`).

    Args:
        **kwargs: ``num_convs``, ``kernel_size``, ``concat_input``, ``dilation``, and all other arguments
            of mmseg's ``FCNHead`` and ``BaseDecodeHead``.
    """
