"""Copies beside scp, sftp and a raw vsock stream: one large file, and ten thousand small ones.

One run, one guest, one user-space vsock device; peers take turns. Prints a table, and writes a
plot and JSON where asked. ::

    python -m bench.copy [--rounds N] [--megabytes N] [--files N] [--json FILE] [--plot FILE.png]
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench.guest import (
    NAME,
    RAW_IN,
    RAW_OUT,
    REMOTE,
    VMCONNECT,
    Figure,
    Peers,
    Stage,
    rate,
    raw_servers,
    rounds,
    run,
    timed,
)
from vmconnect.cli.progress import TerminalProgress
from vmconnect.demo import DemoMachine, build
from vmconnect.direct.copy import Options
from vmconnect.session import connect

RAW = "raw vsock"
PEERS = {"scp", "sftp", "scp -r", "sftp -r", RAW}
SMALL_BYTES = 1000
FILES_A_DIRECTORY = 500


class CopyPeers(Peers):
    """OpenSSH's sftp, too."""

    def sftp(self, order: str) -> None:
        """Let sftp carry out one order."""
        options = ["sftp", "-q", *self._options, "-b", "-", f"root@{NAME}"]
        subprocess.run(options, input=order.encode(), check=True, stdout=subprocess.DEVNULL)


def cp(*arguments: str) -> None:
    """Run our command, as a whole process."""
    run([VMCONNECT, "cp", "-q", *arguments])


def out_of(stage: Stage, peers: CopyPeers) -> list[Figure]:
    """Measure one large file from guest to host."""
    guest, size = stage.guest, stage.size
    remote, local = f"{REMOTE}/large", stage.directory / "out"

    def raw() -> None:
        with stage.dial(RAW_OUT) as stream:
            buffer = memoryview(bytearray(1 << 20))
            left = size
            while left:
                count = stream.recv_into(buffer[: min(left, len(buffer))])
                assert count
                left -= count

    guest.run(["sh", "-c", f"head -c {size} /dev/urandom >{remote}"])
    return rounds(
        stage.rounds,
        "guest to host",
        "MB/s",
        raw_vsock=rate(size, raw),
        Guest__get=rate(size, lambda: guest.get(remote, local)),
        vmconnect_cp=rate(size, lambda: cp(f"{NAME}:{remote}", str(local))),
        scp=rate(size, lambda: run(peers.scp(f"GUEST:{remote}", str(local)))),
        sftp=rate(size, lambda: peers.sftp(f"get {remote} {local}\n")),
    )


def into(stage: Stage, peers: CopyPeers) -> list[Figure]:
    """Measure one large file from host to guest."""
    guest, size = stage.guest, stage.size
    remote, local = f"{REMOTE}/large", stage.directory / "in"
    local.write_bytes(secrets.token_bytes(size))
    chunk = bytes(1 << 18)

    def raw() -> None:
        with stage.dial(RAW_IN) as stream:
            for _chunk in range(size // len(chunk)):
                stream.sendall(chunk)
            stream.shutdown_write()
            assert stream.recv(1) == b"."  # The guest has read it all.

    return rounds(
        stage.rounds,
        "host to guest",
        "MB/s",
        raw_vsock=rate(size, raw),
        Guest__put=rate(size, lambda: guest.put(local, remote)),
        vmconnect_cp=rate(size, lambda: cp(str(local), f"{NAME}:{remote}")),
        scp=rate(size, lambda: run(peers.scp(str(local), f"GUEST:{remote}"))),
        sftp=rate(size, lambda: peers.sftp(f"put {local} {remote}\n")),
    )


def many(stage: Stage, peers: CopyPeers, files: int) -> list[Figure]:
    """Measure many small files, whole processes each, login included; once, as it takes long."""
    tree = stage.directory / "many"
    for number in range(files):
        place = tree / f"d{number // FILES_A_DIRECTORY}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"f{number}").write_bytes(secrets.token_bytes(SMALL_BYTES))
    back = stage.directory / "back"
    at = f"{NAME}:{REMOTE}"
    found = []

    def once(what: str, who: str, contender: object) -> None:
        stage.guest.run(["rm", "-rf", f"{REMOTE}/new"])
        shutil.rmtree(back, ignore_errors=True)
        value = timed(contender)() / 1e3  # type: ignore[arg-type]
        found.append(Figure(what, "s", who, [value]))

    name = f"{files:,} files"
    inward, outward = f"{name}, to the guest", f"{name}, to the host"
    over_ssh = Options(ways=("SSH",))
    recursive = "-r"
    once(inward, "vmconnect cp", lambda: cp(str(tree), f"{at}/new"))
    once(
        inward,
        "Guest.put over SSH",
        lambda: stage.guest.put(tree, f"{REMOTE}/new", options=over_ssh),
    )
    once(inward, "sftp -r", lambda: peers.sftp(f"put -r {tree} {REMOTE}/new\n"))
    scp = peers.scp(str(tree), f"GUEST:{REMOTE}/new")
    once(inward, "scp -r", lambda: run([scp[0], recursive, *scp[1:]]))
    stage.guest.put(tree, f"{REMOTE}/many")
    once("the same again, --sync", "vmconnect cp --sync", lambda: cp("--sync", str(tree), f"{at}/"))
    once(outward, "vmconnect cp", lambda: cp(f"{at}/many", str(back)))
    once(outward, "sftp -r", lambda: peers.sftp(f"get -r {REMOTE}/many {back}\n"))
    scp = peers.scp(f"GUEST:{REMOTE}/many", str(back))
    once(outward, "scp -r", lambda: run([scp[0], recursive, *scp[1:]]))
    return found


def table(figures: list[Figure]) -> str:
    """Return the figures as Markdown: how many times faster than scp, and how much of raw vsock."""
    lines = ["| | | median | min to max | to scp | to raw vsock |", "|---|---|---:|---:|---:|---:|"]
    for figure in figures:
        told = []
        for peer in ("scp", RAW):
            found = [
                each
                for each in figures
                if each.what == figure.what and each.who.removesuffix(" -r") == peer
            ]
            if not found or found[0] is figure:
                told.append("")
                continue
            ratio = figure.median / found[0].median
            told.append(f"{1 / ratio if figure.unit == 's' else ratio:.2f}x")
        spread = f"{min(figure.values):.1f} to {max(figure.values):.1f}"
        lines.append(
            f"| {figure.what} | {figure.who} | {figure.median:.1f} {figure.unit} "
            f"| {spread if len(figure.values) > 1 else ''} | {told[0]} | {told[1]} |"
        )
    return "\n".join(lines)


def plot(figures: list[Figure], path: Path) -> None:
    """Draw a bar for each contender, one panel a measurement."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    topics = [
        topic
        for topic in dict.fromkeys(figure.what for figure in figures)
        if sum(figure.what == topic for figure in figures) > 1
    ]
    canvas, panels = plt.subplots(len(topics), 1, figsize=(8, 1.9 * len(topics)))
    for panel, topic in zip(panels, topics, strict=True):
        bars = [figure for figure in figures if figure.what == topic][::-1]
        colours = ["#8a8f98" if bar.who in PEERS else "#1f6feb" for bar in bars]
        drawn = panel.barh([bar.who for bar in bars], [bar.median for bar in bars], color=colours)
        panel.bar_label(drawn, fmt="%.1f", padding=3)
        better = "less is better" if bars[0].unit == "s" else "more is better"
        panel.set_title(f"{topic} ({bars[0].unit}, {better})", loc="left", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
        panel.margins(x=0.12)
    canvas.tight_layout()
    canvas.savefig(path, dpi=110)


def main() -> None:
    """Boot the guest, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=192)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    arguments = parser.parse_args()
    size = arguments.megabytes << 20
    figures: list[Figure] = []
    with TerminalProgress() as progress, tempfile.TemporaryDirectory(prefix="vmc-") as name:
        directory = Path(name)
        image = build(progress)
        progress.step("Booting the guest")
        with (
            # Half of it is the guest's /tmp, which holds the file twice for a moment.
            DemoMachine.start(NAME, image=image, progress=progress, memory_mib=1024) as machine,
            connect(f"qemu:{machine.qmp_path}") as session,
        ):
            guest = session.guest(timeout=120, wait=True)
            peers = CopyPeers(machine, image, directory)
            stage = Stage(machine, guest, peers, directory, size, arguments.rounds)
            if size:
                with raw_servers(stage):
                    progress.step("Guest to host")
                    figures += out_of(stage, peers)
                    progress.step("Host to guest")
                    figures += into(stage, peers)
            guest.run(["rm", "-f", f"{REMOTE}/large"])
            if arguments.files:
                progress.step("Small files")
                figures += many(stage, peers, arguments.files)
    print(table(figures))
    if arguments.json:
        rows = [{**vars(figure), "median": figure.median} for figure in figures]
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if arguments.plot:
        plot(figures, arguments.plot)


if __name__ == "__main__":
    main()
