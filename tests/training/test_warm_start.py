"""The supervised stage as a run: what it learns, writes and refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from judicaita.errors import ConfigError, DataError, NumericalError
from judicaita.training import warm_start
from judicaita.training.checkpoints import read_card
from judicaita.training.config import SFTConfig
from judicaita.training.metrics import read_events
from judicaita.training.policy import Policy
from judicaita.training.warm_start import supervised_fine_tuning

# peft's own use of transformers.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

MakePolicy = Callable[..., Policy]
ROWS = [
    {
        "prompt": f"May a citizen of {one} sue one of {other}?",
        "reference": answer,
        "trace": f"Step 1: {one}, {other}.\nStep 2: {why}.\nConclusion: {answer}",
    }
    for one, other, why, answer in [
        ("Ohio", "Texas", "They differ", "Yes"),
        ("Ohio", "Ohio", "They are the same", "No"),
        ("Utah", "Maine", "They differ", "Yes"),
        ("Iowa", "Iowa", "They are the same", "No"),
    ]
]


@pytest.fixture(scope="module")
def base(make_policy: MakePolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_policy().save(folder)
    return folder


@pytest.fixture
def configure(base: Path, tmp_path: Path) -> Callable[..., SFTConfig]:
    def make(folder: str = "run", **settings: Any) -> SFTConfig:
        return SFTConfig(
            **{
                "base_model": str(base),
                "checkpoint_dir": tmp_path / folder,
                "device": "cpu",
                "use_lora": False,
                "system_prompt": "",
                "batch_size": 4,
                "gradient_accumulation_steps": 1,
                "num_epochs": 3,
                "learning_rate": 1e-2,
                "lr_scheduler": "constant",
                **settings,
            }
        )

    return make


Configure = Callable[..., SFTConfig]


def learn(config: SFTConfig, rows: Any = None) -> dict[str, float]:
    return supervised_fine_tuning(config, rows or ROWS, show_progress=False)


def nats_per_token(model: Any, tokenizer: Any) -> float:
    """Cross-entropy of the traces and their EOS by plain transformers, a row at a time."""
    total, count = 0.0, 0
    for row in ROWS:
        prompt = tokenizer(row["prompt"])["input_ids"]
        answer = [*tokenizer(row["trace"], add_special_tokens=False)["input_ids"], 1]
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        chosen = logits.double().log_softmax(-1)[range(len(answer)), answer]
        total, count = total - float(chosen.sum()), count + len(answer)
    return total / count


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_worked_solutions_are_learnt(base: Path, configure: Configure, lora: bool) -> None:
    config = configure(use_lora=lora, num_epochs=20, lora_dropout=0.0)
    figures = learn(config)
    events = read_events(config.checkpoint_dir / "events.jsonl")
    tokenizer = AutoTokenizer.from_pretrained(base)
    untrained = nats_per_token(AutoModelForCausalLM.from_pretrained(base), tokenizer)
    # The loss is that of the weights before the update, over all completion tokens and no others.
    assert events[0]["loss"] == pytest.approx(untrained, rel=1e-5)
    assert [(event["event"], event["step"]) for event in events] == [
        ("step", step) for step in range(1, 21)
    ]
    assert {name: events[-1][name] for name in figures} == figures
    model_class = AutoPeftModelForCausalLM if lora else AutoModelForCausalLM
    trained = model_class.from_pretrained(config.checkpoint_dir / "final")
    assert nats_per_token(trained, tokenizer) < 0.5 * untrained
    assert nats_per_token(trained, tokenizer) == pytest.approx(figures["loss"], rel=0.3)
    card = read_card(config.checkpoint_dir / "final")
    assert (card["step"], card["policy_version"]) == (20, 20)


def test_splitting_a_step_changes_no_update(configure: Configure) -> None:
    runs = {}
    for batch_size, accumulation in ((4, 1), (1, 4)):
        config = configure(
            f"run-{batch_size}",
            batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            num_epochs=1,
        )
        figures = learn(config)
        figures.pop("tokens_per_second")
        runs[batch_size] = figures
    assert runs[1] == pytest.approx(runs[4], rel=1e-5)


def test_the_schedule_runs_over_all_steps(configure: Configure) -> None:
    config = configure(
        batch_size=2, max_steps=5, lr_scheduler="linear", lr_floor=0.5, warmup_steps=1
    )
    learn(config)
    events = read_events(config.checkpoint_dir / "events.jsonl")
    assert len(events) == 5
    assert events[0]["learning_rate"] <= events[1]["learning_rate"] == 1e-2
    assert 0.5e-2 <= events[-1]["learning_rate"] < events[2]["learning_rate"] < 1e-2
    assert all(math.isfinite(event["grad_norm"]) for event in events)


def test_a_row_without_a_trace_is_refused(configure: Configure) -> None:
    rows = [*ROWS, {"prompt": "Who?", "reference": "Ava", "task": "people"}]
    with pytest.raises(DataError, match="people.* has no trace.*Add a column `trace`"):
        learn(configure(), rows)
    assert not configure().checkpoint_dir.exists()


@pytest.mark.parametrize("limit", [{"model_max_length": 100}, {}], ids=["set", "positions"])
def test_rows_that_do_not_fit(
    configure: Configure, capsys: pytest.CaptureFixture[str], limit: dict[str, int]
) -> None:
    """Over model_max_length, or over the 256 positions of this model."""
    rows = [*ROWS, {"prompt": "x" * 200, "reference": "Yes", "trace": "Step 1: " + "y" * 100}]
    tokens = limit.get("model_max_length", 256)
    with pytest.raises(DataError, match=f"row 5: .* over the {tokens} tokens .*1 of 5 rows"):
        learn(configure(**limit), rows)
    assert not configure().checkpoint_dir.exists()
    config = configure(**limit, long_prompts="drop", num_epochs=1)
    supervised_fine_tuning(config, rows)
    assert "1 of 5 rows do not fit and were left out." in capsys.readouterr().err
    [event] = read_events(config.checkpoint_dir / "events.jsonl")
    with pytest.raises(DataError, match="row 1: .*1 of 1 rows"):
        learn(configure("none", **limit, long_prompts="drop"), rows[-1:])
    assert event["tokens"] < 300


def test_a_used_folder_is_refused(configure: Configure) -> None:
    learn(configure(num_epochs=1))
    with pytest.raises(ConfigError, match="holds another run"):
        learn(configure(base_model="no-such-folder"))


def test_spikes_are_left_out_and_told(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows are learned in turns, and from one of them comes a gradient as long as no other."""
    rows = [*ROWS[:3], ROWS[3] | {"trace": "Conclusion: " + "$" * 40}]
    config = configure(
        **{"batch_size": 1, "num_epochs": 2, "learning_rate": 1e-6, "max_grad_norm": 0},
        spikes={"factor": 1.3, "window": 4, "backoff": 0.5},
    )
    figures = supervised_fine_tuning(config, rows)
    events = read_events(config.checkpoint_dir / "events.jsonl")
    spikes = [event for event in events if event["event"] == "spike"]
    steps = {event["step"]: event for event in events if event["event"] == "step"}
    assert spikes
    assert len(steps) == 8, "a spike is no fault"
    for step, event in steps.items():
        [*found] = [spike for spike in spikes if spike["step"] == step]
        assert event["spike"] == len(found)
        assert event["learning_rate"] == pytest.approx(1e-6 * event["learning_rate_factor"])
        for spike in found:
            assert (spike["grad_norm"], spike["applied"]) == (event["grad_norm"], False)
            assert spike["learning_rate_factor"] == event["learning_rate_factor"] < 1
    told = " ".join(capsys.readouterr().err.split())
    assert told.count(
        "over 1.3 times the median of those before it; the update was left out, and "
    ) == len(spikes)
    assert {"spike", "learning_rate_factor"} <= figures.keys()
    assert read_card(config.checkpoint_dir / "final")["policy_version"] == 8 - len(spikes)


def test_numbers_that_are_not_finite_skip_a_step(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of the steps are learned from; where none is, or too many in a row fail, it is told."""
    original, broken = warm_start.supervised_step, set[int]()

    def sometimes(policy: Any, updater: Any, rows: Any, size: int) -> Any:
        if updater.step_count + 1 in broken:
            raise NumericalError("loss", "the loss is nan.")
        return original(policy, updater, rows, size)

    monkeypatch.setattr(warm_start, "supervised_step", sometimes)
    broken |= {2}
    config = configure("some", max_steps=3, num_epochs=3, max_faults=2)
    learn(config)
    events = read_events(config.checkpoint_dir / "events.jsonl")
    assert [(event["event"], event["step"]) for event in events] == [
        ("step", 1),
        ("fault", 2),
        ("step", 3),
    ]
    broken |= {1, 3}
    for folder, settings in (("row", {"max_faults": 2}), ("all", {"max_faults": 9})):
        config = configure(folder, max_steps=3, num_epochs=3, **settings)
        with pytest.raises(NumericalError, match="the loss is nan"):
            learn(config)
        assert not (config.checkpoint_dir / "final").exists()
