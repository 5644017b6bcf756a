"""Writing figures: their size, many threads, and PDFs."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from danseg.errors import UserError
from danseg.visualization import comparison_figure, overview_figure, page, read_image, save_figure
from drawn_figures import CLASSES, PALETTE, frame, maps

ALL = dict(classes=CLASSES, palette=PALETTE)


@pytest.mark.slow
def test_figures_are_written_at_their_size_from_many_threads(tmp_path):
    image, truth, prediction = frame()

    def write(index: int):
        figure = overview_figure(image, truth, prediction, maps(3), **ALL, name="frame")
        return figure, save_figure(figure, tmp_path / f"{index}.png")

    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(write, range(6)))
    first = read_image(written[0][1])
    width, height = (round(inches * page.DPI) for inches in written[0][0].get_size_inches())
    assert abs(first.shape[0] - height) <= 1 and abs(first.shape[1] - width) <= 1
    for figure, path in written[1:]:
        assert (read_image(path) == first).all()
        assert (page.pixels(figure) == first).all()


def test_a_pdf_has_its_text_as_text_and_equal_figures_are_equal_files(tmp_path):
    def write(name: str) -> bytes:
        figure = comparison_figure(*frame(), **ALL, name="a frame")
        path = save_figure(figure, tmp_path / name)
        assert path == tmp_path / name
        return path.read_bytes()

    data = write("a.pdf")
    assert data.startswith(b"%PDF-") and b"/Font" in data and b"/CreationDate" not in data
    assert write("b.PDF") == data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pdf", "b.PDF"]


@pytest.mark.parametrize("name", ["a.pdf", "a.png"])
def test_a_folder_in_the_way_is_an_error_and_nothing_is_left(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="is not a file"):
        save_figure(comparison_figure(*frame(), **ALL), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
