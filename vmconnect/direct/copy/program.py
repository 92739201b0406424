"""The far end's program, as it is handed to a guest's Python.

Its modules are those that run here, too. They go as source, for any Python from 3.7 on, and
compiled, for one of our own version: to compile them takes an emulated guest a quarter of a second.
"""

from __future__ import annotations

import functools
import importlib.resources
import importlib.util
import marshal
import shlex
import struct

__all__ = ["command", "program"]

_PACKAGE = "vmconnect.direct.copy"
# Each before those that import it.
_MODULES = (
    "frames",
    "reader",
    "ahead",
    "pipe",
    "directory",
    "receiver",
    "sender",
    "ends",
    "far_end",
)
_LENGTHS = struct.Struct(">II")

# Reads the two forms of the program, runs the one that fits, and leaves the rest of the input.
_LOADER = """
import marshal, os, struct, sys
from _frozen_importlib_external import MAGIC_NUMBER
def read(count):
    data = b""
    while len(data) < count:
        more = os.read(0, count - len(data))
        if not more:
            sys.exit(1)
        data += more
    return data
ours, theirs = [read(each) for each in struct.unpack(">II", read(8))]
fits = MAGIC_NUMBER.hex() == sys.argv[1]
for name, code in marshal.loads(ours if fits else theirs):
    module = sys.modules[name] = type(sys)(name)
    exec(code if fits else compile(code, name, "exec"), module.__dict__)
module.main()
"""
# Where distributions have a Python of their own.
_PYTHONS = ("python3", "/usr/libexec/platform-python", "/usr/local/bin/python3")


def command() -> list[str]:
    """Return the argv that runs the program in a guest; exit code 127 where there is no Python."""
    loader = shlex.join(["-I", "-S", "-c", _LOADER, importlib.util.MAGIC_NUMBER.hex()])
    tries = "".join(
        f"command -v {each} >/dev/null 2>&1 && exec {each} {loader}\n" for each in _PYTHONS
    )
    return ["sh", "-c", f"{tries}exit 127"]


@functools.cache
def program() -> bytes:
    """Return what the program's input begins with: itself, compiled and as source."""
    files = importlib.resources.files(_PACKAGE)
    sources = [(f"{_PACKAGE}.{each}", (files / f"{each}.py").read_bytes()) for each in _MODULES]
    compiled = [
        (name, compile(source, name, "exec", optimize=2, dont_inherit=True))
        for name, source in sources
    ]
    # Version 2 of the format is the newest that every Python 3 reads.
    forms = (marshal.dumps(compiled), marshal.dumps(sources, 2))
    return _LENGTHS.pack(*map(len, forms)) + b"".join(forms)
