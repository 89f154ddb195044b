"""``judicaita compare``: two evaluation reports of the same samples."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("compare")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the tables as Markdown.")
def compare(a: Path, b: Path, json_file: Path | None, markdown: Path | None) -> None:
    """Compare two reports of `evaluate-model --report` on the samples that both have.

    Differences are B minus A, with paired bootstrap intervals; p is that of McNemar's exact test.
    """
    from rich.console import Console

    from judicaita.training.comparison import compare_reports
    from judicaita.training.console import TrainingConsole
    from judicaita.training.durable import write_file, write_json

    found = compare_reports(a, b)
    for warning in found.warnings:
        click.echo(f"Note: {warning}", err=True)
    console = TrainingConsole(0, console=Console())
    for title, heading, rows in found.tables():
        console.print_rows(title, heading, rows)
    click.echo(found.conclusion())
    for path in (json_file, markdown):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    if json_file is not None:
        write_json(json_file, found.to_dict())
    if markdown is not None:
        write_file(markdown, lambda file: file.write(found.to_markdown().encode()))
