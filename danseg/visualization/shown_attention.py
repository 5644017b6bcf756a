"""What a module's attention is for one picture: maps over it, or weights of channels or branches."""

from dataclasses import dataclass

import cv2
import numpy as np


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

    def centres(self, map_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Where the centres of a feature map's cells lie in the image.

        Args:
            map_size: (height, width) of the feature map; its cells tile the network's input.

        Returns:
            y of each row of cells and x of each column, in pixels from the image's upper left corner, whose
            first pixel has its centre at 0.5; outside the image for cells in the padding.
        """
        ys, xs = (
            ((np.arange(cells) + 0.5) * padded / cells - offset) * image / content
            for image, content, offset, padded, cells in zip(
                self.image_size, self.content_size, self.offset, self.input_size, map_size, strict=True
            )
        )
        return ys, xs

    def pixels(self, map_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The image's rows and columns below :meth:`centres`; -1 where a centre lies in the padding."""
        rows, columns = (
            np.where((centres >= 0) & (centres < image), np.floor(centres), -1).astype(np.int64)
            for centres, image in zip(self.centres(map_size), self.image_size, strict=True)
        )
        return rows, columns

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
    """Where one attention module looks in one image, from some positions or from all alike.

    Attributes:
        module: the module's path in the model, such as ``decode_head.pam``.
        positions: P pairs (x, y) in pixels of the image; none if the maps are the same for all positions.
        rows: (P, h, w) float, in the resolution that the module attends in: that of its feature map, or half
            of it as in PSANet. Without positions, one map for each of ``parts``.
        placement: how the image lies in the network's input.
        scale: the learned factor of the branch (``gamma.scale``); None if the module has none. If it is 0,
            the network ignores the attention, whatever the maps look like.
        view: the view's name, as in :class:`danseg.attention.parts.views.View`; so are the next two.
        values: ``"shares"`` (each map sums to 1), ``"gate"``, ``"weights"``, or of a class activation map
            ``"evidence"`` (each map's maximum is 1).
        parts: names of maps without positions; empty if there is one, or numbers say it all.

    Raises:
        ValueError: there is no map, or not one for each position.
    """

    module: str
    positions: list[tuple[int, int]]
    rows: np.ndarray
    placement: Placement
    scale: float | None = None
    view: str = ""
    values: str = "shares"
    parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        maps = self.rows.shape[0] if self.rows.ndim == 3 else 0
        if not maps or (self.positions and len(self.positions) != maps):
            raise ValueError(
                f"attention maps of {self.module} are one (h, w) map for each position, or at least one for "
                f"all alike, got {len(self.positions)} positions and maps of shape {self.rows.shape}"
            )

    def over_image(self) -> np.ndarray:
        """The maps in the size of the image (P, height, width).

        Shares are in multiples of uniform attention: 1 is uniform, 10 marks cells that get ten times as much.
        Unlike the shares themselves, these values do not depend on the number of cells. For the same reason,
        weights are multiplied by it as well. Gates and evidence stay as they are.
        """
        as_they_are = self.values in ("gate", "evidence")
        cells = 1 if as_they_are else self.rows.shape[1] * self.rows.shape[2]
        return self.placement.over_image(self.rows * cells)


@dataclass(frozen=True)
class AttentionWeights:
    """The weights that one attention module gives to channels or branches in one image.

    Attributes:
        module: the module's path in the model.
        weights: (R, C): of ``"channels"``, one row for all channels alike, or for each of R = C the weights
            with which it gathers from the C; of ``"branches"``, one row for each branch.
        kind: ``"channels"`` or ``"branches"``.
        view: the view's name, as in :class:`danseg.attention.parts.views.View`; so are the next two.
        values: ``"shares"``, ``"gate"`` or ``"weights"``.
        parts: names of the rows; empty if numbers say it all.
        scale: as in :class:`AttentionMaps`.
    """

    module: str
    weights: np.ndarray
    kind: str
    view: str = ""
    values: str = "shares"
    parts: tuple[str, ...] = ()
    scale: float | None = None


def _resize(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (P, h, w) float maps to (P, *size) by bilinear interpolation."""
    height, width = size
    return np.stack(
        [cv2.resize(m.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) for m in maps]
    )
