"""Texts of any length: in a row's field, or in parts where they are too long for one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from m3connect_milvus.storing.keys import digest
from m3connect_milvus.storing.layout import NO_VECTOR, TEXT_BYTES

Row = Mapping[str, Any]

COUNTS = {"payload": "payload_parts", "tokens": "token_parts"}
"""The texts of a record, and the fields that say in how many parts each is kept."""
_PART_CHARACTERS = TEXT_BYTES // 4
"""So many characters fit a field whatever they are: one takes at most four bytes in UTF-8."""


@dataclass(frozen=True, slots=True)
class RecordRows:
    """What is written for one record.

    Args:
        record: its row.
        parts: rows of its texts that are too long for a field.
    """

    record: Row
    parts: Sequence[Row]


def with_texts(row: Row, texts: Mapping[str, str]) -> RecordRows:
    """A row with texts in its fields, or in parts where they are too long."""
    pieces = {name: list(_pieces(text)) for name, text in texts.items()}
    long = [text if pieces[name] else "" for name, text in texts.items()]
    record = {
        **row,
        **{name: "" if pieces[name] else text for name, text in texts.items()},
        **{COUNTS[name]: len(cut) for name, cut in pieces.items()},
        "generation": digest(row["id"], *long) if any(long) else "",
    }
    parts = [
        {
            "id": part_id(record, name, number),
            "record": record["id"],
            "generation": record["generation"],
            "text": piece,
            "unused": list(NO_VECTOR),
        }
        for name, cut in pieces.items()
        for number, piece in enumerate(cut)
    ]
    return RecordRows(record, parts)


def _pieces(text: str) -> Iterator[str]:
    """The parts of a text that does not fit a field; none when it does."""
    size = TEXT_BYTES if text.isascii() else _PART_CHARACTERS
    if len(text) > size and len(text.encode()) > TEXT_BYTES:
        for start in range(0, len(text), size):
            yield text[start : start + size]


def part_id(row: Row, name: str, number: int) -> str:
    """The primary key of a part.

    A record written anew gets new ones, so that a reader never joins parts of two versions.
    """
    return f"{row['id']}-{row['generation']}-{name[0]}{number}"


def part_ids(row: Row, names: Sequence[str]) -> list[str]:
    """The primary keys of the parts of some of a row's texts."""
    return [part_id(row, name, number) for name in names for number in range(row[COUNTS[name]])]


def whole_text(row: Row, name: str, parts: Mapping[str, str]) -> str:
    """A text of a row, put together where it is kept in parts."""
    if not row[COUNTS[name]]:
        return str(row[name])
    return "".join(parts[id_] for id_ in part_ids(row, [name]))
