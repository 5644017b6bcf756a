"""Connect danseg to mmseg: tell mmseg's registries where danseg's parts are, and import mmseg quietly."""

import contextlib
import importlib
import io
import sys
import warnings
from collections.abc import Iterator

REGISTRATION = "danseg.registration"


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
