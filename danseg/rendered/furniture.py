"""What stands on the sidewalk: lamps, trees, bollards, boxes, traffic lights and signs."""

import math

import numpy as np

from danseg.label_maps.cityscapes_labels import ID
from danseg.rendered.canvas import Colour, upright_quad
from danseg.rendered.materials import pick, scaled
from danseg.rendered.plants import plan_tree
from danseg.rendered.scene import Street


def plan_furniture(street: Street) -> None:
    rng = street.rng
    for side in (-1, 1):
        x = side * (street.kerb[side] + 0.5)
        for z in np.arange(rng.uniform(6, 13), 60, rng.uniform(13, 18)).tolist():
            if street.take(x, z, 0.5):
                plan_lamp(street, x, z, side)
    if street.crossing:
        for side in (-1, 1):
            z = street.crossing[0] - 1.3
            plan_traffic_light(street, side * (street.kerb[side] + 0.45), z, side)
    for side in (-1, 1):
        x, z = side * (street.kerb[side] + 0.4), rng.uniform(7.5, 14)
        if rng.random() < 0.6 and street.take(x, z, 0.7):
            plan_traffic_light(street, x, z, side)
    for _ in range(int(rng.integers(4, 8))):
        side = int(rng.choice((-1, 1)))
        x, z = side * (street.kerb[side] + rng.uniform(0.4, 0.9)), rng.uniform(6.5, 17)
        if street.take(x, z, 0.8):
            plan_sign(street, x, z)
    for side in (-1, 1):
        strip = street.lot[side] - street.walk[side]
        for z in np.arange(rng.uniform(9, 16), 70, rng.uniform(8, 13)).tolist():
            if rng.random() < 0.6:
                x = side * ((street.walk[side] + strip / 2) if strip else (street.kerb[side] + 0.9))
                if street.take(x, z, 0.8):
                    plan_tree(street, x, z)
        if rng.random() < 0.4:
            for z in np.arange(rng.uniform(5, 9), 16, 1.8).tolist():
                if street.take(side * (street.kerb[side] + 0.35), z, 0.3):
                    plan_bollard(street, side * (street.kerb[side] + 0.35), z)
        if rng.random() < 0.6:
            x, z = side * (street.walk[side] - 0.5), rng.uniform(6, 14)
            if street.take(x, z, 0.9):
                plan_box(street, x, z)


def paint_post(
    street: Street, x: float, z: float, y0: float, y1: float, metres: float, colour: Colour, label: int
) -> None:
    """Paint an upright bar from ``y0`` to ``y1``, with a lit edge."""
    low, high = street.camera.project([(x, y0, z), (x, y1, z)])
    thickness = street.camera.pixels(metres, z)
    street.canvas.line([low, high], thickness, colour, z, label)
    edge = np.array((street.sun_side * thickness * 0.25, 0))
    street.canvas.line([low + edge, high + edge], thickness * 0.3, scaled(colour, 1.35), z)


def plan_lamp(street: Street, x: float, z: float, side: int) -> None:
    height = street.rng.uniform(5.5, 7.0)
    street.cast(x - 0.1, x + 0.1, z - 0.05, z + 0.05, height * 0.6)

    def task() -> None:
        pole = ID["pole"]
        paint_post(street, x, z, 0, height, 0.28, (112, 118, 120), pole)
        arm = street.camera.project([(x, height, z), (x - side * 1.4, height + 0.25, z)])
        street.canvas.line(arm, street.camera.pixels(0.16, z), (104, 110, 112), z, pole)
        head = street.camera.project([(x - side * 1.1, height + 0.2, z), (x - side * 1.9, height + 0.3, z)])
        glow = (255, 240, 190) if street.light.lamps else (206, 208, 204)
        street.canvas.line(head, street.camera.pixels(0.26, z), glow, z, pole)

    street.add(z, task)


def plan_bollard(street: Street, x: float, z: float) -> None:
    street.add(z, lambda: paint_post(street, x, z, 0, 1.0, 0.22, (122, 122, 124), ID["pole"]))


def plan_box(street: Street, x: float, z: float) -> None:
    """Plan a cabinet or a bin, labelled ``static`` or ``dynamic``, which Cityscapes does not evaluate."""
    rng = street.rng
    name = str(rng.choice(("static", "dynamic")))
    width, height = rng.uniform(0.6, 1.0), rng.uniform(0.9, 1.3)
    colour = pick(rng, ((70, 110, 80), (120, 120, 124), (60, 80, 120)), 0.1)
    street.cast(x - width / 2, x + width / 2, z, z + 0.5, 0.8)

    def task() -> None:
        corner = x + width / 2 * (-1 if x > 0 else 1)
        street.canvas.quads(
            [upright_quad((corner, 0, z), (corner, 0, z + 0.6), 0, height)], scaled(colour, 0.8), ID[name]
        )
        front = ((x - width / 2, 0, z), (x + width / 2, 0, z))
        street.canvas.quads([upright_quad(*front, 0, height)], colour, ID[name])
        street.canvas.quads([upright_quad(*front, height - 0.15, height)], scaled(colour, 0.7))

    street.add(z, task)


def plan_traffic_light(street: Street, x: float, z: float, side: int) -> None:
    rng = street.rng
    height, lit = rng.uniform(2.4, 3.0), int(rng.integers(3))
    over_road = rng.random() < 0.4
    mast = height + 2.4

    def head(cx: float, low: float) -> None:
        light = ID["traffic light"]
        box = upright_quad((cx - 0.34, 0, z), (cx + 0.34, 0, z), low, low + 1.5)
        street.canvas.quads([box], (30, 34, 30), light)
        for i, lamp in enumerate(((60, 230, 110), (250, 190, 40), (250, 50, 40))):
            centre = street.camera.project((cx, low + 0.28 + 0.47 * i, z))
            colour = lamp if i == lit else scaled(lamp, 0.3)
            street.canvas.disc(centre, street.camera.pixels(0.19, z), colour, z)

    def task() -> None:
        pole = ID["pole"]
        paint_post(street, x, z, 0, mast if over_road else height + 0.2, 0.2, (96, 100, 104), pole)
        head(x, height)
        if over_road:
            reach = x - side * 3.0
            arm = street.camera.project([(x, mast, z), (reach, mast, z)])
            street.canvas.line(arm, street.camera.pixels(0.16, z), (96, 100, 104), z, pole)
            head(reach, mast - 1.1)

    street.add(z, task)


def plan_sign(street: Street, x: float, z: float) -> None:
    rng = street.rng
    kind = int(rng.integers(6))
    y, radius = rng.uniform(2.2, 2.7), rng.uniform(0.46, 0.6)
    board = pick(rng, ((24, 84, 170), (20, 120, 70), (240, 200, 30)))

    def ring(scale: float, corners: int, turn: float) -> np.ndarray:
        angle = np.arange(corners) * 2 * math.pi / corners + turn
        spot = [(x + radius * scale * math.cos(a), y + radius * scale * math.sin(a), z) for a in angle]
        return street.camera.project(spot)

    def task() -> None:
        sign = ID["traffic sign"]
        white, red, blue, yellow = (240, 240, 236), (206, 24, 34), (24, 84, 180), (246, 206, 40)
        if kind == 5:  # a direction board on two posts
            for post_x in (x - 0.6, x + 0.6):
                paint_post(street, post_x, z, 0, y - 0.4, 0.14, (130, 132, 134), ID["pole"])
            ends = ((x - 1.0, 0, z), (x + 1.0, 0, z))
            street.canvas.quads([upright_quad(*ends, y - 0.5, y + 0.6)], white, sign)
            ends = ((x - 0.94, 0, z), (x + 0.94, 0, z))
            street.canvas.quads([upright_quad(*ends, y - 0.44, y + 0.54)], board)
            rows = [
                upright_quad((x - 0.75, 0, z), (x + 0.4, 0, z), low, low + 0.16) for low in (y - 0.2, y + 0.2)
            ]
            street.canvas.quads(rows, white)
            return
        paint_post(street, x, z, 0, y, 0.16, (130, 132, 134), ID["pole"])
        outer, inner, corners, turn = (
            (red, white, 20, 0.0), (blue, white, 20, 0.0), (red, white, 3, math.pi / 2),
            (yellow, scaled(yellow, 0.75), 4, 0.0), (red, red, 8, math.pi / 8),
        )[kind]  # fmt: skip
        scale = 1.25 if corners < 5 else 1.0
        street.canvas.polygons([ring(scale, corners, turn)], outer, z, sign)
        street.canvas.polygons([ring(scale * (0.4 if outer == blue else 0.66), corners, turn)], inner, z)
        if kind == 4:
            ends = ((x - 0.3, 0, z), (x + 0.3, 0, z))
            street.canvas.quads([upright_quad(*ends, y - 0.08, y + 0.08)], white)

    street.add(z, task)
