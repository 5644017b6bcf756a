"""A check of arguments that several modules share."""


def check_at_least_one(**counts: int) -> None:
    """Refuse counts below 1.

    Raises:
        ValueError: naming the first such argument and its value.
    """
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
