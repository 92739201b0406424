"""``python -m fuzz TARGET CORPUS [libFuzzer's options]``, or ``--replay TARGET FILE...``."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def _replay(name: str, files: list[str]) -> None:
    from fuzz.targets import TARGETS

    for file in files:
        TARGETS[name](Path(file).read_bytes(), always=True)
        print(f"{file}: nothing is wrong")


def _fuzz(name: str, corpus: str, options: list[str]) -> None:
    # What a kernel that was compiled for coverage calls is in a library of atheris'.
    sys.setdlopenflags(os.RTLD_GLOBAL | os.RTLD_NOW)
    import atheris

    if "LD_PRELOAD" not in os.environ:
        from atheris import core_with_libfuzzer

        assert core_with_libfuzzer

    with atheris.instrument_imports(include=["vmconnect"]):
        from fuzz import guests
        from vmconnect.vnc import _kernel, engine

    from fuzz.room import bound_screens, one_key
    from fuzz.seeds import write_seeds
    from fuzz.targets import TARGETS

    assert engine, guests
    bound_screens()
    one_key()
    print(f"kernel: {_kernel.__file__}", file=sys.stderr)
    directory = Path(corpus)
    if not directory.exists() or not any(directory.iterdir()):
        write_seeds(name, directory)
    arguments = [f"fuzz {name}", *options, str(directory)]
    # Unless a sanitizer's library was loaded before, which brings a libFuzzer of its own.
    built_in = "LD_PRELOAD" not in os.environ
    atheris.Setup(arguments, TARGETS[name], internal_libfuzzer=built_in)
    atheris.Fuzz()


def main(arguments: list[str]) -> None:
    """Fuzz one target, run finds again, or list the targets."""
    if len(arguments) < 2:
        from fuzz.targets import TARGETS

        print(__doc__, *TARGETS, sep="\n")
    elif arguments[0] == "--replay":
        _replay(arguments[1], arguments[2:])
    else:
        _fuzz(arguments[0], arguments[1], arguments[2:])


if __name__ == "__main__":
    main(sys.argv[1:])
