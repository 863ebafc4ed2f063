"""Several processes on one machine, for the tests of distributed training."""

import multiprocessing
import os
import socket

import torch.multiprocessing as mp

# They are forked from one process that has imported torch: importing takes longer than the work.
multiprocessing.set_forkserver_preload(["torch.distributed", "m3connect.training.loop"])


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_processes(work, count, *arguments):
    """``work(rank, *arguments)`` in processes of its own; an error in one of them is raised here."""
    mp.start_processes(  # type: ignore[attr-defined]
        _work_and_leave, (work, arguments), nprocs=count, start_method="forkserver"
    )


def _work_and_leave(rank, work, arguments):
    """Leave at once: gloo's threads outlive their group, and one that frees a tensor while Python
    shuts down aborts the process ("terminate called without an active exception")."""
    work(rank, *arguments)
    os._exit(0)
