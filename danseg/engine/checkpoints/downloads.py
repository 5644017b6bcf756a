"""Fetch weights that are named by an address: whole, with their hash compared, to a file on this machine.

Files lie in torch.hub's cache, ``TORCH_HOME/hub/checkpoints``, under the names that torch and mmengine give
them: what one of these has fetched is used, if its hash is right.
"""

import contextlib
import hashlib
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlsplit

import torch
from mmengine.dist import is_main_process

from danseg.engine.checkpoints.checkpoint_bytes import check_bytes
from danseg.engine.checkpoints.imagenet_weights import timm_models, torchvision_models
from danseg.errors import UserError
from danseg.io.files import make_folder, whole_file
from danseg.io.source_files import read_file
from danseg.io.words import did_you_mean

_FETCHED = ("http://", "https://")
_SILENCE = 60.0  # seconds without a byte after which a server is given up
_told: set[Path] = set()  # files whose origin this process has told


def local_file(source: str | Path) -> Path:
    """The file that ``source`` names, on this machine; an address is fetched, unless the cache has it.

    Several processes may fetch the same file at the same time, each whole.

    Args:
        source: a file; ``https://...`` or ``http://...``; ``open-mmlab://NAME`` or ``mmcls://NAME``, of which
            mmengine knows the addresses; ``torchvision://NAME`` or ``timm://NAME``, which
            :mod:`danseg.engine.checkpoints.imagenet_weights` has. An address may tell the file's hash:
            ``https://host/weights.pth#sha256=2cccc1ad`` (all 64 digits or the first ones, 8 at least).
            Without that it is taken from a name such as ``resnet50_v1c-2cccc1ad.pth``.

    Raises:
        UserError: the address is of another kind or unknown, it cannot be reached, it gave no whole
            checkpoint, or its hash, or that of the file in the cache, is another one.
    """
    if "://" not in str(source):
        return Path(source)
    url = address_of(str(source))
    if not url.startswith(_FETCHED):  # a file that the user's own list of models names
        return Path(url)
    address, _, note = url.partition("#")
    digits = _hash(address, note)
    target = Path(torch.hub.get_dir()) / "checkpoints" / _file_name(address, digits)
    if not target.exists():
        _fetch(address, target, digits)
    elif digits:
        _compare(target, digits, source)
    elif target not in _told and is_main_process():
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(target.stat().st_mtime))
        print(f"{source} is taken as fetched on {when}; delete {target} to fetch it again", file=sys.stderr)
    _told.add(target)
    return target


def address_of(source: str) -> str:
    """The address behind a short name, such as ``timm://resnet50d``; another address stays as it is.

    Raises:
        UserError: there is no such name.
    """
    kind, _, name = source.partition("://")
    if source.startswith(_FETCHED):
        return source
    known = _models(kind, source)
    if name not in known:
        raise UserError(f"{source} names no model whose address is known{did_you_mean(name, known)}")
    return known[name]


def _models(kind: str, source: str) -> Mapping[str, str]:
    """The addresses of the models that mmengine knows by a short name of this kind."""
    from mmengine.runner import checkpoint as lists

    if kind in ("open-mmlab", "openmmlab"):
        known, home = lists.get_external_models(), Path(lists._get_mmengine_home())
        known |= {old: known[new] for old, new in lists.get_deprecated_model_names().items() if new in known}
        return {name: url if url.startswith(_FETCHED) else str(home / url) for name, url in known.items()}
    if kind == "mmcls":
        return lists.get_mmcls_models()
    if kind in ("torchvision", "modelzoo"):
        return torchvision_models()
    if kind == "timm":
        return timm_models()
    raise UserError(
        f"{source}: {kind}:// is no kind of address that weights are fetched from (https://, http://, "
        "open-mmlab://, torchvision://, timm://, mmcls://); fetch the file yourself and name it"
    )


def _hash(address: str, note: str) -> str | None:
    """The first digits of the file's SHA-256 that an address tells; None if it tells none."""
    if note:
        told = re.fullmatch(r"sha256=([0-9a-f]{8,64})", note)
        if not told:
            raise UserError(f"{address}#{note}: a hash is written #sha256= and 8 to 64 digits of 0-9, a-f")
        return told[1]
    told = re.search(r"-([0-9a-f]{8,64})\.\w+$", urlsplit(address).path)
    return told[1] if told else None


def _file_name(address: str, digits: str | None) -> str:
    """The name in the cache; the hash, or that of the address, is added where it tells no contents apart."""
    path = Path(unquote(urlsplit(address).path))
    if not path.name:
        raise UserError(f"{address} names no file")
    if digits and f"-{digits}." in path.name:
        return path.name
    mark = f"-{digits}" if digits else f"-from-{hashlib.sha256(address.encode()).hexdigest()[:8]}"
    return f"{path.stem}{mark}{path.suffix}"


def _fetch(address: str, target: Path, digits: str | None) -> None:
    make_folder(target.parent, "torch.hub's cache", "name another place with TORCH_HOME")
    print(f"fetching {address} to {target}", file=sys.stderr)
    with whole_file(target) as part:
        try:
            with _giving_up_after(_SILENCE):
                torch.hub.download_url_to_file(address, str(part), digits, sys.stderr.isatty())
            check_bytes(part, address)
        except UserError as error:
            raise UserError(f"what {address} gave is no whole checkpoint: {error}") from error
        except (OSError, HTTPException, RuntimeError, ValueError) as error:  # RuntimeError: another hash
            raise UserError(
                f"{address} could not be fetched: {str(error) or type(error).__name__}. Fetch it where "
                f"that is possible and put it in place as {target}, or name a local file instead"
            ) from error


@contextlib.contextmanager
def _giving_up_after(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _compare(target: Path, digits: str, source: object) -> None:
    try:
        found = hashlib.sha256(read_file(target)).hexdigest()
    except OSError as error:
        raise UserError(
            f"{source} is in torch.hub's cache, but {target} cannot be read: {error.strerror}"
        ) from error
    if not found.startswith(digits):
        raise UserError(
            f"{target}, in torch.hub's cache, is not what {source} stands for: its SHA-256 starts with "
            f"{found[: len(digits)]}, not with {digits}. Delete it, and it is fetched again; or, if it "
            "is your own, name the file itself"
        )
