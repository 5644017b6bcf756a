"""A Runner that reads checkpoints without running code from them, and writes them whole."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from danseg.engine.checkpoints.checkpoint import (
    check_values,
    describe_mismatch,
    load_state,
    read_checkpoint,
    weights_of,
)
from danseg.engine.checkpoints.pretrained import INSTEAD, check_pretrained
from danseg.engine.config.options import pretrained_source
from danseg.engine.distributed import on_every_rank, on_rank_zero
from danseg.engine.hooks import MergeBatchNormHook, RandomStateHook
from danseg.engine.hooks.non_finite_loss import advice_on_divergence, non_finite_names
from danseg.engine.hooks.unwritten_checkpoints import CheckpointNotWritten
from danseg.engine.resume_plan import ResumePlan
from danseg.errors import UserError
from danseg.io.files import whole_file


class CheckpointedRunner(Runner):
    """The part of :class:`danseg.engine.runner.DansegRunner` that loads, resumes and saves.

    Attributes:
        already_read: path and content of a checkpoint that was read before, so as not to read it again.
        apply_changes: whether a resumed training goes on with this config's settings where the checkpoint was
            trained with others, which is refused otherwise.
        weights: where the network's weights come from, for the summary.
    """

    already_read: tuple[str, dict] | None = None
    apply_changes: bool = False
    weights: str | None = None
    # Which of a run's hooks a checkpoint needs on every rank.
    _random_state_hook: RandomStateHook
    _merge_hook: MergeBatchNormHook

    @property
    def network(self) -> nn.Module:
        """The network without the wrappers of distributed training and test-time augmentation."""
        model = self.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        return model

    def _init_model_weights(self) -> None:
        on_rank_zero(lambda: check_pretrained(self.network))  # which has fetched them, before others ask
        try:
            super()._init_model_weights()
        except (OSError, EOFError, RuntimeError, AssertionError, KeyError, UnpicklingError) as error:
            source = pretrained_source(self.cfg.model)
            if source is None:
                raise
            raise UserError(
                f"the pretrained weights {source} could not be loaded: {str(error) or type(error).__name__}. "
                f"{INSTEAD}"
            ) from error

    def load_checkpoint(
        self, filename: str, map_location: Any = "cpu", strict: bool = False, revise_keys: Any = None
    ) -> dict:
        """Load weights from a file: all of them when resuming or testing, those that fit with ``load_from``.

        Raises:
            UserError: the file cannot be read, its weights do not fit (with ``load_from``: none of them), or
                they are not finite numbers of the model's kind.
        """
        checkpoint = self._content_of(filename)
        # mmengine would run this text as a Python config.
        (checkpoint.get("meta") or {}).pop("config", None)
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        if self._resume or strict:
            load_state(self.network, checkpoint, filename)
        else:
            self._load_what_fits(self.network, checkpoint, filename)
        self._has_loaded = True
        self.weights = str(filename)
        self.logger.info(f"Loaded the weights of {filename}")
        return checkpoint

    def _content_of(self, filename: str) -> dict:
        """The content of a checkpoint, from :attr:`already_read`, which is then free, or from the file."""
        path, checkpoint = self.already_read or (None, {})
        self.already_read = None
        return checkpoint if path == filename else read_checkpoint(filename)

    def _load_what_fits(self, model: nn.Module, checkpoint: dict, filename: str) -> None:
        weights, own = weights_of(checkpoint), model.state_dict()
        check_values(model, weights, filename)
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
        """Continue from a checkpoint that holds the optimiser's state.

        Raises:
            UserError: it was trained with other settings than this config's, unless :attr:`apply_changes`;
                it has no complete training state, or one that does not fit.
        """
        checkpoint = self._content_of(filename)
        try:
            plan = on_every_rank(lambda: ResumePlan(self, checkpoint, filename))
            self.already_read = (filename, checkpoint)
            # Read it to the CPU; its tensors are then copied to the device on which they are needed.
            states = dict(resume_optimizer=not plan.anew, resume_param_scheduler=not plan.anew)
            super().resume(filename, *args, **{"map_location": "cpu", **states, **kwargs})
            plan.finish()
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, AssertionError) as error:
            raise UserError(f"{filename} cannot be resumed from: {error}") from error

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint under a temporary name, then rename it. Every rank must call this.

        Raises:
            UserError: a weight is not finite.
            CheckpointNotWritten: the file cannot be written, on every rank. Older checkpoints remain.
        """
        self._merge_hook.gather(self.model)
        self._random_state_hook.gather()
        with self._merge_hook.merged(self.model):
            self._save_merged(out_dir, filename, *args, **kwargs)

    def _save_merged(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        broken = non_finite_names(self.model.state_dict())
        if broken:
            raise UserError(
                f"{len(broken)} weights hold NaN or infinity after iteration {self.iter}, the first is "
                f"{broken[0]}; {advice_on_divergence(self)}"
            )
        failure: list[str | None] = [None]
        if is_main_process():
            failure = [self._failure_of_writing(out_dir, filename, *args, **kwargs)]
        broadcast_object_list(failure)  # or the others would go on with another state of the hooks
        if failure[0] is not None:
            raise CheckpointNotWritten(failure[0])

    def _failure_of_writing(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> str | None:
        """Write a checkpoint; returns why it could not be."""
        try:
            if "://" in str(out_dir):
                super().save_checkpoint(out_dir, filename, *args, **kwargs)
                return None
            with whole_file(Path(out_dir, filename), durable=True) as part:
                super().save_checkpoint(out_dir, part.name, *args, **kwargs)
        except UserError as error:
            return str(error)
        return None
