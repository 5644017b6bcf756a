"""The site: built once, without a warning; its pages, links, pictures and the API's entries."""

import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt

import danseg
from documents import DOCUMENTS, ROOT, blocks

pytestmark = pytest.mark.slow

PACKAGES = [
    f"danseg.{info.name}"
    for info in pkgutil.iter_modules(danseg.__path__)
    if info.ispkg and hasattr(importlib.import_module(f"danseg.{info.name}"), "__all__")
]


class Page(HTMLParser):
    """What a page of the site refers to, the names of its places, and how many of each tag its text has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.references: list[tuple[str, str]] = []  # tag, address
        self.places: set[str] = set()
        self.counts: dict[str, int] = {}
        self._in_text = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list) -> None:
        found = dict(attributes)
        self.references += [(tag, found[name]) for name in ("href", "src") if found.get(name) is not None]
        self.places |= {found[name] for name in ("id", "name") if found.get(name)}
        self._in_text += tag == "article"
        if self._in_text:
            self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        self._in_text -= tag == "article"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site, and its parsed pages by path."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    return folder, {path.relative_to(folder).as_posix(): Page(path) for path in folder.rglob("*.html")}


def built(document: Path) -> str:
    """Where a page of the repository stands in the site."""
    name = document.relative_to(ROOT).with_suffix(".html").as_posix()
    return re.sub(r"\bREADME\.html$", "index.html", name)


def api_page(package: str) -> str:
    return f"docs/api/{package.removeprefix('danseg.')}.html"


def test_every_page_is_there_and_in_the_navigation(site):
    _, pages = site
    assert not [document for document in DOCUMENTS if built(document) not in pages]
    links = {href for tag, href in pages["index.html"].references if tag == "a"}
    assert not [document for document in DOCUMENTS if built(document) not in links]
    assert not [package for package in PACKAGES if api_page(package) not in links]


def test_every_link_and_picture_leads_somewhere(site):
    folder, pages = site
    wrong, followed = [], 0
    for path, page in pages.items():
        for tag, address in page.references:
            parts = urlsplit(address)
            if parts.scheme in ("http", "https", "mailto", "data") or path == "404.html":
                continue
            followed += 1
            target = (folder / path).parent / unquote(parts.path) if parts.path else folder / path
            target = Path(os.path.normpath(target))
            if not target.is_file():
                wrong.append((path, tag, address))
            elif parts.fragment and target.suffix == ".html":
                name = target.relative_to(folder).as_posix()
                if unquote(parts.fragment) not in pages[name].places:
                    wrong.append((path, tag, address))
    assert followed > 1000 and not wrong


def test_nothing_is_loaded_from_elsewhere(site):
    folder, pages = site
    loading = {"img", "link", "script", "iframe", "source", "video"}
    loaded = [
        (path, tag, address)
        for path, page in pages.items()
        for tag, address in page.references
        if tag in loading and urlsplit(address).netloc
    ]
    styles = [
        path for path in folder.rglob("*.css") if re.search(r"url\(\s*[\"']?(https?:)?//", path.read_text())
    ]
    assert not loaded and not styles


def test_every_public_name_has_its_entry(site):
    _, pages = site
    assert {"danseg.apis", "danseg.attention", "danseg.heads", "danseg.ops"} <= set(PACKAGES)
    missing = []
    for package in PACKAGES:
        entries = pages[api_page(package)].places
        module = importlib.import_module(package)
        # Names that the package gives on request alone are former ones.
        public = [f"{package}.{name}" for name in module.__all__ if name in vars(module)]
        missing += [name for name in public if name not in entries]
    assert not missing


def test_pages_have_the_lists_and_tables_that_they_have_on_a_code_host(site):
    """The site's Markdown is not CommonMark: a list right below a line, for one, is none."""
    _, pages = site
    other = []
    for document in DOCUMENTS:
        tokens = MarkdownIt("commonmark").enable("table").parse(document.read_text(encoding="utf-8"))
        kinds = [token.tag for token in tokens if token.nesting == 1]
        meant = {tag: kinds.count(tag) for tag in ("li", "tr", "h2", "h3", "blockquote")}
        meant["pre"] = len(blocks(document))
        counts = pages[built(document)].counts
        other += [(document.name, tag) for tag in meant if counts.get(tag, 0) != meant[tag]]
    assert not other


def test_docstrings_are_markdown_and_entries_those_of_an_import(site):
    folder, _ = site
    texts = [path.read_text(encoding="utf-8") for path in (folder / "docs" / "api").glob("*.html")]
    assert not [found for text in texts for found in re.findall(r":(?:func|class|mod|meth):|::</p>", text)]
    # What is returned is one thing, however many lines tell of it.
    returned = [table for text in texts for table in re.findall(r">Returns:</.*?</table>", text, re.DOTALL)]
    assert len(returned) > 20 and all(table.count("doc-section-item") == 1 for table in returned)
    # A module does not take the place of a function of its name.
    assert not [text for text in texts if "doc-symbol-heading doc-symbol-module" in text]
    assert any('href="ops.html#danseg.ops.attention"' in text for text in texts)  # PositionAttention names it


def test_a_page_that_was_given_no_place_is_listed_all_the_same():
    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs" / "site" / "pages.py")
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    given = [{"Start": "docs/start.md"}, {"API": ["docs/losses.md"]}]
    nav = pages.on_config(SimpleNamespace(nav=given)).nav
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= pages.listed(nav)
    assert [section["API"][0] for section in nav if "API" in section] == ["docs/losses.md"]
