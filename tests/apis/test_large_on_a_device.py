"""predict_large on every device, from arrays, so that it runs where no rasterio is installed."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from danseg import apis
from danseg.apis import large
from danseg.apis.predict import prepared_batch


@pytest.fixture
def picture(monkeypatch) -> np.ndarray:
    """The picture (H, W, 3) that predict_large reads, whatever file it is given; it needs no rasterio."""
    coarse = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (450, 317), interpolation=cv2.INTER_CUBIC)

    def reader(*_) -> SimpleNamespace:
        rows = np.moveaxis(image[..., ::-1], 2, 0)  # the order of mmcv's loading
        return SimpleNamespace(size=image.shape[:2], turned=False, read=lambda start, end: rows[:, start:end])

    for name, stand_in in dict(
        import_rasterio=lambda: SimpleNamespace(Env=lambda **_: nullcontext()),
        opened=lambda _: nullcontext(),
        RowReader=reader,
        require_place=lambda *_: None,
        _check_paths=lambda *_: None,
    ).items():
        monkeypatch.setattr(large, name, stand_in)
    return image


@pytest.fixture
def written(monkeypatch) -> list[np.ndarray]:
    """The rows of labels that predict_large writes, from top to bottom."""
    rows: list[np.ndarray] = []

    @contextmanager
    def created(*_):
        yield lambda labels, row: rows.append(labels) if row == sum(map(len, rows)) else pytest.fail("order")

    monkeypatch.setattr(large, "created_geotiff", created)
    return rows


@pytest.mark.parametrize(
    "head", [{}, dict(num_classes=2, out_channels=1, threshold=0.6)], ids=["many", "one"]
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_tiles_give_the_labels_of_the_whole_picture(
    near_sighted, picture, written, tmp_path, head, precision, device
):
    model = apis.prepare_for_inference(near_sighted(device=device, **head), precision=precision)
    with torch.no_grad():  # the network is near-sighted: the tiles' edges do not show
        whole = model.test_step(prepared_batch(model, picture))[0].pred_sem_seg.data[0].cpu().numpy()
    apis.predict_large(model, tmp_path / "any.tif", tmp_path / "labels.tif", tile=128, overlap=32)
    labels = np.concatenate(written)
    assert labels.shape == whole.shape and len(np.unique(whole)) > 1
    assert (labels != whole).mean() < (1e-4 if precision == "float32" else 2e-2)
    exact = apis.predict(near_sighted(**head), picture)
    assert (labels != exact).mean() < (1e-4 if precision == "float32" else 5e-2)
