"""Record the inputs of a running model's attention modules, and compute attention maps from them.

A module can be shown if it has a method ``attention_map(x, positions)`` like that of
:class:`danseg.attention.PositionAttention`, which returns one (H, W) map per position; each map sums to 1.
:func:`record_attention` keeps the inputs of such modules while the model runs. A map computed from them later
costs one row of the attention matrix, never the whole N x N matrix.
"""

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

import danseg.attention
from danseg.errors import StopsAllError
from danseg.io.words import listed

# The recordings that have begun and not yet ended in this thread or asynchronous task.
_RUNNING: ContextVar[tuple[object, ...]] = ContextVar("running recordings", default=())


@dataclass(frozen=True)
class Placement:
    """How an image lies in a network's input: resized to ``content_size``, then padded.

    Attributes:
        image_size: (height, width) of the image on disk.
        input_size: (height, width) of the network's input, padding included.
        content_size: (height, width) of the resized image inside that input.
        offset: (rows, columns) of padding above it and to its left.
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

        Interpolates bilinearly between the centres of cells, and cuts off the padding.
        """
        if self.content_size != self.input_size:
            top, left = self.offset
            height, width = self.content_size
            maps = _resize(maps, self.input_size)[:, top : top + height, left : left + width]
        return _resize(maps, self.image_size)


@dataclass(frozen=True)
class AttentionMaps:
    """Where one attention module looks from some positions of one image.

    Attributes:
        module: the module's path in the model, such as ``decode_head.pam``.
        positions: P pairs (x, y) in pixels of the image.
        rows: (P, h, w) float, in the resolution that the module attends in: that of its feature map, or half
            of it as in PSANet. Each map sums to 1, except those of modes without a softmax.
        placement: how the image lies in the network's input.
        scale: the learned factor of the branch (``gamma.scale``); None if the module has none. If it is 0,
            the network ignores the attention, whatever the maps look like.

    Raises:
        ValueError: there is no position, or not one map for each.
    """

    module: str
    positions: list[tuple[int, int]]
    rows: np.ndarray
    placement: Placement
    scale: float | None = None

    def __post_init__(self) -> None:
        if not self.positions or self.rows.shape[:1] != (len(self.positions),) or self.rows.ndim != 3:
            raise ValueError(
                f"attention maps of {self.module} are one (h, w) map for each of at least one position, got "
                f"{len(self.positions)} positions and maps of shape {self.rows.shape}"
            )

    @property
    def sums_to_one(self) -> bool:
        """Whether the weights are shares of 1; those of a dot product, without softmax, may have any sum."""
        return bool(np.allclose(self.rows.sum((1, 2)), 1, atol=0.02) and (self.rows >= 0).all())

    def over_image(self) -> np.ndarray:
        """The maps in the size of the image (P, height, width), in multiples of uniform attention.

        Uniform attention is 1 everywhere; 10 marks cells that get ten times as much. Unlike the weights,
        these values do not depend on the number of cells.
        """
        cells = self.rows.shape[1] * self.rows.shape[2]
        return self.placement.over_image(self.rows * cells)


class RecordedAttention:
    """An attention module and the last input it received."""

    def __init__(self, module: Any, x: Tensor) -> None:
        self.module = module
        self.x = x

    @property
    def map_size(self) -> tuple[int, int]:
        """(height, width) of the module's feature map."""
        height, width = self.x.shape[2:]
        return height, width

    @property
    def scale(self) -> float | None:
        """The branch's learned factor; None if the module has none."""
        scale = getattr(getattr(self.module, "gamma", None), "scale", None)
        return None if scale is None else scale.item()

    @torch.no_grad()
    def rows(self, positions: Sequence[tuple[int, int]]) -> Tensor:
        """Attention maps (B, P, H, W) of P (row, column) positions, with the weights that the module has now.

        Each map sums to 1, except those of modes without a softmax.
        """
        # In training mode, batch norms would add this pass to their statistics.
        module = copy.deepcopy(self.module) if self.module.training else self.module
        return module.attention_map(self.x, positions)


def attention_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The model's modules that can compute a map for a position, by their path in the model."""
    return {path: module for path, module in model.named_modules() if _shows_positions(module)}


def require_attention(model: nn.Module) -> dict[str, nn.Module]:
    """:func:`attention_modules`, of which there is at least one.

    Raises:
        StopsAllError: there is none, whatever the picture.
    """
    modules = attention_modules(model)
    if not modules:
        raise StopsAllError(
            f"{_named(model)} has no attention of single positions to show; of danseg's modules, "
            f"{', '.join(_classes())} have it"
        )
    return modules


def _shows_positions(module: Any) -> bool:
    """Whether a module, or a class of modules, can compute a map for a position."""
    method = getattr(module, "attention_map", None)
    return callable(method) and "positions" in inspect.signature(method).parameters


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, RecordedAttention]]:
    """Keep the inputs of the model's attention modules while the model runs.

    Only what runs in the thread (or asynchronous task) that opened the block is recorded. Several threads
    can record the same model, and blocks can be nested.

    Yields:
        A dict, empty at first. When the model has run inside the ``with`` block, it holds the last input of
        each module of :func:`attention_modules` that ran, by the module's path. It stays valid after the
        block, which removes the hooks at its end.

    Raises:
        StopsAllError: no module of the model can be recorded, or the block ends and none of them ran.

    Example::

        with record_attention(model) as recorded:
            model(images)
        rows = recorded["decode_head.pam"].rows([(3, 7)])   # (B, 1, H, W)
    """
    modules = require_attention(model)
    recorded: dict[str, RecordedAttention] = {}
    this, handles = object(), []

    def watch(path: str, module: Any) -> None:
        # A head that is itself the attention module names the child that gets the module's input: mmseg calls
        # a head's ``forward``, which calls no hook.
        entry = getattr(module, "attention_entry", module)

        # PyTorch adds a hook and then notes that it takes named arguments. A thread that runs in between
        # gives it none.
        def hook(running: nn.Module, args: tuple, named: dict | None = None) -> None:
            # Compiled code would go on calling the hook when the block has ended.
            if torch.compiler.is_compiling():
                return
            # A copy of the model has copies of the hooks, but other modules.
            if running is entry and this in _RUNNING.get():
                x, *_ = (*args, *(named or {}).values())
                # A copy, because what runs later may change the feature map in place.
                recorded[path] = RecordedAttention(module, x.detach().clone())

        handles.append(entry.register_forward_pre_hook(hook, with_kwargs=True))

    token = _RUNNING.set((*_RUNNING.get(), this))
    try:
        for path, module in modules.items():
            watch(path, module)
        yield recorded
    finally:
        _RUNNING.reset(token)
        for handle in handles:
            handle.remove()
    if not recorded:
        raise StopsAllError(
            f"none of the modules that record attention ran: {listed(modules)}. Run the model itself inside "
            "the block, in its thread and not compiled; auxiliary heads run in training only"
        )


def _classes() -> list[str]:
    """The names of danseg's modules that can compute a map for a position."""
    return [name for name in danseg.attention.__all__ if _shows_positions(getattr(danseg.attention, name))]


def _named(model: Any) -> str:
    """What to call a model in messages: a segmentor by its heads, which most often hold the attention."""
    head = getattr(model, "decode_head", model)
    heads = head if isinstance(head, nn.ModuleList) else [head]
    return " + ".join(type(one).__name__ for one in heads)


def segment_centres(labels: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Positions whose attention is worth showing: the middles of the largest segments of a label map.

    A segment is a connected region of one class; its middle is the pixel farthest from its border. The
    largest segment of each class comes first, so that a picture shows several classes. Further segments
    follow only if there are fewer classes than positions.

    Args:
        labels: (H, W) class ids.
        count: largest number of positions.

    Returns:
        Pairs (x, y): the largest segments of all classes, then their second largest, and so on; within each
        group the largest first.
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
    # In a long region many pixels have the same distance: take the one in their middle, not at an end.
    rows, columns = np.nonzero(distance >= distance.max() - 1e-3)
    centre = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return int(columns[centre]), int(rows[centre])


def _resize(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (P, h, w) float maps to (P, *size) by bilinear interpolation."""
    height, width = size
    return np.stack(
        [cv2.resize(m.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) for m in maps]
    )
