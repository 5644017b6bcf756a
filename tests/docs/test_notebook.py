"""The notebook runs from top to bottom, and shows what it says it shows."""

import os

import nbformat
import pytest
from nbclient import NotebookClient

from documents import ROOT

PATH = ROOT / "notebooks" / "danseg.ipynb"


def test_it_is_committed_without_what_it_printed():
    notebook = nbformat.read(PATH, 4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and not [cell for cell in code if cell.outputs or cell.execution_count]


@pytest.mark.slow
def test_it_runs_and_shows_labels_and_attention(tmp_path):
    notebook = nbformat.read(PATH, 4)
    place = {"metadata": {"path": str(PATH.parent)}}
    variables = {
        "TMPDIR": str(tmp_path),
        "HOME": str(tmp_path),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place)
    client.execute(env={**os.environ, **variables})
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = {cell.id: [one.data for one in cell.outputs if "data" in one] for cell in code}
    assert shown["predict"][0]["text/plain"] == "((128, 256), dtype('int64'))"
    assert "image/png" in shown["overlay"][0] and "image/png" in shown["attention"][0]
    # Two maps over the image, of a module whose scale has left the zero at which it starts.
    shape, scale = shown["attention-numbers"][0]["text/plain"].strip("()").split("), ")
    assert shape == "2, 128, 256" and float(scale) != 0
    assert not list(PATH.parent.glob("work_dirs")), "a run writes into its own folder alone"
