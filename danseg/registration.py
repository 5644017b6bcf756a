"""Importing this module registers all of danseg with mmseg. mmseg's registries import it when first used."""

from danseg.errors import require_mmseg

require_mmseg("danseg.registration")

from danseg import (  # noqa: E402, F401  (registration)
    backbones,
    datasets,
    engine,
    evaluation,
    heads,
    registry,
    segmentors,
    visualization,
)
from danseg.export import exported_network  # noqa: E402, F401
