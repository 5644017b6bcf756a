"""The lots along both sides of the street: houses, walls, fences and parks."""

import functools
import math
from dataclasses import dataclass

import numpy as np

from danseg.label_maps.cityscapes_labels import ID
from danseg.rendered.canvas import Colour, upright_quad
from danseg.rendered.materials import BRICK, CAR_PAINT, FENCES, MASONRY, PLASTER, ROOF, pick, scaled
from danseg.rendered.plants import paint_crown, plan_tree
from danseg.rendered.scene import Street


@dataclass(frozen=True)
class House:
    """A house between ``z0`` and ``z1`` along the street, from its front at ``x`` back to ``outer``."""

    x: float
    outer: float
    z0: float
    z1: float
    storey: float  # height of one storey
    height: float
    colour: Colour
    roof: Colour | None  # None for a flat roof
    bay: float  # distance between the middles of two windows
    window: tuple[float, float]  # width and height of a window, as shares of a bay and a storey
    shop: Colour | None  # colour of the shop's sign; None without a shop on the ground floor
    lit: float  # share of the windows that are lit


def plan_lots(street: Street) -> None:
    rng = street.rng
    # Every street has a wall and a fence near enough to be seen well.
    wall_side = int(rng.choice((-1, 1)))
    near_kinds = {wall_side: "wall", -wall_side: "fence"}
    for side in (-1, 1):
        kinds = ["building"]
        kinds.insert(int(rng.integers(2)), near_kinds[side])
        kinds.append(str(rng.choice(("building", near_kinds[-side]))))
        z = rng.uniform(3.0, 7.0)
        while z < 80:
            length = rng.uniform(8, 14)
            if street.crossing:
                near, far = street.crossing
                if near - 6 < z < far + 2.6:
                    z = far + 2.6
                elif z < near and z + length > near - 2.6:
                    length = near - 2.6 - z
            kind = (
                kinds.pop(0)
                if kinds
                else str(rng.choice(("building", "wall", "fence", "park"), p=(0.66, 0.1, 0.1, 0.14)))
            )
            after_crossing = street.crossing is not None and z == street.crossing[1] + 2.6
            depth = 45.0 if after_crossing else rng.uniform(9, 13)
            if after_crossing:
                kind = "building"
            PLANS[kind](street, side, z, z + length, depth)
            z += length


def plan_building(
    street: Street, side: int, z0: float, z1: float, depth: float, setback: float = 0.0
) -> None:
    rng = street.rng
    x = side * (street.lot[side] + setback)
    storey = rng.uniform(2.8, 3.4)
    house = House(
        x=x,
        outer=x + side * depth,
        z0=z0,
        z1=z1,
        storey=storey,
        height=storey * rng.integers(2, 6) + 0.8,
        colour=pick(rng, BRICK, 0.1) if rng.random() < 0.3 else pick(rng, PLASTER, 0.1),
        roof=pick(rng, ROOF, 0.1) if rng.random() < 0.6 else None,
        bay=rng.uniform(2.0, 3.2),
        window=(rng.uniform(0.4, 0.65), rng.uniform(0.45, 0.65)),
        shop=pick(rng, CAR_PAINT, 0.1) if rng.random() < 0.4 and not setback else None,
        lit=0.6 * rng.random() if street.light.lamps else 0.0,
    )
    if rng.random() < 0.7 or setback:
        street.cast(x, house.outer, z0, z1, house.height if side == street.sun_side else 0.1)
    street.add(z1 + setback * 2, lambda: paint_building(street, house, side))


def paint_building(street: Street, house: House, side: int) -> None:
    x, z0, z1, height, colour = house.x, house.z0, house.z1, house.height, house.colour
    if house.roof is not None:
        eaves = x + side * min(abs(house.outer - x), 10)
        ridge, top = (x + eaves) / 2, height + 2.6
        gable = [(x, height, z0), (ridge, top, z0), (eaves, height, z0)]
        street.canvas.polygons([street.camera.project(gable)], scaled(colour, 0.84), z0, ID["building"])
        slope = [(x, height, z0), (x, height, z1), (ridge, top, z1), (ridge, top, z0)]
        street.canvas.quads([slope], scaled(house.roof, street.side_light(side)), ID["building"])
    paint_facade(street, house, (x, 0, z0), (house.outer, 0, z0), 0.84)
    paint_facade(street, house, (x, 0, z0), (x, 0, z1), street.side_light(side))


def paint_facade(
    street: Street, house: House, start: tuple[float, ...], end: tuple[float, ...], light: float
) -> None:
    """Paint the face of ``house`` that stands on the line from ``start`` to ``end``."""
    canvas, colour, height = street.canvas, house.colour, house.height
    length = math.dist(start, end)

    def along(share: float) -> np.ndarray:
        return np.add(start, np.subtract(end, start) * share)

    # A face that runs into the distance is cut into pieces: each has one haze, that of its middle.
    cuts = np.linspace(0, 1, 1 + (max(1, round(length / 5)) if start[2] != end[2] else 1))
    for a, b in zip(map(along, cuts[:-1]), map(along, cuts[1:]), strict=True):
        canvas.quads([upright_quad(a, b, 0, height)], scaled(colour, light), ID["building"])
        canvas.quads([upright_quad(a, b, 0, 0.7)], scaled(colour, light * 0.75))
        canvas.quads([upright_quad(a, b, height - 0.35, height)], scaled(colour, light * 1.15))

    bays = max(1, int(length / house.bay))
    panes, frames = [], []
    for bay in range(bays):
        middle, half = (bay + 0.5) / bays, house.window[0] / bays / 2
        for floor in range(0 if house.shop is None else 1, int(height / house.storey)):
            low = floor * house.storey + 0.9
            high = low + house.window[1] * house.storey
            panes.append(upright_quad(along(middle - half), along(middle + half), low, high))
            half_frame = half * 1.25
            a, b = along(middle - half_frame), along(middle + half_frame)
            frames.append(upright_quad(a, b, low - 0.15, high + 0.15))
    canvas.quads(frames, scaled(colour, light * 1.22))
    canvas.quads(panes, scaled((66, 84, 104), light))
    canvas.quads([pane for pane in panes if street.rng.random() < house.lit], (250, 214, 130))
    if house.shop is not None:
        canvas.quads([upright_quad(start, end, 0.5, 2.4)], scaled((60, 70, 80), light))
        canvas.quads([upright_quad(start, end, 2.4, 3.1)], scaled(house.shop, light))
        posts = [upright_quad(along(t), along(t + 0.03), 0, 2.4) for t in np.linspace(0, 0.97, bays + 1)]
        canvas.quads(posts, scaled(colour, light * 0.9))


def plan_wall(street: Street, side: int, z0: float, z1: float, depth: float) -> None:
    rng = street.rng
    x, height = side * street.lot[side], rng.uniform(2.3, 3.3)
    colour, bricks = pick(rng, MASONRY, 0.1), rng.random() < 0.7
    plan_behind(street, side, z0, z1, depth)
    street.cast(x, x + side * 0.3, z0, z1, height)
    street.add(z1, lambda: paint_wall(street, side, x, z0, z1, height, colour, bricks))


def paint_wall(
    street: Street, side: int, x: float, z0: float, z1: float, height: float, colour: Colour, bricks: bool
) -> None:
    canvas, wall = street.canvas, ID["wall"]
    colour = scaled(colour, street.side_light(side))
    canvas.quads([upright_quad((x, 0, z0), (x + side * 0.4, 0, z0), 0, height)], scaled(colour, 0.8), wall)
    for z in np.arange(z0, z1, 3.0):
        a, b = (x, 0, z), (x, 0, min(z + 3.0, z1))
        canvas.quads([upright_quad(a, b, 0, height)], colour, wall)
        course = 0.32 if bricks else 0.8
        rows = np.arange(course, height - 0.1, course)
        canvas.quads([upright_quad(a, b, y, y + 0.05) for y in rows], scaled(colour, 0.66))
        joints = [
            upright_quad((x, 0, t), (x, 0, t + 0.05), y, min(y + course, height))
            for row, y in enumerate(np.arange(0, height, course))
            for t in np.arange(z + (0.35 if row % 2 else 0.0), b[2] - 0.05, 0.7 if bricks else 1.5)
        ]
        canvas.quads(joints, scaled(colour, 0.7))
        canvas.quads([upright_quad(a, b, height - 0.18, height)], scaled(colour, 1.3))


def plan_fence(street: Street, side: int, z0: float, z1: float, depth: float) -> None:
    rng = street.rng
    x, height, colour = side * street.lot[side], rng.uniform(1.9, 2.7), pick(rng, FENCES, 0.08)
    plan_behind(street, side, z0, z1, depth)
    street.add(z1, lambda: paint_fence(street, side, x, z0, z1, height, colour))


def paint_fence(
    street: Street, side: int, x: float, z0: float, z1: float, height: float, colour: Colour
) -> None:
    """Paint pickets. The image has gaps between them; the label is filled, as in Cityscapes."""
    canvas = street.canvas
    colour = scaled(colour, street.side_light(side))
    outline = street.camera.project([(x, y, z) for y, z in ((0, z0), (0, z1), (height, z1), (height, z0))])
    canvas.fill_label(outline, ID["fence"])
    for z in np.arange(z0, z1, 3.0):
        end = min(z + 3.0, z1)
        pickets = [
            upright_quad((x, 0, t), (x, 0, min(t + 0.2, end)), 0.08, height) for t in np.arange(z, end, 0.36)
        ]
        canvas.quads(pickets, colour)
        for low in (0.35, height - 0.4):
            canvas.quads([upright_quad((x, 0, z), (x, 0, end), low, low + 0.14)], scaled(colour, 0.8))
        canvas.quads([upright_quad((x, 0, z), (x, 0, min(z + 0.3, end)), 0, height)], scaled(colour, 0.7))


def plan_behind(street: Street, side: int, z0: float, z1: float, depth: float) -> None:
    """Plan what shows over a wall or through a fence: a house set back, or trees."""
    rng = street.rng
    if rng.random() < 0.5:
        plan_building(street, side, z0, z1, depth, setback=rng.uniform(3.5, 6))
    else:
        for z in np.arange(z0 + 1.5, z1, rng.uniform(3, 5)).tolist():
            plan_tree(street, side * (street.lot[side] + rng.uniform(2.5, 5)), z, order=z1 + 1)


def plan_park(street: Street, side: int, z0: float, z1: float, depth: float) -> None:
    rng = street.rng
    for z in np.arange(z0, z1, 2.5).tolist():
        plan_tree(street, side * (street.lot[side] + rng.uniform(1, depth)), z + rng.uniform(0, 2))
    hedge, radius = side * (street.lot[side] + 0.6), rng.uniform(0.6, 0.9)
    for z in np.arange(z0, z1, 1.0).tolist():
        bush = functools.partial(paint_crown, street, hedge, z, radius, radius * 1.2, radius, discs=8)
        street.add(z, bush)


PLANS = {"building": plan_building, "wall": plan_wall, "fence": plan_fence, "park": plan_park}
