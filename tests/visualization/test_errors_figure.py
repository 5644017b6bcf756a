"""The errors of a frame: red where the label is another, black where there is none."""

import numpy as np

from danseg.visualization.errors_figure import NOT_LABELLED, WRONG, errors_figure


def drawn(image, truth, prediction, **options):
    figure = errors_figure(
        image, truth, prediction, classes=["a", "b"], palette=[(1, 2, 3), (4, 5, 6)], **options
    )
    figure.canvas.draw()
    return figure, [axes for axes in figure.axes if axes.images]


def test_each_pixel_tells_what_it_is():
    image = np.full((2, 2, 3), 100, np.uint8)
    truth, prediction = np.array([[0, 1], [1, 255]]), np.array([[0, 1], [0, 0]])
    figure, panels = drawn(image, truth, prediction, name="x.png", score="mIoU 50 %")
    errors = np.asarray(panels[3].images[0].get_array())
    assert errors[1, 0].tolist() == list(WRONG) and errors[1, 1].tolist() == list(NOT_LABELLED)
    assert errors[0, 0].tolist() == errors[0, 1].tolist() == [110] * 3
    titles = [panel.get_title() for panel in panels]
    assert titles == ["x.png", "truth", "prediction, mIoU 50 %", "errors: 33.3 % of the labelled pixels"]
    legend = [
        t.get_text() for axes in figure.axes if axes.get_legend() for t in axes.get_legend().get_texts()
    ]
    assert set(legend) == {"a", "b", "not labelled", "error"}


def test_a_frame_without_a_label_says_so():
    empty = np.full((1, 1), 255)
    _, panels = drawn(np.zeros((1, 1, 3), np.uint8), empty, np.zeros((1, 1), int))
    assert panels[3].get_title() == "no labelled pixel"
