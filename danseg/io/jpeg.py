"""Find JPEGs with errors in their data, which decoders guess over without a word."""

import io

from PIL.JpegImagePlugin import JpegImageFile

try:
    from kornia_rs.io import decode_image_jpegturbo
except ImportError:  # danseg was installed without its extras
    decode_image_jpegturbo = None

JPEG = b"\xff\xd8"  # the first bytes


def is_doubtful(data: bytes) -> bool:
    """Whether libjpeg warns of an image that can be decoded: a part of it may be spoiled, or only untidy.

    A JPEG has no checksum: more than half of its damages go unnoticed by any decoder. False for other
    formats, for colours of four channels, and where kornia-rs is not installed.
    """
    if decode_image_jpegturbo is None or data[:2] != JPEG:
        return False
    if JpegImageFile(io.BytesIO(data)).mode not in ("L", "RGB"):
        return False
    try:
        decode_image_jpegturbo(data, "mono")
    except Exception:  # to kornia-rs a warning is an error; it says no more
        return True
    return False
