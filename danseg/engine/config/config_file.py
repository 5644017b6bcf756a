"""Read a config file and apply ``--cfg-options`` to it, with errors that name the fix.

What a name of a base acts on is in :mod:`danseg.engine.config.config_chain`, what follows from a new length
in :mod:`danseg.engine.config.run_length`, how values are read from a command line in
:mod:`danseg.engine.config.cfg_options`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from danseg.engine.config.config_chain import Chain, File, check_kind, is_published
from danseg.engine.config.config_names import READ, about_dead_name, is_read, places_of
from danseg.engine.config.find_config import find_config
from danseg.engine.config.kinds import wrong_at_the_top
from danseg.engine.config.nested import holds, nest, value_at, with_value
from danseg.engine.config.own_data import (
    NOTE,
    Setting,
    given_names,
    note,
    require_recipe,
    settings_from,
)
from danseg.engine.config.run_length import follow_length
from danseg.engine.config.stored_config import carried_config
from danseg.errors import UserError
from danseg.io.words import did_you_mean
from danseg.model_files import CHECKPOINTS, is_exported_file, is_model_file


def load_config(
    path: str | Path, options: Mapping[str, Any] | None = None, data: str | None = None
) -> Config:
    """Read a config and apply command-line options to it.

    A name with which the config or its bases compute, as ``crop_size`` or ``max_iters``, acts on all that is
    computed from it, set by a file or by an option.

    Args:
        path: the config: a file, or the name of one of danseg's
            (:func:`danseg.engine.config.find_config.find_config`), or a checkpoint that carries its config
            (:func:`danseg.engine.config.stored_config.carried_config`), or the address of one.
        options: ``{"dotted.key": value}``, as :func:`danseg.engine.config.cfg_options.parse_options` gives.
            They are applied in order; what is set in its place wins over what is computed.
        data: a data set of one's own for a config on a ``folder`` recipe, as the option ``--data`` of the
            tools: :mod:`danseg.engine.config.own_data`. What follows from it is beneath all else.

    Raises:
        UserError: the file is missing (the message suggests the nearest name), its ``_base_`` is
            missing, it does not parse, it sets a name that nothing reads but that looks as if it were read,
            an option names a place that the config does not have, one option undoes another, or ``data`` is
            none or not for this config, or a checkpoint carries no config that can be read as data.
    """
    if is_exported_file(path):
        raise UserError(
            f"{path} is an exported network, which danseg.apis.load_model takes, and python "
            "tools/predict.py, tools/test.py and tools/analyze.py; here name a config in its place"
        )
    if is_model_file(path):
        return with_options(carried_config(path), options, data)
    path = find_config(path)
    if path.suffix != ".py":
        raise UserError(
            f"config {path} has the suffix {path.suffix!r}; configs are Python files (.py), or checkpoints "
            f"that carry theirs ({', '.join(CHECKPOINTS)})"
        )
    chain, values = _read(path)
    settings: dict[str, Setting] = {}
    if data is not None:
        require_recipe(path, values, chain.files[chain.path].inherited if chain else {})
        settings = settings_from(data)
        chain, values = _read(path, beneath=given_names(settings))
    if chain:
        _refuse_dead_names(chain.files)
    if options:
        values = _with_options(path, chain, values, dict(options))
    if data is not None:
        values[NOTE] = note(settings, values, data, path)
    wrong = list(wrong_at_the_top(values))
    if wrong:
        raise UserError(f"config {path}: {'; '.join(wrong)}")
    try:
        if values.get("custom_imports"):
            import_modules_from_strings(**values["custom_imports"])
    except (ImportError, TypeError) as error:
        raise UserError(f"config {path}: custom_imports={values['custom_imports']}: {error}") from error
    return Config(values, filename=str(path))


def with_options(config: Config, options: Mapping[str, Any] | None = None, data: str | None = None) -> Config:
    """A config that a file of a network carries, with the options of a tool; see :func:`load_config`."""
    if data is not None:
        raise UserError(
            f"--data is for configs on a folder recipe; {config.filename} carries a config with all values "
            "written out: leave --data out, or name the config in configs before the checkpoint"
        )
    if not options:
        return config
    return Config(
        _with_options(Path(config.filename), None, config.to_dict(), dict(options)),
        cfg_text=config.text,
        filename=config.filename,
    )


def _read(path: Path, beneath: dict[str, Any] | None = None) -> tuple[Chain | None, dict[str, Any]]:
    """A config's chain, unless it is one of mmengine's lazy ones, and its values."""
    try:
        if Config._is_lazy_import(str(path)):
            return None, dict(Config.fromfile(path).items())
        chain = Chain(path, beneath)
        return chain, chain.read()
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"config {path} refers to a file that does not exist: {error}") from error
    except Exception as error:  # a config is a program: it can raise anything
        raise UserError(f"config {path} cannot be read: {type(error).__name__}: {error}") from error


def _refuse_dead_names(files: Mapping[Path, File]) -> None:
    """Refuse what a file sets, nothing reads, and its writer must have thought something would read.

    Other variables that a file does not use are its own affair.
    """
    used = {name for content in files.values() for name in content.used}
    for file, content in files.items():
        if is_published(file):
            continue  # nobody can mend it there
        for name in content.own.keys() - READ - content.inherited.keys() - used:
            hint = about_dead_name(name, content.inherited, content.values)
            if hint and not _is_written_out(content.own[name], content.values):
                raise UserError(f"config {file} sets {name}, which nothing reads{hint}")


def _is_written_out(helper: Any, values: Mapping[str, Any]) -> bool:
    """Whether what a name holds stands in a place that a run reads, as in the config that training writes."""
    read = {name: value for name, value in values.items() if is_read(name)}
    return (
        isinstance(helper, (dict, list))
        and bool(helper)
        and any(value_at(read, place) == helper for place in places_of(read))
    )


def _with_options(path: Path, chain: Chain | None, values: dict, options: dict[str, Any]) -> dict:
    """The values of a config with options, those first with which it computes."""
    given: dict[str, Any] = {}
    for key, value in options.items():
        _check_key(values, key, path)
        name, *below = key.split(".")
        if not is_read(name):
            given[name] = with_value(given.get(name, values.get(name)), below, value, key)
    for name, value in given.items():
        check_kind(f"--cfg-options {name}", value, values.get(name))
        if isinstance(values.get(name), tuple) and isinstance(value, list):
            given[name] = tuple(value)
    before = _compute_again(path, chain, values, given)
    after = before
    for key, value in options.items():
        if is_read(key.split(".")[0]):
            after = with_value(after, key.split("."), value, key)
    for key, value in options.items():
        if not holds(value_at(after, key), value):
            raise UserError(f"--cfg-options {key}={value!r} is undone by another option; give one of them")
    own: dict = {}
    for key, value in options.items():
        nest(own, key.split("."), value)
    follow_length(before, after, "--cfg-options", own, given)
    return after


def _compute_again(path: Path, chain: Chain | None, values: dict, given: dict[str, Any]) -> dict:
    """The values of a config whose names have been given other values.

    Raises:
        UserError: the config cannot compute with them, or nothing changes.
    """
    for name in [name for name, value in given.items() if value != values.get(name)]:
        try:
            one = chain.read({name: given[name]}) if chain else values
        except UserError:
            raise
        except Exception as error:  # a config is a program: it can raise anything
            raise UserError(
                f"--cfg-options {name}={given[name]!r}: {path} cannot compute with it: "
                f"{type(error).__name__}: {error}"
            ) from error
        if all(one[other] == values.get(other) for other in one if other != name):
            places = [place for place in places_of(values) if place.endswith(f".{name}")]
            where = f"; set {' or '.join(places[:3])} instead" if places else ""
            raise UserError(
                f"--cfg-options {name}: nothing in {path} is computed from this name, and nothing reads it, "
                f"so changing it would change nothing{where}"
            )
    return chain.read(given) if chain else values


def _check_key(values: dict, key: str, path: Path) -> None:
    """Refuse a dotted key that the config has no place for.

    The last name may be new: it may be an argument that the config leaves at its default. A parent may be new
    if its name does not resemble an existing one (``optim_wrapper.clip_grad.max_norm`` in a config without
    ``clip_grad``).
    """
    names = key.split(".")
    known_top = {*values, *READ}
    if names[0] not in known_top:
        hint = did_you_mean(names[0], known_top)
        raise UserError(f"--cfg-options {key}: {path} has no {names[0]!r} at its top level{hint}")
    node: Any = values
    for depth, name in enumerate(names):
        here = ".".join(names[:depth])
        last = depth == len(names) - 1
        if isinstance(node, (list, tuple)):
            if not name.isdigit() or int(name) >= len(node):
                raise UserError(
                    f"--cfg-options {key}: {here} is a list of {len(node)}; {name!r} is not an index into it"
                )
            node = node[int(name)]
        elif isinstance(node, dict):
            if name not in node:
                hint = did_you_mean(name, node)
                if not last and hint:
                    raise UserError(f"--cfg-options {key}: {here or path} has no {name!r}{hint}")
                return
            node = node[name]
        elif node is None:
            return  # for example clip_grad=None, when the option is clip_grad.max_norm
        else:
            raise UserError(f"--cfg-options {key}: {here} is {node!r}, which has nothing below it to set")
