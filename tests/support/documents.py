"""The project's pages, and the commands that stand in them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Every page that a reader may meet, in any language.
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "data" / "README.md"])
_BLOCK = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language, perhaps empty, and text of every fenced block of a page, in order."""
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def shell_lines(page: Path) -> list[str]:
    """The lines of a page's blocks of shell or of no language; continued lines are joined."""
    shell = [text for language, text in blocks(page) if language in {"", "bash", "console", "sh", "shell"}]
    return [
        re.sub(r"\s+", " ", line).strip() for text in shell for line in text.replace("\\\n", " ").splitlines()
    ]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _BLOCK.sub("", page.read_text(encoding="utf-8"))
