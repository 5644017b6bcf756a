"""What every street has: sky, ground with its markings, the shadows on it, and the far backdrop."""

import cv2
import numpy as np

from danseg.label_maps.cityscapes_labels import ID
from danseg.rendered.canvas import SUBPIXEL_BITS, Number, fixed_point, ground_quad, upright_quad
from danseg.rendered.materials import BRICK, GRASS, PLASTER, pick, scaled, smooth_noise
from danseg.rendered.plants import paint_crown
from danseg.rendered.scene import Street


def paint_sky(street: Street) -> None:
    rng, light = street.rng, street.light
    rows = int(street.camera.horizon) + 2
    ramp: np.ndarray = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None] ** 1.3
    sky = np.asarray(light.zenith, np.float32) * (1 - ramp) + np.asarray(light.horizon, np.float32) * ramp
    small = (street.width // 4, rows // 4 + 1)
    clouds = sum(smooth_noise(rng, small[1], small[0], small[1] / cells) / cells for cells in (3, 6, 12))
    cover: np.ndarray = np.clip(clouds * 2.0 + rng.uniform(-0.6, 0.4), 0, 1) * light.clouds
    cover = cv2.resize(cover, (street.width, rows))[..., None]
    white = np.clip(np.asarray(light.horizon, np.float32) * 1.12, 0, 250)
    street.canvas.image[:rows] = sky * (1 - cover) + white * cover
    street.canvas.labels[:rows] = ID["sky"]


def paint_ground(street: Street) -> None:
    """Paint road, kerbs, sidewalks and grass, by the place on the ground that each pixel shows."""
    rng, camera = street.rng, street.camera
    first = int(camera.horizon) + 1
    drop = np.arange(first, street.height, dtype=np.float32) + 0.5 - camera.horizon
    z = (camera.focal * camera.eye / drop)[:, None]
    columns = np.arange(street.width, dtype=np.float32)[None] + 0.5 - camera.centre
    x = columns * (z / camera.focal) - np.float32(camera.bend) * z * z

    # Index of the strip at each pixel: 0 road, 1 kerb, 2 sidewalk, 3 grass.
    edges = {
        side: (
            street.kerb[side],
            street.kerb[side] + 0.25,
            street.walk[side] if street.lot[side] > street.walk[side] else 1e6,
        )
        for side in (-1, 1)
    }
    strip = np.zeros(x.shape, np.uint8)
    for right, left in zip(edges[1], edges[-1], strict=True):
        strip += (x > right) | (x < -left)
    if street.crossing:
        near, far = street.crossing
        strip[((z > near) & (z < far))[:, 0]] = 0
        corner = ((z > near - 2.6) & (z <= near)) | ((z >= far) & (z < far + 2.6))
        strip[corner & (strip == 3)] = 2
    strip_ids = np.array([ID[name] for name in ("road", "sidewalk", "sidewalk", "terrain")], np.uint16)
    asphalt = scaled((92, 92, 96), rng.uniform(0.8, 1.2))
    paving = pick(rng, ((176, 168, 158), (158, 150, 146), (180, 160, 146)), 0.08)
    colours = np.array([asphalt, scaled(paving, 1.15), paving, pick(rng, GRASS, 0.1)], np.float32)

    shade = np.ones(x.shape, np.float32)
    tile = rng.uniform(0.9, 1.4)
    # Joints fade where they are thinner than a pixel.
    visible = np.clip(camera.focal / z / 60, 0, 1) * 0.22
    joints = (np.mod(x, tile) < 0.06) | (np.mod(z, tile) < 0.08)
    shade -= np.where((strip == 2) & joints, visible, 0)
    worn = 0.07 * np.cos(2 * np.pi * (x / 1.6)) * (strip == 0)  # wheels polish their tracks
    shade += worn
    clear = np.exp(-np.float32(street.canvas.haze_density) * z)
    ground = colours[strip] * (shade * clear)[..., None]
    ground += np.asarray(street.canvas.haze, np.float32) * (1 - clear)[..., None]
    street.canvas.image[first:] = np.clip(ground, 0, 255)
    street.canvas.labels[first:] = strip_ids[strip]
    paint_markings(street)


def paint_markings(street: Street) -> None:
    paint = (212, 212, 206)
    end = 70.0
    near, far = street.crossing or (end, end)
    spans = [(2.0, near - 4.0), (far + 2.0, end)] if street.crossing else [(2.0, end)]
    road = ID["road"]
    dashes, solid = [], []
    x: Number
    for z0, z1 in spans:
        starts = np.arange(z0, z1, 6.0)
        for x in np.arange(-1.6 - 3.2 * 2, street.kerb[1] - 0.5, 3.2):
            if x < -street.kerb[-1] + 0.5:
                continue
            dashes += [ground_quad(x - 0.07, x + 0.07, z, min(z + 3.0, z1)) for z in starts]
        for side in (-1, 1):
            if street.parking[side] > 1:
                x = side * (street.kerb[side] - street.parking[side])
                solid += [
                    ground_quad(x - 0.06, x + 0.06, z, min(z + 8, z1))
                    for z in np.arange(z0, z1, 8.0).tolist()
                ]
    for quad in dashes + solid:
        street.canvas.quads(quad, paint, road)
    if street.crossing:
        stripes = np.arange(-street.kerb[-1] + 0.5, street.kerb[1] - 0.5, 1.0)
        street.canvas.quads([ground_quad(x, x + 0.5, near - 3.2, near - 0.6) for x in stripes], paint, road)
    if street.has_rails:
        for x in (-3.2 - 0.72, -3.2 + 0.72):
            rails = [ground_quad(x - 0.05, x + 0.05, z, z + 4) for z in np.arange(2.0, 80.0, 4.0)]
            street.canvas.quads(rails, (52, 50, 54), road)


def paint_shadows(street: Street) -> None:
    mask: np.ndarray = np.zeros((street.height // 2, street.width // 2), np.uint8)
    for shape in street.shadows:
        cv2.fillPoly(mask, [fixed_point(street.camera.project(shape) / 2)], 255, shift=SUBPIXEL_BITS)
    first = int(street.camera.horizon) + 1
    mask = cv2.GaussianBlur(mask, (0, 0), street.height / 400)
    mask = cv2.resize(mask, (street.width, street.height))[first:]
    keep = 256 - (mask.astype(np.uint16) * int(256 * street.light.shadow) >> 8)
    ground = street.canvas.image[first:]
    ground[:] = ground * keep[..., None] >> 8


def paint_backdrop(street: Street) -> None:
    """Paint what closes the view: far houses and trees all along the horizon."""
    rng, z = street.rng, 95.0
    x = -150.0
    while x < 150:
        step = rng.uniform(8, 16)
        if rng.random() < 0.6:
            height = rng.uniform(6, 16)
            colour = pick(rng, PLASTER + BRICK, 0.1)
            street.canvas.quads(
                [upright_quad((x, 0, z), (x + step, 0, z), 0, height)], colour, ID["building"]
            )
            rows = [
                upright_quad((x + 1, 0, z), (x + step - 1, 0, z), y, y + 1.2)
                for y in np.arange(2, height - 1, 3)
            ]
            street.canvas.quads(rows, scaled(colour, 0.7))
        else:
            paint_crown(street, x + step / 2, z, rng.uniform(3, 5), step * 0.6, rng.uniform(3, 5), discs=14)
        x += step
