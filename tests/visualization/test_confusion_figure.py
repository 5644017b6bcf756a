"""The figure of a confusion matrix: numbers, names, and that all fits for one class and for many."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from danseg.evaluation.confusion import Scores
from danseg.visualization.confusion_figure import confusion_figure

LONG = "a class with an extraordinarily long name of very many words {}"


def scores(count: int, name: str = "class {}") -> Scores:
    rng = np.random.default_rng(count)
    confusion = np.zeros((count, count + 1), dtype=np.int64)
    confusion[:, :count] = rng.integers(0, 50, (count, count)) + 500 * np.eye(count, dtype=np.int64)
    return Scores(tuple(name.format(k) for k in range(count)), confusion)


def texts_outside(figure) -> list[str]:
    FigureCanvasAgg(figure).draw()
    [axes, *_] = figure.axes
    artists = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label]
    artists += [*figure.texts, *axes.texts]
    whole = figure.bbox
    boxes = [(one.get_text(), one.get_window_extent()) for one in artists if one.get_text()]
    assert boxes
    return [t for t, b in boxes if b.x0 < 0 or b.y0 < 0 or b.x1 > whole.x1 or b.y1 > whole.y1]


@pytest.mark.parametrize(("count", "name"), [(1, "x{}"), (2, LONG), (13, "_$x_{}$"), (27, LONG), (61, LONG)])
def test_nothing_leaves_the_page(count, name):
    assert texts_outside(confusion_figure(scores(count, name))) == []


def test_a_cell_is_the_share_of_its_row_and_missing_classes_are_told():
    confusion = np.array([[30, 10, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=np.int64)
    figure = confusion_figure(Scores(("road", "sky", "car"), confusion))
    [axes, *_] = figure.axes
    drawn = np.ma.filled(axes.get_images()[0].get_array(), np.nan)
    assert np.array_equal(drawn, [[0.75, 0.25, 0], [np.nan] * 3, [np.nan] * 3], equal_nan=True)
    assert {one.get_text() for one in axes.texts} == {"75", "25"}
    names = [one.get_text() for one in axes.get_yticklabels()]
    assert names == ["road", "sky (not labelled)", "car (absent)"]


def test_predictions_of_no_class_have_a_column():
    confusion = np.array([[3, 1]], dtype=np.int64)
    [axes, *_] = confusion_figure(Scores(("road",), confusion)).axes
    assert [one.get_text() for one in axes.get_xticklabels()] == ["road", "no class"]
