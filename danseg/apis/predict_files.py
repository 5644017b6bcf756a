"""Predict files, folders, videos and cameras from the names that a command line has, into a folder."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_rank
from mmseg.models import BaseSegmentor

from danseg.apis.attention_maps import attention_maps, require_maps
from danseg.apis.batches import Batches
from danseg.apis.finished import Record, settings_of
from danseg.apis.large import predict_large
from danseg.apis.many import BatchJob, predict_one_by_one
from danseg.apis.model import load_model
from danseg.apis.outputs import Kinds, Writer, asked_kinds
from danseg.apis.predict import InputPipeline, predict, read_picture
from danseg.apis.preparation import ready_for_inference
from danseg.apis.sources import Found, Source
from danseg.apis.tally import Progress, Tally, together
from danseg.apis.tta import augmented_config, augmented_model
from danseg.engine.distributed import decided_on_rank_zero, on_every_rank
from danseg.io.files import make_folder
from danseg.visualization import attention_figure, save_figure, segment_centres

#: Positions whose attention is shown if none is asked for.
AUTOMATIC_POSITIONS = 3


@dataclass(frozen=True)
class Options:
    """How files are predicted; the options of ``tools/predict.py``, which says what they mean."""

    labels: Sequence[str] | None = None
    overlay: bool = False
    probabilities: bool = False
    attention: Sequence[tuple[int, int]] | None = None  # positions; empty for automatic ones
    tiles: int | None = None
    tta: bool = False
    precision: str = "float32"
    compile: bool = False
    batch_size: int | None = None
    workers: int | None = None
    overwrite: bool = False
    device: str | None = None
    remedies: Sequence[str] = field(default=())  # what to change if memory does not suffice

    def kinds(self) -> Kinds:
        """What is written."""
        if self.tiles is not None:
            return asked_kinds(["geotiff"], False, False)
        return asked_kinds(self.labels, self.overlay, self.probabilities)


def predict_files(
    config: Config, checkpoint: str, found: Found, out: str | Path, options: Options
) -> tuple[Tally, int]:
    """Predict what is not finished; of a run of several processes each predicts a share.

    Args:
        config: the model's config.
        checkpoint: file of the weights, or their address.
        found: what to predict.
        out: the output folder, which is made.
        options: how.

    Returns:
        What became of all, the same in all processes, and how many were finished before.

    Raises:
        UserError: the model cannot be loaded, the folder cannot be written to or has predictions of another
            model, or there is too little room or memory.
    """
    sources, kinds = found.sources, options.kinds()
    model, settings = on_every_rank(lambda: _loaded(config, checkpoint, options))
    pipeline = InputPipeline(model)
    writer = on_every_rank(
        lambda: Writer(model, pipeline.loader, Path(out), {*kinds.pictures, *kinds.videos})
    )
    out = on_every_rank(lambda: make_folder(out))
    record = Record(out, settings, get_rank())
    maps = [] if options.attention is None else [f"attention {list(options.attention) or 'chosen'}"]

    def unfinished() -> list[Source]:
        record.read()
        record.clear_parts(sources)
        if options.overwrite:
            record.forget(sources)
            return sources
        record.require_same_settings(sources)
        return [one for one in sources if not record.finished(one, (*kinds.of(one), *maps))]

    todo = decided_on_rank_zero(unfinished)
    if todo:
        on_every_rank(record.begin)
    own_bar = options.tiles is not None and len(todo) == 1  # of the tiles
    progress = Progress(record, len(todo), shown=get_rank() == 0 and not own_bar)
    if options.tiles is not None:
        tile = options.tiles

        def by_tiles(source: Source) -> dict[str, list[Path]]:
            path = Path(out, f"{source.name}_labels.tif")
            make_folder(path.parent)
            predict_large(
                model, source.path, path, tile=tile, overlap=tile // 4, overwrite=True, progress=own_bar
            )
            return dict(geotiff=[path])

        predict_one_by_one(progress, todo, by_tiles)
    elif options.attention is not None:
        positions, kind = options.attention, maps[0]

        def with_maps(source: Source) -> dict[str, list[Path]]:
            return _with_attention(model, source, writer, kinds.pictures, positions, kind)

        predict_one_by_one(progress, todo, with_maps)
    else:
        batches = Batches(
            augmented_model(model) if options.tta else model,
            pipeline,
            size=options.batch_size,
            probabilities=options.probabilities,
            remedies=options.remedies,
        )
        job = BatchJob(batches, writer, kinds, progress, options.workers)
        job.carry_out(sources, {source.name for source in todo})
    return together(progress.tally), len(sources) - len(todo)


def _loaded(config: Config, checkpoint: str, options: Options) -> tuple[BaseSegmentor, dict[str, str]]:
    """The prepared model, and the settings that decide about its predictions."""
    config = augmented_config(config) if options.tta else config
    model = load_model(config, checkpoint, options.device)
    if options.attention is not None:
        require_maps(model)
    chosen = dict(precision=options.precision, tta=options.tta, tiles=options.tiles)
    settings = settings_of(model, **chosen)
    return ready_for_inference(model, precision=options.precision, compile=options.compile), settings


def _with_attention(
    model: Any,
    source: Source,
    writer: Writer,
    kinds: Sequence[str],
    positions: Sequence[tuple[int, int]],
    kind: str,
) -> dict[str, list[Path]]:
    """Predict an image and draw its attention; returns the files by kind, the maps as ``kind``."""
    image, labels = read_picture(model, source.path), predict(model, source.path)
    # Before anything is written: not every network has maps.
    maps = attention_maps(model, source.path, positions or segment_centres(labels, AUTOMATIC_POSITIONS))
    files = writer(source.name, labels, kinds, source=source.path, picture=image)
    files[kind] = []
    for module, one in maps.items():
        figure = attention_figure(image, one, labels=labels, classes=model.dataset_meta["classes"])
        files[kind].append(save_figure(figure, writer.out / f"{source.name}_attention_{module}.png"))
    return files
