"""docs/api.md: every example runs, and the page names all that there is."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from danseg import apis

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def examples(camvid, make_config, make_checkpoint, monkeypatch):
    """Run the page's examples from the first to the given one, in a folder with the files that they name."""
    rasterio = pytest.importorskip("rasterio")
    config = make_config(camvid)
    (camvid / "configs").mkdir()
    config.dump(camvid / "configs" / "danet_r50_cityscapes.py")
    make_checkpoint(config, camvid / "best.pth")
    picture = cv2.imread(str(camvid / "val" / "a.png"))
    cv2.imwrite(str(camvid / "street.png"), picture)
    with rasterio.open(
        camvid / "aerial.tif", "w", driver="GTiff", width=72, height=60, count=3, dtype="uint8"
    ) as file:
        file.write(np.moveaxis(picture, 2, 0))
    monkeypatch.chdir(camvid)
    return camvid


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_every_example_runs_and_what_it_says_is_so(examples, capsys):
    assert len(EXAMPLES) > 7
    values: dict = {}
    same = []
    for number, example in enumerate(EXAMPLES):
        exec(compile(example, f"example {number} of docs/api.md", "exec"), values)
        if 'channel_order="bgr"' in example:
            calls = [line for line in example.splitlines() if line.startswith("segmenter(")]
            same = [eval(line, values).labels for line in calls]
    assert len(same) == 7 and all((one == same[0]).all() for one in same) and len(np.unique(same[0])) > 1
    prediction = values["prediction"]
    assert prediction.labels.shape == (60, 72) and prediction.probabilities.shape == (11, 60, 72)
    assert len(values["predictions"]) == 3 and values["heat"].shape == (1, 60, 72)
    assert (values["labels"] == apis.predict(values["model"], "street.png")).all()
    assert (examples / "labels.tif").is_file()
    printed = capsys.readouterr().out
    assert "images[1]: image of 1000 bytes cannot be read: a PNG that is cut short" in printed
    assert re.search(rf"^road +{prediction.areas()['road'].pixels} ", printed, re.MULTILINE)


def test_the_page_names_everything():
    assert not [name for name in apis.__all__ if not re.search(rf"\b{name}\b", PAGE)]
