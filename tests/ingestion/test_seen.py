"""The ids that a run has come across."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3connect.errors import ConfigError
from m3connect.ingestion.seen import CACHE, Seen

IDS = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.tuples(IDS, st.sampled_from(["", "docs/", "a\udcff/"]))))
def test_it_is_a_dictionary_in_which_the_first_of_equal_ids_stays(pairs):
    """Ids of any text, the NUL and all cases told apart; sources of any name that a folder can have."""
    expected = {}
    with Seen() as seen:
        for id_, source in pairs:
            assert (id_ in seen) == (id_ in expected)
            assert seen.add(id_, source) == (id_ not in expected)
            expected.setdefault(id_, source)
        assert dict(seen.items()) == expected
        assert len(seen) == len(expected)
        assert seen.sources() == set(expected.values())


def test_ids_beyond_what_memory_holds_are_kept():
    """In the file; more than three times of what is cached."""
    length = 1000
    ids = [f"{at:0{length}}" for at in range(3 * CACHE // length)]
    with Seen() as seen:
        assert all(seen.add(id_) for id_ in ids)
        assert not any(seen.add(id_) for id_ in ids)
        assert len(seen) == len(ids)


def test_a_full_disk_is_told():
    """What to do, and no error of SQLite's."""
    with Seen() as seen:
        seen._file.execute("PRAGMA max_page_count=10")
        with pytest.raises(ConfigError, match=r"disk is full.*TMPDIR"):
            assert all(seen.add(f"{at:0100}") for at in range(1000))
