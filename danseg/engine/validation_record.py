"""``validations.json`` in the work dir: a list of the scores of every validation of a training.

It can be plotted. An entry is written after the best checkpoints of its validation, so what it names is done.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from danseg.io.files import whole_file

RECORD = "validations.json"


def read_record(folder: str | Path) -> list[dict[str, Any]]:
    """The entries, in the order of their ``iteration``; none if the file is missing or damaged."""
    try:
        record = json.loads(Path(folder, RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    found = record if isinstance(record, list) else []
    return [one for one in found if isinstance(one, dict) and isinstance(one.get("iteration"), int)]


def write_record(folder: str | Path, record: Sequence[Mapping[str, Any]]) -> None:
    """Write the file whole.

    Raises:
        UserError: it cannot be written.
    """
    with whole_file(Path(folder, RECORD)) as part:
        part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
