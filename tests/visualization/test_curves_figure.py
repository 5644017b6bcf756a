"""Curves of several trainings on one page."""

import numpy as np
import pytest

from danseg.visualization.curves_figure import curves_figure


def test_each_run_has_its_line_in_each_panel():
    runs = {
        "work_dirs/a": {"loss": [(10, 2.0), (20, 1.0)], "lr": [(10, 0.1)], "mIoU": []},
        "_b_$x$": {"loss": [(5, 900.0)], "lr": [], "mIoU": [(20, 50.0)]},
    }
    figure = curves_figure(runs)
    figure.canvas.draw()
    assert [axes.get_title() for axes in figure.axes] == ["loss", "lr", "mIoU"]
    lines = [[line.get_xydata().tolist() for line in axes.get_lines()] for axes in figure.axes]
    assert lines == [[[[10, 2], [20, 1]], [[5, 900]]], [[[10, 0.1]], []], [[], [[20, 50]]]]
    assert figure.axes[0].get_yscale() == "log" and figure.axes[2].get_yscale() == "linear"
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(runs)
    colours = [handle.get_color() for handle in legend.legend_handles]
    assert len(set(map(tuple, colours))) == 2


@pytest.mark.parametrize("count", [1, 25])
def test_names_stay_on_the_page_and_lines_differ(count):
    runs = {f"{'long/' * 60}{k}": {"loss": [(1, 1.0), (2, float("nan"))]} for k in range(count)}
    figure = curves_figure(runs)
    figure.canvas.draw()
    box, page = figure.legends[0].get_window_extent(), figure.bbox
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.x1
    axes = figure.axes[0].get_window_extent()
    assert box.y1 < axes.y0 and np.isfinite(axes.y0)
    looks = {(tuple(line.get_color()), line.get_linestyle()) for line in figure.axes[0].get_lines()}
    assert len(looks) == count
