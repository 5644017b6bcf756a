"""Read ``--cfg-options KEY=VALUE ...``: values are Python where they can be, and text as typed otherwise.

``3``, ``1e-3``, ``(512,1024)``, ``['a','b']``, ``{'type':'EMAHook'}``, ``dict(type='EMAHook')``, ``None``
and ``'text'`` are Python; so are ``true`` and ``false`` in any case of letters. Text keeps its spaces,
commas, quotes and backslashes. A value that starts with a bracket is Python or refused. Inside brackets
single words are texts, because shells take quotes away: ``[a,b]``.
"""

import ast
import io
import tokenize
import warnings
from collections.abc import Sequence
from typing import Any

from danseg.engine.numbers import is_number
from danseg.errors import UserError


def parse_options(items: Sequence[str]) -> dict[str, Any]:
    """Turn ``["a.b=1", "c=(2,3)"]`` into ``{"a.b": 1, "c": (2, 3)}``, in the order given.

    Raises:
        UserError: an item is not ``key=value``, its brackets hold no Python, or a key is given two values.
    """
    options: dict[str, Any] = {}
    for item in items:
        key, separator, text = item.partition("=")
        key = key.strip()
        if not separator or not all(key.split(".")):
            raise UserError(
                f"--cfg-options got {item!r}; give key=value, for example train_dataloader.batch_size=4"
            )
        value = _value(item, text)
        if key in options and options[key] != value:
            raise UserError(
                f"--cfg-options gives {key} twice, as {options[key]!r} and as {value!r}; keep one"
            )
        options[key] = value
    return options


def _value(item: str, text: str) -> Any:
    if text.strip().lower() in ("true", "false"):
        return text.strip().lower() == "true"
    bracketed = text.strip().startswith(("(", "[", "{", "dict("))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a backslash in a quoted text
            tree = ast.parse(text.strip(" \t"), mode="eval")
            value = _python(tree.body, inside=bracketed)
        tokens = list(tokenize.generate_tokens(io.StringIO(text.strip(" \t")).readline))
        if any(token.type == tokenize.COMMENT for token in tokens):
            raise ValueError("what follows # would be lost")
        return text if is_number(value) and "_" in text else value  # 2026_01 is a folder's name
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError, tokenize.TokenError) as error:
        if bracketed:
            reason = error.msg if isinstance(error, SyntaxError) else error
            raise UserError(
                f"--cfg-options cannot read the value of {item!r}: {reason}. A value that starts with a "
                f"bracket is read as Python, with texts in quotes; quote it whole if it is a text: "
                f'"{item.partition("=")[0]}={text!r}"'
            ) from error
        return text


def _python(node: ast.AST, *, inside: bool) -> Any:
    """The value of an expression: what a config may hold, written out.

    Raises:
        ValueError: the expression is more than that.
    """
    if isinstance(node, ast.Constant):
        return _constant(node)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        number = _python(node.operand, inside=False)
        if is_number(number):
            return -number if isinstance(node.op, ast.USub) else number
    if isinstance(node, (ast.List, ast.Tuple)):
        items = [_python(item, inside=inside) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Dict) and None not in node.keys:
        keys = [_python(key, inside=inside) for key in node.keys if key is not None]
        return dict(zip(keys, (_python(value, inside=inside) for value in node.values), strict=True))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        if not node.args and all(keyword.arg for keyword in node.keywords):
            return {str(one.arg): _python(one.value, inside=inside) for one in node.keywords}
    if inside and isinstance(node, ast.Name):
        words = {"true": True, "false": False}
        return words.get(node.id, node.id)
    raise ValueError(f"{ast.unparse(node)!r} is neither a value nor a single word")


def _constant(node: ast.Constant) -> Any:
    value = node.value
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        if abs(value) == float("inf"):
            raise ValueError("a number that large is infinite")
        return value
    raise ValueError(f"{value!r} is nothing that a config holds")
