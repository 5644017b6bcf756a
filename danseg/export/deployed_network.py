"""A network as a file holds it: one input, one output, and on request the steps before and after it."""

from typing import Any

from mmseg.models import BaseSegmentor
from torch import Tensor, nn

from danseg.export.description import Output
from danseg.export.normalisation import Normalisation
from danseg.ops import upsampled_argmax
from danseg.segmentors.labels import head_logits

#: Labels of more classes than this are int64; 255 stays free for "no class".
_UINT8_CLASSES = 255


class DeployedNetwork(nn.Module):
    """From a batch to the head's logits, or from pictures to labels.

    Args:
        model: prepared for inference. Of several classifiers, the first counts, as in mmseg; of a cascade's
            heads, the last.
        normalisation: None if the caller normalises; then the input is (B, C, H, W) float32. Else it is
            (B, H, W, C) uint8, of three channels in the order red, green, blue.
        labels: give (B, H, W) labels at the input's size instead of logits (B, K, h, w) in float32.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self, model: BaseSegmentor, normalisation: Normalisation | None = None, labels: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.flips = normalisation is not None and normalisation.channels == "BGR"
        self.normalises = normalisation is not None
        for name in ("mean", "std"):
            values = None if normalisation is None else getattr(normalisation, name)
            numbers = None if values is None else next(model.parameters()).new_tensor(values).float()
            self.register_buffer(name, None if numbers is None else numbers.view(1, -1, 1, 1))
        self.labels = labels
        self.eval()

    @property
    def output(self) -> Output:
        """What it gives."""
        heads: Any = self.model.decode_head
        head: Any = heads[-1] if isinstance(heads, nn.ModuleList) else heads
        threshold = float(head.threshold) if head.out_channels == 1 else None
        name, dtype = "logits", "float32"
        if self.labels:
            name, dtype = "labels", "uint8" if self.model.num_classes <= _UINT8_CLASSES else "int64"
        return Output(name, dtype, bool(self.model.align_corners), threshold)

    def forward(self, image: Tensor) -> Tensor:
        if self.normalises:
            image = image.permute(0, 3, 1, 2)  # (B, H, W, C) to (B, C, H, W)
            image = (image.flip(1) if self.flips else image).float()
            if self.mean is not None and self.std is not None:
                image = (image - self.mean) / self.std
        logits = head_logits(self.model, image).float()
        return self._labels_of(logits, image) if self.labels else logits

    def _labels_of(self, logits: Tensor, image: Tensor) -> Tensor:
        output = self.output
        labels = upsampled_argmax(
            logits, image.shape[2:], align_corners=output.align_corners, threshold=output.threshold
        )
        return labels.byte() if output.dtype == "uint8" else labels.long()
