"""The street itself: its light, cross-section and camera, and a record of the things that stand on it."""

import math
from collections.abc import Callable

import cv2
import numpy as np

from danseg.label_maps.cityscapes_labels import ID
from danseg.rendered.canvas import Camera, Canvas, Number
from danseg.rendered.materials import LIGHT_CHANCES, LIGHTS


class Street:
    """One street, whose parts the other modules plan and paint.

    To plan a thing is to take its place (:meth:`take`), to cast its shadow (:meth:`cast`) and to add a task
    that paints it (:meth:`add`). :meth:`paint_tasks` runs the tasks from far to near, so that near things
    hide far ones.
    """

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng = rng
        self.height, self.width = height, width
        self.light = LIGHTS[rng.choice(list(LIGHTS), p=list(LIGHT_CHANCES.values()))]
        self.sun_side = int(rng.choice((-1, 1)))  # the sun is on this side, so its houses are in the shade
        self.slant = rng.uniform(0.4, 1.2)  # length of a shadow over the height of the thing that casts it
        self.camera = Camera(
            focal=height * rng.uniform(1.0, 1.2),
            centre=width * rng.uniform(0.44, 0.56),
            horizon=height * rng.uniform(0.38, 0.46),
            eye=rng.uniform(1.8, 2.5),
            bend=rng.uniform(-1, 1) * 0.0012,
        )
        density = self.light.haze_density * rng.uniform(0.7, 1.3)
        self.canvas = Canvas(height, width, self.camera, self.light.horizon, density)
        self.tasks: list[tuple[float, Callable[[], None]]] = []
        self.shadows: list[np.ndarray] = []  # outlines on the ground, (N, 3) each
        self.instances: dict[int, int] = {}
        self.taken: list[tuple[float, Number, float]] = []  # x, z, radius of each thing on the street

        # The cross-section, in metres from the camera's lane: kerb, edge of the sidewalk, line of the lots.
        self.parking = {side: 2.3 if rng.random() < 0.7 else 0.5 for side in (-1, 1)}
        lanes = {-1: 1 + int(rng.random() < 0.35), 1: int(rng.random() < 0.3)}
        self.kerb = {side: 1.6 + 3.2 * lanes[side] + self.parking[side] for side in (-1, 1)}
        self.walk = {side: self.kerb[side] + rng.uniform(2.2, 3.6) for side in (-1, 1)}
        self.lot = {
            side: self.walk[side] + (rng.uniform(2.2, 5.0) if rng.random() < 0.85 else 0.0)
            for side in (-1, 1)
        }
        start = rng.uniform(16, 34)
        self.crossing = (start, start + rng.uniform(7, 10)) if rng.random() < 0.5 else None
        self.has_rails = False

    def add(self, z: float, task: Callable[[], None]) -> None:
        self.tasks.append((z, task))

    def paint_tasks(self) -> None:
        for _, task in sorted(self.tasks, key=lambda task: -task[0]):
            task()

    def instance(self, name: str) -> int:
        number = self.instances.get(ID[name], 0)
        self.instances[ID[name]] = number + 1
        return 1000 * ID[name] + number

    def take(self, x: float, z: float, radius: float) -> bool:
        """Take the place ``radius`` metres around ``(x, z)``; False, and nothing taken, if it is not free."""
        if any(math.hypot(x - ox, z - oz) < radius + other for ox, oz, other in self.taken):
            return False
        if self.crossing and self.crossing[0] - 1 < z < self.crossing[1] + 1 and abs(x) > 1.6:
            return False
        self.taken.append((x, z, radius))
        return True

    def side_light(self, side: int) -> float:
        """Light on a surface that faces the street from ``side``."""
        return self.light.shaded if side == self.sun_side else self.light.sunlit

    def cast(self, x0: float, x1: float, z0: float, z1: float, height: float) -> None:
        """Add the shadow that a box ``height`` metres high casts on the ground."""
        reach = -self.sun_side * height * self.slant
        corners = [(x, 0, z) for x in (x0, x1) for z in (z0, z1)]
        corners += [(x + reach, 0, z - 0.1 * height) for x in (x0, x1) for z in (z0, z1)]
        hull = cv2.convexHull(np.array(corners, np.float32)[:, [0, 2]])[:, 0]
        self.shadows.append(np.insert(hull, 1, 0, axis=1))
