import base64
import re
from collections import Counter

import cv2
import numpy as np
import pytest

from danseg.apis import Prediction
from danseg.visualization import overlay

CLASSES = ("road", "<b>tree</b> & 'co'", "sky", "absent")
PALETTE = [(128, 64, 128), (107, 142, 35), (70, 130, 180), (1, 2, 3)]


def prediction(height=40, width=60, classes=CLASSES, palette=PALETTE) -> Prediction:
    rng = np.random.default_rng(0)
    labels = rng.choice(3, (height, width), p=[0.5, 0.2, 0.3])
    return Prediction(labels, rng.integers(0, 256, (height, width, 3), dtype=np.uint8), classes, palette)


def picture_in(page: str) -> np.ndarray:
    [data] = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_areas_are_counted_pixels():
    one = prediction()
    counts = Counter(CLASSES[id] for row in one.labels.tolist() for id in row)
    areas = one.areas()
    assert list(areas) == list(CLASSES) and len(counts) == 3
    assert {name: area.pixels for name, area in areas.items()} == {name: counts[name] for name in CLASSES}
    assert {name: area.share for name, area in areas.items()} == {
        name: counts[name] / 2400 for name in CLASSES
    }
    assert sum(area.pixels for area in areas.values()) == 2400
    assert all(type(area.pixels) is int and type(area.share) is float for area in areas.values())


def test_ids_without_a_name_are_no_class():
    one = prediction(classes=CLASSES[:1], palette=PALETTE[:1])
    assert one.areas() == {"road": (int((one.labels == 0).sum()), (one.labels == 0).mean())}
    assert "tree" not in one._repr_html_()


def test_the_overlay_is_that_of_visualization():
    one = prediction()
    np.testing.assert_array_equal(one.overlay(), overlay(one.image, one.labels, PALETTE))
    np.testing.assert_array_equal(one.overlay(opacity=0), one.image)


def test_it_names_its_classes_the_largest_first():
    assert re.fullmatch(r"Prediction\(60x40: road [\d.]+%, sky [\d.]+%, <b>.*[\d.]+%\)", repr(prediction()))


def test_a_notebook_shows_overlay_and_legend_and_escapes_names():
    one = prediction()
    page = one._repr_html_()
    shown, expected = picture_in(page).astype(float), one.overlay().astype(float)
    assert shown.shape == expected.shape
    # Noise is what JPEG is worst at: compared in blocks.
    blocks = [array.reshape(5, 8, 15, 4, 3).mean((1, 3)) for array in (shown, expected)]
    assert np.abs(blocks[0] - blocks[1]).max() < 12 < np.ptp(blocks[1])
    text = re.sub(r'src="[^"]+"', "", page)
    assert "<b>" not in text and "&lt;b&gt;tree&lt;/b&gt; &amp; &#x27;co&#x27; " in text
    assert "absent" not in text and text.index("> road") < text.index("> sky") < text.index("> &lt;b")
    legend = re.findall(r"background:rgb\((\d+), (\d+), (\d+)\)", text)
    assert [tuple(map(int, colour)) for colour in legend] == [PALETTE[0], PALETTE[2], PALETTE[1]]


@pytest.mark.parametrize("size", [(3000, 4000), (5000, 2), (1, 1)])
def test_what_a_notebook_stores_is_small(size):
    height, width = size
    labels = np.arange(height)[:, None] * 4 // height + np.zeros((1, width), int)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    one = Prediction(labels, image, CLASSES, PALETTE)
    page = one._repr_html_()
    assert len(page) < 200_000
    shown = picture_in(page)
    assert max(shown.shape) <= 640 and min(shown.shape) >= 1
    if height == 3000:  # each class keeps its place
        means = shown.reshape(4, 120, 640, 3).mean((1, 2))
        assert np.abs(means - [(np.array(colour) + 127.5) / 2 for colour in PALETTE]).max() < 6


def test_a_legend_of_many_classes_ends():
    classes = tuple(f"class {id}" for id in range(150))
    one = Prediction(
        np.arange(150).reshape(10, 15),
        np.zeros((10, 15, 3), np.uint8),
        classes,
        [(id, id, id) for id in range(150)],
    )
    page = one._repr_html_()
    assert page.count("background") == 20 and page.endswith("and 130 more</div>")
