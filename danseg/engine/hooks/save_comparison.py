"""The hook behind ``tools/test.py --show-dir``: one comparison picture per tested frame."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample

from danseg.datasets.loading import load_shown, loading_step
from danseg.datasets.metainfo import metainfo_of
from danseg.datasets.output_names import output_names
from danseg.datasets.wrappers import inner_datasets
from danseg.io.files import make_folder


@HOOKS.register_module()
class SaveComparison(Hook):
    """Writes ``<name>.png`` (image, truth, prediction) for every tested frame.

    Without a label, the picture shows image and prediction only. In a distributed test, each process writes
    the frames that it tests. A picture of an earlier test is replaced. Names are those of
    :func:`danseg.datasets.output_names.output_names`.

    Args:
        out_dir: folder for the pictures; it is made if it does not exist.

    Raises:
        UserError: the folder cannot be made or written to, or two images have the same name.
    """

    priority = "LOW"

    def __init__(self, out_dir: str) -> None:
        self.out_dir = make_folder(out_dir, "the folder for pictures")
        self._names: dict[str, str] = {}

    def before_test(self, runner: Runner) -> None:
        """Name the pictures, no two of them alike."""
        self._names = output_names(runner.test_loop.dataloader.dataset)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[SegDataSample] | None = None,
    ) -> None:
        """Draw the frames of one batch."""
        # Not above: matplotlib takes half a second to import, and few runs draw.
        from danseg.visualization.comparison_figure import comparison_figure
        from danseg.visualization.page import save_figure

        dataset = runner.test_loop.dataloader.dataset
        meta = metainfo_of(dataset)
        loader = loading_step(next(inner_datasets(dataset)).pipeline.transforms)
        for sample in outputs or ():
            path = Path(sample.img_path)
            truth = sample.gt_sem_seg.data[0].cpu().numpy() if "gt_sem_seg" in sample else None
            figure = comparison_figure(
                load_shown(loader, path),
                truth,
                # With a single channel, mmseg's labels 0 and 1 are floating-point numbers.
                sample.pred_sem_seg.data[0].long().cpu().numpy(),
                classes=meta["classes"],
                palette=meta["palette"],
                name=path.stem,
            )
            target = self.out_dir / f"{self._names.get(sample.img_path, path.stem)}.png"
            save_figure(figure, make_folder(target.parent) / target.name)
