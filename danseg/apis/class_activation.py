"""Where a network of any kind finds the evidence for a class: Grad-CAM and its kin, by captum."""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from mmseg.models import BaseSegmentor
from torch import Tensor, nn

from danseg.apis.eager_copy import eager_copy
from danseg.apis.exploration import whole_picture
from danseg.apis.pictures import Picture
from danseg.apis.predict import as_label_map
from danseg.errors import UserError, importing_extra
from danseg.export.exported_network import is_exported
from danseg.io.words import did_you_mean, listed
from danseg.segmentors.labels import CoarseLogits, image_logits
from danseg.visualization import AttentionMaps, Placement
from danseg.visualization.shown_view import placement_of

#: Points of the way along which integrated gradients are summed.
STEPS = 20


def class_activation_map(
    model: BaseSegmentor,
    image: Picture,
    target: str | int | tuple[int, int],
    *,
    layer: str | None = None,
    method: str = "gradcam",
    channel_order: str = "rgb",
    unit_range: bool = False,
) -> AttentionMaps:
    """Where the feature map of a layer speaks for a class, by the gradient of the class's logit.

    For the score y, which is a logit of the class, and the layer's feature map A of channels k and positions
    p::

        gradcam:              relu(Σ_k mean_q(∂y/∂A_kq) · A_kp)
        hirescam:             relu(Σ_k ∂y/∂A_kp · A_kp)
        integrated-gradients: relu(Σ_k (A - B)_kp · mean_t ∂y/∂A_kp at B + t(A - B), t from 0 to 1)

    B is A of a picture that has the mean colour everywhere (0 where the config normalises).

    Grad-CAM: Selvaraju et al., ICCV 2017, arXiv 1610.02391; its form for segmentation: Vinogradova et al.,
    AAAI 2020, arXiv 2002.11434. HiResCAM: Draelos & Carin, arXiv 2011.08891. Integrated gradients:
    Sundararajan et al., ICML 2017, arXiv 1703.01365, here of a layer's features, in 20 steps.

    As in :func:`danseg.apis.explore`, the picture passes through the network as a whole. The model stays
    untouched; the gradient reaches back to the layer and no further, whose memory the activations behind it
    are. It needs the extra ``class-activation``.

    Args:
        model: from :func:`load_model` or :func:`prepare_for_inference`, of any network, with or without
            attention.
        image, channel_order, unit_range: as for :func:`danseg.apis.predict`, for a single image.
        target: a class by its name or its id: y is the mean of its logit over the pixels that have its label.
            Or a position (x, y) in pixels: y is the logit of its label there.
        layer: path of a module that gives one feature map, such as ``"backbone.layer3"``. Default: the last
            stage of the backbone, or what the head's classifier gets if no module of the backbone gives
            that.
        method: one of the three above.

    Returns:
        One map (1, h, w) over the layer's cells, divided by its maximum: 0 to 1, or 0 everywhere if nothing
        speaks for the class. ``module`` is the layer, ``view`` the method, ``parts`` the class.

    Raises:
        UserError: captum is not installed; the class, the layer or the method is unknown; no pixel has the
            class; the position lies outside the picture; the layer gives no feature map, or the score does
            not depend on it; the model is an exported network; the image cannot be read.
    """
    if method not in METHODS:
        raise UserError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    with importing_extra("class-activation", "class activation maps need captum, which"):
        import captum.attr
    if is_exported(model):
        raise UserError(
            f"{model.backbone.session.path} is an exported network, which has no gradients: ask the "
            "checkpoint that it was exported from (CONFIG CHECKPOINT)"
        )
    own: Any = _without_gradients(eager_copy(model))
    data, _ = whole_picture(own, image, channel_order=channel_order, unit_range=unit_range)
    classes = tuple(own.dataset_meta["classes"])
    with torch.no_grad():
        logits, maps, default = _watch(own, data)
    score, name = _score(target, classes, as_label_map(logits.labels()), placement_of(data))
    path = _chosen(own, layer, default, maps)
    module = own.get_submodule(path)
    at_input = module is _classifier(own)  # of the classifier, what it gets: it gives the logits themselves

    def of_picture(inputs: Tensor) -> Tensor:
        return score(image_logits(own, inputs, data["data_samples"]))[None]

    with torch.enable_grad(), _Leaf(module, at_input):
        try:
            found = METHODS[method](captum.attr, of_picture, module, data["inputs"], at_input)
        except RuntimeError as error:
            if "not have been used in the graph" not in str(error) and "does not require grad" not in str(
                error
            ):
                raise
            raise UserError(
                f"the logit of {name} does not depend on {path}: name a layer on the way to it"
            ) from error
    rows = found.detach().sum(1).relu()[0].to("cpu", torch.float32).numpy()
    top = float(rows.max())
    return AttentionMaps(
        path,
        [],
        (rows / top if top > 0 else rows)[None],
        placement_of(data),
        view=method,
        values="evidence",
        parts=(name,),
    )


def _gradcam(captum: Any, score: Callable, module: nn.Module, inputs: Tensor, at_input: bool) -> Tensor:
    return captum.LayerGradCam(score, module).attribute(inputs, attribute_to_layer_input=at_input)


def _hirescam(captum: Any, score: Callable, module: nn.Module, inputs: Tensor, at_input: bool) -> Tensor:
    by = captum.LayerGradientXActivation(score, module, multiply_by_inputs=True)
    return by.attribute(inputs, attribute_to_layer_input=at_input)


def _integrated(captum: Any, score: Callable, module: nn.Module, inputs: Tensor, at_input: bool) -> Tensor:
    by = captum.LayerIntegratedGradients(score, module, multiply_by_inputs=True)
    return by.attribute(inputs, n_steps=STEPS, internal_batch_size=1, attribute_to_layer_input=at_input)


METHODS: dict[str, Callable[..., Tensor]] = {
    "gradcam": _gradcam,
    "hirescam": _hirescam,
    "integrated-gradients": _integrated,
}


def _score(
    target: str | int | tuple[int, int], classes: Sequence[str], labels: np.ndarray, placement: Placement
) -> tuple[Callable[[CoarseLogits], Tensor], str]:
    """What takes the score from logits, and the name of its class."""
    if isinstance(target, (tuple, list)):
        x, y = target
        try:
            placement.cell((x, y), (1, 1))
        except ValueError as error:
            raise UserError(str(error)) from error
        of_pixel = int(labels[y, x])
        return lambda logits: _logit(logits, of_pixel).at(x, y)[0], classes[of_pixel]
    chosen = _class_of(target, classes)
    mask = torch.from_numpy(labels == chosen)
    if not mask.any():
        present = listed((classes[one] for one in np.unique(labels)), 20)
        raise UserError(
            f"no pixel of the picture is labelled {classes[chosen]}; there are {present}; name one of them, "
            "or a position"
        )
    return (
        lambda logits: _logit(logits, chosen).resized()[0][mask.to(logits.logits.device)].mean(),
        classes[chosen],
    )


def _class_of(target: str | int, classes: Sequence[str]) -> int:
    if isinstance(target, str):
        if target not in classes:
            raise UserError(
                f"there is no class {target!r}; there are {listed(classes, len(classes))}"
                f"{did_you_mean(target, classes)}"
            )
        return classes.index(target)
    if not 0 <= target < len(classes):
        raise UserError(f"class ids go from 0 to {len(classes) - 1}, got {target}")
    return int(target)


def _logit(logits: CoarseLogits, chosen: int) -> CoarseLogits:
    """The logit of one class alone; of a head with one channel, that of class 0 is its negative."""
    values = logits.logits
    if len(values) == 1:
        values = torch.cat([-values, values])
    return replace(logits, logits=values[chosen : chosen + 1], threshold=None)


def _without_gradients(own: nn.Module) -> nn.Module:
    """The same weights, none of which asks for a gradient: what lies before the layer keeps nothing."""
    for part in own.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(parameter.detach(), requires_grad=False)
    return own


def _watch(own: Any, data: dict[str, Any]) -> tuple[CoarseLogits, list[str], str | None]:
    """Pass a picture through a network.

    Returns:
        Its logits; the paths of the modules that give one feature map; the layer to take if none is named.
    """
    paths = {module: path for path, module in own.named_modules() if path}
    # References that keep nothing alive, or all feature maps of the network would be in memory together.
    found: dict[str, weakref.ref[Tensor]] = {}
    stage: list[str] = []

    def note(module: nn.Module, args: tuple, out: Any) -> None:
        path = paths[module]
        if isinstance(out, Tensor) and out.dim() == 4 and len(out) == 1:
            found[path] = weakref.ref(out)
        elif path == "backbone" and isinstance(out, (list, tuple)) and len(out):
            # The outermost module that gives the last map has ended last.
            gave = (one for one, map in found.items() if map() is out[-1] and one.startswith("backbone."))
            stage.extend(list(gave)[-1:])

    handles = [module.register_forward_hook(note) for module in paths]
    try:
        logits = image_logits(own, **data)
    finally:
        for handle in handles:
            handle.remove()
    return logits, list(found), stage[-1] if stage else paths.get(_classifier(own))


def _classifier(own: Any) -> nn.Module | None:
    """What makes the head's logits; None if the head has no such module."""
    heads = own.decode_head
    return getattr(heads[-1] if isinstance(heads, nn.ModuleList) else heads, "conv_seg", None)


def _chosen(own: nn.Module, layer: str | None, default: str | None, maps: Sequence[str]) -> str:
    """The path of the layer to take."""
    path = default if layer is None else layer
    some = listed((one for one in sorted(maps) if one.count(".") < 2), 20)
    if path is None:
        said = (
            f"{type(own).__name__} has neither a last stage nor a classifier to choose as the layer; name one"
        )
        raise UserError(f"{said}: {some}")
    if path in maps:
        return path
    known = path in dict(own.named_modules())
    said = "gives no feature map (1, C, h, w) in inference" if known else "is no module of the network"
    raise UserError(f"layer {path!r} {said}; there are {some}{'' if known else did_you_mean(path, maps)}")


class _Leaf:
    """In its block, gradients begin at a layer's map: what lies before it keeps nothing for them."""

    def __init__(self, module: nn.Module, at_input: bool) -> None:
        self._module, self._at_input = module, at_input

    def __enter__(self) -> None:
        # A copy, because the next operation may work in place, which a leaf does not allow.
        if self._at_input:
            self._handle = self._module.register_forward_pre_hook(
                lambda _, args: (args[0].detach().requires_grad_().clone(), *args[1:])
            )
        else:
            self._handle = self._module.register_forward_hook(
                lambda _, args, out: out.detach().requires_grad_().clone()
            )

    def __exit__(self, *_: Any) -> None:
        self._handle.remove()
