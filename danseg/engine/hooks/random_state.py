"""Continue the sequence of random numbers when a training is resumed.

Without data workers, a resumed run draws exactly the numbers that the uninterrupted run would have drawn, on
the same kind of device: a CPU and a GPU draw different numbers from one seed. A loop over epochs goes on at
the batch at which it ended. The state of worker processes cannot be read. They are seeded anew at every
start, and a resumed run gives them other seeds, so that they do not repeat the numbers of the first
iterations.
"""

import functools
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import BatchSampler, Sampler

_CHECKPOINT_KEY = "random_states"


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


def _seeded_like_a_later_run(loader: torch.utils.data.DataLoader, iteration: int) -> None:
    """Give the workers of a loader, which have not started yet, other seeds than at iteration 0."""
    function = loader.worker_init_fn
    if isinstance(function, functools.partial) and "seed" in function.keywords:
        seed = (function.keywords["seed"] + 1_000_003 * iteration) % 2**31
        loader.worker_init_fn = functools.partial(function.func, **{**function.keywords, "seed": seed})


class _ResumingIterator:
    """An endless loader that restores the random state between the skipped and the first new batch."""

    def __init__(self, batches: Any, skipped: int, state: dict[str, Any]) -> None:
        self._batches = batches
        self._to_skip = skipped
        self._state: dict[str, Any] | None = state

    def skip_iter(self, count: int) -> None:
        self._batches.skip_iter(count)
        self._to_skip -= count

    def __iter__(self) -> "_ResumingIterator":
        return self

    def __next__(self) -> Any:
        if self._state is not None and self._to_skip <= 0:
            if hasattr(self._batches, "_ensure_iterator"):
                # Making an iterator draws a number, as the uninterrupted run did at its start. Restore the
                # state after that.
                self._batches._ensure_iterator()
            restore(self._state)
            self._state = None
        self._to_skip -= 1
        return next(self._batches)


class _ResumingSampler(Sampler):
    """A sampler that, once, leaves out its first indices and restores the random state before the next.

    A loader asks for its first index after it has drawn the number that it draws when it is iterated, and
    before it loads anything.
    """

    def __init__(self, sampler: Sampler, skipped: int, state: dict[str, Any] | None) -> None:
        self._sampler = sampler
        self._skipped = skipped
        self._state = state

    def __len__(self) -> int:
        return len(self._sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        indices = iter(self._sampler)
        next(islice(indices, self._skipped, self._skipped), None)
        if self._state is not None:
            restore(self._state)
        self._skipped, self._state = 0, None
        yield from indices


def _resume_epoch(loop: EpochBasedTrainLoop, state: dict[str, Any] | None) -> str | None:
    """Let a loop over epochs go on where a checkpoint was written, at the end of an epoch or within it.

    mmengine starts the epoch anew, in which some of the images are then seen twice.

    Returns:
        Why it cannot go on there, or None.
    """
    loader = loop.dataloader
    done = loop.iter - loop.epoch * len(loader)
    batches = loader.batch_sampler
    if not 0 <= done <= len(loader):
        problem = f"the checkpoint is of iteration {loop.iter}, and an epoch now has {len(loader)} iterations"
    elif done and type(batches) is not BatchSampler:
        problem = f"{type(batches).__name__} cannot leave out the {done} batches of it that were trained on"
    else:
        problem = ""
    if problem:
        return f"Epoch {loop.epoch + 1} starts anew and its random numbers afresh: {problem}."
    if done or (loader.num_workers and loader.persistent_workers and type(batches) is BatchSampler):
        # The uninterrupted run drew the loader's number before the checkpoint, so this one is one too many.
        batches.sampler = _ResumingSampler(batches.sampler, done * batches.batch_size, state)
        run_iter = loop.run_iter
        # The loop counts the batches from 0; hooks are told the place in the epoch.
        loop.run_iter = lambda idx, batch: run_iter(loop.iter - loop.epoch * len(loader), batch)
    elif state is not None:
        restore(state)
    return None


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Stores every rank's random state in checkpoints, and restores it when a training is resumed."""

    def __init__(self) -> None:
        self._to_store: list[dict[str, Any]] = []
        self._loaded: list[dict[str, Any]] | None = None
        self._resuming = False

    def gather(self) -> None:
        """Collect the states of all ranks; every rank must call this before rank 0 saves a checkpoint."""
        self._to_store = all_gather_object(capture())

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        if "optimizer" in checkpoint:  # training cannot resume from weights alone
            checkpoint[_CHECKPOINT_KEY] = self._to_store

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        self._loaded = checkpoint.get(_CHECKPOINT_KEY)

    def before_train(self, runner: Any) -> None:
        self._resuming = runner.iter > 0

    def before_train_epoch(self, runner: Any) -> None:
        if not self._resuming:
            return
        self._resuming = False
        loop = runner.train_loop
        state = self._of_this_rank(runner)
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        if loop.dataloader.persistent_workers or not by_epoch:
            # Other workers start anew, with the config's seed, at every epoch.
            _seeded_like_a_later_run(loop.dataloader, loop.iter)
        if by_epoch:
            problem = _resume_epoch(loop, state)
            if problem:
                runner.logger.warning(problem)
        elif state is not None and hasattr(loop, "dataloader_iterator"):
            skipped = 0 if getattr(loop, "fast_forward_on_resume", False) else loop.iter
            loop.dataloader_iterator = _ResumingIterator(loop.dataloader_iterator, skipped, state)

    def _of_this_rank(self, runner: Any) -> dict[str, Any] | None:
        """This process's state in the checkpoint, or None; what cannot continue is logged."""
        states, self._loaded = self._loaded, None
        if states is None or len(states) != get_world_size():
            held = len(states) if states else 0
            runner.logger.info(
                f"The random numbers start afresh: the checkpoint holds the state of {held} processes, "
                f"this run has {get_world_size()}."
            )
            return None
        state = states[get_rank()]
        if ("cuda" in state) != torch.cuda.is_available():
            was, now = ("a GPU", "a CPU") if "cuda" in state else ("a CPU", "a GPU")
            runner.logger.info(
                f"The network's random numbers start afresh: the checkpoint was written on {was}, "
                f"this run is on {now}."
            )
        return state
