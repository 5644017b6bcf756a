"""A page that shows where networks look: a picture, a click, the pixel's class, and where attention goes.

``danseg app`` starts it, and docs/app.md says what is on it. The way of a click:
:mod:`danseg.app.page_server` lets through what the page asks, :mod:`danseg.app.gradio_page` has its parts and
events, :mod:`danseg.app.explorer` finds the picture's kept pass or makes one, and
:mod:`danseg.app.page_answers` says what is seen. :mod:`danseg.app.visitors` has the visitors' pictures, and
whose they are.
"""

import os

from danseg.errors import require_extra

require_extra("app", "the page", "gradio")

# Read when Gradio is imported and whenever it starts something: it would tell its makers.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

from danseg.app.launch import launch
from danseg.app.page_limits import PageLimits

__all__ = ["PageLimits", "launch"]
