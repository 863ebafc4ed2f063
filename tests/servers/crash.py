"""What every connector survives when its server is killed and started again on its data."""

from __future__ import annotations

import threading

from m3connect.connecting.retry import RetryPolicy
from m3connect.testing.conformance.compare import by_id, check_records

PATIENT = RetryPolicy(attempts=500, initial=0.05, maximum=0.25)
"""For the connector: longer than a restart takes."""
_CRASH_AT = 5


def check_outlives(connector, server, batches, schema):
    """SIGKILL between writes: nothing acknowledged is lost, the rest follows after the restart.

    Every batch is written once, so a batch that was acknowledged and lost would be missing.

    Args:
        connector: without a collection; it retries as :data:`PATIENT` does.
        server: with ``kill()`` and ``start()``.
        batches: more than five.
        schema: of the batches.
    """
    connector.ensure(schema)
    crash = threading.Thread(target=lambda: (server.kill(), server.start()))
    for number, batch in enumerate(batches):
        if number == _CRASH_AT:
            crash.start()
        connector.upsert(batch)
    crash.join()
    wanted = by_id(batches)
    assert connector.count() == len(wanted)
    check_records(wanted, by_id(connector.scan(vectors=True)), schema)
    for batch in batches:
        connector.upsert(batch)
    assert connector.count() == len(wanted)
    check_records(wanted, by_id(connector.scan(vectors=True)), schema)
