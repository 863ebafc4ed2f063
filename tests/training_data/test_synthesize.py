"""Writing queries: resumed, rate-limited, retried, cleaned, and checked by round trip."""

import http.server
import json
import threading
from collections import Counter
from unittest.mock import Mock

import httpx2 as httpx
import pytest
import typer
from typer.testing import CliRunner

from m3connect.cli.groups import expanded
from m3connect.cli.running import Services
from m3connect.cli.synthesize import synthesize as synthesize_command
from m3connect.connecting.registry import connect
from m3connect.datasets import beir
from m3connect.errors import ConfigError, EndpointError, InputError
from m3connect.testing.fakes import HashEncoder
from m3connect.training_data import synthesize
from m3connect.training_data.endpoint import Endpoint, Settings
from m3connect.types import Document

AT_ONCE = {"retry-after-ms": "1"}


def endpoint(handler, **settings):
    client = httpx.Client(transport=httpx.MockTransport(handler))
    return Endpoint(
        Settings("http://test/v1/", "m", "secret", per_minute=1e9, retries=1, **settings),
        client=client,
    )


def says(text, **more):
    return httpx.Response(200, json={"choices": [{"message": {"content": text}, **more}]})


class TestEndpoint:
    """The chat model behind an OpenAI-compatible endpoint."""

    def test_sends_what_the_protocol_wants(self):
        """Address, key, model, message, seed; the answer comes back without white space."""
        seen = []

        def handler(request):
            seen.append(request)
            return says(" why? \n")

        assert endpoint(handler, temperature=0.1).ask("a prompt", seed=3) == "why?"
        (request,) = seen
        assert str(request.url) == "http://test/v1/chat/completions"
        assert request.headers["authorization"] == "Bearer secret"
        body = json.loads(request.content)
        assert body["model"] == "m"
        assert body["messages"] == [{"role": "user", "content": "a prompt"}]
        assert (body["seed"], body["temperature"]) == (3, 0.1)

    @pytest.mark.parametrize(
        ("text", "whole"), [("What is", ""), ("Why?\n\nBecause the text", "Why?")]
    )
    def test_of_an_answer_that_was_cut_off_whole_lines_are_kept(self, text, whole):
        """Half a question is none."""
        model = endpoint(lambda request: says(text, finish_reason="length"))
        assert model.ask("a prompt") == whole

    @pytest.mark.parametrize(
        "failure", [429, 500, 503, httpx.ConnectError("no"), httpx.ReadTimeout("slow")]
    )
    def test_transient_failures_are_retried(self, failure):
        """Rate limits, server errors and lost connections are tried again, then raised."""
        answers = [failure, says("ok")]

        def handler(request):
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return httpx.Response(answer, headers=AT_ONCE) if isinstance(answer, int) else answer

        assert endpoint(handler).ask("x") == "ok"
        answers[:] = [failure] * 2
        with pytest.raises(EndpointError, match=r"m at http://test/v1/: \w+"):
            endpoint(handler).ask("x")
        assert answers == []

    @pytest.mark.parametrize(
        ("response", "why"),
        [
            (httpx.Response(401, text="bad key"), "401; set OPENAI_API_KEY"),
            (httpx.Response(403, text="not yours"), "403; set OPENAI_API_KEY"),
            (httpx.Response(404, text="no such model"), "404"),
            (httpx.Response(200, text="<html>"), "no chat completion"),
            (httpx.Response(200, json={"choices": []}), "no chat completion"),
            (httpx.Response(200, json={"choices": None}), "no chat completion"),
        ],
    )
    def test_refusals_are_not_retried(self, response, why):
        """A wrong key, a wrong model and a wrong protocol fail at once."""
        calls = []

        def handler(request):
            calls.append(request)
            return response

        with pytest.raises(EndpointError, match=why):
            endpoint(handler).ask("x")
        assert len(calls) == 1

    def test_keeps_to_the_rate(self):
        """Three requests at 30 a minute start two seconds apart."""
        now = [0.0]
        waits = []

        def sleep(seconds):
            waits.append(seconds)
            now[0] += seconds

        client = httpx.Client(transport=httpx.MockTransport(lambda _: says("x")))
        asked = Endpoint(
            Settings("http://test", "m", per_minute=30),
            client=client,
            clock=lambda: now[0],
            sleep=sleep,
        )
        for _ in range(3):
            asked.ask("x")
        assert waits == [2.0, 2.0]

    def test_half_a_surrogate_pair_is_sent_as_a_question_mark(self):
        """UTF-8 cannot hold it; the rest of the prompt is asked all the same."""
        asked = []

        def answer(request):
            asked.append(json.loads(request.content)["messages"][0]["content"])
            return says("what?")

        assert endpoint(answer).ask("half a pair: \ud83d") == "what?"
        assert asked == ["half a pair: ?"]

    def test_the_key_is_never_shown(self):
        """Neither settings nor errors print the key."""
        assert "secret" not in repr(Settings("u", "m", "secret"))
        with pytest.raises(EndpointError) as caught:
            endpoint(lambda _: httpx.Response(401)).ask("x")
        assert "secret" not in str(caught.value)


LONG = "\n\n".join(f"Paragraph {n} " + "word " * 60 for n in range(4))
DOCUMENTS = [Document(f"d{n}", f"text {n}") for n in range(6)]


def test_the_papers_prompt_is_word_for_word():
    """The MLDR preset starts and ends as printed, with the text after it."""
    prompt = synthesize.prompt_for(Document("a", "TEXT"), synthesize.PROMPTS["mldr"], 0)
    assert prompt.startswith(
        "You are a curious AI assistant, please generate one specific and valuable"
    )
    assert prompt.endswith("without including additional content:\nTEXT")


def test_one_paragraph_is_asked_about():
    """A long document gives one of its paragraphs, by seed; a short one itself."""
    one = synthesize.prompt_for(Document("a", LONG), "{text}", 0)
    assert one.startswith("Paragraph")
    assert one.count("Paragraph") == 1
    assert one == synthesize.prompt_for(Document("a", LONG), "{text}", 0)
    assert len({synthesize.prompt_for(Document("a", LONG), "{text}", s) for s in range(20)}) == 4
    with pytest.raises(InputError, match=r"\{text\}"):
        synthesize.prompt_for(Document("a", "x"), "no place", 0)


def test_a_stopped_run_asks_only_what_is_missing(tmp_path):
    """Answers survive a stop, a half-written line is asked again, the plan knows what is left."""
    asked = []

    def ask(prompt, seed):
        asked.append(prompt)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return f"about {prompt}"

    with pytest.raises(KeyboardInterrupt):
        synthesize.write(DOCUMENTS, tmp_path, "{text}", ask)
    with (tmp_path / synthesize.ANSWERS).open("a") as file:
        file.write('{"id": "d5", "que')
    plan = synthesize.plan(DOCUMENTS, tmp_path, "{text}", len)
    assert (plan.requests, plan.done, plan.tokens_in) == (3, 3, 3 * len("text 0"))
    answers = synthesize.write(DOCUMENTS, tmp_path, "{text}", ask)
    assert answers == {f"d{n}": f"about text {n}" for n in range(6)}
    assert len(asked) == 4 + 3


def test_what_was_asked_otherwise_is_asked_again(tmp_path):
    """Another prompt, seed, model or text has answers of its own; those of the first come back."""
    asked = []

    def ask(prompt, seed):
        asked.append(prompt)
        return f"{len(asked)}"

    def write(text="text", template="{text}", **options):
        documents = [Document("d", text)]
        plan = synthesize.plan(documents, tmp_path, template, len, **options)
        before = len(asked)
        answers = synthesize.write(documents, tmp_path, template, ask, **options)
        assert plan.requests == len(asked) - before
        return answers["d"]

    assert write(model="m") == "1"
    assert write(model="m", template="Why {text}") == "2"
    assert write(model="m", seed=1) == "3"
    assert write(model="n") == "4"
    assert write("changed", model="m") == "5"
    assert write(model="m") == "1"
    assert write() in {"1", "4"}


def test_queries_are_cleaned_and_doubles_dropped():
    """Labels, introductions, quotes and further lines go; empty and equal queries are counted."""
    dropped = Counter()
    answers = {
        "a": 'Question: "What is it?"\nHope this helps!',
        "b": "«what  IS it?»",
        "c": "\n",
        "d": "Où est-ce ?",
        "e": "Sure! Here is the query:\n\n  'why'",
        "f": "Sure! Here is the query:",
    }
    queries = {"a": "What is it?", "d": "Où est-ce ?", "e": "why"}
    assert synthesize.clean(answers, dropped) == queries
    assert dropped == {"same as another": 1, "empty or cut off": 2}


class Model(http.server.BaseHTTPRequestHandler):
    """A language model that answers with the first words of the text, or with nonsense."""

    def do_POST(self):
        prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0][
            "content"
        ]
        text = prompt.splitlines()[-1]
        answer = "xyzzy plugh" if "story 3 " in text else " ".join(text.split()[:3])
        body = json.dumps({"choices": [{"message": {"content": answer}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def server():
    """A fake endpoint on a free port of this machine."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/v1"
        running.shutdown()
        thread.join()


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Call the command."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    app = typer.Typer()
    app.command()(expanded(synthesize_command))
    services = Services(connect, lambda *_, **__: HashEncoder())

    def call(*arguments):
        more = ["--cache", tmp_path / "cache", "--per-minute", 1e9]
        given = list(map(str, [*arguments, *more]))
        return CliRunner().invoke(app, given, catch_exceptions=False, obj=services)

    return call


def test_a_corpus_becomes_a_test_collection(run, folder, tmp_path, server):
    """The output loads as a data set; the query that does not find its document is gone."""
    out = tmp_path / "made"
    outcome = run(
        folder, "--output", out, "--llm-base-url", server, "--llm", "fake", "--found-within", 10
    )
    assert outcome.exit_code == 0
    dataset = beir.load(out)
    assert len(dataset.ids) == 36
    asked = {next(iter(dataset.qrels[query.id])): query.text for query in dataset.queries}
    assert asked["d00"] == "river story 0"
    assert "d03" not in asked
    assert len(asked) == 35
    assert "1 dropped: does not find its own document" in outcome.stderr
    assert dataset.queries[0].language == "en"


def test_a_dry_run_asks_nothing_and_estimates(run, folder, tmp_path):
    """Requests, tokens and cost are printed; no file is written and no endpoint needed."""
    out = tmp_path / "made"
    outcome = run(folder, "--output", out, "--dry-run", "--price-out", 1000, "--documents", 10)
    assert outcome.exit_code == 0
    assert outcome.stdout.startswith("10 requests (0 answered before), about ")
    assert "and 300 written, cost about 0.30" in outcome.stdout
    outcome = run(folder, "--output", out, "--dry-run", "--price-out", 0.6, "--documents", 10)
    assert "and 300 written, cost about 0.00018\n" in outcome.stdout
    outcome = run(folder, "--output", out, "--dry-run", "--documents", 10)
    assert outcome.stdout.endswith("and 300 written\n")
    assert not out.exists()


def test_a_corpus_is_not_written_into(folder, tmp_path):
    """The folder of the corpus is refused before anything is asked."""
    with pytest.raises(InputError, match="name another folder"):
        synthesize.synthesize(
            folder / "corpus.jsonl", DOCUMENTS, folder, HashEncoder(), Mock(), cache=tmp_path
        )


@pytest.mark.parametrize("name", ["queries.jsonl", "qrels.tsv", "corpus.jsonl.gz"])
def test_judgements_of_people_are_not_written_over(folder, tmp_path, name):
    """A folder that no language model has filled is refused, and keeps what it holds."""
    by_hand = tmp_path / "judged"
    by_hand.mkdir()
    (by_hand / name).write_text("by hand")
    with pytest.raises(InputError, match=f"holds {name} that no language model wrote"):
        synthesize.synthesize(
            folder / "corpus.jsonl", DOCUMENTS, by_hand, HashEncoder(), Mock(), cache=tmp_path
        )
    assert [path.read_text() for path in by_hand.iterdir()] == ["by hand"]


def test_a_collection_is_there_when_it_is_whole(folder, tmp_path):
    """A round trip that fails leaves the answers alone, which another run takes."""
    made, documents = tmp_path / "made", list(beir.read_corpus(folder / "corpus.jsonl"))[:3]
    arguments = folder / "corpus.jsonl", documents, made

    def ask(prompt, seed):
        return prompt.rpartition("\n")[2]

    stopped = Mock(info=HashEncoder().info, encode=Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        synthesize.synthesize(*arguments, stopped, ask, cache=tmp_path / "cache")
    assert [path.name for path in made.iterdir()] == [synthesize.ANSWERS]
    found = synthesize.synthesize(*arguments, HashEncoder(), Mock(), cache=tmp_path / "cache")
    assert found.queries == len(beir.load(made).queries) == 3
    assert len(list(made.iterdir())) == 4


def test_nothing_is_asked_without_an_endpoint(run, folder, tmp_path):
    """No endpoint is called by default, and an unknown prompt lists the known ones."""
    with pytest.raises(ConfigError, match="--llm-base-url"):
        run(folder, "--output", tmp_path / "made")
    with pytest.raises(ConfigError, match="mldr, search"):
        run(folder, "--output", tmp_path / "made", "--prompt", "haiku")
