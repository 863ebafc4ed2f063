"""``m3connect synthesize``: a test collection for a corpus without queries."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from m3connect.cli import eval_options
from m3connect.cli.eval_options import Cache, Language, Seed
from m3connect.cli.options import Mark, ModelChoice, Output
from m3connect.errors import ConfigError


def synthesize(
    corpus: Annotated[Path, typer.Argument(help="Folder with corpus.jsonl or corpus.jsonl.gz.")],
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for the test collection."), Mark.WRITES
    ],
    *,
    llm_base_url: Annotated[
        str | None,
        typer.Option(
            envvar="OPENAI_BASE_URL",
            help="Endpoint, up to and without /chat/completions. Nothing is asked without one.",
            show_default=False,
        ),
        Mark.ADDRESS,
    ] = None,
    llm: Annotated[
        str | None, typer.Option(help="The endpoint's name of the model.", show_default=False)
    ] = None,
    llm_api_key: Annotated[
        str,
        typer.Option(envvar="OPENAI_API_KEY", help="The endpoint's key.", show_default=False),
        Mark.SECRET,
    ] = "",
    prompt: Annotated[
        str, typer.Option(help="mldr (the M3 paper's), search, or a file with {text} in it.")
    ] = "mldr",
    documents: Annotated[
        int | None,
        typer.Option(help="At most so many documents, drawn at random.", min=1, show_default=False),
    ] = None,
    seed: Seed = 0,
    language: Language = "",
    per_minute: Annotated[float, typer.Option(help="Requests a minute at most.", min=0.1)] = 60.0,
    temperature: Annotated[float, typer.Option(help="Of the language model.")] = 0.7,
    found_within: Annotated[
        int, typer.Option(help="Keep a query if its document is among so many hits; 0 keeps all.")
    ] = 20,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Ask nothing; print requests, tokens and cost.")
    ] = False,
    price_in: Annotated[float, typer.Option(help="Of a million tokens read.")] = 0.0,
    price_out: Annotated[float, typer.Option(help="Of a million tokens written.")] = 0.0,
    cache: Cache = None,
    model: ModelChoice,
    printed: Output,
) -> None:
    """Let a language model write one query a document, and keep those that find it.

    - `m3connect synthesize docs --output docs-eval --dry-run --price-in 0.15 --price-out 0.6`
    - `m3connect synthesize docs --output docs-eval --llm-base-url http://localhost:8000/v1 --llm NAME`
    """
    from m3connect.cli.progress import progress_bar
    from m3connect.datasets import beir
    from m3connect.evaluation import requires
    from m3connect.training_data import synthesize
    from m3connect.training_data.endpoint import Endpoint, Settings

    requires.check()
    template = _template(prompt)
    source = beir.corpus_file(corpus)
    sampled = synthesize.sample(beir.read_corpus(source, language), documents, seed)
    encoder = model.load()
    tokenizer = encoder.tokenizer
    plan = synthesize.plan(
        sampled,
        output,
        template,
        lambda text: len(tokenizer.encode(text).ids),
        model=llm or "",
        seed=seed,
    )
    cost = plan.cost(price_in, price_out)
    estimate = (
        f"{plan.requests:,} requests ({plan.done:,} answered before), about {plan.tokens_in:,} "
        f"tokens read and {plan.tokens_out:,} written"
    )
    if price_in or price_out:
        estimate += f", cost about {cost:.2f}" if cost >= 0.1 else f", cost about {cost:.2g}"
    if dry_run:
        printed.show(asdict(plan) | {"cost": cost}, estimate)
        return
    typer.echo(estimate, err=True)
    if plan.requests and not (llm_base_url and llm):
        raise ConfigError("name the endpoint and its model: --llm-base-url URL --llm NAME")
    endpoint = Endpoint(
        Settings(llm_base_url or "", llm or "", llm_api_key, temperature, per_minute=per_minute)
    )
    with progress_bar() as progress:
        made = synthesize.synthesize(
            source,
            sampled,
            output,
            encoder,
            endpoint.ask,
            cache=cache or eval_options.default_cache(),
            template=template,
            model=llm or "",
            found_within=found_within,
            seed=seed,
            progress=progress,
        )
    result = {"queries": made.queries, "dropped": made.dropped, "output": str(output)}
    printed.show(result, f"{made.queries} queries in {output}")
    for reason, count in made.dropped.items():
        typer.secho(f"{count} dropped: {reason}", fg="yellow", err=True)


def _template(prompt: str) -> str:
    from m3connect.training_data.synthesize import PROMPTS

    if prompt in PROMPTS:
        return PROMPTS[prompt]
    path = Path(prompt)
    if not path.is_file():
        raise ConfigError(f"no prompt {prompt!r}: {', '.join(PROMPTS)}, or a file with {{text}}")
    return path.read_text(encoding="utf-8")
