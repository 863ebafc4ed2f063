"""The service beside the encoder called directly: requests a second and latency with 1, 8 and 64 clients.

    python benchmarks/serve.py [--seconds 5] [--requests 10000] [--model m3-mini] [--peer-python ENV/bin/python]

Prints two tables. The service runs in a process of its own; clients are in this one, coroutines for the
second table. Its overhead is a difference of pairs: each text is encoded here, then asked for there over
one connection of the standard library's client, so that a machine with other work slows both. At the
end, ``--requests`` more requests tell whether memory stays. The encoder here has the machine's last core, the
services have the first, so that neither computes with more threads than the other.

With ``--peer-python``, an environment with FlagEmbedding 1.4, fastapi and uvicorn, the same weights in the
published layout are asked for behind FastAPI, too (``serve_peer.py``).
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from m3connect import M3Encoder, connect, ingest
from m3connect.inference.precision import cpu_name

CORPUS = Path(__file__).parents[1] / "examples" / "data" / "tldr.jsonl"
CLIENTS = (1, 8, 64)


def main() -> None:
    """Start a service over the sample corpus, load it, print the tables; then the peer's."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--requests", type=int, default=10_000)
    options.add_argument("--model", default="m3-mini")
    options.add_argument("--peer-python", help="interpreter of the environment with FlagEmbedding")
    chosen = options.parse_args()
    texts = [json.loads(line)["text"][:200] for line in CORPUS.read_text("utf-8").splitlines()]
    os.sched_setaffinity(0, {(os.cpu_count() or 1) - 1})
    encoder = M3Encoder.load(chosen.model, threads=1)
    load_average = os.getloadavg()[0]
    print(f"{cpu_name()}, {os.cpu_count()} cores, load {load_average:.0f}; {chosen.model}")
    with tempfile.TemporaryDirectory() as folder:
        with connect("qdrant", collection="bench", path=folder) as collection:
            ingest(CORPUS, encoder, collection)
        command = ["-m", "m3connect", "serve", "--collection", "bench", "--path", folder]
        with running([sys.executable, *command, "--model", chosen.model, "--port"]) as (port, pid):
            overhead(port, pid, encoder, texts[:100])
            asyncio.run(load(port, texts, chosen.seconds))
            asyncio.run(stays(port, pid, texts, chosen.requests))
    if chosen.peer_python:
        peer(chosen, encoder, texts)


def peer(chosen: argparse.Namespace, encoder: M3Encoder, texts: list[str]) -> None:
    """FlagEmbedding behind FastAPI: its own difference, and the one route that it has."""
    print("\nFlagEmbedding behind FastAPI")
    with tempfile.TemporaryDirectory() as folder:
        export = ["-m", "m3connect", "export", chosen.model, "--format", "bge-m3"]
        subprocess.run([sys.executable, *export, "--output", f"{folder}/model"], check=True)
        script = str(Path(__file__).with_name("serve_peer.py"))
        command = [chosen.peer_python, script, f"{folder}/model", encoder.config.pooling]
        with running(command) as (port, pid):
            overhead(port, pid, encoder, texts[:100])
            asyncio.run(load(port, texts, chosen.seconds, ["/v1/embeddings"]))


@contextmanager
def running(command: list[str]) -> Iterator[tuple[int, int]]:
    """A service that answers: its port, which ends the command, and its process."""
    port = free_port()
    service = subprocess.Popen([*command, str(port)], stderr=subprocess.DEVNULL)
    os.sched_setaffinity(service.pid, {0})
    try:
        while True:
            with suppress(OSError):
                http.client.HTTPConnection("127.0.0.1", port).connect()
                break
            time.sleep(0.1)
        yield port, service.pid
    finally:
        service.terminate()
        service.wait()


def overhead(port: int, pid: int, encoder: M3Encoder, texts: list[str]) -> None:
    """The first table: what a request costs beside the call, pair by pair."""
    print("\n| | p50 ms | p90 ms | processor ms |\n|---|---|---|---|")
    pairs = []
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(text: str) -> None:
        body = json.dumps({"input": text})
        client.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
        answer = client.getresponse()
        json.loads(answer.read())["data"]

    spent_here = 0.0
    for text in texts:  # both with the whole tokenizer, which an encoder loads after some texts
        encoder.encode([text], legs=("dense",))
        ask(text)
    before = processor_seconds(pid)
    for text in texts:
        start = time.process_time()
        direct = timed(lambda text=text: encoder.encode([text], legs=("dense",)))
        spent_here += time.process_time() - start
        pairs.append((direct, timed(lambda text=text: ask(text))))
    spent_there = processor_seconds(pid) - before
    client.close()
    columns = {
        "encoder called directly": ([direct for direct, _ in pairs], spent_here),
        "/v1/embeddings, one client": ([asked for _, asked in pairs], spent_there),
        "difference": ([asked - direct for direct, asked in pairs], spent_there - spent_here),
    }
    for name, (times, spent) in columns.items():
        cuts, each = statistics.quantiles(times, n=10), 1e3 * spent / len(pairs)
        print(f"| {name} | {1e3 * cuts[4]:.1f} | {1e3 * cuts[8]:.1f} | {each:.1f} |", flush=True)


ROUTES = {
    "/v1/embeddings": ("one text, dense (/v1/embeddings)", lambda text: {"input": text}),
    "/v1/search": ("search, hybrid (/v1/search)", lambda text: {"query": text}),
}


async def load(
    port: int, texts: list[str], seconds: float, routes: Sequence[str] = tuple(ROUTES)
) -> None:
    """The second table: every route with every number of clients."""
    print("\n| | clients | requests/s | p50 ms | p99 ms |\n|---|---|---|---|---|")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=300) as client:
        for path in routes:
            name, body = ROUTES[path]
            for clients in CLIENTS:
                end = time.perf_counter() + seconds
                times = await measure(
                    client, path, body, texts, clients, lambda end=end: time.perf_counter() < end
                )
                row(name, clients, times, seconds)


async def stays(port: int, pid: int, texts: list[str], requests: int) -> None:
    """The service's memory before and after so many requests more, of 8 clients."""
    path = "/v1/embeddings"
    before, left = memory(pid), itertools.count(1)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=300) as client:
        await measure(client, path, ROUTES[path][1], texts, 8, lambda: next(left) <= requests)
    print(f"\nmemory: {before} MiB, {memory(pid)} MiB after {requests} requests more")


async def measure(client, path, body, texts, clients, goes_on) -> list[float]:  # noqa: ANN001
    """Seconds of each request, made by so many clients as long as ``goes_on`` says."""
    times: list[float] = []
    queue = itertools.cycle(texts)

    async def go_on() -> None:
        own = 0
        while goes_on() or own < 2:  # a quantile needs two
            own += 1
            started = time.perf_counter()
            answer = await client.post(path, json=body(next(queue)))
            answer.raise_for_status()
            times.append(time.perf_counter() - started)

    await asyncio.gather(*(go_on() for _ in range(clients)))
    return times


def row(name: str, clients: int, times: list[float], seconds: float) -> None:
    """One line of the table."""
    cuts = statistics.quantiles(times, n=100)
    print(
        f"| {name} | {clients} | {len(times) / seconds:.0f} | {1e3 * cuts[49]:.1f} "
        f"| {1e3 * cuts[98]:.1f} |",
        flush=True,
    )


def timed(call) -> float:  # noqa: ANN001
    """Seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def processor_seconds(pid: int) -> float:
    """What a process has spent so far, in all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> int:
    """Resident MiB of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) // 1024


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
