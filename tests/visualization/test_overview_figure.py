"""One page of everything: its rows, its marks, one scale for maps of one kind."""

from collections import OrderedDict

import numpy as np
import pytest
from torch import nn

import danseg.attention
from danseg.visualization import (
    AttentionWeights,
    Placement,
    attention_modules,
    overview_figure,
    record_attention,
)
from danseg.visualization.shown_view import shown_view, view_keys
from drawn_attention import feature_map, make
from drawn_figures import CLASSES, PALETTE, effect, frame, maps, overlapping_texts, texts

IN_2D = [
    name
    for name in danseg.attention.__all__
    if getattr(getattr(danseg.attention, name), "dims", 2) == 2 and attention_modules(make(name, "cpu"))
]
ALL = dict(classes=CLASSES, palette=PALETTE)


def everything(size=(60, 120)):
    rng = np.random.default_rng(0)
    gate = rng.random((2, 6, 12))
    return [
        maps(4, *size),
        maps(2, *size, rows=gate, values="gate", positions=False, view="spatial"),
        AttentionWeights("cam", rng.dirichlet(np.ones(9), 9), "channels"),
        AttentionWeights("se", rng.random((1, 9)), "channels", values="gate"),
        AttentionWeights("sk", rng.dirichlet(np.ones(3), 9).T, "branches"),
    ]


def test_a_row_for_each_view_and_the_positions_marked_in_the_image():
    image, truth, prediction = frame()
    shown = everything()
    figure = overview_figure(image, truth, prediction, shown, **ALL, effects=[effect(prediction)])
    found = texts(figure)
    assert "attention of decode_head.pam: spatial (γ = 0.25)" in found
    for name in ("cam", "se", "sk"):
        assert any(text.startswith(f"attention of {name}, weights of") for text in found)
    assert effect(prediction).summary() in found
    picture = next(axes for axes in figure.axes if axes.get_title() == "image")
    assert {(line.get_xdata()[0], line.get_ydata()[0]) for line in picture.get_lines()} == set(
        shown[0].positions
    )
    assert [text.get_text() for text in picture.texts] == ["1", "2", "3", "4"]


def test_the_positions_of_an_effect_are_marked_where_no_map_has_any():
    image, _, prediction = frame()
    found = effect(prediction)
    figure = overview_figure(image, None, prediction, everything()[1:], **ALL, effects=[found])
    picture = next(axes for axes in figure.axes if axes.get_title() == "image")
    assert {(line.get_xdata()[0], line.get_ydata()[0]) for line in picture.get_lines()} == set(
        found.positions
    )


def test_one_view_may_stand_alone():
    image, truth, prediction = frame()
    alone = overview_figure(image, truth, prediction, maps(2), **ALL)
    assert texts(alone) == texts(overview_figure(image, truth, prediction, [maps(2)], **ALL))


def test_one_scale_for_the_maps_of_one_kind():
    image, _, prediction = frame()
    low, high, gate = maps(1), maps(1, rows=9 * maps(1).rows), everything()[1]
    figure = overview_figure(image, None, prediction, [low, high, gate], **ALL, same_scale=True)
    bars = [axes.get_xlim() for axes in figure.axes if axes.get_xlabel().startswith(("×", "gate"))]
    top = float(high.over_image().max())
    assert bars == [pytest.approx((0, top))] * 2 + [(0, 1)] * 2


def shown_of(name: str, size: tuple[int, int]) -> list:
    """Everything that a module shows of a picture, and what is inside it."""
    arguments = dict(mask_size=(5, 7)) if name.startswith("Pointwise") else {}
    model = nn.Sequential(OrderedDict(attends=make(name, "cpu", **arguments)))
    with record_attention(model) as recorded:
        model(feature_map(name, "cpu"))
    placement = Placement(size, size, size)
    return [
        shown_view(path, recorded[path], view.name, [(3, 5), (99, 40)], placement)
        for path, view in view_keys(recorded).values()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_2D)
def test_every_module_can_be_drawn(name):
    image, _, prediction = frame()
    shown = shown_of(name, prediction.shape)
    found = texts(overview_figure(image, None, prediction, shown, **ALL))
    assert shown and len([text for text in found if text.startswith("attention of attends")]) == len(shown)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(60, 120), (90, 60)])
def test_no_text_overlaps_or_leaves_the_page(size):
    image, truth, _ = frame(*size)
    many = [f"a class with a name {k}" for k in range(24)]
    colours = [(10 * k, 5 * k, 255 - 10 * k) for k in range(24)]
    spread = np.arange(truth.size).reshape(truth.shape) % 24
    figure = overview_figure(
        image, truth, spread, everything(size), classes=many, palette=colours, name="frame"
    )
    assert overlapping_texts(figure) == []
