"""YAML is read strictly: what it would take silently for something else is one message with its line."""

import pytest

from danseg.errors import UserError
from danseg.io.yaml_file import read_yaml


def test_plain_data(tmp_path):
    (tmp_path / "x.yaml").write_text("a: [1, 'no', {b: 2.5}]\nc:\n  0: ä\n  10: null\n", encoding="utf-8-sig")
    assert read_yaml(tmp_path / "x.yaml") == {"a": [1, "no", {"b": 2.5}], "c": {0: "ä", 10: None}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: 1\nb: 2\na: 3\n", "line 3: 'a' occurs twice"),
        (b"a: {b: 1, b: 2}", "'b' occurs twice"),
        (b"a: {1: x, 1.0: y}", "1.0 occurs twice"),
        (b"a: &x [1]\nb: *x\n", "line 2: an alias"),
        (b"a: !!python/name:os.system ''", "line 1: could not determine a constructor"),
        (b"a: [1\n", "is no YAML of plain data"),
        (b"a: \xff", r"is not UTF-8 \(byte 3\)"),
        (b"[1]", "holds list at its top"),
        (b"a: 1\n---\nb: 2\n", "line 2: but found another document"),
        (b"a: " + b"9" * 5000, "cannot be read"),
        (b"a: 2020-13-40", "cannot be read"),
        (b"a: \x00", "is no YAML"),
    ],
)
def test_one_message(tmp_path, content, said):
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        read_yaml(tmp_path / "x.yaml")
    assert str(tmp_path / "x.yaml") in str(caught.value)


def test_a_bomb_is_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (tmp_path / "x.yaml").write_text("\n".join(lines))
    with pytest.raises(UserError, match="an alias"):
        read_yaml(tmp_path / "x.yaml")


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read: it does not exist"):
        read_yaml(tmp_path / "x.yaml")
    with pytest.raises(UserError, match="cannot be read: it is a folder"):
        read_yaml(tmp_path)
