#!/bin/sh
# What `make demo` runs: ingest a sample corpus into an embedded Qdrant, then search it.
# usage: demo.sh path/to/m3connect
set -eu
m3connect=$1
corpus=$(dirname "$0")/data/tldr.jsonl
: "${COLUMNS:=140}"
export COLUMNS

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() {
    printf '\033[2m$ m3connect'
    for word; do case $word in *[!A-Za-z0-9./_=-]*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac; done
    printf '\033[0m\n'
    "$m3connect" "$@"
}

say "Ingest: command-line help pages in eight languages, each in at most four of them"
run ingest "$corpus" --collection demo

say "Again: what is unchanged is skipped"
run ingest "$corpus" --collection demo

say "A question in English finds pages in other languages: dense and multi-vector compare meaning"
run search "convert a video to audio" --collection demo --mode all --limit 3

say "An exact identifier: the dense leg is lost, the sparse leg finds the page"
run search --collection demo --mode dense --limit 2 -- "--recipient"
run search --collection demo --mode sparse --limit 2 -- "--recipient"

say "One query in every mode side by side, with the score of each leg"
run search "find which commit introduced a bug" --collection demo --compare --limit 3

say "Why: the parts add up to the score"
run search "extract an archive into a directory" --collection demo --mode all --filter 'lang == "en"' --limit 1 --explain

printf '\nThe collection is in .m3connect/; `make clean` removes it. Next: docs/tutorial.md\n'
