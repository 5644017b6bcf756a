"""The contact sheet: every sample, its label over it, and a legend of what is there."""

import numpy as np
import pytest

from danseg.visualization.colour import overlay
from danseg.visualization.contact_sheet import WIDTH, contact_sheet, shrunk

CLASSES, PALETTE = ("road", "not labelled", "sky"), [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def sheet(samples, classes=CLASSES, palette=PALETTE):
    figure = contact_sheet(samples, classes=classes, palette=palette, heading="heading")
    figure.canvas.draw()
    return figure


def test_a_sample_is_its_image_and_its_label_over_it():
    image = np.full((20, 40, 3), 100, np.uint8)
    label = np.zeros((20, 40), int)
    label[:5], label[10:] = 1, 255
    figure = sheet([("a.png", image, label), ("b.png", image, None)])
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == ["a.png", "b.png (no label)"]
    drawn = np.asarray(panels[0].images[0].get_array())
    assert np.array_equal(drawn[:, :40], image) and (drawn[:, 40] == 255).all()
    assert np.array_equal(drawn[:, -40:], overlay(image, label, PALETTE, 0.6))
    assert (drawn[10:, -40:] == 100).all()  # what is no class
    assert np.array_equal(panels[1].images[0].get_array(), image)
    [legend] = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    assert [text.get_text() for text in legend.get_texts()] == ["road", "not labelled"]


@pytest.mark.parametrize("size", [(1, 1), (300, 20), (20, 300), (64, 64)])
@pytest.mark.parametrize("count", [1, 5])
def test_nothing_overlaps(size, count):
    image, label = np.zeros((*size, 3), np.uint8), np.zeros(size, int)
    figure = sheet([("x" * 300, image, label)] * count)
    boxes = [axes.get_tightbbox() for axes in figure.axes if axes.images or axes.get_legend()]
    page = figure.bbox
    assert len(boxes) == count + 1
    assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= page.x1 and b.y1 <= page.y1 for b in boxes)
    assert not any(one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[:k])


def test_many_classes_of_long_names():
    label = np.arange(60).reshape(6, 10)
    names = [f"class {k} {'word ' * 20}" for k in range(60)]
    figure = sheet([("x", np.zeros((6, 10, 3), np.uint8), label)], names, [(k, 0, 0) for k in range(60)])
    [legend] = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1


def test_large_samples_are_kept_as_small_as_they_are_shown():
    image, label = np.zeros((2048, 1024, 3), np.uint8), np.zeros((2048, 1024), int)
    image[1024:], label[1024:] = 200, 255
    name, small, ids = shrunk("x", image, label)
    assert name == "x" and small.shape == (WIDTH, WIDTH // 2, 3) and ids.shape == small.shape[:2]
    assert set(np.unique(ids)) == {0, 255} and (small[ids == 255] == 200).mean() > 0.99
    assert shrunk("x", image[:9, :9], None)[1].shape == (9, 9, 3)
