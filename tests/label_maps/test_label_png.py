"""The reader and the writer of label maps: all code that reads a label follows the same rule."""

import io
import pickle
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from danseg.errors import UserError
from danseg.io import png
from danseg.label_maps.label_png import UnusableLabelMap, decode_label_map, read_label_map, write_label_map

HEIGHT, WIDTH = 23, 37
IDS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
GREY, PALETTE, GREY_ALPHA = 0, 3, 4  # colour types of PNG
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def made_png(ids: np.ndarray, bits: int, colour: int, *more: tuple[bytes, bytes], interlaced=False) -> bytes:
    """Build a PNG from its parts: Pillow and OpenCV cannot write all kinds; ``more``: extra chunks."""

    def packed(rows: np.ndarray) -> bytes:
        lines = []
        for row in rows if rows.size else ():
            samples = "".join(f"{sample:0{bits}b}" for sample in row)
            samples += "0" * (-len(samples) % 8)
            lines.append(b"\0" + bytes(int(samples[i : i + 8], 2) for i in range(0, len(samples), 8)))
        return b"".join(lines)

    height, width = ids.shape[:2]
    rows = ids.reshape(height, -1)
    parts = [ids[y::down, x::right] for x, y, right, down in ADAM7] if interlaced else [rows]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    pixels = zlib.compress(b"".join(packed(part) for part in parts))
    chunks = [(b"IHDR", header), *more, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def colours(bits: int) -> tuple[bytes, bytes]:
    """A palette whose colours are not its indices."""
    return b"PLTE", bytes((7 * i + 3) % 256 for i in range(3 * 2**bits))


def encoded(picture: np.ndarray, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind, **options)
    return stream.getvalue()


# Valid files, and the ids that every reader must find in them.
GOOD = {
    "grey": (made_png(IDS, 8, GREY), IDS),
    "grey, interlaced": (made_png(IDS, 8, GREY, interlaced=True), IDS),
    "grey with a transparent id": (made_png(IDS, 8, GREY, (b"tRNS", b"\0\5")), IDS),
    "grey of 1 bit": (made_png(IDS & 1, 1, GREY), IDS & 1),
    **{
        f"palette of {n} bits": (made_png(IDS >> 8 - n, n, PALETTE, colours(n)), IDS >> 8 - n)
        for n in (1, 2, 4, 8)
    },
    "palette with transparency": (made_png(IDS, 8, PALETTE, colours(8), (b"tRNS", bytes(256))), IDS),
    "bmp": (encoded(IDS, "BMP"), IDS),
    "tiff": (encoded(IDS, "TIFF"), IDS),
}
# Readable files that hold no ids, and what the error calls them.
BAD = {
    "grey of 2 bits": (made_png(IDS >> 6, 2, GREY), "grey of 2 bits, which other readers stretch"),
    "grey of 4 bits": (made_png(IDS >> 4, 4, GREY), "grey of 4 bits, which other readers stretch"),
    "grey of 16 bits": (cv2.imencode(".png", IDS.astype(np.uint16))[1].tobytes(), "16 bits a sample"),
    "grey with alpha": (made_png(np.dstack([IDS, IDS]), 8, GREY_ALPHA), "grey with alpha"),
    "colours": (encoded(np.dstack([IDS] * 3), "PNG"), "RGB colours"),
    "colours with alpha": (encoded(np.dstack([IDS] * 4), "PNG"), "RGB colours with alpha"),
    "colours of 16 bits": (
        cv2.imencode(".png", np.dstack([IDS] * 3).astype(np.uint16))[1].tobytes(),
        "16 bits a sample",
    ),
    "grey jpeg": (encoded(IDS, "JPEG"), "JPEG, whose compression may change ids"),
    "jpeg in a tiff": (encoded(IDS, "TIFF", compression="jpeg"), "TIFF, whose compression may change ids"),
}
WHOLE = GOOD["grey"][0]
DAMAGED = {
    "empty": b"",
    "text": b"not an image",
    "half": WHOLE[: len(WHOLE) // 2],
    "header": WHOLE[:40],
    "overwritten": WHOLE[:60] + b"xxxx" + WHOLE[64:],
}


# --- all code that reads a label ------------------------------------------------------------------------


def from_path(path: Path) -> np.ndarray:
    return read_label_map(path)


def from_bytes(path: Path) -> np.ndarray:
    return decode_label_map(path.read_bytes(), path)


def in_pictures(path: Path) -> np.ndarray:
    from danseg.visualization import read_labels

    return read_labels(path)


def in_training(path: Path) -> np.ndarray:
    from danseg.datasets import LoadTrainingCrop

    size = read_size(path)
    Image.new("RGB", size[::-1]).save(path.with_name("image.png"))
    transform = LoadTrainingCrop(
        scale=size[::-1], crop_size=size, ratio_range=(1.0, 1.0), cat_max_ratio=1.0, flip_prob=0.0
    )
    info = dict(img_path=str(path.with_name("image.png")), seg_map_path=str(path), seg_fields=[])
    return transform(info)["gt_seg_map"]


def in_the_cache_for_training(path: Path) -> np.ndarray:
    from danseg.datasets.frame_cache import write_cache

    write_cache(path.parent, [], [str(path)], progress=False)
    return np.load(path.parent / "danseg_cache" / f"{path.name}.npy")


def in_evaluation(path: Path) -> np.ndarray:
    """Sorted: ``tools/evaluate.py`` counts ids, here those that lie where the label map holds 0."""
    from danseg.evaluation.folders import Pair, _count_pair
    from danseg.label_maps.id_formats import IdFormat

    every = IdFormat("every id", tuple(range(256)), frozenset())
    write_label_map(path.with_name("zeros.png"), np.zeros((HEIGHT, WIDTH)))
    ids, counts = _count_pair(Pair(path.with_name("zeros.png"), path), every, every, {})
    return np.repeat(ids, counts)


def in_the_check(path: Path) -> np.ndarray:
    """Sorted: the check counts ids."""
    from danseg.datasets.check_contents import decode_all
    from danseg.datasets.loading import loading_step

    Image.new("RGB", read_size(path)[::-1]).save(path.with_name("image.png"))
    pairs = [(str(path.with_name("image.png")), str(path))]
    loader = loading_step([dict(type="LoadImageFromFile")])
    contents = decode_all(pairs, np.ones(256, bool), np.arange(256), loader, "checking", progress=False)
    if contents.problems:
        raise UserError(str(contents.problems))
    return np.repeat(np.arange(256), contents.raw_pixels)


def in_preparation(path: Path) -> np.ndarray:
    """The labelIds from which trainIds are made; the table is longer, because the tests use ids above 33."""
    from danseg.datasets import prepare_cityscapes

    stem = path.with_name("x_")
    stem.with_name("x_labelIds.png").write_bytes(path.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare_cityscapes, "TRAIN_IDS", np.arange(256, dtype=np.uint8))
        prepare_cityscapes._convert_ids(str(stem))
    return cv2.imread(f"{stem}labelTrainIds.png", cv2.IMREAD_UNCHANGED)


def in_mmseg(path: Path) -> np.ndarray:
    from mmseg.datasets.transforms import LoadAnnotations

    info = dict(seg_map_path=str(path), seg_fields=[], reduce_zero_label=False, label_map=None)
    return LoadAnnotations().transform(info)["gt_seg_map"]


def read_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception:
        return HEIGHT, WIDTH


ROUTES = (
    from_path,
    from_bytes,
    in_pictures,
    in_training,
    in_the_cache_for_training,
    in_evaluation,
    in_the_check,
    in_preparation,
)


@pytest.fixture
def place(tmp_path) -> Path:
    return tmp_path / "label.png"


@pytest.mark.parametrize("route", [*ROUTES, in_mmseg], ids=lambda route: route.__name__)
@pytest.mark.parametrize("kind", GOOD)
def test_the_stored_samples_are_the_ids(place, kind, route):
    data, ids = GOOD[kind]
    place.write_bytes(data)
    counted = route in (in_evaluation, in_the_check)
    np.testing.assert_array_equal(route(place), np.sort(ids, axis=None) if counted else ids)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.__name__)
@pytest.mark.parametrize("kind", BAD)
def test_what_holds_no_ids_is_refused_with_its_name_its_kind_and_the_fix(place, kind, route):
    data, words = BAD[kind]
    place.write_bytes(data)
    with pytest.raises(UserError) as refused:
        route(place)
    message = str(refused.value)
    assert "label.png" in message or "x_labelIds.png" in message
    assert words in message
    assert "8-bit grey PNG" in message or route is in_the_check  # it names the fix once for all


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.__name__)
@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_are_refused_and_named(place, kind, route):
    place.write_bytes(DAMAGED[kind])
    with pytest.raises(UserError, match=r"(label|x_labelIds)\.png"):
        route(place)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UnusableLabelMap, match=r"b\.png cannot be read.*it does not exist.*write it again"):
        read_label_map(tmp_path / "b.png")


# --- the fast decoder -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", GOOD)
def test_the_plain_way_gives_the_same_and_plain_files_alone_take_the_fast_one(monkeypatch, kind):
    data, ids = GOOD[kind]
    asked = []
    fast = png.decode_image_png_u8
    monkeypatch.setattr(png, "decode_image_png_u8", lambda *args: asked.append(args) or fast(*args))
    decode_label_map(data, "a")
    assert len(asked) == (kind == "grey")
    monkeypatch.setattr(png, "decode_image_png_u8", None)
    np.testing.assert_array_equal(decode_label_map(data, "a"), ids)


def test_the_fast_way_never_reads_a_damaged_file_as_other_ids():
    data = encoded(np.kron(IDS[:8, :8] % 19, np.ones((8, 8), np.uint8)), "PNG")
    ids = decode_label_map(data, "a")
    for at in range(33, len(data)):
        plain = png.decode_plain_png(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :], png.GREY)
        if plain is not None:
            np.testing.assert_array_equal(plain[0][..., 0], ids)


# --- the error ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "damaged"), [(BAD["colours"][0], False), (b"", True)])
def test_the_error_survives_the_way_out_of_a_worker(data, damaged):
    with pytest.raises(UnusableLabelMap) as refused:
        decode_label_map(data, "a.png")
    back = pickle.loads(pickle.dumps(refused.value))
    assert str(back) == str(refused.value) and back.reason == refused.value.reason != ""
    assert back.damaged == damaged
    assert str(UnusableLabelMap("as torch's data loader makes it anew"))


# --- writing --------------------------------------------------------------------------------------------


def test_what_is_written_is_grey_of_8_bits_and_comes_back(tmp_path):
    path = write_label_map(tmp_path / "straße.png", IDS.astype(np.int64))
    with Image.open(path) as image:
        assert image.format == "PNG" and image.mode == "L" and image.size == (WIDTH, HEIGHT)
    assert path.read_bytes()[24] == 8
    np.testing.assert_array_equal(read_label_map(path), IDS)
    write_label_map(path, IDS[:2])
    np.testing.assert_array_equal(read_label_map(path), IDS[:2])
    assert [file.name for file in tmp_path.iterdir()] == ["straße.png"]


@pytest.mark.parametrize("wrong", [-1, 256])
def test_ids_that_take_more_than_8_bits_are_refused(tmp_path, wrong):
    with pytest.raises(UserError, match=rf"a\.png: .*0\.\.255, got .*{wrong}"):
        write_label_map(tmp_path / "a.png", np.array([[0, wrong]]))
    assert not (tmp_path / "a.png").exists()


def test_unwritable_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot write .*nowhere"):
        write_label_map(tmp_path / "nowhere" / "a.png", np.zeros((2, 2), np.uint8))


# --- headers that promise more than the file holds -------------------------------------------------------


def promising(data: bytes, height: int) -> bytes:
    """The PNG with another height in its header, and the header's checksum."""
    header = data[12:20] + struct.pack(">I", height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (17, 13), (16, 24)])
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("bits", "colour"), [(8, GREY), (1, GREY), (1, PALETTE), (4, PALETTE), (8, PALETTE)])
def test_a_file_with_fewer_rows_than_its_header_promises_is_damaged(bits, colour, interlaced, size):
    ids = np.random.default_rng(0).integers(0, min(2**bits, 16), size, dtype=np.uint8)
    palette = [(b"PLTE", bytes(range(48))[: 3 * 2**bits])] if colour == PALETTE else []
    data = made_png(ids, bits, colour, *palette, interlaced=interlaced)
    np.testing.assert_array_equal(decode_label_map(data, "a.png"), ids)
    for height in (size[0] + 1, 10**6):
        with pytest.raises(UnusableLabelMap, match="fewer pixels than its header promises") as caught:
            decode_label_map(promising(data, height), "a.png")
        assert caught.value.damaged
