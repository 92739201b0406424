"""The compiled kernel; everything else about the package stands in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "vmconnect.vnc._kernel",
            ["vmconnect/vnc/_kernel.pyx"],
            depends=sorted(str(path) for path in Path("vmconnect/vnc/_kernel").glob("*.pxi")),
            extra_compile_args=["-O3", "-g0"],
            # Without a compiler the package still installs: vnc falls back to numpy.
            optional=True,
        )
    ]
)
