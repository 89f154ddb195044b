"""Folders on disk: what is written, what other tools make of it, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from judicaita.errors import CheckpointError, ModelError
from judicaita.training.checkpoints import (
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
from judicaita.training.loading import load_policy
from judicaita.training.policy import Policy
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
    fitting = {"base_model": str(base), "device": "cpu", "generation_max_length": 64}
    return TrainingConfig(**{**fitting, **settings})


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
        "SHA256SUMS",
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
    own |= {"SHA256SUMS"}
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


@pytest.mark.parametrize("file", ["trainer_state.json", "trainer_state.safetensors"])
def test_a_damaged_state_is_one_sentence(
    base: Path, adapted: Policy, tmp_path: Path, file: str
) -> None:
    state = {"a": torch.ones(3)}
    folder = save_checkpoint(tmp_path / "step-1", adapted, config_of(base), step=1, state=state)
    (folder / file).write_bytes((folder / file).read_bytes()[:7])
    with pytest.raises(CheckpointError, match=f"{file} is not what was written") as error:
        load_state(folder)
    assert "\n" not in str(error.value)
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match="holds no trainer_state.json"):
        load_state(folder)


def test_a_fingerprint_tells_order_and_content() -> None:
    one, other = Sample("a?", "Yes"), Sample("b?", "No")
    assert fingerprint([one, other]) == fingerprint([Sample("a?", "Yes", task="x"), other])
    assert fingerprint([one, other]) != fingerprint([other, one])
    assert fingerprint([one]) != fingerprint([Sample("a?", "No")])


def test_a_seal_is_checked_wherever_a_checkpoint_is_opened(
    base: Path, adapted: Policy, tmp_path: Path
) -> None:
    folder = save_checkpoint(tmp_path / "final", adapted, config_of(base), step=3)
    open_checkpoint(folder, "cpu")
    weights = folder / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="adapter_model.safetensors is not what was written"):
        open_checkpoint(folder, "cpu")
    with pytest.raises(CheckpointError, match="adapter_model.safetensors is not what was written"):
        export_checkpoint(folder, tmp_path / "exported", merge=False)
    assert not (tmp_path / "exported").exists()


def test_a_pickle_is_never_loaded(base: Path, adapted: Policy, tmp_path: Path) -> None:
    """peft takes adapter_model.bin where there are no safetensors."""
    folder = save_checkpoint(tmp_path / "final", adapted, config_of(base), step=3)
    for name in ("judicaita.json", "SHA256SUMS", "adapter_model.safetensors"):
        (folder / name).unlink()
    torch.save({}, folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="no adapter_model.safetensors"):
        open_checkpoint(folder, "cpu")


def test_a_checkpoint_of_a_newer_judicaita_is_refused(
    base: Path, adapted: Policy, tmp_path: Path
) -> None:
    folder = save_checkpoint(tmp_path / "final", adapted, config_of(base), step=3)
    card = json.loads((folder / "judicaita.json").read_text())
    (folder / "judicaita.json").write_text(json.dumps({**card, "format": card["format"] + 1}))
    with pytest.raises(CheckpointError, match="newer judicaita .* Upgrade it"):
        read_card(folder)


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
