"""Search the recipes that come with danseg, and show them as text."""

import re
from collections.abc import Sequence

from danseg.errors import UserError
from danseg.io.words import did_you_mean
from danseg.recipes import Recipe
from danseg.shipped import as_started

_HEADS = ("config", "data set", "iterations", "batch", "crop", "mIoU", "several scales")


def matching(recipes: Sequence[Recipe], words: Sequence[str]) -> list[Recipe]:
    """The recipes whose name or header has every word; one alone where a word is its whole name.

    Raises:
        UserError: there is none.
    """
    named = [recipe for recipe in recipes if recipe.name in words]
    found = named or [recipe for recipe in recipes if all(_has(recipe, word) for word in words)]
    if found:
        return found
    nowhere = [word for word in words if not any(_has(recipe, word) for recipe in recipes)]
    if not nowhere:
        raise UserError(f"none of the {len(recipes)} recipes has {' and '.join(words)} together")
    known = sorted({part for recipe in recipes for part in (recipe.name, *recipe.name.split("_"))})
    raise UserError(f"none of the {len(recipes)} recipes has {nowhere[0]!r}{did_you_mean(nowhere[0], known)}")


def _has(recipe: Recipe, word: str) -> bool:
    """Whether a word of the recipe's name or header begins so."""
    text = f"{recipe.name} {recipe.header}"
    return re.search(rf"(?<![a-z0-9]){re.escape(word)}", text, re.IGNORECASE) is not None


def table(recipes: Sequence[Recipe]) -> str:
    """A line for each recipe."""
    rows = [_HEADS, *(_cells(recipe) for recipe in recipes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = 2  # columns of words; the others are numbers
    lines = (
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def described(recipe: Recipe) -> str:
    """One recipe with its description and its file."""
    return f"{table([recipe])}\n\n{as_started(recipe.header)}\n{recipe.path}"


def _cells(recipe: Recipe) -> tuple[str, ...]:
    crop = "x".join(map(str, recipe.crop)) if recipe.crop else "-"
    figures = ("-" if figure is None else f"{figure:.2f}" for figure in recipe.published)
    return (
        recipe.name,
        recipe.dataset,
        str(recipe.iterations or "-"),
        str(recipe.batch or "-"),
        crop,
        *figures,
    )
