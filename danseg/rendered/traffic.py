"""Vehicles on the street: where they drive and park, and how they are painted."""

import functools
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from danseg.rendered.canvas import CIRCLE, Colour, sloping_quad, upright_quad
from danseg.rendered.materials import GLASS, RUBBER, STEEL, scaled
from danseg.rendered.scene import Street
from danseg.rendered.vehicles import VEHICLES, Body


def plan_traffic(street: Street) -> None:
    rng = street.rng
    big = [str(kind) for kind in rng.permutation(("bus", "truck", "train"))]
    big = big[: 2 + int(rng.random() < 0.3)]
    oncoming, ahead = -3.2, 0.0
    cursor = {oncoming: rng.uniform(8, 13), ahead: rng.uniform(11, 18)}
    street.has_rails = "train" in big

    # One large vehicle in each lane, so that none hides another.
    lanes = [oncoming, ahead] if rng.random() < 0.5 else [ahead, oncoming]
    if "train" in big:  # on its rails, in the lane that comes towards the camera
        cursor[oncoming] += plan_vehicle(street, "train", oncoming, cursor[oncoming], True) + 3
        big.remove("train")
        lanes.remove(oncoming)
    for kind in big:
        if street.crossing and rng.random() < 0.3:
            # Ahead at the junction, seen from its side.
            side = int(rng.choice((-1, 1)))
            plan_vehicle(street, kind, side * rng.uniform(0, 5), sum(street.crossing) / 2, False, across=True)
        elif street.parking[1] > 1 and rng.random() < 0.4:
            x, z = street.kerb[1] - 1.35, rng.uniform(8, 13)
            length = plan_vehicle(street, kind, x, z, False)
            street.taken += [(x, z + along, 1.6) for along in np.arange(0, length, 1.5)]
        else:
            lane = lanes.pop() if lanes else oncoming
            cursor[lane] += plan_vehicle(street, kind, lane, cursor[lane], lane == oncoming) + rng.uniform(
                3, 6
            )
    for lane, start in cursor.items():
        z = start + rng.uniform(0, 3)
        while z < 60:
            z += plan_vehicle(street, "car", lane, z, lane == oncoming) + rng.uniform(4, 18)
    for side in (-1, 1):
        if street.parking[side] < 1:
            continue
        z = rng.uniform(4.5, 9)
        while z < 55:
            x = side * (street.kerb[side] - 1.15)
            if rng.random() < 0.65 and street.take(x, z + 2.2, 2.4):
                plan_vehicle(street, "car", x, z, side == -1)
            z += rng.uniform(5.2, 6.5)
    if street.crossing and rng.random() < 0.6:
        x = rng.choice((-1, 1)) * rng.uniform(1.5, 9)
        plan_vehicle(street, "car", x, street.crossing[0] + 2, False, across=True)


def plan_vehicle(
    street: Street, kind: str, x: float, z: float, oncoming: bool, across: bool = False
) -> float:
    """Plan a vehicle whose near end is ``z`` metres away; with ``across``, it crosses the view there.

    Returns:
        Its length in metres.
    """
    label = street.instance(kind)
    bodies, width = VEHICLES[kind](street.rng, oncoming or across)
    length = max(along for body in bodies for along, _ in body.profile)
    if across:
        street.cast(x - length / 2, x + length / 2, z, z + width, 1.2)
        direction = 1 if street.rng.random() < 0.5 else -1
        street.add(z, lambda: paint_across(street, bodies, x, z, width, length, label, direction))
    else:
        street.cast(x - width / 2, x + width / 2, z, z + length, 1.2)
        street.add(z, lambda: paint_along(street, bodies, x, z, width, label, oncoming))
    return length


def paint_along(
    street: Street, bodies: list[Body], x: float, z: float, width: float, label: int, oncoming: bool
) -> None:
    """Paint a vehicle that drives along the street; ``bodies`` run from the far one to the near one."""
    left, right = x - width / 2, x + width / 2
    seen = left if left + street.camera.bend * z * z > 0 else right  # the side that faces the camera
    side_light = street.side_light(1 if seen == left else -1)
    end_light = 0.5 * (1 + street.light.shaded)

    def place(points: Sequence, side: float) -> np.ndarray:
        return street.camera.project([(side, up, z + along) for along, up in points])

    for body in bodies:
        for side in (left, right):
            paint_wheels(street, body, functools.partial(place, side=side), z, label, hubs=False)
        paint_body(
            street,
            body,
            functools.partial(place, side=seen),
            place(body.profile, left + right - seen),
            side_light,
            z,
            label,
        )
        # The near end: the profile's rising segments across the width, far ones first.
        segments = list(zip(body.profile[:-1], body.profile[1:], strict=True))[:-1]
        for i, ((a0, y0), (a1, y1)) in reversed(list(enumerate(segments))):
            if y1 < y0:
                continue
            flat = y1 - y0 < 0.25 * abs(a1 - a0)
            light = street.light.sunlit if flat else end_light
            ends = ((a0, y0), (a1, y1))
            street.canvas.quads([sloping_quad(left, right, z, *ends)], scaled(body.colour, light))
            if i == body.pane:
                pane = sloping_quad(left + 0.09 * width, right - 0.09 * width, z, *ends)
                street.canvas.quads([pane], scaled(GLASS, 0.9 + 0.4 * street.light.sunlit))
        if body.profile[0][0] == 0:  # not hidden behind another body
            paint_end(street, body, left, right, z, oncoming, end_light)


def paint_across(
    street: Street,
    bodies: list[Body],
    x: float,
    z: float,
    width: float,
    length: float,
    label: int,
    direction: int,
) -> None:
    """Paint a vehicle that crosses the view; with ``direction`` 1 its nose is on the left."""

    def place(points: Sequence, depth: float = 0.0) -> np.ndarray:
        return street.camera.project(
            [(x + direction * (along - length / 2), up, z + depth) for along, up in points]
        )

    for body in bodies:
        light = 0.5 * (1 + street.light.shaded)
        paint_body(street, body, place, place(body.profile, width), light, z, label)


def paint_body(
    street: Street, body: Body, place: Callable, far_side: np.ndarray, light: float, z: float, label: int
) -> None:
    """Paint outline, visible side, stripe, windows and wheels; ``place`` projects points of that side."""
    canvas = street.canvas
    outline = np.concatenate([place(body.profile), far_side]).astype(np.float32)
    start, end = body.profile[0][0], body.profile[-1][0]
    middle = z
    canvas.polygons([cv2.convexHull(outline)[:, 0]], scaled(body.colour, 0.83), middle, label)
    canvas.polygons([place(body.profile)], scaled(body.colour, light), middle, label)
    if body.band is not None:
        low, high, colour = body.band
        # A tall stripe would otherwise stand out over a sloping nose.
        start += 0.35 if high > 2 else 0.0
        stripe = [(start, low), (start, high), (end, high), (end, low)]
        canvas.polygons([place(stripe)], scaled(colour, light), middle)
    canvas.polygons([place(window) for window in body.windows], scaled(GLASS, light + 0.3), middle)
    paint_wheels(street, body, place, z, label, hubs=True)


def paint_wheels(street: Street, body: Body, place: Callable, z: float, label: int, hubs: bool) -> None:
    for along, radius in body.wheels:
        for share, colour in ((1.0, RUBBER), (0.55, STEEL))[: 1 + hubs]:
            ring = [(along + radius * share * c, radius + radius * share * s) for c, s in CIRCLE]
            street.canvas.polygons([place(ring)], colour, z + along, label)


def paint_end(
    street: Street, body: Body, left: float, right: float, z: float, oncoming: bool, light: float
) -> None:
    """Paint doors, bumper, lights and number plate on the end that faces the camera."""
    width, middle = right - left, (left + right) / 2
    low, high = body.profile[0][1], body.profile[1][1]

    def panel(x0: float, x1: float, y0: float, y1: float, colour: Colour) -> None:
        street.canvas.quads([upright_quad((x0, 0, z - 0.02), (x1, 0, z - 0.02), y0, y1)], colour)

    if body.doors:
        panel(left + 0.06, right - 0.06, low + 0.1, high - 0.08, scaled(body.colour, light * 0.93))
        panel(middle - 0.03, middle + 0.03, low + 0.1, high - 0.08, scaled(STEEL, 0.8))
        low, high = 0.55, low
        panel(left, right, low, high, scaled(STEEL, 0.5))
    panel(left, right, low, low + 0.16, scaled(STEEL, 0.45))
    y0, y1 = low + 0.5 * (high - low), low + 0.9 * (high - low)
    headlight = (255, 250, 220) if street.light.lamps else (226, 226, 214)
    colour = headlight if oncoming else (214, 26, 26)
    panel(left + 0.04, left + 0.2 * width, y0, y1, colour)
    panel(right - 0.2 * width, right - 0.04, y0, y1, colour)
    if not body.doors:
        panel(middle - 0.26, middle + 0.26, low + 0.2, low + 0.32, (228, 228, 220))
