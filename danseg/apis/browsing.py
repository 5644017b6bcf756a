"""Browse a config's data: a contact sheet of samples as the network sees them, and the classes' counts."""

from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from danseg.apis.first_samples import first_samples
from danseg.datasets.metainfo import built_metainfo
from danseg.engine.config.agreement import check_agreement
from danseg.engine.data import check_split
from danseg.errors import UserError
from danseg.visualization.contact_sheet import contact_sheet, shrunk
from danseg.visualization.page import save_figure


def browse(
    config: Config, out: str | Path, *, split: str = "train", count: int = 16, seed: int | None = None
) -> Iterator[str]:
    """Check a split, draw its first samples into a PNG, and say what it holds.

    Args:
        config: the config as it was read.
        out: the PNG; an existing file is replaced.
        split: "train", "val" or "test".
        count: how many samples, up to :data:`danseg.visualization.contact_sheet.MOST`.
        seed: as of ``tools/train.py --seed``. Default: the config's, or else 0.

    Yields:
        What to print, as soon as it is known: the check's report, the classes' counts, the sheet's path.

    Raises:
        UserError: the config disagrees with itself, the split is missing or does not pass its check, it has
            no sample to draw, the seed is none, or the sheet cannot be written.
    """
    warnings = check_agreement(config, "test" if split == "test" else "train")
    if seed is None:
        seed = (config.get("randomness") or {}).get("seed")
    seed = 0 if seed is None else seed
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed {seed}: give a whole number from 0 to {2**32 - 1}")
    yield from (f"warning: {warning}" for warning in warnings)
    report = check_split(config, split)
    yield str(report)
    if report.labels:
        yield report.class_table()
    samples = [
        shrunk(Path(one.path).name, one.image, one.labels)
        for one in first_samples(config, split, count, seed)
    ]
    if not samples:
        raise UserError(
            f"{split}_dataloader gives no batch of its {report.images} images; lower its batch_size, or set "
            "drop_last=False"
        )
    meta = built_metainfo(config[f"{split}_dataloader"]["dataset"])
    first = "first sample" if len(samples) == 1 else f"first {len(samples)} samples"
    figure = contact_sheet(
        samples,
        classes=meta["classes"],
        palette=meta["palette"],
        heading=f"{split}: the {first} of {report.dataset}, seed {seed}",
    )
    yield f"sheet: {save_figure(figure, out)}"
