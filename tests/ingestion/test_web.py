"""Pages of the web: from addresses that may be asked, within limits, each with a failure of its own."""

import gzip
import socket
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import httpcore
import pytest

from m3connect.errors import ConfigError, InputError
from m3connect.ingestion import Remarks, Selection, Web, fetching, find, ingest, open_source, replay
from m3connect.ingestion.fetching import Guarded, is_public
from m3connect.ingestion.sources import read_files
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder

HTML = "text/html; charset=utf-8"
ALLOWED = Web(private=True)


def page(title):
    return (
        HTML,
        f"<html><head><title>{title}</title></head><body><p>About {title}.</p></body></html>",
    )


def text(content):
    """Of an address that ends in .txt: it costs no process that converts."""
    return "text/plain", content


class Handler(BaseHTTPRequestHandler):
    """Answers from the server's table: a kind and a text, a status, or a place to go to."""

    server: Any

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        answer = self.server.answers.get(self.path, 404)
        if isinstance(answer, int):
            self.send_error(answer)
            return
        if isinstance(answer, str):
            self.send_response(302)
            self.send_header("Location", answer)
            self.end_headers()
            return
        kind, body, *more = answer
        body = body.encode() if isinstance(body, str) else body
        self.send_response(200)
        self.send_header("Content-Type", kind)
        for name, value in more:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Silence."""


@pytest.fixture(scope="module")
def server():
    running: Any
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def site(server):
    """The site's address, what it answers, and what it was asked."""
    server.answers, server.asked = {}, []
    return SimpleNamespace(
        url=f"http://127.0.0.1:{server.server_port}", answers=server.answers, asked=server.asked
    )


def sitemap(*urls, of="url", root="urlset"):
    inner = "".join(f"<{of}><loc>{url}</loc></{of}>" for url in urls)
    return "application/xml", (
        '<?xml version="1.0"?>'
        f'<{root} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{inner}</{root}>'
    )


def given(paths, web=ALLOWED, **selection):
    files = find(paths, Selection(web=web, **selection))
    return list(read_files(files))


def ingested(paths, collection, encoder, **options):
    files = find(paths, Selection(web=ALLOWED, **options.pop("selection", {})))
    return ingest(files, encoder, collection, **options)


# ---------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
    ],
)
def test_addresses_of_networks_are_not_public(address):
    """Nor are IPv4 addresses that an IPv6 address carries."""
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07::1", "::ffff:8.8.8.8"])
def test_addresses_of_the_internet_are_public(address):
    """In both versions."""
    assert is_public(address)


def test_a_page_at_a_private_address_is_refused_and_not_asked(site):
    """Unless it is allowed."""
    site.answers["/a.txt"] = text("A")
    (failure,) = given([f"{site.url}/a.txt"], Web())
    assert "127.0.0.1 is not a public address (--allow-private" in failure.reason
    assert site.asked == []
    (document,) = given([f"{site.url}/a.txt"])
    assert (document.id, document.text) == (f"{site.url}/a.txt", "A")


def test_a_redirect_to_a_private_address_is_refused(site, monkeypatch):
    """Each address is looked at, not only the first."""
    monkeypatch.setattr(fetching, "is_public", lambda address: address == "127.0.0.1")
    site.answers |= {
        "/a.txt": "/b",
        "/b": text("B"),
        "/c": "http://169.254.169.254/latest/meta-data",
    }
    document, failure = given([f"{site.url}/a.txt", f"{site.url}/c"], Web())
    assert document.text == "B"
    assert ": 169.254.169.254 is not a public" in failure.reason


def test_the_address_that_was_judged_is_the_one_that_is_asked(monkeypatch):
    """A name that stands for another address the next time is no way in."""
    answers = iter(["93.184.215.14", "10.0.0.1"])
    connected = []

    def resolve(host, port, **options):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(
        httpcore.SyncBackend,
        "connect_tcp",
        lambda self, host, port, *more: connected.append(host),
    )
    backend = Guarded(private=False)
    backend.connect_tcp("rebind.example", 80)
    assert connected == ["93.184.215.14"]
    with pytest.raises(InputError, match=r"rebind\.example is at 10\.0\.0\.1"):
        backend.connect_tcp("rebind.example", 80)


def test_a_name_with_one_private_address_is_refused(monkeypatch):
    """Whichever of them would be asked first."""
    found = [(socket.AF_INET, 1, 6, "", (each, 80)) for each in ("93.184.215.14", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
    with pytest.raises(InputError, match="not a public address"):
        Guarded(private=False).connect_tcp("mixed.example", 80)


# ------------------------------------------------------------------------------------- limits


def test_what_a_page_may_not_be_is_its_own_failure(site):
    """All others are read."""
    site.answers |= {
        "/good.txt": text("Good"),
        "/loop": "/loop",
        "/file": "file:///etc/passwd",
        "/image": ("image/png", b"\x89PNG"),
        "/large": (HTML, "x" * 5_000),
        "/x.md": page("Not Markdown"),
        "/broken": 503,
        "/cut": (HTML, gzip.compress(b"x")[:-4], ("Content-Encoding", "gzip")),
    }
    urls = [f"{site.url}/{name}" for name in ("gone", *(key[1:] for key in site.answers))]
    found = given(urls, Web(private=True, page_bytes=1_000))
    reasons = {each.where.rpartition("/")[2]: getattr(each, "reason", None) for each in found}
    assert reasons.pop("good.txt") is None
    for name, said in {
        "gone": "the server answers 404",
        "broken": "the server answers 503",
        "cut": "it is cut off",
        "loop": "more than 5 redirects",
        "file": "it redirects to 'file:///etc/passwd'",
        "image": "it is image/png",
        "large": "more than 1,000 bytes (--max-file-bytes)",
        "x.md": "it is a web page (text/html) where .md was to be read",
    }.items():
        assert said in reasons.pop(name), name
    assert not reasons


def test_a_server_that_is_away_is_a_failure():
    """Not an abort."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a"
        (failure,) = given([url])
    assert "no answer: " in failure.reason


def test_a_slow_page_is_given_up(site, monkeypatch):
    """However many parts it sends."""
    monkeypatch.setattr(fetching, "WHOLE", -1.0)
    site.answers["/a.txt"] = text("A")
    (failure,) = given([f"{site.url}/a.txt"])
    assert "takes more than" in failure.reason


def test_a_password_goes_to_its_own_host_alone(site):
    """And into no id."""
    port = site.url.rpartition(":")[2]
    site.answers |= {"/a.txt": f"http://localhost:{port}/b", "/b": text("B")}
    (document,) = given([f"http://me:p%40ss@127.0.0.1:{port}/a.txt#top"])
    assert document.id == f"{site.url}/a.txt"
    (_, first), (_, second) = site.asked
    assert first["Authorization"] == "Basic bWU6cEBzcw=="
    assert "Authorization" not in second


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("https://a.example", "https://a.example/"),
        ("https://a.example:8000?page=a/b", "https://a.example:8000/"),
        ("https://a.example/x", "https://a.example/"),
        ("https://a.example/x/y.html", "https://a.example/x/"),
    ],
)
def test_a_page_belongs_to_its_folder(url, root):
    """Or to its host, if it has no path."""
    (file,) = find([url])
    assert (file.name, file.root) == (url, root)


def test_only_whole_words_of_a_name_are_secret():
    """Two pages that differ in a harmless parameter are two documents; no password is part of an id."""
    harmless = [
        "keyword",
        "keywords",
        "design",
        "assignee",
        "monkey",
        "signal",
        "tokenizer",
        "author",
        "sortkey",
    ]
    secret = [
        "key", "api_key", "api-key", "apiKey", "apikey", "APIKEY", "key[]", "Key-Pair-Id", "private_token",
        "access_token", "accessToken", "AWSAccessKeyId", "%74oken", "client_secret", "sig", "Signature",
        "X-Amz-Date", "x-goog-expires", "credentials", "user_password", "passwd", "pwd", "id_token",
        "idtoken", "sastoken", "APItoken", "APIkey", "accountkey", "subscriptionkey", "consumersecret",
        "dbpassword", "sharedaccesssignature", "jwt", "auth",
    ]  # fmt: skip
    urls = [f"https://h/p?{name}={value}" for name in harmless for value in "ab"]
    assert [file.name for file in find(urls)] == urls
    hidden = [f"https://h/p?page=2&{name}=x" for name in secret]
    assert {file.name for file in find(hidden)} == {"https://h/p?page=2"}


def test_other_formats_and_packed_answers_are_read(site):
    """By the end of the address; whatever else a page's ends with, it is HTML."""
    packed = gzip.compress(page("Packed")[1].encode())
    site.answers |= {
        "/corpus.jsonl": (
            "application/json",
            '{"id": "1", "text": "one"}\n{"id": "2", "text": "two"}',
        ),
        "/corpus.jsonl.gz": (
            "application/gzip",
            gzip.compress(b'{"id": "3", "text": "three"}'),
            ("Content-Encoding", "gzip"),
        ),
        "/index.php?page=2": page("PHP"),
        "/packed": (HTML, packed, ("Content-Encoding", "gzip")),
        "/n%C3%A4he": page("Near"),
    }
    names = ["corpus.jsonl", "corpus.jsonl.gz", "index.php?page=2", "packed", "nähe"]
    found = given([f"{site.url}/{name}" for name in names])
    assert [getattr(each, "reason", None) for each in found] == [None] * 6
    assert [each.metadata.get("title", each.id) for each in found] == [
        *("1", "2", "3"),
        *("PHP", "Packed", "Near"),
    ]


# -------------------------------------------------------------------------------------- lists


def test_a_sitemap_is_its_pages(site):
    """Those of its own host, each once, of the sitemaps that it lists, too; chosen by their paths."""
    site.answers |= {
        "/sitemap.xml": sitemap(f"{site.url}/more.xml.gz", of="sitemap", root="sitemapindex"),
        "/more.xml.gz": (
            "application/gzip",
            gzip.compress(
                sitemap(
                    f"{site.url}/docs/a",
                    f"{site.url}/docs/a",
                    f"{site.url}/docs/old/b",
                    f"{site.url}/blog/c",
                    "http://elsewhere.example/d",
                )[1].encode()
            ),
        ),
        "/docs/a": page("A"),
    }
    remarks = Remarks()
    chosen = Selection(["docs/"], ["old/"], web=ALLOWED)
    (file,) = find([f"{site.url}/sitemap.xml"], chosen, remarks)
    assert file.name == f"{site.url}/docs/a"
    assert remarks.left_out == Counter({"on another host": 1, "not included": 1, "excluded": 1})


def test_a_sitemap_is_a_source_that_can_be_pruned(site):
    """A page that it lists no more goes, one that fails goes on to be a dead letter."""
    encoder, collection = HashEncoder(), MemoryConnector(collection="web")
    pages = {f"/{name}.txt": text(name) for name in "abc"}
    site.answers |= pages | {"/sitemap.xml": sitemap(*(site.url + name for name in pages))}
    every = [f"{site.url}/sitemap.xml"]
    assert ingested(every, collection, encoder).written == 3
    site.answers["/sitemap.xml"] = sitemap(f"{site.url}/a.txt", f"{site.url}/b.txt")
    assert ingested(every, collection, encoder).left_over == 1
    done = ingested(every, collection, encoder, prune=True, max_delete_ratio=0.5)
    assert (done.unchanged, done.pruned) == (2, 1)


def test_a_page_that_failed_is_fetched_again(site, tmp_path):
    """By its dead letter, once it is there."""
    encoder, collection, letters = (
        HashEncoder(),
        MemoryConnector(collection="web"),
        tmp_path / "letters.jsonl",
    )
    (tmp_path / "pages.urls").write_text(f"# two\n{site.url}/a.txt\n\n{site.url}/b.txt\n")
    site.answers["/a.txt"] = text("A")
    done = ingested([tmp_path / "pages.urls"], collection, encoder, dead_letters=letters)
    assert (done.written, done.failed) == (1, 1)
    site.answers["/b.txt"] = text("B")

    def again(files):
        return open_source(files, encoder)

    assert len(replay(letters, again, collection).left) == 1
    assert replay(letters, again, collection, web=ALLOWED).report.written == 1
    assert letters.read_text() == ""


def test_a_list_is_read_whole_or_not_at_all(site, tmp_path):
    """What was cut off would count as gone."""
    path = tmp_path / "pages.urls"
    path.write_text(f"{site.url}/a\n{site.url}/b\n")
    with pytest.raises(ConfigError, match=r"pages\.urls lists more pages than 1 \(--max-pages\)"):
        find([path], Selection(web=Web(pages=1)))
    path.write_text("/etc/passwd\n")
    with pytest.raises(ConfigError, match="line 1: no address of a web page: '/etc/passwd'"):
        find([path])
    site.answers["/sitemap.xml"] = sitemap("file:///etc/passwd")
    with pytest.raises(ConfigError, match="lists what is no address of a web page"):
        find([f"{site.url}/sitemap.xml"], Selection(web=ALLOWED))
    with pytest.raises(ConfigError, match="the server answers 404"):
        find([f"{site.url}/none.xml"], Selection(web=ALLOWED))


def test_a_list_in_a_folder_is_not_followed(tmp_path):
    """Only who is named is read: a folder does not send this machine to addresses of its choice."""
    (tmp_path / "a.md").write_text("text")
    (tmp_path / "pages.urls").write_text("http://127.0.0.1:1/a")
    assert [file.name for file in find([tmp_path])] == ["a.md"]
