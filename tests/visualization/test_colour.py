import numpy as np
import pytest

from danseg.visualization.colour import classes_present, colourise, overlay

PALETTE = [(10, 20, 30), (200, 100, 0)]


def test_every_id_takes_its_colour_and_strangers_black():
    labels = np.array([[0, 1, 2], [255, -1, 0]])
    painted = colourise(labels, PALETTE)
    assert painted.dtype == np.uint8
    expected = [[(10, 20, 30), (200, 100, 0), (0, 0, 0)], [(0, 0, 0), (0, 0, 0), (10, 20, 30)]]
    assert painted.tolist() == [[list(c) for c in row] for row in expected]


def test_a_byte_map_is_painted_like_a_wide_one():
    labels = np.array([[0, 1, 255]], dtype=np.uint8)
    assert (colourise(labels, PALETTE) == colourise(labels.astype(np.int64), PALETTE)).all()


@pytest.mark.parametrize("labels", [np.zeros((2, 2)), np.zeros((2, 2, 1), dtype=int)])
def test_what_is_no_label_map_is_refused(labels):
    with pytest.raises(ValueError, match="2-d array of integers"):
        colourise(labels, PALETTE)


def test_overlay_mixes_exactly_and_leaves_unlabelled_pixels_alone():
    image = np.array([[[100, 100, 100], [7, 8, 9]]], dtype=np.uint8)
    labels = np.array([[1, 255]])
    mixed = overlay(image, labels, PALETTE, opacity=0.25)
    assert mixed.dtype == np.uint8
    assert mixed.tolist() == [[[125, 100, 75], [7, 8, 9]]]  # 0.75 * 100 + 0.25 * (200, 100, 0)


def test_overlay_ends_at_image_and_at_paint():
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    labels = np.random.default_rng(1).integers(0, 2, (3, 4))
    assert (overlay(image, labels, PALETTE, opacity=0) == image).all()
    assert (overlay(image, labels, PALETTE, opacity=1) == colourise(labels, PALETTE)).all()


def test_overlay_refuses_other_sizes_and_opacities():
    image = np.zeros((3, 4, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(4, 3\)"):
        overlay(image, np.zeros((4, 3), dtype=int), PALETTE)
    with pytest.raises(ValueError, match="1.5"):
        overlay(image, np.zeros((3, 4), dtype=int), PALETTE, opacity=1.5)


def test_classes_present_counts_all_maps_and_puts_the_largest_first():
    first, second = np.array([[2, 2, 0, 255]]), np.array([[0, 0, 0, 4]])
    assert classes_present(first, second, num_classes=5) == [0, 2, 4]
    assert classes_present(first, num_classes=5) == [2, 0]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64, np.uint64])
@pytest.mark.parametrize("count", [2, 255, 256, 300])
def test_any_type_of_labels_with_any_number_of_colours(dtype, count):
    """A byte's range ends before 300 colours do; 255 is a class if there are so many, else nothing."""
    palette = [(i % 251, i // 251, 7) for i in range(count)]
    labels = np.array([[0, 1, 127, 254, 255]], dtype=dtype)
    expected = [palette[i] if i < count else (0, 0, 0) for i in labels[0].tolist()]
    assert [tuple(colour) for colour in colourise(labels, palette)[0].tolist()] == expected
    image = np.full((1, 5, 3), 99, dtype=np.uint8)
    mixed = overlay(image, labels, palette, opacity=1)[0].tolist()
    assert mixed == [list(palette[i]) if i < count else [99] * 3 for i in labels[0].tolist()]


def test_no_colours_at_all_leave_the_image():
    image = np.full((1, 2, 3), 99, dtype=np.uint8)
    assert (overlay(image, np.array([[0, 255]]), []) == image).all()


@pytest.mark.parametrize(
    ("palette", "message"),
    [
        ([(0.5, 0.1, 0.9)], "whole numbers from 0 to 255, got float64"),
        ([(0, 256, 0)], "from 0 to 256"),
        ([(-1, 0, 0)], "from -1 to 0"),
        ([(1, 2, 3, 255), (4, 5, 6, 255), (7, 8, 9, 255)], r"shape \(3, 4\)"),
        ([1, 2, 3, 4, 5, 6], r"shape \(6,\)"),
    ],
)
def test_what_is_no_palette_is_refused(palette, message):
    with pytest.raises(ValueError, match=message):
        colourise(np.array([[0]]), palette)
