"""The tools to draw a street with: camera, canvas, and shapes that stand in the scene.

Points of the scene are ``(x, y, z)`` in metres. The camera projects them to pixels; the canvas fills pixels
of the image and of its labels together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Colour = tuple[float, float, float]  # RGB, 0 to 255
Number = float | np.floating
Point = tuple[Number, Number, Number]  # metres: x to the right, y up from the ground, z ahead of the camera
Numbers = Sequence[Number] | np.ndarray

NEAR = 0.8  # metres: points nearer than this are moved to this distance before projection
SUPERSAMPLING = 2  # frames are drawn this much larger and averaged down, which smooths the image's edges
SUBPIXEL_BITS = 4
LIMIT = 20000.0  # pixels: coordinates are clipped to it, as OpenCV's 32-bit ones overflow far beyond

CIRCLE = [(math.cos(angle), math.sin(angle)) for angle in np.arange(24) * math.pi / 12]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera looking along a street that may bend.

    A point ``(x, y, z)`` is seen at column ``centre + focal * (x + bend * z**2) / z`` and row
    ``horizon + focal * (eye - y) / z``.
    """

    focal: float
    centre: float
    horizon: float
    eye: float
    bend: float

    def project(self, points: np.ndarray | Sequence) -> np.ndarray:
        """Pixel coordinates ``(..., 2)`` of points ``(..., 3)``."""
        points = np.asarray(points, np.float64)
        z = np.maximum(points[..., 2], NEAR)
        pixels = np.empty((*points.shape[:-1], 2))
        pixels[..., 0] = self.centre + self.focal * (points[..., 0] / z + self.bend * z)
        pixels[..., 1] = self.horizon + self.focal * (self.eye - points[..., 1]) / z
        return pixels

    def pixels(self, metres: float, z: float) -> float:
        return self.focal * metres / max(z, NEAR)


class Canvas:
    """An image and its labels, painted together; haze fades distant things.

    The labels hold what an instanceIds file of Cityscapes holds: the label id, or ``1000 * id + k`` for the
    k-th instance of a class that has them. A call without ``label`` paints the image alone.
    """

    def __init__(self, height: int, width: int, camera: Camera, haze: Colour, haze_density: float) -> None:
        self.image = np.zeros((height, width, 3), np.uint8)
        self.labels = np.zeros((height, width), np.uint16)
        self.camera = camera
        self.haze = haze
        self.haze_density = haze_density

    def hazy(self, colour: Colour, z: float) -> Colour:
        clear = math.exp(-self.haze_density * max(z, 0.0))
        veil = [h * (1 - clear) for h in self.haze]
        red, green, blue = (min(255.0, max(0.0, c * clear + h)) for c, h in zip(colour, veil, strict=True))
        return red, green, blue

    def polygons(
        self, shapes: np.ndarray | Sequence, colour: Colour, z: float, label: int | None = None
    ) -> None:
        """Fill each of ``shapes``, arrays of pixel coordinates ``(N, 2)``."""
        fixed = fixed_point(shapes) if isinstance(shapes, np.ndarray) else map(fixed_point, shapes)
        colour = self.hazy(colour, z)
        for shape in fixed:
            cv2.fillPoly(self.image, [shape], colour, shift=SUBPIXEL_BITS)
            if label is not None:
                cv2.fillPoly(self.labels, [shape], label, shift=SUBPIXEL_BITS)

    def quads(self, corners: np.ndarray | Sequence, colour: Colour, label: int | None = None) -> None:
        """Fill quadrilaterals given by points in the scene ``(N, 4, 3)``."""
        corners = np.asarray(corners, np.float64).reshape(-1, 4, 3)
        if not len(corners):
            return
        self.polygons(self.camera.project(corners), colour, float(corners[..., 2].mean()), label)

    def line(
        self,
        points: np.ndarray | Sequence,
        thickness: float,
        colour: Colour,
        z: float,
        label: int | None = None,
    ) -> None:
        """Draw a line through pixel coordinates, ``thickness`` pixels wide."""
        thickness = max(SUPERSAMPLING, round(thickness))
        fixed = [fixed_point(points)]
        cv2.polylines(self.image, fixed, False, self.hazy(colour, z), thickness, shift=SUBPIXEL_BITS)
        if label is not None:
            cv2.polylines(self.labels, fixed, False, label, thickness, shift=SUBPIXEL_BITS)

    def disc(
        self, centre: Numbers, radius: float, colour: Colour, z: float, label: int | None = None
    ) -> None:
        spot = [round(min(max(float(c), -LIMIT), LIMIT) * (1 << SUBPIXEL_BITS)) for c in centre]
        radius = max(1, round(radius * (1 << SUBPIXEL_BITS)))
        cv2.circle(self.image, spot, radius, self.hazy(colour, z), -1, shift=SUBPIXEL_BITS)
        if label is not None:
            cv2.circle(self.labels, spot, radius, label, -1, shift=SUBPIXEL_BITS)

    def fill_label(self, shape: np.ndarray | Sequence, label: int) -> None:
        """Fill ``shape``, pixel coordinates ``(N, 2)``, in the labels alone, where the image has gaps."""
        cv2.fillPoly(self.labels, [fixed_point(shape)], label, shift=SUBPIXEL_BITS)


def fixed_point(points: np.ndarray | Sequence) -> np.ndarray:
    """Coordinates as OpenCV's integers with ``SUBPIXEL_BITS`` fractional bits."""
    inside = np.minimum(np.maximum(np.asarray(points, np.float64), -LIMIT), LIMIT)
    return np.rint(inside * (1 << SUBPIXEL_BITS)).astype(np.int32)


def ground_quad(x0: Number, x1: Number, z0: Number, z1: Number) -> list[Point]:
    return [(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)]


def upright_quad(start: Numbers, end: Numbers, low: Number, high: Number) -> list[Point]:
    """A rectangle that stands on the line from ``start`` to ``end``, between two heights."""
    (x0, _, z0), (x1, _, z1) = start, end
    return [(x0, low, z0), (x1, low, z1), (x1, high, z1), (x0, high, z0)]


def sloping_quad(
    x0: float, x1: float, z: float, near: tuple[float, float], far: tuple[float, float]
) -> list[Point]:
    """A rectangle across a vehicle, between two points ``(along, up)`` of an outline that begins at ``z``."""
    (a0, y0), (a1, y1) = near, far
    return [(x0, y0, z + a0), (x1, y0, z + a0), (x1, y1, z + a1), (x0, y1, z + a1)]
