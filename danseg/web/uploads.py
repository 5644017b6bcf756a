"""The picture of a request: one file in a form, read as far as the limits allow."""

from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from danseg.io.image_headers import Content, claimed_size
from danseg.web.request_limits import RefusedError, RequestLimits

#: The field of the form that holds the picture.
FIELD = "image"
HOW = f"send one picture as the file of the form's field {FIELD!r} (curl -F {FIELD}=@street.png)"


async def read_upload(request: Request, limits: RequestLimits) -> UploadFile:
    """The picture's file, which was read to its end; above 1 MiB it lies on the disk. To be closed.

    Raises:
        RefusedError: the request is no form with one picture, or larger than allowed.
        starlette.requests.ClientDisconnect: the client went away.
    """
    kind = request.headers.get("Content-Type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data":
        raise RefusedError(415, f"the request is {kind or 'of no type'}, not multipart/form-data; {HOW}")
    try:
        form = await MultiPartParser(
            request.headers, counted(request, limits.bytes), max_files=1, max_fields=0
        ).parse()
    except MultiPartException as error:
        raise RefusedError(400, f"{error.message.rstrip('.')}; {HOW}") from None
    if not form:
        raise RefusedError(400, f"the form is empty; {HOW}")
    [(name, upload)] = form.multi_items()
    if name == FIELD and isinstance(upload, UploadFile) and upload.size:
        return upload
    await form.close()
    if name != FIELD:
        raise RefusedError(400, f"the form has a field {name!r}; {HOW}")
    raise RefusedError(400, f"the picture has 0 bytes; {HOW}")


async def counted(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """The pieces of a request's body, whatever length its header claims.

    Raises:
        RefusedError: they are more than ``most`` bytes together.
    """
    read = 0
    async for piece in request.stream():
        read += len(piece)
        if read > most:
            raise RefusedError(
                413, f"the request has more than {most} bytes; send a smaller file, or start with --max-bytes"
            )
        yield piece


def claimed_pixels(data: Content, most: int) -> int:
    """How many pixels the header of a picture claims; nothing is decoded for it.

    Raises:
        RefusedError: it is no picture, or has more than ``most``.
    """
    width, height, _ = claimed_size(data)
    if not width or not height:
        raise RefusedError(
            415, f"the {len(data)} bytes of the file are no picture of a known format; send PNG, JPEG or TIFF"
        )
    if width * height > most:
        raise RefusedError(
            413,
            f"the picture's header claims {width}x{height} pixels, more than {most}; send a smaller one, or "
            "start with --max-pixels",
        )
    return width * height
