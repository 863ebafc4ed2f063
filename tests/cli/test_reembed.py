"""``m3connect reembed``: what is printed, JSON, and back."""

import json

import pytest

from m3connect import Document, cli, ingest
from m3connect.cli.running import Services
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder


@pytest.fixture
def first():
    """A database in memory, where ``documents`` was ingested with another model."""
    held = MemoryConnector(collection="documents")
    ingest([Document(f"d{at}", f"text {at}") for at in range(3)], HashEncoder(), held)
    return held


@pytest.fixture
def run(first, capsys, monkeypatch, tmp_path):
    """Run a command on that database."""
    monkeypatch.chdir(tmp_path)

    def load(model, **_):
        return HashEncoder(seed=0 if model == "same" else len(model))

    def call(*arguments):
        services = Services(lambda _, collection, **__: first.beside(collection), load)
        with pytest.raises(SystemExit) as exit_:
            cli.main([*arguments], services)
        out, err = capsys.readouterr()
        return exit_.value.code or 0, out, err

    return call


def test_a_model_that_made_the_collection_has_nothing_to_do(run):
    """And so there is nothing to go back to."""
    code, out, _ = run("reembed", "--model", "same")
    told = "'documents' holds all 3 passages, by this model; 'documents' stands for 'documents' as before\n"
    assert (code, out) == (0, told)


def test_people_are_told_what_the_name_stands_for(run):
    """Before, after, again and back; info and the list say it, too."""
    code, out, _ = run("reembed", "--model", "x", "--no-switch")
    assert (code, "'documents' stands for 'documents' as before" in out) == (0, True)
    code, out, _ = run("reembed", "--model", "x")
    assert (code, "'documents_2' holds all 3 passages" in out) == (0, True)
    assert "'documents' stands for 'documents_2' now" in out
    assert "m3connect reembed --collection documents --rollback goes back" in out
    assert "documents -> documents_2" in run("info")[1]
    assert "documents -> documents_2" in run("collections")[1]
    assert "hash-1" in run("info")[1]
    assert run("drop", "--name", "documents")[0] == 1
    code, out, _ = run("reembed", "--rollback")
    assert (code, out) == (0, "'documents' stands for 'documents' again; 'documents_2' is kept\n")
    assert "hash-0" in run("info")[1]


def test_what_would_be_lost_is_refused_and_what_went_is_told(run, first):
    """What came after the switch goes if that is asked for."""
    run("reembed", "--model", "x")
    ingest([Document("late", "text")], HashEncoder(seed=1), first.beside("documents"))
    assert run("reembed", "--rollback")[0] == 0
    code, _, err = run("reembed", "--model", "x")
    assert (code, "1 of its passages, such as 'late#0': they would be gone" in err) == (6, True)
    code, out, _ = run("reembed", "--model", "x", "--discard")
    assert code == 0
    assert "by this model; 1 passage deleted from it, which 'documents' lacks; 'documents' s" in out


def test_json_is_the_report(run):
    """On stdout alone."""
    code, out, _ = run("reembed", "--model", "xx", "--into", "other", "--json")
    report = json.loads(out)
    assert (code, report["new"], report["encoded"], report["switched"]) == (0, "other", 3, True)
    code, out, _ = run("reembed", "--rollback", "--json")
    assert (code, json.loads(out)["left"]) == (0, "other")


def test_what_contradicts_itself_is_refused(run):
    """Before anything is opened."""
    for further in (("--into", "other"), ("--discard",)):
        code, _, err = run("reembed", "--rollback", *further)
        assert (code, "--rollback goes with neither" in err) == (2, True)
    code, _, err = run("reembed", "--rollback")
    assert (code, "nothing to go back to" in err) == (2, True)
    code, _, err = run("reembed", "--collection", "unknown")
    assert (code, "there is no collection 'unknown'" in err) == (1, True)
