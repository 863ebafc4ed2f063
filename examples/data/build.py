"""Make tldr.jsonl from a folder with the tldr-pages data set; the same bytes in every run.

    python build.py DATA_DIR

DATA_DIR holds corpus.jsonl.gz and queries.jsonl.gz, objects with id, text and lang: a page without
its description, and under "q-" + id the description. README.md says where they come from.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

LANGUAGES = ("ar", "de", "en", "es", "fr", "ja", "ru", "zh")
LANGUAGES_PER_COMMAND = 4  # not all: a question often meets its answer in another language only
LEAST_EXAMPLES = 3  # pages with fewer are pointers to other pages
MOST_EXAMPLES = 4  # so that the whole corpus is encoded in well under a minute
PLATFORMS = ("common", "linux")
COMMANDS = """
7z apt awk base64 bc cal cargo cat chmod chown cp crontab curl cut df diff dig
docker-build docker-compose docker-cp docker-exec docker-logs docker-ps docker-run docker-stats du
exiftool ffmpeg find gcc gdb git-add git-bisect git-blame git-branch git-checkout git-clone
git-commit git-log git-merge git-pull git-push git-rebase git-stash git-status gpg grep gzip head
history htop ip jq journalctl kill kubectl ln ls lsof make man mv
mysql netcat nmap npm openssl pacman passwd ping pip python3 rm rsync scp screen sed shutdown sort
ssh ssh-keygen sudo systemctl tail tar tcpdump tmux touch tr tree unzip useradd vim wc wget which
whoami xargs yt-dlp zip
""".split()  # noqa: SIM905 - a hundred words read better without quotes


def main(data: Path) -> None:
    """Write the pages beside this file and say how many there are."""
    pages = {page["id"]: page for page in read(data / "corpus.jsonl.gz")}
    descriptions = {page["id"]: page["text"] for page in read(data / "queries.jsonl.gz")}
    chosen = sorted(choose(pages))
    with Path(__file__).with_name("tldr.jsonl").open("w", encoding="utf-8") as out:
        for id_ in chosen:
            record = passage(pages[id_], descriptions[f"q-{id_}"])
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
    print(
        len(chosen), "pages:", dict(sorted(Counter(pages[id_]["lang"] for id_ in chosen).items()))
    )


def read(path: Path) -> Iterator[dict[str, str]]:
    """The objects of a file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def choose(pages: dict[str, dict[str, str]]) -> Iterator[str]:
    """Ids of each command's page in a few languages, those least used so far first."""
    used: Counter[str] = Counter()
    for command in COMMANDS:
        for platform in PLATFORMS:
            ids = {lang: f"{lang}-{platform}-{command}" for lang in LANGUAGES}
            having = [
                lang
                for lang, id_ in ids.items()
                if id_ in pages and pages[id_]["text"].count("\n- ") >= LEAST_EXAMPLES
            ]
            for lang in sorted(having, key=lambda lang: used[lang])[:LANGUAGES_PER_COMMAND]:
                used[lang] += 1
                yield ids[lang]


def passage(page: dict[str, str], description: str) -> dict[str, str]:
    """A page as it reads: name, description, the first examples."""
    name, *examples = page["text"].split("\n- ")
    _, platform, command = page["id"].split("-", 2)
    return {
        "id": page["id"],
        "text": "\n- ".join([f"{name}\n{description}", *examples[:MOST_EXAMPLES]]),
        "lang": page["lang"],
        "command": command,
        "platform": platform,
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
