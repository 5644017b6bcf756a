"""Data sets that passed their check, remembered until one of their files changes."""

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from danseg.datasets.check_contents import Contents
from danseg.errors import UserError
from danseg.io.files import make_folder, whole_file

_VERSION = 2  # raise it when the check learns to find something new


def cache_dir() -> Path:
    """Where passed checks are remembered: outside the data, which may be read-only or shared."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return Path(base if os.path.isabs(base) else os.path.expanduser("~/.cache")) / "danseg" / "checked"


def fingerprint(pairs: Sequence[tuple[str, str | None]], root: str, parameters: list) -> str:
    """Changes when a file is added, removed, renamed, written again, or when other ids are allowed."""
    digest = hashlib.sha256(json.dumps([_VERSION, parameters]).encode())
    for pair in pairs:
        for path in pair:
            if path is not None:
                status = os.stat(path)
                entry = [os.path.relpath(path, root), status.st_size, status.st_mtime_ns]
                digest.update(json.dumps(entry).encode())
    return digest.hexdigest()


def read_passed(key: str) -> Contents | None:
    """What a check of the same files found, if it is remembered."""
    try:
        stored = json.loads((cache_dir() / f"{key}.json").read_text(encoding="utf-8"))
        sizes = Counter({(int(h), int(w)): int(count) for h, w, count in stored["sizes"]})
        raw_pixels = np.array(stored["raw_pixels"], dtype=np.int64)
        if raw_pixels.shape != (256,):
            return None
        return Contents(sizes, raw_pixels)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # absent or damaged: the files are simply decoded again


def remember(key: str, contents: Contents) -> None:
    """Keep what a check found for the next one."""
    stored = {
        "sizes": [[h, w, count] for (h, w), count in contents.sizes.items()],
        "raw_pixels": contents.raw_pixels.tolist(),
    }
    with contextlib.suppress(UserError):  # one that cannot be remembered costs time, nothing else
        with whole_file(make_folder(cache_dir()) / f"{key}.json") as part:
            part.write_text(json.dumps(stored), encoding="utf-8")
