"""Which of Python's standard library goes into the guest: enough for scripts, not for desktops."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from vmconnect.demo.disk import check_output
from vmconnect.errors import ResourceError

__all__ = ["python_files"]

_COMPILE_SECONDS = 120.0

# A guest of an initramfs has no database, no terminal library, no desktop, and nothing to install.
_LEFT_OUT = frozenset(
    {
        "__pycache__",
        "_pydecimal.py",
        "_pyio.py",
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
    r"|ossaudiodev|audioop)"
)
_CODECS_KEPT = re.compile(
    r"(__init__|aliases|ascii|charmap|cp437|cp1252|cp850|hex_codec|base64_codec|idna|iso8859_15?"
    r"|latin_1|punycode|raw_unicode_escape|unicode_escape|utf_.*|undefined|mbcs|oem|zlib_codec"
    r"|bz2_codec|quopri_codec|rot_13|uu_codec)\.py"
)


def python_files(tree: Path, loader: Path, libraries: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Yield Python and its library: the path in the guest, and the unpacked file.

    The library is compiled here, by the unpacked Python itself (run by its own ``loader`` with
    its own ``libraries``), and goes in without its sources: to compile a handful of modules at
    each boot takes an emulated guest seconds. Raises ResourceError when the packages have no
    Python, or it does not run here, OSError when the disk is full.
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
    kept = [
        inside
        for path in sorted(library.rglob("*"))
        # A link leads out of the packages, to a file of the host's.
        if path.is_file()
        and not path.is_symlink()
        and _kept(inside := PurePosixPath(path.relative_to(library)))
    ]
    sources = [str(library / inside) for inside in kept if inside.suffix == ".py"]
    search = ":".join(str(each) for each in libraries)
    _compile([str(loader), "--library-path", search, str(program)], tree, sources)
    for inside in kept:
        compiled = inside.with_suffix(".pyc") if inside.suffix == ".py" else inside
        yield f"usr/lib/{program.name}/{compiled}", library / compiled


def _compile(python: list[str], tree: Path, sources: list[str]) -> None:
    """Write a ``.pyc`` beside each source that names the guest's path and checks no time."""
    options = ["-b", "-q", "--invalidation-mode", "unchecked-hash", "-s", str(tree), "-p", "/"]
    try:
        done = subprocess.run(
            [*python, "-s", "-S", "-m", "compileall", *options, "-i", "-"],
            input="".join(f"{each}\n" for each in sources).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=tree,
            env={"PYTHONHOME": str(tree / "usr"), "LC_ALL": "C.UTF-8"},
            timeout=_COMPILE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ResourceError(
            f"cannot run the unpacked Python: {error}",
            hint="is the cache directory on a file system mounted noexec?",
        ) from error
    if done.returncode:
        output = done.stdout.decode(errors="replace")
        check_output(output)
        reason = output.strip().splitlines() or ["no reason given"]
        raise ResourceError(f"the unpacked Python cannot compile its library: {reason[-1][:300]}")


def _kept(inside: PurePosixPath) -> bool:
    match inside.parts:
        case ("lib-dynload", name):
            return not _EXTENSIONS_LEFT_OUT.match(name)
        case ("encodings", name):
            return bool(_CODECS_KEPT.fullmatch(name))
    if not _LEFT_OUT.isdisjoint(inside.parts) or inside.parts[0].startswith("config-3"):
        return False
    return inside.suffix == ".py"
