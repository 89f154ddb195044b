"""The engine against a server process that is as strict as vLLM's, and against its own death."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from judicaita.errors import ConfigError, RolloutError, RunStopped
from judicaita.training.config import TrainingConfig
from judicaita.training.grpo_trainer import GRPOTrainer
from judicaita.training.metrics import read_events, read_rollouts
from judicaita.training.policy import Policy, quietly
from judicaita.training.rollouts.base import SamplingParams
from judicaita.training.rollouts.vllm import VLLMEngine
from judicaita.types import Completion, Sample

pytest.importorskip("openai", reason="the client of the extra vllm is not installed")

MakePolicy = Callable[..., Policy]
Serve = Callable[..., tuple[str, subprocess.Popen[bytes]]]
PROMPTS = ((2, 50, 60, 70, 80), (2, 33), (2, 200, 201, 202))


@pytest.fixture(scope="module")
def base(make_policy: MakePolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_policy("llama").save(folder)
    return folder


@pytest.fixture
def serve(base: Path, tmp_path: Path) -> Iterator[Serve]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str, model: Path = base) -> tuple[str, subprocess.Popen[bytes]]:
        port = tmp_path / f"port-{len(started)}"
        script = Path(__file__).with_name("vllm_server.py")
        process = subprocess.Popen([sys.executable, str(script), str(model), str(port), *options])
        started.append(process)
        while not port.exists():
            assert process.poll() is None, "the server did not start"
            time.sleep(0.05)
        return f"http://127.0.0.1:{port.read_text()}/v1", process

    yield start
    for process in started:
        process.kill()
        process.wait()


def adapted(make_policy: MakePolicy, std: float = 0.1) -> Policy:
    policy = make_policy("llama", version=3)
    torch.manual_seed(0)
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"])
    with quietly():
        policy.model = get_peft_model(policy.model, lora).eval()  # type: ignore[assignment, arg-type]
    move(policy, std)
    return policy


def move(policy: Policy, std: float) -> None:
    """The adapter as an update would leave it."""
    with torch.no_grad():
        for name, parameter in policy.trainable():
            if "lora_B" in name:
                parameter.normal_(std=std)


def full_logprobs(
    policy: Policy, prompt: Sequence[int], completion: Completion, temperature: float = 1.0
) -> list[float]:
    """By a forward pass of prompt and completion."""
    ids = torch.tensor([[*prompt, *completion.token_ids]])
    with torch.no_grad():
        logits = policy.model(ids, use_cache=False).logits[0].double() / temperature
    rows = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return [float(row[token]) for row, token in zip(rows, completion.token_ids, strict=True)]


def test_completions_are_the_adapter_s(
    make_policy: MakePolicy, serve: Serve, tmp_path: Path
) -> None:
    """Before and after an update, with the log-probabilities of that version."""
    policy = adapted(make_policy)
    url, _ = serve()
    engine = VLLMEngine(policy, url, tmp_path / "adapters")
    for version in (3, 4):
        sampling = SamplingParams(12, temperature=0.8, seed=version)
        groups = engine.generate(PROMPTS, 3, sampling)
        assert [len(group) for group in groups] == [3, 3, 3]
        for prompt, group in zip(PROMPTS, groups, strict=True):
            assert len({completion.token_ids for completion in group}) == 3
            for completion in group:
                assert completion.policy_version == version
                expected = full_logprobs(policy, prompt, completion, 0.8)
                assert completion.logprobs == pytest.approx(expected, abs=1e-4)
        assert engine.generate(PROMPTS, 3, sampling) == groups
        with torch.no_grad():
            move(policy, 0.3)
        policy.version += 1
        engine.sync()
    assert [path.name[-1] for path in (tmp_path / "adapters").iterdir()] == ["5"]
    engine.close()
    assert list((tmp_path / "adapters").iterdir()) == []


def share_of_low_bytes(prompt: str, response: str, reference: str) -> float:
    """Differs between nearly all completions of a random model."""
    return sum(ord(c) % 7 for c in response) / (6 * max(1, len(response)))


def test_a_run(base: Path, serve: Serve, tmp_path: Path) -> None:
    """Every step is drawn by the adapter as the step before left it."""
    rows = [Sample(f"Is case {number} decided?", "Yes") for number in range(8)]
    config = TrainingConfig(
        base_model=str(base),
        checkpoint_dir=tmp_path / "run",
        device="cpu",
        rollout_engine="vllm",
        rollout_url=serve()[0],
        correction={"type": "token_truncate"},  # type: ignore[arg-type]
        system_prompt="",
        lora_r=4,
        lora_target_modules=["q_proj", "v_proj"],
        lora_dropout=0.0,
        learning_rate=0.03,
        generation_max_length=6,
        batch_size=2,
        gradient_accumulation_steps=1,
        num_rollouts=3,
        max_steps=3,
    )
    trainer = GRPOTrainer(config, rows[1:], rows[:1], share_of_low_bytes, show_progress=False)
    trainer.initialize()
    trainer.train()
    events = [e for e in read_events(trainer.folder.events) if e["event"] == "step"]
    assert [event["updates"] for event in events] == [1, 1, 1]
    for event in events:
        assert event["rollout_mismatch"] < 1e-4
        assert event["correction_weight"] == pytest.approx(1, abs=1e-3)
        assert event["correction_left_out"] == 0
    versions = [row["policy_version"] for row in read_rollouts(trainer.folder.rollouts)]
    assert versions == [0] * 6 + [1] * 6 + [2] * 6
    assert list((tmp_path / "run" / "adapters").iterdir()) == []


def test_how_completions_end(make_policy: MakePolicy, serve: Serve, tmp_path: Path) -> None:
    policy = adapted(make_policy)
    policy.model.generation_config.eos_token_id = list(range(7, 60))
    engine = VLLMEngine(policy, serve()[0], tmp_path / "adapters")
    sampling = SamplingParams(20, seed=1, stop_strings=("e", "t"))
    ended = Counter()
    for group in engine.generate(PROMPTS, 8, sampling):
        for completion in group:
            text = policy.decode(completion.token_ids)
            ended[completion.finish_reason] += 1
            assert (completion.finish_reason == "stop") == (
                completion.token_ids[-1] in range(7, 60)
            )
            assert (completion.finish_reason == "stop_string") == ("e" in text or "t" in text)
    assert ended["stop"] > 0
    assert ended["stop_string"] > 0
    [[greedy, same]] = engine.generate(PROMPTS[:1], 2, SamplingParams(5, temperature=0))
    assert greedy == same


def test_raw_log_probabilities_serve_at_temperature_1_alone(
    make_policy: MakePolicy, serve: Serve, tmp_path: Path
) -> None:
    policy = adapted(make_policy)
    engine = VLLMEngine(policy, serve("--raw-logprobs")[0], tmp_path / "adapters")
    [[completion]] = engine.generate(PROMPTS[:1], 1, SamplingParams(4))
    assert completion.logprobs == pytest.approx(
        full_logprobs(policy, PROMPTS[0], completion), abs=1e-4
    )
    for sampling in (SamplingParams(4, temperature=0.5), SamplingParams(4, top_p=0.9)):
        with pytest.raises(ConfigError, match="processed_logprobs"):
            engine.generate(PROMPTS[:1], 1, sampling)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--without-lora", "refused to take over the adapter"),
        ("--deaf", "answers as if it had none"),
        ("--old", "does not tell the ids"),
    ],
)
def test_servers_that_do_not_serve(
    make_policy: MakePolicy, serve: Serve, tmp_path: Path, option: str, told: str
) -> None:
    with pytest.raises(RolloutError, match=told):
        VLLMEngine(adapted(make_policy), serve(option)[0], tmp_path / "adapters")


def test_another_model_is_refused(make_policy: MakePolicy, serve: Serve, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_policy("llama", seed=1).save(other)
    with pytest.raises(RolloutError, match="not the base of this policy"):
        VLLMEngine(adapted(make_policy), serve(model=other)[0], tmp_path / "adapters")


def test_full_fine_tuning_is_refused(make_policy: MakePolicy, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="adapters alone"):
        VLLMEngine(make_policy("llama"), "http://127.0.0.1:9/v1", tmp_path)


def test_no_server(
    make_policy: MakePolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("judicaita.training.rollouts.vllm._RETRIES", 0)
    with pytest.raises(RolloutError, match="can't be reached to list its models"):
        VLLMEngine(adapted(make_policy), "http://127.0.0.1:9/v1", tmp_path / "adapters")


def test_a_server_that_dies(
    make_policy: MakePolicy, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("judicaita.training.rollouts.vllm._RETRIES", 0)
    url, process = serve()
    engine = VLLMEngine(adapted(make_policy), url, tmp_path / "adapters")
    calls = 0

    def kill() -> None:
        nonlocal calls
        calls += 1
        process.send_signal(signal.SIGKILL)

    engine.pulse = kill
    with pytest.raises(RolloutError, match="can't be reached to generate"):
        engine.generate(PROMPTS, 4, SamplingParams(4000))
    assert calls
    engine.close()
    assert list((tmp_path / "adapters").iterdir()) == []


def test_a_server_that_is_stuck(
    make_policy: MakePolicy, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("judicaita.training.rollouts.vllm._RETRIES", 0)
    url, process = serve()
    engine = VLLMEngine(adapted(make_policy), url, tmp_path / "adapters", timeout=2.0)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(RolloutError, match="did not answer in time when asked to generate"):
        engine.generate(PROMPTS[:1], 1, SamplingParams(4))


def test_what_the_pulse_raises_ends_the_batch(
    make_policy: MakePolicy, serve: Serve, tmp_path: Path
) -> None:
    engine = VLLMEngine(adapted(make_policy), serve()[0], tmp_path / "adapters")

    def stop() -> None:
        raise RunStopped("told to")

    engine.pulse = stop
    start = time.perf_counter()
    with pytest.raises(RunStopped):
        engine.generate(PROMPTS, 8, SamplingParams(4000))
    assert time.perf_counter() - start < 5


# ── another OpenAI-compatible server ─────────────────────────────────────────────────────────────


@pytest.fixture
def transformers_url(base: Path, tmp_path: Path) -> Iterator[str]:
    """`transformers serve` with the model of the run, which it looks for in a cache of the Hub."""
    pytest.importorskip("fastapi", reason="transformers' server is not installed")
    cached = tmp_path / "hub" / "models--tests--llama"
    shutil.copytree(base, cached / "snapshots" / "0")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    process = subprocess.Popen(
        [program, "serve", "tests/llama", *options],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")},
    )
    url = f"http://127.0.0.1:{port}/v1"
    try:
        while True:
            assert process.poll() is None, "the server did not start"
            try:
                urllib.request.urlopen(f"{url}/models", timeout=5).close()
                break
            except urllib.error.HTTPError:
                raise
            except OSError:
                time.sleep(0.2)
        yield url
    finally:
        process.kill()
        process.wait()


def test_a_server_that_cannot_tell_its_tokens_is_refused(
    make_policy: MakePolicy, transformers_url: str, tmp_path: Path
) -> None:
    """It serves the model and would complete prompts, but refuses to say with which tokens."""
    expected = "refused to generate: 422, .*return_token_ids.*It has to be vLLM 0.10.2 or newer"
    with pytest.raises(RolloutError, match=expected):
        VLLMEngine(adapted(make_policy), transformers_url, tmp_path / "adapters")
