"""The HTML page: whole, self-contained, and showing what was measured."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from m3connect.datasets.beir import TextQuery
from m3connect.evaluation.measure import Result, Row
from m3connect.evaluation.reports import page
from m3connect.reporting import charts, pages
from m3connect.reporting.charts import Point
from m3connect.reporting.pages import Cell, Table


def result(name="tiny <&>", languages=("de", "fr")):
    queries = tuple(TextQuery(f"q{at}", "?", languages[at % len(languages)]) for at in range(8))
    rng = np.random.default_rng(0)
    rows = tuple(
        Row(row, {"ndcg@10": rng.random(8), "mrr@10": rng.random(8)}, 0.1, size, live)
        for row, size, live in (
            ("dense", 1536.0, {"p50 ms": 3.0}),
            ("multivector int8", 40000.0, {"p50 ms": 9.0}),
            ("bm25", None, {}),
        )
    )
    return Result(name, 36, queries, rows, {"model": {"name": "x"}}, ("2 documents were cut",))


class Balanced(HTMLParser):
    """Collects texts, and fails where tags do not nest."""

    def __init__(self):
        super().__init__()
        self.open, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_is_whole_and_loads_nothing():
    """Tags nest, names are escaped, and no address is fetched."""
    text = page.page([result(), result("other")])
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert "tiny <&>" in "".join(parser.texts)
    assert not re.search(r"""(?:src|href)=["'](?!#)""", re.sub(r"xlink:href=\"#", "", text))
    assert "<script" not in text
    assert "url(http" not in text


@pytest.mark.slow
def test_every_chart_has_its_data():
    """Datasets, languages, bytes and latency are drawn; one language alone is not."""
    text = page.page([result()])
    for title in ("by dataset", "by language of the query", "bytes a document", "median latency"):
        assert title in text
    assert "<th>p50 ms</th>" in text
    assert "by language" not in page.page([result(languages=("de",))])
    plain = result()
    rows = tuple(replace(row, size=None, live={}) for row in plain.rows)
    offline = page.page([replace(plain, rows=rows)])
    assert "median latency" not in offline
    assert "p50 ms" not in offline


@pytest.mark.parametrize("bar", [(0.5, 0.4, 0.6), (0.5, 0.5, 0.5)])
def test_charts_are_well_formed_and_reproducible(bar):
    """SVG that parses, with its labels as text, the same for the same figures."""
    lines = {"one": {"dense": bar, "all": bar}, "two": {"dense": bar}}
    chart = charts.dots("a title", "ndcg@10", lines)
    words = "".join(ET.fromstring(chart).itertext())
    assert {"a title", "ndcg@10", "one", "two", "dense", "all"} <= set(
        re.findall(r"[\w@ ]+", words)
    ) | {part.strip() for part in words.split("\n")}
    assert chart == charts.dots("a title", "ndcg@10", lines)
    points = [Point("p", 10.0, 0.5, "g"), Point("q", 1000.0, 0.6, "h")]
    ET.fromstring(charts.scatter("t", "bytes", "ndcg", points))


def test_a_curve_of_one_point_is_seen():
    """A run of one logged step draws a mark: a line alone would leave the chart empty."""
    chart = charts.curves("Loss", "step", {"loss": [(10.0, 0.5)]})
    ET.fromstring(chart)
    marks = re.search(
        r'id="line2d_\d+">\s*<defs>.*?<use [^>]*style="fill: #0072b2', chart, re.DOTALL
    )
    assert marks
    assert chart == charts.curves("Loss", "step", {"loss": [(10.0, 0.5)]})


def test_a_table_is_the_same_in_markdown_and_in_html():
    """Emphasis and texts of a cell reach both; what would break either is escaped."""
    table = Table.of(["a|b", "x"], [[Cell("mean", "strong"), "1 < 2"], [Cell("paper", "em"), "="]])
    assert table.markdown().splitlines() == [
        "| a\\|b | x |",
        "|---|---|",
        "| **mean** | 1 < 2 |",
        "| *paper* | = |",
    ]
    text = pages.page("t", "lead", tables=[table])
    assert "<td><strong>mean</strong></td><td>1 &lt; 2</td>" in text
    assert "<th>a|b</th>" in text
