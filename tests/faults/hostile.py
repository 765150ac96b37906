"""Small files made to take gigabytes or for ever: kind (of ``tests/faults/fuzz.py``) -> contents by name."""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable

DEEP = "[" * 2000 + "]" * 2000
BILLION = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)
)


def packed(pickled: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a torch file with this pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("m/data.pkl", pickled)
    return file.getvalue()


def header(text: bytes) -> bytes:
    """Return a safetensors file with this header."""
    return struct.pack("<Q", len(text)) + text


def million_names() -> bytes:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return header(json.dumps(dict.fromkeys(map(str, range(1_000_000)), entry)).encode())


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def gif(width: int, height: int) -> bytes:
    size = struct.pack("<HH", width, height)
    frame = b"\x2c\0\0\0\0" + size + b"\0\x02\x02\x4c\x01\0"
    return b"GIF89a" + size + b"\x80\0\0\0\0\0\xff\xff\xff" + frame * 3 + b";"


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 60, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 1, 1, 0, 0)


def wav(rate: int, channels: int, count: int) -> bytes:
    content = bytes(count)
    about = struct.pack("<HHIIHH", 1, channels, rate, rate * channels % 2**32, channels, 8)
    body = b"WAVEfmt " + struct.pack("<I", 16) + about + b"data" + struct.pack("<I", count) + content
    return b"RIFF" + struct.pack("<I", len(body)) + body


CONTENTS: dict[str, dict[str, Callable[[], bytes]]] = {
    "config": {
        "aliases of aliases": BILLION.encode,
        "a list that holds itself": lambda: b"seed: &a [*a]\n",
        "lists in lists": lambda: b"seed: [[1, 2], [3]]\n",
        "2,000 deep": f"prompt: {DEEP}".encode,
        "mappings 2,000 deep": lambda: b"- " * 2000 + b"x",
        "many merges": lambda: b"a: &a {x: 1}\n<<: [" + b"*a," * 120_000 + b"]\n",
        "a day of no month": lambda: b"prompt: 2001-99-99\n",
        "a number of 5,000 digits": lambda: b"seed: " + b"9" * 5000,
        "half a character": lambda: b'prompt: "\\ud800"\n',
        "large": lambda: b"prompt: a\n" * 1_000_000,
    },
    "jobs": {
        "2,000 deep": lambda: b'{"prompt": ' + DEEP.encode() + b"}",
        "100,000 deep": lambda: b'{"prompt": ' + b"[" * 100_000 + b"}",
        "a number of 5,000 digits": lambda: b'{"seed": ' + b"9" * 5000 + b"}",
        "half a character": lambda: b'{"prompt": "\\ud800"}',
    },
    "record": {
        "2,000 deep": lambda: b'{"schema": 1, "request": ' + DEEP.encode() + b"}",
        "a list of lists": lambda: b'{"schema": 1, "request": {"seed": [[1]]}}',
        "large": lambda: b'{"schema": 1, "request": {"prompt": "' + b"a" * 60_000_000 + b'"}}',
    },
    "network config": {
        "2,000 deep": lambda: b'{"num_layers": ' + DEEP.encode() + b"}",
        "no numbers": lambda: b'{"num_attention_heads": "many", "num_layers": null}',
        "many layers": lambda: b'{"num_layers": 10000000}',
        "a list": lambda: b"[1, 2]",
        "not UTF-8": lambda: b'{"a": "\xff"}',
    },
    "VAE config": {"no number": lambda: b'{"base_dim": {"a": 1}}'},
    "chat config": {"odd fields": lambda: b'{"architectures": 5, "model_type": [1]}'},
    "chat index": {
        "no mapping": lambda: b'{"weight_map": [1, 2]}',
        "odd names": lambda: b'{"weight_map": {"a": 5, "b": null}}',
    },
    "pickle": {
        "an index of half a billion": lambda: packed(b"\x80\x02}r\xff\xff\xff\x1f\x86" + b"N" * 200),
        "a length of 2**63": lambda: packed(b"\x80\x04\x96" + b"\xff" * 7 + b"\x7f."),
        "a compressed table": lambda: packed(b"\x80\x02}" + b"N" * 100_000_000, zipfile.ZIP_DEFLATED),
        "a large table": lambda: packed(b"\x80\x02}" + b"N" * 20_000_000),
        "a table of nothing": lambda: packed(b"("),
        "no table": lambda: packed(b""),
        "many entries": lambda: packed(b"]" * 999_000),
    },
    "safetensors": {
        "a million names": million_names,
        "2,000 deep": lambda: header(b'{"a": ' + DEEP.encode() + b"}"),
        "a header of 2**60 bytes": lambda: struct.pack("<Q", 1 << 60) + b"{}",
        "an empty file": lambda: b"",
    },
    "image png": {
        "a billion pixels": lambda: png(32_000, 32_000),
        "2**62 pixels": lambda: png(2**31 - 1, 2**31 - 1),
    },
    "image gif": {"4 billion pixels": lambda: gif(65535, 65535)},
    "image bmp": {"a billion pixels": lambda: bmp(32_000, 32_000)},
    "video .gif": {
        "4 billion pixels": lambda: gif(65535, 65535),
        "150 million pixels": lambda: gif(15000, 10000),
    },
    "sound .wav": {
        "no channels": lambda: wav(16000, 0, 16000),
        "4 billion samples per second": lambda: wav(2**32 - 1, 1, 100_000),
        "a sample per second": lambda: wav(1, 1, 300),
    },
}
