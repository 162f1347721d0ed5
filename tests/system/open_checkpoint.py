"""Opens a checkpoint's model.safetensors as a user of Python does who has none of our code.

open_checkpoint.py FILE NAME=SHAPE ...     (a shape as 50x320)

Reads the file by its format alone, and where Python has safetensors and numpy by those too. The
file must hold exactly these tensors. Says "NAME DTYPE lowest L highest H" of each; exit code 1 with
what is wrong.
"""

import json
import math
import pathlib
import struct
import sys

CODES = {"F32": "f", "F64": "d", "I64": "q", "U8": "B"}


def fail(text):
    sys.exit(f"{sys.argv[1]}: {text}")


def parse(whole):
    """Name to (dtype, shape, values), and that the byte ranges are all of the file."""
    (header_bytes,) = struct.unpack_from("<Q", whole)
    header = json.loads(whole[8 : 8 + header_bytes].decode("utf-8"))
    metadata = header.pop("__metadata__", {})
    if not all(isinstance(value, str) for value in metadata.values()):
        fail(f"metadata must be strings: {metadata}")
    content = whole[8 + header_bytes :]
    tensors = {}
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = entry["data_offsets"]
        if first != end:
            fail(f"{name} begins at {first}, expected {end}: a gap, or bytes of two tensors")
        end = last
        layout = f"<{math.prod(entry['shape'])}{CODES[entry['dtype']]}"
        if struct.calcsize(layout) != last - first:
            fail(f"{name}: {last - first} bytes for {entry['dtype']} {entry['shape']}")
        values = struct.unpack(layout, content[first:last])
        tensors[name] = (entry["dtype"], entry["shape"], values)
    if end != len(content):
        fail(f"the tensors end at {end}, the file at {len(content)}")
    return tensors


def compare_with_library(tensors):
    """The same by the library, where it is installed."""
    try:
        import numpy
        from safetensors import safe_open
    except ImportError as missing:
        print(f"read by the format alone: {missing}")
        return
    with safe_open(sys.argv[1], framework="np") as opened:
        if sorted(opened.keys()) != sorted(tensors):
            fail(f"safetensors finds {sorted(opened.keys())}")
        for name, (_, shape, values) in tensors.items():
            found = opened.get_tensor(name)
            if list(found.shape) != shape or not numpy.array_equal(found.ravel(), values):
                fail(f"safetensors reads {name} otherwise")
    print("read by safetensors too")


def main():
    expected = {}
    for argument in sys.argv[2:]:
        name, shape = argument.split("=")
        expected[name] = [int(extent) for extent in shape.split("x")]
    tensors = parse(pathlib.Path(sys.argv[1]).read_bytes())
    found = {name: shape for name, (_, shape, _) in tensors.items()}
    if found != expected:
        fail(f"expected {expected}, found {found}")
    for name, (dtype, _, values) in tensors.items():
        if not all(math.isfinite(value) for value in values):
            fail(f"{name} holds a value that is not finite")
        print(f"{name} {dtype} lowest {min(values):.4f} highest {max(values):.4f}")
    compare_with_library(tensors)


main()
