"""The service beside the encoder called directly: requests a second and latency with 1, 8 and 64 clients.

    python benchmarks/serve.py [--seconds 5] [--model m3-mini]

Prints one table. The service runs in a process of its own; clients are coroutines in this one. Its
overhead is the difference between one client's p50 and the encoder's own p50 on the same texts.
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
    options.add_argument("--model", default="m3-mini")
    chosen = options.parse_args()
    texts = [json.loads(line)["text"][:200] for line in CORPUS.read_text("utf-8").splitlines()]
    encoder = M3Encoder.load(chosen.model)
    print(f"{cpu_name()}, {os.cpu_count()} cores; {chosen.model}; {chosen.seconds:g} s a row")
    print("| | clients | requests/s | p50 ms | p99 ms |\n|---|---|---|---|---|")
    direct = [timed(lambda text=text: encoder.encode([text], kind="query")) for text in texts[:100]]
    row("encoder called directly", 1, direct, sum(direct))
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
            asyncio.run(load(f"http://127.0.0.1:{port}", texts, chosen.seconds, service.pid))
        finally:
            service.terminate()
            service.wait()


async def load(address: str, texts: list[str], seconds: float, pid: int) -> None:
    """Every route with every number of clients."""
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        while True:
            try:
                await client.get("/health")
                break
            except httpx.TransportError:
                await asyncio.sleep(0.1)
        before = memory(pid)
        routes = {
            "one text, dense (/v1/embeddings)": ("/v1/embeddings", lambda t: {"input": t}),
            "search, hybrid (/v1/search)": ("/v1/search", lambda t: {"query": t}),
        }
        total = 0
        for name, (path, body) in routes.items():
            for clients in CLIENTS:
                times = await measure(client, path, body, texts, clients, seconds)
                total += len(times)
                row(name, clients, times, seconds)
        print(
            f"\nmemory of the service: {before} MiB at first, {memory(pid)} after {total} requests"
        )


async def measure(client, path, body, texts, clients, seconds) -> list[float]:  # noqa: ANN001
    """Seconds of each request while the clients go on."""
    times: list[float] = []
    queue = itertools.cycle(texts)
    end = time.perf_counter() + seconds

    async def go_on() -> None:
        while time.perf_counter() < end:
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
