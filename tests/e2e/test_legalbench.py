"""The main job on real LegalBench rows with a Gemma-2 folder and LoRA, command by command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from judicaita.training.data_curation import load_dataset_source, read_samples
from judicaita.training.metrics import read_events, read_rollouts

Run = Callable[..., Any]
TASKS = ("contract_qa", "corporate_lobbying", "learned_hands_courts", "learned_hands_torts")
ROWS = {
    "contract_qa": 8,
    "corporate_lobbying": 10,
    "learned_hands_courts": 6,
    "learned_hands_torts": 6,
}
"""Public train rows of each task."""
LONGEST = 3300
"""Tokens, a few more than the longest of these prompts has with the vocabulary made here."""


@pytest.fixture
def gemma_of_the_law(shared_data: Path, tmp_path: Path) -> Path:
    """A random Gemma-2 with room for these prompts, its tokenizer made from them.

    Many of its tokens end a text, so that answers differ in length and thereby in reward.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

    samples = load_dataset_source(shared_data / "legalbench", tasks=TASKS)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        (str(sample.prompt) for sample in samples),
        trainers.BpeTrainer(
            vocab_size=4000,
            special_tokens=["<pad>", "<eos>", "<bos>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    config = Gemma2Config(
        vocab_size=len(tokenizer.get_vocab()),
        **size,
        **heads,
        query_pre_attn_scalar=16,
        max_position_embeddings=LONGEST + 96,
        initializer_range=0.1,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(config)
    model.generation_config.eos_token_id = [1, *range(500, 560)]
    folder = tmp_path / "gemma"
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>"
    ).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # plain peft's
def test_train_save_reload_evaluate_explain(
    judicaita: Run, shared_data: Path, gemma_of_the_law: Path, workspace: Path
) -> None:
    done = judicaita(
        *("train-grpo", "--base-model", gemma_of_the_law, "--device", "cpu"),
        *("--dataset", shared_data / "legalbench", "--tasks", ",".join(TASKS)),
        *("--model-max-length", LONGEST, "--generation-max-length", 32, "--system-prompt", ""),
        *("--max-steps", 2, "--batch-size", 1, "--gradient-accumulation-steps", 2),
        *("--num-rollouts", 3, "--verbosity-target", 16, "--learning-rate", "0.01"),
        *("--lr-scheduler", "constant"),
        *("--output-dir", "run", "--eval-samples", 4),
    )
    assert done.code == 0, done.err
    assert "demonstrations" in done.err, "it says which rows the prompts give away"
    run = workspace / "run"
    data = json.loads((run / "manifest.json").read_text())["data"]
    assert data["train"]["samples"] + data["eval"]["samples"] == sum(ROWS.values())
    rows = list(read_rollouts(run / "rollouts"))
    assert len(rows) == 2 * 2 * 3
    assert {row["task"] for row in rows} <= set(TASKS)
    assert len({row["task"] for row in rows}) > 1
    assert all(row["source"] == f"legalbench:{row['task']}" for row in rows)
    steps = [event for event in read_events(run / "events.jsonl") if event["event"] == "step"]
    assert any(step["updates"] for step in steps), "nothing was learnt"

    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoModelForCausalLM

    adapter = AutoPeftModelForCausalLM.from_pretrained(run / "final")
    assert isinstance(adapter, PeftModel)
    base = AutoModelForCausalLM.from_pretrained(gemma_of_the_law)
    ids = torch.tensor([[2, *range(300, 340)]])
    with torch.no_grad():
        assert not torch.equal(adapter.eval()(ids).logits, base(ids).logits)

    done = judicaita("evaluate-model", "run/final", "--output", "report.json")
    assert done.code == 0, done.err
    report = json.loads(Path("report.json").read_text())
    held_out = read_samples(run / "final" / "eval.jsonl")
    assert len(report["records"]) == len(held_out) == data["eval"]["samples"]
    assert report["metrics"]["graded"] == len(held_out)
    assert set(report["by_task"]) == {sample.task for sample in held_out}

    clause = "The Company shall not sell the personal data of its users."
    done = judicaita(
        *("trace", "Does the clause forbid the sale of data?", "--context", clause),
        *("--checkpoint", "run/final", "--format", "json"),
    )
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["model"]["base_model"] == str(gemma_of_the_law)
    assert told["completion_tokens"] <= 32
