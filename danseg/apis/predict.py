"""Segment images through a config's test pipeline."""

from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
from mmengine.dataset import Compose
from mmseg.models import BaseSegmentor
from torch import Tensor

from danseg.apis.model import tested_dataset
from danseg.apis.pictures import Picture, load, named
from danseg.datasets.loading import described, loading_step, shown, takes_bytes
from danseg.engine.channels import input_channels
from danseg.engine.config.options import without_labels
from danseg.errors import UserError
from danseg.segmentors import predict_labels

# So many sizes of images may wait for a batch to fill, so that a list of many sizes takes little memory.
_WAITING_SIZES = 4


@overload
def predict(
    model: BaseSegmentor,
    image: Picture,
    *,
    channel_order: str = ...,
    unit_range: bool = ...,
    batch_size: int = ...,
) -> np.ndarray: ...


@overload
def predict(
    model: BaseSegmentor,
    image: list[Any] | tuple[Any, ...],
    *,
    channel_order: str = ...,
    unit_range: bool = ...,
    batch_size: int = ...,
) -> list[np.ndarray]: ...


def predict(
    model: BaseSegmentor,
    image: Picture | list[Any] | tuple[Any, ...],
    *,
    channel_order: str = "rgb",
    unit_range: bool = False,
    batch_size: int = 1,
) -> np.ndarray | list[np.ndarray]:
    """Segment an image, or a list of them, through the config's test pipeline and mode (whole or sliding).

    The labels are those of ``test_step``. Neither danseg's ``LeanEncoderDecoder`` nor mmseg's
    ``EncoderDecoder`` makes logits of the whole image at its resolution here. For probabilities and the areas
    of classes there is :class:`danseg.apis.Segmenter`.

    Args:
        model: from :func:`load_model` or :func:`prepare_for_inference`. Several threads may use it at a time.
        image: a path, the bytes of a file, an array, a tensor or a PIL image, as :mod:`danseg.apis.pictures`
            says, or a list or tuple of them.
        channel_order: "rgb" or "bgr": the order of the colours in arrays and tensors.
        unit_range: floating-point arrays and tensors lie in 0..1 and stand for 0..255.
        batch_size: at most so many images of a list go through the network together, if they have the same
            size once the pipeline has resized them. The memory grows with it. With 1, an image has the labels
            that it has alone, to the bit. With more, the network's sums are rounded in another order (by
            about 1e-6 of the largest logit in float32), so labels can differ where two classes nearly tie.

    Returns:
        (H, W) int64 class ids, in the image's own size; for a list, a list of them in its order. A file that
        the pipeline turns by its EXIF orientation, as mmseg's usual one does, has the size of the upright
        picture.

    Raises:
        UserError: a file, its bytes or a PIL image is missing or damaged, has more than the 8 bits that the
            pipeline reads, or has other channels than the model takes. Of a list, the message says which.
        ValueError: an image is none of the kinds above, an array or a tensor is none of an image, an option
            is out of its range, or the model is in training mode.
    """
    return segmented(
        model,
        image,
        predict_labels,
        lambda labels, _: as_label_map(labels),
        channel_order=channel_order,
        unit_range=unit_range,
        batch_size=batch_size,
    )


def read_picture(
    model: BaseSegmentor, image: Picture, *, channel_order: str = "rgb", unit_range: bool = False
) -> np.ndarray:
    """The picture that the model's pipeline loads, to draw on: (H, W, 3) uint8 RGB, as large as its labels.

    Of more than three channels the first three are shown; values of more than 8 bits are stretched.

    Args:
        model, image, channel_order, unit_range: as for :func:`predict`, for a single image.
    """
    loader = InputPipeline(model).loader
    return shown(loader, load(loader, image, channel_order=channel_order, unit_range=unit_range)["img"])


def prepared_batch(
    model: BaseSegmentor, image: Picture, *, channel_order: str = "rgb", unit_range: bool = False
) -> dict:
    """Pass one image, without a label, through the test pipeline; returns a batch for ``test_step``."""
    pipeline = InputPipeline(model)
    loaded = load(pipeline.loader, image, channel_order=channel_order, unit_range=unit_range)
    return batch_of([pipeline.prepared(loaded, image)])


def batch_of(samples: Sequence[dict]) -> dict:
    """Samples of one size, from :meth:`InputPipeline.prepared`, as a batch for ``test_step``."""
    return {key: [sample[key] for sample in samples] for key in ("inputs", "data_samples")}


class InputPipeline:
    """The test pipeline of a model's config without what loads labels, built once for many images.

    Attributes:
        loader: its first step, which loads the image.
    """

    def __init__(self, model: BaseSegmentor) -> None:
        pipeline = tested_dataset(model.cfg)["pipeline"]
        first, *steps = without_labels(pipeline)
        self.loader = loading_step([first])
        self._model = model
        self._steps = Compose(steps)

    def require_contents(self, what: str) -> None:
        """Raise a UserError if the loader takes paths alone, and no content of a file, which ``what`` has."""
        if not takes_bytes(self.loader):
            raise UserError(
                f"the config's pictures are loaded by {described(self.loader)}, which takes paths alone; "
                f"{what} needs a test pipeline that begins with LoadImageFromFile"
            )

    def prepared(self, loaded: dict, image: Picture) -> dict:
        """What the other steps make of an image that was loaded: ``inputs`` (C, h, w) and ``data_samples``.

        Raises:
            UserError, ValueError: it has other channels than the model takes.
        """
        data = self._steps(loaded)
        inputs = data["inputs"]
        first = (
            inputs[0] if isinstance(inputs, list) else inputs
        )  # a list has the views of test-time augmentation
        require_channels(self._model, len(first), self.loader, image)
        return data


def segmented(
    model: BaseSegmentor,
    image: Picture | list[Any] | tuple[Any, ...],
    network: Callable[..., list],
    make: Callable[[Any, Any], Any],
    *,
    channel_order: str,
    unit_range: bool,
    batch_size: int,
    with_pictures: bool = False,
) -> Any:
    """Segment an image or a list of them, those of equal size together.

    Args:
        model, image, channel_order, unit_range, batch_size: as for :func:`predict`.
        network: makes of model, inputs and data samples one output an image, as
            :func:`danseg.segmentors.predict_labels`.
        make: makes the result of an output and of the image's :func:`read_picture`.
        with_pictures: whether to read these pictures; else they are None.

    Returns:
        The image's result, or a list of results.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
    is_list = isinstance(image, (list, tuple))
    images = image if isinstance(image, (list, tuple)) else [image]
    pipeline = InputPipeline(model)
    results: list[Any] = [None] * len(images)
    waiting: dict[tuple, list[tuple[int, np.ndarray | None, dict]]] = {}

    def run(size: tuple) -> None:
        places, pictures, samples = zip(*waiting.pop(size), strict=True)
        data = model.data_preprocessor(batch_of(samples), training=False)
        for place, picture, output in zip(places, pictures, network(model, **data), strict=True):
            results[place] = make(output, picture)

    for place, one in enumerate(images):
        try:
            loaded = load(pipeline.loader, one, channel_order=channel_order, unit_range=unit_range)
            picture = shown(pipeline.loader, loaded["img"]) if with_pictures else None
            sample = pipeline.prepared(loaded, one)
        except (UserError, ValueError) as error:
            if not is_list:
                raise
            kind = UserError if isinstance(error, UserError) else ValueError
            raise kind(f"images[{place}]: {error}") from error
        size = (*sample["inputs"].shape, sample["inputs"].dtype)
        waiting.setdefault(size, []).append((place, picture, sample))
        if len(waiting[size]) == batch_size:
            run(size)
        elif len(waiting) == _WAITING_SIZES:
            run(next(iter(waiting)))
    while waiting:
        run(next(iter(waiting)))
    return results if is_list else results[0]


def as_label_map(labels: Tensor) -> np.ndarray:
    """Labels from a network as (H, W) int64."""
    return labels.cpu().numpy().astype(np.int64)


def require_channels(model: BaseSegmentor, found: int, loader: Any, image: Picture) -> None:
    """Refuse an image with ``found`` channels that the network would not take once they are normalised.

    Raises:
        UserError: a file has the wrong number of channels.
        ValueError: an array has.
    """
    wanted = input_channels(model.cfg.model)
    mean = getattr(model.data_preprocessor, "mean", None)
    if found == 1 and mean is not None:
        found = len(mean)  # a grey image is normalised once for each
    if wanted is None or found == wanted:
        return
    message = (
        f"has {found} channels as {described(loader)} loads it, but the model takes {wanted} (in_channels of "
        "its backbone); give an image like those of training, or load it in the test pipeline as in training "
        "(color_type)"
    )
    if isinstance(image, (np.ndarray, Tensor)):
        raise ValueError(f"image {message}")
    raise UserError(f"{named(image)} {message}")
