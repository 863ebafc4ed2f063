"""Bars where someone looks, lines in a log."""

import io

from m3connect.cli.progress import Lines, progress_bar


class Terminal(io.StringIO):
    """Someone looks."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_has_a_bar_a_stage_from_the_start(monkeypatch):
    """With what is through, of how many where that is known."""
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar({"documents": 2000, "unknown": None}):
        pass
    assert "0/2000" in screen.getvalue()
    assert "unknown" in screen.getvalue()
    with progress_bar({"documents": 2000}) as progress:
        progress("documents", 1500, None)
        progress("documents", 1600, None)
        progress("tokens", 7, None)
        progress("copying", 3, 4)
    shown = screen.getvalue()
    assert "1600/2000" in shown
    assert "7/?" in shown
    assert "3/4" in shown
    assert "/s" in shown


def test_a_log_has_a_line_now_and_then(monkeypatch, capsys):
    """Of each stage, with its speed and the time that is left; of short work none."""
    now = [0.0]
    lines = Lines({"documents": 10_000, "unknown": None}, lambda: now[0])
    told = [(0, 0, 0), (29, 500, 900), (31, 1550, 3100), (40, 1600, 3200), (70, 7000, 4200)]
    for at, documents, tokens in told:
        now[0] = at
        lines("documents", documents, None)
        lines("tokens", tokens, None)
    lines("copying", 5, 9)
    now[0] = 200
    lines("copying", 5, 9)
    lines("unknown", 2, None)
    for at, documents in (210, 90), (250, 490):  # of the next piece of work
        now[0] = at
        lines("documents", documents, None)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "documents: 1,550 of 10,000, 50/s, 3 min left",
        "tokens: 3,100, 100/s",
        "documents: 7,000 of 10,000, 100/s, 30 s left",
        "tokens: 4,200, 60/s",
        "copying: 5 of 9, 0.0/s",
        "unknown: 2, 0.0/s",
        "documents: 490 of 10,000, 10/s, 16 min left",
    ]
