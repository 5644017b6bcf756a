"""Facts that only the author of a class knows, read from the class's own test file."""

import functools
import importlib.util
from pathlib import Path
from types import ModuleType

TESTS = Path(__file__).resolve().parents[1]


def own_test(of: type) -> ModuleType:
    """Import a class's test file, which must exist: tests/heads/test_danet.py for danseg.heads.danet."""
    _, *folders, stem = of.__module__.split(".")
    return _loaded(TESTS.joinpath(*folders, f"test_{stem}.py"))


@functools.cache
def _loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"own_{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
