"""A reader of the pages, in a folder of their own, who types what stands there on a set of a few frames.

What differs from the pages is told to the programs in options behind those of the page: a network of a few
channels, small frames, few iterations.
"""

import shutil
from pathlib import Path
from types import ModuleType
from typing import Protocol

import torch

from danseg.apis import load_model
from danseg.engine.config.cfg_options import parse_options
from danseg.engine.config.config_file import load_config
from documents import ROOT

NETWORK = (
    *("model.pretrained=None", "model.backbone.depth=18"),
    *("model.backbone.base_channels=8", "model.backbone.stem_channels=8"),
    *("model.decode_head.in_channels=64", "model.decode_head.channels=16"),
    *("model.auxiliary_head.in_channels=32", "model.auxiliary_head.channels=8"),
)
SIZES = ("crop_size=(32,64)", "image_scale=(128,64)", "tta_ratios=(0.5,1.0)")
LOADERS = tuple(f"{split}_dataloader.num_workers=0" for split in ("train", "val", "test"))
LENGTH = ("max_iters=4", "default_hooks.checkpoint.interval=2", "default_hooks.checkpoint.max_keep_ckpts=-1")
SMALL = (*NETWORK, *SIZES, *LOADERS)
TRIAL = ("--seed", "0", "--cfg-options", *SMALL, *LENGTH)


class Tool(Protocol):
    def __call__(self, name: str) -> ModuleType: ...


def at_home(folder: Path, rendered_root: str) -> Path:
    """Give a folder what a clone has, the configs, and the small set as Cityscapes and as the demo's."""
    (folder / "configs").symlink_to(ROOT / "configs")
    for name in ("cityscapes", "demo"):
        shutil.copytree(rendered_root, folder / "data" / name)
    return folder


def checkpoint(config: str | Path, path: str | Path, data: str | None = None) -> None:
    """Write weights that nobody has trained, of the small network of a config."""
    torch.manual_seed(0)
    model = load_model(load_config(config, parse_options(list(SMALL)), data), None, "cpu")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
