"""Mining from a dataset to a file: where candidates, rules, training examples and their report meet."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from m3connect.contract import Connector, Encoder
from m3connect.datasets import lines
from m3connect.datasets.beir import Dataset
from m3connect.disk import require_file_name
from m3connect.evaluation import live, run
from m3connect.evaluation.offline import cut_off
from m3connect.filters import AnyFilter
from m3connect.progress import Progress, silent
from m3connect.searching.modes import DEPTH, Preset, for_database, needed, parse_mode, preset_for
from m3connect.searching.names import ModeName
from m3connect.searching.search import encode_as_stored
from m3connect.training_data import mining
from m3connect.training_data.mining import Rules, Source, Tally
from m3connect.training_data.report import Report


def mine_to_file(
    dataset: Dataset,
    encoder: Encoder,
    output: Path,
    *,
    sample_of: Dataset | None = None,
    mode: ModeName = "dense",
    rules: Rules | None = None,
    preset: Preset | None = None,
    connector: Connector | None = None,
    filter: AnyFilter | None = None,  # noqa: A002 - the field's word
    cache: Path | None = None,
    progress: Progress = silent,
) -> Report:
    """Mine hard negatives and write a training example a line: ``query``, ``pos``, ``neg``.

    Args:
        dataset: queries, judgements and documents.
        encoder: the model.
        output: the file, which is there when it is whole.
        sample_of: the dataset that these queries were drawn from, where they are not all of it: what
            answers one of its queries is no negative of another of the same text.
        mode: what ranks the candidates.
        rules: which of them may be negatives; default :class:`Rules`.
        preset: weights or ranks; default: what :func:`m3connect.search` does.
        connector: a collection that gives the candidates; default: exact search over the documents.
        filter: which records of the collection may be candidates.
        cache: folder that keeps embeddings between runs; None keeps none.
        progress: told what goes on.

    Raises:
        ConfigError: the output is a folder, the rules compare scores where ranks are fused, or an extra
            is missing.
        FingerprintMismatch: the collection was made by another model.
    """
    require_file_name(output)
    chosen, ranking = rules or Rules(), parse_mode(mode)
    preset = for_database(preset or preset_for(encoder.info), max(chosen.last, DEPTH))
    mining.check(chosen, mining.weights(ranking, preset))
    legs = needed([ranking], preset, available=encoder.info.fingerprint.legs)
    texts = {document.id: document.text for document in dataset.documents()}
    report = Report(Tally(), texts)

    def write(source: Source) -> None:
        mined = mining.mine(
            dataset, texts, source, chosen, report.tally, sample_of=sample_of, progress=progress
        )
        lines.write(output, mining.as_examples(report.watch(mined), texts))

    if connector is not None:
        live.require(connector, encoder)
        questions = [query.text for query in dataset.queries]
        queries = encode_as_stored(
            connector.describe(), encoder, questions, kind="query", legs=legs
        )
        report.warnings += cut_off("queries", [queries])
        write(
            mining.LiveSource(
                connector,
                encoder,
                queries,
                texts,
                ranking,
                preset,
                limit=chosen.last,
                filter=filter,
            )
        )
        return report
    with TemporaryDirectory() as scratch:
        home = cache or Path(scratch)
        search = run.exact_search(
            dataset, encoder, legs, preset, home, documents=chosen.last, progress=progress
        )
        report.warnings += search.cut_off("documents")
        write(mining.OfflineSource(search, ranking))
    return report
