"""Compare an exported file, run by its own runtime, with the network in PyTorch, on pictures of any size."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import cv2
import numpy as np
import torch
from mmengine.config import ConfigDict
from mmseg.models import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor

from danseg.errors import UserError, first_line_of
from danseg.export.description import Description
from danseg.export.normalisation import Normalisation
from danseg.export.sessions import Session
from danseg.segmentors.labels import CoarseLogits, head_logits, predict_labels

#: The smallest height and width on which a file for any size is tried, if the network takes it.
SMALLEST = 32


@dataclass(frozen=True)
class Bound:
    """How far a file may be from the network: of the largest logit, and the share of equal labels."""

    difference: float
    agreement: float


#: By precision.
BOUNDS = {
    "float32": Bound(1e-4, 0.9999),
    "float16": Bound(1e-2, 0.99),
    "int8": Bound(math.inf, 0.9),
}


@dataclass(frozen=True)
class Row:
    """What was found on one batch of pictures.

    Attributes:
        batch, height, width: of the pictures.
        difference: the largest difference of a logit over the largest logit; None for a file of labels.
        differing: pixels whose labels differ.
    """

    batch: int
    height: int
    width: int
    difference: float | None
    differing: int

    @property
    def agreement(self) -> float:
        """The share of pixels with equal labels."""
        return 1 - self.differing / (self.batch * self.height * self.width)


@dataclass(frozen=True)
class Verification:
    """What was found on all of them."""

    rows: tuple[Row, ...]
    bound: Bound

    @property
    def fault(self) -> str | None:
        """Why the file fails; None if it does not.

        Labels are counted over all pictures, and one pixel may always differ: classes tie.
        """
        for row in self.rows:
            if row.difference is not None and not row.difference <= self.bound.difference:  # NaN is not
                return (
                    f"on pictures of {row.height} x {row.width} its logits differ by {row.difference:.2g} of "
                    f"the largest one, and {self.bound.difference:g} is allowed"
                )
        pixels = sum(row.batch * row.height * row.width for row in self.rows)
        differing = sum(row.differing for row in self.rows)
        if differing > max(1, pixels * (1 - self.bound.agreement)):
            return (
                f"{100 * (1 - differing / pixels):.2f} % of its labels are those of the network, and "
                f"{100 * self.bound.agreement:g} % is asked for"
            )
        return None


class Reference:
    """The network in PyTorch, from pictures to logits and labels, by mmseg's own steps.

    Args:
        model: prepared for inference in float32.
        normalisation: of the model; its ``step`` is the pipeline's.
        photos: pictures (H, W, C) uint8 to take; drawn ones by default.
    """

    def __init__(
        self, model: BaseSegmentor, normalisation: Normalisation, photos: Sequence[np.ndarray] = ()
    ) -> None:
        self.model, self.normalisation, self.photos = model, normalisation, photos
        # Labels of whole pictures, whatever the test mode, and without padding, which is the caller's.
        self._whole = copy.copy(model)
        self._whole.test_cfg = ConfigDict(model.test_cfg or {}, mode="whole")
        self._preprocessor = copy.copy(model.data_preprocessor)
        self._preprocessor.test_cfg = None

    def pictures(self, batch: int, height: int, width: int) -> np.ndarray:
        """Pictures (B, H, W, C) uint8, always the same: photos, or patches of colour with some noise."""
        if self.photos:
            return np.stack([fitted(one, height, width) for one in islice(cycle(self.photos), batch)])
        rng = np.random.default_rng([batch, height, width])
        bands = self.normalisation.bands
        made = []
        for _ in range(batch):
            patches = rng.integers(0, 256, (max(2, height // 16), max(2, width // 16), bands))
            smooth = cv2.resize(patches.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
            noisy = smooth.reshape(height, width, bands) + rng.normal(0, 8, (height, width, bands))
            made.append(noisy.clip(0, 255).astype(np.uint8))
        return np.stack(made)

    def inputs(self, pictures: np.ndarray) -> Tensor:
        """What the network takes, (B, C, H, W): as the pipeline and the data preprocessor make it."""
        loaded = pictures[..., ::-1] if self.normalisation.channels else pictures  # loaded as BGR
        step = self.normalisation.step
        images = [np.ascontiguousarray(one) for one in loaded]
        if step is not None:
            images = [step(dict(img=one))["img"] for one in images]
        tensors = [torch.from_numpy(one).permute(2, 0, 1) for one in images]
        data = dict(inputs=tensors, data_samples=_samples(pictures))
        return self._preprocessor(data, training=False)["inputs"]

    def on(self, pictures: np.ndarray) -> tuple[Tensor, Tensor]:
        """As a call.

        Raises:
            UserError: the network does not take pictures of this size.
        """
        try:
            return self(pictures)
        except (ValueError, RuntimeError) as error:
            _, height, width, _ = pictures.shape
            raise UserError(
                f"the network takes no pictures of {height} x {width} (height x width): "
                f"{first_line_of(error)}; name a size that it takes by --size HEIGHT WIDTH, without --dynamic"
            ) from error

    @torch.no_grad()
    def __call__(self, pictures: np.ndarray) -> tuple[Tensor, Tensor]:
        """The logits (B, K, h, w) and the labels (B, H, W) of pictures."""
        inputs = self.inputs(pictures)
        labels = predict_labels(self._whole, inputs, _samples(pictures))
        return head_logits(self.model, inputs).float(), torch.stack([one.long() for one in labels])

    def smallest(self, least: int, most: int) -> int | None:
        """The smallest square that the network takes, of side ``least``, twice that and so on; None: none."""
        side = least
        while side <= most:
            try:
                self(self.pictures(1, side, side))
            except (ValueError, RuntimeError):
                side *= 2
            else:
                return side
        return None


def fitted(photo: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle (height, width, C) of a photo, which is enlarged if it is smaller."""
    scale = max(height / photo.shape[0], width / photo.shape[1], 1)
    if scale > 1:
        size = (max(width, round(photo.shape[1] * scale)), max(height, round(photo.shape[0] * scale)))
        photo = cv2.resize(photo, size, interpolation=cv2.INTER_LINEAR)
    top, left = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 2
    return photo[top : top + height, left : left + width]


def _samples(pictures: np.ndarray) -> list[SegDataSample]:
    size = pictures.shape[1:3]
    meta = dict(ori_shape=size, img_shape=size, pad_shape=size, padding_size=[0, 0, 0, 0])
    return [SegDataSample(metainfo=dict(meta)) for _ in pictures]


def sizes(size: tuple[int, int], smallest: int | None) -> Iterator[tuple[int, int, int]]:
    """Batches and sizes on which a file is tried.

    Args:
        size: height and width that it is exported for.
        smallest: side of the smallest picture that it takes, if it takes any size; else None.
    """
    yield (1, *size)
    if smallest is None:
        yield (3, *size)
        return
    height, width = size
    yield 3, max(smallest, height // 2 + 3), max(smallest, width // 2 + 5)
    yield 2, max(smallest, width // 3 + 2), max(smallest, height // 3 + 1)
    yield 1, smallest, smallest


def verify(session: Session, reference: Reference, runs: Sequence[tuple[int, int, int]]) -> Verification:
    """Run a file and the network on the same pictures.

    Args:
        session: the file, open.
        reference: the network.
        runs: from :func:`sizes`.
    """
    rows = tuple(_compared(session, reference, reference.pictures(*run)) for run in runs)
    return Verification(rows, BOUNDS[session.description.precision])


def _compared(session: Session, reference: Reference, pictures: np.ndarray) -> Row:
    description = session.description
    logits, labels = reference.on(pictures)
    found = torch.from_numpy(session(given(pictures, description)))
    difference = None
    if description.output.name == "logits":
        if found.shape != logits.shape:
            difference, found = math.inf, torch.full_like(labels, -1)
        else:
            difference = float((found - logits).abs().max() / logits.abs().max())
            found = _labels(found, pictures, description)
    differing = int((found.long() != labels).sum()) if found.shape == labels.shape else labels.numel()
    batch, height, width, _ = pictures.shape
    return Row(batch, height, width, difference, differing)


def given(pictures: np.ndarray, description: Description) -> np.ndarray:
    """What a caller who reads nothing but the description gives the file."""
    taken = description.input
    if taken.dtype == "uint8":
        return pictures
    values: np.ndarray = pictures.astype(np.float32)
    if taken.channels == "BGR":
        values = values[..., ::-1]
    if taken.mean is not None and taken.std is not None:
        values = (values - np.array(taken.mean, np.float32)) / np.array(taken.std, np.float32)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def _labels(logits: Tensor, pictures: np.ndarray, description: Description) -> Tensor:
    size, output = pictures.shape[1:3], description.output
    images = [
        CoarseLogits(one, size, output.align_corners, output.threshold, size).labels() for one in logits
    ]
    return torch.stack(images)
