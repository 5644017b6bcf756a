"""Split a set into training and validation by what its images hold, not by their names or their order.

An image's place comes from the hash of its file: renamed, moved or listed in another order, it stays where it
was, on any machine. Files of the same content, and those of one group, stay together. Each split shows each
class, where enough groups do.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from danseg.errors import UserError
from danseg.io.images import read_bytes
from danseg.io.parallel import parallel_map
from danseg.io.words import counted, listed


def check_shares(val: float | None, test: float | None) -> None:
    """Refuse shares of images that leave a split empty.

    Raises:
        UserError: one is not between 0 and 1, or they leave nothing to train on.
    """
    for name, share in (("val", val), ("test", test)):
        if share is not None and not 0 < share < 1:
            raise UserError(
                f"--{name} {share:g} is no share between 0 and 1, as 0.2 is; each split needs images"
            )
    if val is not None and test is not None and val + test >= 1:
        raise UserError(f"--val {val:g} and --test {test:g} leave no images to train on; take less of one")


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


def split(
    digests: Sequence[str],
    groups: Sequence[str],
    shares: Mapping[str, float],
    classes: Sequence[Collection[int]] = (),
) -> dict[str, list[int]]:
    """Places of the images of each split, in their order: of "train", and of those that have a share.

    The hashes choose. Then groups change places until each split has each class, as far as there are groups
    that hold it: a class of one group is trained on, one of two groups is in the first split, too.

    Args:
        digests: the hash of each image's content.
        groups: the group of each image.
        shares: of the images, by split; as near to it as whole groups allow, and at least one group.
        classes: those that each image shows.

    Raises:
        UserError: there are fewer groups than splits, so that a split would be empty.
    """
    together = list(_together(digests, groups).values())
    splits = ("train", *shares)
    if len(together) < len(splits):
        what = "is all there is" if len(digests) == 1 else f"are of {counted(len(together), 'group')}"
        raise UserError(
            f"{counted(len(digests), 'image')} {what}, which cannot be split into {' and '.join(splits)}; "
            "add images, or name those to validate on with --val-images"
        )
    together.sort(key=lambda members: min(digests[one] for one in members))
    rest = [
        _Group(members, frozenset(one for place in members if classes for one in classes[place]))
        for members in together
    ]
    found = {}
    for kept, (name, share) in reversed(list(enumerate(shares.items(), 1))):
        chosen, rest = _divided(rest, share * len(digests), kept)
        found[name] = sorted(place for group in chosen for place in group.members)
    found["train"] = sorted(place for group in rest for place in group.members)
    return {name: found[name] for name in splits}


class _Group(NamedTuple):
    """Images that stay together, and the classes that they show."""

    members: list[int]
    classes: frozenset[int]


def _divided(groups: Sequence[_Group], wanted: float, kept: int) -> tuple[list[_Group], list[_Group]]:
    """Groups of as many images as wanted, and the others, both in their order.

    Args:
        groups: in the order in which they are taken.
        wanted: number of images.
        kept: how many splits the others make up, each of which needs a group, and one of each class.
    """
    division = _Division(groups, kept)
    for place, group in enumerate(groups):
        nearer = abs(division.images + len(group.members) - wanted) < abs(division.images - wanted)
        if nearer and len(division.chosen) < len(groups) - kept:
            division.move(place)
    if not division.chosen:
        division.move(min(range(len(groups)), key=lambda place: len(groups[place].members)))
    for one in sorted(division.holders, key=lambda one: (division.holders[one], one)):
        if division.lacks(one, division.there[one]):
            division.mend(one, wanted)
    sides: tuple[list[_Group], list[_Group]] = ([], [])
    for place, group in enumerate(groups):
        sides[place not in division.chosen].append(group)
    return sides


class _Division:
    """Some groups are chosen, and the others are kept for ``kept`` splits.

    Attributes:
        chosen: places of the chosen groups.
        images: their number of images.
        holders, there: how many groups have each class, of all and of the chosen ones.
    """

    def __init__(self, groups: Sequence[_Group], kept: int) -> None:
        self._groups, self._kept = groups, kept
        self.chosen: set[int] = set()
        self.images = 0
        self.holders = Counter(one for group in groups for one in group.classes)
        self.there: Counter[int] = Counter()

    def move(self, *places: int) -> None:
        """Choose groups that are not chosen, and give back those that are."""
        for place in places:
            sign = -1 if place in self.chosen else 1
            self.images += sign * len(self._groups[place].members)
            self.there.update({one: sign for one in self._groups[place].classes})
            self.chosen ^= {place}

    def lacks(self, one: int, chosen: int) -> bool:
        """Whether a side lacks a class that so many chosen groups have, though there are groups for both."""
        groups = self.holders[one]
        return (chosen == 0 and groups > self._kept) or groups - chosen < min(self._kept, groups)

    def mend(self, one: int, wanted: float) -> None:
        """Move a group that has a class, or change it for another one, unless another class then lacks."""
        outside = set(range(len(self._groups))) - self.chosen
        here, there = (outside, self.chosen) if not self.there[one] else (self.chosen, outside)
        ways = []
        for place in sorted(place for place in here if one in self._groups[place].classes):
            for way in [(place,), *((place, other) for other in sorted(there))]:
                change: Counter[int] = Counter()
                images, number = self.images, len(self.chosen)
                for moved in way:
                    sign = -1 if moved in self.chosen else 1
                    change.update({each: sign for each in self._groups[moved].classes})
                    images, number = images + sign * len(self._groups[moved].members), number + sign
                if not 0 < number <= len(self._groups) - self._kept:
                    continue
                lacking = {each for each in change if self.lacks(each, self.there[each] + change[each])}
                if one not in lacking and all(self.lacks(each, self.there[each]) for each in lacking):
                    ways.append((abs(images - wanted), way))
        if ways:
            self.move(*min(ways)[1])


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
