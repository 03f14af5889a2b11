"""Tasks to rows: in this process, in a pool of processes, or through dask on one machine or many. The rows are the same, their order is not."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import connection, get_context, parent_process
from typing import Any

from latentpress.errors import InputError, MissingExtraError
from latentpress.eval.measure import How, Measured, Task, error_row, measure

TRIES = 3  # of a task whose worker process dies; then it is the task that kills


def in_process(tasks: Sequence[Task], how: How) -> Iterator[Measured]:
    for task in tasks:
        yield measure(task, how)


def in_pool(tasks: Sequence[Task], how: How, jobs: int) -> Iterator[Measured]:
    """`jobs` processes; those that die are replaced, and what they had begun is measured again, each task alone: then it is known which one kills."""
    waiting, deaths = list(reversed(tasks)), Counter[int]()
    while waiting:
        # spawn: a forked child would inherit the thread pools of torch, which do not survive a fork
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_die_with_parent) as pool:
            running: dict[Future[Measured], Task] = {}
            try:
                while waiting or running:
                    while waiting and len(running) < jobs + 1:  # one more than processes, so that none waits for this one
                        if running and any(deaths[id(t)] for t in (waiting[-1], *running.values())):
                            break
                        task = waiting.pop()
                        running[pool.submit(measure, task, how)] = task
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        del running[future]
                        yield result
            except BrokenProcessPool as broken:
                for task in list(running.values()):
                    deaths[id(task)] += 1
                    if deaths[id(task)] < TRIES:
                        waiting.append(task)
                    else:
                        yield Measured(error_row(task, how, RuntimeError(f"the worker process died {TRIES} times ({broken})")))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def _die_with_parent() -> None:
    """A worker ends by Ctrl-C at once, and when the bench is killed, which otherwise leaves it waiting for ever."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (connection.wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def through_dask(tasks: Sequence[Task], how: How, address: str, jobs: int) -> Iterator[Measured]:
    """On the workers of a dask scheduler, which must see the same paths; "local" makes `jobs` workers here.

    What a worker that dies had begun goes to another one; after four deaths a task gives an error row.
    """
    distributed = _distributed()
    with _client(distributed, address, jobs) as client:
        run = partial(measure, how=how)
        futures = {client.submit(run, task, pure=False): task for task in tasks}
        for future in distributed.as_completed(list(futures)):
            task = futures.pop(future)
            error = future.exception() if future.status == "error" else None
            yield Measured(error_row(task, how, error)) if error is not None else future.result()
            future.release()


def _client(distributed: Any, address: str, jobs: int) -> Any:
    if address == "local":
        cluster = distributed.LocalCluster(n_workers=jobs, threads_per_worker=1, processes=True, dashboard_address=None)
        return _Owning(distributed.Client(cluster), cluster)
    try:
        return distributed.Client(address, timeout="10s")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"--scheduler {address}: no dask scheduler answers there; start one, or give local") from error


class _Owning:
    """A client that closes its cluster."""

    def __init__(self, client: Any, cluster: Any) -> None:
        self.client, self.cluster = client, cluster

    def __enter__(self) -> Any:
        return self.client

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.cluster.close()


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise MissingExtraError("distributed", "bench") from error
    return distributed
