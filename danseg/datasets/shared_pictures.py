"""Find pictures that two splits share, of which a validation says nothing about new pictures."""

import hashlib
import os
from collections.abc import Sequence

from danseg.datasets.passed_checks import fingerprint, read_entry, write_entry
from danseg.io.parallel import parallel_map
from danseg.io.source_files import read_file


def shared_pictures(
    trained: Sequence[str], tested: Sequence[str], *, progress: bool = True
) -> list[tuple[str, str]]:
    """Files of ``tested`` whose content is in ``trained`` as well, each with the first such file there.

    Only files of equal size are read. What was found is remembered until one of the files changes.
    """
    key = fingerprint([(path, None) for path in (*trained, *tested)], os.sep, ["shared", len(trained)])
    stored = read_entry(key)
    if isinstance(stored, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in stored):
        return [(one, other) for one, other in stored]
    splits = [{path: os.path.getsize(path) for path in paths} for paths in (trained, tested)]
    common = set(splits[0].values()) & set(splits[1].values())
    first, second = ([path for path, size in sizes.items() if size in common] for sizes in splits)
    paths = list(dict.fromkeys(first + second))
    hashes = parallel_map(_digest, paths, description="Comparing splits", progress=progress)
    digests = dict(zip(paths, hashes, strict=True))
    known = {digests[path]: path for path in reversed(first)}
    found = [(path, known[digests[path]]) for path in second if digests[path] in known]
    write_entry(key, found)
    return found


def _digest(path: str) -> str:
    return hashlib.sha256(read_file(path)).hexdigest()
