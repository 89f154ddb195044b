"""``tiny``: a Gemma-2 model of 150,000 parameters, built on the spot.

Architecture and tokenizer are made here; then a supervised stage teaches it to write worked
solutions of the easy levels of a generated family. The hard levels, never traced for it, are GRPO's
to teach, within minutes on two CPU cores. What comes out is an ordinary model folder in the user's
cache, which any tool of the ecosystem loads.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

import judicaita
from judicaita.legal.tasks import generate, stream
from judicaita.training.checkpoints import save_checkpoint
from judicaita.training.config import SFTConfig
from judicaita.training.console import progress
from judicaita.training.devices import place
from judicaita.training.optimization import Updater
from judicaita.training.policy import Policy
from judicaita.training.supervised import supervised_row, supervised_step

TINY = "tiny"
"""The name of the embedded model wherever a base model is asked for."""

_PAD, _EOS, _BOS = "<pad>", "<eos>", "<bos>"


@dataclass(frozen=True)
class Recipe:
    """What decides the weights; a change of it is another model, in another cache folder."""

    family: str = "diversity"
    easy_levels: tuple[int, ...] = (1, 2, 3, 4)
    """Levels whose worked solutions are learnt; the others' are never shown."""
    vocabulary: int = 1024
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
    # The version stands for the code of the supervised stage, which decides the weights as well.
    content = json.dumps([judicaita.__version__, asdict(recipe), texts])
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
    samples = stream(
        recipe.family, split="train", seed=recipe.seed + 1, levels=list(recipe.easy_levels)
    )
    with progress("teaching the tiny model to reason in steps", recipe.steps) as bar:
        for _ in range(recipe.steps):
            rows = [
                supervised_row(policy, sample)
                for sample in itertools.islice(samples, recipe.batch_size)
            ]
            done = supervised_step(policy, updater, rows, recipe.batch_size)
            bar.advance(metrics={"loss": done.loss})
    policy.model.eval()
    return policy


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
    """What the tokenizer is made from: questions of all levels, solutions of the easy ones."""
    hard = generate(recipe.family, 1200, split="train", seed=recipe.seed)
    easy = generate(
        recipe.family, 600, split="train", seed=recipe.seed, levels=list(recipe.easy_levels)
    )
    return [str(sample.prompt) for sample in hard] + [sample.trace for sample in easy]


def _tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE; digits stand alone, so that columns of an amount can be added up."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(r",000| ?\d| ?[A-Za-z]+| ?[^\sA-Za-z\d,]+|,|\s"), behavior="isolated"
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
        initializer_range=recipe.initializer_range,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
