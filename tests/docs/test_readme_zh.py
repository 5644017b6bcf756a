"""README.zh-CN.md says what README.md says: the same commands, links and pictures, and as many sections."""

import re

import pytest

from documents import ROOT, blocks, prose

PAGES = ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"


def without_comments(text: str) -> list[str]:
    return [re.sub(r"(^|\s+)#.*", "", line) for line in text.splitlines()]


def test_commands_are_equal_in_order():
    english, chinese = (
        [(language, without_comments(text)) for language, text in blocks(page)] for page in PAGES
    )
    assert len(english) > 5 and chinese == english


@pytest.mark.parametrize(
    "pattern",
    [r"(?<!!)\[[^]]*\]\(([^)]+)\)", r"!\[[^]]*\]\(([^)]+)\)", r"`([^`\n]+)`"],
    ids=["links", "pictures", "code"],
)
def test_the_same_occurs(pattern):
    english, chinese = (set(re.findall(pattern, prose(page))) - {one.name for one in PAGES} for page in PAGES)
    assert english and chinese == english


def test_it_has_as_many_sections():
    english, chinese = (re.findall(r"(?m)^(#+) ", prose(page)) for page in PAGES)
    assert chinese == english


def test_each_links_to_the_other():
    for page, other in zip(PAGES, reversed(PAGES), strict=True):
        head = page.read_text(encoding="utf-8").partition("\n## ")[0]
        assert f"]({other.name})" in head


def test_no_line_ends_within_a_paragraph():
    """A line's end is shown as a space, which Chinese does not have between characters."""
    assert not re.findall(r"[^\x00-\x7f]\n[^\x00-\x7f]", CHINESE.read_text(encoding="utf-8"))
