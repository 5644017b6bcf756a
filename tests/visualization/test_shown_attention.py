import numpy as np
import pytest

from danseg.visualization import AttentionMaps, Placement


@pytest.mark.parametrize(
    ("position", "cell"),
    [((0, 0), (0, 0)), ((199, 99), (12, 24)), ((100, 49), (6, 12)), ((8, 0), (0, 1)), ((7, 8), (1, 0))],
)
def test_a_pixel_falls_into_the_cell_that_holds_it(position, cell):
    placement = Placement((100, 200), (100, 200), (100, 200))
    assert placement.cell(position, (13, 25)) == cell  # cells of 100/13 x 8 pixels


def test_positions_follow_resize_and_padding():
    # 100 x 200 pixels are enlarged to 50 x 300 and lie at row 10, column 40 of a 80 x 400 input.
    placement = Placement((100, 200), (80, 400), (50, 300), offset=(10, 40))
    assert placement.cell((0, 0), (80, 400)) == (10, 40)
    assert placement.cell((199, 99), (80, 400)) == (59, 339)
    assert placement.cell((100, 50), (8, 10)) == (3, 4)  # input pixel (35.25, 190.75)


def test_the_pixel_below_a_cell_lies_in_that_cell_and_padding_has_none():
    for placement, map_size in [
        (Placement((100, 200), (100, 200), (100, 200)), (13, 25)),
        (Placement((100, 200), (80, 400), (50, 300), offset=(10, 40)), (8, 10)),
        (Placement((50, 40), (160, 192), (120, 80), offset=(32, 96)), (20, 24)),
    ]:
        rows, columns = placement.pixels(map_size)
        assert rows.shape == (map_size[0],) and columns.shape == (map_size[1],)
        assert (rows >= 0).any() and (columns >= 0).any()
        for row, y in enumerate(rows):
            for column, x in enumerate(columns):
                if x >= 0 and y >= 0:
                    assert placement.cell((x, y), map_size) == (row, column)
    # Cells of 8 input pixels; the picture takes the input's rows 32 to 151 and columns 96 to 175.
    assert [row for row, y in enumerate(rows) if y >= 0] == list(range(4, 19))
    assert [column for column, x in enumerate(columns) if x >= 0] == list(range(12, 22))


@pytest.mark.parametrize("position", [(200, 0), (0, 100), (-1, 0), (0, -1)])
def test_positions_outside_the_image_are_refused(position):
    placement = Placement((100, 200), (100, 200), (100, 200))
    with pytest.raises(ValueError, match=f"x={position[0]}, y={position[1]} .*0 to 199.*0 to 99"):
        placement.cell(position, (10, 10))


def test_a_map_is_brightest_where_its_cell_lies_in_the_image():
    placement = Placement((96, 64), (160, 192), (120, 80), offset=(32, 96))
    for position in [(40, 20), (12, 70)]:
        row, column = placement.cell(position, (20, 24))
        rows = np.zeros((1, 20, 24), dtype=np.float32)
        rows[0, row, column] = 1
        heat = AttentionMaps("pam", [position], rows, placement).over_image()
        assert heat.shape == (1, 96, 64)
        y, x = np.unravel_index(heat[0].argmax(), heat[0].shape)
        # A cell is 8 input pixels, 6.4 image pixels: the brightest pixel is within half of it.
        assert abs(x - position[0]) <= 4 and abs(y - position[1]) <= 4


def test_uniform_attention_is_one_everywhere():
    placement = Placement((30, 50), (32, 64), (30, 50))
    maps = AttentionMaps("pam", [(0, 0)], np.full((1, 4, 8), 1 / 32), placement)
    np.testing.assert_allclose(maps.over_image(), np.ones((1, 30, 50)), rtol=1e-6)


@pytest.mark.parametrize(
    ("positions", "shape"), [([], (0, 4, 8)), ([(0, 0)], (2, 4, 8)), ([(0, 0)], (4, 8)), ([], (4, 8))]
)
def test_no_maps_are_no_attention_maps(positions, shape):
    with pytest.raises(ValueError, match=r"one \(h, w\) map for each position, or at least one"):
        AttentionMaps("pam", positions, np.zeros(shape), Placement((30, 50), (32, 64), (30, 50)))


@pytest.mark.parametrize(("values", "shown"), [("shares", 32), ("weights", 32), ("gate", 1)])
def test_what_sums_over_cells_is_shown_free_of_their_number_and_gates_as_they_are(values, shown):
    placement = Placement((30, 50), (32, 64), (30, 50))
    maps = AttentionMaps("cbam", [], np.full((2, 4, 8), 0.25), placement, values=values, parts=("a", "b"))
    np.testing.assert_allclose(maps.over_image(), np.full((2, 30, 50), 0.25 * shown), rtol=1e-6)
