"""Draw what a picture's attention looks like into a figure, an animation and a file of numbers."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmseg.models import BaseSegmentor

from danseg.apis.attention_animation import MILLISECONDS, along, animation
from danseg.apis.class_activation import class_activation_map
from danseg.apis.exploration import Exploration, explore, require_attention_to_show
from danseg.apis.model import load_model
from danseg.errors import UserError
from danseg.io.files import make_folder, whole_file
from danseg.io.images import encode_animation
from danseg.io.words import counted, listed
from danseg.ops.upsampled_argmax import label_dtype
from danseg.visualization import (
    AttentionMaps,
    AttentionWeights,
    Channels,
    attention_modules,
    overview_figure,
    save_figure,
    segment_centres,
)
from danseg.visualization.attention_effect import AttentionEffect
from danseg.visualization.shown_view import usual_views

AUTOMATIC_POSITIONS = 3  # whose attention is shown if none is named
STILL, MOVING = (".png", ".pdf"), ".gif"
FIRST_CLASSES = 3


@dataclass(frozen=True)
class Question:
    """What to show; the options of ``tools/explore.py``, which says what they mean."""

    points: Sequence[tuple[int, int]] = ()
    views: Sequence[str] = ()
    modules: Sequence[str] = ()
    same_scale: bool = False
    effect: bool = False
    class_maps: Sequence[str | tuple[int, int]] = ()
    path: Sequence[tuple[int, int]] = ()
    frames: int = 24


def check_targets(
    out: str | None, numbers: str | None, image: str, *, moving: bool, overwrite: bool = False
) -> tuple[Path | None, Path | None]:
    """Refuse what can be refused before anything is loaded; returns the files to write.

    Args:
        out: the figure's or animation's file. None: named after the image in the current folder, or none
            if there is a file of numbers.
        numbers: the file of numbers, or None.
        image: the picture's file.
        moving: whether positions move along a path.
        overwrite: replace files that exist.

    Raises:
        UserError: a file has another ending, exists, or its folder cannot be made or written to.
    """
    if out is None and numbers is None:
        out = f"{Path(image).stem}_attention{MOVING if moving else STILL[0]}"
    figure, table = (None if one is None else Path(one) for one in (out, numbers))
    if figure is not None:
        allowed = (MOVING,) if moving else STILL
        if figure.suffix.lower() not in allowed:
            why = "with --path, --out is an animation" if moving else "--out is a figure"
            hint = f"; {MOVING} needs --path" if figure.suffix.lower() == MOVING else ""
            raise UserError(
                f"--out {figure}: {why}, so name it {' or '.join(f'*{one}' for one in allowed)}{hint}"
            )
    if table is not None and table.suffix.lower() != ".npz":
        raise UserError(f"--numbers {table}: the numbers are NumPy's *.npz; name it so")
    for option, file in (("--out", figure), ("--numbers", table)):
        if file is None:
            continue
        make_folder(file.parent, "the folder for the file", f"choose another {option}")
        if file.exists() and not overwrite:
            raise UserError(f"{file} exists; name another {option}, or replace it by --overwrite")
        if file.exists() and Path(image).exists() and file.samefile(image):
            raise UserError(f"{option} {file} is the picture itself; name another file")
    return figure, table


def explore_file(
    config: Config,
    checkpoint: str,
    image: str,
    question: Question,
    *,
    figure: Path | None,
    numbers: Path | None,
    device: str | None = None,
) -> Iterator[str]:
    """Pass a picture through a network once, and write what was asked.

    Args:
        config: the network's config.
        checkpoint: file of its weights, or their address.
        image: the picture's file.
        question: what to show.
        figure, numbers: from :func:`check_targets`.
        device: such as "cpu".

    Yields:
        What to print, as soon as it is known.

    Raises:
        UserError: the network or the picture cannot be loaded, the network shows no attention, the question
            names a view, module or position that is not there, or a file cannot be written.
    """
    model = load_model(config, checkpoint, device)
    needed = not question.class_maps or bool(question.views or question.modules or question.effect)
    if needed:
        require_attention_to_show(model)
    _require_modules(model, question.modules)
    exploration = explore(model, image, attention=needed)
    keys = chosen_views(exploration, question)
    if not (question.views or question.modules or question.path) and len(keys) < len(exploration.views):
        others = [key for key in exploration.views if key not in keys]
        yield (
            f"{len(keys)} of {counted(len(exploration.views), 'view')} are shown; others by --view or "
            f"--module: {listed(others, 12)}"
        )
    if question.path:
        positions = along(question.path, question.frames)
    else:
        positions = list(question.points) or segment_centres(exploration.labels, AUTOMATIC_POSITIONS)
    yield from said_of_positions(exploration, [] if question.path else positions)
    effects = []
    if question.effect:
        modules = dict.fromkeys(key.partition(":")[0] for key in keys)
        effects = [exploration.effect(module, positions) for module in modules]
        yield from (effect.summary() for effect in effects)
    class_maps = [class_activation_map(model, image, target) for target in question.class_maps]
    if question.path and figure is not None:
        moving = encode_animation(animation(exploration, keys, positions, question.same_scale), MILLISECONDS)
        with whole_file(figure) as part:
            part.write_bytes(moving)
        yield str(figure)
    elif figure is not None:
        drawn = overview_figure(
            exploration.image,
            None,
            exploration.labels,
            [*(exploration.attention(key, positions) for key in keys), *_side_by_side(class_maps)],
            classes=exploration.classes,
            palette=exploration.palette,
            name=Path(image).name,
            channels={key: one for key in keys if (one := known_channels(exploration, key, positions))},
            effects=effects,
            same_scale=question.same_scale,
        )
        yield str(save_figure(drawn, figure))
    if numbers is not None:
        found: dict[str, Any] = arrays(exploration, keys, positions, effects)
        for target, class_map in zip(question.class_maps, class_maps, strict=True):
            name = target if isinstance(target, str) else "{},{}".format(*target)
            found[f"class_map/{name}"] = class_map.rows[0]
        with whole_file(numbers) as part, open(part, "wb") as file:
            np.savez_compressed(file, **found)
        yield str(numbers)


def _side_by_side(class_maps: Sequence[AttentionMaps]) -> list[AttentionMaps]:
    """Class maps of one layer as one row of a figure."""
    if not class_maps:
        return []
    parts = tuple(name for one in class_maps for name in one.parts)
    return [replace(class_maps[0], rows=np.concatenate([one.rows for one in class_maps]), parts=parts)]


def chosen_views(exploration: Exploration, question: Question) -> list[str]:
    """The keys of the views that are asked for; if none is, those of the heads, or else all, up to eight.

    Raises:
        UserError: there is no such view or module, or with a path no view of positions.
    """
    views = exploration.views
    for key in question.views:
        if key not in views:
            raise UserError(f"there is no view {key!r}; there are {', '.join(views)}")
    for module in question.modules:
        if module not in exploration.modules:
            raise UserError(
                f"no module {module!r} has attention to show; there are {', '.join(exploration.modules)}"
            )
    keys = [key for key in views if key in question.views or key.partition(":")[0] in question.modules]
    asked = bool(keys)
    if not asked:
        keys = usual_views(views)
    if question.path:
        positional = [key for key in keys if views[key].kind == "position"]
        if not positional:
            raise UserError(
                f"--path moves a position, and {', '.join(keys)} show the same for all: leave out --path"
            )
        keys = positional
    return keys


def known_channels(
    exploration: Exploration, key: str, positions: Sequence[tuple[int, int]]
) -> Channels | None:
    """The classes that a view's channels serve, and the channels that are the strongest at positions."""
    if exploration.views[key].kind != "channels":
        return None
    try:
        served = exploration.channel_classes(key)
    except UserError:  # the module makes these channels, which no class is known of
        return None
    names = [exploration.classes[one] if one >= 0 else "none" for one in served]
    shown = exploration.attention(key)
    assert isinstance(shown, AttentionWeights)
    rows, count = shown.weights.shape
    strongest: dict[int, list[str]] = {}
    for number, position in enumerate(positions if rows == count else (), 1):
        strongest.setdefault(exploration.strongest_channel(key, position), []).append(str(number))
    said = {channel: f"at {', '.join(numbers)}" for channel, numbers in strongest.items()}
    return Channels(names, said)


def said_of_positions(exploration: Exploration, positions: Sequence[tuple[int, int]]) -> Iterator[str]:
    """A line for each position: its first classes with their probabilities."""
    for number, (x, y) in enumerate(positions, 1):
        probabilities = exploration.probabilities((x, y))
        first = np.argsort(-probabilities, kind="stable")[:FIRST_CLASSES]
        said = ", ".join(f"{exploration.classes[one]} {probabilities[one]:.2f}" for one in first)
        yield f"{number}: x={x}, y={y}: {said}"


def arrays(
    exploration: Exploration,
    keys: Sequence[str],
    positions: Sequence[tuple[int, int]],
    effects: Sequence[AttentionEffect] = (),
) -> dict[str, np.ndarray]:
    """All numbers of an exploration, as docs/explore.md describes them."""
    found: dict[str, Any] = {
        "positions": np.array(positions, np.int64).reshape(-1, 2),
        "labels": exploration.labels.astype(
            str(label_dtype(len(exploration.classes))).removeprefix("torch.")
        ),
        "classes": np.array(exploration.classes),
        "probabilities": np.array([exploration.probabilities(one) for one in positions]),
        "views": np.array(keys),
        "kinds": np.array([exploration.views[key].kind for key in keys]),
        "values": np.array([exploration.views[key].values for key in keys]),
    }
    scales = []
    for key in keys:
        shown = exploration.attention(key, positions)
        found[f"attention/{key}"] = shown.rows if isinstance(shown, AttentionMaps) else shown.weights
        found[f"parts/{key}"] = np.array(shown.parts, str)
        if known := known_channels(exploration, key, positions):
            found[f"serves/{key}"] = np.array(known.serves)
        scales.append(math.nan if shown.scale is None else shown.scale)
        if isinstance(shown, AttentionMaps):
            place = shown.placement
            for name in ("image_size", "input_size", "content_size", "offset"):
                found[name] = np.array(getattr(place, name))
    found["scales"] = np.array(scales)
    for effect in effects:
        found[f"labels_without/{effect.module}"] = effect.labels.astype(found["labels"].dtype)
        found[f"logits_with/{effect.module}"] = effect.with_attention
        found[f"logits_without/{effect.module}"] = effect.without
    return found


def _require_modules(model: BaseSegmentor, modules: Sequence[str]) -> None:
    """Say of a module that is there and shows nothing that it does, before the picture's pass."""
    able = attention_modules(model)
    there = dict(model.named_modules())
    for path in modules:
        if path in there and path not in able:
            raise UserError(
                f"--module {path}: {type(there[path]).__name__} has no attention to show; these have: "
                f"{', '.join(able)}"
            )
