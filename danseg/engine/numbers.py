"""What counts as a number in configs and checkpoints."""

from typing import Any, TypeGuard


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is an int or a float; True and False, which Python counts among them, are none here."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
