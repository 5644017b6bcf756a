"""The configs that the table of recipes trains: which there are, and what it changes of them.

Nothing here imports torch or mmengine, so that the first training starts at once.
"""

import ast
import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
# What a benchmark changes of a recipe: the last validation alone counts, and one checkpoint is enough.
FOR_BENCHMARK = """
train_cfg = dict(val_interval=_base_.max_iters)
default_hooks = dict(
    checkpoint=dict(interval=max(1, _base_.max_iters // 4), max_keep_ckpts=1, save_best=None),
    logger=dict(interval=min(20, _base_.max_iters)),
)
"""


def leaves() -> dict[tuple[str, str], Path]:
    """The configs with a ResNet-18, by network and data set."""
    names = {path: path.stem.split("_r18_") for path in sorted(CONFIGS.glob("*_r18_*.py"))}
    return {(head, dataset): path for path, (head, dataset) in names.items()}


def heads() -> list[str]:
    """The networks that have such a config, the one without attention first."""
    return sorted({head for head, _ in leaves()}, key=lambda head: (head != "fcn", head))


def datasets() -> list[str]:
    return sorted({dataset for _, dataset in leaves()})


def config_text(head: str, dataset: str) -> str:
    """The config of a training: its leaf or, where there is none, another data set's leaf on this recipe."""
    known = leaves()
    own = ""
    base = known.get((head, dataset))
    if base is None:
        tree = ast.parse(next(path for (name, _), path in known.items() if name == head).read_text())
        rest = [one for one in tree.body if not ast.unparse(one).startswith("_base_ =")]
        own = f"\n{ast.unparse(ast.Module(rest, []))}\n"
        base = CONFIGS / "_base_" / "recipes" / f"{dataset}.py"
    return f"_base_ = {str(base)!r}\n{own}{FOR_BENCHMARK}"


def fingerprint(text: str) -> str:
    """A hash of a config, of the leaf below it and of all bases."""
    below = [*re.findall(r"_base_ = '(.*)'", text), *sorted(CONFIGS.glob("_base_/**/*.py"))]
    contents = [text.replace(str(ROOT), "")] + [Path(path).read_text() for path in below]
    return hashlib.sha256("\0".join(contents).encode()).hexdigest()[:16]
