"""Every kind of output holds what it says."""

import numpy as np
import pytest
from PIL import Image

from danseg.apis.outputs import ENDS, Writer
from danseg.apis.predict import InputPipeline
from danseg.errors import UserError
from danseg.label_maps.cityscapes_labels import LABELS
from danseg.visualization import read_labels, save_image

LABELS_OF_IT = np.arange(48 * 80).reshape(48, 80) % 19


@pytest.fixture
def model(near_sighted):
    made = near_sighted(num_classes=19)
    made.dataset_meta.update(
        classes=tuple(label.name for label in LABELS if label.train_id != 255),
        palette=[label.colour for label in LABELS if label.train_id != 255],
    )
    made.cfg.test_evaluator = dict(type="ExactIoUMetric", output_format="cityscapes")
    return made


def write(model, out, kind, **given):
    loader = InputPipeline(model).loader
    files = Writer(model, loader, out, [kind])("a/x", LABELS_OF_IT, [kind], **given)
    assert files == {kind: [out / f"a/x_{ENDS[kind]}"]}
    return files[kind][0]


def test_labels_in_the_forms_of_pngs(model, tmp_path):
    assert (read_labels(write(model, tmp_path, "trainIds")) == LABELS_OF_IT).all()
    ids = np.array([label.id for label in LABELS if label.train_id != 255])
    assert (read_labels(write(model, tmp_path, "labelIds")) == ids[LABELS_OF_IT]).all()
    path = write(model, tmp_path, "palette")
    assert (read_labels(path) == LABELS_OF_IT).all()
    with Image.open(path) as picture:
        assert picture.mode == "P"
        colours = np.array(model.dataset_meta["palette"])
        assert (np.asarray(picture.convert("RGB")) == colours[LABELS_OF_IT]).all()


@pytest.mark.parametrize("evaluator", [None, dict(type="IoUMetric"), [dict(type="x", output_format="plain")]])
def test_label_ids_need_a_data_set_that_has_them(model, tmp_path, evaluator):
    model.cfg.test_evaluator = evaluator
    with pytest.raises(UserError, match="--labels labelIds: .* write --labels trainIds"):
        write(model, tmp_path, "labelIds")


def test_probabilities_are_an_array(model, tmp_path):
    scores = np.random.default_rng(0).random((19, 48, 80)).astype(np.float16)
    found = np.load(write(model, tmp_path, "probabilities", probabilities=scores))
    assert found.dtype == np.float16 and (found == scores).all()


def test_a_geotiff_lies_where_its_image_lies(model, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    place = rasterio.transform.from_origin(10, 50, 0.5, 0.25)
    source = tmp_path / "x.tif"
    how = dict(driver="GTiff", height=48, width=80, count=3, dtype="uint8", crs="EPSG:4326", transform=place)
    with rasterio.open(source, "w", **how) as file:
        file.write(np.zeros((3, 48, 80), np.uint8))
    with rasterio.open(write(model, tmp_path, "geotiff", source=str(source))) as file:
        assert (file.read(1) == LABELS_OF_IT).all()
        assert file.transform == place and file.crs.to_epsg() == 4326
    save_image(np.zeros((48, 80, 3), np.uint8), tmp_path / "plain.png")
    with rasterio.open(write(model, tmp_path, "geotiff", source=str(tmp_path / "plain.png"))) as file:
        assert (file.read(1) == LABELS_OF_IT).all()
    with pytest.raises(UserError, match="a frame lies on no map"):
        write(model, tmp_path, "geotiff")
