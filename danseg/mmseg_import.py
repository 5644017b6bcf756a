"""Connect danseg to mmseg and mmengine: tell their registries and their analysis where danseg's parts are.

It also imports mmseg quietly. ``import danseg`` imports neither mmengine nor mmseg: what concerns one of
their modules is done once that has been imported.
"""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import io
import sys
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType

REGISTRATION = "danseg.registration"
FLOP_HANDLES = "danseg.flop_handles"


def connect() -> None:
    """Do what follows the import of each module in :data:`FOLLOWING`, or see to it that it will be done."""
    for name, follow in FOLLOWING.items():
        if name in sys.modules:
            follow(sys.modules[name])
        else:
            _Followed.awaited.add(name)
    if _Followed not in sys.meta_path:
        sys.meta_path.insert(0, _Followed)


def _register_at_first_lookup(package: ModuleType) -> None:
    """Make the registries of mmengine or of mmseg import danseg's parts at their first lookup.

    A registry of mmengine has ``locations``: modules that it imports at its first lookup. mmseg fills its
    registries this way. This function puts :data:`REGISTRATION` before them. After its first lookup, a
    registry ignores its locations. If any of the registries is past that, everything is registered at once.
    """
    from mmengine.registry import Registry

    registries = [one for one in vars(package).values() if isinstance(one, Registry)]
    if all(getattr(one, "_imported", True) is False and hasattr(one, "_locations") for one in registries):
        for one in registries:
            one._locations = [REGISTRATION, *one._locations]
    else:
        importlib.import_module(REGISTRATION)


def _supply_operators(mmseg: ModuleType) -> None:
    """The original line of mmseg imports mmcv at once, and its parts need what mmcv-lite lacks."""
    if "mmcv" in sys.modules:
        with quietly():
            from danseg import mmcv_ops

            mmcv_ops.install()


def _name_package(utilities: ModuleType) -> None:
    """Let mmengine read configs of danseg, as ``mmengine.hub`` and ``_base_ = "danseg::..."`` do."""
    utilities.MODULE2PACKAGE.setdefault("danseg", "danseg")


def _count_flops(analysis: ModuleType) -> None:
    """Make mmengine's complexity analysis count danseg's operators. Both import torch."""
    importlib.import_module(FLOP_HANDLES)


FOLLOWING: dict[str, Callable[[ModuleType], None]] = {
    "mmengine.config.utils": _name_package,
    "mmengine.registry": _register_at_first_lookup,
    "mmseg": _supply_operators,
    "mmseg.registry": _register_at_first_lookup,
    "mmengine.analysis.complexity_analysis": _count_flops,
}


class _Followed:
    """An entry of ``sys.meta_path`` that does what follows a module right after its import, once."""

    awaited: set[str] = set()

    @classmethod
    def find_spec(cls, name: str, path=None, target=None) -> importlib.machinery.ModuleSpec | None:
        if name not in cls.awaited:
            return None
        cls.awaited.remove(name)  # before the other finders are asked, which this one leaves it to
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            cls.awaited.add(name)
            return None
        execute = spec.loader.exec_module

        def execute_both(module: ModuleType) -> None:
            try:
                execute(module)
            except BaseException:
                cls.awaited.add(name)  # it may be imported once more
                raise
            FOLLOWING[name](module)

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


@contextlib.contextmanager
def building_quietly() -> Iterator[None]:
    """Hide what mmseg says while it builds any network, though nothing is wrong with it.

    It names a default of every cross entropy, and advises one channel for two classes, to which danseg's
    losses and scores give the same meaning with two.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Default ``avg_non_ignore`` is False")
        warnings.filterwarnings("ignore", message="For binary segmentation, we suggest using")
        yield
