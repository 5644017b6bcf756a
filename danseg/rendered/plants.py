"""Trees, and the foliage that hedges and far woods share with them."""

import math

import numpy as np

from danseg.label_maps.cityscapes_labels import ID
from danseg.rendered.canvas import NEAR
from danseg.rendered.materials import LEAVES, pick, scaled
from danseg.rendered.scene import Street


def plan_tree(street: Street, x: float, z: float, order: float | None = None) -> None:
    rng = street.rng
    height, radius = rng.uniform(4.0, 6.5), rng.uniform(1.4, 2.4)
    street.cast(x - radius * 0.7, x + radius * 0.7, z - radius * 0.5, z + radius * 0.5, height * 0.5)

    def task() -> None:
        z_clear = max(z, NEAR)
        base, top = street.camera.project([(x, 0, z_clear), (x, height, z_clear)])
        thickness = street.camera.pixels(0.32, z)
        street.canvas.line([base, top], thickness, scaled((92, 70, 52), 0.9), z, ID["vegetation"])
        street.canvas.line([base + (thickness * 0.2, 0), top], thickness * 0.4, (118, 94, 70), z)
        paint_crown(street, x, z, height, radius, radius * 0.9, discs=26)

    street.add(z if order is None else order, task)


def paint_crown(
    street: Street, x: float, z: float, y: float, half_width: float, half_height: float, discs: int
) -> None:
    """Paint foliage around ``(x, y, z)``: discs, dark and wide below, lighter and smaller towards the sun."""
    rng = street.rng
    colour = pick(rng, LEAVES, 0.15)
    size = max(half_width, half_height)
    for share, radius, light, label in (
        (1.0, 0.42, 0.62, ID["vegetation"]),
        (0.85, 0.3, 0.85, None),
        (0.6, 0.2, 1.15, None),
    ):
        angle = rng.uniform(0, 2 * math.pi, discs)
        reach = np.sqrt(rng.uniform(0, 1, discs)) * share
        lift = (1 - share) * 0.6
        points = np.stack(
            [
                x + half_width * (reach * np.cos(angle) + street.sun_side * lift),
                y + half_height * (reach * np.sin(angle) + lift),
                np.full(discs, max(z, NEAR)),
            ],
            axis=1,
        )
        for point, wobble in zip(
            street.camera.project(points), rng.uniform(0.7, 1.2, (discs, 2)), strict=True
        ):
            pixels = street.camera.pixels(size * radius * wobble[0], z)
            street.canvas.disc(point, pixels, scaled(colour, light * (0.85 + 0.15 * wobble[1])), z, label)
