"""The data sets that danseg knows by name, one record each; this module needs neither mmseg nor torch.

Preparing, checking and evaluating use the folders, suffixes, ids and commands defined here. A test makes sure
that the configs' bases agree with them. CONTRIBUTING.md says what else a new data set needs.
"""

import dataclasses
import functools
import os
import shlex
from collections.abc import Collection, Mapping

from danseg.errors import UserError
from danseg.label_maps.id_formats import IdFormat, id_format


@dataclasses.dataclass(frozen=True)
class KnownDataset:
    """Where a data set lies, how its files are named, and which ids they hold.

    Args:
        name: the data set's name in tools and messages.
        type: its class in mmseg's registry of data sets, which defines the names and colours of the classes.
        root: the folder that the configs name.
        folders: folder of the images and folder of the labels below ``root``, by split.
        image_suffixes: possible suffixes of image files.
        label_suffix: suffix of the label files that training reads. What comes before it is the same as in
            the image's name.
        label_files: suffixes of label files with the format of their ids; the published ones come first.
            ``tools/evaluate.py`` uses the first suffix for which it finds files.
        output_format: name of the id format in which predictions are written.
        prepare_arguments: arguments of ``tools/prepare_dataset.py`` that prepare the configs' folder.
        name_goes_on: whether a prediction's name may continue after that of its frame, as in
            ``ulm_000000_000019_pred.png``.
        telltale_ids: published ids that name no class, so that no network predicts them. Predictions that
            hold one of them, and no id above the last train id, are assumed to be train ids.
        lists: files below ``root`` that list the frames of each split, a name without suffix a line, where
            the splits lie in the same folders.
    """

    name: str
    type: str
    root: str
    folders: dict[str, tuple[str, str]]
    image_suffixes: tuple[str, ...]
    label_suffix: str
    label_files: tuple[tuple[str, str], ...]
    output_format: str
    prepare_arguments: str
    name_goes_on: bool = False
    telltale_ids: frozenset[int] = frozenset()
    lists: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def metainfo(self) -> dict:
        """``classes`` and ``palette``, which only mmseg's data set, or danseg's own, defines."""
        import mmseg.datasets  # noqa: F401  (registration)
        from mmseg.registry import DATASETS

        return DATASETS.get(self.type).METAINFO

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their train ids."""
        return tuple(name.strip() for name in self.metainfo["classes"])

    def published_format(self) -> IdFormat:
        """The format of the ids in the published labels."""
        return id_format(self.label_files[0][1], len(self.classes))

    def data_prefix(self, split: str) -> dict[str, str]:
        """The folders of a split, in the form that mmseg's data sets expect."""
        images, labels = self.folders[split]
        return dict(img_path=images, seg_map_path=labels)

    def config(self, root: str | os.PathLike, split: str) -> dict:
        """The config from which mmseg builds a split that lies in ``root``, without a pipeline."""
        config = dict(type=self.type, data_root=str(root), data_prefix=self.data_prefix(split))
        return config | (dict(ann_file=self.lists[split]) if self.lists else {})

    def prepare_command(self, root: str | os.PathLike | None = None) -> str:
        """The command that prepares the data set in ``root``, by default the folder that the configs name."""
        arguments = self.prepare_arguments
        if root is not None and str(root) != self.root:
            arguments = f"{arguments.removesuffix(self.root).rstrip()} {shlex.quote(str(root))}"
        return f"python tools/prepare_dataset.py {arguments}"

    def frame_of(self, prediction: str, frames: Collection[str]) -> str | None:
        """The frame to which a prediction's name (without suffix) belongs; None if there is no such frame."""
        if not self.name_goes_on:
            return prediction if prediction in frames else None
        parts = prediction.split("_")
        starts = ("_".join(parts[:count]) for count in range(len(parts), 0, -1))
        return next((start for start in starts if start in frames), None)


_CITYSCAPES = KnownDataset(
    name="cityscapes",
    type="CityscapesDataset",
    root="data/cityscapes",
    folders={split: (f"leftImg8bit/{split}", f"gtFine/{split}") for split in ("train", "val")},
    image_suffixes=("_leftImg8bit.png",),
    label_suffix="_gtFine_labelTrainIds.png",
    label_files=(("_gtFine_labelIds.png", "cityscapes"), ("_gtFine_labelTrainIds.png", "plain")),
    output_format="cityscapes",
    prepare_arguments="cityscapes data/cityscapes",
    name_goes_on=True,
    telltale_ids=frozenset(range(7)),
)
_ADE20K = KnownDataset(
    name="ade20k",
    type="ADE20KDataset",
    root="data/ade/ADEChallengeData2016",
    folders={
        split: (f"images/{folder}", f"annotations/{folder}")
        for split, folder in (("train", "training"), ("val", "validation"))
    },
    image_suffixes=(".jpg",),
    label_suffix=".png",
    label_files=((".png", "ade20k"),),
    output_format="ade20k",
    prepare_arguments="ade20k SOURCE",
    telltale_ids=frozenset({0}),
)
_CAMVID = KnownDataset(
    name="camvid",
    type="CamVidDataset",
    root="data/camvid",
    folders={split: (split, f"{split}annot") for split in ("train", "val", "test")},
    image_suffixes=(".png", ".jpg"),
    label_suffix=".png",
    label_files=((".png", "camvid"),),
    output_format="camvid",
    prepare_arguments="camvid SOURCE",
)
_VOC2012 = KnownDataset(
    name="voc2012",
    type="VOC2012Dataset",
    root="data/VOCdevkit/VOC2012",
    folders={split: ("JPEGImages", "SegmentationClass") for split in ("train", "val")},
    image_suffixes=(".jpg",),
    label_suffix=".png",
    label_files=((".png", "plain"),),
    output_format="plain",
    prepare_arguments="voc2012 SOURCE",
    lists={split: f"ImageSets/Segmentation/{split}.txt" for split in ("train", "val")},
)
_DEMO = dataclasses.replace(_CITYSCAPES, name="demo", root="data/demo", prepare_arguments="demo")

KNOWN_DATASETS = {one.name: one for one in (_CITYSCAPES, _ADE20K, _CAMVID, _VOC2012, _DEMO)}


def command_for(command: str | None, root: str | os.PathLike) -> str | None:
    """A config's ``prepare_command`` for the folder ``root``, where it is that of a known data set."""
    known = (one for one in KNOWN_DATASETS.values() if root and one.prepare_command() == command)
    return next((one.prepare_command(root) for one in known), command)


def known_dataset(name: str) -> KnownDataset:
    """The record of the data set called ``name``.

    Raises:
        UserError: danseg knows no data set of this name.
    """
    if name not in KNOWN_DATASETS:
        raise UserError(f"unknown data set '{name}'; choose one of {', '.join(KNOWN_DATASETS)}")
    return KNOWN_DATASETS[name]
