"""Attention maps of a model that is running: record, ask, lay over the image.

A module shows its attention here when it has ``attention_map(x, positions)`` as
:class:`danseg.attention.PositionAttention` has it: one (H, W) map a position, each summing
to 1. :func:`record_attention` keeps what such modules were given while the model ran, and
the maps asked for afterwards cost one row each, never the N x N whole.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Placement:
    """How an image lies in a network's input: resized to ``content``, then padded.

    Attributes:
        image_size: (height, width) of the image as it is on disk.
        input_size: (height, width) of the network's input, padding included.
        content_size: (height, width) of the resized image inside that input.
        offset: (rows, columns) of padding above and left of it.
    """

    image_size: tuple[int, int]
    input_size: tuple[int, int]
    content_size: tuple[int, int]
    offset: tuple[int, int] = (0, 0)

    def cell(self, position: tuple[int, int], map_size: tuple[int, int]) -> tuple[int, int]:
        """The (row, column) of the feature map whose cell holds the centre of a pixel.

        Args:
            position: (x, y) in pixels of the image, counted from its upper left corner.
            map_size: (height, width) of the feature map; its cells tile the network's input.

        Raises:
            ValueError: the position lies outside the image.
        """
        x, y = position
        height, width = self.image_size
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(
                f"position x={x}, y={y} lies outside the image: x goes from 0 to {width - 1}, "
                f"y from 0 to {height - 1}"
            )
        row, column = (
            int((offset + (pixel + 0.5) * content / image) * cells / padded)
            for pixel, image, content, offset, padded, cells in zip(
                (y, x),
                self.image_size,
                self.content_size,
                self.offset,
                self.input_size,
                map_size,
                strict=True,
            )
        )
        return row, column

    def over_image(self, maps: np.ndarray) -> np.ndarray:
        """Enlarge (P, h, w) maps of the network's input to (P, height, width) of the image.

        Bilinear between the centres of cells; what lies in the padding is cut off.
        """
        if self.content_size != self.input_size:
            top, left = self.offset
            height, width = self.content_size
            maps = _resize(maps, self.input_size)[:, top : top + height, left : left + width]
        return _resize(maps, self.image_size)


@dataclass(frozen=True)
class AttentionMaps:
    """What one attention module sees from some positions of one image.

    Attributes:
        module: the module's path in the model, such as ``decode_head.pam``.
        positions: P pairs (x, y) in pixels of the image.
        rows: (P, h, w) float, on the module's own grid; each map sums to 1.
        placement: how that grid's input relates to the image.
        scale: the learned factor of the branch (``gamma.scale``) where the module has one:
            at 0 the network ignores the attention, whatever its maps look like.
    """

    module: str
    positions: list[tuple[int, int]]
    rows: np.ndarray
    placement: Placement
    scale: float | None = None

    def over_image(self) -> np.ndarray:
        """(P, height, width) of the image, in multiples of uniform attention.

        A row of N cells that looks everywhere alike is 1 everywhere; 10 marks cells that
        get ten times their share. Unlike the weights themselves this does not depend on N.
        """
        cells = self.rows.shape[1] * self.rows.shape[2]
        return self.placement.over_image(self.rows * cells)


class RecordedAttention:
    """An attention module and the input it was last given."""

    def __init__(self, module: Any, x: Tensor) -> None:
        self.module = module
        self.x = x

    @property
    def map_size(self) -> tuple[int, int]:
        """(height, width) of the module's feature map."""
        height, width = self.x.shape[-2:]
        return height, width

    @property
    def scale(self) -> float | None:
        """The branch's learned factor, None where the module has none."""
        scale = getattr(getattr(self.module, "gamma", None), "scale", None)
        return None if scale is None else scale.item()

    @torch.no_grad()
    def rows(self, positions: Sequence[tuple[int, int]]) -> Tensor:
        """(B, P, H, W) attention of P (row, column) positions, each map summing to 1."""
        return self.module.attention_map(self.x, positions)


def attention_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The model's modules that can show a map for a position, by their path in it."""
    return {
        path: module
        for path, module in model.named_modules()
        if callable(getattr(module, "attention_map", None))
        and "positions" in inspect.signature(module.attention_map).parameters
    }


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, RecordedAttention]]:
    """Keep the inputs of the model's attention modules while it runs.

    Yields:
        A dict that is empty at first and holds, after a run inside the ``with`` block, what
        each module of :func:`attention_modules` was last given, by the module's path. It
        stays valid after the block, which takes the hooks off again.

    Example::

        with record_attention(model) as recorded:
            model(images)
        rows = recorded["decode_head.pam"].rows([(3, 7)])   # (B, 1, H, W)
    """
    recorded: dict[str, RecordedAttention] = {}

    def keep(path: str):
        def hook(module: Any, args: tuple) -> None:
            # A decode head that attends itself, PSANet's, is given all of the backbone's feature maps.
            x = args[0] if isinstance(args[0], Tensor) else module._transform_inputs(args[0])
            recorded[path] = RecordedAttention(module, x.detach())

        return hook

    handles = [
        module.register_forward_pre_hook(keep(path)) for path, module in attention_modules(model).items()
    ]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def segment_centres(labels: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Positions worth asking about: the middles of the largest segments of a label map.

    A segment is a connected region of one class; its middle is the pixel farthest from its
    border. Each class gives its largest segment first, so that a picture shows several
    classes; further segments follow only when there are fewer classes than positions.

    Args:
        labels: (H, W) class ids.
        count: how many positions at most.

    Returns:
        Pairs (x, y), largest segment first.
    """
    segments = []  # (rank within its class, -area, (x, y))
    for label in np.unique(labels):
        mask = (labels == label).astype(np.uint8)
        number, regions, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        largest = sorted(range(1, number), key=lambda i: -stats[i, cv2.CC_STAT_AREA])[:count]
        segments += [
            (rank, -int(stats[i, cv2.CC_STAT_AREA]), label, regions == i) for rank, i in enumerate(largest)
        ]
    segments.sort(key=lambda segment: segment[:3])
    return [_middle(region) for *_, region in segments[:count]]


def _middle(region: np.ndarray) -> tuple[int, int]:
    """(x, y) of the region's pixel farthest from its border; the image's edge is a border."""
    padded = np.pad(region.astype(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    # A long region has a ridge of equal distances: take its middle, not its end.
    rows, columns = np.nonzero(distance >= distance.max() - 1e-3)
    centre = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return int(columns[centre]), int(rows[centre])


def _resize(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(P, h, w) float to (P, *size), bilinear."""
    height, width = size
    return np.stack(
        [cv2.resize(m.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) for m in maps]
    )
