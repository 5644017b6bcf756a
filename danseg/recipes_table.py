"""Search the recipes that come with danseg, and show them as text."""

from collections.abc import Sequence

from danseg.errors import UserError
from danseg.io.words import did_you_mean
from danseg.recipes import Recipe

_HEADS = ("config", "data set", "iterations", "batch", "crop", "mIoU", "several scales")


def matching(recipes: Sequence[Recipe], words: Sequence[str]) -> list[Recipe]:
    """The recipes whose name or header has every word; one alone where a word is its whole name.

    Raises:
        UserError: there is none.
    """
    named = [recipe for recipe in recipes if recipe.name in words]
    wanted = [word.lower() for word in words]
    found = named or [
        recipe
        for recipe in recipes
        if all(word in f"{recipe.name} {recipe.header}".lower() for word in wanted)
    ]
    if not found:
        known = {part for recipe in recipes for part in (recipe.name, *recipe.name.split("_"))}
        missing = [
            word
            for word in wanted
            if not any(word in f"{recipe.name} {recipe.header}".lower() for recipe in recipes)
        ]
        about = f"{missing[0]!r}{did_you_mean(missing[0], sorted(known))}" if missing else " and ".join(words)
        raise UserError(f"none of the {len(recipes)} recipes has {about}")
    return found


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
    return f"{table([recipe])}\n\n{recipe.header}\n{recipe.path}"


def _cells(recipe: Recipe) -> tuple[str, ...]:
    crop = "x".join(map(str, recipe.crop)) if recipe.crop else "-"
    figures = ("-" if figure is None else f"{figure:.2f}" for figure in recipe.published)
    return recipe.name, recipe.dataset, str(recipe.iterations or "-"), str(recipe.batch or "-"), crop, *figures
