"""One picture as a network sees it: its labels, and its attention as often as one asks."""

import operator
from collections.abc import Sequence
from contextlib import nullcontext
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmseg.models import BaseSegmentor
from torch import Tensor

from danseg.apis.eager_copy import eager_copy
from danseg.apis.pictures import Picture, load
from danseg.apis.predict import InputPipeline, as_label_map, batch_of
from danseg.attention.parts.views import View, attention_modules
from danseg.datasets.loading import shown
from danseg.errors import UserError
from danseg.export.exported_network import is_exported
from danseg.segmentors.labels import NOT_FINITE, CoarseLogits, as_probabilities, image_logits
from danseg.visualization import AttentionMaps, AttentionWeights
from danseg.visualization.attention_effect import AttentionEffect
from danseg.visualization.attention_recording import (
    RecordedAttention,
    record_attention,
    require_attention,
)
from danseg.visualization.attention_switch import switched_off
from danseg.visualization.channel_classes import classes_of_channels, standards, strongest_channel
from danseg.visualization.shown_view import placement_of, shown_view, view_keys


class _Without(NamedTuple):
    """A picture's pass without one module's attention: its logits, its labels, the largest change."""

    logits: CoarseLogits
    labels: Tensor
    largest_change: float


class Exploration:
    """A picture's forward pass, which is kept; :func:`explore` makes it.

    A question costs no further pass, except for the first one about :meth:`effect` of a module. Several
    threads can ask at a time; the model that was given stays untouched.

    What it keeps: the picture; labels, 8 bytes a pixel; the network's input and its logits; the input of each
    module that can be shown; and of a view that was asked for, what all its maps need (keys, queries), or
    what it shows; of an effect that was asked for, logits and labels. Of DANet at 1024 x 2048, where a
    feature map of 512 channels takes 67 MB, :attr:`nbytes` is 192 MB; its first map adds 17 MB. Weights are
    shared with the model.

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
        self._without: dict[str, _Without] = {}
        self._standards: dict[str, tuple[Tensor, Tensor]] = {}
        self._lock = Lock()
        self._keys = view_keys(recorded)
        self.views: dict[str, View] = {key: view for key, (_, view) in self._keys.items()}

    @property
    def modules(self) -> list[str]:
        """The paths of the modules that can be shown and ran."""
        return list(self._recorded)

    @property
    def nbytes(self) -> int:
        """The bytes that it keeps from the start."""
        tensors = [self._data["inputs"], self._logits.logits, *(one.x for one in self._recorded.values())]
        return self.image.nbytes + self.labels.nbytes + sum(one.nbytes for one in tensors)

    def probabilities(self, position: tuple[int, int]) -> np.ndarray:
        """The softmax (C,) float32 of the logits at a pixel (x, y); of a head with one channel, C = 2.

        Raises:
            UserError, ValueError: as :meth:`attention`.
        """
        [place] = self._places([position])
        logits = self._logits.at(*place)
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
            ValueError: a position is no pair of whole numbers.
        """
        path, view = self._require_view(key)
        places = self._places(positions) if view.kind == "position" else []
        if view.kind == "position" and not places:
            raise UserError("name at least one position (x, y) to show the attention of")
        return shown_view(path, self._recorded[path], view.name, places, self._placement)

    @torch.no_grad()
    def channel_classes(self, key: str) -> np.ndarray:
        """The class that each channel serves which a view weighs.

        It is the class whose pixels have the largest mean of the channel, standardised over the picture.

        Args:
            key: one of :attr:`views`, of kind ``"channels"``.

        Returns:
            (C,) int64 class ids; -1 for a channel that is the same everywhere.

        Raises:
            UserError: there is no such view, or it weighs no channels of its module's input.
        """
        features = self._weighed(key)
        return classes_of_channels(features, self._cell_labels(features)).cpu().numpy()

    @torch.no_grad()
    def strongest_channel(self, key: str, position: tuple[int, int]) -> int:
        """The channel that a position asks for: the one farthest above its mean there, standardised.

        Args:
            key: as for :meth:`channel_classes`.
            position: a pair (x, y) in pixels.

        Raises:
            UserError, ValueError: as :meth:`channel_classes` and :meth:`attention`.
        """
        features = self._weighed(key)
        height, width = features.shape[1:]
        [place] = self._places([position])
        cell = self._placement.cell(place, (height, width))
        if key not in self._standards:
            self._standards[key] = standards(features, self._cell_labels(features) >= 0)
        return strongest_channel(features, self._standards[key], cell)

    def effect(self, module: str, positions: Sequence[tuple[int, int]] = ()) -> AttentionEffect:
        """The logits with and without a module's attention, everything else as it is.

        The first question about a module costs a forward pass, whose logits and labels are kept.

        Args:
            module: its path, one of :attr:`modules`.
            positions: pairs (x, y) in pixels.

        Raises:
            UserError: there is no such module, or a position lies outside the picture.
            ValueError: a position is no pair of whole numbers.
        """
        if module not in self._recorded:
            raise UserError(
                f"no module {module!r} has attention to show; there are {', '.join(self._recorded)}"
            )
        places = self._places(positions)
        with self._lock:
            if module not in self._without:
                self._without[module] = self._pass_without(module)
        without = self._without[module]
        labels = as_label_map(without.labels)
        there = [
            np.array([logits.at(*place).float().cpu().numpy() for place in places], np.float32).reshape(
                len(places), len(logits.logits)
            )
            for logits in (self._logits, without.logits)
        ]
        return AttentionEffect(
            module,
            self._recorded[module].scale,
            labels,
            float((labels != self.labels).mean()),
            without.largest_change,
            places,
            *there,
        )

    @torch.no_grad()
    def _pass_without(self, module: str) -> _Without:
        # On a copy, because other threads ask this model.
        own = eager_copy(self._model)
        with switched_off(own, module):
            logits = image_logits(own, **self._data)
        change = (logits.logits.float() - self._logits.logits.float()).abs().max().item()
        return _Without(logits, logits.labels(), change)

    def _require_view(self, key: str) -> tuple[str, View]:
        if key not in self._keys:
            raise UserError(f"there is no view {key!r}; there are {', '.join(self._keys)}")
        return self._keys[key]

    def _weighed(self, key: str) -> Tensor:
        """The feature map (C, h, w) whose channels a view weighs."""
        path, view = self._require_view(key)
        if view.kind != "channels":
            able = [one for one, (_, other) in self._keys.items() if other.kind == "channels"]
            raise UserError(
                f"{key} shows no channels, which serve classes; of this network's views, "
                f"{', '.join(able) or 'none'} shows them"
            )
        features = self._recorded[path].x[0]
        weighed = self._recorded[path].show(view=view.name).shape[-1]
        if weighed != len(features):
            raise UserError(
                f"{key} weighs {weighed} channels inside {path}, not the {len(features)} of its input, which "
                "are compared with classes"
            )
        return features

    def _cell_labels(self, features: Tensor) -> Tensor:
        """The labels (h, w) below the centres of a feature map's cells, -1 in the padding."""
        height, width = features.shape[1:]
        rows, columns = self._placement.pixels((height, width))
        labels = self.labels[np.ix_(rows, columns)]
        labels[rows < 0], labels[:, columns < 0] = -1, -1
        return torch.from_numpy(labels).to(features.device)

    def _places(self, positions: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Positions as pairs of whole numbers that lie inside the picture."""
        places = []
        for one in positions:
            try:
                x, y = map(operator.index, one)
            except (TypeError, ValueError) as error:
                raise ValueError(f"positions are pairs (x, y) of whole numbers, got {one!r}") from error
            try:
                self._placement.cell((x, y), (1, 1))
            except ValueError as error:
                raise UserError(str(error)) from error
            places.append((x, y))
        return places


@torch.no_grad()
def explore(
    model: BaseSegmentor,
    image: Picture,
    *,
    channel_order: str = "rgb",
    unit_range: bool = False,
    attention: bool = True,
) -> Exploration:
    """Pass a picture through a network, and keep what its labels and its attention are asked from.

    The whole image passes through the network in the size that the test pipeline gives it. This also holds if
    the config tests by sliding windows, because attention within a window ends at its edges and would not
    explain the whole image. Labels and maps are then those of the whole image, not of any window.

    The model stays untouched, so that several threads can ask one model at a time.

    Args:
        model: from :func:`load_model` or :func:`prepare_for_inference`.
        image, channel_order, unit_range: as for :func:`danseg.apis.predict`, for a single image.
        attention: False also takes a network that has no attention to show, whose labels and probabilities
            can be asked for.

    Raises:
        UserError: the image cannot be read, no attention module that runs in inference can be shown, the test
            pipeline mirrors pictures, logits are no numbers, or the model is an exported network.
        ValueError: as :func:`danseg.apis.predict`.
    """
    if attention:
        require_attention_to_show(model)
    own = eager_copy(model)
    data, picture = whole_picture(own, image, channel_order=channel_order, unit_range=unit_range)
    recording: Any = record_attention(own) if attention_modules(own) else nullcontext({})
    with recording as recorded:
        logits = image_logits(own, **data)
    if logits.logits.isnan().any():
        raise UserError(NOT_FINITE)
    return Exploration(own, data, picture, logits, recorded)


def whole_picture(
    own: Any, image: Picture, *, channel_order: str, unit_range: bool
) -> tuple[dict[str, Any], np.ndarray]:
    """What the network gets of a picture that passes through it as a whole.

    Args:
        own: the call's own copy of a model, whose test mode is set.
        image, channel_order, unit_range: as for :func:`explore`.

    Returns:
        ``inputs`` and ``data_samples`` from the data preprocessor, and the picture as
        :func:`danseg.apis.read_picture` gives it.
    """
    own.test_cfg = ConfigDict(own.test_cfg or {}, mode="whole")
    pipeline = InputPipeline(own)
    loaded = load(pipeline.loader, image, channel_order=channel_order, unit_range=unit_range)
    picture = shown(pipeline.loader, loaded["img"])
    data = own.data_preprocessor(batch_of([pipeline.prepared(loaded, image)]), training=False)
    if data["data_samples"][0].metainfo.get("flip"):
        raise UserError(
            "the config's test pipeline mirrors pictures, so that positions in them mean others to the "
            "network: leave its RandomFlip out"
        )
    return data, picture


def require_attention_to_show(model: BaseSegmentor) -> None:
    """Raise a :class:`UserError` if a model has no attention to show."""
    if is_exported(model):
        raise UserError(
            f"{model.backbone.session.path} is an exported network, whose attention has become plain "
            "operators: ask the checkpoint that it was exported from for maps (CONFIG CHECKPOINT)"
        )
    require_attention(model)
