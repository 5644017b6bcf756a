"""JPEGs of whose data a decoder warns."""

import io

import numpy as np
import pytest
from PIL import Image

from danseg.io.images import read_image
from danseg.io.jpeg import is_doubtful

pytest.importorskip("kornia_rs")


def jpeg(mode="RGB", **options):
    y, x = np.mgrid[:96, :128]
    pixels = np.stack([x * 2, y * 2, x * y // 50], axis=-1).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, dict(progressive=True), dict(subsampling=0), dict(optimize=True)])
def test_sound_jpegs_and_other_files_are_not_doubtful(mode, options):
    assert not is_doubtful(jpeg(mode, **options))
    assert not is_doubtful(b"") and not is_doubtful(b"\x89PNG")


def test_bytes_that_are_left_over_or_missing_are_doubtful(tmp_path):
    data = jpeg()
    for damaged in (data[:-2] + b"\0" * 50 + data[-2:], data[: len(data) * 2 // 3] + data[-2:]):
        (tmp_path / "a.jpg").write_bytes(damaged)
        assert read_image(tmp_path / "a.jpg").shape == (96, 128, 3)  # without a word
        assert is_doubtful(damaged)
