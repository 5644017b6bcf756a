"""Let a resumed training go on exactly: the same samples, augmented alike, and the same random numbers.

Samples are seeded one by one (:mod:`danseg.engine.sample_seeds`), so a loader that goes on at the right place
gives what it would have given. What the network draws, for dropout for one, continues from the state that the
checkpoint holds of each process. It is the same with any number of workers, and validation draws nothing from
it. What cannot continue exactly is said, once.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.optim import OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from danseg.engine.config.total_batch import images_an_iteration, iterations_a_step
from danseg.engine.sample_seeds import can_go_on, draw_sampler, go_on, unreached

_STATES, _ORDER = "random_states", "sample_order"  # keys of a checkpoint


def capture() -> dict[str, Any]:
    """The state of every random generator that training uses, in types that the restricted reader accepts."""
    numpy = np.random.get_state(legacy=False)
    assert isinstance(numpy, dict) and numpy["bit_generator"] == "MT19937"
    version, words, gauss_next = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "numpy": {
            "keys": torch.from_numpy(numpy["state"]["key"].astype(np.int64)),
            "position": int(numpy["state"]["pos"]),
            "has_gauss": int(numpy["has_gauss"]),
            "gauss": float(numpy["gauss"]),
        },
        "python": {
            "version": version,
            "words": torch.tensor(words, dtype=torch.int64),
            "gauss": gauss_next,
        },
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()  # of this process's own GPU
    return state


def restore(state: dict[str, Any]) -> None:
    """Set every generator to a state that :func:`capture` returned."""
    torch.set_rng_state(state["torch"].cpu())
    numpy = state["numpy"]
    keys = numpy["keys"].cpu().numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, numpy["position"], numpy["has_gauss"], numpy["gauss"]))
    python = state["python"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


class _MovedOn:
    """mmengine's endless iterator, over a loader that has gone on: what mmengine skips is gone already."""

    def __init__(self, batches: Any, skipped: int) -> None:
        self._batches = batches
        self._to_skip = skipped

    def skip_iter(self, count: int) -> None:
        """Skip nothing."""

    def __iter__(self) -> "_MovedOn":
        return self

    def __next__(self) -> Any:
        if self._to_skip:
            self._to_skip -= 1
            return None
        return next(self._batches)


def _go_on_with_epochs(loop: EpochBasedTrainLoop) -> str | None:
    """Let a loop over epochs go on where a checkpoint was written, at the end of an epoch or within it.

    mmengine starts the epoch anew, in which some of the images are then seen twice.

    Returns:
        What keeps it from that, or None.
    """
    loader = loop.dataloader
    done = loop.iter - loop.epoch * len(loader)
    if not done:
        return None
    if not 0 < done <= len(loader):
        return (
            f"epoch {loop.epoch + 1} starts anew, because the checkpoint is of iteration {loop.iter} and an "
            f"epoch now has {len(loader)} iterations"
        )
    if not can_go_on(loader):
        kind = type(loader.batch_sampler).__name__
        return f"epoch {loop.epoch + 1} starts anew, because its {kind} cannot leave out {done} batches"
    go_on(loader, loop.epoch, done)
    run_iter = loop.run_iter
    # The loop counts the batches from 0; hooks are told the place in the epoch.
    loop.run_iter = lambda idx, batch: run_iter(loop.iter - loop.epoch * len(loader), batch)
    return None


def _go_on_with_iterations(loop: IterBasedTrainLoop) -> str | None:
    """The same for a loop over iterations, whose data may end and begin again many times."""
    loader = loop.dataloader
    if not can_go_on(loader):
        kind = type(loader.batch_sampler).__name__
        return f"mmengine moves the loader's {kind} on, which may draw other numbers by that"
    epoch = go_on(loader, 0, loop.iter)
    endless = type(loop.dataloader_iterator)
    del loop.dataloader_iterator  # it may have begun, with workers of its own
    batches = endless(loader)
    batches._epoch = epoch
    # mmengine 0.10.7 has no skip_iter, and asks for every batch that was taken.
    loop.dataloader_iterator = _MovedOn(batches, 0 if hasattr(batches, "skip_iter") else loop.iter)
    return None


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Stores in checkpoints what a training will draw next, and lets a resumed training draw just that.

    A checkpoint gets the state of every process's random generators, and what the order of the samples
    depends on besides the config.
    """

    def __init__(self) -> None:
        self._aside: dict[str, Any] | None = None
        self._to_store: list[dict[str, Any]] = []
        self._loaded: dict[str, Any] = {}
        self._resuming = False

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let the training's random numbers go on after the block as if it had not been.

        A checkpoint that is written in the block holds the state from before it.
        """
        self._aside = before = capture()
        try:
            yield
        finally:
            self._aside = None
            restore(before)

    def gather(self) -> None:
        """Collect the states of all ranks; every rank must call this before rank 0 saves a checkpoint."""
        self._to_store = all_gather_object(self._aside or capture())

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        if "optimizer" in checkpoint:  # training cannot resume from weights alone
            checkpoint[_STATES] = self._to_store
            checkpoint[_ORDER] = _order(runner)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        self._loaded = {key: checkpoint.get(key) for key in (_STATES, _ORDER)}

    def before_train(self, runner: Any) -> None:
        self._resuming = runner.iter > 0
        states = self._loaded.get(_STATES)
        if self._resuming and states and len(states) == get_world_size():
            restore(states[get_rank()])  # now, as a validation that was cut off may come first, and save

    def before_train_epoch(self, runner: Any) -> None:
        loop = runner.train_loop
        sampler = draw_sampler(loop.dataloader)
        if sampler is not None and isinstance(loop, EpochBasedTrainLoop):
            sampler.set_epoch(loop.epoch)  # as mmengine's hook does, which a config may leave out
        if not self._resuming:
            return
        self._resuming = False
        order: str | None
        if sampler is None:
            order = f"the samples of {type(loop.dataloader.dataset).__name__} are not seeded one by one"
        elif isinstance(loop, EpochBasedTrainLoop):
            order = _go_on_with_epochs(loop)
        elif isinstance(loop, IterBasedTrainLoop):
            order = _go_on_with_iterations(loop)
        else:
            order = f"{type(loop).__name__} is not known to go on where it ended"
        problems = [*self._differences(runner), *_lost_gradients(runner), *filter(None, [order])]
        self._loaded = {}
        if problems:
            runner.logger.warning(
                "The training goes on, but not exactly as it would have without the interruption: "
                f"{'; '.join(problems)}."
            )

    def _differences(self, runner: Any) -> Iterator[str]:
        """What is not as it was when the checkpoint was written, besides the config."""
        states, order = self._loaded.get(_STATES), self._loaded.get(_ORDER)
        if states is None or len(states) != get_world_size():
            yield (
                "the network's random numbers start afresh, because the checkpoint holds the state of "
                f"{len(states or ())} processes and this run has {get_world_size()}"
            )
        elif ("cuda" in states[get_rank()]) != torch.cuda.is_available():
            devices = ("a CPU", "a GPU") if torch.cuda.is_available() else ("a GPU", "a CPU")
            yield (
                "the network's random numbers start afresh, because the checkpoint was written on "
                f"{devices[0]} and this run is on {devices[1]}"
            )
        if any(isinstance(hook, EarlyStoppingHook) for hook in runner.hooks):
            yield "EarlyStoppingHook, which checkpoints do not hold, begins to wait anew"
        for name in dict.fromkeys(unreached(runner.train_dataloader.dataset)):
            yield f"{name} in the pipeline draws from a generator of its own, which checkpoints do not hold"
        if order is None:
            yield "the checkpoint does not say how its samples were drawn: an earlier version wrote it"
            return
        for fact, now in _order(runner).items():
            if order.get(fact) != now:
                yield f"{_FACTS[fact]} was {order.get(fact)} and is {now} now"


_FACTS = {
    "seed": "the seed of the samples",
    "images": "the number of training images",
    "images_an_iteration": "the number of images an iteration",
}


def _order(runner: Any) -> dict[str, int | None]:
    """What the order of a training's samples depends on, and the config alone does not tell."""
    loader = runner.train_dataloader
    return {
        "seed": getattr(draw_sampler(loader), "sample_seed", None),
        "images": len(loader.dataset),
        "images_an_iteration": images_an_iteration(runner),
    }


def _lost_gradients(runner: Any) -> Iterator[str]:
    """Gradients that were gathered for a step, which a checkpoint does not hold."""
    optimisers = runner.optim_wrapper
    several = optimisers.values() if isinstance(optimisers, OptimWrapperDict) else [optimisers]
    lost = {runner.iter % iterations_a_step(one): iterations_a_step(one) for one in several}
    for iterations, gathered in lost.items():
        if iterations:
            yield (
                f"the checkpoint of iteration {runner.iter} lies within the {gathered} iterations "
                f"(optim_wrapper.accumulative_counts) of a step and lacks the first {iterations}'s gradient"
            )
