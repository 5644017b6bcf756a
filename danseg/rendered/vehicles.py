"""The shapes of cars, buses, trams and trucks, as outlines extruded across their width."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from danseg.rendered.canvas import Colour
from danseg.rendered.materials import (
    BUS_PAINT,
    CAR_PAINT,
    STEEL,
    TRAIN_PAINT,
    TRUCK_BOX,
    TRUCK_CAB,
    pick,
)


@dataclass(frozen=True)
class Body:
    """A part of a vehicle: an outline seen from the side, extruded across the vehicle's width.

    Points are ``(along, up)`` in metres, ``along`` from the vehicle's near end. The outline starts at the
    near lower corner, rises, and runs back along the roof to the far lower corner.
    """

    profile: list[tuple[float, float]]
    colour: Colour
    windows: list[list[tuple[float, float]]]  # quadrilaterals on the side
    wheels: list[tuple[float, float]]  # (along, radius)
    pane: int | None = None  # segment of the outline that is a windscreen
    band: tuple[float, float, Colour] | None = None  # a stripe: its lower and upper height, its colour
    doors: bool = False  # on the near end


def car_bodies(rng: np.random.Generator, nose_first: bool) -> tuple[list[Body], float]:
    """Bodies of a car, the far one first, and its width; ``nose_first`` turns its nose to the near end."""
    length, roof = rng.uniform(3.9, 4.6), rng.uniform(1.42, 1.75)
    sill, top, pillar = 0.95, roof - 0.1, 2.5
    hatch = rng.random() < 0.5
    back, deck = length - (0.75 if hatch else 1.3), length - (0.25 if hatch else 0.7)
    nose = [(0.0, 0.3), (0.05, 0.78), (0.95, 0.92), (1.65, roof)]
    profile = nose + [(back, roof), (deck, sill), (length - 0.02, 0.86), (length, 0.3)]
    front = [(1.15, sill), (1.72, top), (pillar - 0.05, top), (pillar - 0.05, sill)]
    rear = [(pillar + 0.05, sill), (pillar + 0.05, top), (back - 0.05, top), (deck - 0.1, sill)]
    windows = [front, rear]
    if not nose_first:
        profile, windows = mirrored(profile, windows, length)
    wheels = [(0.85, 0.33), (length - 0.85, 0.33)]
    body = Body(profile, pick(rng, CAR_PAINT, 0.12), windows, wheels, pane=2)
    return [body], rng.uniform(1.72, 1.85)


def bus_bodies(rng: np.random.Generator, nose_first: bool) -> tuple[list[Body], float]:
    """As :func:`car_bodies`, of a bus: a long box in a warm colour; its rear window is the smaller one."""
    length, roof, colour = rng.uniform(9, 12), rng.uniform(2.9, 3.2), pick(rng, BUS_PAINT, 0.08)
    sill, top = (1.1 if nose_first else 1.7), roof - 0.5
    near = [(0.0, 0.3), (0.0, 1.1), (0.0, sill), (0.06, top), (0.1, roof)]
    profile = near + [(length, roof), (length, 0.3)]
    starts = np.arange(0.5, length - 1.2, 1.3).tolist()
    windows = [[(a, 1.25), (a, top), (a + 1.12, top), (a + 1.12, 1.25)] for a in starts]
    wheels = [(1.9, 0.48), (length - 2.4, 0.48)]
    band = (0.62, 0.95, pick(rng, CAR_PAINT, 0.1))
    return [Body(profile, colour, windows, wheels, pane=2, band=band)], 2.5


def train_bodies(rng: np.random.Generator, nose_first: bool) -> tuple[list[Body], float]:
    """As :func:`car_bodies`, of a tram: in two colours, without visible wheels, the same at both ends."""
    length, roof, colour = rng.uniform(16, 24), rng.uniform(3.3, 3.6), pick(rng, TRAIN_PAINT, 0.08)
    profile = [(0.0, 0.15), (0.0, 1.2), (0.7, roof - 0.55), (0.9, roof), (length, roof), (length, 0.15)]
    starts = np.arange(1.3, length - 1.9, 1.9).tolist()
    windows = [[(a, 1.3), (a, roof - 0.6), (a + 1.75, roof - 0.6), (a + 1.75, 1.3)] for a in starts]
    band = (1.0, roof - 0.45, (236, 232, 222))
    return [Body(profile, colour, windows, [], pane=1, band=band)], 2.6


def truck_bodies(rng: np.random.Generator, nose_first: bool) -> tuple[list[Body], float]:
    """As :func:`car_bodies`, of a truck: a coloured cab and a high, pale, windowless box."""
    paint, pale = pick(rng, TRUCK_CAB, 0.1), pick(rng, TRUCK_BOX, 0.08)
    load, roof = rng.uniform(5.0, 7.0), rng.uniform(3.2, 3.8)
    box_at, cab_at = (2.2, 0.0) if nose_first else (0.0, load + 0.3)
    profile = [(box_at, 0.95), (box_at, roof), (box_at + load, roof), (box_at + load, 0.95)]
    wheels = [(box_at + along, 0.5) for along in (0.9, 1.95, load - 1.0)]
    box = Body(profile, pale, [], wheels, band=(1.0, 1.25, STEEL), doors=not nose_first)

    profile = [(0.0, 0.45), (0.0, 1.45), (0.25, 2.45), (0.5, 2.65), (1.9, 2.65), (1.9, 0.45)]
    windows = [[(0.35, 1.5), (0.5, 2.35), (1.4, 2.35), (1.4, 1.5)]]
    if not nose_first:
        profile, windows = mirrored(profile, windows, 1.9)
    profile, *windows = ([(cab_at + along, up) for along, up in shape] for shape in (profile, *windows))
    cab = Body(profile, paint, windows, [(cab_at + 0.95, 0.5)], pane=1 if nose_first else None)
    return ([box, cab] if nose_first else [cab, box]), 2.4


def mirrored(profile: Sequence, windows: Sequence, length: float) -> tuple[list, list]:
    """The same outline and windows, seen from the vehicle's other end."""
    flipped = [(length - along, up) for along, up in reversed(profile)]
    return flipped, [[(length - along, up) for along, up in window] for window in windows]


VEHICLES = {"car": car_bodies, "bus": bus_bodies, "train": train_bodies, "truck": truck_bodies}
