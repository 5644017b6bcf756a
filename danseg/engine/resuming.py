"""Find the checkpoint that a training continues from, and give its content to every process.

All processes agree on one checkpoint, whether their nodes share a folder or not: the newest usable one that
any of them has. Processes that do not have the file get its bytes from one that has it, and read them as
carefully as a file. A file that ``load_from`` or ``--resume`` names may be on one node only, too.
"""

import hashlib
import math
import re
import socket
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.dist import all_gather_object, broadcast, get_rank, get_world_size

from danseg.engine.checkpoints.checkpoint import read_checkpoint, safe_globals
from danseg.engine.checkpoints.downloads import local_file
from danseg.engine.distributed import fail_on_every_rank, on_every_rank, on_rank_zero
from danseg.errors import UserError
from danseg.io.words import listed, ranges

_PIECE = 1 << 26  # bytes that are sent at a time


def resumed(work_dir: str, resume: str, log: Callable[[str], None] = print) -> tuple[str, dict] | None:
    """Find what ``resume`` asks for; every process of a run must call this, and gets the same.

    Args:
        work_dir: the folder of this process's node to search.
        resume: "auto" for the newest usable checkpoint of the work dir, or a file.
        log: where to tell which files are left out, and which come from another node.

    Returns:
        The path and the content of the checkpoint; None if "auto" finds no checkpoint.

    Raises:
        UserError: training cannot continue from the file, or from any file of the folder.
    """
    return find_resumable(work_dir, log) if resume == "auto" else _named(resume, _resumable, log)


def loaded(path: str | None, log: Callable[[str], None] = print) -> tuple[str, dict] | None:
    """The path or address of the checkpoint to start from, and its content.

    Every process of a run must call this.

    Raises:
        UserError: no process has such a file that can be read.
    """
    if path is None:
        return None
    return _named(path, read_checkpoint, log)


def find_resumable(
    work_dir: str | Path, log: Callable[[str], None] = print
) -> tuple[str, dict[str, Any]] | None:
    """Find the newest checkpoint in ``work_dir`` that training can continue from.

    The search looks at the files themselves, not at the note ``last_checkpoint``, which may be missing,
    damaged, or point to where the folder used to be. Unusable files are reported to ``log`` and skipped.
    Every process of a run must call this.

    Returns:
        The path and the content of the checkpoint; None if the folder holds no checkpoints.

    Raises:
        UserError: the folder holds checkpoints, but training cannot continue from any of them.
    """
    names = _newest_first(Path(work_dir))
    for name in names:
        path = Path(work_dir, name)
        content, problems = _from_any_rank(path, _resumable, log)
        for problem in problems:
            log(f"not resuming from an unusable checkpoint: {problem}")
        if content is not None:
            return str(path), content
    if names:
        fail_on_every_rank(
            UserError(
                f"none of the {len(names)} checkpoints in {work_dir} can be resumed from; "
                "to start again, choose another --work-dir, or --start-over instead of --resume"
            )
        )
    return None


def _newest_first(folder: Path) -> list[str]:
    """Names of the numbered checkpoints that any process has in its ``folder``.

    A folder may hold checkpoints of epochs and of iterations, whose numbers do not compare: where both are
    there, the iteration that is stored in each tells.
    """
    numbered = {
        path.name: re.fullmatch(r"(iter|epoch)_(\d+)\.pth", path.name) for path in folder.glob("*.pth")
    }
    own = {name: (match[1], int(match[2])) for name, match in numbered.items() if match}
    everywhere = {name: age for one in all_gather_object(own) for name, age in one.items()}
    ages: dict[str, float] = {name: number for name, (_, number) in everywhere.items()}
    if len({kind for kind, _ in everywhere.values()}) > 1:
        stored = {name: _stored_iteration(folder / name) for name in own}
        ages = {name: age for one in all_gather_object(stored) for name, age in one.items()}
    return sorted(ages, key=lambda name: (ages[name], name), reverse=True)


def _stored_iteration(path: Path) -> float:
    """The iteration after which a checkpoint was written, without reading its tensors.

    Infinity for a file that does not tell: it is then tried first, and what is wrong with it is said.
    """
    try:
        if not path.is_file():
            return math.inf
        with torch.serialization.safe_globals(safe_globals()):
            mapped = zipfile.is_zipfile(path)  # what old PyTorch wrote cannot be mapped
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        return int(content["meta"]["iter"])
    except Exception:  # damaged bytes make the unpickler raise errors of any kind
        return math.inf


def _resumable(path: str | Path) -> dict[str, Any]:
    checkpoint = read_checkpoint(path)
    if "optimizer" not in checkpoint:
        raise UserError(
            f"{path} holds weights without the optimizer's state, so it cannot be resumed from; "
            f"to start from its weights use --cfg-options load_from={path}"
        )
    return checkpoint


def _named(
    path: str, read: Callable[[str | Path], dict], log: Callable[[str], None]
) -> tuple[str, dict[str, Any]]:
    """The content of what a user has named: an address, or a file that is on one node at least."""
    if "://" in path:
        on_rank_zero(lambda: local_file(path))  # fetched once for all that share a cache
        return path, on_every_rank(lambda: read(path))
    content, problems = _from_any_rank(Path(path), read, log)
    if content is None:
        fail_on_every_rank(UserError("\n".join(problems)))
    for problem in problems:
        log(f"warning: {problem}")
    return path, content


class _File(NamedTuple):
    """A file as one process sees it: equal for two processes if they can read the same bytes."""

    size: int
    identity: str


def _seen(path: Path) -> _File | None:
    """The file at ``path``; None if there is none. What cannot be read is like no other file."""
    try:
        path = path.expanduser()
        if not path.exists():
            return None
        if path.is_file():
            with path.open("rb") as file:
                return _File(path.stat().st_size, _digest(file))
    except (OSError, RuntimeError):  # a name that is too long; a home folder that is not known
        pass
    return _File(0, f"of rank {get_rank()} alone")


def _digest(file: Any) -> str:
    digest = hashlib.blake2b()
    while part := file.read(1 << 20):
        digest.update(part)
    return digest.hexdigest()


def _from_any_rank(
    path: Path, read: Callable[[str | Path], dict], log: Callable[[str], None]
) -> tuple[dict[str, Any] | None, list[str]]:
    """Read ``path`` where it is, on the lowest rank if files differ, and send it to where it is not.

    Returns:
        The content, the same on all ranks, or None; and what is wrong with the files that were left out.
    """
    if get_world_size() == 1:
        content, problem = _attempt(lambda: read(path))
        return content, [problem] if problem else []
    own = _seen(path)
    files: list[_File | None] = all_gather_object(own)
    hosts = all_gather_object(socket.gethostname())
    problems: list[str] = []
    for file in dict.fromkeys(one for one in files if one is not None):
        source = files.index(file)
        content, problem = _attempt(lambda: read(path)) if own == file else (None, "it has another file")
        failed = all_gather_object(problem)
        if failed[source]:
            problems.append(f"{failed[source]} (rank {source}, on {hosts[source]})")
            continue
        without = [rank for rank, one in enumerate(failed) if one]
        if without:
            others = [rank for rank in without if files[rank] is not None]
            log(
                f"{path} is not on rank{'s' if len(without) > 1 else ''} {ranges(without)}"
                f"{f', or is another file there ({listed(others)})' if others else ''}: "
                f"its content comes from rank {source}, on {hosts[source]}"
            )
            content = _sent(path, file, source, content)
        return content, problems
    if not problems:  # no rank has the file; any can say what is there instead
        problems = [problem for problem in (_attempt(lambda: read(path))[1],) if problem]
        problems = all_gather_object(problems)[0]
    return None, problems


def _attempt(read: Callable[[], dict]) -> tuple[dict[str, Any] | None, str | None]:
    try:
        return read(), None
    except UserError as error:
        return None, str(error)


def _sent(path: Path, file: _File, source: int, content: dict[str, Any] | None) -> dict[str, Any]:
    """Send the bytes of ``path`` from rank ``source`` to the ranks that have no content yet."""
    problem = ""

    def opened() -> Any:
        try:
            if content is None:
                return tempfile.NamedTemporaryFile(suffix=".pth")
            return path.expanduser().open("rb") if get_rank() == source else nullcontext()
        except OSError as error:
            raise UserError(f"cannot send {path} to other ranks: {error}") from error

    with on_every_rank(opened) as copy:
        for start in range(0, file.size, _PIECE):
            piece = torch.zeros(min(_PIECE, file.size - start), dtype=torch.uint8)
            if get_rank() == source:
                copy.readinto(piece.numpy())
            broadcast(piece, source)
            if content is None and not problem:
                try:
                    copy.write(piece.numpy())
                except OSError as error:  # the other ranks still send and receive
                    problem = f"cannot write {copy.name}: {error.strerror}; set TMPDIR to a larger disk"

        def received() -> dict[str, Any]:
            if content is not None:
                return content
            if problem:
                raise UserError(problem)
            copy.seek(0)
            if _digest(copy) != file.identity:
                raise UserError(f"{path} changed on rank {source} while it was sent to other ranks")
            return read_checkpoint(copy.name)

        return on_every_rank(received)
