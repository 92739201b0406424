"""A Wayland desktop with no screen, and its VNC server: sway and wayvnc."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["desktop", "wayvnc"]

_PATIENCE = 30.0
_NOBODY = 65534
_ENVIRONMENT = {
    "WLR_BACKENDS": "headless",
    "WLR_RENDERER": "pixman",
    "WLR_LIBINPUT_NO_DEVICES": "1",
    "PATH": os.environ["PATH"],
}


def _wait(process: subprocess.Popen[bytes], directory: Path, pattern: str) -> Path:
    """Return the file that the process makes."""
    end = time.monotonic() + _PATIENCE
    while True:
        assert process.poll() is None, process.args
        if found := sorted(directory.glob(pattern)):
            return found[0]
        assert time.monotonic() < end, process.args
        time.sleep(0.02)


@contextlib.contextmanager
def _running(
    words: list[str], directory: Path, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    # sway refuses to be root.
    who = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    environment = _ENVIRONMENT | {"XDG_RUNTIME_DIR": str(directory), "HOME": str(directory)}
    with subprocess.Popen(
        [*(() if os.getuid() else who), *words],
        env=environment | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            finally:
                process.kill()


@contextlib.contextmanager
def desktop(directory: Path, picture: Path, width: int, height: int) -> Iterator[str]:
    """Show a picture on a Wayland desktop of its size; give WAYLAND_DISPLAY."""
    for program in "sway", "swaybg", "wayvnc":
        if shutil.which(program) is None:
            pytest.skip(f"needs {program} (apt install sway swaybg wayvnc)")
    settings = directory / "sway.conf"
    settings.write_text(
        f"output HEADLESS-1 mode {width}x{height} position 0 0\n"
        f"output HEADLESS-1 background {picture} center\n"
        "xwayland disable\n"
    )
    if not os.getuid():
        for path in directory, *directory.iterdir():
            os.chown(path, _NOBODY, _NOBODY)
    with _running(["sway", "-c", str(settings)], directory) as process:
        yield _wait(process, directory, "wayland-?").name


@contextlib.contextmanager
def wayvnc(directory: Path, display: str, configuration: str = "") -> Iterator[Path]:
    """Serve that desktop; give the VNC server's UNIX socket."""
    settings = directory / "wayvnc.conf"
    settings.write_text(configuration)
    address = directory / "vnc"
    words = ["wayvnc", "-C", str(settings), "--disable-input", "--unix-socket", str(address)]
    with _running(words, directory, WAYLAND_DISPLAY=display) as process:
        _wait(process, directory, address.name)
        try:
            yield address
        finally:
            address.unlink(missing_ok=True)
