"""Office files, books, notebooks and mail as Markdown; most of it through markitdown."""

from __future__ import annotations

import email
import email.policy
import io
import json
import re
import zipfile
from email.message import MIMEPart
from functools import cache
from typing import Any

from m3connect.conversion.encodings import codec_of, decode
from m3connect.conversion.html import html_to_markdown
from m3connect.errors import InputError

CELLS = 2_000_000
"""Most cells of a sheet, the empty ones between included: a converter writes each of them."""
SPARSE_CELLS, EMPTINESS = 10_000, 100
"""Of a sheet with more cells than that, one in so many must be there: else it is all empty columns."""
_CELL = re.compile(rb"<(?:\w+:)?(?:c|row)\s[^>]*?\br=\"([A-Z]*)([0-9]+)\"")
_PARTS = {
    ".docx": "word/",
    ".pptx": "ppt/",
    ".xlsx": "xl/",
    ".epub": "META-INF/container.xml",
    ".odt": "content.xml",
}
"""What an archive of a format holds."""
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"


def office_to_markdown(content: bytes, suffix: str, limit: int) -> tuple[str, str | None]:
    """The text and title of what markitdown reads: pdf, docx, pptx, xlsx, epub, ipynb.

    Args:
        content: the file.
        suffix: its format, such as ``.pdf``.
        limit: most bytes that it may unpack to.

    Raises:
        InputError: it is something else than its name says, or unpacks to too much.
        Exception: it is damaged: whatever the library raises that parses it.
    """
    if suffix == ".pdf" and b"%PDF-" not in content[:1024]:
        raise InputError("it is named .pdf and is no PDF")
    if suffix == ".ipynb" and not _is_notebook(content):
        raise InputError("it is named .ipynb and is no notebook")
    if suffix in _PARTS:
        check_archive(content, limit, suffix)
    from markitdown import FileConversionException, StreamInfo

    try:
        result = _markitdown(suffix).convert_stream(
            io.BytesIO(content), stream_info=StreamInfo(extension=suffix)
        )
    except FileConversionException as error:
        # What its converter said, without an account of the attempts.
        said = [each.exc_info[1] for each in error.attempts or () if each.exc_info]
        raise (said[0] if said else error) from None
    return result.markdown, result.title


_CONVERTERS = {
    ".pdf": "PdfConverter",
    ".docx": "DocxConverter",
    ".pptx": "PptxConverter",
    ".xlsx": "XlsxConverter",
    ".epub": "EpubConverter",
    ".ipynb": "IpynbConverter",
}
"""What reads a format, by its name in ``markitdown.converters``."""


@cache
def _markitdown(suffix: str) -> Any:
    """The converter of one format alone: with all of them, what it cannot read would be taken for something else.

    Such as a damaged PDF for plain text, or a document for a list of its archive.
    """
    from markitdown import MarkItDown, converters

    reader = MarkItDown(enable_builtins=False, enable_plugins=False)
    reader.register_converter(getattr(converters, _CONVERTERS[suffix])())
    return reader


def _is_notebook(content: bytes) -> bool:
    try:
        notebook = json.loads(content)
    except (ValueError, RecursionError):
        return False
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    return isinstance(cells, list) and all(map(_is_cell, cells))


def _is_cell(cell: object) -> bool:
    """Where one is not, markitdown would take the file for plain text, and give the JSON."""
    source = cell.get("source") if isinstance(cell, dict) else None
    lines = source if isinstance(source, list) else [source]
    return all(isinstance(line, str) for line in lines)


def check_archive(content: bytes, limit: int, suffix: str) -> None:
    """Refuse what is something else, and what would fill the memory.

    Raises:
        InputError: it is no archive of this kind, its parts unpack to more than the limit, or a sheet
            has a cell far out.
    """
    if content.startswith(_OLE):
        raise InputError(f"an encrypted or old Office file: save it as {suffix} without a password")
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise InputError(f"it is named {suffix} and is no archive, or is cut off")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if not any(name.startswith(_PARTS[suffix]) for name in archive.namelist()):
            raise InputError(f"it is named {suffix} and holds no {_PARTS[suffix]}")
        size = sum(member.file_size for member in archive.infolist())
        if size > limit:
            raise InputError(f"it unpacks to {size:,} bytes; the limit is {limit:,} {_FLAG}")
        for member in archive.infolist():
            if member.filename.startswith("xl/worksheets/") and member.filename.endswith(".xml"):
                _check_sheet(member.filename, archive.read(member))


_FLAG = "(--max-file-bytes)"


def _check_sheet(name: str, sheet: bytes) -> None:
    rows = columns = 1
    there = 0
    for cell in _CELL.finditer(sheet):
        there += bool(cell[1])  # a row has a number alone
        column = 0
        for letter in cell[1][:8]:
            column = column * 26 + letter - 64
        rows, columns = max(rows, int(cell[2][:20])), max(columns, column)
    spanned = rows * columns
    if spanned > CELLS or spanned > max(SPARSE_CELLS, EMPTINESS * there):
        raise InputError(
            f"{name} spans {rows:,} rows and {columns:,} columns and has {there:,} cells; it may span "
            f"{CELLS:,} cells, and not {EMPTINESS} times as many as it has. Delete the cell far out, or "
            "save the sheet as CSV"
        )


def odt_to_markdown(content: bytes, limit: int) -> tuple[str, str | None]:
    """Headings and paragraphs of an OpenDocument text.

    Raises:
        InputError: it is damaged, or unpacks to too much.
    """
    from defusedxml import ElementTree

    check_archive(content, limit, ".odt")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        root = ElementTree.fromstring(archive.read("content.xml"))
    blocks = []
    for element in root.iter():
        if element.tag in {f"{_TEXT}h", f"{_TEXT}p"}:
            text = " ".join("".join(element.itertext()).split())
            level = int(element.get(f"{_TEXT}outline-level", "1"))
            blocks.append(f"{'#' * min(level, 6)} {text}" if element.tag == f"{_TEXT}h" else text)
    return "\n\n".join(filter(None, blocks)), None


def xml_to_text(content: bytes) -> tuple[str, str | None]:
    """All text of an XML file, a line an element.

    Raises:
        ElementTree.ParseError or DefusedXmlException: it is not well-formed, or declares entities.
    """
    from defusedxml import ElementTree

    root = ElementTree.fromstring(content)
    return "\n".join(filter(None, (text.strip() for text in root.itertext()))), None


def _declared(part: MIMEPart) -> str | None:
    """The encoding that a part of a message declares; ASCII, or a name nobody knows, leaves it to be told."""
    charset = part.get_content_charset() or ""
    try:
        return None if charset in {"", "us-ascii", "ascii"} else codec_of(charset)
    except InputError:
        return None


def mail_to_text(content: bytes) -> tuple[str, str | None, dict[str, Any]]:
    """A message's body and subject, and as metadata who wrote when to whom, and what is attached.

    Raises:
        InputError: the body is not in the encoding that it declares.
    """
    message = email.message_from_bytes(content, policy=email.policy.default)
    body = message.get_body(("plain", "html"))
    text = ""
    if body is not None:
        data = bytes(body.get_payload(decode=True))
        # Of what is stated nowhere a NUL tells no UTF-16 here, which a mail has to state.
        encoding = _declared(body) or ("utf-8" if b"\0" in data else None)
        if body.get_content_subtype() == "html":
            text, _ = html_to_markdown(data, encoding)
        else:
            text, _ = decode(data, encoding)
    attached = [attachment.get_filename() or "unnamed" for attachment in message.iter_attachments()]
    date = message["date"]
    metadata = {
        "from": message["from"],
        "to": message["to"],
        "date": date.datetime.isoformat() if date and date.datetime else None,
        "attachments": attached,
    }
    subject = message["subject"]
    return (
        text,
        str(subject) if subject else None,
        {
            name: value if isinstance(value, list) else str(value)
            for name, value in metadata.items()
            if value
        },
    )
