"""Load an image and its label as one scaled, cropped and perhaps mirrored training sample."""

import math
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from danseg.datasets.frame_cache import find_cache
from danseg.datasets.storage import stored_bytes
from danseg.io.image_headers import require_upright
from danseg.io.images import decode_image_rows
from danseg.label_maps.id_formats import loaded_ids
from danseg.label_maps.label_png import decode_label_map

_ATTEMPTS = 10  # as in mmseg: so often a crop with one dominant class is drawn again, then it is accepted


@TRANSFORMS.register_module()
class LoadTrainingCrop(BaseTransform):
    """mmseg's LoadImageFromFile, LoadAnnotations, RandomResize, RandomCrop and RandomFlip in one.

    The label is decoded first, because the label and the random numbers determine the crop. Then only the
    part of the image inside the crop is resized, and the rows below it are not decoded. Random numbers are
    drawn in mmseg's order, so the same seed gives the same crops.

    Labels equal mmseg's. Images differ by one level at most, because the two round differently: mmseg calls
    OpenCV's ``resize`` on the whole image, this class calls ``warpAffine``, which can start between two
    pixels. Before OpenCV 5, ``warpAffine`` works in steps of 1/32 pixel, and photographs differ by up to two
    levels. Unlike mmseg, this class raises an error if image and label differ in size, if an EXIF tag would
    turn the image but not its label, and if the image has more than 8 bits a channel.

    Images are read as 8-bit colours (:mod:`danseg.io.images`). For a network of another number of channels
    use mmseg's five transforms, with the ``color_type`` of its images.

    Frames that ``tools/prepare_dataset.py --cache`` has unpacked are read from the cache
    (:mod:`danseg.datasets.frame_cache`).

    Required keys: ``img_path`` and ``seg_map_path``. Optional keys: ``reduce_zero_label`` and ``label_map``.
    Added keys: those of the five transforms, among them ``img`` (uint8, BGR), ``gt_seg_map`` (uint8),
    ``ori_shape``, ``img_shape``, ``scale_factor``, ``flip`` and ``flip_direction``.

    Args:
        scale: width and height in pixels. The image is resized to fit into a random multiple of them; its
            aspect ratio is kept. None: multiples of each image's own size.
        ratio_range: smallest and largest multiple.
        crop_size: height and width of the crop, or one number for both. An image smaller than the crop stays
            smaller; the data preprocessor pads it.
        cat_max_ratio: largest share of the labelled pixels for one class. A crop that reaches it is drawn
            again, up to ten times; 1 accepts every crop.
        flip_prob: probability of mirroring left to right.
        ignore_index: label of pixels that belong to no class.
        cache: whether to use a prepared cache if there is one.
        backend_args: arguments of mmengine's file reading, for files that are not on a local disk.
    """

    def __init__(
        self,
        scale: tuple[int, int] | None,
        crop_size: int | tuple[int, int],
        ratio_range: tuple[float, float] = (0.5, 2.0),
        cat_max_ratio: float = 0.75,
        flip_prob: float = 0.5,
        ignore_index: int = 255,
        cache: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        self.scale = None if scale is None else _pair("scale", scale, "width and height in pixels", int)
        crop_size = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
        self.crop_size = _pair("crop_size", crop_size, "height and width in pixels", int)
        self.ratio_range = _pair("ratio_range", ratio_range, "the least and the greatest ratio", (int, float))
        if self.ratio_range[0] > self.ratio_range[1]:
            raise ValueError(f"ratio_range={ratio_range!r}: the least ratio is greater than the greatest")
        if not 0 < cat_max_ratio <= 1:
            raise ValueError(f"cat_max_ratio={cat_max_ratio!r}: give a share above 0, up to 1 (every crop)")
        if not 0 <= flip_prob <= 1:
            raise ValueError(f"flip_prob={flip_prob!r}: give a probability from 0 to 1")
        self.cat_max_ratio = cat_max_ratio
        self.flip_prob = flip_prob
        self.ignore_index = ignore_index
        self.cache = cache and backend_args is None
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Load and crop one sample.

        Raises:
            ValueError: an image is refused, for the reasons above or in :mod:`danseg.io.images`.
            UserError: a label file does not hold 8-bit ids (:mod:`danseg.label_maps.label_png`).
        """
        label = self._read_label(results["seg_map_path"])
        ids = loaded_ids(results.get("reduce_zero_label", False), results.get("label_map")).astype(np.uint8)
        size = label.shape
        scale = self._draw_scale(size)
        width, height = mmcv.rescale_size(size[::-1], scale)
        rows, columns = _nearest(height, size[0]), _nearest(width, size[1])

        def label_at(y: int, x: int) -> np.ndarray:
            crop_height, crop_width = self.crop_size
            return label[rows[y : y + crop_height]].take(columns[x : x + crop_width], axis=1)

        y, x = self._draw_corner(height, width)
        label_crop = label_at(y, x)
        if self.cat_max_ratio < 1:
            for _ in range(_ATTEMPTS):
                if self._is_varied(label_crop, ids):
                    break
                y, x = self._draw_corner(height, width)
                label_crop = label_at(y, x)
        # Drawn the way mmseg draws it, so that the random numbers after it are the same, too.
        direction = np.random.choice(np.array(["horizontal", None]), p=[self.flip_prob, 1 - self.flip_prob])
        if direction:
            label_crop = cv2.flip(label_crop, 1)
        image = self._image_at(
            results["img_path"], size, (height, width), (y, x), label_crop.shape, mirrored=bool(direction)
        )
        results.update(
            img=image,
            gt_seg_map=cv2.LUT(label_crop, ids),
            img_shape=image.shape[:2],
            ori_shape=size,
            scale=scale,
            scale_factor=(width / size[1], height / size[0]),
            keep_ratio=True,
            flip=bool(direction),
            flip_direction=direction,
        )
        results.setdefault("seg_fields", []).append("gt_seg_map")
        return results

    def _read_label(self, path: str) -> np.ndarray:
        label = self._cached(path)
        return decode_label_map(stored_bytes(path, self.backend_args), path) if label is None else label

    def _read_rows(self, path: str, top: int, bottom: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Rows of an image, RGB, and the size of the whole image."""
        image = self._cached(path)
        if image is None:
            data = stored_bytes(path, self.backend_args)
            require_upright(data)
            return decode_image_rows(data, top, bottom)
        return image[top:bottom], image.shape[:2]

    def _cached(self, path: str) -> np.ndarray | None:
        cache = find_cache(path) if self.cache else None
        return cache.load(path) if cache else None

    def _draw_scale(self, size: tuple[int, int]) -> tuple[int, int]:
        """Draw the width and height for an image of a height and width."""
        least, greatest = self.ratio_range
        ratio = np.random.random_sample() * (greatest - least) + least
        width, height = self.scale or size[::-1]
        return max(1, int(width * ratio)), max(1, int(height * ratio))

    def _draw_corner(self, height: int, width: int) -> tuple[int, int]:
        """Draw the top and left position of a crop in a resized image."""
        y = np.random.randint(0, max(height - self.crop_size[0], 0) + 1)
        x = np.random.randint(0, max(width - self.crop_size[1], 0) + 1)
        return y, x

    def _is_varied(self, label: np.ndarray, ids: np.ndarray) -> bool:
        """Whether the crop has at least two classes, none of which dominates."""
        raw = cv2.calcHist([label], [0], None, [256], [0, 256]).ravel()
        counts = np.bincount(ids, weights=raw, minlength=256)
        counts[self.ignore_index] = 0
        return np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < self.cat_max_ratio

    def _image_at(
        self,
        path: str,
        size: tuple[int, int],
        resized: tuple[int, int],
        corner: tuple[int, int],
        shape: tuple[int, int],
        mirrored: bool,
    ) -> np.ndarray:
        """The crop of ``shape`` at ``corner`` of the image resized from ``size`` to ``resized``; BGR."""
        (top, bottom, step_y, first_y), (left, right, step_x, first_x) = (
            _source(*axis) for axis in zip(size, resized, corner, shape, strict=True)
        )
        image, found = self._read_rows(path, top, bottom)
        if found != size:
            raise ValueError(
                f"the image has {found[0]}x{found[1]} pixels, its label {size[0]}x{size[1]}: put the right "
                "label beside it"
            )
        if mirrored:
            step_x, first_x = -step_x, first_x + (shape[1] - 1) * step_x
        crop = cv2.warpAffine(
            image[:, left:right],
            np.array([[step_x, 0, first_x], [0, step_y, first_y]]),
            shape[::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return cv2.cvtColor(crop, cv2.COLOR_RGB2BGR, dst=crop)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(scale={self.scale}, crop_size={self.crop_size}, "
            f"ratio_range={self.ratio_range}, cat_max_ratio={self.cat_max_ratio}, "
            f"flip_prob={self.flip_prob}, ignore_index={self.ignore_index}, cache={self.cache}, "
            f"backend_args={self.backend_args})"
        )


def _pair(name: str, value: Any, meaning: str, kind: Any) -> tuple:
    if (
        not isinstance(value, (tuple, list))
        or len(value) != 2
        or not all(isinstance(one, kind) and one > 0 for one in value)
    ):
        raise ValueError(f"{name}={value!r}: give {meaning}, two numbers above 0")
    return tuple(value)


def _nearest(resized: int, size: int) -> np.ndarray:
    """The source index, below ``size``, of each of ``resized`` positions, as in OpenCV's INTER_NEAREST."""
    step = 1 / (resized / size)
    return np.minimum((np.arange(resized) * step).astype(np.intp), size - 1)


def _source(size: int, resized: int, start: int, length: int) -> tuple[int, int, float, float]:
    """Source positions of ``length`` positions of a resized axis, from ``start``, with pixel centres aligned.

    Returns:
        The first source position, the end of the source positions (exclusive), the step between two samples,
        and the place of the first sample relative to the first source position.
    """
    step = 1 / (resized / size)
    place = (start + 0.5) * step - 0.5
    first = max(math.floor(place), 0)
    end = min(math.floor(place + (length - 1) * step) + 2, size)
    return first, end, step, place - first
