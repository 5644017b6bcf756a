"""The page that tells people what a service answers, made of its OpenAPI description, with a form to try it.

It is one file: nothing is loaded from elsewhere, and no script runs.
"""

import html
from collections.abc import Iterator
from typing import Any

from danseg.serve.answers import ANSWERS
from danseg.web.uploads import FIELD

_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:50em;margin:2em auto;padding:0 1em}"
    "code{background:#8882;padding:.1em .3em}td{padding:.1em 1em .1em 0;vertical-align:top}"
    "h2{margin:1.5em 0 .3em;font-size:1.1em}:root{color-scheme:light dark}"
)


def page(description: dict[str, Any]) -> str:
    """The page as HTML.

    Args:
        description: of the service, as OpenAPI has it.
    """
    info = description["info"]
    title = html.escape(info["title"])
    buttons = " ".join(
        f'<button formaction="segment?output={output}">{output}</button>' for output in ANSWERS
    )
    form = (
        f'<form method="post" enctype="multipart/form-data"><input type="file" name="{FIELD}" required> '
        f"{buttons}</form>"
    )
    sections = "".join(
        _section(method, path, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    )
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1><p>{html.escape(info['description'])} Made by "
        f'danseg {html.escape(info["version"])}; <a href="openapi.json">openapi.json</a> says it to programs.'
        f"</p>{form}{sections}</body></html>"
    )


def _section(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{html.escape(name)}</code></td><td>{html.escape(text)}</td></tr>"
        for name, text in _rows(operation)
    )
    return (
        f"<h2><code>{method.upper()} {html.escape(path)}</code> {html.escape(operation['summary'])}</h2>"
        f"<p>{html.escape(operation.get('description', ''))}</p><table>{rows}</table>"
    )


def _rows(operation: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What goes in and what comes out: a name, and what it means."""
    for parameter in operation.get("parameters", ()):
        schema = parameter["schema"]
        values = ", ".join(schema.get("enum", ()))
        yield f"?{parameter['name']}=", f"{values} (default: {schema.get('default')})"
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        for name, field in content["schema"]["properties"].items():
            yield name, f"{field['description']}, in {kind}"
    for status, response in operation["responses"].items():
        yield status, response["description"]
