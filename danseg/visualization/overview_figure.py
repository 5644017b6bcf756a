"""Draw one page of a picture: its prediction, and below it everything that attention shows of it."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from danseg.visualization.attention_effect import AttentionEffect
from danseg.visualization.attention_figure import Maps, common_scale
from danseg.visualization.comparison_figure import Comparison
from danseg.visualization.effect_figure import EffectPart
from danseg.visualization.page import Part, stacked
from danseg.visualization.shown_attention import AttentionMaps, AttentionWeights
from danseg.visualization.weights_figure import Channels, weights_part


def overview_figure(
    image: np.ndarray,
    truth: np.ndarray | None,
    prediction: np.ndarray,
    attention: AttentionMaps | Sequence[AttentionMaps | AttentionWeights],
    *,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    name: str = "",
    channels: Mapping[str, Channels] | None = None,
    effects: Sequence[AttentionEffect] = (),
    same_scale: bool = False,
) -> Figure:
    """The comparison and, below it, the attention, view by view.

    The other arguments are those of :func:`comparison_figure` and :func:`attention_figure`.

    Args:
        attention: what one view shows, or several in their order. The positions of the first one that has
            some, or else those of the effects, are marked in the image.
        channels: what is known of the channels that views weigh, by ``"MODULE:VIEW"``, or by the module for
            the view that stands for it.
        effects: what the attention of modules does, drawn below all.
        same_scale: one scale for all maps whose values are of the same kind.
    """
    shown = [attention] if isinstance(attention, AttentionMaps) else list(attention)
    maps = [one for one in shown if isinstance(one, AttentionMaps)]
    positions = [one.positions for one in maps] + [one.positions for one in effects]
    marked = next(filter(None, positions), [])
    parts: list[Part] = [Comparison(image, truth, prediction, classes, palette, name, marked)]
    for one in shown:
        if isinstance(one, AttentionMaps):
            alike = [other for other in maps if other.values == one.values]
            scale = common_scale(alike) if same_scale else None
            parts.append(Maps(image, one, prediction, classes, scale))
        else:
            key = f"{one.module}:{one.view}" if one.view else one.module
            parts.append(weights_part(one, (channels or {}).get(key)))
    parts += [EffectPart(image, prediction, effect, classes, palette) for effect in effects]
    return stacked(3, parts)
