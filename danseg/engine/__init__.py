"""Training and evaluation on mmengine. Importing this package registers hooks and an optimiser wrapper."""

from danseg.engine import bfloat16_optim_wrapper, hooks  # noqa: F401  (registration)
