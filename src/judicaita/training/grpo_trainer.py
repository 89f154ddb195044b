"""GRPO: draw → generate → score → advantages → batch → update → record.

Group Relative Policy Optimization (DeepSeekMath, arXiv 2402.03300): G completions of a question are
scored, and each learns from how much better it was than its group. `GRPOTrainer.step` is the whole
algorithm, call by call; everything else here prepares it or keeps its records.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from judicaita.errors import (
    CheckpointError,
    JudicaitaError,
    NumericalError,
    RunStopped,
)
from judicaita.training import audit, checkpoints
from judicaita.training.batching import Item, MiniBatch, encode_prompts, make_mini_batch
from judicaita.training.config import TrainingConfig
from judicaita.training.console import TrainingConsole
from judicaita.training.contamination import refuse_overlap
from judicaita.training.coverage import probe_coverage
from judicaita.training.credit import (
    EQUAL,
    REPLACED,
    refuse_other_step_mode,
    refuse_reward_without_parts,
    weigh_groups,
    why,
    why_each,
)
from judicaita.training.data_curation import subsample, to_jsonl
from judicaita.training.devices import place, use_threads
from judicaita.training.durable import write_file
from judicaita.training.embedded import resolve_base_model
from judicaita.training.evaluation import EvaluationHarness
from judicaita.training.groups import sample_groups, score_group
from judicaita.training.held_out import divide
from judicaita.training.loading import load_policy
from judicaita.training.metrics import (
    ENTERED,
    cut_events,
    remove_rollouts_after,
    require_events,
    sync_events,
)
from judicaita.training.optimization import (
    UpdateInfo,
    Updater,
    halvings_told,
    spike_fields,
    spike_told,
)
from judicaita.training.policy import Policy
from judicaita.training.prefill import KeptPrefill
from judicaita.training.provenance import origin_of
from judicaita.training.records import RunRecorder, StepRecord
from judicaita.training.reference_policy import reference_copy
from judicaita.training.rehearsal import DataSource, Rehearsal, rehearsal_source
from judicaita.training.resume import (
    changed_runtime,
    changed_settings,
    checkpoint_to_resume,
    refuse_other_runs,
)
from judicaita.training.rewards import (
    CompositeReward,
    OutcomeReward,
    Reward,
    as_reward,
    columns_of,
    composite_from_config,
    load_reward,
    score_safely,
)
from judicaita.training.rollouts.base import RolloutEngine, SamplingParams
from judicaita.training.rollouts.native import NativeEngine
from judicaita.training.rollouts.vllm import VLLMEngine
from judicaita.training.run_folder import RunFolder
from judicaita.training.sampler import ShuffleSampler, make_sampler
from judicaita.training.state import RunState
from judicaita.training.supervision import StopRequested, Supervisor
from judicaita.training.trackers import require_trackers
from judicaita.training.update import PolicyUpdate
from judicaita.types import Group, RewardResult, Sample


class GRPOTrainer:
    """Trains a model on questions whose answers can be scored.

    Args:
        config: What and how; see `TrainingConfig`.
        train_dataset: Rows with ``prompt`` and ``reference`` (alias ``response``): a
            `datasets.Dataset`, a list of dicts, or Samples.
        eval_dataset: Held-out rows; None holds ``config.eval_fraction`` of the training rows out.
        reward_fn: A reward, or a callable ``(prompt, response, reference, **columns) -> float``;
            None is the composite of the configuration, or ``config.reward``.
        rehearsal: Samples with worked solutions to rehearse, in place of
            ``config.rehearsal_dataset``; they come again and again, in seeded shuffles.
        origins: Where each setting came from, for the manifest.
    """

    def __init__(
        self,
        config: TrainingConfig,
        train_dataset: Iterable[Mapping[str, Any] | Sample],
        eval_dataset: Iterable[Mapping[str, Any] | Sample] | None = None,
        reward_fn: Any = None,
        *,
        rehearsal: Iterable[Mapping[str, Any] | Sample] | None = None,
        origins: Mapping[str, str] | None = None,
        show_progress: bool = True,
    ) -> None:
        self.config = config
        self.reward = self._choose_reward(reward_fn)
        refuse_other_step_mode(config, self.reward)
        refuse_reward_without_parts(config, self.reward)
        # One that was handed over may count its calls or hold answers to come: it is not tried out.
        self.reward_is_configured = reward_fn is None
        self.rehearsal_source = source = rehearsal_source(config, rehearsal)
        rehearsed = source.items if isinstance(source, DataSource) else ()
        divided = divide(train_dataset, eval_dataset, rehearsed, config)
        self.train_samples, self.eval_samples = divided.train, divided.held_out
        self.contamination = divided.contamination
        self.data_from = self._origins(train_dataset, eval_dataset)
        self.folder = RunFolder(config.checkpoint_dir)
        self.origins = origins or {}
        self.harness = EvaluationHarness(
            self.reward, grader=composite_from_config(config), text_overlap=False
        )
        self.supervisor = Supervisor(
            config.time_limit,
            config.stall_seconds,
            self.folder.stalls,
            tell=lambda text: self.console.message(text),
        )
        self.policy: Policy
        self.kept: KeptPrefill
        self.engine: RolloutEngine
        self.updater: Updater
        self.update: PolicyUpdate
        self.sampler: ShuffleSampler[Item]
        self.state: RunState
        self.eval_items: list[Item]
        self.recorder = RunRecorder(self.folder, config, show_progress=show_progress)

    @property
    def steps_done(self) -> int:
        """Steps so far, those before a resume included; 0 until `initialize`."""
        return self.state.steps_done if hasattr(self, "state") else 0

    @property
    def console(self) -> TrainingConsole:
        """The screen of the run."""
        return self.recorder.console

    def _choose_reward(self, given: Any) -> Reward:
        if given is not None:
            return as_reward(given)
        if self.config.reward is not None:
            return load_reward(self.config.reward)
        return composite_from_config(self.config)

    def _origins(self, train: Any, evaluation: Any) -> dict[str, dict[str, Any]]:
        """Where the data came from, for the manifest."""
        part = {"held_out_of_train": self.config.eval_fraction, "seed": self.config.seed}
        held_out = {**origin_of(train), **part} if evaluation is None else origin_of(evaluation)
        return {"train": origin_of(train), "eval": held_out}

    # ── before the first step ────────────────────────────────────────────────────────────────────

    def initialize(self) -> None:
        """Load the model, tokenize the prompts, and make or resume the run's folder, which is kept
        from other runs until `train` ends or `close` is called."""
        refuse_other_runs(self.config, self.folder)  # before it is locked, which leaves a trace
        require_trackers(self.config.report_to)
        refuse_overlap(self.contamination, self.config.allow_contamination)
        self.folder.lock()
        try:
            resume_from = checkpoint_to_resume(self.config, self.folder, self.console.message)
            self._load(resume_from)
            with self.folder.writing():
                if resume_from is None:
                    self._begin()
                elif resume_from == self.folder.final:
                    self._take_up_finished()
                else:
                    self._go_on_from(resume_from)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of what generates, and let other runs use the folder; `train` does so at its
        end."""
        if hasattr(self, "engine"):
            self.engine.close()
        self.folder.unlock()

    def _make_engine(self) -> RolloutEngine:
        config = self.config
        if config.rollout_engine == "native":
            return NativeEngine(self.policy, self.supervisor.pulse, self.kept)
        return VLLMEngine(
            self.policy,
            config.rollout_url,
            config.checkpoint_dir / "adapters",
            timeout=config.rollout_timeout,
            pulse=self.supervisor.pulse,
        )

    def _load(self, resume_from: Path | None) -> None:
        """The model and everything that is made from it and the data."""
        # Before the embedded model is built: XLA must be there at torch's first backward pass.
        place(self.config.device, self.config.precision).seed(self.config.seed)
        self._set_threads(resume_from)
        self.policy = load_policy(self.config, resolve_base_model(self.config.base_model))
        if not self.policy.knows_architecture:
            self.console.message(
                f"{self.policy.model.config.model_type} on {self.policy.placement.device.type}: a "
                "prompt cannot be forwarded once for its group here, so training passes repeat it"
            )
        train_items = self._encode(self.train_samples, "training")
        self.eval_items = self._encode(self.eval_samples, "evaluation")
        self.kept = KeptPrefill(self.policy, self.config)
        self.engine = self._make_engine()
        self.sampler = make_sampler(train_items, self.config)
        self.total_steps = min(
            self.sampler.total_batches, self.config.max_steps or self.sampler.total_batches
        )
        self.updater = Updater(
            self.policy, self.config, self.total_steps * self.config.updates_per_step
        )
        source = self.rehearsal_source
        rehearsal = Rehearsal(self.policy, self.config, source) if source is not None else None
        reference = reference_copy(self.policy, self.config)
        self.update = PolicyUpdate(
            self.policy,
            self.updater,
            self.config,
            rehearsal,
            reference or self.policy.reference,
            self.kept,
            self.supervisor,
        )
        self.state = RunState(
            self.policy.placement,
            self.updater,
            self.sampler,
            rehearsal,
            reference,
            self.config.beta,
            {
                "train": checkpoints.fingerprint(self.train_samples),
                "eval": checkpoints.fingerprint(self.eval_samples),
            },
        )

    def _set_threads(self, resume_from: Path | None) -> None:
        """As many as configured, else as many as before: sums of other parts round differently."""
        before = checkpoints.read_card(resume_from).get("runtime", {}) if resume_from else {}
        use_threads(self.config.num_threads or before.get("threads"))

    def _begin(self) -> None:
        """Start from the first step; what a run left that was killed before it saved is removed."""
        if self.folder.config.exists():
            self.folder.begin_again()
            self.console.message(f"{self.folder.root}: nothing was saved yet; starting over")
        manifest = checkpoints.describe_run(
            self.policy,
            self.origins,
            self.data_from,
            train=self.train_samples,
            eval=self.eval_samples,
        )
        manifest["contamination"] = self.contamination.as_fields()
        if self.contamination.pairs:
            self.console.message(self.contamination.sentence())
        held_out = to_jsonl(sample for sample, _ in self.eval_items).encode()
        if self.reward_is_configured:
            self._try_reward()
        self.folder.begin(self.config, manifest)
        write_file(self.folder.held_out, lambda file: file.write(held_out))

    def _go_on_from(self, checkpoint: Path) -> None:
        self.load_checkpoint(checkpoint)
        self.console.message(f"going on from {checkpoint}, after step {self.steps_done}")
        if changed := changed_settings(checkpoint, self.config):
            self.console.message(f"resumed with other settings: {', '.join(changed)}")
        runtime = checkpoints.describe_runtime(self.policy)
        if changed := changed_runtime(checkpoint, runtime):
            self.console.message(
                f"resumed elsewhere: {', '.join(changed)}; the last digits may differ"
            )

    def _take_up_finished(self) -> None:
        """Load what a finished run ended with; there is nothing left to train."""
        step = checkpoints.read_card(self.folder.final)["step"]
        if step != self.total_steps:
            raise CheckpointError(
                f"{self.folder.root}: its run ended at step {step} and is not prolonged to "
                f"{self.total_steps}. Start a new one from its final/, in a folder of its own."
            )
        self.policy.load_weights(self.folder.final)
        self.state.steps_done = step

    def _try_reward(self) -> None:
        """Score one sample's own reference: a reward that cannot do that shall not start a run."""
        sample = self.train_samples[0]
        response = sample.trace or sample.reference
        columns = columns_of(sample, len(response.split()), "stop")
        score_safely(self.reward, sample.prompt, response, sample.reference, columns)

    def _encode(self, samples: Sequence[Sample], name: str) -> list[Item]:
        """Tokenize the prompts of a data set and tell how many did not fit."""
        items = encode_prompts(self.policy, samples, name, self.config)
        if len(items) < len(samples):
            self.console.message(
                f"{len(samples) - len(items)} of {len(samples)} {name} prompts do not fit and were "
                "left out."
            )
        return items

    def _require_policy(self, call: str) -> None:
        if not hasattr(self, "policy"):
            raise JudicaitaError(
                f"{call}() before initialize(): no model is loaded yet. Call initialize() first."
            )

    # ── the run ──────────────────────────────────────────────────────────────────────────────────

    def train(self) -> dict[str, float]:
        """Run to the end. Returns the figures of the last evaluation and of the last step.

        `RunStopped` after a signal or the time limit, `NumericalError` after ``max_faults`` steps
        in a row with numbers that are not finite: both once the run has been saved.
        """
        self._require_policy("train")
        if self.steps_done == self.total_steps and checkpoints.read_card(self.folder.final):
            self.close()
            self.console.message(f"{self.folder.root}: the run is finished, nothing is left to do.")
            return {"steps": float(self.steps_done)}
        self.folder.lock()
        try:
            with (
                self.folder.writing(),
                self.supervisor.on_duty(),
                self.recorder.opened(self.steps_done, self.total_steps),
            ):
                return self._run()
        finally:
            self.close()

    def _run(self) -> dict[str, float]:
        """Step after step, with what is due between them."""
        record = StepRecord(self.steps_done)
        try:
            while True:
                self._evaluate_if_due()
                if self.steps_done % self.config.save_steps == 0:
                    self._save_step()
                if self.steps_done == self.total_steps:
                    break
                self.supervisor.pulse()
                record = self.step()
                self._stop_if_faulty(record)
        except StopRequested as stop:
            self._save_step()
            raise self._stopped(stop.reason) from None
        self._save_final()
        return {
            "steps": float(self.steps_done),
            **{f"train/{name}": value for name, value in record.metrics.items()},
            **{f"eval/{name}": value for name, value in (self.state.evaluation or {}).items()},
        }

    def step(self) -> StepRecord:
        """One optimizer step, or several on the same completions.

        A number that is not finite ends it: the weights stay as the last good update left them, and
        the step is recorded as a fault. One that is stopped before the weights move is as if it had
        not begun.
        """
        self._require_policy("step")
        record = StepRecord(self.steps_done + 1)
        before, version = self.state.position(), self.policy.version
        halvings = self.updater.halvings
        items = self.sampler.draw()
        groups: list[Group] = []
        replaced: list[Group] = []
        try:
            with self.kept.for_update():
                with record.timed("generate"):
                    groups = self._generate(items, record.step)
                with record.timed("score"):
                    groups = self._score(groups)
                self._replace_equal(groups, replaced, record)
            self.sampler.observe(groups + replaced)
            groups = self._advantages(groups, record)
            with record.timed("batch"):
                mini_batches = self._batch(groups)
            with record.timed("update"):
                record.metrics |= self.update(mini_batches, self.state.beta)
            self._adapt_beta(record)
            self.state.faults_in_a_row = 0
        except StopRequested:
            self.state.return_to(before)
            raise
        except NumericalError as error:
            self.updater.skip_to(before["updates"] + self.config.updates_per_step)
            record.metrics["updates"] = float(self.policy.version - version)
            groups = self._note_fault(record, items, groups, error)
        finally:
            self.kept.drop()
        if self.state.reference is not None:
            self.state.reference.follow(record.step)
        self.engine.sync()
        if self.updater.halvings > halvings:
            self._note_halvings(record.step)
        for spike in self.updater.take_spikes():
            self._note_spike(record.step, spike)
        self._record(groups, replaced, record)
        self.state.steps_done = record.step
        return record

    def _generate(self, items: Sequence[Item], step: int, attempt: int = 0) -> list[Group]:
        """G completions of every prompt."""
        name = f"{self.config.seed}/rollouts/{step}"
        seeds = random.Random(f"{name}/{attempt}" if attempt else name)
        return sample_groups(self.policy, self.engine, items, self.config, seeds)

    def _score(self, groups: Sequence[Group]) -> list[Group]:
        """A reward for every completion."""
        return [score_group(group, self.reward, self.supervisor.pulse) for group in groups]

    def _replace_equal(
        self, groups: list[Group], replaced: list[Group], record: StepRecord
    ) -> None:
        """Dynamic sampling (DAPO §3.2): put groups of further questions in the place of those
        without signal, and these with the ``replaced``. What is still without when the attempts are
        used up stays."""
        if self.config.dynamic_sampling:
            record.metrics["replaced_groups"] = 0.0
        for attempt in range(1, self.config.dynamic_sampling + 1):
            weighed = weigh_groups(groups, self.config)
            equal = [n for n, each in enumerate(weighed) if why(each, self.config) in EQUAL]
            if not equal:
                break
            items = self.sampler.draw_further(len(equal))
            with record.timed("generate"):
                fresh = self._generate(items, record.step, attempt)
            with record.timed("score"):
                fresh = self._score(fresh)
            for number, group in zip(equal, fresh, strict=True):
                replaced.append(weighed[number])
                groups[number] = group
            record.metrics["replaced_groups"] = float(len(replaced))

    def _advantages(self, groups: Sequence[Group], record: StepRecord) -> list[Group]:
        """How much better each completion was than its group, over tau; so with its steps."""
        divergences = None
        if self.config.beta > 0 and self.config.kl.place == "reward":
            with record.timed("reference"):
                found = self.update.divergences(groups)
            tokens = sum(len(c.token_ids) for group in groups for c in group.completions)
            record.metrics["kl"] = sum(map(sum, found)) / tokens
            divergences = [[self.state.beta * each for each in own] for own in found]
        return weigh_groups(groups, self.config, divergences)

    def _batch(self, groups: Sequence[Group]) -> list[MiniBatch]:
        """The parts of the groups that updates learn from, one after the other; of a short last
        step some may be empty."""
        count, ordered = self.config.mini_batches, list(groups)
        if count > 1:  # as they were drawn, those of a task may stand together
            order = random.Random(f"{self.config.seed}/mini-batches/{self.steps_done + 1}")
            order.shuffle(ordered)
        ends = [len(ordered) * number // count for number in range(count + 1)]
        parts = [ordered[start:end] for start, end in pairwise(ends)]
        return [
            make_mini_batch(
                [group for group in part if why(group, self.config) == ENTERED],
                part,
                self.policy,
                self.config,
            )
            for part in parts
        ]

    def _adapt_beta(self, record: StepRecord) -> None:
        """The KL penalty's weight follows the divergence, if it is to."""
        if self.config.kl.target and "kl" in record.metrics:
            record.metrics["beta"] = self.state.beta
            self.state.beta = self.config.kl.adapted(self.state.beta, record.metrics["kl"])

    # ── stops and faults ─────────────────────────────────────────────────────────────────────────

    def _stopped(self, reason: str) -> RunStopped:
        """What to raise once a run that was asked to stop is saved."""
        if self.steps_done == 0:
            return RunStopped(f"{reason}: the run stopped before its first step.")
        return RunStopped(
            f"{reason}: the run stopped after step {self.steps_done} of {self.total_steps} and is "
            f"saved in {self.folder.step(self.steps_done)}. Go on by resume=auto."
        )

    def _note_fault(
        self,
        record: StepRecord,
        items: Sequence[Item],
        groups: Sequence[Group],
        error: NumericalError,
    ) -> list[Group]:
        """Record what was not finite, and on which samples; returns the groups as far as they
        came, those without a score as abstained from."""
        self.state.faults_in_a_row += 1
        record.fault = error
        samples = [group.sample.id for group in groups] or [sample.id for sample, _ in items]
        with self.recorder.opened(self.steps_done, self.total_steps):
            count = self.state.faults_in_a_row
            self.recorder.fault(record.step, error, samples=samples, in_a_row=count)
            self.console.message(f"step {record.step} is skipped: {error}")
        unscored = RewardResult(None, {"fault": str(error)})
        return [
            group if group.results else replace(group, results=(unscored,) * len(group.texts))
            for group in groups
        ]

    def _note_halvings(self, step: int) -> None:
        """Memory ran out, and the step went on in smaller pieces, as all later ones will."""
        halvings = self.updater.halvings
        with self.recorder.opened(self.steps_done, self.total_steps):
            self.recorder.event("out_of_memory", step, {"micro_batches_divided_by": 2**halvings})
            self.console.message(halvings_told(step, halvings))

    def _note_spike(self, step: int, spike: UpdateInfo) -> None:
        """A gradient was out of all proportion."""
        with self.recorder.opened(self.steps_done, self.total_steps):
            self.recorder.event("spike", step, spike_fields(spike))
            self.console.message(spike_told(step, spike, self.config.spikes))

    def _stop_if_faulty(self, record: StepRecord) -> None:
        """`NumericalError` once too many steps in a row have met numbers that are not finite."""
        count, fault = self.state.faults_in_a_row, record.fault
        if fault is None or count < self.config.max_faults:
            return
        self.state.faults_in_a_row = 0  # whoever goes on from here may meet as many again
        self._save(self.folder.step(self.steps_done), to_go_on=True)
        raise NumericalError(
            fault.kind,
            f"{count} steps in a row met numbers that are not finite (the last: {fault}) The run "
            f"is saved in {self.folder.step(self.steps_done)}; go on from there or an earlier "
            "checkpoint with a lower learning_rate.",
        )

    # ── records ──────────────────────────────────────────────────────────────────────────────────

    def _record(
        self, groups: Sequence[Group], replaced: Sequence[Group], record: StepRecord
    ) -> None:
        """Events, completions, trackers and the screen."""
        record.metrics |= self.sampler.figures()
        fault = f"fault: {record.fault.kind}" if record.fault else ""
        together = [*groups, *replaced]
        if not isinstance(self.reward, CompositeReward):  # it need not tell right from wrong
            record.metrics |= self.harness.accuracy(together)
        own = [why_each(group, self.config) for group in groups]
        own += [(REPLACED,) * len(group.completions) for group in replaced]
        reasons = [(fault,) * len(each) if fault else each for each in own]
        with self.recorder.opened(self.steps_done, self.total_steps):
            self.recorder.step(record, together, reasons, parts=self.reward.part_names)
            if self.config.audit_steps and record.step % self.config.audit_steps == 0:
                self._audit(record.step, together)

    def _audit(self, step: int, groups: Sequence[Group]) -> None:
        """Look for marks of an exploited reward in what earned most."""
        grader = OutcomeReward(self.config.outcome_match, self.config.outcome_threshold)
        found = audit.inspect_groups(groups, grader)
        self.recorder.event(audit.EVENT, step, found.as_fields())
        if found.found:
            self.console.message(found.sentence(step))

    def evaluate(self) -> dict[str, float]:
        """Greedy answers to the held-out samples (at most ``eval_samples``), graded."""
        self._require_policy("evaluate")
        samples = [sample for sample, _ in self.eval_items]
        if self.config.eval_samples is not None:
            samples = subsample(samples, self.config.eval_samples, self.config.seed)
        with self.console.progress("evaluating", len(samples)) as bar:

            def progress(done: int, total: int) -> None:
                del total
                bar.update(done)
                self.supervisor.pulse()

            report = self.harness.evaluate(
                self.policy,
                self.engine,
                samples,
                SamplingParams(
                    self.config.generation_max_length,
                    temperature=0.0,
                    stop_strings=tuple(self.config.stop_strings),
                ),
                progress=progress,
            )
        return dict(report.metrics)

    def _evaluate_if_due(self) -> None:
        """Before the first step, every ``eval_steps``, after the last; once for each."""
        step = self.steps_done
        is_due = step % self.config.eval_steps == 0 or step == self.total_steps
        if not is_due or self.state.evaluation is not None:
            return
        self.state.evaluated = (step, {})
        try:
            metrics = self.evaluate()
            self.recorder.evaluation(step, metrics)
            self.state.evaluated = (step, metrics)
            if step == 0 and self.config.best_metric not in metrics:
                self.console.message(
                    f"best_metric={self.config.best_metric}: the held-out samples give no such "
                    "figure, so that no checkpoint counts as the best"
                )
            if step == 0 and self.config.probe_coverage and "steps" in self.reward.part_names:
                self._probe_and_record()
        except NumericalError as error:
            self.recorder.fault(step, error)
            self.console.message(f"the evaluation after step {step} ended early: {error}")
        except StopRequested:
            self.state.evaluated = None  # to be made up for
            raise

    def _probe_and_record(self) -> None:
        """Tell which steps are never sampled, so that no reward for them can be earned."""
        found = probe_coverage(self.policy, self.engine, self.sampler.items, self.config)
        if not found:
            return
        self.recorder.event("coverage", 0, {each.family: each.as_fields() for each in found})
        for warning in (text for each in found for text in each.warnings()):
            self.console.message(warning)

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────

    def save_checkpoint(self, path: Path | str) -> Path:
        """Write model or adapter, tokenizer and the state to go on from."""
        self._require_policy("save_checkpoint")
        return self._save(Path(path), to_go_on=True)

    def load_checkpoint(self, path: Path | str) -> None:
        """Go on from a checkpoint of this run; what was written after it is removed."""
        self._require_policy("load_checkpoint")
        state = checkpoints.load_state(Path(path))
        self.policy.load_weights(Path(path))
        self.state.load_state_dict(state)
        if self.config.kl.target == 0:  # one that does not adapt is what is configured
            self.state.beta = self.config.beta
        length = int(state["events"])
        require_events(self.folder.events, length)
        # In this order: a later checkpoint would be refused beside records that lack its events.
        self.folder.remove_checkpoints_after(self.steps_done)
        remove_rollouts_after(self.folder.rollouts, self.steps_done)
        cut_events(self.folder.events, length)

    def _save_step(self) -> None:
        """The checkpoint of this step, and again once it is evaluated; those beyond the limit go.

        While faults follow one another, the ones before them stay.
        """
        folder = self.folder.step(self.steps_done)
        is_known = folder.exists() and (
            not self.state.evaluation or "evaluation" in checkpoints.read_card(folder)
        )
        if self.steps_done and not is_known:
            self._save(folder, to_go_on=True)
        if self.state.faults_in_a_row == 0:
            self.folder.rotate(self.config.save_total_limit, self.config.best_metric)

    def _save_final(self) -> None:
        self._save(self.folder.final, to_go_on=False)

    def _save(self, path: Path, *, to_go_on: bool) -> Path:
        began = time.monotonic()
        self.folder.require()
        # The records are on disk before a checkpoint is that knows of them.
        events = sync_events(self.folder.events)
        folder = checkpoints.save_checkpoint(
            path,
            self.policy,
            self.config,
            step=self.steps_done,
            state={**self.state.state_dict(), "events": events} if to_go_on else None,
            held_out=self.folder.held_out,
            evaluation=self.state.evaluation,
        )
        self.supervisor.slowest_save = max(self.supervisor.slowest_save, time.monotonic() - began)
        return folder
