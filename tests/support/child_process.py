"""What a test gives the processes that it starts."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def environment(*folders: Path, **variables: str) -> dict[str, str]:
    """This process's environment, in which danseg, the folders' modules and all that is found here are found.

    PYTHONPATH is put before, not replaced: what is installed may have come by it.
    """
    paths = [str(ROOT), *map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths), **variables}
