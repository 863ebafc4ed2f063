"""The service beside the encoder called directly: requests a second and latency with 1, 8 and 64 clients.

    python benchmarks/serve.py [--seconds 5] [--requests 10000] [--model m3-mini]

Prints two tables. The service runs in a process of its own; clients are coroutines in this one. Its
overhead is a difference of pairs: each text is encoded here, then asked for there, so that a machine
with other work slows both. At the end, ``--requests`` more requests tell whether memory stays.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import httpx

from m3connect import M3Encoder, connect, ingest
from m3connect.inference.precision import cpu_name

CORPUS = Path(__file__).parents[1] / "examples" / "data" / "tldr.jsonl"
CLIENTS = (1, 8, 64)


def main() -> None:
    """Start a service over the sample corpus, load it, print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--requests", type=int, default=10_000)
    options.add_argument("--model", default="m3-mini")
    chosen = options.parse_args()
    texts = [json.loads(line)["text"][:200] for line in CORPUS.read_text("utf-8").splitlines()]
    encoder = M3Encoder.load(chosen.model)
    load_average = os.getloadavg()[0]
    print(f"{cpu_name()}, {os.cpu_count()} cores, load {load_average:.0f}; {chosen.model}")
    with tempfile.TemporaryDirectory() as folder:
        with connect("qdrant", collection="bench", path=folder) as collection:
            ingest(CORPUS, encoder, collection)
        port = free_port()
        command = ["serve", "--port", str(port), "--collection", "bench", "--path", folder]
        service = subprocess.Popen(
            [sys.executable, "-m", "m3connect", *command, "--model", chosen.model],
            stderr=subprocess.DEVNULL,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            asyncio.run(ready(address))
            overhead(address, encoder, texts[:100], service.pid)
            asyncio.run(load(address, texts, chosen, service.pid))
        finally:
            service.terminate()
            service.wait()


async def ready(address: str) -> None:
    """Wait until it answers."""
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        while True:
            with suppress(httpx.TransportError):
                await client.get("/health")
                return
            await asyncio.sleep(0.1)


def overhead(address: str, encoder: M3Encoder, texts: list[str], pid: int) -> None:
    """The first table: what a request costs beside the call, pair by pair."""
    print("\n| | p50 ms | p90 ms | processor ms |\n|---|---|---|---|")
    pairs = []
    with httpx.Client(base_url=address, timeout=60) as client:

        def ask(text: str) -> None:
            client.post("/v1/embeddings", json={"input": text}).raise_for_status()

        spent_here = 0.0
        ask(texts[0])
        before = processor_seconds(pid)
        for text in texts:
            start = time.process_time()
            direct = timed(lambda text=text: encoder.encode([text], legs=("dense",)))
            spent_here += time.process_time() - start
            pairs.append((direct, timed(lambda text=text: ask(text))))
        spent_there = processor_seconds(pid) - before
    columns = {
        "encoder called directly": ([direct for direct, _ in pairs], spent_here),
        "/v1/embeddings, one client": ([asked for _, asked in pairs], spent_there),
        "difference": ([asked - direct for direct, asked in pairs], spent_there - spent_here),
    }
    for name, (times, spent) in columns.items():
        cuts, each = statistics.quantiles(times, n=10), 1e3 * spent / len(pairs)
        print(f"| {name} | {1e3 * cuts[4]:.1f} | {1e3 * cuts[8]:.1f} | {each:.1f} |", flush=True)


async def load(address: str, texts: list[str], chosen: argparse.Namespace, pid: int) -> None:
    """The second table: every route with every number of clients; then memory."""
    print("\n| | clients | requests/s | p50 ms | p99 ms |\n|---|---|---|---|---|")
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        routes = {
            "one text, dense (/v1/embeddings)": ("/v1/embeddings", lambda t: {"input": t}),
            "search, hybrid (/v1/search)": ("/v1/search", lambda t: {"query": t}),
        }
        for name, (path, body) in routes.items():
            for clients in CLIENTS:
                end = time.perf_counter() + chosen.seconds
                times = await measure(
                    client, path, body, texts, clients, lambda end=end: time.perf_counter() < end
                )
                row(name, clients, times, chosen.seconds)
        before, left = memory(pid), itertools.count(1)
        path, body = routes["one text, dense (/v1/embeddings)"]
        await measure(client, path, body, texts, 8, lambda: next(left) <= chosen.requests)
        print(f"\nmemory: {before} MiB, {memory(pid)} MiB after {chosen.requests} requests more")


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
