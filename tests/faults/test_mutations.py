"""The damage is damage, and the judge of it sees what checksums see."""

import io
import zipfile
from random import Random

import pytest
import torch
from PIL import Image

from mutations import MUTATIONS, SAME_SIZE, mutate_text, png_chunks, png_of
from wholeness import complaint


def _png() -> bytes:
    written = io.BytesIO()
    Image.frombytes("RGB", (32, 16), Random(0).randbytes(32 * 16 * 3)).save(written, "PNG")
    return written.getvalue()


def _checkpoint() -> bytes:
    written = io.BytesIO()
    torch.save({"state_dict": {"weight": torch.arange(100.0)}}, written)
    return written.getvalue()


FILES = {"png": _png(), "checkpoint": _checkpoint()}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_changes_the_file_and_repeats_from_its_seed(name, file):
    data = FILES[file]
    changed = [MUTATIONS[name](data, Random(seed)) for seed in range(20)]
    assert changed == [MUTATIONS[name](data, Random(seed)) for seed in range(20)]
    assert sum(one != data for one in changed) > 15  # a block of zeros may have been one
    if name in SAME_SIZE:
        assert {len(one) for one in changed} == {len(data)}


@pytest.mark.parametrize("file", FILES)
def test_a_whole_file_is_no_cause_for_complaint(file):
    assert complaint(FILES[file]) == ""


def test_every_damaged_pixel_and_weight_is_seen():
    png, checkpoint = FILES["png"], FILES["checkpoint"]
    start = png.index(b"IDAT") + 4
    for place in range(start, png.index(b"IEND") - 8, 7):
        assert complaint(png[:place] + bytes([png[place] ^ 1]) + png[place + 1 :])
    start = checkpoint.index(torch.arange(100.0).numpy().tobytes())
    for place in range(start, start + 400, 7):
        assert complaint(checkpoint[:place] + bytes([checkpoint[place] ^ 1]) + checkpoint[place + 1 :])
    assert complaint(png[:-20]) and complaint(checkpoint[:-20]) and complaint(b"")


def test_a_forged_file_has_checksums_that_agree():
    for seed in range(20):
        forged = MUTATIONS["forge"](FILES["png"], Random(seed))
        chunks = [(kind, content) for kind, content, _ in png_chunks(forged)]
        assert png_of(chunks) == forged != FILES["png"]
        forged = MUTATIONS["forge"](FILES["checkpoint"], Random(seed))
        assert zipfile.ZipFile(io.BytesIO(forged)).testzip() is None


def test_a_text_is_mutated_line_by_line():
    text = b"a = 1\nb = dict(c=2)\nd = 3\n"
    assert len({mutate_text(text, Random(seed)) for seed in range(50)}) > 20
