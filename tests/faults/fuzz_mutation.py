"""Valid files made invalid: bytes changed, cut, doubled; values of JSON replaced by odd ones."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

Spoil = Callable[[bytes, random.Random], bytes]

#: Texts that have hurt parsers before.
TEXTS = (
    "", " ", "\0", "a\0b", "\ud800", "\u202ea", "\u200b", "e\u0301" * 50, "\x85", "\u2028", "١٢",
    "../a.jpg", "/etc/passwd", "C:\\a.jpg", "..\\a", "~", "//host/a", "a" * 3000, "<script>",
    "{{7}}", "nan", "1e999", "-1", "os:system", "__class__", "%s%n", "$(id)", ":",
    "!!python/object:os.system",
)  # fmt: skip
VALUES = (
    None, True, False, 0, -1, 1.5, float("nan"), float("inf"), 2**31, 2**63, 2**64, 10**400,
    [], {}, [[]], [None], {"": None}, [[[[[[]]]]]], *TEXTS,
)  # fmt: skip
NUMBERS = (0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


def mutate_bytes(raw: bytes, draw: random.Random, tokens: tuple[bytes, ...] = ()) -> bytes:
    """One to six changes."""
    data = bytearray(raw)
    for _ in range(draw.randint(1, 6)):
        size = len(data)
        start = draw.randint(0, size)
        stop = min(size, start + draw.choice((1, 1, 2, 4, 8, 64, 1024)))
        what = draw.randint(0, 7)
        if what == 0 and start < size:
            data[start] ^= 1 << draw.randint(0, 7)
        elif what == 1:
            data[start:stop] = draw.randbytes(draw.randint(0, 8))
        elif what == 2:
            del data[start:stop]
        elif what == 3:
            data[start:start] = data[start:stop] * draw.choice((1, 2, 100))
        elif what == 4:
            del data[start:]
        elif what == 5:
            width = draw.choice((1, 2, 4, 8))
            number = draw.choice(NUMBERS) & (2 ** (8 * width) - 1)
            data[start : start + width] = number.to_bytes(width, draw.choice(("little", "big")))
        elif what == 6 and tokens:
            data[start : draw.choice((start, stop))] = draw.choice(tokens)
        else:
            text = draw.choice(TEXTS).encode("utf-8", "surrogatepass")
            data[start : draw.choice((start, stop))] = text
    return bytes(data)


def mutate_json(value: Any, draw: random.Random) -> Any:
    """One to three values anywhere in a tree replaced, removed, doubled or renamed."""
    value = _fresh(value)
    for _ in range(draw.randint(1, 3)):
        places = list(_places(value))
        if not places:
            return _fresh(draw.choice(VALUES))
        inside, key = draw.choice(places)
        what = draw.randint(0, 6)
        if what == 0:
            del inside[key]
        elif what == 1 and isinstance(inside, list):
            inside.insert(key, _fresh(inside[key]))
        elif what == 2 and isinstance(inside, dict):
            inside[draw.choice(TEXTS)] = inside.pop(key)
        elif what == 3:
            other, name = draw.choice(places)
            inside[key] = _fresh(other[name]) if _has(other, name) else None
        else:
            inside[key] = _fresh(draw.choice(VALUES))
    return value


def json_bytes(value: Any, draw: random.Random) -> bytes:
    """As a file; now and then damaged, or of many brackets."""
    if draw.randint(0, 50) == 0:
        return draw.choice((b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"\xef\xbb\xbf{}"))
    raw = json.dumps(mutate_json(value, draw)).encode()
    return (
        mutate_bytes(raw, draw, (b'"', b"[", b"]", b"{", b"}")) if draw.randint(0, 3) == 0 else raw
    )


def tokens(*tokens: bytes) -> Spoil:
    """Bytes changed, now and then into one of these."""
    return lambda raw, draw: mutate_bytes(raw, draw, tokens)


def spoilt_json(raw: bytes, draw: random.Random) -> bytes:
    """The values of a JSON file changed."""
    return json_bytes(json.loads(raw), draw)


def safetensors_bytes(raw: bytes, draw: random.Random) -> bytes:
    """A header that lies, or any bytes changed."""
    if draw.randint(0, 2) == 0:
        return mutate_bytes(raw, draw)
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.dumps(mutate_json(json.loads(raw[8 : 8 + size]), draw)).encode()
    told = len(header) if draw.randint(0, 5) else draw.choice(NUMBERS)
    return struct.pack("<Q", told) + header + raw[8 + size :]


def npy_bytes(raw: bytes, draw: random.Random) -> bytes:
    """Another dtype, order or shape in the header, or any bytes changed."""
    if draw.randint(0, 2) == 0:
        return mutate_bytes(raw, draw, (b"(", b")", b"'", b",", b"|O", b"<U0", b"-", b"<f8"))
    head = 10 + struct.unpack("<H", raw[8:10])[0]
    kind = draw.choice(
        ("<f4", ">f4", "<f2", "|O", "<U0", "<U9", "<i8", "<c8", "|V0", "<M8[s]", "x")
    )
    sizes = [draw.choice((*NUMBERS, -1, 2, 3, 10**20)) for _ in range(draw.randint(0, 4))]
    shape = draw.choice((repr(tuple(sizes)), "(" * 90, "-" * 5000 + "1", "(2,3,4)", "(10**9,)"))
    header = (
        f"{{'descr': '{kind}', 'fortran_order': {draw.choice((True, False, 2))}, 'shape': {shape}}}"
    )
    coded = header.encode() + b"\n"
    return raw[:8] + struct.pack("<H", len(coded)) + coded + raw[head:]


def npz_bytes(raw: bytes, draw: random.Random) -> bytes:
    """A zip of spoilt arrays, or any bytes changed."""
    if draw.randint(0, 1):
        return mutate_bytes(raw, draw, (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"))
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, npy_bytes(content, draw) if draw.randint(0, 1) else content)
    return made.getvalue()


def _fresh(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _places(value: Any) -> Any:
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _has(inside: Any, key: Any) -> bool:
    return key in inside if isinstance(inside, dict) else key < len(inside)
