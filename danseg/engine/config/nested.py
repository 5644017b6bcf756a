"""Dotted places in nested dicts and lists: ``param_scheduler.0.end``."""

from collections.abc import Sequence
from typing import Any

from mmengine.config import Config

from danseg.errors import UserError


def with_value(node: Any, names: Sequence[str], value: Any, key: str) -> Any:
    """A copy of nested dicts and lists with a value at a place; a dict is merged into one that is there."""
    if not names:
        if not isinstance(value, dict) or node is None:
            return value
        if not isinstance(node, dict) and not value.get("_delete_"):
            raise UserError(
                f"--cfg-options {key}={value!r}: there is {node!r}, into which a dict cannot be merged; "
                "add '_delete_': True to replace it"
            )
        together = Config({"node": node})
        together.merge_from_dict({"node": dict(value)})
        return together._cfg_dict["node"]
    name, *below = names
    if isinstance(node, (list, tuple)):
        if not name.isdigit() or int(name) >= len(node):
            raise UserError(f"--cfg-options {key}: {name!r} is not an index into a list of {len(node)}")
        items = list(node)
        items[int(name)] = with_value(items[int(name)], below, value, key)
        return type(node)(items)
    if node is not None and not isinstance(node, dict):
        raise UserError(f"--cfg-options {key}: {node!r} has nothing below it to set")
    changed = dict(node or {})
    changed[name] = with_value(changed.get(name), below, value, key)
    return changed


def nest(tree: dict, names: Sequence[str], value: Any) -> None:
    """Put a value into nested dicts at a place."""
    for name in names[:-1]:
        tree = tree.setdefault(name, {}) if isinstance(tree.get(name, {}), dict) else {}
    if isinstance(value, dict) and isinstance(tree.get(names[-1]), dict):
        value = {**tree[names[-1]], **value}
    tree[names[-1]] = value


def value_at(node: Any, key: str) -> Any:
    """The value at a dotted place; None where there is no such place."""
    for name in key.split("."):
        if isinstance(node, (list, tuple)):
            node = node[int(name)] if name.isdigit() and int(name) < len(node) else None
        else:
            node = node.get(name) if isinstance(node, dict) else None
    return node


def sets(own: Any, place: str) -> bool:
    """Whether a nest of dicts sets a dotted place; a list is set as a whole."""
    for name in place.split("."):
        if not isinstance(own, dict):
            return True
        if name not in own:
            return False
        own = own[name]
    return True


def holds(found: Any, value: Any) -> bool:
    """Whether a place has a value, or of a dict all that was merged into it."""
    if isinstance(value, dict) and isinstance(found, dict):
        return all(holds(found.get(name), one) for name, one in value.items() if name != "_delete_")
    if isinstance(value, (list, tuple)) and isinstance(found, (list, tuple)):
        return len(value) == len(found) and all(map(holds, found, value))
    return bool(found == value)
