"""Run Milvus from the PyPI package and relay a UNIX socket to it; see ``server.py``.

The server listens on every interface, so this is started in a network namespace of its own. It
prints READY, and the process namespace it was started in ends with it.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from pathlib import Path

PORT = 19530
PARTS = (
    "rootCoord",
    "proxy",
    "queryCoord",
    "queryNode",
    "indexCoord",
    "indexNode",
    "dataCoord",
    "dataNode",
)


def main(home: Path) -> None:
    """Serve until killed."""
    from milvus import MilvusServer, MilvusServerConfig  # type: ignore[import-not-found]

    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    config = MilvusServerConfig(data_dir=str(home / "data"), proxy_port=PORT)
    for part in PARTS:
        config.set(f"{part}.ip", "127.0.0.1")
    config.set("common.security.authorizationEnabled", "true")
    config.set("common.session.ttl", "5")  # else a restart waits for what a crash left registered
    server = MilvusServer(config)  # stops when it is collected
    server.start()
    listener = socket.socket(socket.AF_UNIX)
    (home / "socket").unlink(missing_ok=True)
    listener.bind(str(home / "socket"))
    listener.listen()
    sys.stdout.write("READY\n")
    sys.stdout.flush()
    while True:
        join(listener.accept()[0], socket.create_connection(("127.0.0.1", PORT)))


def join(outer: socket.socket, inner: socket.socket) -> None:
    """Make two connections one."""
    for source, target in ((outer, inner), (inner, outer)):
        threading.Thread(target=relay, args=(source, target), daemon=True).start()


def relay(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes, and the end."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
