"""The compiled kernel; everything else about the package stands in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup

ROOM = Path("vmconnect/vnc")
PARTS = ROOM / "_kernel"

setup(
    ext_modules=[
        Extension(
            "vmconnect.vnc._kernel",
            [f"{ROOM}/_kernel.pyx"],
            depends=sorted(str(path) for path in (*PARTS.glob("*.pxi"), *PARTS.glob("*/*.h"))),
            include_dirs=[str(ROOM)],
            extra_compile_args=["-O3", "-g0"],
            # Without a compiler the package still installs: vnc falls back to numpy.
            optional=True,
        )
    ]
)
