"""The embedded model: an ordinary folder, built once, that knows its own data's words."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma2ForCausalLM

from judicaita.legal.tasks import FAMILIES, generate, split_of
from judicaita.training import embedded
from judicaita.training.config import PROFILES, TrainingConfig
from judicaita.training.embedded import (
    HARD_LEVELS,
    TAUGHT,
    Recipe,
    continue_lessons,
    lessons,
    resolve_base_model,
    tiny_folder,
)
from judicaita.training.loading import load_policy

# peft's own use of transformers.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

SMALL = Recipe(steps=1, batch_size=4, hidden=16)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, not there yet."""
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache" / "judicaita"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """Which models were built, in order."""
    recipes: list[Recipe] = []
    build = embedded.build

    def counted(recipe: Recipe, *rest: Any) -> Any:
        recipes.append(recipe)
        return build(recipe, *rest)

    monkeypatch.setattr(embedded, "build", counted)
    return recipes


def test_it_is_built_once(cache: Path, built: list[Recipe]) -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    folder = tiny_folder(SMALL)
    assert torch.equal(torch.get_rng_state(), state), "a run's random numbers are its own"
    assert tiny_folder(SMALL) == folder
    assert built == [SMALL]
    other = tiny_folder(replace(SMALL, seed=1))
    assert other != folder
    assert len(built) == 2
    assert sorted(path.name for path in cache.iterdir()) == sorted([folder.name, other.name])
    assert folder.is_absolute()


def test_the_same_recipe_gives_the_same_weights(tmp_path: Path, cache: Path) -> None:
    folder = tiny_folder(SMALL)
    folder.rename(tmp_path / "first")
    again = tiny_folder(SMALL)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (again / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


def test_whoever_comes_second_takes_the_first_ones_model(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes may build at the same time."""
    build = embedded.build

    def overtaken(recipe: Recipe, *rest: Any) -> Any:
        monkeypatch.setattr(embedded, "build", build)
        tiny_folder(recipe)
        return build(recipe, *rest)

    monkeypatch.setattr(embedded, "build", overtaken)
    folder = tiny_folder(SMALL)
    assert (folder / "config.json").is_file()
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_an_interrupted_build_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embedded, "supervised_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tiny_folder(SMALL)
    assert list(cache.iterdir()) == []
    assert (tiny_folder(SMALL) / "config.json").is_file()


def test_it_is_an_ordinary_model(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert isinstance(model, Gemma2ForCausalLM)
    assert sum(p.numel() for p in model.parameters()) < 200_000
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.eos_token_id == model.config.eos_token_id
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.chat_template is None


def test_its_tokenizer_knows_every_text(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    samples = [
        sample
        for family in TAUGHT
        for sample in generate(family, 30, split="eval", seed=9, levels=[1, 2, 3, *HARD_LEVELS])
    ]
    profile = PROFILES["tiny"]
    for sample in samples:
        prompt = tokenizer(sample.prompt)["input_ids"]
        trace = tokenizer(sample.trace, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(prompt, skip_special_tokens=True) == sample.prompt
        assert tokenizer.decode(trace) == sample.trace
        # So that the settings that come with it leave room.
        assert len(prompt) <= profile["model_max_length"]
        assert len(trace) < profile["generation_max_length"]
    assert tokenizer.decode(tokenizer("§ 1332: 80 €, Müller")["input_ids"][1:]) == (
        "§ 1332: 80 €, Müller"
    )


def test_digits_stand_alone(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    pieces = [tokenizer.decode([token]) for token in tokenizer("owes $81,250")["input_ids"][1:]]
    assert "".join(pieces) == "owes $81,250"
    assert [piece.strip() for piece in pieces if any(c.isdigit() for c in piece)] == list("81250")


def test_a_step_and_its_number_are_two_tokens(tiny_model: Path) -> None:
    """Whether to go on is the same choice after any step."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    text = "Step 1: a guest, so no opponent.\nStep 2: a house, so no goods.\nConclusion: No"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = [tokenizer.decode([token]) for token in ids]
    assert pieces[:2] == ["Step", " 1:"]
    middle = pieces.index(".\nStep")
    assert pieces[middle + 1] == " 2:"
    assert ".\nConclusion:" in pieces


def test_lessons_are_easy_and_weighed() -> None:
    """Seven families weigh .9 and .3, the drills 2 and 1, of 11.4 in all."""
    drawn = list(itertools.islice(lessons(Recipe(), seed=3), 4000))
    counts = Counter(sample.facts["family"] for sample in drawn)
    assert set(counts) == {*TAUGHT, "issue_spotting", "diversity"}
    tasks = Counter(sample.task for sample in drawn)
    for found, weight in (
        (counts["issue_spotting"], 2.0),
        (counts["hearsay"], 1.2),
        (tasks["hearsay_2"], 0.3),
    ):
        share = weight / 11.4
        assert abs(found - 4000 * share) < 4 * (4000 * share * (1 - share)) ** 0.5
    hard = {f"{family}_{level}" for family in TAUGHT for level in HARD_LEVELS}
    assert not hard & {sample.task for sample in drawn}
    assert all(split_of(FAMILIES[s.facts["family"]].pattern(s.facts)) == "train" for s in drawn)


def test_no_hard_solution_makes_the_tokenizer() -> None:
    solutions = [text for text in embedded._texts(Recipe()) if text.startswith("Step 1:")]
    assert len(solutions) == 300 * (2 * 7 + 2)  # of each lesson
    longest = max(text.count("Step") for text in solutions if "plaintiff" not in text.lower())
    assert longest == 4  # with an element conceded, or four events: never four in dispute
    hard = generate("hearsay", 300, split="train", seed=0, levels=HARD_LEVELS)
    assert not {sample.trace for sample in hard} & set(solutions)


def test_the_control_goes_on_for_its_time(cache: Path, tmp_path: Path) -> None:
    base = tiny_folder(SMALL)
    shares = iter([0.0, 0.5, 1.0])
    assert continue_lessons(base, tmp_path / "short", lambda: 1.0, SMALL) == 0
    assert continue_lessons(base, tmp_path / "long", lambda: next(shares), SMALL) == 20
    weights = [
        AutoModelForCausalLM.from_pretrained(folder).state_dict()
        for folder in (base, tmp_path / "short", tmp_path / "long")
    ]
    name = "model.embed_tokens.weight"
    assert torch.equal(weights[0][name], weights[1][name])
    assert not torch.equal(weights[1][name], weights[2][name])


def test_tiny_is_a_name(quick_tiny: Path) -> None:
    assert resolve_base_model("tiny") == str(quick_tiny)
    assert resolve_base_model("./tiny") == "./tiny"
    assert resolve_base_model("google/gemma-2-2b-it") == "google/gemma-2-2b-it"


def test_an_adapter_on_it_names_a_folder_that_loads(quick_tiny: Path, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    config = TrainingConfig(base_model="tiny", use_lora=True, lora_r=2, device="cpu")
    policy = load_policy(config, resolve_base_model("tiny"))
    for name, parameter in policy.trainable():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.05)
    policy.save(tmp_path / "adapter")
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert Path(loaded.peft_config["default"].base_model_name_or_path) == quick_tiny
    ids = torch.tensor([[2, 30, 40, 50]])
    with torch.no_grad():
        assert torch.equal(loaded.eval()(ids).logits, policy.model.eval()(ids).logits)
