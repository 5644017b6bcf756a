"""Weights of channels and branches as bars, against numbers by hand."""

import numpy as np
import pytest

from danseg.visualization import AttentionWeights, Channels, weights_figure
from drawn_figures import overlapping_texts, texts


def lengths(axes) -> list[float]:
    return [bar.get_width() for bar in axes.patches]


def names(axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def titled(figure, beginning: str):
    [axes] = [one for one in figure.axes if one.get_title().startswith(beginning)]
    return axes


def alike(row, values="gate") -> AttentionWeights:
    return AttentionWeights("backbone.se", np.array([row], float), "channels", values=values)


def test_a_gate_names_its_strongest_and_weakest_channels():
    row = np.linspace(0, 1, 21)[np.random.default_rng(0).permutation(21)]
    serves = [f"c{k}" for k in range(21)]
    figure = weights_figure(alike(row), Channels(serves))
    ends = titled(figure, "strongest and weakest")
    order = np.argsort(-row)
    expected = [*order[:5], *order[-5:]]
    assert names(ends) == [f"{k}: c{k}" for k in expected]
    assert lengths(ends) == pytest.approx(list(row[expected]))
    curve = titled(figure, "all 21 channels, strongest first: mean 0.5")
    assert curve.get_ylim() == (0, 1)
    [strip] = [axes for axes in figure.axes if axes.get_images()]
    assert (strip.get_images()[0].get_array()[0] == row).all()  # in their own order
    assert strip.get_images()[0].get_clim() == (0, 1)


def test_a_gate_above_one_and_signed_weights_keep_their_range():
    assert titled(weights_figure(alike([0.5, 1.5])), "all 2").get_ylim() == (0, 1.5)
    low, high = titled(weights_figure(alike([-2, 1], "weights")), "all 2").get_ylim()
    assert low == -high and high >= 2


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_few_channels(count):
    figure = weights_figure(alike(np.linspace(1, 0.1, count)))
    shown = names(titled(figure, "strongest and weakest"))
    assert len(shown) == len(set(shown)) and len(shown) >= min(count, 2)


def matrix(values="shares", signed=0.0) -> AttentionWeights:
    rows = np.random.default_rng(0).dirichlet(np.ones(12), 12) - signed
    rows[7] = np.eye(12)[3] * 0.9 + 0.1 / 12
    return AttentionWeights("decode_head.cam", rows, "channels", values=values, scale=-0.3)


def test_rows_of_channels_show_from_what_they_gather():
    weights = matrix()
    figure = weights_figure(weights, Channels([f"c{k}" for k in range(12)]))
    chosen = titled(figure, "channel 7 (c7) gathers from")  # it chooses most
    assert names(chosen)[0] == "3: c3" and lengths(chosen)[0] == pytest.approx(0.9 + 0.1 / 12)
    assert chosen.texts[0].get_text() == "0.908 (11 × uniform)"
    assert chosen.get_lines()[0].get_xdata()[0] == pytest.approx(1 / 12)  # uniform
    figure = weights_figure(weights, Channels(rows={5: "at 1", 2: ""}))
    for row, title in ((5, "at 1: channel 5 gathers from"), (2, "channel 2 gathers from")):
        axes = titled(figure, title)
        assert lengths(axes) == pytest.approx(sorted(weights.weights[row], reverse=True)[:10])
    assert any("γ = -0.3" in text for text in texts(figure))
    whole = titled(figure, "channels (down)")
    assert (np.asarray(whole.get_images()[0].get_array()) == weights.weights).all()
    with pytest.raises(ValueError, match="0 to 11, got 12"):
        weights_figure(weights, Channels(rows={12: ""}))
    with pytest.raises(ValueError, match="each of 12 channels, got 1"):
        weights_figure(weights, Channels(["c0"]))


def test_channels_of_which_nothing_is_left_are_not_listed():
    weights = AttentionWeights("cam", np.eye(12) + 1e-9, "channels")
    axes = titled(weights_figure(weights, Channels(rows={4: ""})), "channel 4")
    assert names(axes) == ["4"]


def test_branches_have_mean_spread_and_how_often_they_win():
    shares = np.array([[0.9, 0.8, 0.1, 0.2], [0.1, 0.2, 0.9, 0.8]])
    shares[0, 3], shares[1, 3] = 0.6, 0.4
    weights = AttentionWeights("decode_head.sk", shares, "branches", parts=("3x3", "5x5"))
    figure = weights_figure(weights)
    mean = titled(figure, "mean")
    assert names(mean) == ["3x3", "5x5"] and lengths(mean)[:2] == pytest.approx([0.6, 0.4])
    spread = mean.containers[-1].lines[2][0].get_segments()
    low, high = np.quantile(shares, (0.1, 0.9), axis=1)
    for place in (0, 1):
        assert spread[place][:, 0] == pytest.approx([low[place], high[place]])
    assert lengths(titled(figure, "largest in how many of 4 channels")) == [3, 1]
    unnamed = AttentionWeights("decode_head.sk", shares, "branches")
    assert names(titled(weights_figure(unnamed), "mean")) == ["branch 1", "branch 2"]


@pytest.mark.slow
@pytest.mark.parametrize("serves", [[], ["a class with a long name, longer than there is room"] * 12])
def test_no_text_overlaps_or_leaves_the_page(serves):
    rng = np.random.default_rng(0)
    long = "5x5 convolution, dilated, of a long name"
    made = [
        alike(rng.random(12)),
        alike(rng.normal(size=12), "weights"),
        matrix(),
        matrix("weights", 0.2),
        AttentionWeights("sk", rng.dirichlet(np.ones(3), 12).T, "branches", parts=("3x3", long, "$x$")),
    ]
    for weights in made:
        figure = weights_figure(weights, Channels(serves))
        assert overlapping_texts(figure) == []
