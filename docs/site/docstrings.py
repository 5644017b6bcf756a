"""danseg as its docstrings tell of it, for the API's pages: a Griffe extension of mkdocstrings."""

import re
from collections.abc import Iterator
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`~?([\w.]+)`")
LITERAL_BLOCK = re.compile(r"::$", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Docstrings, written for Python's ``help``, become Markdown; public names mean what an import gives."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        for one in list(objects(pkg)):
            if one.docstring is not None:
                one.docstring.value = as_markdown(one.docstring.value, one)
        for package in pkg.modules.values():
            show_what_is_imported(package)


def objects(parent: griffe.Object) -> Iterator[griffe.Object]:
    """A module and all that is defined in it, at any depth."""
    yield parent
    for member in parent.members.values():
        if not isinstance(member, griffe.Alias):
            yield from objects(member)


def as_markdown(docstring: str, place: griffe.Object) -> str:
    """``:func:`name` `` becomes a link to the entry of that name, where there is one; ``::`` a colon."""

    def link(found: re.Match) -> str:
        name = found[1]
        try:
            path = place.resolve(name)
        except griffe.NameResolutionError:
            path = name
        return f'<autoref identifier="{path}" optional><code>{name}</code></autoref>'

    return LITERAL_BLOCK.sub(":", ROLE.sub(link, docstring))


def show_what_is_imported(package: griffe.Module) -> None:
    """Let a public function hide the module of its name, as an import of ``danseg.apis.predict`` does."""
    public = {name: package.members.get(name) for name in map(str, package.exports or ())}
    for member in public.values():
        if isinstance(member, griffe.Alias):
            member.resolve_target()  # by way of modules that are about to be hidden
    for name, member in public.items():
        if isinstance(member, griffe.Module) and name in member.members:
            package.members[name] = griffe.Alias(name, member.members[name], parent=package)
