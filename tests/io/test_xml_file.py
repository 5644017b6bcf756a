"""Files of XML are read without what a document type could do."""

from pathlib import Path

import pytest

from danseg.errors import UserError
from danseg.io.xml_file import parsed_xml

NAME = Path("a.xml")


def test_the_root_is_read():
    root = parsed_xml(NAME, "\ufeff<a><b c='straße &lt;'/></a>".encode())
    assert root.tag == "a" and root.find("b").get("c") == "straße <"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    "doctype",
    [
        "<!DOCTYPE a [<!ENTITY b 'bbbb'>]>",
        "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>",
        "<!DOCTYPE a>",
    ],
)
def test_entities_are_refused(doctype, encoding):
    data = f"<?xml version='1.0' encoding='{encoding}'?>{doctype}<a>&b;</a>".encode(encoding)
    with pytest.raises(UserError, match=r"a\.xml (defines a document type|is not UTF-8)"):
        parsed_xml(NAME, data)


@pytest.mark.parametrize("data", [b"", b"<a>", b"text", b"<a>\xff</a>"])
def test_what_is_no_xml_is_refused(data):
    with pytest.raises(UserError, match=r"a\.xml is (no XML|not UTF-8)"):
        parsed_xml(NAME, data)
