"""Read the bytes of a data set's file, wherever the config says that it lies."""

from mmengine import fileio

from danseg.io.source_files import read_file


def stored_bytes(path: str, backend_args: dict | None = None) -> bytes:
    """The content of a file, from this machine's disks unless ``backend_args`` or its address say otherwise.

    Raises:
        OSError: it does not exist, is no file or cannot be read. Other storage may raise anything.
    """
    if backend_args or "://" in path:
        return fileio.get(path, backend_args=backend_args)
    return read_file(path)
