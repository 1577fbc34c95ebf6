"""Valid files made invalid: bytes changed, cut, doubled; values of JSON replaced by odd ones."""

from __future__ import annotations

import io
import json
import struct
import zipfile

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
KINDS = ("<f4", ">f4", "<f2", "|O", "<U0", "<U9", "<i8", "<c8", "|V0", "<M8[s]", "x")


def tokens(*tokens):
    """Return a function that changes bytes one to six times, now and then into one of these."""

    def spoil(raw, draw):
        data = bytearray(raw)
        for _ in range(draw.randint(1, 6)):
            start = draw.randint(0, len(data))
            stop = min(len(data), start + draw.choice((1, 1, 2, 4, 8, 64, 1024)))
            width = draw.choice((1, 2, 4, 8))
            number = draw.choice(NUMBERS) & (2 ** (8 * width) - 1)
            begin, end, new = draw.choice((
                (start, stop, bytes(byte ^ 1 << draw.randint(0, 7) for byte in data[start:stop])),
                (start, stop, draw.randbytes(draw.randint(0, 8))),
                (start, stop, b""),
                (start, start, data[start:stop] * draw.choice((1, 2, 100))),
                (start, len(data), b""),
                (start, start + width, number.to_bytes(width, draw.choice(("little", "big")))),
                (start, draw.choice((start, stop)), draw.choice(tokens or (b"\0",))),
                (start, stop, draw.choice(TEXTS).encode("utf-8", "surrogatepass")),
            ))  # fmt: skip
            data[begin:end] = new
        return bytes(data)

    return spoil


def json_values(value, draw):
    """Return a tree with one to three values replaced, removed, doubled or renamed."""
    value = _copy(value)
    for _ in range(draw.randint(1, 3)):
        places = list(_places(value))
        if not places:
            return _copy(draw.choice(VALUES))
        inside, key = draw.choice(places)
        change = draw.randint(0, 5)
        if change == 0:
            del inside[key]
        elif change == 1 and isinstance(inside, list):
            inside.insert(key, _copy(inside[key]))
        elif change == 2 and isinstance(inside, dict):
            inside[draw.choice(TEXTS)] = inside.pop(key)
        else:
            inside[key] = _copy(draw.choice(VALUES))
    return value


def spoilt_json(raw, draw):
    """Change values of a JSON file; now and then its bytes, or all into many brackets."""
    if draw.randint(0, 50) == 0:
        return draw.choice((b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"\xef\xbb\xbf{}"))
    raw = json.dumps(json_values(json.loads(raw), draw)).encode()
    return tokens(b'"', b"[", b"]", b"{", b"}")(raw, draw) if draw.randint(0, 3) == 0 else raw


def safetensors_bytes(raw, draw):
    """Make the header lie, or change any bytes."""
    if draw.randint(0, 2) == 0:
        return tokens()(raw, draw)
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.dumps(json_values(json.loads(raw[8 : 8 + size]), draw)).encode()
    claimed = len(header) if draw.randint(0, 5) else draw.choice(NUMBERS)
    return struct.pack("<Q", claimed) + header + raw[8 + size :]


def npy_bytes(raw, draw):
    """Write another dtype, order or shape into the header, or change any bytes."""
    if draw.randint(0, 2) == 0:
        return tokens(b"(", b")", b"'", b",", b"|O", b"<U0", b"-", b"<f8")(raw, draw)
    head = 10 + struct.unpack("<H", raw[8:10])[0]
    kind = draw.choice(KINDS)
    sizes = [draw.choice((*NUMBERS, -1, 2, 3, 10**20)) for _ in range(draw.randint(0, 4))]
    shape = draw.choice((repr(tuple(sizes)), "(" * 90, "-" * 5000 + "1", "(2,3,4)", "(10**9,)"))
    order = draw.choice((True, False, 2))
    header = f"{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}}}\n".encode()
    return raw[:8] + struct.pack("<H", len(header)) + header + raw[head:]


def npz_bytes(raw, draw):
    """Spoil arrays of a zip, or change any bytes."""
    if draw.randint(0, 1):
        return tokens(b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06")(raw, draw)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, npy_bytes(content, draw) if draw.randint(0, 1) else content)
    return made.getvalue()


def _copy(value):
    return json.loads(json.dumps(value))


def _places(value):
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])
