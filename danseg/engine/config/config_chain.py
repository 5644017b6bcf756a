"""Read a config file with its bases; a name acts on all that was computed from it, wherever it is set.

Configs are mmengine's text configs: programs, each run after its bases, whose dicts are merged into theirs.
A base computes with names of its own: ``crop_size``, ``max_iters``, ``norm_cfg``, ``train_pipeline``. Were
a file to set such a name anew, mmengine would change the name alone, which nothing reads, and not what the
base made of it.

Here the bases run again with the value that a file above them gives to the name, or the command line. What
a file sets in its place, such as ``train_dataloader.dataset.pipeline``, still wins over what its bases
compute. Within the file that sets a name, ``_base_.NAME`` is what the bases say themselves, so that a file
can double it.

A value can also be put beneath a config: a base that sets the name before any other file does then begins
with that value, as if it were written there, and every file above may change it.

The recipes that mmseg publishes in its package are what mmseg makes of them.
"""

import ast
import copy
import os
import tempfile
import types
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict

from danseg.engine.config.config_names import is_read
from danseg.engine.config.find_config import find_base
from danseg.engine.config.run_length import follow_length
from danseg.errors import UserError
from danseg.shipped import shipped

Values = dict[str, Any]


class File(NamedTuple):
    """One file of a chain.

    Attributes:
        values: what it has at its top level, its bases included.
        own: what it sets itself, before that is merged with its bases.
        inherited: what its bases have; of the names that it sets, what they say themselves.
        used: names that its program reads, its own or, as ``_base_.NAME``, those of its bases.
    """

    values: Values
    own: Values
    inherited: Values
    used: frozenset[str]


class _Program(NamedTuple):
    tree: ast.Module
    bases: list[tuple[str, str | None]]  # path and, for a file of a package, mmengine's scope
    used: frozenset[str]


class Chain:
    """A config file and all files below it.

    Args:
        path: the file.
        beneath: values of names for the base that sets them first; not for the file itself.

    Attributes:
        files: every file that was read, the bases of a file before it.
    """

    def __init__(self, path: Path, beneath: Values | None = None) -> None:
        self.path = Path(os.path.abspath(path))
        self.beneath = beneath or {}
        self.files: dict[Path, File] = {}
        self._programs: dict[Path, _Program] = {}
        self._read_before: dict[tuple[Path, str], Values] = {}

    def read(self, given: Values | None = None) -> Values:
        """The values of the file, where the names of ``given`` have these values in all its bases, too.

        Raises:
            UserError: what a file sets cannot be read, or its bases cannot compute with it.
        """
        return copy.deepcopy(self._read(self.path, given or {}))

    def _read(self, path: Path, given: Values) -> Values:
        if given:
            # What has no such name need not run again.
            names = given.keys() & self._read(path, {}).keys()
            given = {name: given[name] for name in names}
        known = path, repr(sorted(given.items()))
        if known not in self._read_before:
            self._read_before[known] = self._settled(path, given)
        return self._read_before[known]

    def _settled(self, path: Path, given: Values) -> Values:
        """Run a file until its bases have all names that it sets. Names may depend on one another."""
        if path not in self._programs:
            self._programs[path] = _program(path)
        program = self._programs[path]
        published = is_published(path)
        changed: Values = {}
        for _ in range(10):
            inherited, view = self._bases(path, given, changed)
            first = {} if path == self.path else {n: v for n, v in self.beneath.items() if n not in view}
            values, own = _run(program.tree, path, view, {**first, **given})
            now = {
                name: values[name]
                for name in inherited
                if not published and not is_read(name) and name not in given and values[name] != view[name]
            }
            for name, value in now.items():
                check_kind(f"config {path}: {name}", value, view[name])
            if now == changed:
                break
            changed = now
        else:
            raise UserError(f"config {path}: {', '.join(changed)} change with one another without an end")
        for name in given.keys() & values.keys():
            values[name] = copy.deepcopy(given[name])
        if not published:
            follow_length(inherited, values, path, own, changed.keys() | given.keys())
        self.files[path] = File(values, own, view, program.used)
        return values

    def _bases(self, path: Path, given: Values, changed: Values) -> tuple[Values, Values]:
        """What the bases of a file have: with the names that it sets, and as the file sees it."""
        try:
            inherited = self._together(path, {**changed, **given})
            view = dict(inherited)
            for name in changed:
                others = {other: value for other, value in changed.items() if other != name}
                view[name] = self._together(path, {**others, **given})[name]
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            if not changed:
                raise
            names = ", ".join(f"{name}={value!r}" for name, value in changed.items())
            raise UserError(
                f"config {path} sets {names}, with which its bases cannot compute: "
                f"{type(error).__name__}: {error}"
            ) from error
        return inherited, view

    def _together(self, path: Path, given: Values) -> Values:
        together: Values = {}
        for base, scope in self._programs[path].bases:
            if Config._is_lazy_import(base):
                values = dict(Config.fromfile(base, import_custom_modules=False).items())
            else:
                values = self._read(Path(os.path.abspath(base)), given)
            twice = together.keys() & values.keys()
            if twice:
                raise UserError(f"config {path}: several of its bases set {', '.join(sorted(twice))}")
            together.update(Config._dict_to_config_dict(values, scope))
        return together


def is_published(path: Path) -> bool:
    """Whether a config belongs to another package of the mm family, all of which keep theirs there."""
    return ".mim" in path.parts and not path.resolve().is_relative_to(shipped("configs"))


# What the two numbers of a name are, for messages.
_PAIRS = {
    "crop_size": "height and width, as in crop_size=(512,1024)",
    "image_scale": "width and height, as in image_scale=(2048,1024)",
}


def check_kind(what: str, new: Any, old: Any) -> None:
    """Refuse it if a name held two whole numbers, or may hold them, and now holds something else.

    Args:
        what: the name, behind where it is set.
        new: its value.
        old: what the bases give it.
    """
    name = what.split()[-1]
    if _is_pair(old) or (old is None and name in _PAIRS and new is not None):
        if not _is_pair(new):
            give = _PAIRS.get(name, f"two whole numbers above 0, such as {old}")
            raise UserError(f"{what}={new!r}: give {give}")


def _is_pair(value: Any) -> bool:
    pair = isinstance(value, (list, tuple)) and len(value) == 2
    return pair and all(type(number) is int and number > 0 for number in value)


def _program(path: Path) -> _Program:
    """Parse a file, after mmengine has filled in what stands in double braces."""
    text = path.read_text(encoding="utf-8")
    if "{{" in text:
        with tempfile.TemporaryDirectory() as folder:
            filled = Path(folder, path.name)
            Config._substitute_predefined_vars(str(path), str(filled))
            Config._substitute_env_variables(str(filled), str(filled))
            text = filled.read_text(encoding="utf-8")
    tree = _BaseValues().visit(ast.parse(text, str(path)))
    names = Config._get_base_files(str(path))
    for name in names:
        if not isinstance(name, str):
            raise UserError(f"config {path}: _base_={name!r}: give the name of a file, or a list of names")
    bases = [
        (str(ours), None) if (ours := find_base(name)) else Config._get_cfg_path(name, str(path))
        for name in names
    ]
    for base, _ in bases:
        if not Path(base).is_file():
            raise FileNotFoundError(base)
        if not base.endswith(".py"):  # mmengine's reader of YAML runs the code that a file names
            raise UserError(
                f"config {path}: its base {base} is no Python file; write what it sets into a .py file"
            )
    used = {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    of_bases = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_base(node.value)
    }
    return _Program(tree, bases, frozenset(used | of_bases))


class _BaseValues(ast.NodeTransformer):
    """Reads ``{{_base_.NAME}}``, for Python a set in a set, as ``_base_.NAME``; drops ``_base_ = ...``."""

    def visit_Set(self, node: ast.Set) -> ast.AST:
        inner = node.elts[0]
        if isinstance(inner, ast.Set) and isinstance(inner.elts[0], ast.Attribute):
            return inner.elts[0]
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        return None if any(map(_is_base, node.targets)) else self.generic_visit(node)


def _is_base(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "_base_"


def _run(tree: ast.Module, path: Path, base: Values, given: Values) -> tuple[Values, Values]:
    """Run one file over its bases.

    Returns:
        Its values, merged with those of its bases, and those that it sets itself.
    """
    # As soon as the program has used or set a name that is given, it gets its value.
    body: list[ast.stmt] = []
    for statement in tree.body:
        body.append(statement)
        mentioned = (
            {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)} if given else set()
        )
        for name in sorted(mentioned & given.keys()):
            body += ast.parse(f"{name} = __given__({name!r})").body
    names: Values = {
        "_base_": ConfigDict(copy.deepcopy(base)),
        "__given__": lambda name: copy.deepcopy(given[name]),
    }
    exec(compile(ast.Module(body, tree.type_ignores), str(path), "exec"), names)  # noqa: S102
    changed_base = names.pop("_base_")
    kinds = (types.ModuleType, types.FunctionType)
    own = {n: v for n, v in names.items() if not n.startswith("__") and not isinstance(v, kinds)}
    Config._parse_scope(own)
    config = Config(changed_base)
    config.merge_from_dict(copy.deepcopy(own), allow_list_keys=False)
    return dict(config.items()), own
