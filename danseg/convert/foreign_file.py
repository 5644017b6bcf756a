"""Read the tensors of another project's checkpoint, from wherever it keeps them in its file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, is_tensor

from danseg.engine.checkpoints.checkpoint import read_content
from danseg.engine.checkpoints.downloads import local_file
from danseg.errors import UserError
from danseg.io.words import counted, listed

# Keys under which training programs keep a network's weights, in the order in which they are tried.
_KEPT_AT = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights", "params")
# What wrappers of a network put before its names: DataParallel and its distributed kin, torch.compile.
_WRAPPERS = ("module.", "_orig_mod.")


class Tensors(dict[str, Tensor]):
    """Weights by name; one that is asked for and not there is an :class:`Absent`.

    Args:
        weights: the weights.
        start: what their names begin with in the whole network.
    """

    def __init__(self, weights: Mapping[str, Tensor], start: str = "") -> None:
        super().__init__(weights)
        self.start = start

    def __missing__(self, name: str) -> Tensor:
        raise Absent(self.start + name)

    def below(self, prefix: str) -> "Tensors":
        """The tensors whose names begin with a word or several, without these."""
        start = f"{prefix}."
        inner = {n.removeprefix(start): value for n, value in self.items() if n.startswith(start)}
        return Tensors(inner, self.start + start)


class Absent(Exception):
    """A tensor from whose shape something follows is not in the file; its one argument is its name."""


class ForeignFile(NamedTuple):
    """A checkpoint of another project.

    Attributes:
        path: the file.
        weights: its tensors, without the prefixes of wrappers.
        meta: its entry ``meta``, where projects of the mm family keep classes and configs.
    """

    path: Path
    weights: Tensors
    meta: Mapping[str, Any]


def read_foreign(source: str | Path) -> ForeignFile:
    """Read a checkpoint of any project, a file or its address, without running code from it.

    Raises:
        UserError: the file cannot be read or holds code, or no tensors by names.
    """
    path = local_file(source)
    content = read_content(path)
    meta = content.get("meta")
    weights = _weights(content, path)
    for _ in _WRAPPERS:
        for wrapper in _WRAPPERS:
            if all(name.startswith(wrapper) for name in weights):
                weights = {name.removeprefix(wrapper): value for name, value in weights.items()}
    return ForeignFile(path, Tensors(weights), meta if isinstance(meta, Mapping) else {})


def _weights(content: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    inner: Any = content
    while isinstance(inner, Mapping):
        at = next((key for key in _KEPT_AT if isinstance(inner.get(key), Mapping)), None)
        if at is None:
            break
        inner = inner[at]
    others = [name for name, value in inner.items() if not (isinstance(name, str) and is_tensor(value))]
    if not inner or others:
        what = f"holds {counted(len(others), 'entry', 'entries')} that are no tensors: {listed(others)}"
        raise UserError(
            f"checkpoint {path} {what if inner else 'holds no tensors'}. Weights are looked for at its top "
            f"and at {listed(_KEPT_AT, len(_KEPT_AT))}: torch.save() a dict of the network's tensors"
        )
    return dict(inner)
