"""A function in several processes of one group on this host, for tests: no network, a time limit, no process left."""

import importlib.util
import inspect
import os
import pickle
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
# gloo asks the host's name for an address and may abort where there is no network; loopback is always there.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "GLOO_SOCKET_IFNAME": "lo"}


class ProcessFailed(AssertionError):
    """One of the processes raised an error, or did not end in time."""


def run_in_processes(function: Callable[..., Any], *arguments: Any, size: int = 2, limit_s: float = 120) -> list[Any]:
    """`function(World, *arguments)` in each of `size` fresh processes that form a gloo group; warnings are errors.

    The first failure ends all of them: the others may be waiting for it.

    Args:
        function: at the top level of a file; it is found by file and name, so no package is needed around tests.
        arguments: picklable, without classes of the test's own file; the same for all.
        size: number of processes.
        limit_s: after which they are killed.

    Returns:
        What it returned (picklable), in the order of ranks.

    Raises:
        ProcessFailed: with the rank and what it wrote to stderr.
    """
    with tempfile.TemporaryDirectory(prefix="histokin-processes-") as name:
        folder = Path(name)
        job = (inspect.getsourcefile(function), function.__name__, arguments, size, limit_s)
        (folder / "job").write_bytes(pickle.dumps(job))
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
        processes = [_launch(folder, rank, environment) for rank in range(size)]
        try:
            with ThreadPoolExecutor(size) as pool:
                futures = [pool.submit(_end_of, p, rank, limit_s) for rank, p in enumerate(processes)]
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for process in processes:  # a failed one may leave others waiting
                    process.kill()
        finally:
            for process in processes:
                process.kill()
                process.wait()
        # Where one process fails, the error of another that lost its peer may come first.
        told = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("error-*"))]
        told += [str(future.exception()) for future in done if future.exception()]
        if told:
            raise ProcessFailed("\n".join(told))
        return [pickle.loads((folder / f"result-{rank}").read_bytes()) for rank in range(size)]


def fail_in_the_second(world: Any) -> None:
    """The others wait for the second process, which fails: for the tests of this file. It loads little."""
    from histokin.learn.distributed import wait_for_all

    if world.rank == 1:
        raise RuntimeError("the second process has failed")
    wait_for_all()


def _launch(folder: Path, rank: int, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(Path(__file__)), str(folder), str(rank)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def _end_of(process: subprocess.Popen[str], rank: int, limit_s: float) -> None:
    try:
        _, told = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise ProcessFailed(f"process {rank} did not end within {limit_s} s") from None
    if process.returncode:
        raise ProcessFailed(f"process {rank} ended with {process.returncode}:\n{told}")


def _main(folder: Path, rank: int) -> None:
    from histokin.learn.distributed import World, start

    source, name, arguments, size, limit_s = pickle.loads((folder / "job").read_bytes())
    spec = importlib.util.spec_from_file_location(Path(source).stem, source)
    if spec is None or spec.loader is None:
        raise ImportError(source)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    function, world = getattr(module, name), World(rank, size)
    warnings.simplefilter("error")
    with start(world, backend="gloo", init=(folder / "store").as_uri(), limit_s=limit_s):
        try:
            result = function(world, *arguments)
        except BaseException as error:  # written before the group is left, which makes the others fail
            told = f"process {rank}: {type(error).__name__}: {error}"
            (folder / f"error-{rank}").write_text(told, encoding="utf-8")
            raise
    (folder / f"result-{rank}").write_bytes(pickle.dumps(result))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
