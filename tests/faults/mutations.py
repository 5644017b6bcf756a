"""Damage that files meet, drawn from a seed: each function gets a file's bytes and gives other ones."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from random import Random

PNG = b"\x89PNG\r\n\x1a\n"
ZIP = b"PK\x03\x04"

Mutation = Callable[[bytes, Random], bytes]


def flip(data: bytes, random: Random) -> bytes:
    """One to eight bits."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 8))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def flip_early(data: bytes, random: Random) -> bytes:
    """A bit of the first bytes, where formats have their headers."""
    head = min(len(data), 64)
    return flip(data[:head], random) + data[head:]


def zero(data: bytes, random: Random) -> bytes:
    """A block that the disk lost."""
    start, size = random.randrange(len(data)), random.choice((16, 512, 4096))
    return data[:start] + bytes(min(size, len(data) - start)) + data[start + size :]


def swap(data: bytes, random: Random) -> bytes:
    """Two blocks of equal size."""
    size = min(random.choice((16, 256, 2048)), len(data) // 2)
    first = random.randrange(len(data) - 2 * size + 1)
    second = random.randrange(first + size, len(data) - size + 1)
    a, b = data[first : first + size], data[second : second + size]
    return data[:first] + b + data[first + size : second] + a + data[second + size :]


def cut(data: bytes, random: Random) -> bytes:
    """The end is missing."""
    return data[: random.choice((random.randrange(len(data)), len(data) - random.randrange(1, 64)))]


def grow(data: bytes, random: Random) -> bytes:
    """Bytes between others, or twice the file."""
    if random.random() < 0.3:
        return data + data
    start = random.randrange(len(data))
    return data[:start] + random.randbytes(random.choice((1, 16, 1000))) + data[start:]


def empty(data: bytes, random: Random) -> bytes:
    return b""


def forge(data: bytes, random: Random) -> bytes:
    """Damage inside the format, with checksums that agree: what an attacker would send."""
    if data[:8] == PNG:
        return _forged_png(data, random)
    if data[:4] == ZIP:
        return _forged_zip(data, random)
    return flip_early(data, random)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Kind, content and checksum of each chunk up to IEND.

    Raises:
        ValueError: the file ends before.
    """
    place, kind = 8, b""
    while kind != b"IEND":
        if place + 12 > len(data):
            raise ValueError("cut off")
        size, kind = struct.unpack(">I4s", data[place : place + 8])
        if place + 12 + size > len(data):
            raise ValueError("cut off")
        content = data[place + 8 : place + 8 + size]
        yield kind, content, struct.unpack(">I", data[place + 8 + size : place + 12 + size])[0]
        place += 12 + size


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG file with these chunks, whose checksums agree."""
    return PNG + b"".join(
        struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def _forged_png(data: bytes, random: Random) -> bytes:
    chunks = [(kind, content) for kind, content, _ in png_chunks(data)]
    filled = [index for index, (_, content) in enumerate(chunks) if content]
    # The header is a few bytes of many, and has the sizes that others believe.
    index = random.choice((filled[0], random.choice(filled)))
    kind, content = chunks[index]
    chunks[index] = kind, random.choice((flip, zero, cut, grow))(content, random)
    return png_of(chunks)


def _forged_zip(data: bytes, random: Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    pickled = [index for index, (name, _) in enumerate(entries) if name.endswith(".pkl")]
    index = random.choice((*pickled, random.randrange(len(entries))))
    name, content = entries[index]
    if content:
        entries[index] = name, random.choice((flip, flip, swap, cut, grow))(content, random)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return written.getvalue()


MUTATIONS: dict[str, Mutation] = {
    function.__name__: function for function in (flip, flip_early, zero, swap, cut, grow, empty, forge)
}
#: Those that leave a file's size as it was.
SAME_SIZE: dict[str, Mutation] = {name: MUTATIONS[name] for name in ("flip", "flip_early", "zero", "swap")}


def mutate_text(data: bytes, random: Random) -> bytes:
    """A config with a line or a sign that is not what it was."""
    lines = data.decode().splitlines(keepends=True)
    first, second = random.randrange(len(lines)), random.randrange(len(lines))
    kind = random.choice(("swap", "leave out", "twice", "cut line", "sign", "number", "bytes"))
    if kind == "swap":
        lines[first], lines[second] = lines[second], lines[first]
    elif kind == "leave out":
        del lines[first]
    elif kind == "twice":
        lines.insert(second, lines[first])
    elif kind == "cut line":
        lines[first] = lines[first][: random.randrange(len(lines[first]))] + "\n"
    elif kind == "sign":
        place = random.randrange(len(lines[first]))
        lines[first] = lines[first][:place] + random.choice("()[]{}=,.'\"x0-#:*") + lines[first][place + 1 :]
    elif kind == "number":
        digits = [index for index, line in enumerate(lines) if any(map(str.isdigit, line))]
        index = random.choice(digits)
        number = next(sign for sign in lines[index] if sign.isdigit())
        other = random.choice(("-1", "0", "1e9", "None", "'a'", "1.5", "True", "float('nan')", "[]"))
        lines[index] = lines[index].replace(number, other, 1)
    else:
        return random.choice(tuple(MUTATIONS.values()))(data, random)
    return "".join(lines).encode()
