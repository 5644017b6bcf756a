"""What is done to a picture's numbers between its loading and the network, in the words of a file."""

from dataclasses import dataclass
from typing import Any

from mmcv.transforms import Normalize
from mmengine.registry import init_default_scope
from mmseg.models import BaseSegmentor
from mmseg.registry import TRANSFORMS

from danseg.datasets.loading import keeps_stored_bands, keeps_values, loading_step
from danseg.datasets.wrappers import inner_configs
from danseg.engine.channels import input_channels
from danseg.errors import UserError

# Steps of a test pipeline that change no pixel's value, or its place alone.
_PLACES_ALONE = {
    *("Resize", "ResizeToMultiple", "ResizeShortestEdge", "RandomFlip", "Pad"),
    *("LoadAnnotations", "PackSegInputs"),
}


@dataclass(frozen=True)
class Normalisation:
    """How the numbers of a loaded picture become the network's input.

    Attributes:
        bands: how many channels a picture has.
        channels: the order in which the network takes colours, "RGB" or "BGR"; None where there are none.
        mean, std: subtracted, and then divided by, per channel in the network's order; None for nothing.
        step: the pipeline's step that does it, if it is not the data preprocessor.
        fault: why a picture of 8 bits does not stand for the network's input in this way; None if it does.
    """

    bands: int
    channels: str | None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    step: Normalize | None = None
    fault: str | None = None


def normalisation(model: BaseSegmentor) -> Normalisation:
    """What the test pipeline and the data preprocessor of a model do, from its ``cfg``.

    Raises:
        UserError: both normalise, which is not one mean and one deviation.
    """
    init_default_scope(model.cfg.get("default_scope") or "mmseg")
    first, *others = next(inner_configs(model.cfg.test_dataloader.dataset))["pipeline"]
    loader = loading_step([first])
    bands = input_channels(model.cfg.model) or 3
    preprocessor = model.data_preprocessor
    # Under the first name in onedl-mmseg, under the second in mmseg 1.2.2.
    turned = any(getattr(preprocessor, name, False) for name in ("_channel_conversion", "channel_conversion"))
    flips = turned and bands == 3
    mean, std = (_numbers(getattr(preprocessor, name, None)) for name in ("mean", "std"))
    step = _normalising(others)
    if step is not None:
        if mean is not None or flips:
            raise UserError(
                "both the test pipeline (Normalize) and model.data_preprocessor normalise, or change the "
                "order of the colours; an exported file says one mean and one std: leave one of the two out"
            )
        flips = bool(step.to_rgb)
        mean, std = _numbers(step.mean), _numbers(step.std)
    coloured = bands == 3 and not keeps_stored_bands(loader)
    return Normalisation(
        bands=bands,
        channels=("RGB" if flips else "BGR") if coloured else None,
        mean=mean,
        std=std,
        step=step,
        fault=_fault(loader, others),
    )


def _numbers(values: Any) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values.reshape(-1))


def _normalising(steps: list[dict]) -> Normalize | None:
    built = [TRANSFORMS.build(step) for step in steps if step["type"] in ("Normalize", Normalize)]
    return built[0] if built else None


def _fault(loader: Any, steps: list[dict]) -> str | None:
    if keeps_values(loader):
        return f"its pipeline loads pictures as they are stored ({type(loader).__name__}), of any type"
    names = [step["type"] if isinstance(step["type"], str) else step["type"].__name__ for step in steps]
    unknown = [name for name in names if name not in {*_PLACES_ALONE, "Normalize"}]
    return f"its pipeline has the step {unknown[0]}, which may change pixels" if unknown else None
