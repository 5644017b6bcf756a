"""Connect danseg to mmseg and mmengine: tell their registries and their analysis where danseg's parts are.

It also imports mmseg quietly.
"""

import contextlib
import importlib
import importlib.machinery
import io
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

REGISTRATION = "danseg.registration"
FLOP_HANDLES = "danseg.flop_handles"
_ANALYSIS = "mmengine.analysis.complexity_analysis"


def register_at_first_lookup() -> None:
    """Make mmseg's registries, and mmengine's above them, import danseg's parts at their first lookup.

    A registry of mmengine has ``locations``: modules that it imports at its first lookup. mmseg fills its
    registries this way. This function puts :mod:`danseg.registration` before mmseg's modules, so that
    ``import danseg`` does not wait for torch and mmseg. After its first lookup, a registry ignores its
    locations. If any of the registries is past that, everything is registered at once.
    """
    with quietly():
        import mmseg.registry
        from mmengine.registry import Registry

        # The original line of mmseg imports mmcv here already, and its parts need what mmcv-lite lacks.
        if "mmcv" in sys.modules:
            from danseg import mmcv_ops

            mmcv_ops.install()
    registries = [one for one in vars(mmseg.registry).values() if isinstance(one, Registry)]
    registries += [one.parent for one in registries]
    if all(getattr(one, "_imported", True) is False and hasattr(one, "_locations") for one in registries):
        for one in registries:
            one._locations = [REGISTRATION, *one._locations]
    else:
        importlib.import_module(REGISTRATION)


def count_flops_once_asked() -> None:
    """Make mmengine's complexity analysis count danseg's operators: :mod:`danseg.flop_handles` follows it.

    The analysis imports torch, so ``import danseg`` does not import it. Users may do so before or later.
    """
    if _ANALYSIS in sys.modules:
        importlib.import_module(FLOP_HANDLES)
    elif _FlopHandles not in sys.meta_path:
        sys.meta_path.insert(0, _FlopHandles)


class _FlopHandles:
    """An entry of ``sys.meta_path`` that imports danseg's handles right after the analysis, once."""

    @classmethod
    def find_spec(cls, name: str, path=None, target=None) -> importlib.machinery.ModuleSpec | None:
        if name != _ANALYSIS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_both(module: ModuleType) -> None:
                execute(module)
                sys.meta_path.remove(cls)
                importlib.import_module(FLOP_HANDLES)

            spec.loader.exec_module = execute_both  # type: ignore[method-assign]
        return spec


def import_mmseg() -> None:
    """Import the parts of mmseg that danseg builds on, and hide what they print."""
    with quietly():
        from danseg import mmcv_ops

        mmcv_ops.install()  # before the first import of mmseg's parts
        import mmseg.datasets
        import mmseg.models  # noqa: F401


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Hide two messages that do not concern the user.

    On import, mmcv warns that it has no compiled operators, which danseg never needs, and mmseg prints that a
    commercial data loader is not installed.
    """
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.filterwarnings("ignore", message="Fail to import ``MultiScaleDeformableAttention``")
        yield
