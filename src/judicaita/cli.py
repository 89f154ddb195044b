"""``judicaita``: parse, call, print. Nothing heavy is imported before a command runs.

Every setting of a configuration is a flag of its command, made from its definition; what is not
given stays open to the environment, `.env`, a file, the model's profile and the default.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

import click

from judicaita.cli_compare import compare
from judicaita.cli_data import data
from judicaita.cli_tasks import tasks
from judicaita.errors import ConfigError, DataError, JudicaitaError, RunStopped
from judicaita.training.config import RunConfig, SFTConfig, TrainingConfig
from judicaita.training.settings import (
    CHECKPOINT_VARIABLE,
    Resolved,
    default_checkpoint,
    options,
    resolve,
)

if TYPE_CHECKING:
    from judicaita.training.audit import Audited
    from judicaita.training.evaluation import EvaluationReport
    from judicaita.training.report import Report
    from judicaita.types import Sample

ConfigT = TypeVar("ConfigT", bound=RunConfig)
Command = Callable[..., None]

_DEVICES = get_args(RunConfig.model_fields["device"].annotation)

_PER_FAMILY = ("accuracy", "true", "sound", "coverage", "right_with_false_step")
"""Figures that `evaluate-model` shows of each generated family."""

_OF_THE_REWARD = (
    *("base_model", "reward", "format_weight", "outcome_weight", "verbosity_weight"),
    *("outcome_match", "outcome_threshold", "min_steps"),
    *("verbosity_target", "verbosity_tolerance"),
)
"""Settings that bear on an audit; a base model may bring some of them by its profile. Those of true
steps do not: a corpus has no facts to check steps against."""

EXPLOITED = 1
"""Exit code of `audit-rewards` where an exploit pays; input of no use is 2."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells count it: 128 + SIGINT."""

STOPPED = 75
"""Exit code of a run that was told to stop, has saved, and can go on: EX_TEMPFAIL of sysexits.h,
"try again later", on which a scheduler may queue it again."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Errors that a person can mend are one sentence and exit code 2."""
    # Read when torch's thread pool starts. Threads that spin while they wait made a two-thread
    # linear layer 47 times slower (19 ms → 900 ms) on a machine with other work to do.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app(args=arguments, prog_name="judicaita", standalone_mode=False)
    except click.ClickException as error:
        _fail(error.format_message())
    except RunStopped as stop:
        click.echo(str(stop), err=True)
        sys.exit(STOPPED)
    except JudicaitaError as error:
        _fail(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}. Check the path and who may write there.")
    except (click.Abort, KeyboardInterrupt):
        click.echo(
            "Interrupted. A run that has saved a checkpoint goes on with --resume auto.", err=True
        )
        sys.exit(INTERRUPTED)


def _fail(message: str) -> None:
    click.echo(f"Error: {message}", err=True)
    sys.exit(2)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def app() -> None:
    """Train language models to reason about law with GRPO and verifiable rewards.

    Start with `judicaita quickstart`: it needs no download and no GPU. What the models write is no
    legal advice.
    """


app.add_command(compare)
app.add_command(data)
app.add_command(tasks)


def config_options(
    config_class: type[RunConfig], only: Collection[str] | None = None
) -> Callable[[Command], Command]:
    """A flag for every setting, or for some ``only``, and ``--config`` for a file of any."""

    def decorate(command: Command) -> Command:
        for option in reversed(options(config_class)):
            if only is not None and option.path not in only:
                continue
            default = option.field.get_default(call_default_factory=True)
            shown = ",".join(default) if isinstance(default, list) else default
            text = " ".join(inspect.cleandoc(option.field.description or "").split())
            note = "" if shown is None or shown == "" or len(str(shown)) > 60 else f"  [{shown}]"
            flag, *others = option.flags
            names = (
                [f"{flag}/--no-{flag.removeprefix('--')}"] if isinstance(default, bool) else [flag]
            )
            command = click.option(
                option.path.replace(".", "__"),
                *others,
                *names,
                default=None,
                type=bool if isinstance(default, bool) else str,
                metavar=None if isinstance(default, bool) else _metavar(option.field.annotation),
                help=text.replace("``", "") + note,
            )(command)
        file = click.option(
            "--config", "file", type=click.Path(path_type=Path), help="YAML file of settings."
        )
        return file(command)

    return decorate


def _metavar(annotation: Any) -> str:
    """What stands for the value in ``--help``: the choices, or the kind."""
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    if kinds and all(isinstance(kind, str) for kind in kinds):
        return "|".join(kinds)
    if get_origin(annotation) is list:
        return "NAME,..."
    kind = kinds[0] if kinds else annotation
    return "TEXT" if kind is str else str(getattr(kind, "__name__", kind)).upper()


def _resolve(
    config_class: type[ConfigT], file: Path | None, given: dict[str, Any]
) -> Resolved[ConfigT]:
    flags = {name.replace("__", "."): value for name, value in given.items() if value is not None}
    return resolve(config_class, flags, file=file)


@app.command("train-grpo")
@click.option("--show-config", is_flag=True, help="Print every setting and its source, then stop.")
@config_options(TrainingConfig)
def train_grpo(file: Path | None, show_config: bool, **given: Any) -> None:
    """Train a model by GRPO.

    \b
    judicaita train-grpo --base-model google/gemma-2-2b-it --epochs 3
    judicaita train-grpo --base-model ./gemma --dataset ./legalbench --tasks contract_qa
    """
    resolved = _resolve(TrainingConfig, file, given)
    if show_config:
        click.echo(resolved.describe())
        return
    from judicaita.training.data_curation import load_training_data
    from judicaita.training.grpo_trainer import GRPOTrainer

    config = resolved.config
    loaded = load_training_data(config)
    for notice in loaded.notices:
        click.echo(f"Note: {notice}", err=True)
    trainer = GRPOTrainer(config, loaded.train, loaded.held_out, origins=resolved.origins)
    trainer.initialize()
    metrics = trainer.train()
    click.echo(f"{metrics['steps']:.0f} steps done; the model is in {trainer.folder.final}")
    click.echo(f"Next: judicaita evaluate-model {trainer.folder.final}")


@app.command("sft")
@click.option("--show-config", is_flag=True, help="Print every setting and its source, then stop.")
@config_options(SFTConfig)
def sft(file: Path | None, show_config: bool, **given: Any) -> None:
    """Teach a model worked solutions (column `trace`) word by word, before GRPO."""
    resolved = _resolve(SFTConfig, file, given)
    if show_config:
        click.echo(resolved.describe())
        return
    from judicaita.training.data_curation import load_training_data
    from judicaita.training.warm_start import supervised_fine_tuning

    config = resolved.config
    loaded = load_training_data(config)
    metrics = supervised_fine_tuning(config, loaded.train, origins=resolved.origins)
    final = config.checkpoint_dir / "final"
    click.echo(f"Loss {metrics['loss']:.4f} nats per token; the model is in {final}")
    adapter = f" --use-lora --adapter {final}" if config.use_lora else ""
    base = config.base_model if config.use_lora else final
    click.echo(
        f"Next: judicaita train-grpo --base-model {base}{adapter} --dataset {config.dataset}"
    )


_CHECKPOINT_HELP = f"A run's final/ or step-N folder; {CHECKPOINT_VARIABLE} if left out."


def _checkpoint(given: Path | None) -> Path:
    named = given or default_checkpoint()
    if named is None:
        raise click.UsageError(
            f"no checkpoint was named. Give its folder, or set {CHECKPOINT_VARIABLE}."
        )
    return Path(named)


@app.command("evaluate-model")
@click.argument("checkpoint", type=click.Path(path_type=Path), required=False)
@click.option(
    "--dataset",
    help="legalbench (its test rows), a checkout, a file, a data set on the Hub, or families; "
    "default: the held-out split.",
)
@click.option("--tasks", default="", help="Tasks of a folder or levels, comma-separated.")
@click.option("--max-samples", type=click.IntRange(min=1), help="Evaluate at most so many samples.")
@click.option("--reward", help="module:function or file.py:function; the composite if left out.")
@click.option(
    "--predictions",
    type=click.Path(path_type=Path),
    help="Grade the answers of this JSONL file, in place of a checkpoint's.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), help="Write figures and samples as JSON."
)
@click.option(
    "--report",
    "report_folder",
    type=click.Path(path_type=Path),
    help="Write a folder with report.html, report.md, report.json and samples.parquet.",
)
@click.option("--device", type=click.Choice(_DEVICES), default="auto", show_default=True)
def evaluate_model(
    checkpoint: Path | None,
    dataset: str | None,
    tasks: str,
    max_samples: int | None,
    reward: str | None,
    predictions: Path | None,
    output: Path | None,
    report_folder: Path | None,
    device: str,
) -> None:
    """Grade a checkpoint's greedy answers to held-out questions, or answers from a file."""
    if predictions and (checkpoint or not dataset or device != "auto"):
        raise click.UsageError(
            "--predictions grades answers without a model: give it a --dataset, and neither a "
            "checkpoint nor --device."
        )
    path = None if predictions else _checkpoint(checkpoint)
    from judicaita.training.checkpoints import require_checkpoint
    from judicaita.training.data_curation import load_evaluation_data
    from judicaita.training.evaluation import EvaluationHarness, evaluation_samples
    from judicaita.training.legalbench_scores import check_rows
    from judicaita.training.predictions import evaluate_predictions
    from judicaita.training.report import Origin, build_report, origin_of_checkpoint
    from judicaita.training.report_files import refuse_folder, write_report
    from judicaita.training.rewards import load_reward

    if path:
        require_checkpoint(path)
    if report_folder:
        refuse_folder(report_folder)
    if tasks and not dataset:
        raise click.UsageError("--tasks picks from a --dataset, and none was given. Name one.")
    samples = (
        load_evaluation_data(dataset, [name for name in tasks.split(",") if name], max_samples)
        if dataset
        else None
    )
    if path:
        samples = evaluation_samples(path, samples, max_samples)
    assert samples is not None, "a file of predictions comes with a data set"
    check_rows(samples)
    own_reward = load_reward(reward) if reward else None
    if predictions:
        evaluation = evaluate_predictions(predictions, samples, EvaluationHarness(own_reward))
        if output:
            evaluation.to_json(output)
        origin = Origin(predictions=str(predictions), dataset=dataset)
    else:
        assert path is not None, "named, or an error"
        evaluation = _evaluate_checkpoint(path, samples, own_reward, output, device)
        origin = origin_of_checkpoint(path, samples, dataset)
    report = build_report(evaluation, samples, origin)
    _print_report(report)
    if output:
        click.echo(f"Written to {output}")
    if report_folder:
        click.echo(f"Written to {write_report(report, report_folder)}")


def _evaluate_checkpoint(
    path: Path, samples: list[Sample], reward: Any, output: Path | None, device: str
) -> EvaluationReport:
    """With a bar, and a word where the run's own reward is not used."""
    from judicaita.training.checkpoints import read_card
    from judicaita.training.console import Bar, progress
    from judicaita.training.evaluation import evaluate_checkpoint

    own = read_card(path).get("config", {}).get("reward")
    if own and not reward:
        # Loading it unasked would run code that a downloaded folder names.
        click.echo(
            f"Note: the run's own reward ({own}) is not loaded unasked, so the reward below is the "
            "composite's. Give it by --reward.",
            err=True,
        )
    bars: list[Bar] = []
    with ExitStack() as stack:

        def show(done: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(progress("evaluating", total)))
            bars[0].update(done)

        return evaluate_checkpoint(
            path, samples, output_file=output, device=device, reward=reward, progress=show
        )


def _print_report(report: Report) -> None:
    """The figures are the command's result, so they go to stdout; progress goes to stderr."""
    from rich.console import Console

    from judicaita.training.console import TrainingConsole
    from judicaita.training.report import legalbench_rows

    evaluation = report.evaluation
    console = TrainingConsole(0, console=Console())
    console.print_metrics(
        f"{report.origin.name}: {len(evaluation.records)} samples", evaluation.metrics
    )
    if len(evaluation.by_family) > 1:
        columns = {
            name: {family: figures[name] for family, figures in evaluation.by_family.items()}
            for name in _PER_FAMILY
        }
        console.print_comparison("per family", columns, list(evaluation.by_family))
    if report.legalbench:
        heading = ("", "official", "corrected")
        console.print_rows("LegalBench", heading, legalbench_rows(report.legalbench))


@app.command("audit-rewards")
@click.option(
    "--corpus",
    type=click.Path(path_type=Path),
    help="JSONL of honest answers and exploits; the one of the package if left out.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write every result.")
@config_options(TrainingConfig, only=_OF_THE_REWARD)
def audit_rewards(
    corpus: Path | None, json_file: Path | None, file: Path | None, **given: Any
) -> None:
    """Try to earn a reward by answers that do not deserve it.

    An exploit has to earn less than the honest answer, and one that answers wrongly at most half of
    it. Lengths are words. Exit code 0 if all do, 1 if one does not, 2 if nothing could be audited.

    \b
    judicaita audit-rewards --reward my_rewards.py:score
    judicaita audit-rewards --config run.yaml --corpus exploits.jsonl --json report.json
    """
    config = _resolve(TrainingConfig, file, given).config
    from judicaita.training.audit import BUILT_IN, audit, read_corpus
    from judicaita.training.durable import write_file
    from judicaita.training.rewards import composite_from_config, load_reward

    if json_file is not None and json_file.is_dir():
        raise ConfigError(f"{json_file} is a folder, and the results are one file. Name a file.")
    lines = read_corpus(corpus or BUILT_IN)
    reward = load_reward(config.reward) if config.reward else composite_from_config(config)
    results = audit(reward, lines)
    if all(result.honest is None for result in results):
        raise DataError(f"{reward.name} abstains on every question, so there is nothing to audit.")
    if json_file is not None:
        rows = [result.as_row() for result in results]
        text = json.dumps(rows, ensure_ascii=False, indent=2) + "\n"
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_file(json_file, lambda out: out.write(text.encode()))
    _print_audit(reward.name, results)
    if not all(result.passed for result in results):
        sys.exit(EXPLOITED)


def _print_audit(name: str, results: Sequence[Audited]) -> None:
    """The exploits that pay, and a line of how many there are."""
    from rich.console import Console

    from judicaita.training.console import TrainingConsole

    failed = [result for result in results if not result.passed]
    if failed:
        rows = [
            (each.name, each.kind, f"{each.honest:.3f}", f"{each.exploit:.3f}") for each in failed
        ]
        heading = ("exploit", "kind", "honest", "exploit earns")
        TrainingConsole(0, console=Console()).print_rows("Exploits that pay", heading, rows)
    abstained = sum(1 for result in results if result.honest is None)
    note = f"; it abstains on {abstained}" if abstained else ""
    click.echo(f"{name}: {len(failed)} of {len(results)} exploits pay{note}")


@app.command("trace")
@click.argument("query")
@click.option(
    "--context", default="", help="The facts, a clause, a document: what the question is about."
)
@click.option("--checkpoint", type=click.Path(path_type=Path), help=_CHECKPOINT_HELP)
@click.option("--format", "form", type=click.Choice(["markdown", "json"]), default="markdown")
@click.option("--device", type=click.Choice(_DEVICES), default="auto", show_default=True)
def trace(query: str, context: str, checkpoint: Path | None, form: str, device: str) -> None:
    """Answer a question step by step, with the model's confidence in each step."""
    path = _checkpoint(checkpoint)
    import asyncio

    from judicaita.reasoning_trace import ReasoningTrace, ReasoningTraceGenerator

    async def explain() -> ReasoningTrace:
        generator = ReasoningTraceGenerator(checkpoint_path=path, device=device)
        await generator.initialize()
        return await generator.generate_trace(query=query, context=context)

    answer = asyncio.run(explain())
    click.echo(answer.to_json() if form == "json" else answer.to_markdown())


@app.command("export")
@click.argument("checkpoint", type=click.Path(path_type=Path), required=False)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option("--merge", is_flag=True, help="Merge a LoRA adapter into its base model.")
def export(checkpoint: Path | None, output: Path, merge: bool) -> None:
    """Write what other tools load: the model or adapter and its tokenizer, nothing of the run."""
    path = _checkpoint(checkpoint)
    from judicaita.training.checkpoints import export_checkpoint

    export_checkpoint(path, output, merge=merge)
    click.echo(f"Written to {output}")


@app.command("quickstart")
@click.option(
    "--seeds",
    "--seed",
    type=click.IntRange(min=0),
    multiple=True,
    default=(0,),
    show_default="0",
    help="One, or several: --seeds 0 1 2. Each takes minutes.",
)
@click.argument("more_seeds", type=click.IntRange(min=0), nargs=-1, metavar="")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures.")
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    default=Path("checkpoints/quickstart"),
    show_default=True,
    help="Gets a folder a seed; a number is added where it is taken.",
)
def quickstart(
    seeds: tuple[int, ...], more_seeds: tuple[int, ...], json_file: Path | None, output_dir: Path
) -> None:
    """Train the embedded model on legal questions in three ways and compare them.

    Minutes on two CPU cores; no download, no GPU.
    """
    from judicaita.quickstart import run_quickstart

    click.echo(run_quickstart(output_dir, seeds=(*seeds, *more_seeds), json_file=json_file))


@app.command("version")
def show_version() -> None:
    """Print the versions of judicaita and of what it stands on."""
    from importlib.metadata import version

    for package in ("judicaita", "torch", "transformers", "peft"):
        click.echo(f"{package} {version(package)}")


if __name__ == "__main__":
    main()
