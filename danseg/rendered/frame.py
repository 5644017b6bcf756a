"""One frame, from the empty street to the picture that its camera takes."""

import cv2
import numpy as np

from danseg.label_maps.cityscapes_labels import ID
from danseg.rendered.canvas import SUPERSAMPLING
from danseg.rendered.furniture import plan_furniture
from danseg.rendered.ground import paint_backdrop, paint_ground, paint_shadows, paint_sky
from danseg.rendered.lots import plan_lots
from danseg.rendered.materials import GRAIN_BY_ID, Light, pick, scaled, smooth_noise
from danseg.rendered.people import plan_people
from danseg.rendered.scene import Street
from danseg.rendered.traffic import plan_traffic


def draw_street(
    height: int, width: int, plan_rng: np.random.Generator, grain_rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a frame; ``plan_rng`` decides what stands where, ``grain_rng`` the grain and the camera's noise.

    Returns:
        The image, ``(height, width, 3)`` uint8 in RGB, and its instance ids, ``(height, width)`` uint16: the
        label id, or ``1000 * id + k`` for the k-th instance of a class that has instances.
    """
    street = Street(plan_rng, height * SUPERSAMPLING, width * SUPERSAMPLING)
    plan_lots(street)
    plan_traffic(street)
    plan_furniture(street)
    plan_people(street)
    paint_sky(street)
    paint_ground(street)
    paint_shadows(street)
    paint_backdrop(street)
    street.paint_tasks()
    _paint_hood(street)
    labels = np.ascontiguousarray(street.canvas.labels[::SUPERSAMPLING, ::SUPERSAMPLING])
    image = cv2.resize(street.canvas.image, (width, height), interpolation=cv2.INTER_AREA)
    image = _expose(image, np.where(labels < 1000, labels, labels // 1000), street.light, grain_rng)
    _mark_border(image, labels)
    return image, labels


def _paint_hood(street: Street) -> None:
    """Paint the bonnet of the car that carries the camera."""
    rng, height, width = street.rng, street.height, street.width
    top = height * rng.uniform(0.93, 0.965)
    columns = np.linspace(-0.02, 1.02, 30) * width
    edge = top + (height - top) * 1.1 * np.abs(np.linspace(-1, 1, 30)) ** 3.5
    outline = np.concatenate(
        [np.stack([columns, edge], 1), [(1.02 * width, height + 9), (-0.02 * width, height + 9)]]
    )
    paint = pick(rng, ((34, 36, 42), (150, 152, 156), (60, 66, 84)), 0.1)
    street.canvas.polygons([outline], paint, 0, ID["ego vehicle"])
    shine = np.stack([columns, edge + 0.2 * (height - top)], 1)
    street.canvas.line(shine, height / 150, scaled(paint, 1.5), 0)


def _expose(image: np.ndarray, ids: np.ndarray, light: Light, rng: np.random.Generator) -> np.ndarray:
    """Apply the surfaces' grain, the light's colour, and the camera's exposure and noise."""
    height, width = ids.shape
    fine = rng.standard_normal((height, width), np.float32)
    middle = smooth_noise(rng, height, width, height / 100)
    coarse = smooth_noise(rng, height, width, height / 12)
    strength = GRAIN_BY_ID[ids]
    gain = strength[..., 0] * fine
    gain += strength[..., 1] * middle
    gain += strength[..., 2] * coarse
    gain += 1
    np.clip(gain, 0.3, 1.8, out=gain)

    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None]
    gain *= 1 - rng.uniform(0.05, 0.2) * (rows**2 + columns**2) / 2  # the lens darkens corners
    exposure = rng.uniform(0.88, 1.2) * np.asarray(light.tint) * rng.uniform(0.94, 1.06, 3)
    pixels = image.astype(np.float32)
    pixels *= gain[..., None]
    pixels *= exposure.astype(np.float32)
    noise = rng.uniform(1.0, 3.0) * (1.6 if light.lamps else 1.0)
    pixels += noise * rng.standard_normal(pixels.shape, np.float32)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _mark_border(image: np.ndarray, labels: np.ndarray) -> None:
    """Mark the frame's rim as in Cityscapes: black slivers at the sides, margins at top and bottom.

    Stereo rectification leaves the slivers; the margins lie outside the region of interest.
    """
    height, width = labels.shape
    margin, sliver = max(1, height // 200), max(1, width // 200)
    for rows, columns in ((slice(margin), slice(None)), (slice(-margin, None), slice(None))):
        labels[rows, columns] = ID["out of roi"]
    for columns in (slice(sliver), slice(-sliver, None)):
        labels[:, columns] = ID["rectification border"]
        image[:, columns] //= 8
