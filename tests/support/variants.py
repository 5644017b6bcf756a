"""All settings of a class's switches, read from its constructor, so that a new one cannot be forgotten.

A switch is an argument whose default is a bool, a string or a tuple of strings. The other strings that it
takes are those that the constructor names when it refuses one.
"""

import inspect
import itertools
import re
import typing
from collections.abc import Callable
from typing import Any


def switches(cls: type, build: Callable[..., object]) -> dict[str, list]:
    """The values of each switch, the default first; ``build`` makes an object from keyword arguments."""
    found: dict[str, list] = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        default = parameter.default
        if isinstance(default, bool):
            found[name] = [default, not default]
        elif isinstance(default, str):
            values = [default, *(word for word in _named(name, build, "?") if word != default)]
            if type(None) in typing.get_args(parameter.annotation):
                values.append(None)
            found[name] = values
        elif isinstance(default, tuple) and default and all(isinstance(one, str) for one in default):
            words = _named(name, build, ("?",))
            found[name] = [default, *((word,) for word in words if (word,) != default), tuple(words)]
        if name in found and len(found[name]) < 2:
            raise AssertionError(f"{cls.__name__} does not say which other values {name} takes")
    return found


def _named(name: str, build: Callable[..., object], wrong: str | tuple[str, ...]) -> list[str]:
    """The words in the message about a wrong value that are right values."""
    try:
        build(**{name: wrong})
    except ValueError as error:
        words = dict.fromkeys(re.findall(r"[\w-]+", str(error)))
    else:
        raise AssertionError(f"{name}={wrong!r} was taken")
    return [word for word in words if _takes(build, name, (word,) if isinstance(wrong, tuple) else word)]


def _takes(build: Callable[..., object], name: str, value: Any) -> bool:
    try:
        build(**{name: value})
    except ValueError:
        return False
    return True


def pairs(found: dict[str, list], build: Callable[..., object]) -> list[dict]:
    """Keyword arguments for so many objects that each value of a switch meets each value of every other.

    Values that ``build`` refuses together, in a message that names both arguments, do not meet.
    """
    missing: set[tuple] = set()
    combinations = [dict(zip(found, values, strict=True)) for values in itertools.product(*found.values())]
    combinations = [one for one in combinations if not _refused_together(one, build)]
    for one in combinations:
        missing |= _pairs_in(one)
    chosen: list[dict] = []
    while missing or not chosen:
        chosen.append(max(combinations, key=lambda one: len(missing & _pairs_in(one))))
        missing -= _pairs_in(chosen[-1])
    return chosen


def _refused_together(arguments: dict, build: Callable[..., object]) -> bool:
    try:
        build(**arguments)
    except ValueError as error:
        return sum(bool(re.search(rf"\b{name}\b", str(error))) for name in arguments) > 1
    return False


def _pairs_in(arguments: dict) -> set[tuple]:
    return set(itertools.combinations_with_replacement(arguments.items(), 2))


def one_by_one(found: dict[str, list]) -> list[dict]:
    """No arguments, and each value that is not a default alone."""
    return [{}, *({name: value} for name, values in found.items() for value in values[1:])]
