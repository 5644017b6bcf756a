"""CITATION.cff agrees with the package."""

import yaml

from danseg.attention import PositionAttention
from danseg.attention_table import row
from danseg.version import __version__
from documents import ROOT

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_it_is_of_this_version_and_licence():
    assert CITATION["version"] == __version__
    assert CITATION["license"] == "Apache-2.0" and "Apache License" in (ROOT / "LICENSE").read_text()


def test_what_the_format_asks_for_is_there():
    assert CITATION["cff-version"] == "1.2.0" and CITATION["title"] == "danseg" and CITATION["message"]
    assert CITATION["authors"] == [{"name": "The danseg developers"}]


def test_the_paper_is_that_of_the_module():
    [paper] = CITATION["references"]
    module = row(PositionAttention)
    assert paper["title"] == module.paper
    assert paper["conference"]["name"] == module.venue
    assert paper["identifiers"] == [{"type": "other", "value": f"arXiv:{module.arxiv}"}]
    assert paper["authors"][0]["family-names"] == "Fu"
