"""Train in less memory: parts of a network keep only their input and recompute the rest when needed.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, arXiv 1604.06174.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from danseg.errors import UserError


def recompute(model: nn.Module, names: Sequence[str]) -> None:
    """Make modules keep only their input for the backward pass, which runs their forward pass again.

    Outputs, gradients and batch norm's running statistics do not change. The second forward pass does not
    update the statistics; with mmengine's ``activation_checkpointing`` and mmcv's ``with_cp`` every batch
    counts twice.

    Args:
        model: the network, changed in place.
        names: dotted names of the modules, such as ``backbone.layer1``.

    Raises:
        UserError: the model has no module of such a name.
    """
    for name in names:
        try:
            module = model.get_submodule(name)
        except AttributeError as error:
            parent = name.rpartition(".")[0]
            while parent and not _has(model, parent):
                parent = parent.rpartition(".")[0]
            there = ", ".join(child for child, _ in model.get_submodule(parent).named_children())
            raise UserError(
                f"recompute={list(names)}: the model has no module {name!r}; "
                f"{parent or 'the model'} has {there}"
            ) from error
        module.forward = partial(
            checkpoint, module.forward, use_reentrant=False, context_fn=partial(_contexts, module)
        )


def _has(model: nn.Module, name: str) -> bool:
    try:
        model.get_submodule(name)
    except AttributeError:
        return False
    return True


def _contexts(module: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """The contexts in which the first and the second forward pass run."""
    return nullcontext(), _StatisticsKept(module)


class _StatisticsKept(AbstractContextManager):
    """Lets batch norms update copies of their running statistics, and discards the copies at the end.

    A second derivative enters it again.
    """

    def __init__(self, module: nn.Module) -> None:
        self.norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]

    def __enter__(self) -> None:
        self.kept = [dict(norm.named_buffers(recurse=False)) for norm in self.norms]
        for norm, buffers in zip(self.norms, self.kept, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer.clone())

    def __exit__(self, *error: object) -> None:
        for norm, buffers in zip(self.norms, self.kept, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
