"""danseg's docstrings, written for Python's ``help``, as Markdown: a Griffe extension of mkdocstrings."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`~?([\w.]+)`")
LITERAL_BLOCK = re.compile(r"::$", re.MULTILINE)


class Docstrings(griffe.Extension):
    """``:func:`name` `` becomes a link to the API's entry of that name, if there is one; ``::`` a colon."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is None:
            return

        def link(found: re.Match) -> str:
            name = found[1]
            try:
                path = obj.resolve(name)
            except griffe.NameResolutionError:
                path = name
            return f'<autoref identifier="{path}" optional><code>{name}</code></autoref>'

        obj.docstring.value = LITERAL_BLOCK.sub(":", ROLE.sub(link, obj.docstring.value))
