"""A street-scene set in the Cityscapes layout, drawn with OpenCV from a seed.

The set lets a network be trained, evaluated and shown where no data can be downloaded. :func:`render` writes
a tree that any reader of Cityscapes accepts::

    leftImg8bit/{train,val}/<city>/<city>_SSSSSS_FFFFFF_leftImg8bit.png
    gtFine/{train,val}/<city>/<city>_SSSSSS_FFFFFF_gtFine_{labelIds,labelTrainIds,instanceIds,color}.png
    rendered.json

Each frame is a street seen by a pinhole camera: a ground plane with lanes, kerbs and perhaps a crossing;
lots along both sides (houses, walls, fences, parks); and, on the street, vehicles, people and furniture.
Everything has a place and a size in metres, so that perspective sets scale, and is painted from far to near,
so that the near hides the far. Light (day, overcast, dusk, fog), shadows, texture and sensor noise vary.

Frame ``k`` of a split depends on ``(seed, split, k)`` and the image size alone: not on the number of frames
or of processes. On one machine with one version of OpenCV and NumPy it is the same, byte for byte.
"""

import functools
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from danseg.errors import UserError

TRAIN_FRAMES, VAL_FRAMES = 200, 40
HEIGHT, WIDTH = 256, 512

# Raise it whenever a frame's bytes change, so that an old tree is not taken for a new one.
DRAWING_VERSION = 1
MANIFEST = "rendered.json"
# Invented names. A frame's city follows from its number alone, not from how many frames are asked for.
CITIES = {"train": ("altwiek", "birkenau", "cronfurt", "dornach"), "val": ("eschfeld", "finkenberg")}
FRAME_NUMBER = 19  # Cityscapes annotates the 20th frame of a 30-frame snippet.
MIN_HEIGHT, MIN_WIDTH = 32, 64


class Label(NamedTuple):
    """One row of the Cityscapes label table; ``train_id`` 255 means ignored in training and evaluation."""

    name: str
    id: int
    train_id: int
    has_instances: bool
    colour: tuple[int, int, int]  # RGB


LABELS = (
    Label("unlabeled", 0, 255, False, (0, 0, 0)),
    Label("ego vehicle", 1, 255, False, (0, 0, 0)),
    Label("rectification border", 2, 255, False, (0, 0, 0)),
    Label("out of roi", 3, 255, False, (0, 0, 0)),
    Label("static", 4, 255, False, (0, 0, 0)),
    Label("dynamic", 5, 255, False, (111, 74, 0)),
    Label("ground", 6, 255, False, (81, 0, 81)),
    Label("road", 7, 0, False, (128, 64, 128)),
    Label("sidewalk", 8, 1, False, (244, 35, 232)),
    Label("parking", 9, 255, False, (250, 170, 160)),
    Label("rail track", 10, 255, False, (230, 150, 140)),
    Label("building", 11, 2, False, (70, 70, 70)),
    Label("wall", 12, 3, False, (102, 102, 156)),
    Label("fence", 13, 4, False, (190, 153, 153)),
    Label("guard rail", 14, 255, False, (180, 165, 180)),
    Label("bridge", 15, 255, False, (150, 100, 100)),
    Label("tunnel", 16, 255, False, (150, 120, 90)),
    Label("pole", 17, 5, False, (153, 153, 153)),
    Label("polegroup", 18, 255, False, (153, 153, 153)),
    Label("traffic light", 19, 6, False, (250, 170, 30)),
    Label("traffic sign", 20, 7, False, (220, 220, 0)),
    Label("vegetation", 21, 8, False, (107, 142, 35)),
    Label("terrain", 22, 9, False, (152, 251, 152)),
    Label("sky", 23, 10, False, (70, 130, 180)),
    Label("person", 24, 11, True, (220, 20, 60)),
    Label("rider", 25, 12, True, (255, 0, 0)),
    Label("car", 26, 13, True, (0, 0, 142)),
    Label("truck", 27, 14, True, (0, 0, 70)),
    Label("bus", 28, 15, True, (0, 60, 100)),
    Label("caravan", 29, 255, True, (0, 0, 90)),
    Label("trailer", 30, 255, True, (0, 0, 110)),
    Label("train", 31, 16, True, (0, 80, 100)),
    Label("motorcycle", 32, 17, True, (0, 0, 230)),
    Label("bicycle", 33, 18, True, (119, 11, 32)),
)
ID = {label.name: label.id for label in LABELS}
TRAIN_IDS = np.array([label.train_id for label in LABELS], np.uint8)
# OpenCV writes BGRA; Cityscapes' colour images have an opaque alpha channel.
COLOURS_BGRA = np.array([(*label.colour[::-1], 255) for label in LABELS], np.uint8)

Colour = tuple[float, float, float]  # RGB, 0 to 255
Point = tuple[float, float, float]  # metres: x to the right, y up from the ground, z ahead of the camera


# ---------------------------------------------------------------------------------------------------------
# The tree
# ---------------------------------------------------------------------------------------------------------
def render(
    root: str | os.PathLike,
    *,
    train: int = TRAIN_FRAMES,
    val: int = VAL_FRAMES,
    height: int = HEIGHT,
    width: int = WIDTH,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = False,
) -> dict:
    """Draw a street-scene set below ``root``, or leave it alone if it is already there.

    A set that was interrupted, or that lost files, is completed by calling again with the same arguments.

    Args:
        root: Folder of the set; made if it does not exist.
        train: Number of frames in the training split.
        val: Number of frames in the validation split.
        height: Height of a frame in pixels.
        width: Width of a frame in pixels.
        seed: Any integer from 0; each gives another set.
        workers: Number of processes, by default one for each CPU this process may use. It does not change
            what is drawn.
        progress: Show a bar with the time left.

    Returns:
        The manifest, which also lies at ``root/rendered.json``: ``drawing`` (version of the drawing),
        ``parameters`` (train, val, height, width, seed) and ``complete``.

    Raises:
        UserError: If an argument is out of range, or if ``root`` holds a tree that was not rendered with
            these arguments. Nothing is overwritten then.
    """
    parameters = dict(train=train, val=val, height=height, width=width, seed=seed)
    _check_parameters(parameters, workers)
    root = Path(root)
    wanted = dict(drawing=DRAWING_VERSION, parameters=parameters, complete=True)
    found = _read_manifest(root)
    if found is not None and {**found, "complete": True} != wanted:
        raise UserError(
            f"{root} holds a set rendered otherwise: {_describe(found)}, wanted {_describe(wanted)}. "
            "Remove that folder, or name another one."
        )

    frames = [("train", k) for k in range(train)] + [("val", k) for k in range(val)]
    if found is not None and found["complete"]:
        frames = [frame for frame in frames if not all(path.is_file() for path in _frame_paths(root, *frame))]
    if frames or found is None:
        _write_manifest(root, {**wanted, "complete": False})
        for folder in {path.parent for frame in frames for path in _frame_paths(root, *frame)}:
            folder.mkdir(parents=True, exist_ok=True)
        draw = functools.partial(_write_frame, root=root, height=height, width=width, seed=seed)
        for _ in _with_progress(_map(draw, frames, workers), len(frames), progress):
            pass
        _write_manifest(root, wanted)
    return wanted


def _check_parameters(parameters: dict, workers: int | None) -> None:
    least = dict(train=0, val=0, height=MIN_HEIGHT, width=MIN_WIDTH, seed=0, workers=1)
    for name, value in {**parameters, "workers": 1 if workers is None else workers}.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least[name]:
            raise UserError(f"{name} is {value!r}: give an integer of at least {least[name]}.")


def _read_manifest(root: Path) -> dict | None:
    """The manifest below ``root``, or None where nothing stands in the way of a new set."""
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file, not a folder: name another place for the rendered set.")
    path = root / MANIFEST
    if path.is_file():
        try:
            manifest = json.loads(path.read_text())
            if {"drawing", "parameters", "complete"} <= manifest.keys():
                return manifest
        except (ValueError, AttributeError):
            pass
        raise UserError(f"{path} is not a manifest of a rendered set: remove {root}, or name another folder.")
    for name in ("leftImg8bit", "gtFine"):
        if (root / name).exists():
            raise UserError(
                f"{root} already holds {name} but no {MANIFEST}, so it was not rendered by danseg and will "
                "not be overwritten. Name another folder, or remove that one if it is not needed."
            )
    return None


def _write_manifest(root: Path, manifest: dict) -> None:
    root.mkdir(parents=True, exist_ok=True)
    partial = root / f"{MANIFEST}.partial"
    partial.write_text(json.dumps(manifest, indent=2) + "\n")
    os.replace(partial, root / MANIFEST)


def _describe(manifest: dict) -> str:
    parameters = manifest["parameters"]
    return ", ".join(f"{name} {parameters[name]}" for name in parameters) + f", drawing {manifest['drawing']}"


def _frame_paths(root: Path, split: str, k: int) -> tuple[Path, ...]:
    """Paths of the image and of its labelIds, labelTrainIds, instanceIds and color."""
    city = CITIES[split][k % len(CITIES[split])]
    stem = f"{city}_{k:06d}_{FRAME_NUMBER:06d}"
    kinds = ("labelIds", "labelTrainIds", "instanceIds", "color")
    labels = (root / "gtFine" / split / city / f"{stem}_gtFine_{kind}.png" for kind in kinds)
    return root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", *labels


def _write_frame(frame: tuple[str, int], *, root: Path, height: int, width: int, seed: int) -> None:
    split, k = frame
    image, instances = draw_frame(split, k, height=height, width=width, seed=seed)
    ids = np.where(instances < 1000, instances, instances // 1000).astype(np.uint8)
    files = (image[..., ::-1], ids, TRAIN_IDS[ids], instances, COLOURS_BGRA[ids])
    for path, pixels in zip(_frame_paths(root, split, k), files, strict=True):
        if not cv2.imwrite(str(path), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3]):
            raise UserError(
                f"could not write {path}: check that the folder is writable and the disk not full."
            )


def _map(draw: Callable, frames: Sequence, workers: int | None) -> Iterator:
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers, len(frames))
    if workers <= 1:
        with _single_threaded_opencv():
            yield from map(draw, frames)
        return
    # A forked worker needs no import of torch and mmseg, which takes longer than the drawing. Elsewhere than
    # on Linux, system libraries do not survive a fork.
    context = get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, context, initializer=cv2.setNumThreads, initargs=(0,)) as pool:
        yield from pool.map(draw, frames, chunksize=2)


@contextmanager
def _single_threaded_opencv() -> Iterator[None]:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _with_progress(results: Iterable, total: int, show: bool) -> Iterable:
    if not show:
        return results
    from rich.progress import track

    return track(results, description="rendering", total=total)


# ---------------------------------------------------------------------------------------------------------
# Camera and canvas
# ---------------------------------------------------------------------------------------------------------
NEAR = 0.8  # metres: what lies nearer is moved to this distance before projection
SUPERSAMPLING = 2  # frames are drawn this much larger and averaged down, which smooths the image's edges
SUBPIXEL_BITS = 4
LIMIT = 20000.0  # pixels: OpenCV's 32-bit coordinates overflow far beyond it


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
    """An image and its labels, painted together; haze fades what is far.

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
        return tuple(min(255.0, max(0.0, c * clear + h)) for c, h in zip(colour, veil, strict=True))

    def polygons(
        self, shapes: np.ndarray | Sequence, colour: Colour, z: float, label: int | None = None
    ) -> None:
        """Fill each of ``shapes``, arrays of pixel coordinates ``(N, 2)``."""
        fixed = _fixed_point(shapes) if isinstance(shapes, np.ndarray) else map(_fixed_point, shapes)
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
        self, points: Sequence, thickness: float, colour: Colour, z: float, label: int | None = None
    ) -> None:
        """A line through pixel coordinates, ``thickness`` pixels wide."""
        thickness = max(SUPERSAMPLING, round(thickness))
        fixed = [_fixed_point(points)]
        cv2.polylines(self.image, fixed, False, self.hazy(colour, z), thickness, shift=SUBPIXEL_BITS)
        if label is not None:
            cv2.polylines(self.labels, fixed, False, label, thickness, shift=SUBPIXEL_BITS)

    def disc(
        self, centre: Sequence[float], radius: float, colour: Colour, z: float, label: int | None = None
    ) -> None:
        spot = [round(min(max(float(c), -LIMIT), LIMIT) * (1 << SUBPIXEL_BITS)) for c in centre]
        radius = max(1, round(radius * (1 << SUBPIXEL_BITS)))
        cv2.circle(self.image, spot, radius, self.hazy(colour, z), -1, shift=SUBPIXEL_BITS)
        if label is not None:
            cv2.circle(self.labels, spot, radius, label, -1, shift=SUBPIXEL_BITS)


def _fixed_point(points: np.ndarray | Sequence) -> np.ndarray:
    """OpenCV's integers with ``SUBPIXEL_BITS`` fractional bits."""
    points = np.minimum(np.maximum(np.asarray(points, np.float64), -LIMIT), LIMIT)
    return np.rint(points * (1 << SUBPIXEL_BITS)).astype(np.int32)


# ---------------------------------------------------------------------------------------------------------
# Light and materials
# ---------------------------------------------------------------------------------------------------------
class Light(NamedTuple):
    """How a frame is lit; ``sunlit`` and ``shaded`` are what the street's two sides receive."""

    zenith: Colour
    horizon: Colour
    tint: Colour  # of the whole frame, as factors
    haze_density: float  # 1/metres
    sunlit: float
    shaded: float
    shadow: float  # share of the light that a cast shadow takes
    clouds: float
    lamps: bool


LIGHTS = {
    "day": Light((84, 136, 205), (196, 216, 236), (1.0, 1.0, 0.98), 0.004, 1.08, 0.72, 0.45, 0.5, False),
    "overcast": Light(
        (158, 168, 180), (214, 218, 222), (0.92, 0.95, 1.0), 0.007, 0.95, 0.86, 0.15, 0.25, False
    ),
    "dusk": Light((74, 82, 136), (242, 172, 118), (0.96, 0.82, 0.76), 0.006, 1.05, 0.66, 0.30, 0.6, True),
    "fog": Light((196, 201, 205), (206, 209, 211), (0.95, 0.97, 0.98), 0.026, 0.95, 0.88, 0.08, 0.0, True),
}
LIGHT_CHANCES = {"day": 0.45, "overcast": 0.25, "dusk": 0.18, "fog": 0.12}

# Strength of the fine (one pixel), middle (leaf) and coarse (patch) grain that multiplies a surface.
GRAIN = {
    "road": (0.025, 0.03, 0.04),
    "sidewalk": (0.02, 0.025, 0.03),
    "terrain": (0.13, 0.14, 0.08),
    "vegetation": (0.12, 0.24, 0.10),
    "building": (0.02, 0.02, 0.04),
    "wall": (0.06, 0.09, 0.05),
    "fence": (0.04, 0.03, 0.02),
    "sky": (0.005, 0.0, 0.0),
}
GRAIN_BY_ID = np.array([GRAIN.get(label.name, (0.02, 0.01, 0.02)) for label in LABELS], np.float32)

PLASTER = (
    (214, 196, 160),
    (198, 160, 128),
    (222, 214, 200),
    (170, 178, 184),
    (206, 178, 178),
    (186, 190, 160),
)
BRICK = ((150, 84, 66), (128, 78, 64), (168, 104, 80), (134, 96, 82))
ROOF = ((126, 62, 50), (92, 60, 54), (74, 76, 84))
MASONRY = ((138, 132, 124), (116, 108, 104), (150, 128, 108))
FENCES = ((232, 230, 222), (150, 104, 66), (64, 112, 84), (206, 190, 150))
CAR_PAINT = (
    (190, 30, 34), (36, 66, 150), (226, 228, 230), (40, 42, 46),
    (150, 154, 160), (20, 92, 96), (196, 176, 130),
)  # fmt: skip
BUS_PAINT = ((236, 176, 24), (226, 150, 30), (240, 196, 70))
TRUCK_BOX = ((226, 226, 222), (200, 206, 210), (176, 150, 118), (120, 150, 178))
TRUCK_CAB = ((176, 40, 36), (40, 80, 150), (60, 120, 70), (220, 220, 220))
TRAIN_PAINT = ((188, 36, 52), (30, 120, 110))
CLOTHES = (
    (44, 48, 62),
    (88, 60, 50),
    (110, 112, 118),
    (60, 70, 110),
    (130, 50, 60),
    (190, 182, 170),
    (70, 88, 70),
)
RIDER_CLOTHES = ((236, 106, 22), (196, 230, 40), (230, 60, 110), (40, 170, 230))
BIKE_PAINT = ((230, 60, 50), (40, 160, 90), (60, 110, 220), (240, 200, 50))
SKIN = ((232, 190, 160), (198, 146, 112), (136, 92, 66), (92, 62, 46))
LEAVES = ((66, 104, 44), (84, 116, 40), (58, 92, 56), (104, 118, 44))
GRASS = ((122, 148, 72), (140, 150, 84), (106, 138, 66))
GLASS = (44, 58, 70)
RUBBER = (26, 26, 28)
STEEL = (108, 112, 114)


def scaled(colour: Colour, factor: float) -> Colour:
    return tuple(c * factor for c in colour)


def pick(rng: np.random.Generator, options: Sequence, vary: float = 0.0):
    """One of ``options``; a colour's brightness and hue move by up to ``vary``."""
    option = options[rng.integers(len(options))]
    if vary:
        return tuple(
            c * rng.uniform(1 - vary / 3, 1 + vary / 3)
            for c in scaled(option, rng.uniform(1 - vary, 1 + vary))
        )
    return option


# ---------------------------------------------------------------------------------------------------------
# One frame
# ---------------------------------------------------------------------------------------------------------
def draw_frame(split: str, k: int, *, height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw frame ``k`` of ``split``.

    Returns:
        The image, ``(height, width, 3)`` uint8 in RGB, and its instance ids, ``(height, width)`` uint16: the
        label id, or ``1000 * id + k`` for the k-th instance of a class that has instances.
    """
    # A spawn key keeps the streams of all frames and both splits apart, whatever the seed.
    stream = np.random.SeedSequence(seed, spawn_key=(list(CITIES).index(split), k))
    plan_rng, grain_rng = (np.random.default_rng(child) for child in stream.spawn(2))
    street = Street(plan_rng, height * SUPERSAMPLING, width * SUPERSAMPLING)
    street.paint()
    labels = np.ascontiguousarray(street.canvas.labels[::SUPERSAMPLING, ::SUPERSAMPLING])
    image = cv2.resize(street.canvas.image, (width, height), interpolation=cv2.INTER_AREA)
    image = _expose(image, np.where(labels < 1000, labels, labels // 1000), street.light, grain_rng)
    _mark_border(image, labels)
    return image, labels


def _expose(image: np.ndarray, ids: np.ndarray, light: Light, rng: np.random.Generator) -> np.ndarray:
    """Grain of the surfaces, colour of the light, exposure and noise of the camera."""
    height, width = ids.shape
    fine = rng.standard_normal((height, width), np.float32)
    middle = _smooth_noise(rng, height, width, height / 100)
    coarse = _smooth_noise(rng, height, width, height / 12)
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


def _smooth_noise(rng: np.random.Generator, height: int, width: int, scale: float) -> np.ndarray:
    """Noise of zero mean and about unit deviation whose grains are ``scale`` pixels, ``(height, width)``."""
    scale = max(1.0, scale)
    shape = (math.ceil(height / scale) + 1, math.ceil(width / scale) + 1)
    grains = rng.standard_normal(shape, np.float32)
    return 1.4 * cv2.resize(grains, (width, height), interpolation=cv2.INTER_LINEAR)


def _mark_border(image: np.ndarray, labels: np.ndarray) -> None:
    """The frame's rim, as stereo rectification leaves it in Cityscapes: black slivers, a useless margin."""
    height, width = labels.shape
    margin, sliver = max(1, height // 200), max(1, width // 200)
    for rows, columns in ((slice(margin), slice(None)), (slice(-margin, None), slice(None))):
        labels[rows, columns] = ID["out of roi"]
    for columns in (slice(sliver), slice(-sliver, None)):
        labels[:, columns] = ID["rectification border"]
        image[:, columns] //= 8


class Street:
    """One street: decides what stands where, then paints it from far to near."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng = rng
        self.height, self.width = height, width
        self.light = LIGHTS[rng.choice(list(LIGHTS), p=list(LIGHT_CHANCES.values()))]
        self.sun_side = int(rng.choice((-1, 1)))  # the side the sun stands on: that side's houses are shaded
        self.slant = rng.uniform(0.4, 1.2)  # length of a shadow over the height of what casts it
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
        self.shadows: list[np.ndarray] = []  # on the ground, (N, 3) each
        self.instances: dict[int, int] = {}
        self.taken: list[tuple[float, float, float]] = []  # x, z, radius of what stands on the street

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

    # -- order of work ------------------------------------------------------------------------------------
    def paint(self) -> None:
        self.plan_lots()
        self.plan_traffic()
        self.plan_furniture()
        self.plan_people()
        self.paint_sky()
        self.paint_ground()
        self.paint_shadows()
        self.paint_backdrop()
        for _, task in sorted(self.tasks, key=lambda task: -task[0]):
            task()
        self.paint_hood()

    def add(self, z: float, task: Callable[[], None]) -> None:
        self.tasks.append((z, task))

    def instance(self, name: str) -> int:
        number = self.instances.get(ID[name], 0)
        self.instances[ID[name]] = number + 1
        return 1000 * ID[name] + number

    def free(self, x: float, z: float, radius: float) -> bool:
        """Take the place for something ``radius`` metres around ``(x, z)``, if nothing else has it."""
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
        """Add the shadow on the ground of a box ``height`` metres high."""
        reach = -self.sun_side * height * self.slant
        corners = [(x, 0, z) for x in (x0, x1) for z in (z0, z1)]
        corners += [(x + reach, 0, z - 0.1 * height) for x in (x0, x1) for z in (z0, z1)]
        hull = cv2.convexHull(np.array(corners, np.float32)[:, [0, 2]])[:, 0]
        self.shadows.append(np.insert(hull, 1, 0, axis=1))

    # -- sky and ground -----------------------------------------------------------------------------------
    def paint_sky(self) -> None:
        rng, light = self.rng, self.light
        rows = int(self.camera.horizon) + 2
        ramp = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None] ** 1.3
        sky = np.asarray(light.zenith, np.float32) * (1 - ramp) + np.asarray(light.horizon, np.float32) * ramp
        small = (self.width // 4, rows // 4 + 1)
        clouds = sum(_smooth_noise(rng, small[1], small[0], small[1] / cells) / cells for cells in (3, 6, 12))
        cover = np.clip(clouds * 2.0 + rng.uniform(-0.6, 0.4), 0, 1) * light.clouds
        cover = cv2.resize(cover, (self.width, rows))[..., None]
        white = np.clip(np.asarray(light.horizon, np.float32) * 1.12, 0, 250)
        self.canvas.image[:rows] = sky * (1 - cover) + white * cover
        self.canvas.labels[:rows] = ID["sky"]

    def paint_ground(self) -> None:
        """Road, kerbs, sidewalks and grass by the position that each pixel below the horizon shows."""
        rng, camera = self.rng, self.camera
        first = int(camera.horizon) + 1
        drop = np.arange(first, self.height, dtype=np.float32) + 0.5 - camera.horizon
        z = (camera.focal * camera.eye / drop)[:, None]
        columns = np.arange(self.width, dtype=np.float32)[None] + 0.5 - camera.centre
        x = columns * (z / camera.focal) - np.float32(camera.bend) * z * z

        # Index of the strip at each pixel: 0 road, 1 kerb, 2 sidewalk, 3 grass.
        edges = {
            side: (
                self.kerb[side],
                self.kerb[side] + 0.25,
                self.walk[side] if self.lot[side] > self.walk[side] else 1e6,
            )
            for side in (-1, 1)
        }
        strip = np.zeros(x.shape, np.uint8)
        for right, left in zip(edges[1], edges[-1], strict=True):
            strip += (x > right) | (x < -left)
        if self.crossing:
            near, far = self.crossing
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
        clear = np.exp(-np.float32(self.canvas.haze_density) * z)
        ground = colours[strip] * (shade * clear)[..., None]
        ground += np.asarray(self.canvas.haze, np.float32) * (1 - clear)[..., None]
        self.canvas.image[first:] = np.clip(ground, 0, 255)
        self.canvas.labels[first:] = strip_ids[strip]
        self.paint_markings()

    def paint_markings(self) -> None:
        paint = (212, 212, 206)
        end = 70.0
        near, far = self.crossing or (end, end)
        spans = [(2.0, near - 4.0), (far + 2.0, end)] if self.crossing else [(2.0, end)]
        road = ID["road"]
        dashes, solid = [], []
        for z0, z1 in spans:
            starts = np.arange(z0, z1, 6.0)
            for x in np.arange(-1.6 - 3.2 * 2, self.kerb[1] - 0.5, 3.2):
                if x < -self.kerb[-1] + 0.5:
                    continue
                dashes += [ground_quad(x - 0.07, x + 0.07, z, min(z + 3.0, z1)) for z in starts]
            for side in (-1, 1):
                if self.parking[side] > 1:
                    x = side * (self.kerb[side] - self.parking[side])
                    solid += [
                        ground_quad(x - 0.06, x + 0.06, z, min(z + 8, z1)) for z in np.arange(z0, z1, 8.0)
                    ]
        for quad in dashes + solid:
            self.canvas.quads(quad, paint, road)
        if self.crossing:
            stripes = np.arange(-self.kerb[-1] + 0.5, self.kerb[1] - 0.5, 1.0)
            self.canvas.quads([ground_quad(x, x + 0.5, near - 3.2, near - 0.6) for x in stripes], paint, road)
        if self.has_rails:
            for x in (-3.2 - 0.72, -3.2 + 0.72):
                rails = [ground_quad(x - 0.05, x + 0.05, z, z + 4) for z in np.arange(2.0, 80.0, 4.0)]
                self.canvas.quads(rails, (52, 50, 54), road)

    def paint_shadows(self) -> None:
        mask = np.zeros((self.height // 2, self.width // 2), np.uint8)
        for shape in self.shadows:
            cv2.fillPoly(mask, [_fixed_point(self.camera.project(shape) / 2)], 255, shift=SUBPIXEL_BITS)
        first = int(self.camera.horizon) + 1
        mask = cv2.GaussianBlur(mask, (0, 0), self.height / 400)
        mask = cv2.resize(mask, (self.width, self.height))[first:]
        keep = 256 - (mask.astype(np.uint16) * int(256 * self.light.shadow) >> 8)
        ground = self.canvas.image[first:]
        ground[:] = ground * keep[..., None] >> 8

    def paint_backdrop(self) -> None:
        """What closes the view: far houses and trees all along the horizon."""
        rng, z = self.rng, 95.0
        x = -150.0
        while x < 150:
            step = rng.uniform(8, 16)
            if rng.random() < 0.6:
                height = rng.uniform(6, 16)
                colour = pick(rng, PLASTER + BRICK, 0.1)
                self.canvas.quads(
                    [upright_quad((x, 0, z), (x + step, 0, z), 0, height)], colour, ID["building"]
                )
                rows = [
                    upright_quad((x + 1, 0, z), (x + step - 1, 0, z), y, y + 1.2)
                    for y in np.arange(2, height - 1, 3)
                ]
                self.canvas.quads(rows, scaled(colour, 0.7))
            else:
                self.crown(x + step / 2, z, rng.uniform(3, 5), step * 0.6, rng.uniform(3, 5), discs=14)
            x += step

    # -- lots along the street ----------------------------------------------------------------------------
    def plan_lots(self) -> None:
        rng = self.rng
        # Every street has a wall and a fence that are near enough to be seen well.
        wall_side = int(rng.choice((-1, 1)))
        near_kinds = {wall_side: "wall", -wall_side: "fence"}
        for side in (-1, 1):
            kinds = ["building"]
            kinds.insert(int(rng.integers(2)), near_kinds[side])
            kinds.append(str(rng.choice(("building", near_kinds[-side]))))
            z = rng.uniform(3.0, 7.0)
            while z < 80:
                length = rng.uniform(8, 14)
                if self.crossing:
                    near, far = self.crossing
                    if near - 6 < z < far + 2.6:
                        z = far + 2.6
                    elif z < near and z + length > near - 2.6:
                        length = near - 2.6 - z
                kind = (
                    kinds.pop(0)
                    if kinds
                    else str(rng.choice(("building", "wall", "fence", "park"), p=(0.66, 0.1, 0.1, 0.14)))
                )
                after_crossing = bool(self.crossing) and z == self.crossing[1] + 2.6
                depth = 45.0 if after_crossing else rng.uniform(9, 13)
                if after_crossing:
                    kind = "building"
                getattr(self, f"plan_{kind}")(side, z, z + length, depth)
                z += length

    def plan_building(self, side: int, z0: float, z1: float, depth: float, setback: float = 0.0) -> None:
        rng = self.rng
        x = side * (self.lot[side] + setback)
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
            lit=0.6 * rng.random() if self.light.lamps else 0.0,
        )
        if rng.random() < 0.7 or setback:
            self.cast(x, house.outer, z0, z1, house.height if side == self.sun_side else 0.1)
        self.add(z1 + setback * 2, lambda: self.paint_building(house, side))

    def paint_building(self, house: "House", side: int) -> None:
        x, z0, z1, height, colour = house.x, house.z0, house.z1, house.height, house.colour
        if house.roof is not None:
            eaves = x + side * min(abs(house.outer - x), 10)
            ridge, top = (x + eaves) / 2, height + 2.6
            gable = [(x, height, z0), (ridge, top, z0), (eaves, height, z0)]
            self.canvas.polygons([self.camera.project(gable)], scaled(colour, 0.84), z0, ID["building"])
            slope = [(x, height, z0), (x, height, z1), (ridge, top, z1), (ridge, top, z0)]
            self.canvas.quads([slope], scaled(house.roof, self.side_light(side)), ID["building"])
        self.paint_facade(house, (x, 0, z0), (house.outer, 0, z0), 0.84)
        self.paint_facade(house, (x, 0, z0), (x, 0, z1), self.side_light(side))

    def paint_facade(self, house: "House", start: Point, end: Point, light: float) -> None:
        """The face of ``house`` that stands on the line from ``start`` to ``end``."""
        canvas, colour, height = self.canvas, house.colour, house.height
        length = math.dist(start, end)

        def along(share: float) -> np.ndarray:
            return np.add(start, np.subtract(end, start) * share)

        # A face that runs into the distance is cut, because the haze of a piece is that of its middle.
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
        canvas.quads([pane for pane in panes if self.rng.random() < house.lit], (250, 214, 130))
        if house.shop is not None:
            canvas.quads([upright_quad(start, end, 0.5, 2.4)], scaled((60, 70, 80), light))
            canvas.quads([upright_quad(start, end, 2.4, 3.1)], scaled(house.shop, light))
            posts = [upright_quad(along(t), along(t + 0.03), 0, 2.4) for t in np.linspace(0, 0.97, bays + 1)]
            canvas.quads(posts, scaled(colour, light * 0.9))

    def plan_wall(self, side: int, z0: float, z1: float, depth: float) -> None:
        rng = self.rng
        x, height = side * self.lot[side], rng.uniform(2.3, 3.3)
        colour, bricks = pick(rng, MASONRY, 0.1), rng.random() < 0.7
        self.plan_behind(side, z0, z1, depth)
        self.cast(x, x + side * 0.3, z0, z1, height)
        self.add(z1, lambda: self.paint_wall(side, x, z0, z1, height, colour, bricks))

    def paint_wall(
        self, side: int, x: float, z0: float, z1: float, height: float, colour: Colour, bricks: bool
    ) -> None:
        canvas, wall = self.canvas, ID["wall"]
        colour = scaled(colour, self.side_light(side))
        canvas.quads(
            [upright_quad((x, 0, z0), (x + side * 0.4, 0, z0), 0, height)], scaled(colour, 0.8), wall
        )
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

    def plan_fence(self, side: int, z0: float, z1: float, depth: float) -> None:
        rng = self.rng
        x, height, colour = side * self.lot[side], rng.uniform(1.9, 2.7), pick(rng, FENCES, 0.08)
        self.plan_behind(side, z0, z1, depth)
        self.add(z1, lambda: self.paint_fence(side, x, z0, z1, height, colour))

    def paint_fence(self, side: int, x: float, z0: float, z1: float, height: float, colour: Colour) -> None:
        """Pickets with gaps in the image; as in Cityscapes, the label is filled."""
        canvas = self.canvas
        colour = scaled(colour, self.side_light(side))
        outline = self.camera.project([(x, y, z) for y, z in ((0, z0), (0, z1), (height, z1), (height, z0))])
        cv2.fillPoly(canvas.labels, [_fixed_point(outline)], ID["fence"], shift=SUBPIXEL_BITS)
        for z in np.arange(z0, z1, 3.0):
            end = min(z + 3.0, z1)
            pickets = [
                upright_quad((x, 0, t), (x, 0, min(t + 0.2, end)), 0.08, height)
                for t in np.arange(z, end, 0.36)
            ]
            canvas.quads(pickets, colour)
            for low in (0.35, height - 0.4):
                canvas.quads([upright_quad((x, 0, z), (x, 0, end), low, low + 0.14)], scaled(colour, 0.8))
            canvas.quads([upright_quad((x, 0, z), (x, 0, min(z + 0.3, end)), 0, height)], scaled(colour, 0.7))

    def plan_behind(self, side: int, z0: float, z1: float, depth: float) -> None:
        """What looks over a wall or through a fence: a house set back, or trees."""
        rng = self.rng
        if rng.random() < 0.5:
            self.plan_building(side, z0, z1, depth, setback=rng.uniform(3.5, 6))
        else:
            for z in np.arange(z0 + 1.5, z1, rng.uniform(3, 5)):
                self.plan_tree(side * (self.lot[side] + rng.uniform(2.5, 5)), float(z), order=z1 + 1)

    def plan_park(self, side: int, z0: float, z1: float, depth: float) -> None:
        rng = self.rng
        for z in np.arange(z0, z1, 2.5):
            self.plan_tree(side * (self.lot[side] + rng.uniform(1, depth)), float(z) + rng.uniform(0, 2))
        hedge, radius = side * (self.lot[side] + 0.6), rng.uniform(0.6, 0.9)
        for z in np.arange(z0, z1, 1.0):
            self.add(float(z), lambda z=float(z): self.crown(hedge, z, radius, radius * 1.2, radius, discs=8))

    # -- plants -------------------------------------------------------------------------------------------
    def plan_tree(self, x: float, z: float, order: float | None = None) -> None:
        rng = self.rng
        height, radius = rng.uniform(4.0, 6.5), rng.uniform(1.4, 2.4)
        self.cast(x - radius * 0.7, x + radius * 0.7, z - radius * 0.5, z + radius * 0.5, height * 0.5)

        def task() -> None:
            z_clear = max(z, NEAR)
            base, top = self.camera.project([(x, 0, z_clear), (x, height, z_clear)])
            thickness = self.camera.pixels(0.32, z)
            self.canvas.line([base, top], thickness, scaled((92, 70, 52), 0.9), z, ID["vegetation"])
            self.canvas.line([base + (thickness * 0.2, 0), top], thickness * 0.4, (118, 94, 70), z)
            self.crown(x, z, height, radius, radius * 0.9, discs=26)

        self.add(z if order is None else order, task)

    def crown(self, x: float, z: float, y: float, half_width: float, half_height: float, discs: int) -> None:
        """Foliage around ``(x, y, z)``: discs, dark and wide below, lighter and smaller towards the sun."""
        rng = self.rng
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
                    x + half_width * (reach * np.cos(angle) + self.sun_side * lift),
                    y + half_height * (reach * np.sin(angle) + lift),
                    np.full(discs, max(z, NEAR)),
                ],
                axis=1,
            )
            for point, wobble in zip(
                self.camera.project(points), rng.uniform(0.7, 1.2, (discs, 2)), strict=True
            ):
                pixels = self.camera.pixels(size * radius * wobble[0], z)
                self.canvas.disc(point, pixels, scaled(colour, light * (0.85 + 0.15 * wobble[1])), z, label)

    # -- vehicles -----------------------------------------------------------------------------------------
    def plan_traffic(self) -> None:
        rng = self.rng
        big = [str(kind) for kind in rng.permutation(("bus", "truck", "train"))]
        big = big[: 2 + int(rng.random() < 0.3)]
        oncoming, ahead = -3.2, 0.0
        cursor = {oncoming: rng.uniform(8, 13), ahead: rng.uniform(11, 18)}
        self.has_rails = "train" in big

        # One large vehicle in each lane, so that none hides another.
        lanes = [oncoming, ahead] if rng.random() < 0.5 else [ahead, oncoming]
        if "train" in big:  # on its rails, in the lane that comes towards the camera
            cursor[oncoming] += self.plan_vehicle("train", oncoming, cursor[oncoming], True) + 3
            big.remove("train")
            lanes.remove(oncoming)
        for kind in big:
            if self.crossing and rng.random() < 0.3:
                # Ahead at the junction, seen from its side.
                side = int(rng.choice((-1, 1)))
                self.plan_vehicle(kind, side * rng.uniform(0, 5), sum(self.crossing) / 2, False, across=True)
            elif self.parking[1] > 1 and rng.random() < 0.4:
                x, z = self.kerb[1] - 1.35, rng.uniform(8, 13)
                length = self.plan_vehicle(kind, x, z, False)
                self.taken += [(x, z + along, 1.6) for along in np.arange(0, length, 1.5)]
            else:
                lane = lanes.pop() if lanes else oncoming
                cursor[lane] += self.plan_vehicle(kind, lane, cursor[lane], lane == oncoming) + rng.uniform(
                    3, 6
                )
        for lane, start in cursor.items():
            z = start + rng.uniform(0, 3)
            while z < 60:
                z += self.plan_vehicle("car", lane, z, lane == oncoming) + rng.uniform(4, 18)
        for side in (-1, 1):
            if self.parking[side] < 1:
                continue
            z = rng.uniform(4.5, 9)
            while z < 55:
                x = side * (self.kerb[side] - 1.15)
                if rng.random() < 0.65 and self.free(x, z + 2.2, 2.4):
                    self.plan_vehicle("car", x, z, side == -1)
                z += rng.uniform(5.2, 6.5)
        if self.crossing and rng.random() < 0.6:
            x = rng.choice((-1, 1)) * rng.uniform(1.5, 9)
            self.plan_vehicle("car", x, self.crossing[0] + 2, False, across=True)

    def plan_vehicle(self, kind: str, x: float, z: float, oncoming: bool, across: bool = False) -> float:
        """Plan a vehicle whose near end is ``z`` away, or which drives ``across`` the view at that distance.

        Returns:
            Its length in metres.
        """
        label = self.instance(kind)
        bodies, width = VEHICLES[kind](self.rng, oncoming or across)
        length = max(along for body in bodies for along, _ in body.profile)
        if across:
            self.cast(x - length / 2, x + length / 2, z, z + width, 1.2)
            direction = 1 if self.rng.random() < 0.5 else -1
            self.add(z, lambda: self.paint_across(bodies, x, z, width, length, label, direction))
        else:
            self.cast(x - width / 2, x + width / 2, z, z + length, 1.2)
            self.add(z, lambda: self.paint_along(bodies, x, z, width, label, oncoming))
        return length

    def paint_along(
        self, bodies: list["Body"], x: float, z: float, width: float, label: int, oncoming: bool
    ) -> None:
        """A vehicle that drives along the street; ``bodies`` from the far one to the near one."""
        left, right = x - width / 2, x + width / 2
        seen = left if left + self.camera.bend * z * z > 0 else right  # the side that faces the camera
        side_light = self.side_light(1 if seen == left else -1)
        end_light = 0.5 * (1 + self.light.shaded)

        def place(points: Sequence, side: float) -> np.ndarray:
            return self.camera.project([(side, up, z + along) for along, up in points])

        for body in bodies:
            for side in (left, right):
                self.paint_wheels(body, functools.partial(place, side=side), z, label, hubs=False)
            self.paint_body(
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
                light = self.light.sunlit if flat else end_light
                ends = ((a0, y0), (a1, y1))
                self.canvas.quads([sloping_quad(left, right, z, *ends)], scaled(body.colour, light))
                if i == body.pane:
                    pane = sloping_quad(left + 0.09 * width, right - 0.09 * width, z, *ends)
                    self.canvas.quads([pane], scaled(GLASS, 0.9 + 0.4 * self.light.sunlit))
            if body.profile[0][0] == 0:  # not hidden behind another body
                self.paint_end(body, left, right, z, oncoming, end_light)

    def paint_across(
        self,
        bodies: list["Body"],
        x: float,
        z: float,
        width: float,
        length: float,
        label: int,
        direction: int,
    ) -> None:
        """A vehicle that crosses the view, seen from its side; ``direction`` 1 has its nose on the left."""

        def place(points: Sequence, depth: float = 0.0) -> np.ndarray:
            return self.camera.project(
                [(x + direction * (along - length / 2), up, z + depth) for along, up in points]
            )

        for body in bodies:
            light = 0.5 * (1 + self.light.shaded)
            self.paint_body(body, place, place(body.profile, width), light, z, label)

    def paint_body(
        self, body: "Body", place: Callable, far_side: np.ndarray, light: float, z: float, label: int
    ) -> None:
        """Outline, visible side, stripe, windows and wheels; ``place`` projects a point of that side."""
        canvas = self.canvas
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
        self.paint_wheels(body, place, z, label, hubs=True)

    def paint_wheels(self, body: "Body", place: Callable, z: float, label: int, hubs: bool) -> None:
        for along, radius in body.wheels:
            for share, colour in ((1.0, RUBBER), (0.55, STEEL))[: 1 + hubs]:
                ring = [(along + radius * share * c, radius + radius * share * s) for c, s in CIRCLE]
                self.canvas.polygons([place(ring)], colour, z + along, label)

    def paint_end(
        self, body: "Body", left: float, right: float, z: float, oncoming: bool, light: float
    ) -> None:
        """Doors, bumper, lights and number plate on the end that faces the camera."""
        width, middle = right - left, (left + right) / 2
        low, high = body.profile[0][1], body.profile[1][1]

        def panel(x0: float, x1: float, y0: float, y1: float, colour: Colour) -> None:
            self.canvas.quads([upright_quad((x0, 0, z - 0.02), (x1, 0, z - 0.02), y0, y1)], colour)

        if body.doors:
            panel(left + 0.06, right - 0.06, low + 0.1, high - 0.08, scaled(body.colour, light * 0.93))
            panel(middle - 0.03, middle + 0.03, low + 0.1, high - 0.08, scaled(STEEL, 0.8))
            low, high = 0.55, low
            panel(left, right, low, high, scaled(STEEL, 0.5))
        panel(left, right, low, low + 0.16, scaled(STEEL, 0.45))
        y0, y1 = low + 0.5 * (high - low), low + 0.9 * (high - low)
        headlight = (255, 250, 220) if self.light.lamps else (226, 226, 214)
        colour = headlight if oncoming else (214, 26, 26)
        panel(left + 0.04, left + 0.2 * width, y0, y1, colour)
        panel(right - 0.2 * width, right - 0.04, y0, y1, colour)
        if not body.doors:
            panel(middle - 0.26, middle + 0.26, low + 0.2, low + 0.32, (228, 228, 220))

    # -- things on the sidewalk ---------------------------------------------------------------------------
    def plan_furniture(self) -> None:
        rng = self.rng
        for side in (-1, 1):
            x = side * (self.kerb[side] + 0.5)
            for z in np.arange(rng.uniform(6, 13), 60, rng.uniform(13, 18)):
                if self.free(x, float(z), 0.5):
                    self.plan_lamp(x, float(z), side)
        if self.crossing:
            for side in (-1, 1):
                z = self.crossing[0] - 1.3
                self.plan_traffic_light(side * (self.kerb[side] + 0.45), z, side)
        for side in (-1, 1):
            x, z = side * (self.kerb[side] + 0.4), rng.uniform(7.5, 14)
            if rng.random() < 0.6 and self.free(x, z, 0.7):
                self.plan_traffic_light(x, z, side)
        for _ in range(int(rng.integers(4, 8))):
            side = int(rng.choice((-1, 1)))
            x, z = side * (self.kerb[side] + rng.uniform(0.4, 0.9)), rng.uniform(6.5, 17)
            if self.free(x, z, 0.8):
                self.plan_sign(x, z)
        for side in (-1, 1):
            strip = self.lot[side] - self.walk[side]
            for z in np.arange(rng.uniform(9, 16), 70, rng.uniform(8, 13)):
                if rng.random() < 0.6:
                    x = side * ((self.walk[side] + strip / 2) if strip else (self.kerb[side] + 0.9))
                    if self.free(x, float(z), 0.8):
                        self.plan_tree(x, float(z))
            if rng.random() < 0.4:
                for z in np.arange(rng.uniform(5, 9), 16, 1.8):
                    if self.free(side * (self.kerb[side] + 0.35), float(z), 0.3):
                        self.plan_bollard(side * (self.kerb[side] + 0.35), float(z))
            if rng.random() < 0.6:
                x, z = side * (self.walk[side] - 0.5), rng.uniform(6, 14)
                if self.free(x, z, 0.9):
                    self.plan_box(x, z)

    def post(
        self, x: float, z: float, y0: float, y1: float, metres: float, colour: Colour, label: int
    ) -> None:
        """An upright bar from ``y0`` to ``y1``, with a lit edge."""
        low, high = self.camera.project([(x, y0, z), (x, y1, z)])
        thickness = self.camera.pixels(metres, z)
        self.canvas.line([low, high], thickness, colour, z, label)
        edge = np.array((self.sun_side * thickness * 0.25, 0))
        self.canvas.line([low + edge, high + edge], thickness * 0.3, scaled(colour, 1.35), z)

    def plan_lamp(self, x: float, z: float, side: int) -> None:
        height = self.rng.uniform(5.5, 7.0)
        self.cast(x - 0.1, x + 0.1, z - 0.05, z + 0.05, height * 0.6)

        def task() -> None:
            pole = ID["pole"]
            self.post(x, z, 0, height, 0.28, (112, 118, 120), pole)
            arm = self.camera.project([(x, height, z), (x - side * 1.4, height + 0.25, z)])
            self.canvas.line(arm, self.camera.pixels(0.16, z), (104, 110, 112), z, pole)
            head = self.camera.project([(x - side * 1.1, height + 0.2, z), (x - side * 1.9, height + 0.3, z)])
            glow = (255, 240, 190) if self.light.lamps else (206, 208, 204)
            self.canvas.line(head, self.camera.pixels(0.26, z), glow, z, pole)

        self.add(z, task)

    def plan_bollard(self, x: float, z: float) -> None:
        self.add(z, lambda: self.post(x, z, 0, 1.0, 0.22, (122, 122, 124), ID["pole"]))

    def plan_box(self, x: float, z: float) -> None:
        """A cabinet or a bin: Cityscapes' ``static`` and ``dynamic``, neither of which is evaluated."""
        rng = self.rng
        name = str(rng.choice(("static", "dynamic")))
        width, height = rng.uniform(0.6, 1.0), rng.uniform(0.9, 1.3)
        colour = pick(rng, ((70, 110, 80), (120, 120, 124), (60, 80, 120)), 0.1)
        self.cast(x - width / 2, x + width / 2, z, z + 0.5, 0.8)

        def task() -> None:
            corner = x + width / 2 * (-1 if x > 0 else 1)
            self.canvas.quads(
                [upright_quad((corner, 0, z), (corner, 0, z + 0.6), 0, height)], scaled(colour, 0.8), ID[name]
            )
            front = ((x - width / 2, 0, z), (x + width / 2, 0, z))
            self.canvas.quads([upright_quad(*front, 0, height)], colour, ID[name])
            self.canvas.quads([upright_quad(*front, height - 0.15, height)], scaled(colour, 0.7))

        self.add(z, task)

    def plan_traffic_light(self, x: float, z: float, side: int) -> None:
        rng = self.rng
        height, lit = rng.uniform(2.4, 3.0), int(rng.integers(3))
        over_road = rng.random() < 0.4
        mast = height + 2.4

        def head(cx: float, low: float) -> None:
            light = ID["traffic light"]
            box = upright_quad((cx - 0.34, 0, z), (cx + 0.34, 0, z), low, low + 1.5)
            self.canvas.quads([box], (30, 34, 30), light)
            for i, colour in enumerate(((60, 230, 110), (250, 190, 40), (250, 50, 40))):
                centre = self.camera.project((cx, low + 0.28 + 0.47 * i, z))
                colour = colour if i == lit else scaled(colour, 0.3)
                self.canvas.disc(centre, self.camera.pixels(0.19, z), colour, z)

        def task() -> None:
            pole = ID["pole"]
            self.post(x, z, 0, mast if over_road else height + 0.2, 0.2, (96, 100, 104), pole)
            head(x, height)
            if over_road:
                reach = x - side * 3.0
                arm = self.camera.project([(x, mast, z), (reach, mast, z)])
                self.canvas.line(arm, self.camera.pixels(0.16, z), (96, 100, 104), z, pole)
                head(reach, mast - 1.1)

        self.add(z, task)

    def plan_sign(self, x: float, z: float) -> None:
        rng = self.rng
        kind = int(rng.integers(6))
        y, radius = rng.uniform(2.2, 2.7), rng.uniform(0.46, 0.6)
        board = pick(rng, ((24, 84, 170), (20, 120, 70), (240, 200, 30)))

        def ring(scale: float, corners: int, turn: float) -> np.ndarray:
            angle = np.arange(corners) * 2 * math.pi / corners + turn
            spot = [(x + radius * scale * math.cos(a), y + radius * scale * math.sin(a), z) for a in angle]
            return self.camera.project(spot)

        def task() -> None:
            sign = ID["traffic sign"]
            white, red, blue, yellow = (240, 240, 236), (206, 24, 34), (24, 84, 180), (246, 206, 40)
            if kind == 5:  # a direction board on two posts
                for post_x in (x - 0.6, x + 0.6):
                    self.post(post_x, z, 0, y - 0.4, 0.14, (130, 132, 134), ID["pole"])
                ends = ((x - 1.0, 0, z), (x + 1.0, 0, z))
                self.canvas.quads([upright_quad(*ends, y - 0.5, y + 0.6)], white, sign)
                ends = ((x - 0.94, 0, z), (x + 0.94, 0, z))
                self.canvas.quads([upright_quad(*ends, y - 0.44, y + 0.54)], board)
                rows = [
                    upright_quad((x - 0.75, 0, z), (x + 0.4, 0, z), low, low + 0.16)
                    for low in (y - 0.2, y + 0.2)
                ]
                self.canvas.quads(rows, white)
                return
            self.post(x, z, 0, y, 0.16, (130, 132, 134), ID["pole"])
            outer, inner, corners, turn = (
                (red, white, 20, 0.0), (blue, white, 20, 0.0), (red, white, 3, math.pi / 2),
                (yellow, scaled(yellow, 0.75), 4, 0.0), (red, red, 8, math.pi / 8),
            )[kind]  # fmt: skip
            scale = 1.25 if corners < 5 else 1.0
            self.canvas.polygons([ring(scale, corners, turn)], outer, z, sign)
            self.canvas.polygons([ring(scale * (0.4 if outer == blue else 0.66), corners, turn)], inner, z)
            if kind == 4:
                ends = ((x - 0.3, 0, z), (x + 0.3, 0, z))
                self.canvas.quads([upright_quad(*ends, y - 0.08, y + 0.08)], white)

        self.add(z, task)

    # -- people and two-wheelers --------------------------------------------------------------------------
    def plan_people(self) -> None:
        rng = self.rng
        for kind in ("bicycle", "motorcycle"):
            if rng.random() < 0.75:  # ridden
                for _ in range(6):
                    # Beside the parked cars, or on the line between the lanes, nearer than what drives there.
                    at_kerb = rng.random() < 0.6
                    x = self.kerb[1] - self.parking[1] - 0.4 if at_kerb else -1.6
                    z = rng.uniform(5.5, 10.5 if at_kerb else 8.0)
                    yaw = rng.uniform(0.5, 1.1) * rng.choice((-1, 1)) + math.pi * rng.integers(2)
                    if self.free(x, z, 1.1):
                        self.plan_two_wheeler(kind, x, z, yaw, ridden=True)
                        break
            if rng.random() < 0.75:  # parked, alone or in a row
                side = int(rng.choice((-1, 1)))
                x, z = side * (self.kerb[side] + rng.uniform(0.7, 1.1)), rng.uniform(5.5, 11)
                yaw = rng.uniform(-0.3, 0.3) + math.pi * rng.integers(2)
                for i in range(int(rng.integers(1, 4))):
                    if self.free(x, z + 1.3 * i, 0.75):
                        self.plan_two_wheeler(kind, x, z + 1.3 * i, yaw, ridden=False)
        wanted, placed = int(rng.integers(4, 9)), 0
        for _ in range(4 * wanted):
            if placed == wanted:
                break
            if rng.random() < 0.15:
                x, z = rng.uniform(-self.kerb[-1], self.kerb[1]), rng.uniform(7, 16)
            else:
                side = int(rng.choice((-1, 1)))
                x, z = side * rng.uniform(self.kerb[side] + 0.6, self.walk[side] - 0.3), rng.uniform(5.5, 17)
            if self.free(x, z, 0.45):
                self.plan_person(x, z)
                placed += 1
        if rng.random() < 0.3:  # a crowd that nobody would outline one by one
            side = int(rng.choice((-1, 1)))
            for _ in range(6):
                x = side * rng.uniform(self.kerb[side] + 0.5, self.walk[side])
                self.plan_person(x, rng.uniform(24, 27), label=ID["person"])

    def plan_person(self, x: float, z: float, label: int | None = None) -> None:
        rng = self.rng
        label = self.instance("person") if label is None else label
        height, stride = rng.uniform(1.6, 1.9), rng.uniform(-0.28, 0.28)
        jacket, trousers, skin = pick(rng, CLOTHES, 0.2), pick(rng, CLOTHES, 0.3), pick(rng, SKIN)
        hair = pick(rng, ((36, 28, 24), (90, 62, 38), (150, 120, 80), (120, 118, 116)))
        self.cast(x - 0.2, x + 0.2, z - 0.1, z + 0.1, 0.9)

        def task() -> None:
            def at(across: float, up: float) -> np.ndarray:
                return self.camera.project((x + across, up * height / 1.75, z))

            def limb(points: Sequence, metres: float, colour: Colour) -> None:
                self.canvas.line([at(*p) for p in points], self.camera.pixels(metres, z), colour, z, label)

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
            self.canvas.disc(at(0, 1.64), self.camera.pixels(0.145, z), hair, z, label)
            self.canvas.disc(at(0.02, 1.6), self.camera.pixels(0.11, z), skin, z, label)

        self.add(z, task)

    def plan_two_wheeler(self, kind: str, x: float, z: float, yaw: float, ridden: bool) -> None:
        """A bicycle or motorcycle in the upright plane through ``(x, z)`` that is turned by ``yaw``."""
        rng = self.rng
        bike, rider = self.instance(kind), self.instance("rider") if ridden else None
        paint, jacket = pick(rng, BIKE_PAINT, 0.12), pick(rng, RIDER_CLOTHES, 0.12)
        trousers, skin = pick(rng, CLOTHES, 0.2), pick(rng, SKIN)
        helmet = pick(rng, ((236, 236, 232), (30, 30, 34), (220, 40, 40)), 0.05)
        self.cast(x - 0.7 * abs(math.cos(yaw)), x + 0.7 * abs(math.cos(yaw)), z - 0.2, z + 0.2, 0.8)

        def at(along: float, up: float) -> np.ndarray:
            return self.camera.project((x + along * math.cos(yaw), up, z + along * math.sin(yaw)))

        def bar(points: Sequence, metres: float, colour: Colour, label: int) -> None:
            self.canvas.line([at(*p) for p in points], self.camera.pixels(metres, z), colour, z, label)

        def ring(along: float, radius: float) -> np.ndarray:
            return np.array([at(along + radius * c, radius + 0.02 + radius * s) for c, s in CIRCLE])

        def bicycle() -> None:
            pixels = self.camera.pixels
            for along in (-0.54, 0.54):
                outline = ring(along, 0.36)
                # The label is filled, as in Cityscapes; the image shows tyre, spokes and what is behind.
                cv2.fillPoly(self.canvas.labels, [_fixed_point(outline)], bike, shift=SUBPIXEL_BITS)
                for i in range(0, 12, 2):
                    self.canvas.line([outline[i], outline[i + 12]], pixels(0.012, z), (150, 152, 154), z)
                self.canvas.line([*outline, outline[0]], pixels(0.075, z), RUBBER, z, bike)
            frame = [(-0.54, 0.38), (-0.05, 0.33), (0.4, 0.84), (-0.2, 0.8), (-0.54, 0.38)]
            cv2.fillPoly(
                self.canvas.labels, [_fixed_point([at(*p) for p in frame])], bike, shift=SUBPIXEL_BITS
            )
            bar(frame, 0.07, paint, bike)
            bar([(-0.05, 0.33), (-0.24, 0.92)], 0.07, paint, bike)
            bar([(0.54, 0.38), (0.38, 0.98), (0.28, 1.04)], 0.07, paint, bike)
            bar([(-0.36, 0.95), (-0.12, 0.95)], 0.09, RUBBER, bike)

        def motorcycle() -> None:
            for along in (-0.72, 0.72):
                self.canvas.polygons([ring(along, 0.35)], RUBBER, z, bike)
                self.canvas.polygons([ring(along, 0.15) - (0, self.camera.pixels(0.2, z))], STEEL, z)
            low = [(-0.5, 0.35), (-0.4, 0.75), (0.3, 0.75), (0.45, 0.35), (0.1, 0.22), (-0.3, 0.22)]
            self.canvas.polygons([np.array([at(*p) for p in low])], (58, 60, 64), z, bike)
            bar([(0.72, 0.4), (0.46, 1.0), (0.34, 1.1)], 0.13, STEEL, bike)
            bar([(-0.2, 0.36), (-0.95, 0.42)], 0.12, (170, 172, 176), bike)
            tank = [(-0.1, 0.72), (-0.05, 0.98), (0.35, 1.04), (0.52, 0.86), (0.35, 0.66)]
            self.canvas.polygons([np.array([at(*p) for p in tank])], paint, z, bike)
            seat = [(-0.9, 0.9), (-0.75, 0.72), (-0.1, 0.7), (-0.05, 0.86), (-0.5, 0.86)]
            self.canvas.polygons([np.array([at(*p) for p in seat])], (34, 32, 34), z, bike)
            self.canvas.disc(at(0.55, 0.92), self.camera.pixels(0.12, z), (250, 246, 220), z, bike)

        def person() -> None:
            lean = 0.1 if kind == "motorcycle" else 0.2
            bar([(-0.2, 0.95), (0.18, 0.7), (0.02, 0.3)], 0.2, trousers, rider)
            bar([(-0.2, 1.0), (lean, 1.4)], 0.38, jacket, rider)
            bar([(lean, 1.4), (0.22, 1.12), (0.42, 1.06)], 0.14, scaled(jacket, 0.85), rider)
            self.canvas.disc(at(lean + 0.08, 1.66), self.camera.pixels(0.12, z), skin, z, rider)
            self.canvas.disc(at(lean + 0.05, 1.72), self.camera.pixels(0.16, z), helmet, z, rider)

        def task() -> None:
            bicycle() if kind == "bicycle" else motorcycle()
            if ridden:
                person()

        self.add(z, task)

    # -- the camera's own car -----------------------------------------------------------------------------
    def paint_hood(self) -> None:
        rng, height, width = self.rng, self.height, self.width
        top = height * rng.uniform(0.93, 0.965)
        columns = np.linspace(-0.02, 1.02, 30) * width
        edge = top + (height - top) * 1.1 * np.abs(np.linspace(-1, 1, 30)) ** 3.5
        outline = np.concatenate(
            [np.stack([columns, edge], 1), [(1.02 * width, height + 9), (-0.02 * width, height + 9)]]
        )
        paint = pick(rng, ((34, 36, 42), (150, 152, 156), (60, 66, 84)), 0.1)
        self.canvas.polygons([outline], paint, 0, ID["ego vehicle"])
        shine = np.stack([columns, edge + 0.2 * (height - top)], 1)
        self.canvas.line(shine, height / 150, scaled(paint, 1.5), 0)


# ---------------------------------------------------------------------------------------------------------
# Shapes
# ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class House:
    """A block between ``z0`` and ``z1`` along the street, from its front at ``x`` back to ``outer``."""

    x: float
    outer: float
    z0: float
    z1: float
    storey: float  # height of one
    height: float
    colour: Colour
    roof: Colour | None  # None for a flat one
    bay: float  # distance of the windows' middles
    window: tuple[float, float]  # width and height of a window, as shares of a bay and a storey
    shop: Colour | None  # its sign, if the ground floor is a shop
    lit: float  # share of the windows


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
    band: tuple[float, float, Colour] | None = None  # a stripe along the side, from one height to another
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
    """As :func:`car_bodies`: one long box in a warm colour, with a windscreen or a smaller rear window."""
    length, roof, colour = rng.uniform(9, 12), rng.uniform(2.9, 3.2), pick(rng, BUS_PAINT, 0.08)
    sill, top = (1.1 if nose_first else 1.7), roof - 0.5
    near = [(0.0, 0.3), (0.0, 1.1), (0.0, sill), (0.06, top), (0.1, roof)]
    profile = near + [(length, roof), (length, 0.3)]
    starts = np.arange(0.5, length - 1.2, 1.3)
    windows = [[(a, 1.25), (a, top), (a + 1.12, top), (a + 1.12, 1.25)] for a in starts]
    wheels = [(1.9, 0.48), (length - 2.4, 0.48)]
    band = (0.62, 0.95, pick(rng, CAR_PAINT, 0.1))
    return [Body(profile, colour, windows, wheels, pane=2, band=band)], 2.5


def train_bodies(rng: np.random.Generator, nose_first: bool) -> tuple[list[Body], float]:
    """As :func:`car_bodies`: a tram, two-coloured, without wheels to be seen, alike at both ends."""
    length, roof, colour = rng.uniform(16, 24), rng.uniform(3.3, 3.6), pick(rng, TRAIN_PAINT, 0.08)
    profile = [(0.0, 0.15), (0.0, 1.2), (0.7, roof - 0.55), (0.9, roof), (length, roof), (length, 0.15)]
    starts = np.arange(1.3, length - 1.9, 1.9)
    windows = [[(a, 1.3), (a, roof - 0.6), (a + 1.75, roof - 0.6), (a + 1.75, 1.3)] for a in starts]
    band = (1.0, roof - 0.45, (236, 232, 222))
    return [Body(profile, colour, windows, [], pane=1, band=band)], 2.6


def truck_bodies(rng: np.random.Generator, nose_first: bool) -> tuple[list[Body], float]:
    """As :func:`car_bodies`: a coloured cab and a high, pale, windowless box."""
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


VEHICLES = {"car": car_bodies, "bus": bus_bodies, "train": train_bodies, "truck": truck_bodies}
CIRCLE = [(math.cos(angle), math.sin(angle)) for angle in np.arange(24) * math.pi / 12]


def ground_quad(x0: float, x1: float, z0: float, z1: float) -> list[Point]:
    return [(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)]


def upright_quad(start: Sequence[float], end: Sequence[float], low: float, high: float) -> list[Point]:
    """A rectangle that stands on the line from ``start`` to ``end``, between two heights."""
    (x0, _, z0), (x1, _, z1) = start, end
    return [(x0, low, z0), (x1, low, z1), (x1, high, z1), (x0, high, z0)]


def sloping_quad(
    x0: float, x1: float, z: float, near: tuple[float, float], far: tuple[float, float]
) -> list[Point]:
    """A rectangle across a vehicle that begins at ``z``, between points ``(along, up)`` of its outline."""
    (a0, y0), (a1, y1) = near, far
    return [(x0, y0, z + a0), (x1, y0, z + a0), (x1, y1, z + a1), (x0, y1, z + a1)]


def mirrored(profile: Sequence, windows: Sequence, length: float) -> tuple[list, list]:
    """The same outline and windows seen from the vehicle's other end."""
    flipped = [(length - along, up) for along, up in reversed(profile)]
    return flipped, [[(length - along, up) for along, up in window] for window in windows]
