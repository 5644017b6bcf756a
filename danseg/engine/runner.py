"""mmengine's Runner, made to hold on CPU, in several processes, and when something goes wrong."""

import contextlib
import copy
import os
from pickle import UnpicklingError
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel, is_model_wrapper, revert_sync_batchnorm
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import DataLoader

from danseg.engine.checkpoint import describe_mismatch, load_state, publish_file, read_checkpoint, weights_of
from danseg.engine.data import name_failing_samples
from danseg.engine.distributed import average_batch_norm
from danseg.engine.hooks import MergeBatchNormHook, NonFiniteLossHook, advice_on_divergence, non_finite_names
from danseg.engine.random_state import RandomStateHook
from danseg.engine.recompute import recompute
from danseg.errors import UserError


class DansegRunner(Runner):
    """Runs trainings and evaluations of one config.

    Differs from mmengine's Runner in this: processes on CPU get DistributedDataParallel and plain
    BatchNorm; checkpoints are read safely, loaded strictly and written atomically, with merged
    BatchNorm statistics and every process's random state; the config's ``CheckpointHook`` is taken
    as :class:`~danseg.engine.hooks.SafeCheckpointHook`; the modules in the config's ``recompute`` keep
    only their input for the backward pass; a training with a NaN loss stops.
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> "DansegRunner":
        """Build a runner from a config; a name or an argument that does not exist is a UserError."""
        try:
            return super().from_cfg(cfg)
        except KeyError as error:
            if "registry" in str(error):
                raise UserError(f"config {cfg.filename}: {error.args[0]}") from error
            raise
        except TypeError as error:
            if "unexpected keyword argument" in str(error) or "required positional argument" in str(error):
                raise UserError(f"config {cfg.filename}: {error}") from error
            raise

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
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
    def build_dataloader(dataloader: DataLoader | dict, *args: Any, **kwargs: Any) -> DataLoader:
        loader = Runner.build_dataloader(dataloader, *args, **kwargs)
        name_failing_samples(loader.dataset)
        return loader

    def train(self) -> nn.Module:
        names = self.cfg.get("recompute") or ()
        recompute(self.model.module if is_model_wrapper(self.model) else self.model, names)
        if names:
            self.logger.info(f"Kept for the backward pass of {', '.join(names)}: the input alone")
        return super().train()

    def register_hooks(self, default_hooks: dict | None = None, custom_hooks: list | None = None) -> None:
        default_hooks = copy.deepcopy(default_hooks) or {}
        default_hooks.setdefault("checkpoint", {"type": "CheckpointHook"})
        checkpoint = default_hooks["checkpoint"]
        if isinstance(checkpoint, dict) and checkpoint.get("type") == "CheckpointHook":
            checkpoint["type"] = "SafeCheckpointHook"
        self._random_state_hook = RandomStateHook()
        sound: list[Hook] = [MergeBatchNormHook(), NonFiniteLossHook(), self._random_state_hook]
        super().register_hooks(default_hooks, [*sound, *(custom_hooks or [])])

    def build_visualizer(self, visualizer: Any = None) -> Visualizer:
        """Build this run's own visualiser: mmengine shares one of a name among all runs of a process."""
        if isinstance(visualizer, dict):
            visualizer = {**visualizer, "name": f"{visualizer.get('name', '')}_{self.experiment_name}"}
        return super().build_visualizer(visualizer)

    def _init_model_weights(self) -> None:
        try:
            super()._init_model_weights()
        except (OSError, EOFError, RuntimeError, AssertionError, KeyError, UnpicklingError) as error:
            source = pretrained_source(self.cfg.model)
            if source is None:
                raise
            raise UserError(
                f"the pretrained weights {source} could not be loaded: {str(error) or type(error).__name__}. "
                "Put the file in the cache of torch.hub and try again, name a local file "
                "(--cfg-options model.pretrained=FILE), or train without "
                "(--cfg-options model.pretrained=None)"
            ) from error

    def load_checkpoint(
        self, filename: str, map_location: Any = "cpu", strict: bool = False, revise_keys: Any = None
    ) -> dict:
        """Load weights from a file: all of them when resuming or testing, those that fit for ``load_from``.

        Raises:
            UserError: the file cannot be read, does not fit, or (``load_from``) fits nowhere.
        """
        if "://" in str(filename):
            return super().load_checkpoint(filename, map_location, strict)
        checkpoint = read_checkpoint(filename)
        # mmengine would run this text as a Python config.
        (checkpoint.get("meta") or {}).pop("config", None)
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        if self._resume or strict:
            load_state(model, checkpoint, filename)
        else:
            self._load_what_fits(model, checkpoint, filename)
        self._has_loaded = True
        self.logger.info(f"Loaded the weights of {filename}")
        return checkpoint

    def _load_what_fits(self, model: nn.Module, checkpoint: dict, filename: str) -> None:
        weights, own = weights_of(checkpoint), model.state_dict()
        fitting = {n: v for n, v in weights.items() if n in own and own[n].shape == v.shape}
        problem = describe_mismatch(model, weights)
        if not fitting:
            raise UserError(f"no parameter of load_from={filename} fits this config's model:\n{problem}")
        if problem:
            self.logger.warning(
                f"load_from={filename} fills {len(fitting)} of {len(own)} parameters:\n{problem}"
            )
        model.load_state_dict(fitting, strict=False)

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Continue from a checkpoint that holds the optimiser's state."""
        try:
            super().resume(filename, *args, **kwargs)
        except KeyError as error:
            raise UserError(
                f"{filename} cannot be resumed from, it lacks {error}: it was not written by a training. "
                "To start from its weights use --cfg-options load_from=..."
            ) from error
        except ValueError as error:
            raise UserError(f"{filename} cannot be resumed from: {error}") from error

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint under a temporary name, then give it its own. Every rank calls this.

        Raises:
            UserError: a weight is not finite, or the file cannot be written (older ones stay).
        """
        average_batch_norm(self.model)
        broken = non_finite_names(self.model.state_dict())
        if broken:
            raise UserError(
                f"{len(broken)} weights hold NaN or infinity after iteration {self.iter}, the first is "
                f"{broken[0]}; {advice_on_divergence(self)}"
            )
        self._random_state_hook.gather()
        if not is_main_process():
            return
        if "://" in str(out_dir):
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        part = f".{filename}.part"
        try:
            super().save_checkpoint(out_dir, part, *args, **kwargs)
            publish_file(os.path.join(out_dir, part), os.path.join(out_dir, filename))
        except OSError as error:
            with contextlib.suppress(OSError):
                os.remove(os.path.join(out_dir, part))
            raise UserError(
                f"the checkpoint {os.path.join(out_dir, filename)} could not be written: {error}. "
                "Earlier checkpoints are untouched; make room and continue with --resume"
            ) from error


def pretrained_source(model: dict) -> str | None:
    """Where the model config takes its pretrained weights from, with the URL behind a short name."""
    backbone = model.get("backbone") or {}
    init = backbone.get("init_cfg")
    from_init = init.get("checkpoint") if isinstance(init, dict) else None
    name = model.get("pretrained") or backbone.get("pretrained") or from_init
    if name is None:
        return None
    if str(name).startswith(("open-mmlab://", "openmmlab://")):
        from mmengine.runner.checkpoint import get_external_models

        url = get_external_models().get(str(name).split("://", 1)[1])
        return f"{name} ({url})" if url else str(name)
    return str(name)


def drop_pretrained(model: dict) -> None:
    """Make a model config load no pretrained weights: others are about to replace them all."""
    for part in (model, model.get("backbone") or {}):
        if part.get("pretrained") is not None:
            part["pretrained"] = None
        if isinstance(part.get("init_cfg"), dict) and part["init_cfg"].get("type") == "Pretrained":
            part["init_cfg"] = None
