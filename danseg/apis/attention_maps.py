"""Compute where a model looks from given pixels of an image."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmseg.models import BaseSegmentor

from danseg.apis.predict import prepared_batch
from danseg.errors import UserError
from danseg.visualization import AttentionMaps, Placement, attention_modules, record_attention


@torch.no_grad()
def attention_maps(
    model: BaseSegmentor, image: str | Path | np.ndarray, positions: Sequence[tuple[int, int]]
) -> dict[str, AttentionMaps]:
    """Compute where the model looks from some pixels of an image.

    The whole image passes through the network in the size that the test pipeline gives it. This also holds if
    the config tests by sliding windows, because attention within a window ends at its edges and would not
    explain the whole image. The maps are then those of the whole image, not of any window.

    Args:
        model: from :func:`load_model` or :func:`prepare_for_inference`.
        image: a file or an array, as for :func:`danseg.apis.predict`.
        positions: pairs (x, y) in pixels of the image, of the upright one if its file is turned. A
            position's map is that of the feature cell that contains the pixel's centre.

    Returns:
        The maps of every module that can compute them, by the module's path in the model.

    Raises:
        UserError: the image cannot be read, a position lies outside it, there is no position, or no attention
            module of the model can compute maps.
    """
    if not attention_modules(model):
        raise UserError(
            f"{type(model.decode_head).__name__} has no attention module that can show a map for a position; "
            "DANetHead with with_pam=True has one (decode_head.pam)"
        )
    if not positions:
        raise UserError("name at least one position (x, y) to show the attention of")
    data = prepared_batch(model, image)
    with record_attention(model) as recorded, _eager():
        data = model.data_preprocessor(data, training=False)
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


def _eager() -> contextlib.AbstractContextManager:
    """Run compiled parts of a model uncompiled, because compiled code would not call the recording hooks."""
    # :func:`danseg.apis.prepare_for_inference` compiles a model only if PyTorch has set_stance.
    has_stance = hasattr(torch.compiler, "set_stance")
    return torch.compiler.set_stance("force_eager") if has_stance else contextlib.nullcontext()


def _placement(input_size: Sequence[int], meta: dict) -> Placement:
    """Where mmseg put an image, from the meta information of its transforms and preprocessor."""
    left, _, top, _ = meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0)))
    return Placement(
        image_size=tuple(meta["ori_shape"][:2]),
        input_size=(input_size[0], input_size[1]),
        content_size=tuple(meta["img_shape"][:2]),
        offset=(top, left),
    )
