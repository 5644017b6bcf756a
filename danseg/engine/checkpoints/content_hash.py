"""The hash of a published network's content, stored inside its file: of weights and of the notes on them.

It tells a file that was changed or damaged from the one that was published, in any format. It does not tell
who published it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from danseg.errors import UserError

PUBLISHED = "published"  # the entry of a checkpoint's meta that a published one has
HASH = "sha256"  # of its content, inside that entry


def content_hash(weights: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> str:
    """The SHA-256 of named tensors and of what is said of them, in 64 hexadecimal digits.

    Args:
        weights: dense tensors by name; their order does not count.
        meta: what JSON can hold; a hash that is in its place already does not count.
    """
    published = {key: value for key, value in meta[PUBLISHED].items() if key != HASH}
    digest = hashlib.sha256(json.dumps({**meta, PUBLISHED: published}, sort_keys=True).encode())
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_content(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Refuse a published checkpoint, read from ``path``, whose content is not what was published.

    Raises:
        UserError: it is not. Other checkpoints have no hash and pass.
    """
    meta = checkpoint.get("meta")
    if not isinstance(meta, Mapping) or PUBLISHED not in meta:
        return
    try:
        found, told = content_hash(checkpoint["state_dict"], meta), meta[PUBLISHED].get(HASH)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # of another form
        raise UserError(f"checkpoint {path} was changed after it was published: {error}") from error
    if found != told:
        raise UserError(
            f"checkpoint {path} was changed after it was published: the SHA-256 of its content starts with "
            f"{found[:8]}, and it says {str(told)[:8]}; get it again from where it was published"
        )
