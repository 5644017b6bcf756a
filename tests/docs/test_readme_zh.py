"""README.zh-CN.md says what README.md says: the same commands, links and pictures, and as many sections."""

import re

import pytest

from documents import ROOT, blocks

ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"


def without_comments(text: str) -> list[str]:
    return [re.sub(r"(^|\s+)#.*", "", line) for line in text.splitlines()]


def test_commands_are_equal_in_order():
    english, chinese = (
        [(language, without_comments(text)) for language, text in blocks(page)] for page in (ENGLISH, CHINESE)
    )
    assert len(english) > 5 and chinese == english


@pytest.mark.parametrize("pattern", [r"(?<!!)\[[^]]*\]\(([^)]+)\)", r"!\[[^]]*\]\(([^)]+)\)", r"^(#+) "])
def test_links_pictures_and_sections_are_equal(pattern):
    english, chinese = (
        sorted(re.findall(pattern, page.read_text(encoding="utf-8"), re.MULTILINE))
        for page in (ENGLISH, CHINESE)
    )
    others = {CHINESE.name, ENGLISH.name}
    assert english and [one for one in chinese if one not in others] == [
        one for one in english if one not in others
    ]


def test_names_of_the_code_are_equal():
    english, chinese = (
        set(
            re.findall(
                r"`([^`\n]+)`", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
            )
        )
        for page in (ENGLISH, CHINESE)
    )
    assert len(english) > 20 and chinese == english


def test_each_links_to_the_other():
    for page, other in ((ENGLISH, CHINESE), (CHINESE, ENGLISH)):
        head = page.read_text(encoding="utf-8").partition("\n## ")[0]
        assert f"]({other.name})" in head


def test_no_line_breaks_within_a_sentence():
    """A line's end is shown as a space, which Chinese does not have between characters."""
    text = CHINESE.read_text(encoding="utf-8")
    assert not re.findall(r"[^\x00-\x7f]\n[^\x00-\x7f]", text)
