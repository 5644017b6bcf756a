"""Light, the colours of things, and the grain of surfaces."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from danseg.label_maps.cityscapes_labels import LABELS
from danseg.rendered.canvas import Colour


class Light(NamedTuple):
    """How a frame is lit; ``sunlit`` and ``shaded`` are the light on the street's two sides."""

    zenith: Colour
    horizon: Colour
    tint: Colour  # of the whole frame, as factors
    haze_density: float  # 1/metres
    sunlit: float
    shaded: float
    shadow: float  # share of the light that a cast shadow takes away
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
    red, green, blue = colour
    return red * factor, green * factor, blue * factor


def pick(rng: np.random.Generator, options: Sequence, vary: float = 0.0):
    """One of ``options`` at random; a colour's brightness and hue change by up to ``vary``."""
    option = options[int(rng.integers(len(options)))]
    if vary:
        return tuple(
            c * rng.uniform(1 - vary / 3, 1 + vary / 3)
            for c in scaled(option, rng.uniform(1 - vary, 1 + vary))
        )
    return option


def smooth_noise(rng: np.random.Generator, height: int, width: int, scale: float) -> np.ndarray:
    """Noise ``(height, width)`` of zero mean and about unit deviation, with grains of ``scale`` pixels."""
    scale = max(1.0, scale)
    shape = (math.ceil(height / scale) + 1, math.ceil(width / scale) + 1)
    grains = rng.standard_normal(shape, np.float32)
    return 1.4 * cv2.resize(grains, (width, height), interpolation=cv2.INTER_LINEAR)
