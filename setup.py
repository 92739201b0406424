"""What is compiled: the kernel and the thin client. All else stands in pyproject.toml.

Without a compiler the package still installs. numpy stands in for the kernel; for the thin client,
Python: the command is then called `vmconnect` at once, and not `vmconnect-python` beside it.
"""

import os
import shlex
import subprocess
import sysconfig
from pathlib import Path

from setuptools import Distribution, Extension, setup

ROOM = Path("vmconnect/vnc")
PARTS = ROOM / "_kernel"
CLIENT = Path("vmconnect/broker/client.c")
COMMAND = Path("build/client/vmconnect")
ENTRY = "vmconnect.__main__:main"


def has_client() -> bool:
    """Compile the thin client, and return whether that could be done."""
    COMMAND.parent.mkdir(parents=True, exist_ok=True)
    words = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    flags = f"{os.environ.get('CFLAGS', '')} {os.environ.get('LDFLAGS', '')}"
    # Static it starts sooner, and needs no C library of its own age wherever a wheel is taken.
    for linking in (["-static"], []):
        try:
            options = ["-O2", "-Wall", "-Wextra", "-Wno-unused-result", *linking, "-s"]
            argv = [*shlex.split(words), *options, *shlex.split(flags)]
            subprocess.run([*argv, "-o", str(COMMAND), str(CLIENT)], check=True)
        except (OSError, ValueError, subprocess.CalledProcessError):
            continue
        return True
    return False


class BuildScripts(Distribution().get_command_class("build_scripts")):
    """Copies programs as they are: setuptools takes them for text."""

    def copy_scripts(self):
        """Return the files that were made, and those that were changed."""
        self.mkpath(self.build_dir)
        made = [self.copy_file(script, self.build_dir)[0] for script in self.scripts]
        return made, made


compiled = has_client()
setup(
    scripts=[str(COMMAND)] if compiled else [],
    entry_points={"console_scripts": [f"vmconnect{'-python' if compiled else ''} = {ENTRY}"]},
    cmdclass={"build_scripts": BuildScripts},
    ext_modules=[
        Extension(
            "vmconnect.vnc._kernel",
            [f"{ROOM}/_kernel.pyx"],
            depends=sorted(str(path) for path in (*PARTS.glob("*.pxi"), *PARTS.glob("*/*.h"))),
            include_dirs=[str(ROOM)],
            extra_compile_args=["-O3", "-g0"],
            optional=True,
        )
    ],
)
