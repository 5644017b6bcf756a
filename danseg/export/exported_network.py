"""An exported file in the place of a network's backbone and head; all else is done as for any network."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from mmengine.model import BaseModule
from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.nn.functional import interpolate

from danseg.errors import UserError
from danseg.export.formats import FORMATS
from danseg.export.read_description import EXPORT
from danseg.export.sessions import NotTakenError, open_session
from danseg.segmentors import LazyLogits, LeanEncoderDecoder


@MODELS.register_module()
class ExportedNetwork(BaseModule):
    """Runs an exported file where other networks have their backbone.

    Its weights are the file's own, and it has no parameters: it computes, and cannot be trained.

    Args:
        file: as :func:`danseg.export.sessions.open_session` takes it.
        in_channels: of its pictures.
        device: where the runtime computes, as for ``open_session``.

    Attributes:
        session: the open file.
        dataset_meta: classes and palette that the file names.
    """

    digest: Tensor  # of the file's bytes, so that two files are told apart like two checkpoints

    def __init__(self, file: str, in_channels: int = 3, device: str | None = None) -> None:
        super().__init__()
        self.session = open_session(file, device)
        self.in_channels = in_channels
        described = self.session.description
        self.dataset_meta = dict(classes=described.classes, palette=[list(one) for one in described.colours])
        self.register_buffer("digest", torch.frombuffer(bytearray(_digest(Path(file))), dtype=torch.uint8))

    def forward(self, inputs: Tensor) -> tuple[Tensor]:
        """Run the file.

        Args:
            inputs: ``(B, C, H, W)`` from the data preprocessor.

        Returns:
            What the file gives: logits ``(B, K, h, w)``, or labels ``(B, H, W)``.

        Raises:
            NotTakenError: the file does not take inputs of this size, or pictures of these values.
        """
        taken = self.session.description.input
        array = inputs.detach().cpu().numpy()
        if taken.dtype == "uint8":
            whole = array.astype(np.uint8)
            if not np.array_equal(whole, array):
                raise NotTakenError(
                    f"{self.session.path} takes pictures of 8 bits, whole numbers from 0 to 255, and the "
                    f"pipeline makes numbers from {array.min():g} to {array.max():g}; export without "
                    "--with-preprocessing"
                )
            array = whole
        if taken.layout == "NHWC":
            array = array.transpose(0, 2, 3, 1)
        return (torch.from_numpy(self.session(array)).to(inputs.device),)


def _digest(path: Path) -> bytes:
    """Of an exported file and those beside it that hold its weights."""
    found = hashlib.sha256()
    [kind] = [kind for kind in FORMATS.values() if kind.suffix == path.suffix.lower()]
    for part in kind.files(path):
        if part.is_file():
            with part.open("rb") as file:
                while block := file.read(1 << 20):
                    found.update(block)
    return found.digest()


@MODELS.register_module()
class ExportedHead(BaseDecodeHead):
    """Hands on the logits of an :class:`ExportedNetwork`, which has done a head's work already.

    Args:
        num_classes: how many classes there are.
        out_channels: how many logits a pixel has.
        align_corners, threshold: as for mmseg's heads.
    """

    def __init__(
        self,
        num_classes: int,
        out_channels: int,
        align_corners: bool = False,
        threshold: float | None = None,
    ) -> None:
        super().__init__(
            in_channels=1,
            channels=1,
            num_classes=num_classes,
            out_channels=out_channels,
            align_corners=align_corners,
            threshold=threshold,
            dropout_ratio=0,
            init_cfg=None,
        )
        del self.conv_seg

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """The logits ``(B, K, h, w)`` of ``inputs[0]``."""
        logits = inputs[0]
        if logits.ndim != 4 or logits.shape[1] != self.out_channels:
            raise UserError(
                f"the exported file gives an output of shape {tuple(logits.shape)}, and describes logits of "
                f"{self.out_channels} channels; export it again: {EXPORT}"
            )
        return logits

    def loss(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UserError(
            "an exported network cannot be trained: its file holds no parameters that could learn; train the "
            "checkpoint that it was exported from"
        )


@MODELS.register_module()
class ExportedLabels(LeanEncoderDecoder):
    """A segmentor of an exported file that gives labels in the place of logits.

    Where the image has another size than the network's input, the labels are those of the nearest pixels.
    """

    def predict(
        self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None
    ) -> Sequence[SegDataSample]:
        """Predict the labels of a batch; arguments and result as of :class:`LeanEncoderDecoder`.

        ``seg_logits`` of the result raise a :class:`UserError` when they are read.
        """
        if data_samples is None or any(sample.metainfo.get("flip") for sample in data_samples):
            self._no_logits().resized()
        labels = self.backbone(inputs)[0]
        for sample, one in zip(data_samples or (), labels, strict=True):
            meta = sample.metainfo
            left, right, top, bottom = meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0)))
            one = one[top : one.shape[0] - bottom, left : one.shape[1] - right]
            size = tuple(meta["ori_shape"][:2])
            if one.shape != size:
                one = interpolate(one[None, None].float(), size, mode="nearest-exact")[0, 0]
            sample.pred_sem_seg = PixelData(data=one[None].long())
            sample.seg_logits = LazyLogits.of(self._no_logits())
        return data_samples or ()

    def _forward(self, inputs: Tensor, data_samples: Any = None) -> Any:
        return self._no_logits().resized()

    def encode_decode(self, inputs: Tensor, batch_img_metas: Any) -> Any:
        return self._no_logits().resized()

    def _no_logits(self) -> Any:
        return _NoLogits(self.backbone.session.path)  # in the place of CoarseLogits


class _NoLogits:
    """Stands where :class:`~danseg.segmentors.CoarseLogits` would, and says that there are none."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def resized(self) -> NoReturn:
        raise UserError(
            f"{self._path} gives labels alone, and probabilities, confidences, views of test-time "
            f"augmentation and blended tiles are made of logits; export without --labels: {EXPORT}"
        )

    @property
    def logits(self) -> NoReturn:
        self.resized()


def is_exported(model: nn.Module) -> bool:
    """Whether a segmentor runs an exported file."""
    return isinstance(getattr(model, "backbone", None), ExportedNetwork)
