"""A page that listens on a port of this process."""

from contextlib import AbstractContextManager

from danseg.app.explorer import Explorer
from danseg.app.page_server import page_application
from served import listens


def paged(explorer: Explorer) -> AbstractContextManager[str]:
    """Its address, as :func:`served.listens`."""
    return listens(page_application(explorer), explorer, "/config")
