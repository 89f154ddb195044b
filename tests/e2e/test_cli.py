"""From a question to an explained answer through the commands, with nothing replaced."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from judicaita.training.data_curation import read_samples
from judicaita.training.metrics import read_events, read_rollouts

Run = Callable[..., Any]
SMALL = (
    *("--device", "cpu", "--max-steps", "2", "--batch-size", "2", "--num-rollouts", "2"),
    *("--gradient-accumulation-steps", "1", "--generation-max-length", "16"),
)
FIT = ("--model-max-length", "200", "--system-prompt", "Be brief.")


def fine(outcome: Any) -> str:
    """What a command that succeeded printed as its result."""
    assert outcome.code == 0, outcome.err
    assert "Traceback" not in outcome.err
    return str(outcome.out)


# ── the main job ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def trained(judicaita: Run, quick_tiny: Path, workspace: Path) -> Path:
    """``final/`` of a short run of the embedded model."""
    printed = judicaita(
        *("train-grpo", "--base-model", "tiny", *SMALL, "--tasks", "1,diversity_2"),
        *("--max-samples", 12, "--eval-samples", 5, "--output-dir", "run"),
    )
    assert fine(printed).splitlines() == [
        "2 steps done; the model is in run/final",
        "Next: judicaita evaluate-model run/final",
    ]
    assert "training  2/2" in printed.err
    return workspace / "run" / "final"


def test_train_evaluate_explain_export(judicaita: Run, trained: Path) -> None:
    held_out = read_samples(trained / "eval.jsonl")
    assert len(held_out) == 5
    assert {sample.task for sample in held_out} == {"diversity_1", "diversity_2"}

    fine(judicaita("evaluate-model", trained, "--max-samples", 3, "--output", "deep/report.json"))
    report = json.loads(Path("deep/report.json").read_text())
    assert report["metrics"]["samples"] == len(report["records"]) == 3
    assert {record["sample_id"] for record in report["records"]} < {s.id for s in held_out}
    for name in ("accuracy", "format_compliance", "rouge1", "bleu", "mean_tokens"):
        assert name in report["metrics"]
    assert all(record["tokens"] <= 16 for record in report["records"])

    families = ("--dataset", "statute_of_limitations,hearsay", "--tasks", "easy")
    shown = fine(judicaita("evaluate-model", trained, *families, "--max-samples", 4))
    assert {"checked", "true", "sound", "coverage"} < set(shown.replace("│", " ").split())
    assert "statute_of_limitations │" in shown.partition("per family")[2]

    question = ("trace", "Is there diversity jurisdiction?", "--context", "Ava is from Ohio.")
    shown = fine(judicaita(*question, "--checkpoint", trained))
    assert "no legal advice" in shown
    assert "Is there diversity jurisdiction?" in shown
    told = json.loads(fine(judicaita(*question, "--checkpoint", trained, "--format", "json")))
    assert told["query"] == "Is there diversity jurisdiction?"
    assert told["context"] == "Ava is from Ohio."
    assert told["completion_tokens"] <= 16
    assert told["model"]["step"] == 2
    assert told["model"]["base_model"] == "tiny"

    assert fine(judicaita("export", trained, "--output", "out")) == "Written to out\n"
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained("out")
    assert not {"eval.jsonl", "judicaita.json"} & {path.name for path in Path("out").iterdir()}


def agrees_with_its_run(judicaita: Run, final: Path) -> None:
    """The figures of a run's last evaluation and those of the command: one grader, one prompt."""
    last = read_events(final.parent / "events.jsonl")[-1]
    fine(judicaita("evaluate-model", final, "--output", "report.json"))
    found = json.loads(Path("report.json").read_text())["metrics"]
    shared = found.keys() & last.keys()
    assert {"accuracy", "reward", "reward/format", "mean_tokens", "truncated"} <= shared
    assert {name: last[name] for name in shared} == pytest.approx({n: found[n] for n in shared})


def test_the_evaluation_after_training_is_found_again(judicaita: Run, trained: Path) -> None:
    agrees_with_its_run(judicaita, trained)


def test_the_checkpoint_may_be_set_for_good(
    judicaita: Run, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(".env").write_text(f"GRPO_CHECKPOINT_PATH={trained}\n")
    told = json.loads(fine(judicaita("trace", "Who?", "--format", "json")))
    assert told["model"]["checkpoint"] == str(trained)
    shutil.copytree(trained, "elsewhere")
    monkeypatch.setenv("GRPO_CHECKPOINT_PATH", "elsewhere")
    fine(judicaita("evaluate-model", "--max-samples", 1, "--output", "report.json"))
    told = json.loads(fine(judicaita("trace", "Who?", "--format", "json")))
    assert told["model"]["checkpoint"] == "elsewhere"
    # A named one comes before both.
    told = json.loads(fine(judicaita("trace", "Who?", "--checkpoint", trained, "--format", "json")))
    assert told["model"]["checkpoint"] == str(trained)
    # It says which checkpoint to use, and is no setting of a run.
    assert "GRPO_CHECKPOINT_PATH" not in fine(judicaita("train-grpo", "--show-config"))


# ── LoRA on a model folder, rows of one's own ────────────────────────────────────────────────────


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # plain peft's
def test_lora_on_a_folder_and_on_from_there(
    judicaita: Run, gemma: Path, questions: Path, workspace: Path
) -> None:
    setup = (
        *("--base-model", gemma, "--dataset", questions, *SMALL, *FIT, "--learning-rate", "0.01"),
        *("--lr-scheduler", "constant", "--eval-fraction", 0.5),
    )
    fine(judicaita("train-grpo", *setup, "--output-dir", "one", "--lora-r", 4))
    final = workspace / "one" / "final"

    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trained = AutoPeftModelForCausalLM.from_pretrained(final)
    ids = AutoTokenizer.from_pretrained(final)("Is Ohio a state?", return_tensors="pt").input_ids
    with torch.no_grad():
        expected = trained.eval()(ids).logits
    untrained = AutoModelForCausalLM.from_pretrained(gemma)
    with torch.no_grad():
        assert not torch.equal(expected, untrained(ids).logits)

    fine(judicaita("export", final, "--merge", "--output", "merged"))
    merged = AutoModelForCausalLM.from_pretrained("merged")
    with torch.no_grad():
        assert float((merged(ids).logits - expected).norm() / expected.norm()) <= 1e-5

    agrees_with_its_run(judicaita, final)
    fine(judicaita("evaluate-model", final, "--dataset", questions, "--tasks", "city"))
    # A run goes on from the adapter: what it says before its first step is what that one says.
    fine(
        judicaita(
            *("train-grpo", *setup, "--adapter", final, "--output-dir", "two", "--max-steps", 1)
        )
    )
    one, two = (read_events(workspace / name / "events.jsonl") for name in ("one", "two"))
    assert two[0]["event"] == one[-1]["event"] == "eval"
    clock = ("time", "step")
    assert {k: v for k, v in two[0].items() if k not in clock} == {
        k: v for k, v in one[-1].items() if k not in clock
    }
    assert (two[0]["step"], one[-1]["step"]) == (0, 2)


def test_a_supervised_stage_comes_first(
    judicaita: Run, gemma: Path, questions: Path, workspace: Path
) -> None:
    setup = ("--dataset", questions, "--device", "cpu", *FIT, "--no-use-lora")
    learnt = judicaita(
        *("sft", *setup, "--base-model", gemma, "--output-dir", "taught", "--epochs", 3),
        *("--batch-size", 6, "--gradient-accumulation-steps", 1, "--learning-rate", "0.01"),
    )
    following = fine(learnt).splitlines()[1]
    assert following.startswith("Next: judicaita train-grpo --base-model taught/final --dataset ")
    losses = [event["loss"] for event in read_events(workspace / "taught" / "events.jsonl")]
    assert len(losses) == 3
    assert losses[2] < losses[0]
    fine(
        judicaita(
            *("train-grpo", "--base-model", "taught/final", *setup, *SMALL, "--output-dir", "run")
        )
    )
    fine(judicaita("evaluate-model", "taught/final", "--dataset", questions, "--max-samples", 1))


def test_settings_from_everywhere(
    judicaita: Run, gemma: Path, questions: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "base_model": str(gemma),
        "dataset": str(questions),
        "device": "cpu",
        "model_max_length": 200,
        "system_prompt": "",
        "num_rollouts": 2,
        "batch_size": 3,
        "max_steps": 1,
        "gradient_accumulation_steps": 1,
        "generation_max_length": 4,
        "loss": {"clip_low": 0.1},
        "seed": 1,
    }
    Path("settings.yaml").write_text(yaml.safe_dump(settings))
    Path(".env").write_text("GRPO_SEED=2\nGRPO_TAU=0.5\nOTHER=1\n")
    monkeypatch.setenv("GRPO_SEED", "3")
    command = ("train-grpo", "--config", "settings.yaml", "--output-dir", "run", "--no-use-lora")
    shown = fine(judicaita(*command, "--batch-size", 2, "--show-config"))
    assert not Path("run").exists()
    origin = {line.split()[0]: line.split()[1:] for line in shown.splitlines()}
    assert origin["batch_size"] == ["flag", "2"]
    assert origin["seed"] == ["environment", "3"]
    assert origin["grpo_tau"] == [".env", "0.5"]
    assert origin["loss.clip_low"] == ["file", "0.1"]
    assert origin["use_lora"] == ["flag", "False"]
    assert origin["loss.clip_high"] == ["default", "0.2"]
    fine(judicaita(*command, "--batch-size", 2))
    written = yaml.safe_load(Path("run/config.yaml").read_text())
    assert (written["batch_size"], written["seed"], written["grpo_tau"]) == (2, 3, 0.5)
    manifest = json.loads(Path("run/manifest.json").read_text())
    assert manifest["settings_from"]["seed"] == "environment"
    # The file of one run starts the next.
    monkeypatch.delenv("GRPO_SEED")
    Path(".env").unlink()
    fine(judicaita("train-grpo", "--config", "run/config.yaml", "--output-dir", "again"))
    one, two = (
        [row["token_ids"] for row in read_rollouts(workspace / name / "rollouts")]
        for name in ("run", "again")
    )
    assert one == two


def test_a_reward_of_ones_own_and_a_run_that_is_interrupted(
    judicaita: Run, gemma: Path, questions: Path, workspace: Path
) -> None:
    Path("mine.py").write_text(
        "from pathlib import Path\n"
        "def score(prompt, response, reference, task):\n"
        "    if Path('stop').exists() and Path('run/rollouts/step-000002.parquet').exists():\n"
        "        raise KeyboardInterrupt\n"
        "    assert task in ('state', 'city')\n"
        "    return len(response) / 100\n"
    )
    command = (
        *("train-grpo", "--base-model", gemma, "--dataset", questions, *SMALL, *FIT),
        *("--reward", "mine.py:score", "--output-dir", "run", "--save-steps", 1),
        *("--max-steps", 3, "--epochs", 2),
    )
    Path("stop").touch()
    stopped = judicaita(*command)
    assert stopped.code == 130
    assert stopped.err.endswith(
        "Interrupted. A run that has saved a checkpoint goes on with --resume auto.\n"
    )
    assert stopped.out == ""
    Path("stop").unlink()
    refused = judicaita(*command)
    assert refused.code == 2
    assert "holds another run" in refused.err
    fine(judicaita(*command, "--resume", "auto"))
    events = read_events(workspace / "run" / "events.jsonl")
    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2, 3]
    # Once more there is nothing left to do.
    fine(judicaita(*command, "--resume", "auto"))
    assert read_events(workspace / "run" / "events.jsonl") == events


def test_a_legalbench_folder(judicaita: Run, gemma: Path, workspace: Path) -> None:
    for task, label in (("hearsay_like", "answer"), ("other", "answer")):
        folder = workspace / "legalbench" / "tasks" / task
        folder.mkdir(parents=True)
        (folder / "base_prompt.txt").write_text("Is it hearsay?\n\nQ: {{text}} Hearsay?\nA:")
        lines = [f"index\t{label}\ttext"]
        lines += [f"{n}\t{'Yes' if n % 2 else 'No'}\tFact number {n}." for n in range(4)]
        (folder / "train.tsv").write_text("\n".join(lines) + "\n")
        (folder / "README.md").write_text("**License**: [CC By 4.0](https://example.org)\n")
    setup = ("--base-model", gemma, "--dataset", "./legalbench", *SMALL, *FIT)
    fine(judicaita("train-grpo", *setup, "--tasks", "hearsay*", "--output-dir", "run"))
    rows = list(read_rollouts(workspace / "run" / "rollouts"))
    assert {row["task"] for row in rows} == {"hearsay_like"}
    assert all(row["prompt"].startswith("Is it hearsay?\n\nQ: Fact number") for row in rows)
    fine(
        judicaita(
            *("evaluate-model", "run/final", "--dataset", "./legalbench", "--tasks", "other"),
            *("--output", "report.json"),
        )
    )
    report = json.loads(Path("report.json").read_text())
    assert report["by_task"]["other"]["samples"] == 4


# ── processes of their own ───────────────────────────────────────────────────────────────────────


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python process, with a fresh environment but for ``environment``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GRPO_", "SFT_", "HF_"))}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**kept, **environment},
        timeout=240,
    )


def test_help_loads_nothing_heavy(workspace: Path) -> None:
    code = """
import contextlib, io, sys
from judicaita.cli import app, main
for name in ["", *app.commands]:
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        main([name, "--help"] if name else ["--help"])
    assert "Usage: judicaita " + name in shown.getvalue(), shown.getvalue()
for command in ("train-grpo", "sft"):
    main([command, "--show-config"])
print(*({"torch", "transformers", "peft", "datasets", "numpy"} & sys.modules.keys()))
"""
    done = process("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == ""


def test_a_run_in_its_own_process(gemma: Path, questions: Path) -> None:
    done = process(
        *("-m", "judicaita.cli", "train-grpo", "--base-model", str(gemma)),
        *("--dataset", str(questions), *SMALL, *FIT, "--output-dir", "run"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "2 steps done; the model is in run/final"
    for noise in ("Warning", "warn", "Traceback", "deprecated"):
        assert noise not in done.stderr
    assert read_events(Path("run/events.jsonl"))[-1]["event"] == "eval"


def test_without_a_network(gemma: Path, questions: Path, workspace: Path) -> None:
    """A model of the Hub's that is in the cache trains; another one is refused, and soon."""
    cached = workspace / "hub" / "models--acme--gemma"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    shutil.copytree(gemma, cached / "snapshots" / ("0" * 40))
    setup = ["--dataset", str(questions), *SMALL, *FIT, "--output-dir"]
    code = f"""
import sys, time
from judicaita.cli import main
start = time.monotonic()
main(["train-grpo", "--base-model", "acme/gemma", *{setup!r}, "run"])
print(time.monotonic() - start, file=sys.stderr)
print("and then", file=sys.stderr)
main(["train-grpo", "--base-model", "acme/unknown", *{setup!r}, "other"])
"""
    unreachable = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_CACHE": str(workspace / "hub")}
    done = process("-c", code, **unreachable)
    before, _, after = done.stderr.partition("and then\n")
    assert done.returncode == 2, done.stderr
    assert float(before.splitlines()[-1]) < 60, "it waits for the network"
    named = json.loads((workspace / "run/final/adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == "acme/gemma"
    assert after.count("\n") == 1
    assert after.startswith("Error: acme/unknown: not on this machine, and the Hub cannot be")
    assert not (workspace / "other").exists()


def test_version() -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        version("judicaita")
    except PackageNotFoundError:
        pytest.skip("judicaita is not installed here")
    done = process("-m", "judicaita.cli", "version")
    assert done.stdout.splitlines()[:2] == [
        f"judicaita {version('judicaita')}",
        f"torch {version('torch')}",
    ]
