"""A config whose text is formatted once, not for every checkpoint."""

import copy

from mmengine.config import Config


class FormattedOnce(Config):
    """mmengine's config, which formats its text anew, in half a second, whenever that is asked for."""

    @classmethod
    def of(cls, config: Config) -> "FormattedOnce":
        """A copy of ``config`` of this class."""
        own = copy.deepcopy(config)
        object.__setattr__(own, "__class__", cls)
        return own

    @property
    def pretty_text(self) -> str:
        content = repr(self._cfg_dict)
        formatted_from, text = self.__dict__.get("_formatted", ("", ""))
        if formatted_from != content:
            text = super().pretty_text
            object.__setattr__(self, "_formatted", (content, text))  # Config makes entries of attributes
        return text
