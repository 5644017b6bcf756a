"""Read a YAML file of plain data, strictly: what YAML would take silently for something else is an error.

Refused, beside what YAML itself refuses: a key that occurs twice, of which YAML keeps the last; aliases, with
which a file of a kilobyte can stand for gigabytes; tags that make objects; anything but a mapping at the top.
"""

import os
from typing import Any

import yaml

from danseg.errors import UserError, reason_of
from danseg.io.source_files import read_file

_LARGEST = 2**20  # bytes: a description of a data set has some thousands


class _StrictLoader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.MarkedYAMLError(
                problem="an alias (*name); write it out", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, (key, (key_node, _)) in enumerate(zip(keys, node.value, strict=True)):
            if key in keys[:place]:
                raise yaml.MarkedYAMLError(
                    problem=f"{key!r} occurs twice in a mapping", problem_mark=key_node.start_mark
                )
        return super().construct_mapping(node, deep)


def read_yaml(path: str | os.PathLike) -> dict[Any, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: the file is missing, is no UTF-8, no YAML of plain data or no mapping, or is refused for a
            reason in the module's docstring.
    """
    try:
        data = read_file(path)
        if len(data) > _LARGEST:
            raise ValueError(f"it has {len(data)} bytes, of which at most {_LARGEST} are read")
        content = yaml.load(data.decode("utf-8-sig"), _StrictLoader)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); save it so") from error
    except (OSError, RecursionError, ValueError) as error:  # ValueError: a number or date that is none
        raise UserError(f"{path} cannot be read: {reason_of(error)}") from error
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{path} is no YAML of plain data: {where}{error.problem}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {type(content).__name__} at its top, not a mapping of keys to values")
    return content
