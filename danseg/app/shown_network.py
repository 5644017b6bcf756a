"""A network that a page shows, and the pictures of its test set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danseg.apis import Exploration, explore
from danseg.apis.exploration import require_attention_to_show
from danseg.apis.model import tested_dataset
from danseg.apis.predict import InputPipeline
from danseg.datasets.check_files import build_dataset, list_pairs, require_folders
from danseg.engine.out_of_memory import explaining_memory
from danseg.errors import UserError


@dataclass(frozen=True)
class ShownNetwork:
    """A network whose attention can be shown.

    Args:
        model: from :func:`danseg.apis.load_model` or :func:`danseg.apis.prepare_for_inference`.
        name: what the page calls it.

    Raises:
        UserError: it has no attention to show, is exported, or loads pictures by their paths alone.
    """

    model: Any
    name: str

    def __post_init__(self) -> None:
        require_attention_to_show(self.model)
        InputPipeline(self.model).require_contents("a page")

    def explore(self, picture: bytes) -> Exploration:
        """One pass of the content of a picture's file."""
        with explaining_memory("choose a smaller picture"):
            return explore(self.model, picture)


def pictures_of_the_set(config: Any) -> tuple[list[Path], str]:
    """The pictures of the set that a config tests on, and why there are none, if so."""
    try:
        dataset = build_dataset(tested_dataset(config), "test")
        where = "the set that the config tests on"
        require_folders(dataset, where, config.get("prepare_command"), with_labels=False)
        pairs = list_pairs(dataset, where, config.get("prepare_command"), with_labels=False)
    except UserError as error:
        return [], str(error)
    return [Path(image) for image, _ in pairs], ""


def names_of(trained: Sequence[tuple[str, str]]) -> list[str]:
    """What to call networks, given their configs and checkpoints: by both where the config is shared."""
    stems = [Path(config).name.removesuffix(".py") for config, _ in trained]
    return [
        stem if stems.count(stem) == 1 else f"{stem} ({Path(checkpoint).name})"
        for stem, (_, checkpoint) in zip(stems, trained, strict=True)
    ]
