"""Remember which data sets passed their check, until one of their files changes."""

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from danseg.datasets.check_contents import Contents
from danseg.errors import UserError
from danseg.io.files import make_folder, whole_file

_VERSION = 5  # increase it when the check learns to find a new kind of problem, or to count something


def cache_dir() -> Path:
    """Folder of the remembered checks. It lies outside the data, which may be read-only or shared."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return Path(base if os.path.isabs(base) else os.path.expanduser("~/.cache")) / "danseg" / "checked"


def fingerprint(pairs: Sequence[tuple[str, str | None]], root: str, parameters: list) -> str:
    """A hash that changes when a file is added, removed, renamed or rewritten, or the allowed ids change."""
    digest = hashlib.sha256(json.dumps([_VERSION, parameters]).encode())
    for pair in pairs:
        for path in pair:
            if path is not None:
                status = os.stat(path)
                entry = [os.path.relpath(path, root), status.st_size, status.st_mtime_ns]
                digest.update(json.dumps(entry).encode())
    return digest.hexdigest()


def read_passed(key: str) -> Contents | None:
    """What an earlier check of the same files found; None if no such check is remembered."""
    stored = read_entry(key)
    try:
        sizes = Counter({(int(h), int(w)): int(count) for h, w, count in stored["sizes"]})
        raw_pixels = np.array(stored["raw_pixels"], dtype=np.int64)
        images_with = np.array(stored["images_with"], dtype=np.int64)
        if raw_pixels.shape != (256,) or images_with.shape != (256,):
            return None
        return Contents(sizes, raw_pixels, images_with, doubtful=[str(path) for path in stored["doubtful"]])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None  # missing or damaged: the files are decoded again


def remember(key: str, contents: Contents) -> None:
    """Save what a check found, for the next check of the same files."""
    stored = {
        "sizes": [[h, w, count] for (h, w), count in contents.sizes.items()],
        "raw_pixels": contents.raw_pixels.tolist(),
        "images_with": contents.images_with.tolist(),
        "doubtful": contents.doubtful,
    }
    write_entry(key, stored)


def read_entry(key: str) -> Any:
    """What is remembered under a key, as JSON holds it; None if there is nothing, or it is damaged."""
    try:
        return json.loads((cache_dir() / f"{key}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_entry(key: str, found: Any) -> None:
    """Remember what JSON can hold under a key."""
    with contextlib.suppress(UserError):  # if this fails, the next check only takes longer
        with whole_file(make_folder(cache_dir()) / f"{key}.json") as part:
            part.write_text(json.dumps(found), encoding="utf-8")
