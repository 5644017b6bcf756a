"""Which arguments a class takes: those of its signature, and those that it passes on to its parents."""

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmengine.hooks import CheckpointHook

from danseg.engine.config.config_parts import Part, resolve


@functools.cache
def parameters(built: Callable) -> tuple[Mapping[str, inspect.Parameter], bool]:
    """The arguments of a class or function, and whether it may take others that its signature does not name.

    A class that takes ``**kwargs`` has the arguments of its parent's ``__init__``, too.
    """
    found: dict[str, inspect.Parameter] = {}
    for function in _initialisers(built):
        try:
            own = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):  # written in C
            return found, True
        named = [one for one in own if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
        for one in named[1:] if inspect.isclass(built) else named:  # without self
            found.setdefault(one.name, one)
        keywords = next((one.name for one in own if one.kind is one.VAR_KEYWORD), None)
        if keywords is None:
            return found, False
        use, names = _use_of_keywords(function, keywords)
        found.update((name, inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)) for name in names)
        if use != "parent":
            return found, use == "unknown"
    return found, True


def _initialisers(built: Callable) -> Iterator[Callable]:
    if not inspect.isclass(built):
        yield built
        return
    for cls in built.__mro__:
        if "__init__" in vars(cls) and cls is not object:
            yield vars(cls)["__init__"]


def _use_of_keywords(function: Callable, keywords: str) -> tuple[str, set[str]]:
    """Where ``**kwargs`` goes, and the names that are read from it.

    Returns:
        "parent": to the parent's ``__init__`` and nowhere else. "nowhere": it is swallowed. Else "unknown".
    """
    if function is CheckpointHook.__init__:
        return "nowhere", set()  # it would only repeat arguments of save_checkpoint
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return "unknown", set()
    names: set[str] = set()
    handled: set[int] = set()
    up = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            goes_up = isinstance(node.func, ast.Attribute) and node.func.attr == "__init__"
            for keyword in node.keywords:
                if keyword.arg is None and _is_name(keyword.value, keywords) and goes_up:
                    handled.add(id(keyword.value))
                    up = True
            if isinstance(node.func, ast.Attribute) and _is_name(node.func.value, keywords):
                if node.func.attr in ("pop", "get", "setdefault") and node.args:
                    names |= _text(node.args[0])
                if node.func.attr in ("pop", "get", "setdefault", "update"):
                    handled.add(id(node.func.value))
        elif isinstance(node, ast.Subscript) and _is_name(node.value, keywords):
            names |= _text(node.slice)
            handled.add(id(node.value))
        elif isinstance(node, ast.Compare) and _is_name(node.comparators[0], keywords):
            names |= _text(node.left)
            handled.add(id(node.comparators[0]))
    others = any(_is_name(node, keywords) and id(node) not in handled for node in ast.walk(tree))
    return "unknown" if others else "parent" if up else "nowhere", names


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _text(node: ast.AST) -> set[str]:
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def argument(part: Part, name: str) -> Any:
    """The value of an argument: as the config says, or else the type's default; None if it has none."""
    if name in part.config:
        return part.config[name]
    built = resolve(part)
    one = parameters(built)[0].get(name) if built is not None else None
    return None if one is None or one.default is one.empty else one.default


def own_parameters(built: Callable) -> list[inspect.Parameter]:
    function = next(_initialisers(built), None)
    try:
        own = list(inspect.signature(function).parameters.values()) if function is not None else []
    except (TypeError, ValueError):
        return []
    return own[1:] if inspect.isclass(built) else own


def names_read(cls: type, attribute: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(cls)))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            if node.func.attr == "get" and getattr(node.func.value, "attr", None) == attribute:
                names |= _text(node.args[0])
        elif isinstance(node, ast.Subscript) and getattr(node.value, "attr", None) == attribute:
            names |= _text(node.slice)
    return names
