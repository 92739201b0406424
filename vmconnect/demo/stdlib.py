"""Which of Python's standard library goes into the guest: enough for scripts, not for desktops."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from vmconnect.errors import ResourceError

__all__ = ["python_files"]

# A guest of an initramfs has no database, no terminal library, no desktop, and nothing to install.
_LEFT_OUT = frozenset(
    {
        "__pycache__",
        "_pydecimal.py",
        "_pyio.py",
        "_sysconfigdata__x86_64-linux-gnu.py",
        "config-3",
        "curses",
        "dbm",
        "distutils",
        "doctest.py",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "msilib",
        "pickletools.py",
        "pydoc_data",
        "sqlite3",
        "test",
        "tkinter",
        "turtle.py",
        "turtledemo",
        "unittest",
        "venv",
        "wsgiref",
        "xmlrpc",
    }
)
# Extension modules of these, of Python's own tests, and of the CJK codecs.
_EXTENSIONS_LEFT_OUT = re.compile(
    r"(_test|_xxtest|xxlimited|_ctypes_test|_codecs_|_sqlite3|_curses|_dbm|_gdbm|_tkinter|nis\."
    r"|ossaudiodev|_lsprof|audioop)"
)
_CODECS_KEPT = re.compile(
    r"(__init__|aliases|ascii|charmap|cp437|cp1252|cp850|hex_codec|base64_codec|idna|iso8859_15?"
    r"|latin_1|punycode|raw_unicode_escape|unicode_escape|utf_.*|undefined|mbcs|oem|zlib_codec"
    r"|bz2_codec|quopri_codec|rot_13|uu_codec)\.py"
)


def python_files(tree: Path) -> Iterator[tuple[str, Path]]:
    """Yield Python and its library: the path in the guest, and the unpacked file.

    Raises ResourceError when the packages have no Python.
    """
    found = [
        path
        for path in (tree / "usr/bin").glob("python3.*")
        if re.fullmatch(r"python3\.\d+", path.name)
    ]
    if len(found) != 1:
        raise ResourceError(f"the packages have {len(found)} Pythons, not one")
    [program] = found
    yield f"usr/bin/{program.name}", program
    library = tree / "usr/lib" / program.name
    for path in sorted(library.rglob("*")):
        inside = PurePosixPath(path.relative_to(library))
        if path.is_file() and _kept(inside):
            yield f"usr/lib/{program.name}/{inside}", path


def _kept(inside: PurePosixPath) -> bool:
    match inside.parts:
        case ("lib-dynload", name):
            return not _EXTENSIONS_LEFT_OUT.match(name)
        case ("encodings", name):
            return bool(_CODECS_KEPT.fullmatch(name))
    if not _LEFT_OUT.isdisjoint(inside.parts) or inside.parts[0].startswith("config-3"):
        return False
    return inside.suffix == ".py"
