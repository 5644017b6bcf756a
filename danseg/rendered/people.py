"""People on foot, and bicycles and motorcycles with their riders."""

import math
from collections.abc import Sequence

import numpy as np

from danseg.label_maps.cityscapes_labels import ID
from danseg.rendered.canvas import CIRCLE, Colour
from danseg.rendered.materials import (
    BIKE_PAINT,
    CLOTHES,
    RIDER_CLOTHES,
    RUBBER,
    SKIN,
    STEEL,
    pick,
    scaled,
)
from danseg.rendered.scene import Street


def plan_people(street: Street) -> None:
    rng = street.rng
    for kind in ("bicycle", "motorcycle"):
        if rng.random() < 0.75:  # ridden
            for _ in range(6):
                # Beside the parked cars, or on the line between the lanes, nearer than the cars there.
                at_kerb = rng.random() < 0.6
                x = street.kerb[1] - street.parking[1] - 0.4 if at_kerb else -1.6
                z = rng.uniform(5.5, 10.5 if at_kerb else 8.0)
                yaw = rng.uniform(0.5, 1.1) * rng.choice((-1, 1)) + math.pi * rng.integers(2)
                if street.take(x, z, 1.1):
                    plan_two_wheeler(street, kind, x, z, yaw, ridden=True)
                    break
        if rng.random() < 0.75:  # parked, alone or in a row
            side = int(rng.choice((-1, 1)))
            x, z = side * (street.kerb[side] + rng.uniform(0.7, 1.1)), rng.uniform(5.5, 11)
            yaw = rng.uniform(-0.3, 0.3) + math.pi * rng.integers(2)
            for i in range(int(rng.integers(1, 4))):
                if street.take(x, z + 1.3 * i, 0.75):
                    plan_two_wheeler(street, kind, x, z + 1.3 * i, yaw, ridden=False)
    wanted, placed = int(rng.integers(4, 9)), 0
    for _ in range(4 * wanted):
        if placed == wanted:
            break
        if rng.random() < 0.15:
            x, z = rng.uniform(-street.kerb[-1], street.kerb[1]), rng.uniform(7, 16)
        else:
            side = int(rng.choice((-1, 1)))
            x, z = side * rng.uniform(street.kerb[side] + 0.6, street.walk[side] - 0.3), rng.uniform(5.5, 17)
        if street.take(x, z, 0.45):
            plan_person(street, x, z)
            placed += 1
    if rng.random() < 0.3:  # a crowd: nobody would outline its people one by one
        side = int(rng.choice((-1, 1)))
        for _ in range(6):
            x = side * rng.uniform(street.kerb[side] + 0.5, street.walk[side])
            plan_person(street, x, rng.uniform(24, 27), label=ID["person"])


def plan_person(street: Street, x: float, z: float, label: int | None = None) -> None:
    rng = street.rng
    label = street.instance("person") if label is None else label
    height, stride = rng.uniform(1.6, 1.9), rng.uniform(-0.28, 0.28)
    jacket, trousers, skin = pick(rng, CLOTHES, 0.2), pick(rng, CLOTHES, 0.3), pick(rng, SKIN)
    hair = pick(rng, ((36, 28, 24), (90, 62, 38), (150, 120, 80), (120, 118, 116)))
    street.cast(x - 0.2, x + 0.2, z - 0.1, z + 0.1, 0.9)

    def task() -> None:
        def at(across: float, up: float) -> np.ndarray:
            return street.camera.project((x + across, up * height / 1.75, z))

        def limb(points: Sequence, metres: float, colour: Colour) -> None:
            street.canvas.line([at(*p) for p in points], street.camera.pixels(metres, z), colour, z, label)

        limb([(0.06, 0.85), (0.06 - stride * 0.6, 0.45), (-stride, 0.06)], 0.19, scaled(trousers, 0.8))
        limb([(-0.06, 0.85), (stride * 0.8, 0.45), (stride, 0.06)], 0.19, trousers)
        limb(
            [(0.18, 1.36), (0.24 + stride * 0.3, 1.08), (0.2 + stride * 0.6, 0.86)],
            0.13,
            scaled(jacket, 0.8),
        )
        limb([(0.0, 0.85), (0.0, 1.3)], 0.4, jacket)
        limb(
            [(-0.18, 1.36), (-0.25 - stride * 0.3, 1.08), (-0.2 - stride * 0.5, 0.86)],
            0.13,
            scaled(jacket, 1.15),
        )
        limb([(0, 1.4), (0, 1.5)], 0.13, skin)
        street.canvas.disc(at(0, 1.64), street.camera.pixels(0.145, z), hair, z, label)
        street.canvas.disc(at(0.02, 1.6), street.camera.pixels(0.11, z), skin, z, label)

    street.add(z, task)


def plan_two_wheeler(street: Street, kind: str, x: float, z: float, yaw: float, ridden: bool) -> None:
    """Plan a bicycle or motorcycle in the upright plane through ``(x, z)``, turned by ``yaw`` radians."""
    rng = street.rng
    bike, rider = street.instance(kind), street.instance("rider") if ridden else None
    paint, jacket = pick(rng, BIKE_PAINT, 0.12), pick(rng, RIDER_CLOTHES, 0.12)
    trousers, skin = pick(rng, CLOTHES, 0.2), pick(rng, SKIN)
    helmet = pick(rng, ((236, 236, 232), (30, 30, 34), (220, 40, 40)), 0.05)
    street.cast(x - 0.7 * abs(math.cos(yaw)), x + 0.7 * abs(math.cos(yaw)), z - 0.2, z + 0.2, 0.8)

    def at(along: float, up: float) -> np.ndarray:
        return street.camera.project((x + along * math.cos(yaw), up, z + along * math.sin(yaw)))

    def bar(points: Sequence, metres: float, colour: Colour, label: int | None) -> None:
        street.canvas.line([at(*p) for p in points], street.camera.pixels(metres, z), colour, z, label)

    def ring(along: float, radius: float) -> np.ndarray:
        return np.array([at(along + radius * c, radius + 0.02 + radius * s) for c, s in CIRCLE])

    def bicycle() -> None:
        pixels = street.camera.pixels
        for along in (-0.54, 0.54):
            outline = ring(along, 0.36)
            # The label is filled, as in Cityscapes; the image shows tyre, spokes and what is behind.
            street.canvas.fill_label(outline, bike)
            for i in range(0, 12, 2):
                street.canvas.line([outline[i], outline[i + 12]], pixels(0.012, z), (150, 152, 154), z)
            street.canvas.line([*outline, outline[0]], pixels(0.075, z), RUBBER, z, bike)
        frame = [(-0.54, 0.38), (-0.05, 0.33), (0.4, 0.84), (-0.2, 0.8), (-0.54, 0.38)]
        street.canvas.fill_label([at(*p) for p in frame], bike)
        bar(frame, 0.07, paint, bike)
        bar([(-0.05, 0.33), (-0.24, 0.92)], 0.07, paint, bike)
        bar([(0.54, 0.38), (0.38, 0.98), (0.28, 1.04)], 0.07, paint, bike)
        bar([(-0.36, 0.95), (-0.12, 0.95)], 0.09, RUBBER, bike)

    def motorcycle() -> None:
        for along in (-0.72, 0.72):
            street.canvas.polygons([ring(along, 0.35)], RUBBER, z, bike)
            street.canvas.polygons([ring(along, 0.15) - (0, street.camera.pixels(0.2, z))], STEEL, z)
        low = [(-0.5, 0.35), (-0.4, 0.75), (0.3, 0.75), (0.45, 0.35), (0.1, 0.22), (-0.3, 0.22)]
        street.canvas.polygons([np.array([at(*p) for p in low])], (58, 60, 64), z, bike)
        bar([(0.72, 0.4), (0.46, 1.0), (0.34, 1.1)], 0.13, STEEL, bike)
        bar([(-0.2, 0.36), (-0.95, 0.42)], 0.12, (170, 172, 176), bike)
        tank = [(-0.1, 0.72), (-0.05, 0.98), (0.35, 1.04), (0.52, 0.86), (0.35, 0.66)]
        street.canvas.polygons([np.array([at(*p) for p in tank])], paint, z, bike)
        seat = [(-0.9, 0.9), (-0.75, 0.72), (-0.1, 0.7), (-0.05, 0.86), (-0.5, 0.86)]
        street.canvas.polygons([np.array([at(*p) for p in seat])], (34, 32, 34), z, bike)
        street.canvas.disc(at(0.55, 0.92), street.camera.pixels(0.12, z), (250, 246, 220), z, bike)

    def person() -> None:
        lean = 0.1 if kind == "motorcycle" else 0.2
        bar([(-0.2, 0.95), (0.18, 0.7), (0.02, 0.3)], 0.2, trousers, rider)
        bar([(-0.2, 1.0), (lean, 1.4)], 0.38, jacket, rider)
        bar([(lean, 1.4), (0.22, 1.12), (0.42, 1.06)], 0.14, scaled(jacket, 0.85), rider)
        street.canvas.disc(at(lean + 0.08, 1.66), street.camera.pixels(0.12, z), skin, z, rider)
        street.canvas.disc(at(lean + 0.05, 1.72), street.camera.pixels(0.16, z), helmet, z, rider)

    def task() -> None:
        bicycle() if kind == "bicycle" else motorcycle()
        if ridden:
            person()

    street.add(z, task)
