"""Bytes as text: in the encoding that is stated, else Unicode, else by a guess that is reported."""

from __future__ import annotations

import codecs
import re
import unicodedata

import chardet
import webencodings

from m3connect.errors import InputError

SAMPLE = 1 << 16  # bytes that a guess looks at
# Browsers read these labels as the supersets that the pages are really written in (WHATWG Encoding);
# Python's codecs of the same names are strict.
_SUPERSETS = {
    "gbk": "gb18030",
    "gb2312": "gb18030",
    "euc-kr": "cp949",
    "shift_jis": "cp932",
    "big5": "big5hkscs",
}
_JAPANESE = re.compile(rb"\x1b\$[@B](?:[!-~]{2})+\x1b\([BJ]")
_MARKS = {  # UTF-32 first: its little-endian mark begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def decode(content: bytes, encoding: str | None = None) -> tuple[str, str | None]:
    """The text, and the encoding if it had to be guessed.

    Args:
        content: a whole file.
        encoding: how it is encoded, if that is known; a byte order mark has precedence.

    Raises:
        InputError: it is no text in the encoding, or in any that can be told.

    >>> decode("Größe".encode("cp1252"))
    ('Größe', 'cp1252')
    """
    codec, guessed = codec_for(content, encoding)
    try:
        text = content.decode(codec)
    except UnicodeDecodeError as error:
        raise InputError(undecodable(error)) from error
    if "\0" in text:
        raise InputError("it holds NUL characters, so it is no text (or in UTF-16: --encoding)")
    return text, guessed


def codec_of(label: str) -> str:
    """Python's codec for an encoding as web pages and people name it.

    Raises:
        InputError: nobody knows the name.

    >>> codec_of("ISO-8859-1"), codec_of("gb2312"), codec_of("cp437")
    ('cp1252', 'gb18030', 'cp437')
    """
    known = webencodings.lookup(label)
    name = _SUPERSETS.get(known.name, known.codec_info.name) if known else label
    try:
        return codecs.lookup(name).name
    except LookupError as error:
        raise InputError(f"unknown encoding {label!r}") from error


def codec_for(head: bytes, encoding: str | None = None) -> tuple[str, str | None]:
    """The codec of what begins so, which takes off its byte order mark; and it again if guessed.

    Raises:
        InputError: see :func:`decode`.
    """
    marked = next((codec for mark, codec in _MARKS.items() if head.startswith(mark)), None)
    if codec := marked or (codec_of(encoding) if encoding else None):
        return codec, None
    guessed = guess(head)
    return guessed or "utf-8", guessed


def guess(content: bytes) -> str | None:
    """The encoding of what is not UTF-8; None if it is, but for a few damaged bytes.

    Raises:
        InputError: it is no text in any encoding that can be told.
    """
    sample = content[:SAMPLE]
    escaped = sample.decode("utf-8", "surrogateescape")
    if "\0" in escaped and (wide := _utf16(sample)):
        return wide
    whole = escaped if len(content) <= SAMPLE - 3 else escaped[:-3]  # the end may be cut
    bad = len(whole) - len(whole.encode("utf-8", "ignore").decode())
    others = len(whole) - len(whole.encode("ascii", "ignore"))
    if _JAPANESE.search(sample):
        return "iso2022_jp"  # all ASCII, with escape sequences
    # Bytes of other encodings hardly ever make UTF-8 by chance. A NUL costs its record, not the file.
    if not bad or 5 * bad <= others:
        return None
    return _utf16(sample) or _legacy(sample)


def _utf16(sample: bytes) -> str | None:
    """The byte order of UTF-16 without a mark.

    ASCII, white space and digits have a NUL on one side. Where there are none, it is taken for
    UTF-16 only if it reads as letters and fits nothing else.
    """
    if len(sample) % 2 or (b"\0" not in sample and chardet.detect(sample)["encoding"] is not None):
        return None
    if 4 * sample.count(0) < len(sample) and _is_utf8(sample):
        return None  # UTF-8 with a few NULs, which two by two would read as rare ideographs
    readable = {
        codec: text
        for codec in ("utf-16-le", "utf-16-be")
        if _is_text(text := sample.decode(codec, "ignore"))
    }
    # The wrong order scatters letters over many blocks; the right one stays within a few.
    return min(
        readable, key=lambda codec: len({ord(sign) >> 8 for sign in readable[codec]}), default=None
    )


def _is_utf8(sample: bytes) -> bool:
    """Whether it is UTF-8, but for a character that the end of the sample cuts."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def _is_text(text: str) -> bool:
    """Whether all characters are assigned, and none but line ends and tabs controls anything."""
    return bool(text) and all(
        sign in "\t\n\r\f" or unicodedata.category(sign) not in {"Cc", "Cn", "Co", "Cs"}
        for sign in text
    )


def _legacy(sample: bytes) -> str:
    """The likeliest of the encodings that web pages have; windows-1252 where it is a near tie."""
    guesses = chardet.detect_all(
        sample, encoding_era=chardet.EncodingEra.MODERN_WEB, ignore_threshold=True
    )
    scores = {
        codec_of(each["encoding"]): each["confidence"] for each in guesses if each["encoding"]
    }
    if not scores or b"\0" in sample:
        raise InputError("it is no text in any encoding that could be told (--encoding)")
    best = max(scores, key=lambda name: scores[name])
    return "cp1252" if scores.get("cp1252", 0.0) >= scores[best] / 2 else best


def undecodable(error: UnicodeDecodeError) -> str:
    """What is wrong, for people."""
    name = error.encoding.replace("_", "-").upper().removesuffix("-SIG")
    return f"not {name}: byte {error.object[error.start]:#04x} at byte {error.start + 1}"
