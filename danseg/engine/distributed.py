"""Start and end the process group of a distributed run, and stop all processes if one fails.

mmengine starts a process group on GPUs only. Here the group is made before mmengine needs it, with NCCL on
GPUs and with gloo on CPUs, and mmengine then uses it.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as torch_dist
from mmengine.dist import broadcast_object_list, get_dist_info, get_rank

from danseg.errors import Stopped, UserError

Result = TypeVar("Result")


@contextmanager
def process_group(launcher: str, timeout_minutes: float = 30) -> Iterator[None]:
    """Keep the process group of ``launcher`` open during the block; with "none" do nothing.

    The group ends with a barrier: if a process left while another one still communicates with it, the other
    one could abort at interpreter exit.

    Raises:
        UserError: the launcher's environment variables are missing, or a node with GPUs has fewer of them
            than processes.
    """
    if launcher == "none":
        yield
        return
    _start(launcher, timedelta(minutes=timeout_minutes))
    try:
        yield
    except Stopped as stopped:
        if stopped.together:
            leave_group()
        raise
    # Not reached after an error: waiting for processes that may have ended would only hide the error.
    leave_group()


def leave_group() -> None:
    """End the process group, so that no process aborts when its interpreter shuts down."""
    torch_dist.barrier()
    torch_dist.destroy_process_group()
    # gloo's threads free the tensors of finished collectives, for which they need the interpreter's lock. A
    # thread that still waits for it when the interpreter shuts down aborts the process. Give them time.
    time.sleep(0.2)


def _start(launcher: str, timeout: timedelta) -> None:
    wanted = {
        "pytorch": ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
        "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_NODELIST"),
        "mpi": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE", "MASTER_ADDR"),
    }[launcher]
    missing = [name for name in wanted if name not in os.environ]
    if missing:
        start_with = {"pytorch": "torchrun --nproc_per_node=N", "slurm": "srun", "mpi": "mpirun"}[launcher]
        raise UserError(
            f"--launcher {launcher}: {', '.join(missing)} not in the environment; "
            f"start the tool with {start_with} (see tools/dist_train.sh and tools/slurm_train.sh)"
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
    if not gpus:
        torch_dist.init_process_group("gloo", timeout=timeout, **_meeting_place(timeout))
        return
    torch.cuda.set_device(local_rank)
    # Bound to its GPU, the group meets now and not at its first message, and barriers need not guess.
    device = torch.device("cuda", local_rank)
    torch_dist.init_process_group("nccl", timeout=timeout, device_id=device, **_meeting_place(timeout))


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
