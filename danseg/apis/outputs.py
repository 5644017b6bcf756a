"""What is written of a prediction: labels in several forms, the picture with its classes, probabilities."""

import functools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmseg.models import BaseSegmentor

from danseg.apis.geotiff import created_geotiff, require_place
from danseg.apis.raster_rows import failing_as, import_rasterio, opened
from danseg.apis.sources import PICTURE, Source
from danseg.datasets.loading import turned_by
from danseg.errors import UserError
from danseg.io.files import make_folder, whole_file
from danseg.io.image_headers import mapped
from danseg.io.images import save_image
from danseg.label_maps.id_formats import IdFormat, chosen_format
from danseg.label_maps.label_png import write_label_map
from danseg.ops.upsampled_argmax import label_dtype
from danseg.visualization import overlay

#: The end of a file's name by what it holds.
LABELS = dict(trainIds="labels.png", labelIds="labelIds.png", palette="palette.png", geotiff="labels.tif")
ENDS = dict(LABELS, overlay="overlay.png", probabilities="probabilities.npy")


class Kinds(NamedTuple):
    """What is written, as keys of ``ENDS``.

    Attributes:
        pictures: of each picture.
        videos: of each video or camera.
    """

    pictures: tuple[str, ...]
    videos: tuple[str, ...]

    def of(self, source: Source) -> tuple[str, ...]:
        """What is written of a source."""
        return self.pictures if source.kind == PICTURE else self.videos


def asked_kinds(labels: Sequence[str] | None, overlay: bool, probabilities: bool) -> Kinds:
    """The kinds that are asked for; if none is, labels and overlays of pictures, and overlays of videos.

    Args:
        labels: their forms; None for no labels, empty for the usual form.
        overlay, probabilities: whether these are asked for.
    """
    forms = () if labels is None else tuple(labels) or ("trainIds",)
    asked = (*forms, *("overlay",) * overlay, *("probabilities",) * probabilities)
    return Kinds(asked or ("trainIds", "overlay"), asked or ("overlay",))


def published_ids(config: Config, classes: int, label_map: dict[int, int] | None) -> IdFormat:
    """The ids that a data set publishes, in the format that the config's evaluation writes.

    Raises:
        UserError: it names none but the trainIds.
    """
    evaluators = config.get("test_evaluator") or {}
    evaluators = evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]
    name = next((one["output_format"] for one in evaluators if one.get("output_format")), "plain")
    if name == "plain":
        raise UserError(
            "--labels labelIds: the config's test_evaluator has no output_format but 'plain', so the data "
            "set publishes no other ids than the trainIds; write --labels trainIds"
        )
    return chosen_format(name, classes, label_map)


class Writer:
    """Writes the outputs of pictures; several threads may call it.

    Args:
        model: tells the classes, their colours and ids.
        loader: the pipeline's step that loads pictures.
        out: the output folder.
        kinds: what will be written.

    Raises:
        UserError: a kind that the data set does not have, or that needs a package that is not installed.
    """

    def __init__(self, model: BaseSegmentor, loader: Any, out: Path, kinds: Collection[str]) -> None:
        self.out = out
        self.palette = model.dataset_meta["palette"]
        self._loader = loader
        self._folder = functools.cache(make_folder)
        classes = len(model.dataset_meta["classes"])
        if "labelIds" in kinds:
            self._ids = published_ids(model.cfg, classes, model.dataset_meta.get("label_map"))
        if "geotiff" in kinds:
            import_rasterio()
            self._dtype = label_dtype(classes)

    def __call__(
        self,
        name: str,
        labels: np.ndarray,
        kinds: Sequence[str],
        *,
        source: str | None = None,
        picture: np.ndarray | None = None,
        probabilities: np.ndarray | None = None,
    ) -> dict[str, list[Path]]:
        """Write all outputs of one picture.

        Args:
            name: path of the outputs below the folder, without their ends.
            labels: (H, W) class ids.
            kinds: what to write.
            source: the picture's file, for a GeoTIFF.
            picture: (H, W, 3) uint8 RGB, for an overlay.
            probabilities: (C, H, W), if they are written.

        Returns:
            The files by kind.

        Raises:
            UserError: one cannot be written.
        """
        written = {}
        for kind in kinds:
            path = self.out / f"{name}_{ENDS[kind]}"
            self._folder(path.parent)
            if kind == "trainIds":
                write_label_map(path, labels)
            elif kind == "labelIds":
                write_label_map(path, self._ids.encode(labels))
            elif kind == "palette":
                write_label_map(path, labels, self.palette)
            elif kind == "geotiff":
                self._write_geotiff(path, labels, source)
            elif kind == "overlay":
                assert picture is not None
                save_image(overlay(picture, labels, self.palette), path)
            else:
                assert probabilities is not None
                with whole_file(path) as part, open(part, "wb") as file:
                    np.save(file, probabilities)
            written[kind] = [path]
        return written

    def _write_geotiff(self, path: Path, labels: np.ndarray, source: str | None) -> None:
        if source is None:
            raise UserError(f"{path}: a frame lies on no map; write --labels trainIds or palette of a video")
        with opened(Path(source)) as image:
            with failing_as(f"image {source} cannot be read"), mapped(source) as data:
                require_place(image, turned_by(self._loader, data) != 1, Path(source))
            with created_geotiff(path, image, labels.shape, self._dtype, overwrite=True) as write:
                write(labels.astype(str(self._dtype).removeprefix("torch.")), 0)
