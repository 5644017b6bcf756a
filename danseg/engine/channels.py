"""How many channels a config's network takes, and whether the normalisation in its config fits them."""

from collections.abc import Iterator
from typing import Any

from danseg.engine.config.config_parts import Part
from danseg.engine.config.signatures import argument
from danseg.errors import UserError


def input_channels(model: dict) -> int | None:
    """The channels of the images that the model of a config takes; None if its backbone does not say.

    That is the backbone's ``in_channels``, from the config or from the class's default.
    """
    from mmseg.registry import MODELS

    backbone = (model.get("module") or model).get("backbone") or {}
    channels = argument(Part("model.backbone", backbone, MODELS), "in_channels")
    return channels if isinstance(channels, int) else None


def wrong_normalisation(model: dict) -> Iterator[str]:
    """What is wrong with ``data_preprocessor``, which has a mean and a deviation a channel, or one for all.

    With three for a grey image, mmseg would make three channels of it.
    """
    from mmseg.registry import MODELS

    model = model.get("module") or model
    preprocessor: Any = model.get("data_preprocessor")
    channels = input_channels(model)
    if not isinstance(preprocessor, dict) or channels is None:
        return
    fits = True
    for name in ("mean", "std"):
        values = preprocessor.get(name)
        count = len(values) if isinstance(values, (list, tuple)) else None
        if count not in (None, 1, channels):
            fits = False
            yield (
                f"model.data_preprocessor.{name} has {count} values, but model.backbone takes {channels} "
                f"channels (model.backbone.in_channels={channels}): give {channels}, or one for all"
            )
    try:
        if fits:
            MODELS.build(preprocessor)
    except (AssertionError, TypeError) as error:
        # One line of mmseg takes 1 or 3 values alone.
        yield (
            f"model.data_preprocessor cannot be built: {error}. For {channels} channels give one mean and "
            "one std for all, or leave both out and put dict(type='Normalize', mean=[...], std=[...], "
            "to_rgb=False) behind the loading in the pipelines"
        )


def check_normalisation(model: dict, where: str = "the config") -> None:
    """Refuse a config whose ``data_preprocessor`` does not fit the channels of its images.

    Raises:
        UserError: what :func:`wrong_normalisation` says.
    """
    for said in wrong_normalisation(model):
        raise UserError(f"{where}: {said}")
