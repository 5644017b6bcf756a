"""Split a set into training and validation by what its images hold, not by their names or their order.

An image's place comes from the hash of its file: renamed, moved or listed in another order, it stays where it
was, on any machine. Files of the same content, and those of one group, stay together.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from danseg.errors import UserError
from danseg.io.images import read_bytes
from danseg.io.parallel import parallel_map
from danseg.io.words import counted, listed


def check_share(share: float) -> None:
    """Refuse a share of validation images that leaves a split empty.

    Raises:
        UserError: it is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise UserError(f"--val {share:g} is no share between 0 and 1, as 0.2 is; both splits need images")


def hashes(files: Sequence[Path], progress: bool) -> list[str]:
    """The SHA-256 of each file."""
    return parallel_map(
        lambda path: hashlib.sha256(read_bytes(path)).hexdigest(),
        files,
        description="Hashing images",
        progress=progress,
    )


def groups_of(names: Sequence[str], pattern: str | None) -> list[str]:
    """The group of each image: what a regular expression matches in its name, or its first bracket.

    Without a pattern, each image is a group.

    Raises:
        UserError: the pattern is none, or does not match a name.
    """
    if pattern is None:
        return list(names)
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--group {pattern!r} is no regular expression: {error}") from error
    matches = [expression.search(name) for name in names]
    without = [name for name, match in zip(names, matches, strict=True) if not match or not match[0]]
    if without:
        raise UserError(
            f"--group {pattern!r} matches nothing in {len(without)} names of images: {listed(without)}; "
            "give one that matches the part of each name that is common to a group"
        )
    return [match[1] or "" if match.re.groups else match[0] for match in matches if match]


def split(digests: Sequence[str], groups: Sequence[str], share: float) -> tuple[list[int], list[int]]:
    """Places of the images for training and for validation, in their order.

    Args:
        digests: the hash of each image's content.
        groups: the group of each image.
        share: of the images that validate; as near to it as whole groups allow, and at least one group.

    Raises:
        UserError: there is one group alone, so that one of the two splits would be empty.
    """
    together = list(_together(digests, groups).values())
    if len(together) < 2:
        what = "are of one group" if len(digests) > 1 else "is all there is"
        raise UserError(
            f"{counted(len(digests), 'image')} {what}, which cannot be split into train and "
            "val; add images, or name those to validate on with --val-images"
        )
    together.sort(key=lambda members: min(digests[one] for one in members))
    wanted = share * len(digests)
    chosen: list[int] = []
    for members in together:
        if abs(len(chosen) + len(members) - wanted) < abs(len(chosen) - wanted):
            chosen += members
    if not chosen or len(chosen) == len(digests):
        smallest = min(together, key=len)
        chosen = smallest if not chosen else [one for one in chosen if one not in smallest]
    val = set(chosen)
    return [one for one in range(len(digests)) if one not in val], sorted(val)


def _together(digests: Sequence[str], groups: Sequence[str]) -> Mapping[int, list[int]]:
    """Images that share a hash or a group, also over others, by the place of one of them."""
    root = list(range(len(digests)))

    def top(place: int) -> int:
        while root[place] != place:
            root[place] = place = root[root[place]]
        return place

    for keys in (digests, groups):
        first: dict[str, int] = {}
        for place, key in enumerate(keys):
            root[top(place)] = top(first.setdefault(key, place))
    members = defaultdict(list)
    for place in range(len(digests)):
        members[top(place)].append(place)
    return members
