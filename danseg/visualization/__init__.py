"""Make pictures: coloured label maps, comparisons with the truth, and attention over the image."""

from typing import Any

from danseg.io.files import make_folder as picture_dir
from danseg.io.images import read_image, save_image
from danseg.label_maps.label_png import read_label_map as read_labels
from danseg.visualization.attention_figure import attention_figure
from danseg.visualization.attention_recording import (
    RecordedAttention,
    attention_modules,
    record_attention,
)
from danseg.visualization.colour import classes_present, colourise, overlay
from danseg.visualization.comparison_figure import comparison_figure, frame_miou
from danseg.visualization.effect_figure import effect_figure
from danseg.visualization.overview_figure import overview_figure
from danseg.visualization.page import save_figure
from danseg.visualization.positions import segment_centres
from danseg.visualization.shown_attention import AttentionMaps, AttentionWeights, Placement
from danseg.visualization.weights_figure import Channels, weights_figure

__all__ = [
    "AttentionMaps",
    "AttentionWeights",
    "Channels",
    "Placement",
    "RecordedAttention",
    "SaveComparison",
    "attention_figure",
    "attention_modules",
    "classes_present",
    "colourise",
    "comparison_figure",
    "effect_figure",
    "frame_miou",
    "overlay",
    "overview_figure",
    "picture_dir",
    "read_image",
    "read_labels",
    "record_attention",
    "save_figure",
    "save_image",
    "segment_centres",
    "weights_figure",
]


def __getattr__(name: str) -> Any:
    if name == "SaveComparison":  # moved to danseg.engine.hooks, which this package must not import
        from mmseg.registry import HOOKS

        if name in HOOKS:
            return HOOKS.get(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
