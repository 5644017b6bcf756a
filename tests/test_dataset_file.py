"""What a dataset.yaml says is read back as written; everything else is one message that names the key."""

from pathlib import Path

import pytest
import yaml

from danseg.dataset_file import dataset_text, read_dataset_file
from danseg.errors import UserError

GOOD = """
danseg: 1
images: /pictures
masks: masks
names: [road, tree]
colours: [[128, 64, 128], [107, 142, 35]]
mapping: {0: 0, 255: 1}
ignore: [254]
train: train.txt
val: val.txt
"""


def write(folder: Path, text: str, name: str = "dataset.yaml") -> Path:
    (folder / "train.txt").write_text("a.jpg\ta.png\nsub/b b.jpg\tsub/b b_mask.png\n")
    (folder / name).write_text(text)
    return folder / name


def changed(line: str, key: str) -> str:
    """The good file with another line for one key."""
    lines = [one for one in GOOD.splitlines() if not one.startswith(f"{key}:")]
    return "\n".join([*lines, line])


def test_reading(tmp_path):
    write(tmp_path, GOOD)
    read = read_dataset_file(tmp_path)
    assert read == read_dataset_file(tmp_path / "dataset.yaml")
    assert read.names == ("road", "tree") and read.colours == ((128, 64, 128), (107, 142, 35))
    assert read.label_ids == {0: 0, 255: 1, 254: 255}
    assert list(read.splits) == ["train", "val"]
    assert read.pairs("train") == [
        ("/pictures/a.jpg", str(tmp_path / "masks/a.png")),
        ("/pictures/sub/b b.jpg", str(tmp_path / "masks/sub/b b_mask.png")),
    ]


def test_what_may_be_left_out(tmp_path):
    lines = [line for line in GOOD.splitlines() if line.split(":")[0] not in ("colours", "mapping", "ignore")]
    write(tmp_path, "\n".join(lines))
    read = read_dataset_file(tmp_path)
    assert read.label_ids == {0: 0, 1: 1}
    assert read.colours == ((128, 0, 0), (0, 128, 0))  # Pascal VOC's colours 1 and 2


def test_what_is_written_is_read(tmp_path):
    names = ("no", "1e3", "null", "Straße: 'x'", "#", "路面", "- a", "{b}")
    colours = tuple((number, 2, 3) for number in range(len(names)))
    mapping = {10 + number: number for number in range(len(names))}
    text = dataset_text(
        images="/bilder: groß #1",
        masks="no",
        names=names,
        colours=colours,
        mapping=mapping,
        ignore=[255, 0],
        splits={"train": "train.txt", "val": "1"},
    )
    (tmp_path / "dataset.yaml").write_text(text, encoding="utf-8")
    read = read_dataset_file(tmp_path)
    assert (read.names, read.colours) == (names, colours)
    assert read.label_ids == {**mapping, 255: 255, 0: 255}
    assert str(read.images) == "/bilder: groß #1" and read.masks == tmp_path / "no"
    assert read.splits == {"train": (tmp_path / "train.txt",), "val": (tmp_path / "1",)}
    # Any YAML reader gets the same data.
    assert yaml.safe_load(text)["mapping"] == mapping


def test_a_path_that_is_no_utf_8_is_not_written():
    said = dict(masks="m", names=["a"], colours=[(0, 0, 0)], mapping=None, ignore=[], splits={"train": "t"})
    with pytest.raises(UserError, match="is not UTF-8; rename"):
        dataset_text(images="/a\udc80", **said)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nmaes: [a]", "unknown key 'nmaes'; did you mean 'names'"),
        ("danseg: 2", "danseg is 2; this version"),
        ("danseg: true", "danseg is True"),
        ("images: 5", "images is 5; give a path in quotes"),
        ("masks: [a]", r"masks is \['a'\]"),
        ("names: road", "names is 'road'; give a list"),
        ("names: []", r"names is \[\]"),
        ("names: [no, yes]", "name of class 0 is False, as YAML reads it; put it into quotes"),
        ("names: [1.5, b]", "name of class 0 is 1.5"),
        ("names: [2020-01-01, b]", r"name of class 0 is datetime.date\(2020, 1, 1\)"),
        ("names: [a, ' a ']", "names holds 'a' twice"),
        ("names: [a, '']", "name of class 1 is ''"),
        ('names: [a, "b\\nc"]', "name of class 1 is 'b.nc'; give one in one line"),
        ("names: {0: a, 2: b}", "names lacks class 1; number the classes from 0"),
        ("names: {0: a, '1': b}", "names has the key '1'"),
        ("names: {0: a, true: b}", "names has the key True"),
        ("names: {1: a, 2: b}", "names lacks class 0"),
        (f"names: {[f'c{i}' for i in range(256)]}", "256 classes; masks of 8 bits hold 255"),
        ("colours: [[1, 2, 3]]", "colours is 1 of them for 2 classes"),
        ("colours: [[1, 2, 3], [1, 2, 256]]", "colour of 'tree' is .1, 2, 256."),
        ("colours: red", "colours is 'red' for 2 classes"),
        ("mapping: {0: 0, 255: 2}", "gives id 255 the class 2; classes are 0 to 1"),
        ("mapping: {0: 0, 256: 1}", "has the id 256; ids are numbers from 0 to 255"),
        ("mapping: {0: 0, '1': 1}", "has the id '1'"),
        ("mapping: {0: 0, 1: yes}", "gives id 1 the class True"),
        ("mapping: {0: 0, 1: 0}", "gives no id to 'tree'"),
        ("mapping: {0: 0, 1: 1, 2: 255}", "gives 2 class 255; list such ids in ignore"),
        ("mapping: [0, 1]", r"mapping is \[0, 1\]; give id: class"),
        ("mapping:", "mapping is None"),
        ("ignore: 255", "ignore is 255; give a list"),
        ("ignore: [300]", r"ignore is \[300\]"),
        ("ignore: [0]", "ids 0 in ignore have a class in mapping"),
        ("train: 7", "train is 7"),
        ("names: &a [*a, *a]", "an alias"),
        ("names: [a, b]\nnames: [b, a]", "'names' occurs twice"),
        ("mapping: {0: 0, 0: 1}", "0 occurs twice"),
        ("names: !!python/object/apply:os.system [ls]", "no YAML of plain data: line"),
        ("names: [a", "no YAML of plain data: line"),
        ("names: {[a]: b}", "no YAML of plain data: line"),
        ("names: [2020-99-99]", "cannot be read"),
        ("names: \x01", "is no YAML"),
        ("names: " + "[" * 1500, "cannot be read|no YAML"),
    ],
)
def test_one_message_each(tmp_path, line, said):
    path = write(tmp_path, changed(line, line.partition(":")[0]))
    with pytest.raises(UserError, match=said) as caught:
        read_dataset_file(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("key", ["images", "masks", "names"])
def test_a_key_that_is_missing(tmp_path, key):
    write(tmp_path, changed("", key))
    with pytest.raises(UserError, match=f"lacks {key}"):
        read_dataset_file(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"- a\n", "holds list at its top"),
        (b"", "holds NoneType at its top"),
        ("names: Straße\n".encode("latin-1"), r"is not UTF-8 \(byte 11\)"),
        (b"#" * (2**20 + 1), "has 1048577 bytes"),
        (b"train: t\nnames: [a]\n", "masks_dir"),
        (b"nc: 2\nkpt_shape: [1]\n", "unknown key 'nc'"),
    ],
)
def test_other_files(tmp_path, content, said):
    (tmp_path / "dataset.yaml").write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_dataset_file(tmp_path)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="there is no dataset.yaml in .*prepare_dataset.py folder"):
        read_dataset_file(tmp_path)
    with pytest.raises(UserError, match="x.yaml cannot be read: it does not exist"):
        read_dataset_file(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a.jpg a.png\n", "line 1: 'a.jpg a.png' is no pair"),
        (b"a.jpg\ta.png\n\ta.png\n", "line 2"),
        (b"a\tb\tc\n", "line 1"),
        (b"\n", "lists no pair"),
        (b"a\xff.jpg\ta.png\n", "is not UTF-8"),
        (None, "the list .*val.txt cannot be read: it does not exist"),
    ],
)
def test_lists(tmp_path, content, said):
    write(tmp_path, GOOD)
    if content is not None:
        (tmp_path / "val.txt").write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_dataset_file(tmp_path).pairs("val")


def test_no_such_split(tmp_path):
    write(tmp_path, GOOD)
    with pytest.raises(UserError, match="no split 'test', only train, val"):
        read_dataset_file(tmp_path).pairs("test")


def test_no_split_at_all(tmp_path):
    write(tmp_path, "danseg: 1\nimages: a\nmasks: b\nnames: [a]\n")
    with pytest.raises(UserError, match="names no split"):
        read_dataset_file(tmp_path)
