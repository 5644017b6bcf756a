"""Take out of a config what tells of the machine that it was used on: folders, the user's name, accounts."""

import getpass
import re
from collections.abc import Mapping
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_NO_NAMES = {"", "root", "user"}  # of users, which tell of nobody


def without_machine_paths(value: Any, key: str = "", root: str | None = None) -> Any:
    """A config's value whose paths mean the same on any machine, or are names alone.

    A relative path stays, unless it climbs out of its folder (``..``) or goes through one that is called like
    the user. Any other becomes its last part; a ``data_root`` becomes ``data/`` and its last part, as configs
    write it, and what lies below a ``data_root`` is said from there. Of a visualiser's back ends those stay
    that write to this machine, and no account with another one.

    Args:
        value: numbers, texts, and lists, tuples, sets and dicts of them.
        key: the name under which it stands.
        root: the ``data_root`` of the dict around it.
    """
    if isinstance(value, Mapping):
        root = value.get("data_root") or root
        if key == "visualizer" and value.get("vis_backends"):
            value = {**value, "vis_backends": [{"type": "LocalVisBackend"}]}
        return {one: without_machine_paths(inner, str(one), root) for one, inner in value.items()}
    if isinstance(value, (list, tuple, set)):
        return type(value)(without_machine_paths(inner, key, root) for inner in value)
    return _said_anywhere(value, key, root) if isinstance(value, str) else value


def _said_anywhere(text: str, key: str, root: str | None) -> str:
    local = text.removeprefix("file://")
    if "://" in local:
        return text  # an address
    path: PurePath = PureWindowsPath(local) if _DRIVE.match(local) else PurePosixPath(local)
    if local.startswith(("/", "~")) or _DRIVE.match(local) or (local == text and _is_personal(path)):
        if key == "data_root":
            return f"data/{path.name}"
        below = isinstance(root, str) and type(path)(root) in path.parents
        return path.relative_to(root).as_posix() if below and root else path.name
    for folder in (Path.home(), Path.cwd()):  # inside a longer text
        if folder != Path(folder.anchor):
            text = re.sub(rf"(?<![\w./-]){re.escape(str(folder))}(?:[/\\]|(?![\w.-]))", "", text)
    return text


def _is_personal(path: PurePath) -> bool:
    return ".." in path.parts or (len(path.parts) > 1 and _user() in path.parts)


def _user() -> str | None:
    try:
        name = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a user without a name
        return None
    return None if name in _NO_NAMES else name
