"""Training and evaluation on mmengine. Importing this package registers hooks, a wrapper and FLOP handles."""

from danseg.engine import bfloat16_optim_wrapper, flop_handles, hooks  # noqa: F401  (registration)
