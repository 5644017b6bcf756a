"""Write labels as a GeoTIFF that lies where its image does, whole or not at all."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from danseg.apis.raster_rows import failing_as, import_rasterio
from danseg.errors import StopsAllError, UserError
from danseg.io.files import whole_file

# Side of the tiles that the file stores, in pixels. Whole rows of them are written at once.
BLOCK = 512


def require_place(image: Any, turned: bool, source: Path) -> None:
    """Refuse an image on a map that its orientation tag turns, so that its labels would lie elsewhere.

    Args:
        image: the opened raster of the file ``source``.
        turned: whether the picture that was predicted is turned.

    Raises:
        UserError: it is.
    """
    if turned and (image.crs or image.gcps[0] or not image.transform.is_identity):
        raise UserError(
            f"image {source} lies on a map, but its orientation tag turns it; remove the tag, or turn the "
            "pixels, for example with gdalwarp"
        )


@contextlib.contextmanager
def created_geotiff(
    destination: Path, image: Any, size: tuple[int, int], dtype: torch.dtype, overwrite: bool
) -> Iterator[Callable[[np.ndarray, int], None]]:
    """Give a function that writes rows of labels (n, W) from a given row on; name the file at the end."""
    place = dict(crs=image.crs) if image.crs else {}
    if not image.transform.is_identity:
        place["transform"] = image.transform
    elif image.gcps[0]:
        points, crs = image.gcps
        place = dict(gcps=points, crs=crs)
    what = f"{destination} cannot be written"
    with whole_file(destination) as part:
        with failing_as(what, StopsAllError):
            file = import_rasterio().open(
                part,
                "w",
                driver="GTiff",
                height=size[0],
                width=size[1],
                count=1,
                dtype=str(dtype).removeprefix("torch."),
                tiled=True,
                blockxsize=BLOCK,
                blockysize=BLOCK,
                compress="deflate",
                bigtiff="if_safer",
                **place,
            )

        def write(labels: np.ndarray, row: int) -> None:
            window = import_rasterio().windows.Window(0, row, size[1], len(labels))
            with failing_as(what, StopsAllError):
                file.write(labels, 1, window=window)

        with file:
            yield write
        if not _is_whole(part):
            raise StopsAllError(f"{what} to its end; the disk may be full")
        if not overwrite and destination.exists():
            raise UserError(f"{destination} has appeared in the meantime; name another destination")


def _is_whole(path: Path) -> bool:
    """Whether the file contains all tiles that the GeoTIFF lists: GDAL hides errors when it closes a file."""
    try:
        with import_rasterio().open(path) as file:
            for (i, j), _ in file.block_windows(1):
                place = (file.get_tag_item(f"BLOCK_{what}_{j}_{i}", "TIFF", 1) for what in ("OFFSET", "SIZE"))
                if sum(int(number) for number in place) > path.stat().st_size:
                    return False
    except (import_rasterio().errors.RasterioError, TypeError):  # the list, or an entry in it, is missing
        return False
    return True
