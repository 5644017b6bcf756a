"""A model's copy for one call, which hooks may be put on."""

import copy

from mmseg.models import BaseSegmentor
from torch import Tensor

from danseg.apis.preparation import CompiledForward


def eager_copy(model: BaseSegmentor) -> BaseSegmentor:
    """A copy for one call: it shares the weights, is in eval mode, and nothing in it is compiled.

    Hooks on the model itself would be seen by other threads, and compiled code would not call them.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile(model) wraps
    shared = [
        *model.parameters(),
        *model.buffers(),
        *(value for part in model.modules() for value in vars(part).values() if isinstance(value, Tensor)),
        *(getattr(model, name, None) for name in ("cfg", "dataset_meta")),
    ]
    own = copy.deepcopy(model, {id(one): one for one in shared})
    for part in own.modules():
        for name, child in part._modules.items():
            part._modules[name] = getattr(child, "_orig_mod", child)
        if isinstance(vars(part).get("forward"), CompiledForward):
            part.forward = part.forward.forward
    return own.eval()
