"""One target after the other, one process at a time, each execution counted.

``python -m fuzz.campaign DIRECTORY [TARGET=RUNS ...]``, in a directory that `scripts/kernel` made.
Corpora and finds go to DIRECTORY; a line for each run to its counts.jsonl, which are added up.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

__all__ = ["PLAN", "run", "totals"]

PLAN: dict[str, int] = {
    "kernel": 6_000_000,
    "handshake": 400_000,
    **dict.fromkeys(("tight", "tight-any", "trle", "zrle", "hextile", "stream"), 300_000),
    **dict.fromkeys(("raw", "copyrect", "rre", "corre", "zlib", "zywrle", "pseudo"), 200_000),
    **dict.fromkeys(("png", "jpeg", "jpeg-21", "h264", "clipboard"), 200_000),
    "zrle-large": 50_000,
    "zlib-large": 10_000,
    "differential": 50_000,
    **dict.fromkeys(("agent", "qmp", "socks", "vhost-user", "texts", "copy"), 200_000),
}
"""How many executions of each."""

_OPTIONS = "-max_len=512", "-rss_limit_mb=1500", "-timeout=20", "-print_final_stats=1"
_DONE = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_LAST = re.compile(r"^#(\d+)\s", re.MULTILINE)
_COVERED = re.compile(r"cov: (\d+)")


def run(name: str, runs: int, directory: Path) -> dict[str, object]:
    """Run a target and return what came of it; its finds are in ``directory``/finds."""
    finds = directory / "finds"
    finds.mkdir(parents=True, exist_ok=True)
    command = ["nice", "-n", "19", sys.executable, "-m", "fuzz", name, str(directory / name)]
    command += [f"-runs={runs}", f"-artifact_prefix={finds}/{name}-", *_OPTIONS]
    log = directory / f"{name}.log"
    began = time.monotonic()
    with log.open("w") as output:
        code = subprocess.run(command, stdout=output, stderr=output, check=False).returncode
    text = log.read_text(errors="replace")
    counted = _DONE.findall(text) or _LAST.findall(text) or ["0"]
    return {
        "target": name,
        "executions": int(counted[-1]),
        "seconds": round(time.monotonic() - began),
        "covered": max((int(number) for number in _COVERED.findall(text)), default=0),
        "code": code,
    }


def totals(counts: Path) -> Counter[str]:
    """Return how many executions there were of each target."""
    lines = [json.loads(line) for line in counts.read_text().splitlines()]
    total: Counter[str] = Counter()
    for line in lines:
        total[line["target"]] += line["executions"]
    return total


def main(arguments: list[str]) -> None:
    """Run what is asked for, or all, and print the counts."""
    directory = Path(arguments[0])
    asked = dict(argument.split("=") for argument in arguments[1:])
    plan = {name: int(runs) for name, runs in asked.items()} or PLAN
    counts = directory / "counts.jsonl"
    for name, runs in plan.items():
        done = run(name, runs, directory)
        print(json.dumps(done), flush=True)
        with counts.open("a") as lines:
            lines.write(json.dumps(done) + "\n")
    total = totals(counts)
    for name, executions in total.most_common():
        print(f"{name:14} {executions:12,}")
    print(f"{'in all':14} {total.total():12,}")


if __name__ == "__main__":
    main(sys.argv[1:])
