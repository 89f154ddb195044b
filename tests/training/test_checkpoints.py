"""Folders on disk: what is written, what other tools make of it, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import AutoPeftModelForCausalLM, PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from judicaita.errors import CheckpointError, ConfigError
from judicaita.training.checkpoints import (
    RunFolder,
    describe_run,
    export_checkpoint,
    fingerprint,
    is_resumable,
    load_state,
    open_checkpoint,
    read_card,
    require_checkpoint,
    save_checkpoint,
)
from judicaita.training.config import TrainingConfig
from judicaita.training.policy import Policy, load_policy
from judicaita.types import Sample

# peft's own use of transformers.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

MakePolicy = Callable[..., Policy]
IDS = torch.tensor([[2, 50, 60, 70, 80, 90, 100, 110]])
EOS = [1, 120, 130]


@pytest.fixture(scope="module")
def base(make_policy: MakePolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose generation configuration knows several ends of a text."""
    policy = make_policy(template="gemma")
    policy.model.generation_config.eos_token_id = EOS
    folder = tmp_path_factory.mktemp("base")
    policy.save(folder)
    return folder


def config_of(base: Path, **settings: Any) -> TrainingConfig:
    return TrainingConfig(**{"base_model": str(base), "device": "cpu", **settings})


@pytest.fixture
def adapted(base: Path) -> Policy:
    """A policy with an adapter that says something: the new one's B is 0."""
    torch.manual_seed(0)
    policy = load_policy(config_of(base, lora_r=4))
    for name, parameter in policy.trainable():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    policy.model.eval()
    return policy


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(IDS).logits
    return found


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ── what other tools make of it ──────────────────────────────────────────────────────────────────


def test_a_full_model_loads_in_plain_transformers(base: Path, tmp_path: Path) -> None:
    policy = load_policy(config_of(base, use_lora=False))
    folder = save_checkpoint(tmp_path / "final", policy, config_of(base), step=3)
    assert files(folder) == {
        *("config.json", "generation_config.json", "model.safetensors", "judicaita.json"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    }
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(logits(model), logits(policy.model))
    assert model.generation_config.eos_token_id == EOS
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "Step 1: Müller owes 80 €."
    assert tokenizer(text)["input_ids"] == policy.tokenizer(text)["input_ids"]
    assert tokenizer.chat_template == policy.tokenizer.chat_template


def test_an_adapter_loads_in_plain_peft(base: Path, adapted: Policy, tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "final", adapted, config_of(base), step=3)
    assert not (folder / "model.safetensors").exists()
    named = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert Path(named).is_absolute()
    on_base = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(named), folder)
    expected = logits(adapted.model)
    assert torch.equal(logits(on_base), expected)
    assert torch.equal(logits(AutoPeftModelForCausalLM.from_pretrained(folder)), expected)
    assert float((expected - logits(AutoModelForCausalLM.from_pretrained(base))).abs().max()) > 0.05


def test_the_base_of_an_adapter_is_found_from_anywhere(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run may name its base by a relative path."""
    shutil.copytree(base, tmp_path / "mine" / "base")
    monkeypatch.chdir(tmp_path / "mine")
    policy = load_policy(config_of(Path("base")))
    save_checkpoint(tmp_path / "final", policy, config_of(Path("base")), step=1)
    monkeypatch.chdir("/")
    assert torch.equal(
        logits(open_checkpoint(tmp_path / "final", "cpu").policy.model), logits(policy.model)
    )


@pytest.mark.parametrize("merge", [False, True])
def test_an_adapter_is_exported(base: Path, adapted: Policy, tmp_path: Path, merge: bool) -> None:
    held_out = tmp_path / "rows.jsonl"
    held_out.write_text("{}\n")
    state = {"moments": torch.ones(2)}
    folder = save_checkpoint(
        tmp_path / "step-3", adapted, config_of(base), step=3, state=state, held_out=held_out
    )
    expected, before = logits(adapted.model), files(folder)
    output = tmp_path / "new" / "exported"
    export_checkpoint(folder, output, merge=merge)
    own = {"judicaita.json", "eval.jsonl", "trainer_state.json", "trainer_state.safetensors"}
    assert own < before
    assert not own & files(output)
    assert files(folder) == before
    model_class = AutoModelForCausalLM if merge else AutoPeftModelForCausalLM
    model = model_class.from_pretrained(output)
    difference = logits(model) - expected
    assert float(difference.norm() / expected.norm()) <= (1e-5 if merge else 0)
    assert (output / "adapter_config.json").exists() is not merge
    assert model.generation_config.eos_token_id == EOS
    assert AutoTokenizer.from_pretrained(output).chat_template == adapted.tokenizer.chat_template
    with pytest.raises(CheckpointError, match="exists already"):
        export_checkpoint(folder, output, merge=merge)


def test_a_whole_model_is_exported_and_not_merged(base: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no adapter to merge. Leave --merge out"):
        export_checkpoint(base, tmp_path / "merged", merge=True)
    assert not (tmp_path / "merged").exists()
    export_checkpoint(base, tmp_path / "copy", merge=False)
    one, other = (AutoModelForCausalLM.from_pretrained(f) for f in (base, tmp_path / "copy"))
    assert torch.equal(logits(one), logits(other))


# ── what a run needs to go on ────────────────────────────────────────────────────────────────────


def test_a_state_comes_back(base: Path, adapted: Policy, tmp_path: Path) -> None:
    state = {
        "steps_done": 7,
        "rate": 0.1 + 0.2,
        "none": None,
        "order": [3, [1, "x"], {"deep": torch.arange(6).reshape(2, 3)}],
        "moments": {"0": {"exp_avg": torch.randn(3, dtype=torch.float64).t()}},
        "empty": {},
    }
    adapted.version = 5
    folder = save_checkpoint(tmp_path / "step-7", adapted, config_of(base), step=7, state=state)
    found = load_state(folder)
    assert found.keys() == state.keys()
    for name in ("steps_done", "rate", "none", "empty"):
        assert found[name] == state[name]
    assert found["order"][:2] == [3, [1, "x"]]
    assert found["order"][2]["deep"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["order"][2]["deep"].dtype == torch.int64
    assert torch.equal(found["moments"]["0"]["exp_avg"], state["moments"]["0"]["exp_avg"])
    card = read_card(folder)
    assert (card["step"], card["policy_version"]) == (7, 5)
    assert card["config"]["base_model"] == str(base)
    assert open_checkpoint(folder, "cpu").policy.version == 5


def test_a_checkpoint_is_replaced_whole(base: Path, adapted: Policy, tmp_path: Path) -> None:
    folder = tmp_path / "final"
    save_checkpoint(folder, adapted, config_of(base), step=1, state={"a": 1})
    (tmp_path / ".final.tmp").mkdir()  # as a killed run leaves it
    (tmp_path / ".final.tmp" / "junk").touch()
    save_checkpoint(folder, adapted, config_of(base), step=2)
    assert read_card(folder)["step"] == 2
    assert not is_resumable(folder), "nothing of the older one is left in it"
    assert files(tmp_path) == {"final"}
    assert "junk" not in files(folder)


def test_what_is_written_half_has_no_name_yet(
    base: Path, adapted: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("judicaita.training.checkpoints.save_file", full_disk)
    run = RunFolder(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(run.step(1), adapted, config_of(base), step=1, state={"a": torch.ones(1)})
    assert not run.step(1).exists()
    assert run.newest() is None


def test_the_newest_checkpoint_is_the_highest_step(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.newest() is None
    for name in ("step-9", "step-10", "step-2", "step-30", ".step-40.tmp", "step-50-copy"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        for file in ("trainer_state.json", "trainer_state.safetensors"):
            (tmp_path / "checkpoints" / name / file).touch()
    (run.step(30) / "trainer_state.safetensors").unlink()
    assert run.newest() == run.step(10)


@pytest.mark.parametrize("file", ["trainer_state.json", "trainer_state.safetensors"])
def test_a_damaged_state_is_one_sentence(
    base: Path, adapted: Policy, tmp_path: Path, file: str
) -> None:
    state = {"a": torch.ones(3)}
    folder = save_checkpoint(tmp_path / "step-1", adapted, config_of(base), step=1, state=state)
    (folder / file).write_bytes((folder / file).read_bytes()[:7])
    with pytest.raises(CheckpointError, match="its state is damaged .* earlier one") as error:
        load_state(folder)
    assert "\n" not in str(error.value)
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match="holds no trainer_state.json"):
        load_state(folder)


# ── the run's folder ─────────────────────────────────────────────────────────────────────────────


def test_the_folder_says_what_the_run_is(base: Path, adapted: Policy, tmp_path: Path) -> None:
    samples = [Sample("a?", "Yes"), Sample("b?", "No")]
    config = config_of(base, tasks=["§ 1332"], checkpoint_dir=tmp_path / "deep" / "run")
    run = RunFolder(config.checkpoint_dir)
    run.refuse_if_used()
    run.begin(config, describe_run(adapted, {"seed": "flag"}, train=samples, eval=samples[:1]))
    written = yaml.safe_load((run.root / "config.yaml").read_text(encoding="utf-8"))
    assert TrainingConfig(**written) == config
    manifest = json.loads((run.root / "manifest.json").read_text())
    assert manifest["trainable_parameters"] == sum(p.numel() for _, p in adapted.trainable())
    assert manifest["parameters"] > manifest["trainable_parameters"]
    assert (manifest["device"], manifest["compute_dtype"]) == ("cpu", "float32")
    assert manifest["data"]["train"] == {"samples": 2, "sha256": fingerprint(samples)}
    assert manifest["data"]["eval"]["sha256"] != fingerprint(samples)
    assert manifest["settings_from"] == {"seed": "flag"}


def test_a_fingerprint_tells_order_and_content() -> None:
    one, other = Sample("a?", "Yes"), Sample("b?", "No")
    assert fingerprint([one, other]) == fingerprint([Sample("a?", "Yes", task="x"), other])
    assert fingerprint([one, other]) != fingerprint([other, one])
    assert fingerprint([one]) != fingerprint([Sample("a?", "No")])


@pytest.mark.parametrize(
    "name", ["config.yaml", "events.jsonl", "rollouts", "checkpoints", "final", "eval.jsonl"]
)
def test_a_folder_with_anything_of_a_run_is_refused(tmp_path: Path, name: str) -> None:
    """All of these would be overwritten."""
    (tmp_path / "notes.txt").touch()
    RunFolder(tmp_path).refuse_if_used()
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=f"holds another run .{name}.*Name a new folder"):
        RunFolder(tmp_path).refuse_if_used()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="it is a file. Name a new folder"):
        RunFolder(tmp_path / "file").refuse_if_used()
    with pytest.raises(ConfigError, match="it cannot be made"):
        RunFolder(tmp_path / "file" / "run").begin(TrainingConfig(), {})


def test_no_checkpoint(base: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder. Name a checkpoint"):
        require_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="neither config.json nor adapter_config.json"):
        require_checkpoint(tmp_path)
    require_checkpoint(base)
    assert read_card(base) == {}
    shutil.copytree(base, tmp_path / "odd")
    (tmp_path / "odd" / "judicaita.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"judicaita.json is no valid JSON .* Restore it."):
        open_checkpoint(tmp_path / "odd", "cpu")
