"""A config as text inside another file: of a training's checkpoint, a published or an exported network.

The text looks like a config file, and is never run. It is read as data: names that are set to numbers, texts,
lists, tuples and dicts. Types must be names that are registered, because mmengine imports and calls whatever
a dotted one stands for, and no module is imported that is not danseg's own.
"""

import ast
import contextlib
import importlib
import math
import pprint
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmengine.registry as registries
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import Registry
from mmengine.utils import import_modules_from_strings

from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.engine.config.config_names import is_read
from danseg.engine.config.config_parts import all_dicts
from danseg.engine.config.kinds import wrong_at_the_top
from danseg.engine.config.machine_paths import without_machine_paths
from danseg.engine.config.own_data import NOTE
from danseg.engine.config.type_names import type_name
from danseg.errors import UserError
from danseg.io.words import listed
from danseg.shipped import as_started

# What concerns a run on one machine: where it writes, and what it goes on from. Neither is for a file to say.
_OF_A_RUN = {"launcher", "load_from", "resume", "work_dir", NOTE}
_LOOKED_UP = {"type", "constructor"}  # keys whose texts mmengine looks up, and imports if they are dotted
_NUMBERS = {"inf": math.inf, "nan": math.nan}  # as mmengine writes them
_FIX = "name the config before the checkpoint"


def carried_config(checkpoint: str | Path) -> Config:
    """The config that a checkpoint carries: one that training wrote, or ``tools/publish.py``.

    Raises:
        UserError: the file cannot be read, it carries none, or :func:`config_from_text` refuses it.
    """
    text = (read_checkpoint(checkpoint).get("meta") or {}).get("cfg")
    if not isinstance(text, str):
        raise UserError(
            as_started(
                f"{checkpoint} carries no config: {_FIX}. python tools/publish.py CHECKPOINT --config CONFIG "
                "--out FILE writes a file that carries it"
            )
        )
    return config_from_text(text, checkpoint)


def config_to_text(config: Config) -> str:
    """The whole config as text, for a file that leaves this machine.

    Whatever concerns the machine alone is left out: the work dir, what training started from, and what
    :func:`danseg.engine.config.machine_paths.without_machine_paths` takes out.

    Raises:
        UserError: an entry that a run reads is no data: a function, an object, a class that no registry has.
    """
    lines = []
    for name, value in config.items():
        if name in _OF_A_RUN:
            continue
        try:
            value = without_machine_paths(_plain(value, name), name)
        except UserError:
            if is_read(name):
                raise
            continue  # a helper with which the config computed
        lines.append(f"{name} = {pprint.pformat(value, width=110, sort_dicts=False)}\n")
    return "".join(lines)


def config_from_text(text: str, source: str | Path) -> Config:
    """Read a config that is stored as text, but for what names a run's folders, without running anything.

    Args:
        text: what :func:`config_to_text` or mmengine's ``Config.pretty_text`` gave.
        source: the file that holds it, for messages; the config's ``filename``.

    Raises:
        UserError: the text is no config, or it asks for code: calls, modules, types that are not registered.
    """
    return checked_config(values_of_text(text, source), text, source)


def checked_config(values: dict[str, Any], text: str, source: str | Path) -> Config:
    """The config of :func:`config_from_text` from what :func:`values_of_text` gave, changed since or not.

    Raises:
        UserError: as ``config_from_text``.
    """
    wrong = list(wrong_at_the_top(values))
    if wrong:
        raise UserError(f"the config inside {source}: {'; '.join(wrong)}")
    _check_imports(values.get("custom_imports"), source)
    _check_types(values, source)
    values = {name: value for name, value in values.items() if name not in _OF_A_RUN}
    return Config(values, cfg_text=text, filename=str(source))


def values_of_text(text: str, source: str | Path) -> dict[str, Any]:
    """What a config that is stored as text sets, as data, whether or not its types are known here.

    Raises:
        UserError: the text is no config, or more than names that are set to data.
    """
    try:
        statements = ast.parse(text).body
        return dict(_setting(statement) for statement in statements)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        at = f" (line {line})" if line else ""
        raise UserError(
            f"the config inside {source} cannot be read as data{at}: "
            f"{getattr(error, 'msg', None) or error or type(error).__name__}; {_FIX}"
        ) from error


def _plain(value: Any, place: str) -> Any:
    """A value made of Python's own types; a registered class becomes its name."""
    if isinstance(value, Mapping):
        return {key: _plain(one, f"{place}.{key}") for key, one in value.items()}
    if isinstance(value, (list, tuple, set)):
        return type(value)(_plain(one, f"{place}.{index}") for index, one in enumerate(value))
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, type):
        for scope, registered in _registered().items():
            name = next((name for name, one in registered.items() if one is value), None)
            if name:
                return f"{scope}.{name}"
    raise UserError(
        f"{place} of the config is {value!r}, which cannot be stored as text; a config that travels holds "
        "numbers, texts, lists, tuples, dicts and registered classes"
    )


def _setting(statement: ast.stmt) -> tuple[str, Any]:
    """The name and the value that a statement ``name = value`` sets."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return name, _value(value)
    raise _not_data(statement, f"{ast.unparse(statement).splitlines()[0][:60]!r} sets no name to a value")


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=None | bool() | int() | float() | str() as value):
            return value
        case ast.List(elts=entries):
            return [_value(entry) for entry in entries]
        case ast.Tuple(elts=entries):
            return tuple(_value(entry) for entry in entries)
        case ast.Set(elts=entries):
            return {_value(entry) for entry in entries}
        case ast.Dict(keys=keys, values=values) if None not in keys:
            pairs = zip(keys, values, strict=True)
            return {_value(key): _value(value) for key, value in pairs if key is not None}
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            number = _value(operand)
            if isinstance(number, (int, float)):
                return -number if isinstance(sign, ast.USub) else number
        case ast.Name(id=name) if name in _NUMBERS:
            return _NUMBERS[name]
        case ast.Call(func=ast.Name(id="set"), args=[], keywords=[]):
            return set()
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords) if all(k.arg for k in keywords):
            return {str(keyword.arg): _value(keyword.value) for keyword in keywords}
        case ast.Call(func=ast.Name(id="dict"), args=[ast.Dict() as inner], keywords=[]):
            return _value(inner)  # mmengine writes keys that are no names so
    raise _not_data(node, f"{ast.unparse(node)[:60]!r} is no number, text, list, tuple or dict")


def _not_data(node: ast.AST, why: str) -> SyntaxError:
    return SyntaxError(why, (None, getattr(node, "lineno", None), None, None))


def _check_imports(custom: Any, source: str | Path) -> None:
    """Import what ``custom_imports`` names of danseg and its relatives; refuse others that are not here."""
    asked = (custom or {}).get("imports") or []
    names = [asked] if isinstance(asked, str) else list(asked)
    ours = [name for name in names if isinstance(name, str) and name.split(".")[0] in MODULE2PACKAGE]
    foreign = [name for name in names if name not in ours and name not in sys.modules]
    if foreign:
        raise UserError(
            f"the config inside {source} imports {listed(foreign)}, and a file of weights may not run code; "
            f"import that before, if you trust it, or {_FIX}"
        )
    try:
        import_modules_from_strings(ours, bool((custom or {}).get("allow_failed_imports")))
    except ImportError as error:
        raise UserError(f"the config inside {source}: custom_imports: {error}") from error


def _check_types(values: Mapping[str, Any], source: str | Path) -> None:
    known = _registered()
    every = list(all_dicts("", dict(values)))
    # mmseg looks these up in albumentations, which has its own classes under plain names.
    foreign = [all_dicts("", one.get("transforms")) for _, one in every if type_name(one) == "Albu"]
    augmentations = {id(one) for found in foreign for _, one in found if _is_class_name(one.get("type"))}
    for place, one in every:
        if id(one) in augmentations:
            continue
        if one.get("_scope_") is not None and one["_scope_"] not in MODULE2PACKAGE:
            raise UserError(f"the config inside {source}: {place[1:]}._scope_={one['_scope_']!r} is none")
        for key in _LOOKED_UP & one.keys():
            kind = one[key]
            if not isinstance(kind, str):
                continue
            scope, dot, name = kind.rpartition(".")
            if scope in MODULE2PACKAGE and scope not in known:
                known = _registered(scope)
            if not any(name in known.get(one, ()) for one in ([scope] if dot else known)):
                raise UserError(
                    f"the config inside {source}: {place[1:]}.{key}={kind!r} is no registered name; if a "
                    f"module of yours registers it, import that before, or {_FIX}"
                )


def _is_class_name(kind: Any) -> bool:
    return isinstance(kind, str) and kind.isidentifier() and kind[0].isupper()


def _registered(scope: str = "mmseg") -> dict[str, dict[str, Any]]:
    """What all registries hold, by scope: mmengine, mmseg, danseg, and ``scope`` if it is installed."""
    with contextlib.suppress(ImportError):
        importlib.import_module(f"{scope}.registry")
    found: dict[str, dict[str, Any]] = {}
    waiting = [one for one in vars(registries).values() if isinstance(one, Registry)]
    while waiting:
        registry = waiting.pop()
        registry.import_from_location()
        found.setdefault(registry.scope, {}).update(registry.module_dict)
        waiting += registry.children.values()
    return found
