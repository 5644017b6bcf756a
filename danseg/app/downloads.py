"""What a page lets its visitors take along of what they see: a figure, and numbers."""

from collections.abc import Mapping

from danseg.apis import Exploration


def figure_png(explorations: list[Exploration], asked: Mapping[str, str]) -> bytes:
    raise NotImplementedError


def numbers_npz(explorations: list[Exploration], asked: Mapping[str, str]) -> bytes:
    raise NotImplementedError
