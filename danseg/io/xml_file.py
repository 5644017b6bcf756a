"""Read files of XML without what a document type could do."""

from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from danseg.errors import UserError


def parsed_xml(path: Path, data: bytes) -> Element:
    """The root of an XML file. A document type is refused: it can define entities that grow or read files.

    Args:
        path: the file, for messages.
        data: its bytes.

    Raises:
        UserError: it is no XML in UTF-8, or has a document type.
    """
    try:
        text = data.decode("utf-8-sig")
        if "<!DOCTYPE" in text:
            raise UserError(f"{path} defines a document type (<!DOCTYPE), which no export has; remove it")
        return ElementTree.fromstring(text)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); save it so") from error
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{path} is no XML: {error}; export it again") from error
