"""``tiny``: a Gemma-2 model of 150,000 parameters, built on the spot.

Architecture and tokenizer are made here; then a supervised stage teaches it to write worked
solutions of the easy levels of generated families, on fresh instances without end. The hard levels,
never traced for it, are GRPO's to teach, within minutes on two CPU cores. What comes out is an
ordinary model folder in the user's cache, which any tool of the ecosystem loads.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

import judicaita
from judicaita.legal.tasks import generate, stream
from judicaita.training.checkpoints import save_checkpoint
from judicaita.training.config import PROFILES, SFTConfig
from judicaita.training.console import progress
from judicaita.training.devices import place
from judicaita.training.loading import load_policy
from judicaita.training.optimization import Updater
from judicaita.training.policy import Policy
from judicaita.training.supervised import supervised_row, supervised_step
from judicaita.types import Sample

TINY = "tiny"
"""The name of the embedded model wherever a base model is asked for."""

_PAD, _EOS, _BOS = "<pad>", "<eos>", "<bos>"


_STEPS_AT_ONCE = 10
"""Steps of continued lessons between two looks at the clock."""

TAUGHT = (
    "hearsay",
    "non_compete",
    "ucc_firm_offer",
    "negligence",
    "personal_jurisdiction",
    "adverse_possession",
    "contract_notice",
)
"""Families whose hard levels are GRPO's to teach. All of a warm start's time goes to their easy
levels and to two drills, whose answers are long: without them a fourth step is hardly ever sampled,
and what is not sampled is not rewarded."""

EASY_LEVELS = (1, 2)
"""Their levels of which worked solutions are shown: one or two elements are in dispute, and some of
the others conceded, each in a step of its own, so that answers of four steps occur."""

HARD_LEVELS = (4, 5)
"""Their levels with every element in dispute. No trace of these is shown, and the tokenizer knows
the questions' words. The top level is for larger models."""


@dataclass(frozen=True)
class Lesson:
    """Levels of a family whose worked solutions are learnt."""

    family: str
    levels: tuple[int, ...]
    weight: float = 1.0
    """How often it comes beside the others."""


@dataclass(frozen=True)
class Recipe:
    """What decides the weights; a change of it is another model, in another cache folder."""

    lessons: tuple[Lesson, ...] = (
        *(Lesson(family, (1,), 0.9) for family in TAUGHT),
        *(Lesson(family, (2,), 0.3) for family in TAUGHT),
        Lesson("issue_spotting", (1, 2, 3), 2.0),
        Lesson("diversity", (1, 4)),
    )
    """What is learnt; no other trace is ever shown."""
    vocabulary: int = 1280
    hidden: int = 64
    layers: int = 2
    initializer_range: float = 0.1
    """At this width 0.02, the usual value, learns far slower."""
    steps: int = 700
    batch_size: int = 32
    learning_rate: float = 5e-3
    seed: int = 0


RECIPE = Recipe()


def resolve_base_model(name: str) -> str:
    """The name as it is, or for `TINY` the folder of the embedded model, built if need be."""
    return str(tiny_folder()) if name == TINY else name


def tiny_folder(recipe: Recipe = RECIPE) -> Path:
    """The embedded model's folder in the user's cache; built within two minutes when missing."""
    from platformdirs import user_cache_path

    texts = _texts(recipe)
    # The version stands for the code of the supervised stage, which decides the weights as well;
    # this file for itself.
    code = Path(__file__).read_text(encoding="utf-8")
    content = json.dumps([judicaita.__version__, code, asdict(recipe), texts])
    key = hashlib.sha256(content.encode()).hexdigest()[:12]
    folder = user_cache_path("judicaita") / f"tiny-{key}"
    if (folder / "config.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
        config = _settings(recipe)
        built = save_checkpoint(
            Path(aside) / "model", build(recipe, texts, config), config, step=recipe.steps
        )
        try:
            built.replace(folder)
        except OSError:
            # Another process finished the same model first; the two are the same.
            if not (folder / "config.json").is_file():
                raise
    return folder


def build(recipe: Recipe, texts: list[str], config: SFTConfig) -> Policy:
    """Tokenizer, random weights, and the supervised stage on a stream of fresh easy samples."""
    tokenizer = _tokenizer(texts, recipe.vocabulary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = Gemma2ForCausalLM(_architecture(recipe, len(tokenizer)))
    policy = Policy(model, tokenizer, place("cpu", "fp32"))
    updater = Updater(policy, config, recipe.steps)
    samples = lessons(recipe, seed=recipe.seed + 1)
    with progress("teaching the tiny model to reason in steps", recipe.steps) as bar:
        for _ in range(recipe.steps):
            bar.advance(metrics={"loss": _teach(policy, updater, samples, recipe.batch_size)})
    policy.model.eval()
    return policy


def lessons(recipe: Recipe, seed: int) -> Iterator[Sample]:
    """Fresh training instances of a recipe's lessons, without end, mixed by their weights."""
    streams = [
        (stream(lesson.family, split="train", seed=seed, levels=[level]), lesson)
        for lesson in recipe.lessons
        for level in lesson.levels
    ]
    weights = [lesson.weight / len(lesson.levels) for _, lesson in streams]
    rng = random.Random(f"{seed}/lessons")
    while True:
        yield next(rng.choices(streams, weights)[0][0])


def continue_lessons(
    folder: Path, output: Path, passed: Callable[[], float], recipe: Recipe = RECIPE
) -> int:
    """Go on with the warm start's own lessons until the time is over, and save what comes of it.

    The control of a GRPO run from the same model: peak rate, warm-up and decay are the run's own
    (the `tiny` profile). ``passed`` says which share of the time is over, in [0, 1]; the learning
    rate falls with it. Returns the optimizer steps taken.
    """
    profile = PROFILES[TINY]
    names = ("learning_rate", "lr_scheduler", "lr_floor", "warmup_steps", "adam_beta2")
    config = _settings(recipe).model_copy(update={name: profile[name] for name in names})
    policy = load_policy(config, str(folder))
    updater = Updater(policy, config, total_steps=config.warmup_steps)
    samples = lessons(recipe, seed=recipe.seed + 2)
    while (share := passed()) < 1:
        if updater.step_count >= config.warmup_steps and share > 0:
            updater.total_steps = math.ceil(updater.step_count / share)
        for _ in range(_STEPS_AT_ONCE):
            _teach(policy, updater, samples, recipe.batch_size)
    save_checkpoint(output, policy, config, step=updater.step_count)
    return updater.step_count


def _teach(policy: Policy, updater: Updater, samples: Iterator[Sample], count: int) -> float:
    """One optimizer step on the next samples; returns its loss in nats per token."""
    rows = [supervised_row(policy, sample) for sample in itertools.islice(samples, count)]
    return supervised_step(policy, updater, rows, count).loss


def _settings(recipe: Recipe) -> SFTConfig:
    return SFTConfig(
        base_model=TINY,
        learning_rate=recipe.learning_rate,
        warmup_steps=20,
        lr_scheduler="cosine",
        lr_floor=0.05,
        batch_size=recipe.batch_size,
        max_steps=recipe.steps,
        seed=recipe.seed,
    )


def _texts(recipe: Recipe) -> list[str]:
    """What the tokenizer is made from: questions of hard levels; questions and solutions of easy
    ones."""
    texts: list[str] = []
    for lesson in recipe.lessons:
        samples = generate(
            lesson.family, 300, split="train", seed=recipe.seed, levels=lesson.levels
        )
        texts += [text for sample in samples for text in (str(sample.prompt), sample.trace)]
    for family in TAUGHT:
        hard = generate(family, 300, split="train", seed=recipe.seed, levels=HARD_LEVELS)
        texts += [str(sample.prompt) for sample in hard]
    return texts


def _tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE over words. Digits stand alone, so that columns of an amount can be added up,
    but for numbers of two: of days and years, which are looked up rather than computed with.

    "Step" and its number are two tokens: whether to go on is one choice, wherever one stands.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(
                    r"\.?\n?Step| \d:|\.?\nConclusion:|, so|,000| \d\d(?!\d)| ?\d"
                    r"| ?[A-Za-z]+(?:'s)?| ?[^\sA-Za-z\d,.]+|[,.]|\s"
                ),
                behavior="isolated",
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[_PAD, _EOS, _BOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BOS} $A", special_tokens=[(_BOS, tokenizer.token_to_id(_BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_EOS, bos_token=_BOS
    )


def _architecture(recipe: Recipe, vocabulary: int) -> Gemma2Config:
    head = recipe.hidden // 4
    return Gemma2Config(
        vocab_size=vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=3 * recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head,
        query_pre_attn_scalar=head,
        max_position_embeddings=512,
        sliding_window=512,
        # Soft-caps keep large models stable; here they are a tenth of the time.
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
        initializer_range=recipe.initializer_range,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
