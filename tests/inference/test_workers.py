"""Several processes: the same results in order, whoever dies; never a hang, and nothing is left."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from m3connect.errors import ConfigError, M3ConnectError
from m3connect.inference import M3Encoder, opening, workers
from m3connect.model.tokenize import TokenIds

TEXTS = [f"The river {number} rises in the hills. " * (1 + number % 7) for number in range(40)]
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from m3connect import M3Encoder
encoder = M3Encoder.load(sys.argv[1], device="cpu:2")
print(*encoder.backend.pids, flush=True)
while True:
    encoder.encode(["many words " * 30] * 200)
"""


def load(model, count=2):
    """An encoder of so many workers, with small batches."""
    return M3Encoder.load(model, device=f"cpu:{count}", backend="onnx", batch_tokens=120)


@pytest.fixture(scope="module")
def encoder(tiny_m3):
    """Two workers."""
    found = load(tiny_m3)
    yield found
    found.backend.close()


@pytest.fixture(scope="module")
def expected(tiny_m3):
    """What one process makes of the texts."""
    return M3Encoder.load(tiny_m3, backend="onnx", batch_tokens=120).encode(TEXTS)


def assert_same(found, expected):
    """Equal in all that was asked for."""
    np.testing.assert_array_equal(found.dense, expected.dense)
    np.testing.assert_array_equal(found.sparse.values, expected.sparse.values)
    np.testing.assert_array_equal(found.multivector.vectors, expected.multivector.vectors)


def batch(*texts):
    """Texts of these tokens."""
    offsets = np.cumsum([0, *map(len, texts)])
    return TokenIds(offsets, np.concatenate(texts), np.zeros(len(texts), np.bool_))


def runs(pid):
    """Whether there is such a process; one that ended and was not waited for is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids, seconds=20):
    """Whether the processes end within this time."""
    end = time.monotonic() + seconds
    while any(map(runs, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(runs, pids))


def test_workers_give_what_one_process_gives(encoder, expected):
    """In the order of the texts, all at once or as a stream; the encoder says how it runs."""
    assert_same(encoder.encode(TEXTS), expected)
    found = [vector for part in encoder.stream(iter(TEXTS)) for vector in part.dense]
    np.testing.assert_allclose(found, expected.dense, atol=1e-6)
    assert repr(encoder).endswith("float32 on onnx, cpu:2>")
    assert len(encoder.encode([])) == 0
    assert encoder.info.fingerprint.precision == "float32"


def test_a_call_that_is_given_up_does_not_disturb_the_next(encoder, expected):
    """Answers that nobody waits for are dropped."""
    texts = batch([7] * 50, [7] * 50)
    for _ in range(2):
        results = encoder.backend.run_all((texts for _ in range(9)), ["dense"])
        next(results)
        results.close()
    assert_same(encoder.encode(TEXTS), expected)


def test_what_a_worker_raises_is_raised_here(encoder, expected):
    """With its traceback; the worker goes on."""
    texts = batch([10**9] * 4)
    with pytest.raises(M3ConnectError, match=r"(?s)worker on cpu failed:\nTraceback.*onnx_backend"):
        encoder.backend.run(texts, ["dense"])
    assert len(encoder.backend.pids) == 2
    assert_same(encoder.encode(TEXTS), expected)


def test_a_forked_process_has_no_workers(encoder, monkeypatch):
    """It would read the answers of the other process."""
    monkeypatch.setattr("m3connect.inference.workers.os.getpid", lambda: 1)
    with pytest.raises(ConfigError, match="load the encoder after forking"):
        encoder.encode(TEXTS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_the_others_do_what_a_dead_worker_leaves(tiny_m3, expected, seed):
    """Killed at any point, one or two of three; in the end none is left, and the call says so."""
    rng = random.Random(seed)
    encoder = load(tiny_m3, 3)
    pids = encoder.backend.pids
    run_all = encoder.backend.run_all
    moments = set(rng.sample(range(12), 1 + seed % 2))

    def killing(batches, legs):
        def read():
            for number, batch in enumerate(batches):
                if number in moments:
                    os.kill(rng.choice(encoder.backend.pids), rng.choice([9, 15]))
                    time.sleep(rng.choice([0, 0.05]))
                yield batch

        return run_all(read(), legs)

    encoder.backend.run_all = killing
    failure = ""
    try:
        assert_same(encoder.encode(TEXTS), expected)
    except M3ConnectError as error:
        failure = str(error)
    # A batch may have been in the hands of both that died.
    assert not failure or (len(moments) == 2 and "was ended by SIG" in failure)
    assert len(encoder.backend.pids) <= 2
    encoder.backend.run_all = run_all
    for pid in encoder.backend.pids:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(M3ConnectError, match="was ended by SIGKILL"):
        encoder.encode(TEXTS)
    with pytest.raises(M3ConnectError, match="no worker is left"):
        encoder.encode(TEXTS)
    assert gone(pids)


def test_more_workers_than_cores_are_warned_of(caplog):
    """Ninety-nine of them would fill the memory; as many as there are cores are fine."""
    workers._check_count("cpu:9999", 9999)
    assert "9999 CPU workers for" in caplog.text
    caplog.clear()
    workers._check_count("cpu:1", 1)
    assert not caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left(tiny_m3, how):
    """After Ctrl-C, which goes to all processes of a terminal, and when the program is killed.

    The program is a script without a guard for ``__main__``.
    """
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tiny_m3],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pids = [int(pid) for pid in program.stdout.readline().split()]
    assert len(pids) == 2
    time.sleep(0.3)
    if how == signal.SIGINT:
        os.killpg(program.pid, how)
    else:
        program.kill()
    try:
        told = program.communicate(timeout=20)[1]
    finally:
        program.kill()
    assert gone(pids)
    assert (how == signal.SIGINT) == ("KeyboardInterrupt" in told)
    assert "M3ConnectError" not in told


@pytest.mark.slow
def test_no_process_is_left_of_an_encoder_that_is_gone(tiny_m3):
    """Neither when it is forgotten, nor when its devices turn out to be wrong."""
    encoder = load(tiny_m3)
    pids = encoder.backend.pids
    del encoder
    assert gone(pids)
    with pytest.raises(ConfigError, match="cannot use the device 'tpu'"):
        M3Encoder.load(tiny_m3, device="cpu,tpu", backend="onnx")


@pytest.mark.parametrize("device", ["", "cpu:0", "cpu,,cpu", ","])
def test_devices_are_checked(device):
    """A list with a hole in it, or of no workers, is refused."""
    with pytest.raises(ConfigError, match="give one, such as cpu"):
        opening.devices(device)
