"""What docs/serving.md shows is run against a service, and what its tables say is what the code has."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch

from danseg.apis import load_model, predict, prepare_for_inference
from danseg.label_maps.label_png import read_label_map
from danseg.serve import Limits, Service, application
from documents import ROOT, blocks, shell_lines
from served import served

PAGE = ROOT / "docs" / "serving.md"
CURLS = [line for line in shell_lines(PAGE) if line.startswith("curl ")]
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return prepare_for_inference(load_model(str(ROOT / "tests" / "engine" / "tiny.py"), None, "cpu"))


@pytest.fixture
def address(model, tmp_path, monkeypatch) -> Iterator[str]:
    """A service, in place of the page's, and its files in the current folder."""
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("street.png", np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8))
    (tmp_path / "notes.txt").write_text("no picture\n")
    with served(Service(model)) as address:
        yield address


def test_every_line_of_curl_answers_as_the_page_says(address, model):
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    said = []
    for line in CURLS:
        words = shlex.split(line.replace(ADDRESS, address))
        run = subprocess.run(
            [*words, "--silent", "--write-out", "\n%{http_code}"], capture_output=True, text=True
        )
        *body, status = run.stdout.splitlines()
        said.append((int(status), "\n".join(body)))
    labels, areas, overlay, notes, gif, *health, metrics = said
    assert [status for status, _ in said] == [200, 200, 200, 415, 400, 200, 200, 200]
    direct = predict(model, "street.png")
    np.testing.assert_array_equal(read_label_map("labels.png"), direct)
    counts = np.bincount(direct.ravel(), minlength=19).tolist()
    assert [area["pixels"] for area in json.loads(areas[1])["areas"]] == counts
    assert cv2.imread("overlay.png").shape == (32, 64, 3)
    assert list(json.loads(notes[1])) == list(json.loads(gif[1])) == ["error"]
    names = {name for name, _ in re.findall(r"^\| `(danseg_\w+)(\{|`)", PAGE.read_text(), re.MULTILINE)}
    there = set(re.findall(r"^# TYPE (danseg_\w+) (?:counter|gauge|histogram)$", metrics[1], re.MULTILINE))
    assert names == {name for name in there if not name.endswith("_created")} and len(names) == 5


def test_the_program_in_python(address, model):
    [program] = [text for language, text in blocks(PAGE) if language == "python"]
    exec(program.replace(ADDRESS, address), names := {})
    assert sum(names["shares"].values()) == pytest.approx(1)
    assert list(names["shares"]) == list(model.dataset_meta["classes"])


def test_its_tables_have_the_defaults_statuses_and_outputs_of_the_service(model):
    text = PAGE.read_text()
    limits = dict(re.findall(r"^\| `--([\w-]+)` \| ([\d.]+) \|", text, re.MULTILINE))
    default = Limits()
    assert {name: float(value) for name, value in limits.items()} == {
        "max-bytes": default.bytes,
        "max-pixels": default.pixels,
        "timeout": default.seconds,
        "queue": default.queue,
        "max-wait": default.wait * 1000,
    }
    operation = application(Service(model)).openapi()["paths"]["/segment"]["post"]
    statuses = set(re.findall(r"^\| (\d{3}) \|", text, re.MULTILINE))
    assert statuses | {"200"} == {*operation["responses"], "500"}
    outputs = re.findall(r"^\| `(\w+)`(?: \(the default\))? \| (?:a PNG|JSON)", text, re.MULTILINE)
    assert outputs == operation["parameters"][0]["schema"]["enum"]
