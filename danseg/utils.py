"""What mmengine asks a package of the mm family for: ``mmengine.hub.get_model("danseg::...")`` calls this."""

import importlib

from danseg.mmseg_import import REGISTRATION


def register_all_modules(init_default_scope: bool = True) -> None:
    """Register all of danseg. The argument is mmengine's; danseg's parts are found in mmseg's scope, too."""
    importlib.import_module(REGISTRATION)
