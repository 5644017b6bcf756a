"""Compute where a model looks from given pixels of an image."""

import copy
from collections.abc import Sequence

import torch
from mmseg.models import BaseSegmentor
from torch import Tensor

from danseg.apis.pictures import Picture
from danseg.apis.predict import prepared_batch
from danseg.apis.preparation import CompiledForward
from danseg.errors import UserError
from danseg.export.exported_network import is_exported
from danseg.visualization import AttentionMaps, Placement, record_attention
from danseg.visualization.attention_recording import require_attention


@torch.no_grad()
def attention_maps(
    model: BaseSegmentor,
    image: Picture,
    positions: Sequence[tuple[int, int]],
    *,
    channel_order: str = "rgb",
    unit_range: bool = False,
) -> dict[str, AttentionMaps]:
    """Compute where the model looks from some pixels of an image.

    The whole image passes through the network in the size that the test pipeline gives it. This also holds if
    the config tests by sliding windows, because attention within a window ends at its edges and would not
    explain the whole image. The maps are then those of the whole image, not of any window.

    The model stays untouched, so that several threads can ask one model for labels and maps at a time.

    Args:
        model: from :func:`load_model` or :func:`prepare_for_inference`.
        image, channel_order, unit_range: as for :func:`danseg.apis.predict`, for a single image.
        positions: pairs (x, y) in pixels of the image, of the upright one if its file is turned. A
            position's map is that of the feature cell that contains the pixel's centre.

    Returns:
        The maps of every module that can compute them and runs in inference, by the module's path in the
        model. There is at least one.

    Raises:
        UserError: the image cannot be read, a position lies outside it, there is no position, or no attention
            module that runs in inference can compute maps; the model is an exported network.
    """
    if not positions:
        raise UserError("name at least one position (x, y) to show the attention of")
    require_maps(model)
    model = _eager_copy(model)
    with record_attention(model) as recorded:
        batch = prepared_batch(model, image, channel_order=channel_order, unit_range=unit_range)
        data = model.data_preprocessor(batch, training=False)
        model(**data, mode="tensor")
    placement = _placement(data["inputs"].shape[-2:], data["data_samples"][0].metainfo)
    maps = {}
    for path, module in recorded.items():
        try:
            cells = [placement.cell(position, module.map_size) for position in positions]
        except ValueError as error:
            raise UserError(str(error)) from error
        rows = module.rows(cells)[0].float().cpu().numpy()  # (P, h, w)
        maps[path] = AttentionMaps(path, [(x, y) for x, y in positions], rows, placement, module.scale)
    return maps


def require_maps(model: BaseSegmentor) -> None:
    """Raise a :class:`UserError` if a model has no maps to show."""
    if is_exported(model):
        raise UserError(
            f"{model.backbone.session.path} is an exported network, whose attention has become plain "
            "operators: ask the checkpoint that it was exported from for maps (CONFIG CHECKPOINT)"
        )
    require_attention(model)


def _eager_copy(model: BaseSegmentor) -> BaseSegmentor:
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


def _placement(input_size: Sequence[int], meta: dict) -> Placement:
    """Where mmseg put an image, from the meta information of its transforms and preprocessor."""
    left, _, top, _ = meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0)))
    return Placement(
        image_size=tuple(meta["ori_shape"][:2]),
        input_size=(input_size[0], input_size[1]),
        content_size=tuple(meta["img_shape"][:2]),
        offset=(top, left),
    )
