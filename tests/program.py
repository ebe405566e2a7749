"""The program as a user starts it: a process of its own; and what it left on disk."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
NOT_COMPARED = ("log.jsonl",)  # clock times and rates


def histokin(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(
        [sys.executable, "-m", "histokin", *map(str, arguments)],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def kill_when(reached: Callable[[], bool], *arguments: object, cwd: Path) -> bool:
    """Start the program and kill -9 it as soon as `reached`; False if it ended before."""
    process = subprocess.Popen(
        [sys.executable, "-m", "histokin", *map(str, arguments)],
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < until:
        if reached():
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.002)
    process.kill()
    process.wait()
    return False


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with the digest of its bytes; logs of clock times left out."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in NOT_COMPARED
    }


def leftovers(folder: Path) -> list[str]:
    """Temporary files that nobody cleared away."""
    return [path.as_posix() for path in folder.rglob("*") if ".tmp" in path.name]


def modules_after(*arguments: str, cwd: Path) -> set[str]:
    """Top-level modules that a command has loaded when it ends."""
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('MODULES', *sorted({m.split('.')[0] for m in sys.modules})))\n"
        f"sys.argv = ['histokin', *{list(arguments)!r}]\n"
        "from histokin.cli import run\nrun()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    return set(done.stdout.rsplit("MODULES", 1)[1].split())
