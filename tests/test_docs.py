"""The documents name files that are there."""

import re

import pytest

from documents import DOCUMENTS, ROOT

# Whole paths, without the placeholders (NAME, CONFIG, *) of instructions.
PATH = re.compile(r"`((?:danseg|tools|tests|configs|docs|benchmarks|requirements)/[a-z0-9_./]+)`")
TEST = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(\w+)`")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_named_in_a_document_exist(document):
    named = set(PATH.findall(document.read_text(encoding="utf-8")))
    assert not [path for path in named if not (ROOT / path).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_named_in_a_document_exist(document):
    named = TEST.findall(document.read_text(encoding="utf-8"))
    there = {
        path: f"\n{(ROOT / path).read_text(encoding='utf-8')}" for path, _ in named if (ROOT / path).exists()
    }
    assert not [(path, test) for path, test in named if f"\ndef {test}(" not in there.get(path, "")]


def test_security_names_a_test_for_each_promise():
    promises = (ROOT / "SECURITY.md").read_text(encoding="utf-8").split("## Not trusted")[1].split("## ")[0]
    rows = re.findall(r"^\| ([^|-].*) \| (.*) \|$", promises, re.MULTILINE)[1:]
    assert len(rows) > 10 and not [promise for promise, test in rows if not TEST.search(test)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document):
    links = re.findall(r"\]\(((?!https?:)[^)#]+)", document.read_text(encoding="utf-8"))
    assert not [link for link in links if not (document.parent / link).exists()]


def test_the_architecture_names_many_files():
    assert len(set(PATH.findall((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")))) > 40


def test_every_folder_of_the_package_stands_in_the_picture():
    picture = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("```")[1]
    folders = {path.parent.name for path in (ROOT / "danseg").glob("*/__init__.py")}
    assert folders and not [folder for folder in folders if f"{folder}/" not in picture]
