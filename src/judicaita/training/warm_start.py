"""The supervised stage as a run: learn from worked solutions, before rewards for one's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from time import perf_counter
from typing import Any

from judicaita.errors import NumericalError
from judicaita.training import checkpoints
from judicaita.training.config import SFTConfig
from judicaita.training.console import TrainingConsole
from judicaita.training.data_curation import to_samples
from judicaita.training.devices import place, use_threads
from judicaita.training.embedded import resolve_base_model
from judicaita.training.loading import load_policy
from judicaita.training.metrics import EventLog
from judicaita.training.optimization import Updater, halvings_told, spike_fields, spike_told
from judicaita.training.provenance import origin_of
from judicaita.training.run_folder import RunFolder
from judicaita.training.sampler import ShuffleSampler
from judicaita.training.supervised import Row, fitting_rows, supervised_row, supervised_step
from judicaita.training.trackers import make_trackers, require_trackers
from judicaita.types import Sample


def supervised_fine_tuning(
    config: SFTConfig,
    train_dataset: Iterable[Mapping[str, Any] | Sample],
    *,
    origins: Mapping[str, str] | None = None,
    show_progress: bool = True,
) -> dict[str, float]:
    """Train on rows with ``prompt`` and ``trace`` and write ``final/`` in the run's folder.

    Returns the figures of the last step: loss in nats per completion token, tokens, norms. Steps
    that meet a number that is not finite are skipped; ``max_faults`` in a row are a
    `NumericalError`.
    """
    folder = RunFolder(config.checkpoint_dir)
    folder.refuse_if_used()
    require_trackers(config.report_to)
    folder.lock()
    try:
        return _learn(folder, config, train_dataset, origins or {}, show_progress)
    finally:
        folder.unlock()


def _learn(
    folder: RunFolder,
    config: SFTConfig,
    train_dataset: Iterable[Mapping[str, Any] | Sample],
    origins: Mapping[str, str],
    show_progress: bool,
) -> dict[str, float]:
    samples = to_samples(train_dataset)
    # Before the embedded model is built: XLA must be there at torch's first backward pass.
    place(config.device, config.precision).seed(config.seed)
    use_threads(config.num_threads)
    policy = load_policy(config, resolve_base_model(config.base_model))
    rows = fitting_rows([supervised_row(policy, sample) for sample in samples], policy, config)
    if len(rows) < len(samples):
        TrainingConsole(0, enabled=show_progress).message(
            f"{len(samples) - len(rows)} of {len(samples)} rows do not fit and were left out."
        )
    sampler: ShuffleSampler[Row] = ShuffleSampler(
        rows, batch_size=config.samples_per_step, num_epochs=config.num_epochs, seed=config.seed
    )
    total_steps = min(sampler.total_batches, config.max_steps or sampler.total_batches)
    updater = Updater(policy, config, total_steps)
    data_from = {"train": origin_of(samples)}
    manifest = checkpoints.describe_run(policy, origins, data_from, train=samples)
    folder.begin(config, manifest)
    figures: dict[str, float] = {}
    fault, faults, halvings = None, 0, 0
    with ExitStack() as stack:
        stack.enter_context(folder.writing("start over in a new folder"))
        events = EventLog(folder.events)
        stack.callback(events.close)
        trackers = make_trackers(
            config.report_to, folder.root, folder.root.name, config.model_dump(mode="json")
        )
        for tracker in trackers:
            stack.callback(tracker.close)
        console = stack.enter_context(
            TrainingConsole(total_steps, enabled=show_progress, logging_steps=config.logging_steps)
        )
        for step in range(1, total_steps + 1):
            start = perf_counter()
            try:
                done = supervised_step(policy, updater, sampler.draw(), config.batch_size)
            except NumericalError as error:
                updater.skip_to(step)
                fault, faults = error, faults + 1
                events.write("fault", step, {"kind": error.kind, "message": str(error)})
                console.message(f"step {step} is skipped: {error}")
                if faults == config.max_faults:
                    raise
                continue
            faults = 0
            if updater.halvings > halvings:
                halvings = updater.halvings
                events.write("out_of_memory", step, {"micro_batches_divided_by": 2**halvings})
                console.message(halvings_told(step, halvings))
            spikes = updater.take_spikes()
            for spike in spikes:
                events.write("spike", step, spike_fields(spike))
                console.message(spike_told(step, spike, config.spikes))
            figures = {
                "loss": done.loss,
                "tokens": float(done.tokens),
                "grad_norm": done.update.grad_norm,
                "learning_rate": done.update.learning_rate,
                **updater.spike_figures(done.update, len(spikes)),
                "tokens_per_second": done.tokens / (perf_counter() - start),
            }
            events.write("step", step, figures)
            for tracker in trackers:
                tracker.log(figures, step)
            console.update(step, figures)
    if fault is not None and not figures:
        raise fault  # not one step was learned from
    checkpoints.save_checkpoint(folder.final, policy, config, step=total_steps)
    return figures
