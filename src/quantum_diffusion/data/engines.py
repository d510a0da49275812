"""Runs functions in parallel, in processes on this machine or on a Ray cluster.

Both are joblib backends, so that generation and sampling are written once for both.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import joblib

from quantum_diffusion.errors import ConfigError, first_line

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_in_order(
    engine: str, n_jobs: int, function: Callable[[Item], Result], items: Iterable[Item]
) -> Generator[Result, None, None]:
    """Call a function for every item on persistent workers, and yield the results in the order of the items.

    Args:
        engine: "local" (processes on this machine) or "ray" (the cluster of RAY_ADDRESS, or this machine).
        n_jobs: Number of worker processes; -1 uses every core (of the cluster with Ray).
        function: The function; it is pickled with everything it refers to.
        items: Its arguments, consumed as workers become free.

    Raises:
        ConfigError: Ray is not installed, or its cluster cannot be reached.
    """
    if engine == "ray":
        _connect_to_ray()
    backend, kind = ("ray", "list") if engine == "ray" else ("loky", "generator")  # Ray's backend cannot stream
    call = function if engine == "ray" else partial(_undisturbed, os.getpid(), function)
    with joblib.parallel_config(backend=backend), _hang_ups_kept_from_children():
        # max_nbytes=None: do not write large arrays to files, as each is needed only once.
        parallel = joblib.Parallel(n_jobs=n_jobs, return_as=kind, max_nbytes=None)
        results = parallel(joblib.delayed(call)(item) for item in items)
    try:
        for result in results:  # noqa: UP028  (`yield from` would close the results outside of what follows)
            yield result
    finally:
        if kind == "generator":
            with warnings.catch_warnings():  # joblib warns about unused results
                warnings.simplefilter("ignore")
                results.close()


def _undisturbed(caller: int, function: Callable[[Item], Result], item: Item) -> Result:
    """Call a function with Ctrl-C ignored: the calling process handles it and stops its workers."""
    if os.getpid() != caller:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return function(item)


@contextmanager
def _hang_ups_kept_from_children() -> Iterator[None]:
    """Block SIGHUP while child processes start, which inherit this: the parent handles it and stops them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def num_workers(engine: str, n_jobs: int) -> int:
    """Return the number of items processed in parallel; on this machine at most one per core."""
    if engine == "local":
        cores = int(joblib.cpu_count())
        return min(n_jobs, cores) if n_jobs > 0 else cores
    if n_jobs > 0:
        return n_jobs
    _connect_to_ray()
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _connect_to_ray() -> None:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        raise ConfigError(
            "engine=ray needs Ray, which is not installed: run pip install -c constraints.txt '.[ray]', or use "
            "engine=local"
        ) from None
    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False, include_dashboard=False)
        except (ConnectionError, RuntimeError, ValueError) as problem:
            raise ConfigError(
                f"engine=ray cannot reach the Ray cluster ({first_line(problem)}): check RAY_ADDRESS, "
                "or unset it to use this machine"
            ) from problem
    register_ray()
