from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from danseg.visualization import AttentionMaps, Placement, figures, page, read_image, save_figure

CLASSES = ("road", "sky", "car", "rider")
PALETTE = [(128, 64, 128), (70, 130, 180), (0, 0, 142), (255, 0, 0)]


def _frame(height: int = 60, width: int = 120):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    truth = np.zeros((height, width), dtype=np.int64)
    truth[: height // 2] = 1
    prediction = truth.copy()
    prediction[:, : width // 4] = 2
    truth[0] = 255
    return image, truth, prediction


def _attention(count: int, height: int = 60, width: int = 120) -> AttentionMaps:
    rows = np.random.default_rng(1).dirichlet(np.ones(6 * 12), count).reshape(count, 6, 12)
    positions = [(10 * i + 5, 7 * i + 3) for i in range(count)]
    placement = Placement((height, width), (height, width), (height, width))
    return AttentionMaps("decode_head.pam", positions, rows, placement, 0.25)


def _texts(figure) -> list[str]:
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found.append(axes.get_title())
        legend = axes.get_legend()
        found += [text.get_text() for text in legend.get_texts()] if legend else []
    return found


def _overlapping_texts(figure) -> list[tuple[str, str]]:
    figure.canvas.draw()
    artists = [*figure.texts, *(axes.title for axes in figure.axes)]
    for axes in figure.axes:
        artists += axes.get_legend().get_texts() if axes.get_legend() else []
        artists += [*axes.get_xticklabels(), axes.xaxis.label] if axes.axison else []
    artists = [artist for artist in artists if artist.get_text()]
    boxes = [artist.get_window_extent() for artist in artists]
    bounds = figure.bbox
    assert all(
        box.x0 >= 0 and box.y0 >= 0 and box.x1 <= bounds.x1 and box.y1 <= bounds.y1 for box in boxes
    ), "text leaves the page"
    return [
        (artists[i].get_text(), artists[j].get_text())
        for i in range(len(boxes))
        for j in range(i)
        if boxes[i].overlaps(boxes[j])
    ]


def test_frame_miou_counts_labelled_pixels_and_classes_seen():
    truth = np.array([[0, 0, 1, 255]])
    prediction = np.array([[0, 2, 1, 3]])
    # class 0: 1/2, class 1: 1/1, class 2: 0/1; class 3 is predicted only on an unlabelled pixel
    assert figures.frame_miou(truth, prediction, CLASSES) == pytest.approx(0.5)
    assert np.isnan(figures.frame_miou(np.full((1, 2), 255), np.zeros((1, 2), int), CLASSES))


def test_comparison_shows_the_maps_the_classes_present_and_the_frame_miou():
    image, truth, prediction = _frame()
    figure = figures.comparison_figure(
        image, truth, prediction, classes=CLASSES, palette=PALETTE, name="frame 7"
    )
    texts = _texts(figure)
    miou = 100 * figures.frame_miou(truth, prediction, CLASSES)
    assert "frame 7" in texts and f"prediction, mIoU of this frame {miou:.1f} %" in texts
    assert {"road", "sky", "car", "not labelled"} <= set(texts) and "rider" not in texts
    shown = [axes.get_images()[0].get_array() for axes in figure.axes[:3]]
    assert (shown[0] == image).all()
    assert tuple(shown[1][-1, 0]) == PALETTE[0] and tuple(shown[1][0, 0]) == (0, 0, 0)
    assert tuple(shown[2][-1, 0]) == PALETTE[2]


def test_comparison_without_truth_has_two_panels():
    image, _, prediction = _frame()
    figure = figures.comparison_figure(image, None, prediction, classes=CLASSES, palette=PALETTE)
    texts = _texts(figure)
    assert "prediction" in texts and "truth" not in texts and "not labelled" not in texts


@pytest.mark.parametrize("size", [(60, 120), (90, 60), (41, 97)])
def test_panels_keep_the_aspect_of_the_image(size):
    image, truth, prediction = _frame(*size)
    figure = figures.comparison_figure(image, truth, prediction, classes=CLASSES, palette=PALETTE)
    for axes in figure.axes[:3]:
        box = axes.get_window_extent()
        assert box.width / box.height == pytest.approx(size[1] / size[0], rel=0.01)


def test_attention_panels_name_position_class_and_scale():
    image, _, prediction = _frame()
    attention = _attention(3)
    texts = _texts(figures.attention_figure(image, attention, labels=prediction, classes=CLASSES))
    assert "1: from x=5, y=3, on car" in texts
    assert any("decode_head.pam" in text and "γ = 0.25" in text for text in texts)


def test_attention_marks_the_position_and_its_bar_ends_at_the_maximum():
    image, _, _ = _frame()
    attention = _attention(2)
    figure = figures.attention_figure(image, attention)
    panels, bars = figure.axes[0::2], figure.axes[1::2]
    for panel, bar, heat, position in zip(
        panels, bars, attention.over_image(), attention.positions, strict=True
    ):
        assert {(line.get_xdata()[0], line.get_ydata()[0]) for line in panel.get_lines()} == {position}
        assert bar.get_xlim() == pytest.approx((0, float(heat.max())))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(60, 120), (90, 60)])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_no_text_overlaps_or_leaves_the_page(size, count):
    image, truth, prediction = _frame(*size)
    many = [f"a class with a name {k}" for k in range(24)]
    colours = [(10 * k, 5 * k, 255 - 10 * k) for k in range(24)]
    spread = np.arange(truth.size).reshape(truth.shape) % 24
    attention = _attention(count, *size)
    made = [
        figures.comparison_figure(image, truth, spread, classes=many, palette=colours, name="aachen" * 20),
        figures.comparison_figure(image, None, spread, classes=many, palette=colours),
        figures.attention_figure(image, attention, labels=prediction, classes=CLASSES),
        figures.overview_figure(image, truth, spread, attention, classes=many, palette=colours, name="frame"),
    ]
    for figure in made:
        assert _overlapping_texts(figure) == []


@pytest.mark.slow
def test_figures_are_written_at_their_size_from_many_threads(tmp_path):
    image, truth, prediction = _frame()

    def write(index: int):
        figure = figures.overview_figure(
            image, truth, prediction, _attention(3), classes=CLASSES, palette=PALETTE, name="frame"
        )
        return figure, save_figure(figure, tmp_path / f"{index}.png")

    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(write, range(6)))
    first = read_image(written[0][1])
    width, height = (round(inches * page.DPI) for inches in written[0][0].get_size_inches())
    assert abs(first.shape[0] - height) <= 1 and abs(first.shape[1] - width) <= 1
    for _, path in written[1:]:
        assert (read_image(path) == first).all()


def test_more_classes_than_colours_and_more_colours_than_classes():
    """Every id that is drawn stands in the legend, with the colour that it is drawn in."""
    image, truth, prediction = _frame()
    prediction[0, 0] = 3
    figure = figures.comparison_figure(image, truth, prediction, classes=CLASSES, palette=PALETTE[:2])
    assert {"road", "car (no colour)", "rider (no colour)", "not labelled"} <= set(_texts(figure))
    shown = figure.axes[2].get_images()[0].get_array()
    assert tuple(shown[0, 0]) == tuple(shown[-1, 0]) == (0, 0, 0)  # a rider, a car
    figure = figures.comparison_figure(image, None, prediction, classes=CLASSES[:2], palette=PALETTE)
    assert {"road", "sky", "not labelled"} <= set(_texts(figure)) and "car" not in _texts(figure)
    assert tuple(figure.axes[1].get_images()[0].get_array()[-1, 0]) == (0, 0, 0)


def test_names_that_matplotlib_would_read_otherwise():
    """A leading underscore would leave a class out of the legend, and two $ would be maths."""
    image, truth, prediction = _frame()
    classes = ("_background_", "a$b$c", r"$\nosuch$", "rider")
    figure = figures.comparison_figure(
        image, truth, prediction, classes=classes, palette=PALETTE, name=r"$\nosuch$_1$"
    )
    assert {*classes[:3], r"$\nosuch$_1$"} <= set(_texts(figure))
    attention = figures.attention_figure(image, _attention(1), labels=prediction, classes=classes)
    for one in (figure, attention):
        one.canvas.draw()  # would raise on maths that it cannot read


def test_weights_that_are_no_shares_are_not_called_uniform_attention():
    image = _frame()[0]
    plain = _attention(1)
    rows = plain.rows * 3 - 0.1
    signed = AttentionMaps(plain.module, plain.positions, rows, plain.placement, values="weights")
    labels = [
        [axes.get_xlabel() for axes in figures.attention_figure(image, maps).axes if axes.get_xlabel()]
        for maps in (plain, signed)
    ]
    assert labels[0] == ["× uniform attention, from 0 to this map's maximum"]
    assert labels[1] == ["weight × number of cells, from 0 to this map's maximum, negative weights as 0"]
