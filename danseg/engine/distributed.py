"""Start and end the process group of a distributed run, and stop all processes if one fails or is lost.

mmengine starts a process group on GPUs only. Here the group is made before mmengine needs it, with NCCL on
GPUs and with gloo on CPUs, and mmengine then uses it.
"""

import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as torch_dist
from mmengine.dist import broadcast_object_list, get_dist_info, get_rank

from danseg.engine.stalled import WHY_IT_ENDS, Watch, what_ended
from danseg.errors import Stopped, UserError
from danseg.shipped import by_command, shipped

Result = TypeVar("Result")


_LONGEST = 60 * 24 * 365  # minutes
_LATER = timedelta(seconds=5)
# What collectives and the store say if another process has ended or does not answer.
_LOST = re.compile(
    "connection (was |closed|reset|refused)|broken pipe|timed out|timeout|remote process", re.I
)
_LIBRARIES = re.compile("gloo|nccl|c10d|recv|send", re.I)


@contextmanager
def process_group(launcher: str, watch: Watch, timeout_minutes: float) -> Iterator[None]:
    """Keep the process group of ``launcher`` open during the block; with "none" do nothing.

    The group ends with a barrier: if a process left while another one still communicates with it, the other
    one could abort at interpreter exit.

    Args:
        launcher: what started the processes.
        watch: looks at the other processes, too, as long as there is a group.
        timeout_minutes: how long a process waits for the others, in a collective and at the start.

    Raises:
        UserError: the launcher's environment variables are missing, a node with GPUs has fewer of them than
            processes, not all processes come to the start, or one ends or does not answer during the block.
        SystemExit: in all processes but one, if another one has ended; one says so for all.
    """
    if launcher == "none":
        yield
        return
    _start(launcher, timeout_minutes)
    beats = watch.begin_heartbeats(timeout_minutes)
    try:
        yield
        _leave(watch)
    except Stopped as stopped:
        if stopped.together:
            _leave(watch)
        raise
    except Exception as error:
        if not watch.ending.acquire(blocking=False):
            time.sleep(60)  # the watch is about to end this process
        lost = _is_lost(error)
        if lost:
            # A launcher, which has seen the other process end, stops this one: not before it has spoken.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(0.2)  # connections break a little before the system calls a process ended
        first = beats.first_to(WHY_IT_ENDS)  # of an error of its own, too: then the others need not speak
        if lost and not first:
            beats.wait_until_spoken()
            sys.exit(1)
        message = what_ended(beats) if lost else ""
        beats.has_spoken()
        if not lost:
            raise
        raise UserError(message) from error


def _leave(watch: Watch) -> None:
    # Not after an error: waiting for processes that may have ended would only hide it.
    torch_dist.barrier()
    watch.end_heartbeats()  # while the store is there
    leave_group()


def _is_lost(error: Exception) -> bool:
    """Whether an error says that another process has ended or does not answer."""
    text = str(error)
    return isinstance(error, RuntimeError) and bool(_LOST.search(text) and _LIBRARIES.search(text))


def leave_group() -> None:
    """End the process group, so that no process aborts when its interpreter shuts down."""
    torch_dist.barrier()
    torch_dist.destroy_process_group()
    # gloo's threads free the tensors of finished collectives, for which they need the interpreter's lock. A
    # thread that still waits for it when the interpreter shuts down aborts the process. Give them time.
    time.sleep(0.2)


def _start(launcher: str, timeout_minutes: float) -> None:
    if not 0 < timeout_minutes <= _LONGEST:
        raise UserError(
            f"--collective-timeout {timeout_minutes:g}: give minutes, more than 0 and up to {_LONGEST}"
        )
    wanted = {
        "pytorch": ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
        "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_NODELIST"),
        "mpi": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE", "MASTER_ADDR"),
    }[launcher]
    missing = [name for name in wanted if name not in os.environ]
    if missing:
        torchrun = f"torchrun --nproc_per_node=N{' -m danseg' if by_command() else ''}"
        start_with = {"pytorch": torchrun, "slurm": "srun", "mpi": "mpirun"}[launcher]
        scripts = " and ".join(str(shipped("tools") / f"{name}_train.sh") for name in ("dist", "slurm"))
        raise UserError(
            f"--launcher {launcher}: {', '.join(missing)} not in the environment; "
            f"start the tool with {start_with} (see {scripts})"
        )
    # mmengine's init_dist is not used: it needs a GPU, and sets a start method that its runner then warns of.
    gpus = torch.cuda.device_count()
    if launcher == "mpi":
        # mmengine's DDP wrapper reads this variable, but mpirun does not set it.
        os.environ["LOCAL_RANK"] = os.environ["OMPI_COMM_WORLD_LOCAL_RANK"]
    local_rank = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0)))
    if gpus and local_rank >= gpus:
        raise UserError(
            f"process {local_rank} of this node has no GPU: there are {gpus}. Start at most {gpus} "
            "processes a node, or hide the GPUs with CUDA_VISIBLE_DEVICES= to run on CPU"
        )
    if launcher == "slurm":
        os.environ.setdefault("MASTER_PORT", "29500")
        if "MASTER_ADDR" not in os.environ:
            os.environ["MASTER_ADDR"] = _first_slurm_host()
        os.environ.update(
            RANK=os.environ["SLURM_PROCID"], WORLD_SIZE=os.environ["SLURM_NTASKS"], LOCAL_RANK=str(local_rank)
        )
    elif launcher == "mpi":
        os.environ.setdefault("MASTER_PORT", "29500")
        os.environ.update(
            RANK=os.environ["OMPI_COMM_WORLD_RANK"], WORLD_SIZE=os.environ["OMPI_COMM_WORLD_SIZE"]
        )
    # The watch, which knows more, comes first: it says who does not answer.
    timeout = timedelta(minutes=timeout_minutes) + _LATER
    try:
        if not gpus:
            torch_dist.init_process_group("gloo", timeout=timeout, **_meeting_place(timeout))
            return
        torch.cuda.set_device(local_rank)
        # Bound to its GPU, the group meets now and not at its first message, and barriers need not guess.
        device = torch.device("cuda", local_rank)
        torch_dist.init_process_group("nccl", timeout=timeout, device_id=device, **_meeting_place(timeout))
    except torch_dist.DistError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"process {os.environ['RANK']} has not met the other processes of {os.environ['WORLD_SIZE']} at "
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} (MASTER_ADDR, MASTER_PORT) within "
            f"{timeout_minutes:g} minutes (--collective-timeout): {reason}. All have to be started, with the "
            "same address, which every node must reach"
        ) from error


def _meeting_place(timeout: timedelta) -> dict[str, Any]:
    """Where the processes that torchrun has started again meet, as arguments of ``init_process_group``.

    torchrun keeps its store, in which the addresses of the processes before them still stand.
    """
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if start == "0":
        return {}
    store, rank, world_size = next(torch_dist.rendezvous("env://", timeout=timeout))
    store.set_timeout(timeout)
    return dict(store=torch_dist.PrefixStore(f"start_{start}", store), rank=rank, world_size=world_size)


def _first_slurm_host() -> str:
    import subprocess

    command = ["scontrol", "show", "hostname", os.environ["SLURM_NODELIST"]]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, check=True)
        return listing.stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise UserError(
            f"--launcher slurm: {' '.join(command)} does not tell the first node; set MASTER_ADDR to its name"
        ) from error


def on_every_rank(work: Callable[[], Result]) -> Result:
    """Run ``work`` on every rank; if it fails on one rank, end all of them.

    Returns:
        What ``work`` returned on this rank.

    Raises:
        UserError: from ``work``, in a run of one process.
        SystemExit: on every rank of a distributed run, if ``work`` raised a UserError on any of them. Rank 0
            first prints the message of the lowest such rank, once, before a launcher stops the processes.
    """
    rank, world_size = get_dist_info()
    if world_size == 1:
        return work()
    result: Any = None
    message: str | None = None
    try:
        result = work()
    except UserError as error:
        message = str(error)
    except BaseException:
        logging.shutdown()
        raise
    messages: list[str | None] = [None] * world_size
    torch_dist.all_gather_object(messages, message)
    first = next((one for one in messages if one is not None), None)
    if first is None:
        return result
    if rank == 0:
        print(f"error: {first}", file=sys.stderr, flush=True)
    torch_dist.barrier()  # until rank 0 has printed: a launcher stops all processes once one has ended
    sys.exit(1)


def fail_on_every_rank(error: UserError) -> NoReturn:
    """Raise an error that every rank has found, so that it is printed once.

    Raises:
        The same as :func:`on_every_rank`.
    """

    def fail() -> NoReturn:
        raise error

    on_every_rank(fail)


def on_rank_zero(work: Callable[[], Result]) -> Result | None:
    """Run ``work`` on rank 0 while the other ranks wait; if it fails, end all of them.

    Returns:
        On rank 0 what ``work`` returned, on other ranks None.

    Raises:
        The same as :func:`on_every_rank`.
    """
    return on_every_rank(lambda: work() if get_rank() == 0 else None)


def decided_on_rank_zero(work: Callable[[], Result]) -> Result:
    """Run ``work`` on rank 0 alone; every rank gets what it returned.

    Raises:
        The same as :func:`on_every_rank`.
    """
    results = [on_rank_zero(work)]
    broadcast_object_list(results)
    return results[0]  # type: ignore[return-value]
