"""What a layout of weights is to the conversion: how its names are recognised, mapped and understood."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from danseg.convert.foreign_file import Tensors
from danseg.convert.structure import Settings
from danseg.engine.checkpoints.torchvision_names import Prefixes

# Mean and deviation of ImageNet in RGB, for pixels from 0 to 255.
IMAGENET: Settings = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)


@dataclass(frozen=True)
class Network:
    """The network that a file's tensors belong to.

    Attributes:
        name: of the network, as danseg's recipes call it.
        model: what ``model`` of its config has to say, in full where a recipe may say otherwise.
        classes: how many it tells apart; None for a backbone alone.
        data: for a data set's name, what that network was tested with beside the model: names at the top of a
            recipe, such as ``crop_size``, and ``test_cfg``.
        dataset_meta: ``classes`` and ``palette`` where the file says them.
        assumed: what the tensors do not say, in the words of ``--cfg-options``, with the value that is taken.
        change: what is done to the renamed weights, so that danseg's layers compute the same.
        changed: that, in words.
    """

    name: str
    model: Settings
    classes: int | None = None
    data: Callable[[str], Settings] = lambda dataset: {}
    dataset_meta: Mapping[str, Any] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    changed: str = ""


@dataclass(frozen=True)
class Source:
    """A layout that ``--from`` names.

    Attributes:
        title: whose layout it is, for messages.
        recognises: whether names are of this layout.
        prefixes: to the names of a file, what each of their prefixes is in danseg's network; None for what it
            does not have.
        understand: to the tensors under danseg's names and the file's ``meta``, the network.
        example: a name by which the layout is known, for messages.
    """

    title: str
    example: str
    recognises: Callable[[Collection[str]], bool]
    prefixes: Callable[[Collection[str]], Prefixes]
    understand: Callable[[Tensors, Mapping[str, Any]], Network]
