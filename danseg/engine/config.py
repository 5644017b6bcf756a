"""Read a config file and apply ``--cfg-options`` to it, with errors that name the fix.

Configs are mmengine's text configs. A text config computes ``{{_base_.num_classes}}`` when the file is read.
Changing such an exported name afterwards would not change the values computed from it. :func:`load_config`
therefore copies a changed ``data_root``, ``image_scale``, ``crop_size`` or ``num_classes`` to every place
that depends on it.
"""

import ast
import difflib
import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from danseg.errors import UserError

# Top-level names of a config that a run reads, besides the arguments of mmengine's Runner.
_OTHER_TOP_LEVEL_KEYS = {
    "activation_checkpointing",
    "compile",
    "custom_imports",
    "efficient_conv_bn_eval",
    "find_unused_parameters",
    "model_wrapper_cfg",
    "prepare_command",
    "recompute",
    "sync_bn",
    "tta_model",
    "tta_pipeline",
    "vis_backends",
}

_RESIZING = {"LoadTrainingCrop", "RandomResize", "Resize"}  # transforms whose scale is image_scale


def parse_options(items: Sequence[str]) -> dict[str, Any]:
    """Turn ``["a.b=1", "c=(2,3)"]`` into ``{"a.b": 1, "c": (2, 3)}``.

    Values follow mmengine's ``--cfg-options`` (numbers, booleans, None, strings, lists and tuples);
    a value in braces is read as a Python dict.

    Raises:
        UserError: an item is not ``key=value`` or its brackets do not match.
    """
    options = {}
    for item in items:
        key, separator, value = item.partition("=")
        if not separator or not key:
            raise UserError(
                f"--cfg-options got {item!r}; give key=value, for example train_dataloader.batch_size=4"
            )
        try:
            is_dict = value.strip().startswith("{")
            options[key] = ast.literal_eval(value) if is_dict else DictAction._parse_iterable(value)
        except (AssertionError, SyntaxError, ValueError) as error:
            raise UserError(f"--cfg-options cannot read the value of {item!r}: {error}") from error
    return options


def load_config(path: str | Path, options: dict[str, Any] | None = None) -> Config:
    """Read a config and apply command-line options to it.

    Args:
        path: the config file.
        options: ``{"dotted.key": value}``, as :func:`parse_options` gives.

    Raises:
        UserError: the file is missing (the message suggests the nearest name), its ``_base_`` is
            missing, it does not parse, or an option names a place that the config does not have.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(_missing_config_message(path))
    if path.suffix != ".py":
        raise UserError(f"config {path} has the suffix {path.suffix!r}; configs are Python files (.py)")
    try:
        config = Config.fromfile(str(path))
    except FileNotFoundError as error:
        raise UserError(f"config {path} refers to a file that does not exist: {error}") from error
    except Exception as error:  # a config is a program: it can raise anything
        raise UserError(f"config {path} cannot be read: {type(error).__name__}: {error}") from error
    if options:
        for key in options:
            _check_key(config, key, path)
        before = {key: config.get(key) for key in options if key in _EXPORTED}
        try:
            config.merge_from_dict(options)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"--cfg-options {options} do not fit {path}: {error}") from error
        for key, old in before.items():
            _EXPORTED[key](config, old, options[key])
    return config


def _missing_config_message(path: Path) -> str:
    """Say that ``path`` does not exist, and suggest the configs with the most similar names."""
    known: dict[str, Path] = {}
    for root in (path.parent, Path("configs"), Path(__file__).parents[2] / "configs"):
        if root.is_dir():
            for file in sorted(root.glob("*.py")):
                known.setdefault(file.stem, file)
    nearest = difflib.get_close_matches(path.stem, known, n=3, cutoff=0.5)
    if nearest:
        names = ", ".join(str(known[name]) for name in nearest)
        return f"config {path} does not exist; did you mean {names}?"
    if known:
        return f"config {path} does not exist; there are: {', '.join(map(str, known.values()))}"
    return f"config {path} does not exist (looked for it from {Path.cwd()})"


def _check_key(config: Config, key: str, path: Path) -> None:
    """Refuse a dotted key that the config has no place for; a parent that is None becomes a dict.

    The last name may be new: it may be an argument that the config leaves at its default. A parent may be new
    if its name does not resemble an existing one (``optim_wrapper.clip_grad.max_norm`` in a config without
    ``clip_grad``).
    """
    names = key.split(".")
    read = set(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"} | _OTHER_TOP_LEVEL_KEYS
    known_top = set(config.keys()) | read
    if names[0] not in known_top:
        hint = _did_you_mean(names[0], known_top)
        raise UserError(f"--cfg-options {key}: {path} has no {names[0]!r} at its top level{hint}")
    if len(names) == 1 and names[0] in set(config.keys()) - read - set(_EXPORTED):
        places = [place for place in _places(config) if place.endswith(f".{key}")]
        where = f"; set {' or '.join(places[:3])} instead" if places else ""
        raise UserError(
            f"--cfg-options {key}: nothing reads this name after {path} has computed with it, "
            f"so changing it here would change nothing{where}"
        )
    node: Any = config
    for depth, name in enumerate(names):
        here = ".".join(names[:depth])
        last = depth == len(names) - 1
        if isinstance(node, (list, tuple)):
            if not name.isdigit() or int(name) >= len(node):
                raise UserError(
                    f"--cfg-options {key}: {here} is a list of {len(node)}; {name!r} is not an index into it"
                )
            node = node[int(name)]
        elif isinstance(node, (dict, Config)):
            if name not in node:
                hint = _did_you_mean(name, node.keys())
                if not last and hint:
                    raise UserError(f"--cfg-options {key}: {here or path} has no {name!r}{hint}")
                return
            if node[name] is None and not last:
                node[name] = {}  # for example clip_grad=None, when the option is clip_grad.max_norm
            node = node[name]
        else:
            raise UserError(f"--cfg-options {key}: {here} is {node!r}, which has nothing below it to set")


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, [str(key) for key in known], n=1, cutoff=0.7)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def _places(node: Any, at: str = "") -> Iterable[str]:
    """Yield every dotted key of a config."""
    for name, child in node.items() if isinstance(node, (dict, Config)) else ():
        yield f"{at}{name}"
        yield from _places(child, f"{at}{name}.")


def _dicts(node: Any) -> Iterable[dict]:
    """Yield every dict inside a config, at any depth."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from _dicts(child)


def _replace(config: Config, key: str, old: Any, new: Any) -> None:
    for node in _dicts(config._cfg_dict):
        if key in node and node[key] == old:
            node[key] = new


def _carry_data_root(config: Config, old: Any, new: Any) -> None:
    _replace(config, "data_root", old, new)


def _carry_num_classes(config: Config, old: Any, new: Any) -> None:
    _replace(config, "num_classes", old, new)


def _carry_crop_size(config: Config, old: Any, new: Any) -> None:
    """Apply a new ``crop_size`` to training crop, data preprocessor's padding and sliding window."""
    if not isinstance(new, (list, tuple)) or len(new) != 2 or not all(isinstance(n, int) for n in new):
        raise UserError(f"--cfg-options crop_size={new!r}: give height and width, as in crop_size=(512,1024)")
    old, new = tuple(old), tuple(new)
    config.crop_size = new
    for node in _dicts(config._cfg_dict):
        if isinstance(node.get("crop_size"), (list, tuple)) and tuple(node["crop_size"]) == old:
            node["crop_size"] = new
            if "stride" in node:
                # Keep the overlap between windows; an unchanged stride could leave gaps.
                node["stride"] = tuple(
                    max(1, s * n // o) for s, n, o in zip(node["stride"], new, old, strict=True)
                )
    preprocessor = config.get("model", {}).get("data_preprocessor")
    if preprocessor and preprocessor.get("size") and tuple(preprocessor["size"]) == old:
        preprocessor["size"] = new


def _carry_image_scale(config: Config, old: Any, new: Any) -> None:
    """Apply a new ``image_scale`` to every resizing in the pipelines; --tta's scales stay in proportion."""
    if not isinstance(new, (list, tuple)) or len(new) != 2 or not all(isinstance(n, int) for n in new):
        raise UserError(
            f"--cfg-options image_scale={new!r}: give width and height, as in image_scale=(2048,1024)"
        )
    for node in _dicts(config._cfg_dict):
        if node.get("type") in _RESIZING and isinstance(node.get("scale"), (list, tuple)):
            node["scale"] = tuple(
                max(1, round(side * n / o)) for side, n, o in zip(node["scale"], new, old, strict=True)
            )


_EXPORTED = {
    "crop_size": _carry_crop_size,
    "data_root": _carry_data_root,
    "image_scale": _carry_image_scale,
    "num_classes": _carry_num_classes,
}
