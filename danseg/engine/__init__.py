"""Training and evaluation on mmengine; importing this registers the hooks and the optimiser wrapper."""

from danseg.engine import bfloat16_optim_wrapper, hooks  # noqa: F401  (registration)
