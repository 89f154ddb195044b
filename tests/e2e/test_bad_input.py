"""What a person gets wrong: exit code 2, one sentence, and nothing written anywhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def things(workspace: Path, gemma: Path, questions: Path) -> None:
    """Files and folders of the working directory, most of them with something wrong."""

    def jsonl(name: str, *rows: dict[str, Any]) -> None:
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    good = {"prompt": "Is Ohio a state?", "reference": "Yes"}
    jsonl("empty.jsonl")
    jsonl("no-prompt.jsonl", good, good, {"reference": "Yes"})
    jsonl("no-reference.jsonl", good, {"prompt": "Is Utah?"})
    jsonl("blank-reference.jsonl", good, {"prompt": "Is Utah?", "reference": " "})
    jsonl("no-trace.jsonl", good)
    jsonl("one.jsonl", good)
    jsonl("two.jsonl", good, good | {"prompt": "Is Rome a state?"})
    Path("no-json.jsonl").write_text('{"prompt": \n')
    Path("table.csv").write_text("prompt,reference\n")
    Path("table.txt").write_text("prompt,reference\n")
    Path("bad.yaml").write_text("batch_size: [1\nseed: 2")
    Path("key.yaml").write_text("batch_sise: 4\n")
    Path("list.yaml").write_text("- 1\n")
    Path("reward.py").write_text(
        "def score(prompt, response, reference): raise KeyError('law')\n"
        "def short(prompt): return 1.0\n"
    )
    Path("broken.py").write_text("import no_such_module\n")
    Path("empty").mkdir()
    Path("used").mkdir()
    Path("used/config.yaml").write_text("seed: 1\n")
    shutil.copytree(gemma, "gemma")
    for name in ("cut", "garbage", "no-tokenizer", "no-weights", "lacking", "odd", "shapes"):
        shutil.copytree(gemma, name)
    weights = Path("cut/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:2000])
    Path("garbage/model.safetensors").write_text("garbage")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        Path("no-tokenizer", file).unlink()
    Path("no-weights/model.safetensors").unlink()
    tensors = load_file("lacking/model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, "lacking/model.safetensors", metadata={"format": "pt"})
    config = json.loads(Path("odd/config.json").read_text())
    Path("odd/config.json").write_text(json.dumps(config | {"model_type": "gemma99"}))
    Path("shapes/config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    shutil.copytree(gemma, "damaged")
    Path("damaged/judicaita.json").write_text('{"step": 1')
    Path("no-adapter").mkdir()
    Path("no-adapter/adapter_config.json").write_text("{")


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every path and its content; folders as None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts  # of a user's own reward
    }


def refused(judicaita: Run, command: str, *words: str) -> None:
    """Run a command line; it must be refused in one sentence that holds ``words`` in this order."""
    before = snapshot(Path.cwd())
    done = judicaita(*command.split(" "))
    assert done.code == 2, done
    assert done.out == ""
    assert done.err.startswith("Error: ")
    assert done.err.count("\n") == 1, done.err
    assert done.err.endswith("\n")
    place = 0
    for word in words:
        assert word in done.err[place:], done.err
        place = done.err.index(word, place) + len(word)
    assert snapshot(Path.cwd()) == before


TRAIN = (
    "train-grpo --base-model gemma --dataset questions.jsonl --device cpu --batch-size 2 "
    "--model-max-length 128 --generation-max-length 4 --system-prompt= --output-dir run"
)
SFT = "sft --base-model gemma --dataset questions.jsonl --device cpu --output-dir run"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--base-model ./nowhere", ("./nowhere", "no such model folder", "Check the spelling")),
        ("--base-model empty", ("empty", "without config.json", "Name a model folder")),
        ("--base-model cut", ("cut cannot be loaded", "header")),
        ("--base-model garbage", ("garbage cannot be loaded", "header")),
        ("--base-model no-tokenizer", ("tokenizer", "missing", "Copy the tokenizer's files")),
        ("--base-model no-weights", ("no-weights cannot be loaded", "model.safetensors")),
        ("--base-model lacking", ("1 weights", "model.layers.1.mlp.up_proj.weight", "Fetch")),
        ("--base-model shapes", ("6 weights", "another shape", "Fetch the model anew")),
        ("--base-model odd", ("odd cannot be loaded", "gemma99")),
        ("--adapter empty", ("empty", "no LoRA adapter", "Name the folder")),
        ("--adapter no-adapter", ("no-adapter", "adapter_model.safetensors", "safetensors")),
        ("--lora-target-modules foo", ("lora_target_modules=foo", "no such layers")),
        ("--device tpu", ("device=tpu", "torch_xla is not installed", "pip install")),
        ("--device gpu", ("device='gpu'", "'cuda'", "default 'auto'")),
        ("--precision fp8", ("precision='fp8'", "'bf16'", "default 'auto'")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_models(judicaita: Run, flags: str, words: tuple[str, ...]) -> None:
    refused(judicaita, f"{TRAIN} {flags}", *words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there(judicaita: Run) -> None:
    words = ("device=cuda: torch finds no such device here", "device=auto")
    refused(judicaita, f"{TRAIN} --device cuda", *words)
    refused(judicaita, "evaluate-model gemma --dataset questions.jsonl --device cuda", *words)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--dataset empty.jsonl", ("empty.jsonl is empty", "at least one row")),
        ("--dataset no-prompt.jsonl", ("line 3", "has no prompt", "Add the question")),
        ("--dataset no-reference.jsonl", ("line 2", "has no reference", "Add the gold answer")),
        ("--dataset blank-reference.jsonl", ("line 2", "reference is empty", "Fill it in")),
        ("--dataset no-json.jsonl", ("line 1", "not valid JSON", "one JSON object")),
        ("--dataset table.csv", ("table.csv", "is empty", "at least one row")),
        ("--dataset table.txt", ("table.txt", ".jsonl, .parquet, .csv")),
        ("--dataset nowhere.jsonl", ("nowhere.jsonl", "neither", "nor an existing path", "Give")),
        ("--dataset diversty", ("diversty", "generated family nor", "Did you mean 'diversity'?")),
        ("--dataset hearsay,negligance", ("negligance", "The nearest is negligence.")),
        ("--step-mode gated", ("step_mode=gated with step_weight=0", "Set step_weight above 0")),
        ("--dataset empty", ("empty is a folder", "no LegalBench checkout", "Give such")),
        ("--dataset one.jsonl", ("1 distinct prompts", "at least 2", "Add samples")),
        ("--eval-dataset empty.jsonl", ("empty.jsonl is empty",)),
        ("--tasks village", ("village", "questions.jsonl", "city, state")),
        ("--dataset diversity --tasks 70", ("70", "diversity")),
        ("--model-max-length 8", ("over the 8 tokens", "never cut", "Raise model_max_length")),
        ("--generation-max-length 999", ("generation_max_length=999", "256 positions", "Lower")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_data(judicaita: Run, flags: str, words: tuple[str, ...]) -> None:
    refused(judicaita, f"{TRAIN} {flags}", *words)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--num-rollouts 1", ("num_rollouts='1'", "equals its own mean", "default 4")),
        ("--batch-size 0", ("batch_size='0'", "greater than or equal to 1", "default 4")),
        ("--batch-size four", ("batch_size='four'", "integer", "default 4")),
        ("--grpo-tau 0", ("grpo_tau='0'", "greater than 0", "default 0.1")),
        ("--grpo-tau -1", ("grpo_tau='-1'", "greater than 0", "default 0.1")),
        ("--grpo-gamma 1.5", ("grpo_gamma='1.5'", "less than or equal to 1")),
        ("--learning-rate inf", ("learning_rate='inf'", "finite")),
        ("--reference-sync-steps 8", ("reference_sync_steps=8 with beta=0", "Set beta above 0")),
        ("--attention sdpa", ("attention=sdpa", "gemma2 has none", "attention=auto")),
        ("--model-max-length 255", ("model_max_length=255", "256 positions", "Lower")),
        ("--report-to papyrus", ("report_to='papyrus'", "tensorboard, trackio or wandb")),
        ("--output-dir used", ("used", "holds another run", "Name a new folder")),
        ("--output-dir used --resume auto", ("used", "holds another run")),
        ("--output-dir one.jsonl", ("one.jsonl", "is a file", "Name a new folder")),
        ("--output-dir one.jsonl/run", ("one.jsonl/run", "cannot be made")),
        ("--resume run/checkpoints/step-9", ("step-9", "no such folder", "or auto")),
        ("--resume gemma", ("gemma", "no checkpoint of the run in run", "checkpoint_dir")),
        ("--base-model damaged", ("judicaita.json is damaged", "Restore")),
        ("--learing-rate 1", ("'--learing-rate'", "--learning-rate")),
        ("--config key.yaml", ("batch_sise", "no such setting", "'batch_size'")),
        ("--config bad.yaml", ("bad.yaml is no valid YAML", "line 1", "Mend it")),
        ("--config list.yaml", ("list.yaml holds no settings", "name: value")),
        ("--config nowhere.yaml", ("nowhere.yaml", "cannot be read", "--config")),
        ("--config empty", ("empty", "cannot be read")),
        ("--reward score", ("reward 'score'", "module:function")),
        ("--reward nowhere.py:score", ("nowhere.py", "does not exist", "check the path")),
        ("--reward reward.py:scoer", ("reward.py:scoer", "has no 'scoer'", "spelling")),
        ("--reward reward.py:short", ("'short'", "three")),
        ("--reward broken.py:score", ("broken.py", "ModuleNotFoundError")),
        ("--reward no_such_module:score", ("no_such_module", "cannot be imported")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings(judicaita: Run, flags: str, words: tuple[str, ...]) -> None:
    refused(judicaita, f"{TRAIN} {flags}", *words)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", ("command",)),
        ("trian-grpo", ("'trian-grpo'", "'train-grpo'")),
        ("evaluate-model", ("no checkpoint was named", "GRPO_CHECKPOINT_PATH")),
        ("evaluate-model nowhere", ("nowhere: no such folder", "Name a checkpoint")),
        ("evaluate-model empty", ("empty holds neither", "no checkpoint", "final/")),
        ("evaluate-model gemma", ("gemma records no held-out samples", "give a data set")),
        ("evaluate-model garbage --dataset one.jsonl", ("garbage cannot be loaded",)),
        ("evaluate-model gemma --dataset empty.jsonl", ("empty.jsonl is empty",)),
        ("evaluate-model gemma --dataset one.jsonl --max-samples 0", ("--max-samples", "x>=1")),
        ("evaluate-model gemma --dataset one.jsonl --device gpu", ("'gpu'", "'cuda'")),
        ("evaluate-model gemma --tasks city", ("--tasks", "--dataset", "Name one")),
        ("evaluate-model no-adapter --dataset one.jsonl", ("adapter_config.json", "Restore it")),
        ("trace", ("QUERY",)),
        ("trace Who?", ("no checkpoint was named", "GRPO_CHECKPOINT_PATH")),
        ("trace Who? --checkpoint nowhere", ("nowhere: no such folder",)),
        ("trace Who? --checkpoint empty", ("empty holds neither",)),
        ("trace Who? --checkpoint cut", ("cut cannot be loaded",)),
        ("trace Who? --checkpoint gemma --format xml", ("'xml'", "'json'")),
        ("export gemma", ("--output",)),
        ("export --output out", ("no checkpoint was named",)),
        ("export nowhere --output out", ("nowhere: no such folder",)),
        ("export empty --output out", ("empty holds neither",)),
        ("export gemma --merge --output out", ("no adapter to merge", "Leave --merge out")),
        ("export gemma --output empty", ("empty exists already", "Name a new folder")),
        ("export gemma --output one.jsonl/out", ("one.jsonl", "Not a directory")),
        (f"{SFT} --dataset no-trace.jsonl", ("no trace", "Add a column `trace`")),
        (f"{SFT} --dataset empty.jsonl", ("empty.jsonl is empty",)),
        (f"{SFT} --model-max-length 8", ("row 1", "over the 8 tokens", "never cut")),
        (f"{SFT} --output-dir used", ("used", "holds another run")),
        (f"{SFT} --grpo-tau 1", ("'--grpo-tau'",)),
        ("quickstart --seed -1", ("--seed", "x>=0")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_commands(judicaita: Run, command: str, words: tuple[str, ...]) -> None:
    refused(judicaita, command, *words)


def test_the_environment(judicaita: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("GRPO_BATCHSIZE", "4")
        refused(judicaita, TRAIN, "GRPO_BATCHSIZE in the environment", "'GRPO_BATCH_SIZE'")
    with monkeypatch.context() as patch:
        patch.setenv("GRPO_TAU", "0")
        refused(judicaita, TRAIN, "grpo_tau='0'", "greater than 0")
    Path(".env").write_text("GRPO_TUA=1\n")
    refused(judicaita, TRAIN, "GRPO_TUA in .env", "'GRPO_TAU'")


def test_a_reward_that_fails(judicaita: Run) -> None:
    """Known only once it is called, so the run's folder is there and says how far it came."""
    done = judicaita(*TRAIN.split(), "--reward", "reward.py:score")
    assert done.code == 2
    assert "Traceback" not in done.err
    last = done.err.splitlines()[-1]
    assert last.startswith("Error: reward 'score' failed on sample ")
    assert "KeyError: 'law'" in last


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed here")
def test_a_tracker_that_is_not_installed(judicaita: Run) -> None:
    words = ("report_to: wandb cannot be imported", "pip install", "leave it out")
    refused(judicaita, f"{TRAIN} --report-to tensorboard,wandb", *words)
    refused(judicaita, f"{SFT} --report-to tensorboard,wandb", *words)


def test_a_run_that_diverges(judicaita: Run) -> None:
    flags = "--learning-rate 1e30 --generation-max-length 16 --verbosity-target 8 --max-faults 1"
    done = judicaita(*f"{TRAIN} {flags}".split(" "))
    assert done.code == 2
    assert "Traceback" not in done.err
    last = done.err.splitlines()[-1]
    assert last.startswith("Error: ")
    assert "finite" in last
    assert "learning_rate" in last


def test_a_damaged_run(judicaita: Run) -> None:
    """What a run wrote may be hit later: by a full disk, by hand."""
    command = f"{TRAIN} --gradient-accumulation-steps 1 --max-steps 2 --save-steps 1"
    assert judicaita(*command.split(" ")).code == 0
    shutil.rmtree("run/final")
    resume = f"{command} --resume auto"
    state = Path("run/checkpoints/step-2/trainer_state.json")
    state.write_text(state.read_text()[:40])
    named = f"{command} --resume run/checkpoints/step-2"
    refused(judicaita, named, "step-2 is damaged", "trainer_state.json", "Restore it")
    done = judicaita(*resume.split(" "))
    assert done.code == 0
    told = " ".join(done.err.split())
    assert "passed over: run/checkpoints/step-2 is damaged: trainer_state.json is not" in told
    assert "going on from run/checkpoints/step-1" in told
    shutil.rmtree("run/final")
    shutil.rmtree("run/checkpoints/step-2")
    refused(judicaita, f"{resume} --lora-r 3", "step-1", "do not fit this model", "settings")
    refused(judicaita, f"{resume} --dataset two.jsonl", "15 samples", "3", "Resume with the data")
    Path("run/checkpoints/step-1/judicaita.json").write_text("{")
    refused(judicaita, "trace Who? --checkpoint run/checkpoints/step-1", "judicaita.json", "JSON")
