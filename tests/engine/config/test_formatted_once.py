"""The text of a config is mmengine's, formatted anew only where an entry has changed."""

import copy

import pytest
from mmengine.config import Config

from danseg.engine.config.formatted_once import FormattedOnce


def test_the_text_is_formatted_once_and_again_when_an_entry_changes(monkeypatch):
    plain = Config({"a": {"b": [1, {"c": 2}]}, "d": "text"})
    config = FormattedOnce.of(plain)
    formatted, pretty_text = [], Config.pretty_text.fget

    def counted(self):
        if self is not plain:
            formatted.append(self)
        return pretty_text(self)

    monkeypatch.setattr(Config, "pretty_text", property(counted))
    wanted = plain.pretty_text
    assert config.pretty_text == config.pretty_text == wanted
    assert copy.deepcopy(config).pretty_text == wanted
    assert formatted == [config]

    plain.a.b[1]["c"] = config.a.b[1]["c"] = 3
    assert config.pretty_text == plain.pretty_text != wanted
    assert len(formatted) == 2
    assert type(plain) is Config and "_formatted" not in config
    with pytest.raises(AttributeError):
        _ = config.e
