"""Decode heads, registered in mmseg's ``MODELS``; one file per network."""

from danseg.errors import require_mmseg

require_mmseg("danseg.heads")

from danseg.heads.attention_head import AttentionHead  # noqa: E402
from danseg.heads.ccnet import CCNetHead  # noqa: E402
from danseg.heads.danet import DANetHead  # noqa: E402
from danseg.heads.dnlnet import DNLNetHead  # noqa: E402
from danseg.heads.epsanet import EPSANetHead  # noqa: E402
from danseg.heads.fcn import FullyConvolutionalHead  # noqa: E402
from danseg.heads.gcnet import GCNetHead  # noqa: E402
from danseg.heads.isanet import ISANetHead  # noqa: E402
from danseg.heads.nonlocal_net import NonLocalHead  # noqa: E402
from danseg.heads.psanet import PSANetHead  # noqa: E402
from danseg.heads.psda import PSDAHead  # noqa: E402

__all__ = [
    "AttentionHead",
    "CCNetHead",
    "DANetHead",
    "DNLNetHead",
    "EPSANetHead",
    "FullyConvolutionalHead",
    "GCNetHead",
    "ISANetHead",
    "NonLocalHead",
    "PSANetHead",
    "PSDAHead",
]
