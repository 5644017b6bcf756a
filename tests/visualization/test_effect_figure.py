"""What the attention does: labels with and without, and the first classes of each position."""

import numpy as np
import pytest

from danseg.visualization import effect_figure
from danseg.visualization.effect_figure import probabilities
from drawn_figures import CLASSES, PALETTE, effect, frame, overlapping_texts, texts


def drawn(found, labels):
    return effect_figure(frame()[0], labels, found, classes=CLASSES, palette=PALETTE)


def test_labels_with_and_without_and_where_they_differ():
    labels = frame()[2]
    figure = drawn(effect(labels), labels)
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_images()}
    shown = {title: np.asarray(axes.get_images()[0].get_array()) for title, axes in panels.items()}
    assert tuple(shown["prediction with the attention"][0, -1]) == PALETTE[1]
    assert tuple(shown["without it"][0, -1]) == PALETTE[3]
    differ = shown["where they differ, as with it"]
    assert tuple(differ[0, -1]) == PALETTE[1] and len(set(differ[-1, -1])) == 1  # grey where they agree
    assert effect(labels).summary() in texts(figure)
    assert {"road", "sky", "car", "rider"} <= set(texts(figure))


def test_the_first_classes_of_a_position_with_their_logits():
    labels = frame()[2]
    found = effect(labels)
    chart = next(axes for axes in drawn(found, labels).axes if axes.get_title() == "2: at x=7, y=5")
    on, off = (np.exp(one[1]) / np.exp(one[1]).sum() for one in (found.with_attention, found.without))
    order = np.argsort(-on)[:3]
    assert [label.get_text() for label in chart.get_yticklabels()] == [CLASSES[k] for k in order]
    assert [bar.get_width() for bar in chart.patches] == pytest.approx([*on[order], *off[order]])
    for text, one in zip(chart.texts, order, strict=True):
        logits = found.with_attention[1][one], found.without[1][one]
        assert text.get_text() == (
            f"{on[one]:.2f}, without {off[one]:.2f}\nlogit {logits[0]:.3g}, without {logits[1]:.3g}"
        )


def test_one_logit_stands_for_two_classes():
    np.testing.assert_allclose(probabilities(np.array([2.0])), [1 / (1 + np.e**2), 1 / (1 + np.e**-2)])
    np.testing.assert_allclose(probabilities(np.array([1000.0, 0.0])), [1, 0])
    labels = frame()[2].clip(0, 1)
    found = effect(labels, channels=1)
    chart = next(axes for axes in drawn(found, labels).axes if axes.get_title().startswith("1: at"))
    assert len(chart.patches) == 4 and "logit" not in chart.texts[0].get_text()


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 4])
def test_no_text_overlaps_or_leaves_the_page(count):
    labels = frame()[2]
    assert overlapping_texts(drawn(effect(labels, count), labels)) == []
