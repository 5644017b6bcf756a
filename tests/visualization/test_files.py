import cv2
import numpy as np
import pytest

from danseg.errors import UserError
from danseg.visualization.files import picture_dir, read_image, read_labels, save_image


def test_images_come_back_as_they_went_in_red_first(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = save_image(image, tmp_path / "straße.png")
    assert (read_image(path) == image).all()
    assert cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)[0, 0, 2] == image[0, 0, 0]


def test_label_maps_are_written_as_one_channel(tmp_path):
    labels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    stored = cv2.imread(str(save_image(labels, tmp_path / "l.png")), cv2.IMREAD_UNCHANGED)
    assert stored.shape == (2, 3) and (stored == labels).all()
    assert (read_labels(tmp_path / "l.png") == labels).all()
    save_image(np.zeros((2, 3, 3), dtype=np.uint8), tmp_path / "colour.png")
    with pytest.raises(UserError, match="colour.png.*one byte a pixel"):
        read_labels(tmp_path / "colour.png")


def test_a_picture_is_replaced_and_leaves_nothing_beside_it(tmp_path):
    save_image(np.zeros((2, 2), dtype=np.uint8), tmp_path / "a.png")
    save_image(np.ones((3, 3), dtype=np.uint8), tmp_path / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED).shape == (3, 3)


@pytest.mark.parametrize("content", [b"", b"no image", "truncated"])
def test_an_unreadable_image_is_named(tmp_path, content):
    path = tmp_path / "broken.png"
    if content == "truncated":
        save_image(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8), path)
        content = path.read_bytes()[:40]
    path.write_bytes(content)
    with pytest.raises(UserError, match="broken.png cannot be read"):
        read_image(path)


def test_missing_images_and_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere.png does not exist"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match="is a folder"):
        read_image(tmp_path)


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "taken").write_text("x")
    with pytest.raises(UserError, match="taken cannot be a folder"):
        picture_dir(tmp_path / "taken")
    assert picture_dir(tmp_path / "a" / "b").is_dir()


def test_a_folder_in_the_way_of_a_picture_is_named_and_kept(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(UserError, match="a.png is not a file"):
        save_image(np.zeros((2, 2), dtype=np.uint8), tmp_path / "a.png")
    assert (tmp_path / "a.png").is_dir()
