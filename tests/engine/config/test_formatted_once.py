"""The text of a config is mmengine's, formatted anew only where an entry has changed."""

import copy

import pytest
from mmengine.config import Config
from yapf.yapflib import yapf_api

from danseg.engine.config.formatted_once import FormattedOnce


def test_the_text_is_formatted_once_and_again_when_an_entry_changes(monkeypatch):
    plain = Config({"a": {"b": [1, {"c": 2}]}, "d": "text"})
    config = FormattedOnce.of(plain)
    wanted = plain.pretty_text
    formatted, format_code = [], yapf_api.FormatCode

    def counted(text, *arguments, **keywords):
        formatted.append(text)
        return format_code(text, *arguments, **keywords)

    monkeypatch.setattr(yapf_api, "FormatCode", counted)
    assert config.pretty_text == wanted
    once = len(formatted)
    assert once > 0 and config.pretty_text == copy.deepcopy(config).pretty_text == wanted
    assert len(formatted) == once

    plain.a.b[1]["c"] = config.a.b[1]["c"] = 3
    assert config.pretty_text == plain.pretty_text != wanted
    assert type(plain) is Config and "_formatted" not in config
    with pytest.raises(AttributeError):
        _ = config.e
