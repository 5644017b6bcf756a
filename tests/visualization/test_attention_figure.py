"""Maps over the image: positions, scales that say what they are, signed weights, gates."""

import cv2
import numpy as np
import pytest

from danseg.visualization import attention_figure
from danseg.visualization.attention_figure import MOST_ALIKE, SIGNED
from drawn_figures import CLASSES, frame, maps, overlapping_texts, texts


def split(figure):
    """The panels and their colour bars."""
    return figure.axes[0::2], figure.axes[1::2]


def test_panels_name_position_class_and_scale():
    image, _, prediction = frame()
    found = texts(attention_figure(image, maps(3), labels=prediction, classes=CLASSES))
    assert "1: from x=5, y=3, on car" in found
    assert any("decode_head.pam" in text and "γ = 0.25" in text for text in found)
    found = texts(attention_figure(image, maps(1, scale=None, view="head 3")))
    assert "attention of decode_head.pam: head 3" in found


def test_positions_are_marked_and_numbered_and_each_bar_ends_at_its_maximum():
    image, _, _ = frame()
    attention = maps(2)
    panels, bars = split(attention_figure(image, attention))
    for number, (panel, bar, heat, position) in enumerate(
        zip(panels, bars, attention.over_image(), attention.positions, strict=True), 1
    ):
        assert {(line.get_xdata()[0], line.get_ydata()[0]) for line in panel.get_lines()} == {position}
        assert [text.get_text() for text in panel.texts] == [str(number)]
        assert panel.get_xlim() == (-0.5, 119.5) and panel.get_ylim() == (59.5, -0.5)
        assert bar.get_xlim() == pytest.approx((0, float(heat.max())))
        assert bar.get_xlabel() == "× uniform attention, from 0 to this map’s maximum"


def test_one_scale_for_all_panels_on_request():
    image, attention = frame()[0], maps(3)
    attention.rows[1] *= 7
    top = float(attention.over_image().max())
    panels, bars = split(attention_figure(image, attention, same_scale=True))
    assert [bar.get_xlim() for bar in bars] == [pytest.approx((0, top))] * 3
    assert {bar.get_xlabel() for bar in bars} == {"× uniform attention, from 0 to the maximum of all maps"}
    own = split(attention_figure(image, attention))[0]
    first = [np.asarray(one[0].get_images()[0].get_array(), float) for one in (panels, own)]
    assert first[0].mean() < first[1].mean()  # a seventh of the brightness


@pytest.mark.parametrize("position", [(0, 0), (119, 0), (119, 59), (0, 59)])
def test_a_number_at_the_edge_stays_in_its_panel(position):
    attention = maps(1)
    attention.positions[0] = position
    figure = attention_figure(frame()[0], attention)
    figure.canvas.draw()
    panel = figure.axes[0]
    box, text = panel.get_window_extent(), panel.texts[0].get_window_extent()
    assert box.x0 <= text.x0 and text.x1 <= box.x1 and box.y0 <= text.y0 and text.y1 <= box.y1


def test_the_colours_are_those_of_the_bar_over_the_image_in_grey():
    """Signed weights, written out at three pixels: the most negative, none, the most positive."""
    rows = np.zeros((1, 6, 12))
    rows[0, :3, :4], rows[0, 3:, 8:] = -0.02, 0.01
    image = frame()[0]
    panels, bars = split(attention_figure(image, maps(1, rows=rows, values="weights")))
    assert bars[0].get_xlim() == pytest.approx((-0.02 * 72, 0.02 * 72))
    assert bars[0].get_xlabel() == "weight × number of cells, negative in blue: here from -1.44 to 0.72"
    shown = panels[0].get_images()[0].get_array()
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float)
    for (row, column), place, strength in (((0, 0), 0, 1), ((0, 119), 0.5, 0), ((59, 119), 0.75, 0.5)):
        opacity = 0.35 + 0.5 * strength
        expected = (1 - opacity) * grey[row, column] + 255 * opacity * np.array(SIGNED(place)[:3])
        np.testing.assert_allclose(shown[row, column], expected, atol=2)
    assert SIGNED(0.0)[2] > SIGNED(0.0)[0] and SIGNED(1.0)[0] > SIGNED(1.0)[2]  # blue, red
    assert max(SIGNED(0.5)[:3]) < 0.1


def test_weights_without_negatives_and_gates_have_their_own_scales():
    image = frame()[0]
    _, [bar] = split(attention_figure(image, maps(1, values="weights")))
    assert bar.get_xlim()[0] == 0 and bar.get_xlabel().startswith("weight × number of cells, from 0")
    rows = np.linspace(0.25, 0.75, 2 * 72).reshape(2, 6, 12)
    figure = attention_figure(image, maps(2, rows=rows, values="gate", positions=False, parts=("H", "W")))
    panels, bars = split(figure)
    assert [bar.get_xlim() for bar in bars] == [(0, 1), (0, 1)]
    assert bars[1].get_xlabel() == "gate: here from 0.50 to 0.75, mean 0.63"
    titles = [panel.get_title() for panel in panels]
    assert titles == ["H, the same for all positions", "W, the same for all positions"]
    assert not any(panel.get_lines() or panel.texts for panel in panels)  # no mark
    _, [bar] = split(attention_figure(image, maps(1, rows=rows[1:] + 1, values="gate", positions=False)))
    assert bar.get_xlim() == pytest.approx((0, 1.75))


def test_of_many_maps_that_are_alike_for_all_those_that_vary_most_are_drawn():
    rows = np.full((9, 6, 12), 1 / 72)
    for index in (1, 2, 4, 5, 7, 8):
        rows[index, 0, 0] += index
    figure = attention_figure(frame()[0], maps(9, rows=rows, positions=False))
    panels, _ = split(figure)
    assert len(panels) == MOST_ALIKE == 6
    assert [panel.get_title().split(",")[0] for panel in panels] == [f"map {k}" for k in (2, 3, 5, 6, 8, 9)]
    assert any("the 6 of 9 maps that vary most" in text for text in texts(figure))


def test_a_large_picture_is_drawn_small():
    image = np.zeros((1024, 2048, 3), np.uint8)
    panel = attention_figure(image, maps(1, 1024, 2048)).axes[0]
    assert panel.get_images()[0].get_array().shape == (560, 1120, 3)
    assert panel.get_xlim() == (-0.5, 2047.5)


def test_names_with_dollars():
    classes = (r"$\nosuch$", "a$b$", "c", "d")
    figure = attention_figure(frame()[0], maps(1), labels=frame()[2], classes=classes)
    figure.canvas.draw()  # would raise on maths that it cannot read


@pytest.mark.slow
@pytest.mark.parametrize("size", [(60, 120), (90, 60)])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_no_text_overlaps_or_leaves_the_page(size, count):
    image, _, prediction = frame(*size)
    for about in (dict(), dict(values="weights", rows=maps(count).rows - 0.02), dict(positions=False)):
        attention = maps(count, *size, **about)
        figure = attention_figure(image, attention, labels=prediction, classes=CLASSES)
        assert overlapping_texts(figure) == []
