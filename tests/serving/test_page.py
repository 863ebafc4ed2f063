"""The search page in a real browser: search, filter, explain, document, error, empty, slow, phone, dark, axe."""

import re
import time

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
sync_api = pytest.importorskip("playwright.sync_api")

from m3connect.ingestion import ingest  # noqa: E402 - after the check for the extras
from m3connect.serving.access import Access  # noqa: E402
from m3connect.serving.app import create_app  # noqa: E402
from m3connect.serving.service import Service  # noqa: E402
from m3connect.stores.memory import MemoryConnector  # noqa: E402
from m3connect.testing.fakes import HashEncoder  # noqa: E402
from m3connect.types import Document  # noqa: E402
from tests.asgi import running  # noqa: E402
from tests.axe import serious  # noqa: E402
from tests.browser import NEEDED, started  # noqa: E402

expect = sync_api.expect
pytestmark = NEEDED
KEY = "k" * 20
DOCUMENTS = [
    Document("keys", "Keys are rotated every ninety days. Ask the desk.", {"tenant": "a"}),
    Document(
        "attack", "Rotated <img src=x onerror=\"document.title='owned'\"> keys", {"tenant": "b"}
    ),
    Document("hebrew", "מפתחות keys rotated", {"tenant": "b"}),
]


class Slow(HashEncoder):
    """Sleeps before it encodes, when told to."""

    delay = 0.0

    def encode(self, texts, **options):
        time.sleep(self.delay)
        return super().encode(texts, **options)


@pytest.fixture(scope="module")
def encoder():
    """An encoder that can be slow."""
    return Slow()


@pytest.fixture(scope="module")
def address(encoder):
    """A service over three documents."""
    connector = MemoryConnector(collection="notes")
    ingest(DOCUMENTS, encoder, connector, index_fields={"tenant": "keyword"})
    with running(create_app(Service(encoder, {"notes": lambda: connector}))) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    """One browser for all tests."""
    with started() as browser:
        yield browser


@pytest.fixture
def page(browser, address):
    """The page, opened; an error in its script or a request to elsewhere fails the test."""
    errors = []
    context = browser.new_context()
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda r: errors.append(r.url) if not r.url.startswith(address) else None)
    page.goto(address)
    expect(page.locator("#about")).not_to_be_empty()
    yield page
    context.close()
    assert errors == []


def ask(page, query, **fields):
    """Fill in the form and search."""
    page.fill("#query", query)
    for name, value in fields.items():
        if name == "mode":
            page.select_option("#mode", value)
        else:
            page.fill(f"#{name}", value)
    page.click("button[type=submit]")
    expect(page.locator("#status")).not_to_have_text(re.compile("^(Searching .*)?$"))


def test_it_says_what_is_searched(page):
    """The header has the collection's size, legs and model."""
    assert page.text_content("#about") == "3 passages, dense + sparse + multivector, hash-0"


def test_a_search_is_explained_on_the_text(page):
    """Hits come with scores; Why? marks the words that matched and adds up."""
    ask(page, "keys rotated", mode="all")
    assert page.locator(".hit").count() == 3
    hit = page.locator(".hit", has_text="ninety days")
    hit.get_by_role("button", name="Why?").click()
    hit.locator("mark").first.wait_for()
    assert {"Keys", "rotated"} <= set(hit.locator("mark").all_text_contents())
    assert "Adds up from" in hit.locator(".why").text_content()


def test_documents_cannot_run_anything(page):
    """Markup in a passage is shown as text."""
    ask(page, "keys rotated")
    attack = page.locator(".hit", has_text="onerror")
    assert attack.locator("img").count() == 0
    attack.get_by_role("button", name="Why?").click()
    attack.locator("mark").first.wait_for()
    assert page.title() == "m3connect search"


def test_a_filter_narrows_and_a_chip_helps(page):
    """A field's chip starts a condition; the filter holds."""
    page.click("#fields button")
    assert page.input_value("#filter") == 'tenant == ""'
    ask(page, "keys", filter='tenant == "a"')
    assert page.locator(".hit").count() == 1


def test_errors_and_nothing_found_are_said(page):
    """A bad filter shows where; a filter without records says so."""
    ask(page, "keys", filter="tenant ==")
    assert "character" in page.text_content("#status")
    assert page.locator("#status.bad").count() == 1
    ask(page, "keys", filter='tenant == "none"')
    assert page.text_content("#status") == "No hits. Does the filter leave anything?"


def test_modes_stand_side_by_side(page):
    """One column a mode."""
    ask(page, "keys", mode="compare")
    headings = page.locator(".mode > h2").all_text_contents()
    assert headings == ["dense", "sparse", "multivector", "hybrid", "all"]


def test_a_search_does_not_wait_for_the_list_of_collections(browser, address):
    """Whoever is faster than it searches the first collection."""
    page, held = browser.new_page(), []
    page.route("**/v1/collections", lambda route: held.append(route))  # noqa: PLW0108 - it asks for a name
    page.goto(address)
    ask(page, "keys rotated")
    expect(page.locator("#status")).to_contain_text("hits in")
    held[0].continue_()
    expect(page.locator("#about")).not_to_be_empty()
    page.close()


def test_a_passage_opens_in_its_document(page):
    """The dialog shows the document and marks the passage."""
    ask(page, "ninety days", mode="sparse")
    page.locator(".hit").first.get_by_role("button", name="In its document").click()
    page.locator("dialog .passage.here").wait_for()
    assert page.text_content("#document-title") == "keys"


def test_an_address_can_be_shared(page, browser, address):
    """The query is in the address; opening it searches again."""
    ask(page, "ninety days", mode="sparse")
    other = browser.new_page()
    other.goto(page.url)
    other.locator(".hit").first.wait_for()
    assert other.input_value("#query") == "ninety days"
    other.close()


def test_the_newest_search_wins(page, encoder):
    """While a slow answer is awaited the page says so, and a late one does not replace a newer."""
    encoder.delay = 0.5
    page.fill("#query", "ninety days")
    page.click("button[type=submit]")
    assert page.text_content("#status") == "Searching …"
    encoder.delay = 0.0
    page.locator(".hit").first.wait_for()


def test_keys_walk_through_the_hits(page):
    """Slash goes to the query, j and k to the next and the previous hit."""
    ask(page, "keys rotated")
    page.locator("h1").click()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    first = page.locator(".hit").first
    assert first.evaluate("node => node === document.activeElement")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "query"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser, address, scheme):
    """At phone width nothing is wider than the screen, in light and dark."""
    page = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page.goto(address)
    ask(page, "keys rotated", mode="all")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(browser, address, scheme):
    """axe finds nothing serious: not on hits with marks, side by side, or in a document."""
    page = browser.new_page(color_scheme=scheme)
    page.goto(address)
    ask(page, "keys rotated", mode="all")
    page.locator(".hit").first.get_by_role("button", name="Why?").click()
    page.locator("mark").first.wait_for()
    assert serious(page) == []
    ask(page, "keys rotated", mode="compare")
    page.locator(".mode .hit").first.wait_for()
    assert serious(page) == []
    page.locator(".hit").first.get_by_role("button", name="In its document").click()
    page.locator("dialog .passage.here").wait_for()
    assert serious(page) == []
    page.close()


def test_right_to_left_text_runs_right_to_left(page):
    """A Hebrew passage is laid out from the right."""
    ask(page, "keys rotated")
    text = page.locator(".hit .text", has_text="מפתחות")
    assert text.evaluate("node => getComputedStyle(node).direction") == "rtl"


def test_a_key_is_asked_for(browser, encoder):
    """With keys on, the page asks for one and goes on."""
    connector = MemoryConnector(collection="notes")
    ingest(DOCUMENTS, encoder, connector)
    service = Service(encoder, {"notes": lambda: connector}, access=Access.of({KEY: None}))
    with running(create_app(service)) as address:
        page = browser.new_page()
        page.goto(address)
        page.locator("#key-line").wait_for()
        page.fill("#key", KEY)
        page.click("#use-key")
        expect(page.locator("#about")).not_to_be_empty()
        expect(page.locator("#key-line")).to_be_hidden()
        page.close()
