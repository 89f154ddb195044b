"""What can be set: every option once, with its bounds, its default and why.

The command line's flags, the environment's names and docs/configuration.md are all made from these
classes; `settings.py` reads the sources. Torch-free: importing a configuration is instant.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    field_validator,
    model_validator,
)

from judicaita.errors import ConfigError
from judicaita.training.algorithms.advantages import (
    AdvantageBound,
    AdvantageEstimator,
    NoBound,
    ZScore,
)
from judicaita.training.algorithms.correction import ImportanceCorrection
from judicaita.training.algorithms.kl import KLPenalty
from judicaita.training.algorithms.losses import DAPOLoss, PolicyLoss
from judicaita.training.algorithms.schedules import Schedule
from judicaita.training.algorithms.spikes import SpikeGuard
from judicaita.training.choices import kinds_of, knobs_of, with_kind
from judicaita.training.combinations import refuse_for_source, refuse_without_meaning

CARD = "judicaita.json"
"""In every checkpoint: what made it, its configuration included."""

REASONING_PROMPT = (
    "You are a careful legal analyst. Reason in numbered steps, then commit to one answer, in "
    "exactly this form:\nStep 1: ...\nStep 2: ...\nConclusion: the answer alone, in the words that "
    "the question offers."
)

PROFILES: dict[str, dict[str, Any]] = {
    "tiny": {
        "dataset": "diversity",
        "use_lora": False,
        "lora_dropout": 0.0,
        "learning_rate": 1e-3,
        "adam_beta2": 0.99,
        "weight_decay": 0.0,
        "lr_scheduler": "linear",
        "lr_floor": 0.2,
        "warmup_steps": 10,
        "batch_size": 16,
        "gradient_accumulation_steps": 1,
        "num_rollouts": 8,
        "grpo_tau": 1.0,
        "model_max_length": 256,
        "generation_max_length": 128,
        "system_prompt": "",
        "verbosity_target": 70,
        "verbosity_tolerance": 0.6,
        "num_epochs": 1,
        "eval_steps": 50,
        "step_weight": 0.667,
        "sampler": "unrewarded",
        "rehearsal_weight": 0.3,
        "rehearsal_dataset": "hearsay,non_compete,ucc_firm_offer,negligence,"
        "personal_jurisdiction,adverse_possession,contract_notice",
    },
}
"""Settings that belong to a model; they lie between the configuration file and the defaults."""


def _comma_list(value: Any) -> Any:
    """Flags and environment variables carry lists as one comma-separated string, and a level that
    stands in a file without quotes is a number."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    items = value if isinstance(value, list) else [value]
    return [str(item) if isinstance(item, int) else item for item in items]


def _pairs(value: Any) -> Any:
    """A mapping as its pairs, which flags, files and records can all hold."""
    if isinstance(value, Mapping):
        return [f"{ours}={theirs}" for ours, theirs in value.items()]
    return _comma_list(value)


def _none_word(value: Any) -> Any:
    """Flags and environment variables have no other way to say None."""
    return None if value == "none" else value


_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(value: Any) -> Any:
    """``90m`` → 5400.0; a number is of seconds."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"([\d.e+-]+) ?([smhd]?)", value)
    try:
        return float(match[1]) * _SECONDS[match[2]] if match else float(value)
    except ValueError:
        raise ValueError("should be a number of seconds, or like 90m, 8h or 2d") from None


def _flags(*names: str) -> dict[str, Any]:
    """Further command-line names of a field, beside ``--field-name``."""
    return {"flags": list(names)}


StepMode = Literal["additive", "gated", "per_step"]
"""How true steps count in the composite reward."""

NameList = Annotated[list[str], BeforeValidator(_comma_list)]


class RunConfig(BaseModel):
    """What a supervised and a GRPO run have in common."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )
    env_prefix: ClassVar[str] = ""

    base_model: str = "google/gemma-2-2b-it"
    """A model folder, a Hub name, or ``tiny``: the embedded model that is built on the spot."""
    model_revision: str | None = None
    """Commit, tag or branch of a Hub model; None is its default branch."""
    adapter: Path | None = None
    """An existing LoRA adapter to go on training from; its rank, alpha, dropout and layers stay its
    own."""
    model_max_length: int = Field(2048, ge=8)
    """Longest prompt, in tokens; with its trace, in a supervised run. A longer one is never cut:
    see ``long_prompts``."""
    long_prompts: Literal["error", "drop"] = "error"
    """A prompt over ``model_max_length`` stops the run, or is left out and counted."""
    system_prompt: str = REASONING_PROMPT
    """Goes before every prompt, as the chat template's system turn (or at the top of the first user
    turn where the template knows none); "" for none."""
    chat_template: Literal["auto", "never"] = "auto"
    """``auto`` wraps prompts in the model's chat template where it has one; ``never`` keeps plain
    prompts as they are."""
    device: Literal["auto", "cpu", "cuda", "mps", "tpu"] = "auto"
    """``auto`` takes CUDA, then MPS, then the CPU. ``tpu`` needs torch_xla."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """``auto`` is bf16 where the device computes it natively, fp16 with loss scaling on older CUDA,
    fp32 on the CPU."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """How the library's own layers attend: in generation, and in training passes that repeat a
    prompt. ``auto`` is what transformers takes for the model. Passes that share a prompt have their
    own."""
    num_threads: int | None = Field(None, ge=1)
    """Threads of a computation on the CPU; None is as many as torch takes, and on resume as many as
    before, since another number rounds differently."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    use_lora: bool = True
    """Train a low-rank adapter (LoRA, arXiv 2106.09685) instead of all weights."""
    lora_r: int = Field(16, ge=1)
    """Rank of the adapter."""
    lora_alpha: int = Field(32, ge=1)
    """The adapter is scaled by lora_alpha / lora_r."""
    lora_dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout on the adapter's input. At 0, gradients do not depend on how a batch is split."""
    lora_target_modules: NameList = Field(["q_proj", "k_proj", "v_proj", "o_proj"], min_length=1)
    """Names of the linear layers that get an adapter."""

    dataset: str = "legalbench"
    """What is learned from: ``legalbench`` (from the Hub), the folder of a LegalBench checkout, a
    .jsonl, .parquet or .csv file, ``owner/name`` of a data set on the Hub (``:configuration`` where
    it has several), a generated family of tasks, several (``hearsay,negligence``), or ``generated``
    for all of them mixed evenly."""
    tasks: NameList = Field([])
    """Which tasks of LegalBench (patterns and categories allowed; by default of ``legalbench`` the
    training guide's, rule_qa, contract_qa and issue_spotting, and of a checkout all), which values
    of the column ``task`` of a file or a data set on the Hub, or which levels of generated
    families: ``3``, ``hearsay_3``, ``hearsay_*``, and ``easy`` or ``hard`` for what each family
    calls so."""
    legalbench_split: Literal["train", "test", "test_partition"] = "train"
    """Of LegalBench: its few train rows, or ``test_partition``, a part of the test rows drawn with
    ``seed``, with the rest held out; figures are then not comparable with published scores.
    ``test`` is to measure on, as ``eval_dataset=legalbench`` does."""
    legalbench_prompts: Literal["auto", "base", "own"] = "auto"
    """Of LegalBench: the task's ``base`` prompt with its demonstrations, which a checkout holds; an
    ``own`` question without any, which is shorter; ``auto`` is the base prompt where there is
    one."""
    samples_per_task: int | None = Field(None, ge=1)
    """At most so many samples of each LegalBench task, drawn with ``seed``."""
    licenses: NameList = Field([])
    """LegalBench tasks under these licences alone, such as ``CC-BY-4.0,MIT``; patterns allowed."""
    commercial_only: bool = False
    """LegalBench tasks alone whose licence allows commercial use."""
    columns: Annotated[list[str], BeforeValidator(_pairs)] = Field([])
    """What columns of a file or a data set on the Hub are called there:
    ``prompt=question,reference=answer``."""
    dataset_revision: str | None = None
    """Commit, tag or branch of what comes from the Hub; None is ``main``. The manifest records the
    commit."""
    max_samples: int | None = Field(None, ge=1)
    """At most so many samples, drawn with ``seed``; generated families yield 1,000 by default."""

    learning_rate: float = Field(1e-5, gt=0)
    """Peak rate. Full fine-tuning of a large model wants about a tenth of LoRA's."""
    num_epochs: int = Field(3, ge=1, json_schema_extra=_flags("--epochs"))
    """Passes over the training samples."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many optimizer steps, if ``num_epochs`` has not ended the run before."""
    batch_size: int = Field(4, ge=1)
    """Samples of a micro-step."""
    gradient_accumulation_steps: int = Field(4, ge=1)
    """Micro-steps of an optimizer step, which sees batch_size × gradient_accumulation_steps
    samples. Splitting differently changes memory and which completions are drawn, never the
    gradient of given ones."""
    warmup_steps: int = Field(0, ge=0)
    """Optimizer steps over which the learning rate rises to its peak."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this L2 norm; 0 leaves them as they are."""
    max_grad_value: float = Field(0.0, ge=0)
    """Before that, each number of a gradient is cut to ± this; 0 leaves them as they are."""
    spikes: SpikeGuard = Field(default_factory=SpikeGuard)
    """What is done about gradients out of all proportion to those before."""
    optimizer: Literal["adamw", "adamw_8bit", "muon"] = "adamw"
    """AdamW (arXiv 1711.05101); the same with moments of 8 bits (arXiv 2110.02861), on CUDA and
    with bitsandbytes; or Muon for the matrices of hidden layers, LoRA's included, and AdamW for the
    rest (arXiv 2502.16982), at AdamW's learning rate."""
    adam_beta2: float = Field(0.999, gt=0, lt=1)
    """Memory of AdamW's second moment; β1 is 0.9."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled decay of matrices; vectors (norms, biases) are left alone."""
    lr_scheduler: Schedule = "cosine"
    """How the learning rate falls after the warm-up: ``wsd`` at the end alone (arXiv 2404.06395),
    ``inverse_sqrt`` from the last step of the warm-up on, however long the run is."""
    lr_floor: float = Field(0.0, ge=0, le=1)
    """Share of the peak learning rate towards which it falls."""
    lr_decay_share: float = Field(0.1, gt=0, le=1)
    """Share of all steps, the last ones, over which ``wsd`` falls."""

    checkpoint_dir: Path = Field(
        Path("./checkpoints/grpo"), json_schema_extra=_flags("--output-dir")
    )
    """The run's folder: configuration, events, rollouts, checkpoints and ``final/``."""
    logging_steps: int = Field(10, ge=1)
    """Every so many steps one scored group (GRPO) or the loss (supervised) is printed."""
    report_to: NameList = Field([])
    """Trackers beside the files: ``tensorboard``, ``trackio``, ``wandb``."""
    max_faults: int = Field(5, ge=1)
    """Steps in a row that may meet a number that is not finite; then the run stops, a GRPO run once
    it is saved. Each such step leaves the weights alone and is recorded."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Of sampling, shuffling and dropout."""

    @model_validator(mode="wrap")
    @classmethod
    def _profile_and_errors(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Fill in the model's profile, and turn pydantic's report into one sentence."""
        if isinstance(data, Mapping):
            profile = profile_of(cls, data.get("base_model"))
            if data.get("adapter") is not None:
                profile.pop("use_lora", None)  # who names an adapter wants LoRA
            data = {**profile, **data}
            for name, field in cls.model_fields.items():
                if name in data and (kinds := kinds_of(field)):
                    data[name] = with_kind(data[name], kinds)
            _refuse_yes_for_numbers(cls, data)
        try:
            return handler(data)
        except ValidationError as error:
            raise ConfigError(_sentence(cls, error)) from None

    @field_validator("report_to")
    @classmethod
    def _known_trackers(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in ("tensorboard", "trackio", "wandb"):
                raise ValueError(f"unknown tracker {name!r}; use tensorboard, trackio or wandb")
        return names

    @model_validator(mode="after")
    def _adapter_is_used(self) -> Self:
        if self.adapter is not None and not self.use_lora:
            raise ConfigError(
                f"adapter={self.adapter} with use_lora=False: full fine-tuning trains no adapter. "
                "Set use_lora=True, or leave the adapter out."
            )
        return self

    @model_validator(mode="after")
    def _decay_is_used(self) -> Self:
        default = type(self).model_fields["lr_decay_share"].default
        if self.lr_scheduler != "wsd" and self.lr_decay_share != default:
            raise ConfigError(
                f"lr_decay_share={self.lr_decay_share:g} with lr_scheduler={self.lr_scheduler}: "
                "only wsd has a part of the run to fall in. Set lr_scheduler=wsd, or leave it out."
            )
        return self

    @model_validator(mode="after")
    def _source_has_them(self) -> Self:
        refuse_for_source(self)
        return self

    @property
    def samples_per_step(self) -> int:
        """Samples of one optimizer step."""
        return self.batch_size * self.gradient_accumulation_steps


class SFTConfig(RunConfig):
    """A supervised run: learn worked solutions (``trace``) word by word."""

    env_prefix: ClassVar[str] = "SFT_"

    dataset: str = "diversity"
    """What is learned from, named as for ``train-grpo``; rows need a ``trace``, which LegalBench's
    have not."""
    checkpoint_dir: Path = Field(
        Path("./checkpoints/sft"), json_schema_extra=_flags("--output-dir")
    )
    """The run's folder: configuration, events and ``final/``."""


class TrainingConfig(RunConfig):
    """A GRPO run. The names and defaults are those of the training guide."""

    env_prefix: ClassVar[str] = "GRPO_"

    grpo_tau: float = Field(0.1, gt=0)
    """Advantages are divided by it: 1 is DeepSeekMath's GRPO, smaller sharpens. Under AdamW it
    mostly moves the point where ``max_grad_norm`` bites; both gradient norms are recorded."""
    grpo_gamma: float = Field(0.99, gt=0, le=1)
    """Discount per reasoning step: a token k steps before the conclusion earns γ^k of the
    advantage. 1 is the paper's."""
    advantage: AdvantageEstimator = Field(default_factory=ZScore)
    """How the rewards of a group become advantages."""
    advantage_bound: AdvantageBound = Field(default_factory=NoBound)
    """How far they may go."""
    num_rollouts: int = 4
    """Completions of each prompt, the group that a reward is compared with (at least 2)."""
    dynamic_sampling: int = Field(0, ge=0)
    """So many times a step draws further questions in place of those whose group has no signal
    (DAPO, arXiv 2503.14476 §3.2); 0 for never. They come from shuffles of their own."""
    micro_batch_tokens: int | None = Field(None, ge=1)
    """At most so many tokens in one training pass, a prompt counted once for its completions; what
    is more is divided. None passes ``batch_size`` groups at a time, whatever their length. Neither
    changes the gradient."""
    num_iterations: int = Field(1, ge=1)
    """Passes over each step's completions; the loss's bounds matter from the second update on.
    Above 1, set ``lora_dropout`` to 0: else the ratio compares two dropout masks."""
    mini_batches: int = Field(1, ge=1)
    """Updates of each pass, on as many parts of the step's groups, in seeded order. Above 1 the
    ratio compares with the policy that sampled, which takes one more forward pass; set
    ``lora_dropout`` to 0, as for ``num_iterations``."""
    beta: float = Field(0.0, ge=0)
    """Weight of the KL penalty to the reference: the model with its adapter switched off or,
    in full fine-tuning, a copy of the weights it started from. 0 saves the reference pass."""
    reference_sync_steps: int | None = Field(None, ge=1)
    """Every so many steps the reference follows the policy; it is then a copy of what learns. None
    leaves it as it is. Needs ``beta``."""
    reference_mixup: float = Field(1.0, gt=0, le=1)
    """How far it follows: reference ← mixup · policy + (1 − mixup) · reference. 1 synchronises the
    two; less, with ``reference_sync_steps`` 1, is an exponential moving average."""
    kl: KLPenalty = Field(default_factory=KLPenalty)
    """What is penalised, and where. Needs ``beta``."""
    loss: PolicyLoss = Field(default_factory=DAPOLoss)
    """The policy loss and its own knobs."""
    entropy_bonus: float = Field(0.0, ge=0)
    """Weight of the mean entropy (nats per token), which is taken from the loss: it keeps a policy
    from settling early."""
    top_entropy: float = Field(1.0, gt=0, le=1)
    """Only this share of the step's tokens enters the policy loss, those where the policy was least
    certain (arXiv 2506.01939: .2); it takes one more forward pass. 1 for all."""
    mask_truncated: bool = False
    """Completions that the token limit cut stay out of the loss (DAPO §3.4's overlong filtering);
    their rewards and tokens count for the others."""
    overlong_buffer: int | None = Field(None, ge=1)
    """So many tokens before ``generation_max_length`` a completion begins to lose reward, linearly
    up to ``overlong_penalty`` (soft overlong punishment, DAPO §3.4); None for never."""
    overlong_penalty: float = Field(1.0, gt=0)
    """What a completion of the longest length loses. Needs ``overlong_buffer``."""
    correction: ImportanceCorrection = Field(default_factory=ImportanceCorrection)
    """What tokens count for that were drawn from another distribution than the policy's."""

    sampler: Literal["shuffle", "balance", "difficulty", "unrewarded", "curriculum"] = "shuffle"
    """Which samples come next. All but ``shuffle`` weigh strata, the values of ``task``:
    ``balance`` families equally often; ``difficulty`` by p(1 − p) + 0.03, p the success so far;
    ``unrewarded`` by 1.1 − the reward so far; ``curriculum`` the easiest level of each family
    first, the next one once it is mastered. A stratum that is used up starts over; the number of
    steps stays that of ``num_epochs``."""
    sampler_ema: float = Field(0.9, ge=0, lt=1)
    """Memory of a stratum's success and reward: about the last 1 / (1 − sampler_ema) of its groups.
    Both start at 0.5."""
    sampler_mastery: float = Field(0.8, gt=0.5, lt=1)
    """Success on a level at which ``curriculum`` unlocks the next one."""

    rehearsal_weight: float = Field(0.0, ge=0)
    """Weight of a supervised loss (nats per token of worked solutions) that is added to every
    optimizer step, so that what the warm start taught is not forgotten; 0 for none. A step in which
    no group has a signal rehearses all the same."""
    rehearsal_samples: int = Field(16, ge=1)
    """Worked solutions, or texts, that each optimizer step rehearses."""
    rehearsal_on: Literal["solution", "text"] = "solution"
    """``solution``: the trace is learned, behind its question. ``text``: prompt and trace, if there
    is one, are read as plain text and learned from end to end, as a language model is trained."""
    rehearsal_dataset: str | None = None
    """Where they come from, named as ``dataset`` is. Generated families give fresh ones without
    end, other sources those of their rows, which need a ``trace``, in seeded shuffles."""
    rehearsal_tasks: NameList = Field([])
    """Which tasks or levels are rehearsed; of generated families the easy levels by default."""

    generation_max_length: int = Field(512, ge=1)
    """Longest completion, in tokens; one that is cut there is marked as truncated."""
    temperature: float = Field(1.0, gt=0)
    """Of sampling and of the log-probabilities in the loss alike. At 1 both are the model's own."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling. Below 1 the tokens come from a cut distribution while the loss uses the
    whole one, which biases the gradient, and the importance ratios of later updates: keep it at 1
    for training."""
    top_k: int = Field(0, ge=0)
    """Tokens are drawn from this many of the likeliest; 0 for all. It biases the gradient as
    ``top_p`` does."""
    min_p: float = Field(0.0, ge=0, lt=1)
    """Tokens less likely than this share of the likeliest are never drawn. It biases, too."""
    stop_strings: NameList = Field([])
    """Texts that end a completion, in training and evaluation alike; it keeps them. In a file where
    one holds a comma or begins with a blank."""

    rollout_engine: Literal["native", "vllm"] = "native"
    """What generates: the policy itself, or a vLLM server that takes over the adapter after every
    update."""
    rollout_url: str = "http://127.0.0.1:8000/v1"
    """Of the vLLM server. A key is taken from ``VLLM_API_KEY``; adapters go through the run's
    folder, which the server has to see."""
    rollout_timeout: Annotated[float, BeforeValidator(_duration)] = Field(600.0, gt=0)
    """Seconds that the vLLM server has for one request."""

    reward: str | None = None
    """``module:function`` or ``file.py:function`` of a reward of yours; None is the composite."""
    format_weight: float = Field(0.3, ge=0)
    """Weight of the format in the composite reward; the weights are normalised to sum to 1."""
    outcome_weight: float = Field(0.5, ge=0)
    """Weight of the right answer."""
    verbosity_weight: float = Field(0.2, ge=0)
    """Weight of the length."""
    step_weight: float = Field(0.0, ge=0)
    """Weight of true steps, on samples of generated families, whose steps can be checked; at 0
    they are not looked at."""
    step_mode: StepMode = "additive"
    """``additive``: true steps are one part of the reward; ``gated``: and without true steps a
    right answer earns nothing; ``per_step``: each step's tokens learn from that step's own truth,
    and the composite is made of the other parts."""
    audit_steps: int = Field(100, ge=0)
    """Every so many steps, look for marks of an exploited reward (wrong answers that earn as much
    as right ones, copied prompts, padding …) in the completions that were rewarded most; 0 for
    never."""
    probe_coverage: bool = True
    """Before the first step of a run that rewards true steps: sample some answers to training
    questions of generated families, and tell which points of a rule no step of theirs ever decided.
    No reward can teach what is never sampled."""
    outcome_match: Literal["auto", "exact", "overlap"] = "auto"
    """How a conclusion is compared with the reference: as a label, by its tokens (F1), or by
    whichever suits the reference's length."""
    outcome_threshold: float = Field(0.5, gt=0, le=1)
    """Token F1 below which a free-text conclusion earns nothing."""
    min_steps: int = Field(2, ge=1)
    """Reasoning steps that a well-formed answer has at least; fewer where a generated question has
    fewer points to decide."""
    verbosity_target: int = Field(256, ge=1)
    """Length, in tokens, that the verbosity reward prefers."""
    verbosity_tolerance: float = Field(0.5, ge=0)
    """Share of the target by which a length may differ at full reward."""

    eval_dataset: str | None = None
    """Held-out samples, named as ``dataset`` is (``tasks`` picks from a folder or family, not a
    file); None holds out part of ``dataset``, or draws fact patterns that a generated family never
    trains on."""
    allow_contamination: bool = False
    """Train although held-out samples stand in the training data; what was found is recorded."""
    eval_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of the samples held out for evaluation where no evaluation set is given; training
    samples that are like one of them are then left out."""
    eval_samples: Annotated[int | None, BeforeValidator(_none_word)] = Field(200, ge=1)
    """At most so many held-out samples are evaluated during training; ``none`` is all of them."""
    save_steps: int = Field(500, ge=1)
    """A checkpoint every so many steps."""
    eval_steps: int = Field(100, ge=1)
    """An evaluation every so many steps, and one before the first and after the last."""
    resume: str = "never"
    """``never``; ``auto`` goes on from the newest whole checkpoint of ``checkpoint_dir``, and
    begins where there is none; or a checkpoint's folder."""
    save_total_limit: Annotated[int | None, BeforeValidator(_none_word)] = Field(3, ge=1)
    """So many of the last checkpoints are kept, and the best one besides; ``none`` keeps all."""
    best_metric: Literal["reward", "accuracy", "sound", "true", "format_compliance"] = "reward"
    """Which checkpoint is the best: the held-out figure that is highest, of those evaluated at the
    very step."""
    time_limit: Annotated[float | None, BeforeValidator(_duration)] = Field(None, gt=0)
    """The run saves and stops before so many seconds have passed (``90m``, ``8h``, ``2d``), to go
    on by ``resume=auto``; None for no limit."""
    stall_seconds: Annotated[float, BeforeValidator(_duration)] = Field(900.0, ge=0)
    """Without a token, score or micro-batch for so long, the stacks of all threads are written to
    ``stalls.txt``; 0 turns the watch off."""

    @field_validator("num_rollouts")
    @classmethod
    def _a_group(cls, value: int) -> int:
        if value < 2:
            raise ValueError(
                "group-relative advantage needs at least 2 completions, since one equals its own "
                "mean. Set num_rollouts >= 2 (default 4)"
            )
        return value

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        if self.rollout_engine == "vllm" and not self.use_lora:
            raise ConfigError(
                "rollout_engine=vllm with use_lora=False: a server takes over adapters alone. Set "
                "use_lora=True, or rollout_engine=native."
            )
        if self.rollout_engine == "vllm" and (self.top_p < 1 or self.top_k or self.min_p):
            raise ConfigError(
                "rollout_engine=vllm with top_p, top_k or min_p: a server tells one of the two "
                "log-probabilities that a cut distribution needs. Leave them out."
            )
        if self.beta == 0 and self.reference_sync_steps is not None:
            raise ConfigError(
                f"reference_sync_steps={self.reference_sync_steps} with beta=0: nothing is "
                "compared with a reference. Set beta above 0, or leave it out."
            )
        if self.reference_mixup != 1 and self.reference_sync_steps is None:
            raise ConfigError(
                f"reference_mixup={self.reference_mixup:g} without reference_sync_steps: the "
                "reference stays as it is. Set reference_sync_steps, 1 for a moving average."
            )
        refuse_without_meaning(self)
        check_step_mode(self.step_mode, self.step_weight)
        weights = ["format_weight", "outcome_weight", "verbosity_weight"]
        if self.step_mode != "per_step":  # which leaves true steps out of the composite
            weights.append("step_weight")
        if not any(getattr(self, name) for name in weights):
            raise ConfigError(
                f"{', '.join(weights[:-1])} and {weights[-1]} are all 0, so nothing would be "
                "rewarded. Set at least one above 0 (defaults 0.3, 0.5, 0.2)."
            )
        return self

    @property
    def updates_per_step(self) -> int:
        """Optimizer updates that a step makes."""
        return self.num_iterations * self.mini_batches

    @property
    def penalises(self) -> bool:
        """Whether the KL penalty is a term of the loss."""
        return self.beta > 0 and self.kl.place == "loss"


def check_step_mode(step_mode: StepMode, step_weight: float) -> StepMode:
    """The mode, or a `ConfigError` for an unknown one or one that would change nothing."""
    if step_mode not in get_args(StepMode):
        raise ConfigError(
            f"step_mode={step_mode!r}: there is no such mode; use additive, gated or per_step."
        )
    if step_mode != "additive" and step_weight == 0:
        raise ConfigError(
            f"step_mode={step_mode} with step_weight=0: steps are not looked at, so the mode would "
            "change nothing. Set step_weight above 0, or leave the mode out."
        )
    return step_mode


def profile_of(config_class: type[RunConfig], base_model: Any) -> dict[str, Any]:
    """The settings that come with a model, as far as ``config_class`` has them.

    A checkpoint folder has those of the model that it was trained from.
    """
    if not isinstance(base_model, str) or not base_model:
        return {}
    name, followed = base_model, set[str]()
    while name not in followed and (card := Path(name) / CARD).is_file():
        followed.add(name)
        try:
            name = json.loads(card.read_text(encoding="utf-8"))["config"]["base_model"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{card} is damaged ({error!r}). Restore or remove it.") from error
    profile = PROFILES.get(name, {})
    return {name: value for name, value in profile.items() if name in config_class.model_fields}


def nearest(name: str, known: list[str]) -> str:
    """`` Did you mean 'x'?`` where something close exists, else an empty string."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _paths(model: type[BaseModel], parent: str = "") -> Iterator[str]:
    """Dotted names of all settings: ``batch_size``, ``loss.clip_low``."""
    for name, field in model.model_fields.items():
        if kinds := kinds_of(field):
            yield from (f"{parent}{name}.{knob}" for knob, _, _ in knobs_of(kinds))
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _paths(field.annotation, f"{parent}{name}.")
        else:
            yield f"{parent}{name}"


def _refuse_yes_for_numbers(config_class: type[RunConfig], data: Mapping[str, Any]) -> None:
    """YAML reads ``yes`` as true, and Python takes true for 1."""
    for name, value in data.items():
        field = config_class.model_fields.get(name)
        if isinstance(value, bool) and field is not None and field.annotation is not bool:
            raise ConfigError(
                f"{name}={value!r}: this setting is no switch, so yes and no mean nothing to it. "
                "Give the value itself."
            )


def _sentence(config_class: type[RunConfig], report: ValidationError) -> str:
    """What, why and the fix of the first error; how many more there are."""
    first, *others = report.errors()
    location = [str(part) for part in first["loc"]]
    field = config_class.model_fields.get(location[0]) if location else None
    kinds = kinds_of(field) if field else {}
    kind = kinds.get(location.pop(1)) if kinds and len(location) > 1 else None
    path = ".".join(location)
    reason = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if first["type"] == "union_tag_invalid":
        name = str(first["ctx"]["tag"])
        sentence = (
            f"{path}.type={name!r}: there is no such kind.{nearest(name, list(kinds))} Use one of "
            f"{', '.join(kinds)}."
        )
    elif first["type"] == "extra_forbidden":
        knob, having = location[-1], [n for n, c in kinds.items() if location[-1] in c.model_fields]
        if kind is not None and having:
            sentence = (
                f"{path}: {location[0]}.type={kind.model_fields['type'].default} has no such knob, "
                f"which is one of {', '.join(having)}. Leave {knob} out, or set another "
                f"{location[0]}.type."
            )
        else:
            known = list(_paths(config_class))
            sentence = f"{path}: no such setting.{nearest(path, known)} See docs/configuration.md."
    elif first["type"] in ("model_type", "model_attributes_type"):
        ways = f"one of {', '.join(kinds)}, or " if kinds else ""
        names = [name for name in _paths(config_class) if name.startswith(f"{path}.")]
        sentence = f"{path}={first['input']!r}: should be {ways}settings such as {names[0]}."
    elif isinstance(first["input"], Mapping) and first["type"] == "value_error":
        sentence = f"{path}: {reason}."
    else:
        fields = kind.model_fields if kind else config_class.model_fields
        own = fields.get(location[-1]) if kind or len(location) == 1 else None
        default = own.default if own and not own.default_factory else None
        if isinstance(default, Path):
            default = str(default)
        fix = "" if default is None or "default" in reason else f" (default {default!r})"
        reason = reason.replace("<class 'pathlib.Path'>", "a path")
        sentence = f"{path}={first['input']!r}: {reason}{fix}."
    return sentence + (f" And {len(others)} more." if others else "")
