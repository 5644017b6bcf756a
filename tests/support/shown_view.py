"""What a module's view shows, for tests that compare it with an equation."""

from torch import Tensor

from danseg.attention.parts.views import ShowsAttention


def shown(module: ShowsAttention, x: Tensor, view: str = "", *asked: object) -> Tensor:
    """What the view of this name shows for the input ``x``; one of positions is ``asked`` for some."""
    [chosen] = [one for one in module.attention_views() if one.name == view]
    return chosen.begin(x)(*asked)
