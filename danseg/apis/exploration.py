"""One picture as a network sees it: its labels, and its attention as often as one asks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmseg.models import BaseSegmentor

from danseg.apis.eager_copy import eager_copy
from danseg.apis.pictures import Picture
from danseg.apis.predict import as_label_map, prepared_batch, read_picture
from danseg.attention.parts.views import View
from danseg.errors import UserError
from danseg.export.exported_network import is_exported
from danseg.segmentors.labels import CoarseLogits, as_probabilities, whole_image_logits
from danseg.visualization import AttentionMaps, AttentionWeights
from danseg.visualization.attention_recording import (
    RecordedAttention,
    record_attention,
    require_attention,
)
from danseg.visualization.attention_switch import switched_off
from danseg.visualization.shown_view import placement_of, shown_view


@dataclass(frozen=True)
class AttentionEffect:
    """What the attention of one module does to a picture's labels.

    Attributes:
        module: its path in the model.
        scale: the learned factor of the branch; None if the module has none.
        labels: (H, W) class ids without the attention.
        changed: share of the picture's pixels that have another label with it.
        positions: P pairs (x, y) in pixels.
        with_attention, without: (P, C) logits of the classes at the positions.
    """

    module: str
    scale: float | None
    labels: np.ndarray
    changed: float
    positions: list[tuple[int, int]]
    with_attention: np.ndarray
    without: np.ndarray


class Exploration:
    """A picture's forward pass, which is kept; :func:`explore` makes it.

    It keeps the head's logits and a copy of the input of every attention module, so that a question costs no
    further pass, except for :meth:`effect`.

    Attributes:
        image: (H, W, 3) uint8 RGB, as :func:`danseg.apis.read_picture` gives it.
        labels: (H, W) int64 class ids of the whole picture's pass.
        classes: names by class id.
        palette: one (red, green, blue) a class.
        views: what can be shown, by keys such as ``"decode_head.pam"`` or, for a module's further views,
            ``"decode_head.cca:recurrence 1"``, in the order of the model.
    """

    def __init__(
        self,
        model: BaseSegmentor,
        data: dict[str, Any],
        image: np.ndarray,
        logits: CoarseLogits,
        recorded: dict[str, RecordedAttention],
    ) -> None:
        self.image = image
        self.classes: tuple[str, ...] = tuple(model.dataset_meta["classes"])
        self.palette: Sequence[Sequence[int]] = model.dataset_meta["palette"]
        self.labels = as_label_map(logits.labels())
        self._model, self._data, self._logits = model, data, logits
        self._recorded = recorded
        self._placement = placement_of(data)
        self._keys = {
            f"{path}:{name}" if name else path: (path, view)
            for path, one in recorded.items()
            for name, view in one.views.items()
        }
        self.views: dict[str, View] = {key: view for key, (_, view) in self._keys.items()}

    @property
    def modules(self) -> list[str]:
        """The paths of the modules that can be shown and ran."""
        return list(self._recorded)

    def probabilities(self, position: tuple[int, int]) -> np.ndarray:
        """The softmax (C,) float32 of the logits at a pixel (x, y); of a head with one channel, C = 2."""
        self._require_inside([position])
        logits = self._logits.at(*position)
        if len(logits) == 1:
            logits = logits.sigmoid()
        return as_probabilities(logits[:, None, None]).flatten().cpu().numpy()

    def attention(
        self, key: str, positions: Sequence[tuple[int, int]] = ()
    ) -> AttentionMaps | AttentionWeights:
        """What a view shows of the picture.

        Args:
            key: one of :attr:`views`.
            positions: pairs (x, y) in pixels of the picture, for a view of kind ``"position"`` alone; a
                position's map is that of the feature cell that contains the pixel's centre.

        Raises:
            UserError: there is no such view, no position, or one outside the picture.
        """
        path, view = self._require_view(key)
        if view.kind == "position":
            if not positions:
                raise UserError("name at least one position (x, y) to show the attention of")
            self._require_inside(positions)
        return shown_view(path, self._recorded[path], view.name, positions, self._placement)

    @torch.no_grad()
    def effect(self, module: str, positions: Sequence[tuple[int, int]] = ()) -> AttentionEffect:
        """The logits with and without a module's attention, everything else as it is; costs a forward pass.

        Args:
            module: its path, one of :attr:`modules`.
            positions: pairs (x, y) in pixels.

        Raises:
            UserError: there is no such module, or a position lies outside the picture.
        """
        if module not in self._recorded:
            raise UserError(
                f"no module {module!r} has attention to show; there are {', '.join(self._recorded)}"
            )
        self._require_inside(positions)
        with switched_off(self._model, module):
            without = whole_image_logits(self._model, **self._data)
        labels = as_label_map(without.labels())
        there = [np.zeros((0, len(self.classes)), np.float32)] * 2
        if positions:
            there = [
                np.stack([logits.at(x, y).float().cpu().numpy() for x, y in positions])
                for logits in (self._logits, without)
            ]
        return AttentionEffect(
            module,
            self._recorded[module].scale,
            labels,
            float((labels != self.labels).mean()),
            [(x, y) for x, y in positions],
            *there,
        )

    def _require_view(self, key: str) -> tuple[str, View]:
        if key not in self._keys:
            raise UserError(f"there is no view {key!r}; there are {', '.join(self._keys)}")
        return self._keys[key]

    def _require_inside(self, positions: Sequence[tuple[int, int]]) -> None:
        for position in positions:
            try:
                self._placement.cell(position, (1, 1))
            except ValueError as error:
                raise UserError(str(error)) from error


@torch.no_grad()
def explore(
    model: BaseSegmentor, image: Picture, *, channel_order: str = "rgb", unit_range: bool = False
) -> Exploration:
    """Pass a picture through a network, and keep what its labels and its attention are asked from.

    The whole image passes through the network in the size that the test pipeline gives it. This also holds if
    the config tests by sliding windows, because attention within a window ends at its edges and would not
    explain the whole image. Labels and maps are then those of the whole image, not of any window.

    The model stays untouched, so that several threads can ask one model at a time.

    Args:
        model: from :func:`load_model` or :func:`prepare_for_inference`.
        image, channel_order, unit_range: as for :func:`danseg.apis.predict`, for a single image.

    Raises:
        UserError: the image cannot be read, no attention module that runs in inference can be shown, or the
            model is an exported network.
    """
    require_attention_to_show(model)
    own = eager_copy(model)
    how: dict[str, Any] = dict(channel_order=channel_order, unit_range=unit_range)
    with record_attention(own) as recorded:
        batch = prepared_batch(own, image, **how)
        data = own.data_preprocessor(batch, training=False)
        logits = whole_image_logits(own, **data)
    return Exploration(own, data, read_picture(own, image, **how), logits, recorded)


def require_attention_to_show(model: BaseSegmentor) -> None:
    """Raise a :class:`UserError` if a model has no attention to show."""
    if is_exported(model):
        raise UserError(
            f"{model.backbone.session.path} is an exported network, whose attention has become plain "
            "operators: ask the checkpoint that it was exported from for maps (CONFIG CHECKPOINT)"
        )
    require_attention(model)
