"""PDF and office files, where the extra ``files`` is installed."""

import gzip
import io
import zipfile
from importlib.util import find_spec

import pytest

from m3connect.ingestion.report import Failure
from m3connect.ingestion.sources import read

# Not imported here: a process of its own reads such files.
pytestmark = pytest.mark.skipif(
    find_spec("markitdown") is None, reason='needs pip install "m3connect[files]"'
)

PDF = b"""%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 4 0 R
/Resources<</Font<</F1 5 0 R>>>>>>endobj
4 0 obj<</Length 44>>stream
BT /F1 24 Tf 50 150 Td (Hello from PDF) Tj ET
endstream endobj
5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj
trailer<</Root 1 0 R>>
%%EOF"""


def workbook():
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["name", "age"])
    book.active.append(["Zoë", 3])
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


@pytest.mark.slow
def test_office_files_become_markdown(tmp_path):
    """Also compressed."""
    (tmp_path / "a.pdf").write_bytes(PDF)
    (tmp_path / "b.xlsx.gz").write_bytes(gzip.compress(workbook()))
    pdf, sheet = read([tmp_path])
    assert (pdf.id, pdf.text.strip(), pdf.format) == ("a.pdf", "Hello from PDF", "markdown")
    assert "| Zoë | 3 |" in sheet.text


def zipped(name):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, "text")
    return out.getvalue()


def test_what_is_not_what_its_name_says_is_a_failure(tmp_path):
    """An error page saved as a document, another archive, an encrypted one: none is read as text."""
    page, ole = b"<html><p>404", bytes.fromhex("d0cf11e0a1b11ae1") + bytes(512)
    for suffix in ("pdf", "docx", "xlsx", "pptx", "epub", "ipynb", "odt"):
        (tmp_path / f"page.{suffix}").write_bytes(page)
    for suffix in ("docx", "xlsx", "pptx", "epub", "odt"):
        (tmp_path / f"zip.{suffix}").write_bytes(zipped("a.txt"))
    (tmp_path / "ole.docx").write_bytes(ole)
    (tmp_path / "list.ipynb").write_bytes(b"[]")
    (tmp_path / "odd.ipynb").write_bytes(b'{"cells": [{"cell_type": "markdown", "source": 5}]}')
    found = list(read([tmp_path]))
    assert [each.where for each in found if not isinstance(each, Failure)] == []
    reasons = {each.where: each.reason for each in found if isinstance(each, Failure)}
    assert len(reasons) == 15
    assert "named .pdf and is no PDF" in reasons["page.pdf"]
    assert "named .docx and is no archive" in reasons["page.docx"]
    assert "named .xlsx and holds no xl/" in reasons["zip.xlsx"]
    assert "encrypted or old Office file" in reasons["ole.docx"]
    assert "named .ipynb and is no notebook" in reasons["list.ipynb"]
    assert "named .ipynb and is no notebook" in reasons["odd.ipynb"]


@pytest.mark.slow
def test_a_damaged_office_file_is_a_failure(tmp_path):
    """Also where it could be taken for plain text, or for an archive to list; and the next file is read."""
    whole = workbook()
    parts = {"docx": "word/document.xml", "xlsx": "xl/workbook.xml", "pptx": "ppt/presentation.xml"}
    for suffix, part in {**parts, "epub": "META-INF/container.xml"}.items():
        (tmp_path / f"odd.{suffix}").write_bytes(zipped(part))
    (tmp_path / "cut.xlsx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pdf").write_bytes(b"%PDF-1.4 and nothing more")
    (tmp_path / "whole.pdf").write_bytes(PDF)
    *failures, document = sorted(read([tmp_path]), key=lambda each: each.where == "whole.pdf")
    assert document.id == "whole.pdf"
    assert all(isinstance(each, Failure) for each in failures)
    reasons = {each.where: each.reason for each in failures}
    assert len(reasons) == 6
    assert reasons["text.pdf"].endswith("No /Root object! - Is this really a PDF?")
    assert all("\n" not in reason for reason in reasons.values())
