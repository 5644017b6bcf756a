"""One function writes files, one makes folders, one reads labels; running this file names them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What such a function calls, and the only functions that may: (file, function).
ONE_WAY = {
    "gives a written file its name": (
        {"os.replace", "os.rename", "os.link", ".rename", "shutil.move"},
        {
            ("danseg/io/files.py", "whole_file"),
            ("danseg/io/files.py", "files_together"),
            ("danseg/engine/work_dir.py", "_move"),  # whole files, of an earlier training
        },
    ),
    "starts OpenVINO": (
        {"openvino.Core"},
        {("danseg/export/sessions.py", "_core")},
    ),
    "makes a folder": (
        {".mkdir", "os.mkdir", "os.makedirs"},
        {("danseg/io/files.py", "make_folder")},
    ),
    "opens a user's file of bytes": (
        {".read_bytes", "open_file"},
        {
            ("danseg/io/source_files.py", "read_file"),
            ("danseg/io/image_headers.py", "mapped"),
            ("danseg/datasets/copying.py", "_is_same"),  # beside what is copied there
            ("danseg/datasets/frame_cache.py", "_shape"),
            ("danseg/export/read_description.py", "_of_onnx"),  # which steps over gigabytes
        },
    ),
    "searches a folder": (
        {"os.walk", "os.scandir", ".rglob"},
        {
            ("danseg/io/source_files.py", "files_below"),
            ("danseg/datasets/camvid.py", "load_data_list"),  # lists a folder alone, links and all
            ("danseg/engine/work_dir.py", "clear_leftovers"),  # of dotted names, which others leave alone
        },
    ),
    "encodes a picture": (
        {"cv2.imencode", "cv2.imwrite", "Image.fromarray"},
        {("danseg/io/images.py", "encode_image")},
    ),
    "decodes an image": (
        {"cv2.imdecode", "cv2.imread", "Image.open"},
        {
            ("danseg/io/images.py", "_imdecode"),
            ("danseg/io/images.py", "decode_whole"),
            ("danseg/datasets/frame_cache.py", "_shape"),  # the header alone
        },
    ),
    "reads a picture for a network": (
        {"load_picture"},
        {
            ("danseg/apis/pictures.py", "load"),
            ("danseg/apis/raster_rows.py", "_loaded"),
            ("danseg/datasets/check_contents.py", "_decode_image"),
            ("danseg/datasets/whole_files.py", "__call__"),
            ("danseg/datasets/loading.py", "load_shown"),
        },
    ),
    "decodes a label": (
        {"mmcv.imfrombytes", "mmcv.imread", "decode_plain_png:GREY"},
        {
            ("danseg/label_maps/label_png.py", "decode_label_map"),
            ("danseg/datasets/loading.py", "_decoded"),  # an image, as mmcv's own step does
        },
    ),
}
# Written into, wherever it is done, is the unfinished file that `whole_file` gives.
WRITES = {".write_text", ".write_bytes", "np.save", ".save"}


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Every call in danseg and its tools: the file, the outermost function it stands in, and the call."""
    for path in sorted([*ROOT.glob("danseg/**/*.py"), *ROOT.glob("tools/*.py")]):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            functions = [node] if isinstance(node, ast.FunctionDef) else []
            if isinstance(node, ast.ClassDef):
                functions = [one for one in node.body if isinstance(one, ast.FunctionDef)]
            for function in functions:
                for call in ast.walk(function):
                    if isinstance(call, ast.Call):
                        yield path.relative_to(ROOT).as_posix(), function.name, call


def names(call: ast.Call) -> set[str]:
    """Names of what is called: ``os.replace``, ``.mkdir``; with its colour for the fast PNG decoder."""
    whole = ast.unparse(call.func)
    found = {whole, f".{whole.rpartition('.')[2]}" if "." in whole else whole}
    if whole == "decode_plain_png" and len(call.args) > 1:
        found.add(f"{whole}:{ast.unparse(call.args[1])}")
    return found


def places(wanted: set[str]) -> set[tuple[str, str]]:
    return {(file, function) for file, function, call in calls() if names(call) & wanted}


@pytest.mark.parametrize("what", ONE_WAY)
def test_one_function(what):
    wanted, allowed = ONE_WAY[what]
    assert places(wanted) == allowed


def test_writing_goes_into_the_file_that_takes_its_name_when_it_is_whole():
    written = [
        (file, function, ast.unparse(call)) for file, function, call in calls() if names(call) & WRITES
    ]
    assert len(written) > 5
    texts = [text for *_, text in written if not text.endswith(", buffer)")]  # in memory
    assert not [text for text in texts if not text.startswith("part.") and "(file," not in text]


def main() -> None:
    for what, (wanted, _) in ONE_WAY.items():
        for file, function in sorted(places(wanted)):
            print(f"{what}: {function} in {file}")


if __name__ == "__main__":
    main()
