"""Check pretrained weights before a network starts from them: whole, finite, and some of them fit."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.model import BaseModule
from torch import nn

from danseg.engine.checkpoints.checkpoint import check_values, describe_mismatch, read_checkpoint, weights_of
from danseg.errors import UserError

#: What to do about pretrained weights that are of no use, for the end of a message.
INSTEAD = (
    "Name a file for this network (--cfg-options model.pretrained=FILE), start from all weights of a "
    "segmentor (load_from=FILE), or train without (model.pretrained=None)"
)


def check_pretrained(network: nn.Module) -> None:
    """Check the files from which parts of ``network`` will take their first weights; fetch them if need be.

    mmengine loads what fits, and starts from random weights without a word where nothing does.

    Raises:
        UserError: a file cannot be read, nothing in it fits, or it holds weights that no network can use.
    """
    for part in network.modules():
        # A class with init_weights of its own may rename what it reads, as those of transformers do.
        if isinstance(part, BaseModule) and type(part).init_weights is BaseModule.init_weights:
            for init in _pretrained_inits(part.init_cfg):
                _check(part, str(init["checkpoint"]), init.get("prefix"))


def _pretrained_inits(init_cfg: Any) -> Iterator[Mapping[str, Any]]:
    for init in init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]:
        if isinstance(init, Mapping) and init.get("type") == "Pretrained" and init.get("checkpoint"):
            yield init


def _check(part: nn.Module, source: str, prefix: str | None) -> None:
    try:
        weights = weights_of(read_checkpoint(source))
    except UserError as error:
        raise UserError(f"{error}\n{INSTEAD}") from error
    if prefix:
        start = prefix.rstrip(".") + "."
        weights = {n.removeprefix(start): value for n, value in weights.items() if n.startswith(start)}
    check_values(part, weights, source)
    own = part.state_dict()
    if not any(name in own and own[name].shape == value.shape for name, value in weights.items()):
        raise UserError(
            f"no parameter of the pretrained weights {source} fits {type(part).__name__}:\n"
            f"{describe_mismatch(part, weights)}\n{INSTEAD}"
        )
