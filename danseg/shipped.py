"""What comes along with danseg beside its code: ``configs`` and ``tools``, and how the tools are started.

In a clone both folders lie beside the package. A wheel has them where those of the mm family have theirs, in
``danseg/.mim``, where mmengine and mim look too; setup.py puts them there.
"""

import re
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
MIM = _PACKAGE / ".mim"


def shipped(name: str) -> Path:
    """The folder ``configs`` or ``tools`` that belongs to this danseg."""
    # The wheel's comes first: beside an installed package lie the packages of others.
    folder = MIM / name
    return folder.resolve() if folder.is_dir() else _PACKAGE.parent / name


def in_clone() -> bool:
    """Whether this danseg is a clone's, which an editable install is too, and not a wheel's."""
    return shipped("tools").parent == _PACKAGE.parent


def command_name(tool: str) -> str:
    """The sub-command of ``danseg`` that runs ``tools/TOOL.py``.

    It is the file's name without ``_dataset`` and with ``-`` for ``_``: prepare for prepare_dataset.py,
    print-config for print_config.py.
    """
    return tool.removesuffix("_dataset").replace("_", "-")


def tools() -> dict[str, Path]:
    """The file of each sub-command."""
    return {command_name(path.stem): path for path in sorted(shipped("tools").glob("*.py"))}


def as_started(text: str) -> str:
    """A text in which tools are named as the user of this process starts them.

    ``python tools/train.py configs/danet_r18_demo.py`` stays so for those who run the files of a clone, and
    becomes ``danseg train danet_r18_demo`` for those who run the command, or have no clone.
    """
    if in_clone() and not by_command():
        return text
    text = re.sub(
        r"(?:\bpython )?\btools/(\w+)\.py\b", lambda match: f"danseg {command_name(match[1])}", text
    )
    ours = shipped("configs")
    return re.sub(
        r"(?<![\w/.])configs/(\w+)\.py\b",
        lambda match: match[1] if (ours / f"{match[1]}.py").is_file() else match[0],
        text,
    )


def by_command() -> bool:
    """Whether this process was started by the command, or by a process that was (:mod:`danseg.command`)."""
    return sys.argv[:1] != [] and sys.argv[0].startswith("danseg ")
