"""Patterns of ``.gitignore``, so that none of a stranger's folder ends a run or takes for ever."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

MOST_DEEP = 3
"""Parts of a pattern that are ``**``: the time grows with the power of their number."""
_STAR = r"\[\^/\]\*"
_BETWEEN_STARS = re.compile(rf"{_STAR}((?:\[\^/\](?!\*)|[^/\[]|\[(?!\^/\]\*))+)(?={_STAR})")


def usable(lines: Iterable[str]) -> tuple[GitIgnoreSpec, list[str]]:
    """A matcher, and the lines that are no pattern or would take too long.

    >>> spec, bad = usable(["*.tmp", "[z-a]", "!"])
    >>> spec.match_file("x.tmp"), bad
    (True, ['[z-a]', '!'])
    """
    good: list[GitIgnoreSpecPattern] = []
    bad = []
    for line in lines:
        try:
            good.append(_pattern(line))
        except (ValueError, re.error):
            bad.append(line.strip())
    return GitIgnoreSpec(good, backend="simple"), bad


def _pattern(line: str) -> GitIgnoreSpecPattern:
    """A pattern whose stars never go back to try what cannot be: the time is linear in a name."""
    if line.split("/").count("**") > MOST_DEEP:
        raise ValueError(f"more than {MOST_DEEP} parts **")
    made = GitIgnoreSpecPattern(line.rstrip("\r\n"))
    if made.regex is None:
        return made
    # What stands between two stars is taken where it is found first.
    regex = _BETWEEN_STARS.sub(r"(?>[^/]*?\1)", made.regex.pattern)
    return GitIgnoreSpecPattern(re.compile(regex), made.include)
