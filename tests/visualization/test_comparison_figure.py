import numpy as np
import pytest

from danseg.visualization import comparison_figure, frame_miou
from drawn_figures import CLASSES, PALETTE, frame, overlapping_texts, texts


def test_frame_miou_counts_labelled_pixels_and_classes_seen():
    truth = np.array([[0, 0, 1, 255]])
    prediction = np.array([[0, 2, 1, 3]])
    # class 0: 1/2, class 1: 1/1, class 2: 0/1; class 3 is predicted only on an unlabelled pixel
    assert frame_miou(truth, prediction, CLASSES) == pytest.approx(0.5)
    assert np.isnan(frame_miou(np.full((1, 2), 255), np.zeros((1, 2), int), CLASSES))


def test_comparison_shows_the_maps_the_classes_present_and_the_frame_miou():
    image, truth, prediction = frame()
    figure = comparison_figure(image, truth, prediction, classes=CLASSES, palette=PALETTE, name="frame 7")
    found = texts(figure)
    miou = 100 * frame_miou(truth, prediction, CLASSES)
    assert "frame 7" in found and f"prediction, mIoU of this frame {miou:.1f} %" in found
    assert {"road", "sky", "car", "not labelled"} <= set(found) and "rider" not in found
    shown = [axes.get_images()[0].get_array() for axes in figure.axes if axes.get_images()]
    assert (shown[0] == image).all()
    assert tuple(shown[1][-1, 0]) == PALETTE[0] and tuple(shown[1][0, 0]) == (0, 0, 0)
    assert tuple(shown[2][-1, 0]) == PALETTE[2]


def test_comparison_without_truth_has_two_panels():
    image, _, prediction = frame()
    found = texts(comparison_figure(image, None, prediction, classes=CLASSES, palette=PALETTE))
    assert "prediction" in found and "truth" not in found and "not labelled" not in found


@pytest.mark.parametrize("size", [(60, 120), (90, 60), (41, 97)])
def test_panels_keep_the_aspect_of_the_image(size):
    figure = comparison_figure(*frame(*size), classes=CLASSES, palette=PALETTE)
    panels = [axes for axes in figure.axes if axes.get_images()]
    assert len(panels) == 3
    for axes in panels:
        box = axes.get_window_extent()
        assert box.width / box.height == pytest.approx(size[1] / size[0], rel=0.01)


def test_more_classes_than_colours_and_more_colours_than_classes():
    """Every id that is drawn stands in the legend, with the colour that it is drawn in."""
    image, truth, prediction = frame()
    prediction[0, 0] = 3
    figure = comparison_figure(image, truth, prediction, classes=CLASSES, palette=PALETTE[:2])
    assert {"road", "car (no colour)", "rider (no colour)", "not labelled"} <= set(texts(figure))
    shown = [axes.get_images()[0].get_array() for axes in figure.axes if axes.get_images()][2]
    assert tuple(shown[0, 0]) == tuple(shown[-1, 0]) == (0, 0, 0)  # a rider, a car
    figure = comparison_figure(image, None, prediction, classes=CLASSES[:2], palette=PALETTE)
    assert {"road", "sky", "not labelled"} <= set(texts(figure)) and "car" not in texts(figure)
    shown = [axes.get_images()[0].get_array() for axes in figure.axes if axes.get_images()][1]
    assert tuple(shown[-1, 0]) == (0, 0, 0)


def test_names_that_matplotlib_would_read_otherwise():
    """A leading underscore would leave a class out of the legend, and two $ would be maths."""
    image, truth, prediction = frame()
    classes = ("_background_", "a$b$c", r"$\nosuch$", "rider")
    figure = comparison_figure(
        image, truth, prediction, classes=classes, palette=PALETTE, name=r"$\nosuch$_1$"
    )
    assert {*classes[:3], r"$\nosuch$_1$"} <= set(texts(figure))
    figure.canvas.draw()  # would raise on maths that it cannot read


@pytest.mark.slow
@pytest.mark.parametrize("size", [(60, 120), (90, 60)])
@pytest.mark.parametrize("has_truth", [True, False])
def test_no_text_overlaps_or_leaves_the_page(size, has_truth):
    image, truth, _ = frame(*size)
    many = [f"a class with a name {k}" for k in range(24)]
    colours = [(10 * k, 5 * k, 255 - 10 * k) for k in range(24)]
    spread = np.arange(truth.size).reshape(truth.shape) % 24
    figure = comparison_figure(
        image, truth if has_truth else None, spread, classes=many, palette=colours, name="aachen" * 20
    )
    assert overlapping_texts(figure) == []
