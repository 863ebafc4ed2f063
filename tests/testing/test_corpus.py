"""The corpus keeps its promises: seeded, and exact on engines that round."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest

from m3connect.connecting.checks import check_query, check_records
from m3connect.contract import Limits
from m3connect.filters import matches
from m3connect.testing import corpus
from m3connect.types import Rrf


def test_a_seed_makes_the_same_corpus():
    """Records, queries and filters depend on the seed alone."""
    one, two, other = (corpus.records(seed, 50) for seed in (1, 1, 2))
    assert (one.ids, one.payloads, one.embeddings) == (two.ids, two.payloads, two.embeddings)
    assert one.embeddings != other.embeddings
    assert np.array_equal(corpus.query(1).dense, corpus.query(1).dense)
    assert corpus.condition(random.Random(3)) == corpus.condition(random.Random(3))


@pytest.mark.parametrize("seed", range(5))
def test_numbers_survive_the_engines_rounding(seed):
    """Sparse weights have 9 significant bits, token values are exact in float16."""
    batch = corpus.records(seed, 100).embeddings
    mantissas, _ = np.frexp(batch.sparse.values)
    assert np.array_equal(mantissas * 512, np.round(mantissas * 512))
    tokens = corpus.query(seed).multivector
    assert tokens.dtype == np.float32
    assert np.array_equal(tokens, tokens.astype(np.float16))


@pytest.mark.parametrize("seed", range(5))
def test_what_is_made_is_valid(seed):
    """Records and queries pass the contract's own checks; some records have no term at all."""
    batch = corpus.records(seed, 100)
    check_records(batch, corpus.SCHEMA, Limits())
    check_query(corpus.query(seed, fusion=Rrf()), corpus.SCHEMA)
    assert 0 < (np.diff(batch.embeddings.sparse.indptr) == 0).sum() < 30


def test_filters_and_payloads_meet():
    """A good part of the random filters select some of the random payloads and not others."""
    rng = random.Random(0)
    payloads = corpus.records(0, 100).payloads
    counts = [
        sum(matches(where, payload) for payload in payloads)
        for where in (corpus.condition(rng) for _ in range(200))
    ]
    assert sum(0 < count < 100 for count in counts) > 80


def test_the_suite_without_pytest_says_what_to_install():
    """``m3connect.testing`` imports without pytest; the suite names the pip line."""
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "import m3connect.testing, m3connect.testing.corpus\n"
        "from m3connect.errors import ConfigError\n"
        "try:\n    import m3connect.testing.conformance\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "pytest' in done.stdout
