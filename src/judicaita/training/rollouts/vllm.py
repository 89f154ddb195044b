"""Generation by a vLLM server, which takes over the adapter after every update.

The server runs by itself, on this machine or on one that sees the same folders:

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve MODEL --enable-lora --max-lora-rank 16
"""

from __future__ import annotations

import os
import random
import shutil
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch

from judicaita.errors import ConfigError, RolloutError
from judicaita.training.policy import Policy
from judicaita.training.rollouts.base import SamplingParams
from judicaita.types import Completion, FinishReason

_AT_ONCE = 64
"""Prompts that the server is asked for at the same time; it makes batches of them itself."""

_RETRIES = 4
"""Of a request that failed on its way; between them the client waits longer and longer."""

_PROBE = "The plaintiff is a citizen of Ohio and the defendant is a citizen of"

_SAME_MODEL = 0.5
"""Nats by which a server's log-probability may differ from ours: 16 bits cost .02 to .1."""

_CHANGED = 1e-3
"""Nats by which an adapter of noise has to change a log-probability."""


class VLLMEngine:
    """One server by its address. It has to serve the policy's base model."""

    def __init__(
        self,
        policy: Policy,
        url: str,
        folder: Path,
        *,
        timeout: float = 600.0,
        pulse: Callable[[], None] = lambda: None,
    ) -> None:
        """Find the server and make sure of what it serves.

        Args:
            policy: With an adapter.
            url: Up to and with ``/v1``. A key is taken from ``VLLM_API_KEY``.
            folder: For adapters on their way; the server reads it under the same name.
            timeout: Seconds for one request.
            pulse: Called while the server is waited for; what it raises ends the batch.

        Raises:
            ConfigError: Without the client, or without an adapter.
            RolloutError: A server that can't be reached, serves another model, or has a way with
                adapters that leaves its log-probabilities as they were.
        """
        try:
            import openai
        except ModuleNotFoundError:
            raise ConfigError(
                "rollout_engine=vllm: the client is not installed. Install it with "
                '`pip install "judicaita[vllm]"`.'
            ) from None
        if not policy.is_adapter:
            raise ConfigError(
                "rollout_engine=vllm with full fine-tuning: a server takes over adapters alone. "
                "Set use_lora=True, or rollout_engine=native."
            )
        self.policy, self.url, self.folder, self.pulse = policy, url, folder, pulse
        self._client = openai.OpenAI(
            base_url=url,
            api_key=os.environ.get("VLLM_API_KEY") or "none",
            timeout=timeout,
            max_retries=_RETRIES,
        )
        # A server may still hold adapters of a run that was killed.
        self._run = f"judicaita-{uuid.uuid4().hex[:8]}"
        self._adapter: str | None = None
        self._version = -1
        try:
            self._base = self._first_model()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._check_model()
            self._check_adapters()
            self._tells_processed = self._probe(self._base, top_k=1)[1] > -1e-6
            self.sync()
        except BaseException:
            self._client.close()
            raise

    # ── what the server serves ───────────────────────────────────────────────────────────────────

    def _first_model(self) -> str:
        served = self._ask("list its models", lambda: self._client.models.list().data)
        bases = [model.id for model in served if not getattr(model, "parent", None)]
        if not bases:
            raise RolloutError(f"the server at {self.url} serves no model. Start it with one.")
        return str(bases[0])

    def _probe(self, model: str, *, top_k: int = 0) -> tuple[int, float]:
        """A next token and its log-probability (nats)."""
        prompt = tuple(self.policy.tokenizer(_PROBE)["input_ids"])
        # Greedy but for top_k, which is to be seen in the log-probability.
        sampling = SamplingParams(1, temperature=float(top_k > 0), top_k=top_k)
        [completion] = self._complete(model, prompt, 1, sampling, seed=0)
        return completion.token_ids[0], completion.logprobs[0]

    def _check_model(self) -> None:
        token, theirs = self._probe(self._base)
        ids = torch.tensor([self.policy.tokenizer(_PROBE)["input_ids"]])
        with self.policy.inference(), self.policy.reference():
            logits = self.policy.model(ids.to(self.policy.placement.device)).logits[0, -1].float()
        ours = float(logits.log_softmax(-1)[token])
        if abs(ours - theirs) > _SAME_MODEL:
            raise RolloutError(
                f"the server at {self.url} serves {self._base}, which is not the base of this "
                f"policy: for the same token it tells {theirs:.2f} nats and the policy {ours:.2f}. "
                "Start it with the base_model of the run."
            )

    def _check_adapters(self) -> None:
        """An adapter of noise has to change what the server tells."""
        from safetensors.torch import load_file, save_file

        folder = self.folder / f"{self._run}-probe"
        self.policy.save(folder)
        weights = load_file(folder / "adapter_model.safetensors")
        generator = torch.Generator().manual_seed(0)
        for name, weight in weights.items():
            if "lora_B" in name:
                noise = torch.randn(weight.shape, generator=generator) * 0.1
                weights[name] = weight + noise.to(weight.dtype)
        save_file(weights, folder / "adapter_model.safetensors")
        self._load(folder.name, folder)
        try:
            token, plain = self._probe(self._base)
            other, changed = self._probe(folder.name)
        finally:
            self._unload(folder.name, folder)
        if other == token and abs(changed - plain) < _CHANGED:
            raise RolloutError(
                f"the server at {self.url} took an adapter and answers as if it had none, so that "
                "it would generate from the base model for ever. Start it with --enable-lora and a "
                "--max-lora-rank that is not below lora_r."
            )

    def sync(self) -> None:
        """Hand the adapter over as it is now, and let go of the one before."""
        name = f"{self._run}-{self.policy.version}"
        if name == self._adapter:
            return
        self.policy.save(self.folder / name)
        self._load(name, self.folder / name)
        before, self._adapter, self._version = self._adapter, name, self.policy.version
        if before is not None:
            self._unload(before, self.folder / before)

    def _load(self, name: str, folder: Path) -> None:
        body = {"lora_name": name, "lora_path": str(folder.resolve())}
        self._ask(
            f"take over the adapter {name}",
            lambda: self._client.post("/load_lora_adapter", body=body, cast_to=str),
        )

    def _unload(self, name: str, folder: Path) -> None:
        self._ask(
            f"let go of the adapter {name}",
            lambda: self._client.post(
                "/unload_lora_adapter", body={"lora_name": name}, cast_to=str
            ),
        )
        shutil.rmtree(folder)

    # ── generation ───────────────────────────────────────────────────────────────────────────────

    def generate(
        self, prompts: Sequence[tuple[int, ...]], n: int, sampling: SamplingParams
    ) -> list[tuple[Completion, ...]]:
        """``n`` completions of each prompt by the adapter that `sync` handed over last."""
        assert self._version == self.policy.version, "the policy has changed since `sync`"
        assert self._adapter is not None
        if sampling.cuts or (sampling.temperature not in (0, 1) and not self._tells_processed):
            raise ConfigError(
                "rollout_engine=vllm: the server does not tell the log-probabilities that these "
                "settings need. Leave top_p, top_k and min_p alone; for a temperature other than 1 "
                "start it with --logprobs-mode processed_logprobs."
            )
        seeds = random.Random(sampling.seed)
        pool = ThreadPoolExecutor(_AT_ONCE)
        try:
            asked = [
                # The server adds the number of the completion to the seed.
                pool.submit(
                    self._complete, self._adapter, prompt, n, sampling, seeds.getrandbits(62)
                )
                for prompt in prompts
            ]
            while wait(asked, timeout=0.5, return_when=FIRST_EXCEPTION).not_done:
                self.pulse()
                for each in asked:
                    if each.done():
                        each.result()  # raises what it raised
            return [each.result() for each in asked]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _complete(
        self, model: str, prompt: tuple[int, ...], n: int, sampling: SamplingParams, seed: int
    ) -> tuple[Completion, ...]:
        if sampling.temperature == 0 and n > 1:
            # The server refuses to do the same work twice.
            return self._complete(model, prompt, 1, sampling, seed) * n
        answer = self._ask(
            "generate",
            lambda: self._client.completions.create(
                model=model,
                prompt=list(prompt),
                n=n,
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=seed,
                logprobs=1,
                stop=list(sampling.stop_strings),
                extra_body={
                    "top_k": sampling.top_k,
                    "min_p": sampling.min_p,
                    "stop_token_ids": sorted(self.policy.eos_ids),
                    "include_stop_str_in_output": True,
                    "return_token_ids": True,
                },
            ),
        )
        choices = sorted(answer.choices, key=lambda choice: choice.index)
        if len(choices) != n:
            raise RolloutError(
                f"the server at {self.url} was asked for {n} completions and gave {len(choices)}. "
                "Use vLLM's own server."
            )
        return tuple(self._completion(choice) for choice in choices)

    def _completion(self, choice: Any) -> Completion:
        token_ids = getattr(choice, "token_ids", None)
        logprobs = getattr(choice.logprobs, "token_logprobs", None)
        if token_ids is None or logprobs is None or len(token_ids) != len(logprobs):
            raise RolloutError(
                f"the server at {self.url} does not tell the ids and log-probabilities of its "
                "tokens, without which nothing can be learned from them. Use vLLM 0.10.2 or newer."
            )
        reasons: dict[str, FinishReason] = {"length": "length", "stop": "stop"}
        reason = reasons.get(choice.finish_reason)
        if reason is None:
            raise RolloutError(
                f"the server at {self.url} broke a completion off ({choice.finish_reason}). Look "
                "into its log."
            )
        if isinstance(getattr(choice, "stop_reason", None), str):
            reason = "stop_string"
        return Completion(tuple(token_ids), tuple(logprobs), reason, self._version)

    def _ask(self, what: str, call: Callable[[], Any]) -> Any:
        """What the server answers, or a sentence; the client has tried again by then."""
        import openai

        try:
            return call()
        except openai.APITimeoutError as error:
            raise RolloutError(
                f"the vLLM server at {self.url} did not answer in time when asked to {what}. Raise "
                "rollout_timeout, or look into its log."
            ) from error
        except openai.APIConnectionError as error:
            raise RolloutError(
                f"the vLLM server at {self.url} can't be reached to {what}. Start it, or set "
                "rollout_url; a run that had begun goes on by resume=auto."
            ) from error
        except openai.APIStatusError as error:
            raise RolloutError(
                f"the vLLM server at {self.url} refused to {what}: {_reason(error)}. It has to be "
                "vLLM 0.10.2 or newer, started with --enable-lora and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True."
            ) from error

    def close(self) -> None:
        """Let go of the adapter; a server that is gone has done so."""
        if self._adapter is not None:
            name, self._adapter = self._adapter, None
            try:
                self._unload(name, self.folder / name)
            except RolloutError:
                shutil.rmtree(self.folder / name, ignore_errors=True)
        self._client.close()


def _reason(error: Any) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    told = body.get("message") or body.get("error", {}).get("message") or error.response.text
    return (
        f"{error.status_code}, {str(told).strip().splitlines()[0][:200] if told else 'no reason'}"
    )
