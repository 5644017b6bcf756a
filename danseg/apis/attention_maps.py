"""Compute where a model looks from given pixels of an image."""

from collections.abc import Sequence

from mmseg.models import BaseSegmentor

from danseg.apis.exploration import explore, require_attention_to_show
from danseg.apis.pictures import Picture
from danseg.attention.parts.views import MAPS
from danseg.errors import StopsAllError, UserError
from danseg.visualization import AttentionMaps, attention_modules


def attention_maps(
    model: BaseSegmentor,
    image: Picture,
    positions: Sequence[tuple[int, int]],
    *,
    channel_order: str = "rgb",
    unit_range: bool = False,
) -> dict[str, AttentionMaps]:
    """Compute where a model looks from some pixels of an image: one view of each module that has maps.

    :func:`danseg.apis.explore` is for all views, for weights of channels and branches, and for more than one
    question about a picture; it says how the image passes through the network.

    Args:
        model, image, channel_order, unit_range: as for :func:`danseg.apis.explore`.
        positions: pairs (x, y) in pixels of the image, of the upright one if its file is turned. A
            position's map is that of the feature cell that contains the pixel's centre.

    Returns:
        The maps of every module that has some and runs in inference, by the module's path in the model. There
        is at least one. Maps that are the same for all positions come without them.

    Raises:
        UserError: as :func:`danseg.apis.explore`; a position lies outside the image, there is no position, or
            no module has maps.
    """
    if not positions:
        raise UserError("name at least one position (x, y) to show the attention of")
    require_maps(model)
    exploration = explore(model, image, channel_order=channel_order, unit_range=unit_range)
    chosen: dict[str, str] = {}  # a module's first view with maps
    for key, view in exploration.views.items():
        if view.kind in MAPS:
            chosen.setdefault(key.partition(":")[0], key)
    shown = {path: exploration.attention(key, positions) for path, key in chosen.items()}
    return {path: maps for path, maps in shown.items() if isinstance(maps, AttentionMaps)}


def require_maps(model: BaseSegmentor) -> None:
    """Raise a :class:`UserError` if a model has no maps to show."""
    require_attention_to_show(model)
    views = {path: one.attention_views() for path, one in attention_modules(model).items()}
    if not any(view.kind in MAPS for of_module in views.values() for view in of_module):
        raise StopsAllError(
            f"{', '.join(views)} weigh channels or branches and have no maps; "
            "danseg explore draws these weights"
        )
