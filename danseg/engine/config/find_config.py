"""Find a config by what a user calls it: a file, or one of danseg's by its name alone."""

import difflib
from pathlib import Path

from danseg.errors import UserError
from danseg.shipped import shipped

SCOPE = "danseg"  # before "::", in a _base_: what comes with danseg


def find_config(name: str | Path) -> Path:
    """The file of a config.

    Args:
        name: a file, with or without its suffix, or the name of a config that comes with danseg, such as
            ``danet_r101_cityscapes``. A file of this name wins.

    Raises:
        UserError: there is no such config; the message suggests the nearest names.
    """
    path = Path(name).expanduser()
    places = [path, Path(f"{path}.py")]
    if path.parent == Path():
        places += [shipped("configs") / place for place in places]
    for place in places:
        if place.is_file():
            return place
    raise UserError(_missing_config_message(path))


def find_base(name: str) -> Path | None:
    """The file of a base ``danseg::NAME``, which comes with danseg; None for the name of another file."""
    scope, separator, inside = name.partition("::")
    if not separator or scope != SCOPE:
        return None
    return shipped("configs") / f"{inside.removesuffix('.py')}.py"


def _missing_config_message(path: Path) -> str:
    """Say that ``path`` does not exist, and suggest the configs with the most similar names."""
    known: dict[str, str] = {}
    for root in (path.parent, Path("configs")):
        for file in sorted(root.glob("*.py")):
            known.setdefault(file.stem, str(file))
    for file in sorted(shipped("configs").glob("*.py")):
        known.setdefault(file.stem, file.stem)
    nearest = difflib.get_close_matches(path.name.removesuffix(".py"), known, n=3, cutoff=0.5)
    if nearest:
        return f"config {path} does not exist; did you mean {', '.join(known[name] for name in nearest)}?"
    return f"config {path} does not exist; there are: {', '.join(known.values())}"
