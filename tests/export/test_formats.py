import importlib
from pathlib import Path

import pytest

from danseg import model_files
from danseg.errors import UserError
from danseg.export.formats import FORMATS, PRECISIONS, Format
from danseg.export.sessions import KINDS
from danseg.export.verification import BOUNDS


def test_what_is_written_is_what_can_be_opened():
    assert len(FORMATS) >= 4
    assert {one.suffix for one in FORMATS.values()} == set(KINDS) == set(model_files.EXPORTED)


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
def test_a_format(kind):
    assert FORMATS[kind.name] is kind and set(kind.precisions) <= set(PRECISIONS) == set(BOUNDS)
    assert callable(importlib.import_module(f"danseg.export.{kind.writer}").write)
    kind.require_packages()


def test_files_that_belong_together():
    names = {name: [path.name for path in one.files(Path("a/b.c.x"))] for name, one in FORMATS.items()}
    assert names["onnx"] == ["b.c.x", "b.c.x.data"] and names["openvino"] == ["b.c.x", "b.c.bin"]
    assert names["torchscript"] == names["torch-export"] == ["b.c.x"]


def test_a_package_that_is_missing_is_named():
    kind = Format("x", ".x", "X", "x_file", packages=("json", "nowhere_at_all"))
    with pytest.raises(UserError, match=r"X needs nowhere_at_all, .*pip install 'danseg\[export\]'"):
        kind.require_packages()
