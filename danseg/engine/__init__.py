"""Training and evaluation on mmengine; importing this registers the hooks and the optimiser wrapper."""

from danseg.engine import hooks, precision, random_state  # noqa: F401  (registration)
