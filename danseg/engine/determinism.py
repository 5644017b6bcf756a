"""Results that repeat to the bit on a GPU: what cuBLAS needs for it, and what has no such algorithm."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from danseg.errors import UserError


def prepare_cublas() -> None:
    """Let cuBLAS's products repeat; the user's own setting stays. PyTorch looks once, at the first one."""
    # One of the two values that NVIDIA calls reproducible.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def explaining_determinism() -> Iterator[None]:
    """Turn PyTorch's refusals of what does not repeat into one message each.

    Raises:
        UserError: an operation has no deterministic algorithm, or cuBLAS started without its setting.
    """
    try:
        yield
    except RuntimeError as error:
        refused = re.search(r"(\S+) does not have a deterministic implementation", str(error))
        if refused:
            raise UserError(
                f"the network needs {refused[1]}, which has no deterministic form on this device: leave out "
                "--deterministic (randomness.deterministic), or choose another network or mode"
            ) from error
        if "uses CuBLAS" in str(error):
            raise UserError(
                "products of matrices do not repeat to the bit, because this process used the GPU before: "
                "set CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment before Python starts"
            ) from error
        raise
