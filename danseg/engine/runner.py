"""A Runner that also trains in several processes on CPU, protects checkpoints and gives clear errors."""

import logging
import warnings
from pathlib import Path
from typing import Any, ClassVar

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import (
    MMDistributedDataParallel,
    is_model_wrapper,
    revert_sync_batchnorm,
)
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import BaseLoop, Runner
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import DataLoader

from danseg.datasets.metainfo import complete_metainfo
from danseg.datasets.whole_files import read_whole_files
from danseg.datasets.wrappers import infos, named_sets
from danseg.engine.checkpointed_runner import CheckpointedRunner
from danseg.engine.checkpoints.safe_loading import reading_safely
from danseg.engine.config.building import naming_places
from danseg.engine.config.formatted_once import FormattedOnce
from danseg.engine.config.total_batch import base_batch_size, images_a_step
from danseg.engine.data_workers import end_workers, explaining_workers, note_samples
from danseg.engine.determinism import explaining_determinism, prepare_cublas
from danseg.engine.dispensable import go_on_without
from danseg.engine.distributed import decided_on_rank_zero
from danseg.engine.failing_losses import explaining_losses
from danseg.engine.failing_samples import name_failing_samples
from danseg.engine.hooks import (
    MergeBatchNormHook,
    NonFiniteLossHook,
    RandomStateHook,
    StopSignalsHook,
    StoredSettingsHook,
    ValidationScoresHook,
)
from danseg.engine.hooks.stop_signals import stopping
from danseg.engine.out_of_memory import EVALUATE_IN_LESS, explaining_memory, ways_to_train_in_less
from danseg.engine.own_rates import idle_rates
from danseg.engine.received_signals import shelter_workers
from danseg.engine.recompute import recompute, take_over_with_cp
from danseg.engine.sample_seeds import seeded
from danseg.engine.stalled import ProgressHook
from danseg.engine.summary import summary
from danseg.engine.vis_backends import dispensable
from danseg.errors import UserError
from danseg.evaluation.metric import ExactIoUMetric
from danseg.io.files import numbered, whole_file
from danseg.mmseg_import import building_quietly


class DansegRunner(CheckpointedRunner):
    """Runs the training or the evaluation of one config.

    It differs from mmengine's Runner as follows:

    * Several processes on CPU use DistributedDataParallel with plain BatchNorm.
    * Checkpoints are read without running code, loaded strictly when resuming or testing, and written
      atomically, with merged BatchNorm statistics and the random state of every process.
    * Modules named in the config's ``recompute`` keep only their input for the backward pass.
    * A signal stops a training after its iteration, with a checkpoint.
    * A training whose loss is NaN stops. A run that needs more memory than there is says what to change.
    * Two runs that start in a folder within one second have logs of their own.
    * What mmengine logs before the first iteration (environment, config, hooks) goes to the log file. The
      console shows warnings and a summary.
    """

    _timestamps: ClassVar[set[str]] = set()  # of this process's runs

    @classmethod
    def from_cfg(cls, cfg: Config) -> "DansegRunner":
        """Build a runner from a config.

        Raises:
            UserError: a part of the config cannot be built; the message names its place.
        """
        with building_quietly(), naming_places(cfg), explaining_memory(), reading_safely():
            # mmseg says so of a hook that has nothing to draw.
            warnings.filterwarnings("ignore", message="The draw is False")
            # mmengine's wrapper for several processes passes it.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
            return super().from_cfg(FormattedOnce.of(cfg))

    def setup_env(self, env_cfg: dict) -> None:
        super().setup_env(env_cfg)
        self._timestamp = decided_on_rank_zero(self._own_timestamp)

    def _own_timestamp(self) -> str:
        """The second in which this run started, with a number if another run has its name.

        Loggers and the folder of logs are named after it, and those of a process stay in its memory.
        """
        free = (one for one in numbered(self._timestamp) if not Path(self.work_dir, one).exists())
        name = next(one for one in free if one not in self._timestamps)
        self._timestamps.add(name)
        return name

    def set_randomness(
        self, seed: int | None, diff_rank_seed: bool = False, deterministic: bool = False
    ) -> None:
        if deterministic:
            prepare_cublas()
        super().set_randomness(seed, diff_rank_seed, deterministic)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        if next(model.parameters(), None) is None:  # an exported network, of which processes share nothing
            return model.to(get_device())
        if not self.distributed or get_device() != "cpu" or is_model_wrapper(model):
            return super().wrap_model(model_wrapper_cfg, model)
        self.logger.info(
            "Several processes on CPU: SyncBatchNorm becomes BatchNorm, whose running statistics are "
            "merged before every validation and checkpoint."
        )
        unused = self.cfg.get("find_unused_parameters", False)
        return MMDistributedDataParallel(
            module=revert_sync_batchnorm(model), broadcast_buffers=False, find_unused_parameters=unused
        )

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        if isinstance(dataloader, dict) and not dataloader.get("num_workers"):
            # Arguments that DataLoader refuses where there are no workers; a config's bases may set them.
            of_workers = ("persistent_workers", "prefetch_factor", "timeout", "multiprocessing_context")
            dataloader = {key: value for key, value in dataloader.items() if key not in of_workers}
        if isinstance(dataloader, dict) and seed is not None:
            loader = Runner.build_dataloader(seeded(dataloader, seed), seed, diff_rank_seed)
            # Whoever iterates over it draws a number, which would else be one of the network's.
            loader.generator = torch.Generator()
        else:
            loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        shelter_workers(loader)
        read_whole_files(loader.dataset)
        name_failing_samples(loader.dataset)
        note_samples(loader)
        complete_metainfo(loader.dataset)
        return loader

    def build_val_loop(self, loop: Any) -> BaseLoop:
        loop = _evaluating(super().build_val_loop(loop))
        run = self._random_state_hook.aside()(loop.run)

        def run_merged() -> Any:
            with self._merge_hook.merged(self.model):
                return run()

        loop.run = run_merged
        return loop

    def build_test_loop(self, loop: Any) -> BaseLoop:
        return _evaluating(super().build_test_loop(loop))

    def train(self) -> nn.Module:
        names = list(self.cfg.get("recompute") or ())
        others = self.cfg.get("activation_checkpointing") or ()
        others = [others] if isinstance(others, str) else list(others)
        self.cfg.activation_checkpointing = None
        others += take_over_with_cp(self.network)
        if others:
            self.logger.info(
                f"{', '.join(others)}: recomputed as with recompute=, because activation_checkpointing and "
                "with_cp let batch norms count every batch twice"
            )
        names += others
        recompute(self.network, names)
        if names:
            self.logger.info(f"Only the input is kept for the backward pass of {', '.join(names)}")
        # Loops, loaders, metrics, optimiser and schedules are built only now.
        with (
            warnings.catch_warnings(),
            naming_places(self.cfg),
            explaining_memory(*ways_to_train_in_less(self.cfg)),
            explaining_determinism(),
            explaining_losses(self.network),
            stopping(self),
            explaining_workers(),
            reading_safely(),
        ):
            # In float16 the first steps may be left out, until the loss's scale fits.
            warnings.filterwarnings("ignore", message=r"Detected call of `scheduler\.step\(\)` before")
            trained = super().train()
        for loop in (self._train_loop, self._val_loop):
            end_workers(loop)
        return trained

    def val(self) -> dict:
        with naming_places(self.cfg):
            return super().val()

    def test(self) -> dict:
        with naming_places(self.cfg):
            scores = super().test()
        end_workers(self._test_loop)
        return scores

    def build_optim_wrapper(self, optim_wrapper: Any) -> OptimWrapper | OptimWrapperDict:
        """Build the optimiser, and say which rates of the config act on nothing.

        Raises:
            UserError: a rate is for a module that is not there, or the constructor has none for this network.
        """
        for said in idle_rates(self.network, optim_wrapper):
            self.logger.warning(said)
        try:
            return super().build_optim_wrapper(optim_wrapper)
        except NotImplementedError as error:  # mmseg's decay of rates over layers, without a word
            raise UserError(
                f"optim_wrapper.constructor={optim_wrapper['constructor']!r} has no rates for a "
                f"{type(self.network.backbone).__name__}: write them as paramwise_cfg.custom_keys"
            ) from error

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Scale the rates of every optimiser to the images of one of its steps, linearly.

        mmengine leaves out the batches that ``accumulative_counts`` gathers for a step.
        """
        base = base_batch_size(auto_scale_lr)
        if base is None or not auto_scale_lr or not auto_scale_lr.get("enable"):
            return
        several = isinstance(optim_wrapper, OptimWrapperDict)
        for wrapper in optim_wrapper.values() if several else [optim_wrapper]:
            ratio = images_a_step(self, wrapper) / base
            for group in wrapper.optimizer.param_groups:
                group["lr"] *= ratio

    def register_hooks(self, default_hooks: dict | None = None, custom_hooks: list | None = None) -> None:
        self._random_state_hook, self._merge_hook = RandomStateHook(), MergeBatchNormHook()
        sound: list[Hook] = [
            ProgressHook(),
            self._merge_hook,
            NonFiniteLossHook(),
            self._random_state_hook,
            ValidationScoresHook(),
            StoredSettingsHook(),
        ]
        super().register_hooks(default_hooks, [*sound, *(custom_hooks or [])])
        self.register_hook(StopSignalsHook())  # last: it may leave the iteration

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build mmengine's logger. Its file gets everything; its console shows only warnings at first."""
        logger = super().build_logger(*args, **kwargs)
        self._console = next(h for h in logger.handlers if type(h) is logging.StreamHandler)
        self._console_level = self._console.level
        self._console.setLevel(max(self._console_level, logging.WARNING))
        for handler in logger.handlers:
            go_on_without(handler)
        return logger

    def load_or_resume(self) -> None:
        """Load the checkpoint that the config names, then log a summary, as the loop starts next."""
        super().load_or_resume()
        self._console.setLevel(self._console_level)
        self.logger.info(summary(self))

    def build_visualizer(self, visualizer: Any = None) -> Visualizer:
        """Build a visualiser for this run alone; mmengine shares visualisers of one name within a process.

        The run goes on if what it shows cannot be written.
        """
        if visualizer is None:
            visualizer = {"type": "Visualizer", "vis_backends": [{"type": "LocalVisBackend"}]}
        if isinstance(visualizer, dict):
            name = f"{visualizer.get('name', '')}_{self.experiment_name}"
            visualizer = {**dispensable(visualizer), "name": name}
        return super().build_visualizer(visualizer)

    @master_only
    def dump_config(self) -> None:
        """Write the config to the work dir, whole."""
        # Not under the name of a checkpoint that carries it, which may lie there.
        name = Path(self.cfg.filename or self.timestamp).stem
        with whole_file(Path(self.work_dir, f"{name}.py")) as part:
            part.write_text(self.cfg.pretty_text, encoding="utf-8")


def _evaluating(loop: BaseLoop) -> BaseLoop:
    """Let the metrics of a loop over several data sets score each of them, too, and explain its memory."""
    sets = {
        name: {(info["img_path"], info.get("seg_map_path", "")) for info in infos(part)}
        for name, part in named_sets(loop.dataloader.dataset).items()
    }
    for metric in getattr(getattr(loop, "evaluator", None), "metrics", ()):
        if isinstance(metric, ExactIoUMetric):
            metric.sets = sets
    loop.run = explaining_determinism()(explaining_memory(*EVALUATE_IN_LESS)(explaining_workers()(loop.run)))
    return loop
