"""The recipes that come with danseg: what each file of ``configs`` trains, how, and its published figure.

A recipe's header, the comment at its head, gives the figure. Its schedule and crop are what it or its bases
set. The files are read, not run, with the standard library alone: setup.py does it without danseg.
"""

import ast
import functools
import itertools
import re
from pathlib import Path
from typing import Any, NamedTuple

_PUBLISHED = re.compile(
    r"\bPublished: mIoU (\d+\.\d+) at one scale, (?:(\d+\.\d+) at six scales with flips|none at several) "
    r"\((.+?)\)"
)
OWN = "folder"  # recipes for a set of one's own, from which schedule and crop follow
SOURCES = "danseg publishes no weights; the figures are those of the same recipe in the source named"


class Recipe(NamedTuple):
    """One file of ``configs``.

    Attributes:
        header: the comment at its head, as one line.
        dataset: the data set's part of its name.
        iterations, batch: of the training; None where they follow from the data.
        crop: height and width of the training crops; likewise.
        published: mIoU at one scale, and at six with flips; None where no figure is published.
        source: who published them.
    """

    name: str
    path: Path
    header: str
    network: str
    dataset: str
    iterations: int | None
    batch: int | None
    crop: tuple[int, int] | None
    published: tuple[float | None, float | None]
    source: str | None


def recipes(folder: Path) -> list[Recipe]:
    """All recipes of a folder ``configs``, by name."""
    return [read_recipe(path) for path in sorted(folder.glob("*.py"))]


def read_recipe(path: Path) -> Recipe:
    """What one file says."""
    header = read_header(path)
    network, _, dataset = path.stem.split("_")[:3]
    found = _PUBLISHED.search(header)
    one, several, source = found.groups() if found else (None, None, None)
    own = dataset == OWN
    crop = None if own else _set_value(path, "crop_size")
    return Recipe(
        name=path.stem,
        path=path,
        header=header,
        network=network,
        dataset=dataset,
        iterations=None if own else _set_value(path, "max_iters"),
        batch=None if own else _set_value(path, "auto_scale_lr", "base_batch_size"),
        crop=tuple(crop) if crop else None,
        published=(float(one) if one else None, float(several) if several else None),
        source=source,
    )


def read_header(path: Path) -> str:
    """The comment at the start of a file, as one line."""
    lines = itertools.takewhile(
        lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines()
    )
    return " ".join(line.lstrip("# ").rstrip() for line in lines)


def _set_value(path: Path, name: str, key: str | None = None) -> Any:
    """What a file or the nearest of its bases sets a name to, or an entry of the dict of that name.

    None if it is computed, or not set.
    """
    values = _assigned(path)
    node = values.get(name)
    if node is not None and key is not None:
        entries = node.keywords if isinstance(node, ast.Call) else []
        node = next((entry.value for entry in entries if entry.arg == key), None)
    if node is not None:
        try:
            return ast.literal_eval(node)
        except ValueError:
            return None
    bases = ast.literal_eval(values["_base_"]) if "_base_" in values else []
    for base in [bases] if isinstance(bases, str) else bases:
        found = _set_value((path.parent / base).resolve(), name, key)
        if found is not None:
            return found
    return None


@functools.cache
def _assigned(path: Path) -> dict[str, ast.expr]:
    """The expressions that a file gives to the names at its top level."""
    return {
        target.id: node.value
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def metafile(folder: Path) -> dict[str, Any]:
    """The recipes in the form in which mmengine and mim read those of a package (a ``metafile.yml``)."""
    every = recipes(folder)
    networks = sorted({recipe.network for recipe in every})
    return {
        "Collections": [{"Name": network, "Metadata": {"Figures": SOURCES}} for network in networks],
        "Models": [_model(recipe) for recipe in every],
    }


def _model(recipe: Recipe) -> dict[str, Any]:
    metadata: dict[str, Any] = {"Training Data": recipe.dataset, "Description": recipe.header}
    if recipe.iterations:
        metadata |= {"Iterations": recipe.iterations, "Batch Size": recipe.batch}
    model: dict[str, Any] = {
        "Name": recipe.name,
        "In Collection": recipe.network,
        "Config": f"configs/{recipe.path.name}",
        "Metadata": metadata,
    }
    one, several = recipe.published
    if one is not None:
        metrics = {"mIoU": one} | ({"mIoU(ms+flip)": several} if several is not None else {})
        metadata["Figures From"] = recipe.source
        model["Results"] = [{"Task": "Semantic Segmentation", "Dataset": recipe.dataset, "Metrics": metrics}]
    return model
