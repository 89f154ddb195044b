"""The policy: a causal language model, its tokenizer and, with LoRA, its adapter.

It turns prompts into token ids, token ids into log-probabilities, and a model into a folder that
other tools load; `loading.py` makes one of such a folder, or of a name on the Hub.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jinja2 import TemplateError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from judicaita.errors import DataError, ModelError
from judicaita.training.algorithms.logprobs import (
    chunked_logprobs,
    frozen_head_logprobs,
    token_logprobs,
)
from judicaita.training.compatibility import positions_of
from judicaita.training.devices import Placement
from judicaita.training.norms import fused_norms
from judicaita.training.shared_prefix import ATTENTION, Forwarded, attending, can_share
from judicaita.types import Message, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from judicaita.training.batching import TokenBatch


@dataclass
class Policy:
    """A model that answers prompts, and how prompts are put to it."""

    model: PreTrainedModel
    """As transformers or, with an adapter, peft built it."""
    tokenizer: PreTrainedTokenizerBase
    placement: Placement
    system_prompt: str = ""
    chat_template: str = "auto"
    """``auto`` or ``never``, as in the configuration."""
    version: int = 0
    """Optimizer updates behind the present weights."""

    @property
    def eos_ids(self) -> frozenset[int]:
        """Every token id that ends a text: chat models have several, and each one counts."""
        found: set[int] = set()
        generation_config = getattr(self.model, "generation_config", None)
        for ids in (
            getattr(generation_config, "eos_token_id", None),
            getattr(self.model.config, "eos_token_id", None),
            self.tokenizer.eos_token_id,
        ):
            found.update([ids] if isinstance(ids, int) else ids or [])
        return frozenset(found)

    @property
    def eos_id(self) -> int:
        """The one that ends an answer, for texts that are learnt.

        A chat model's template says which: Gemma lists [<eos>, <end_of_turn>], Qwen the other way
        round, and both close a turn with the token of the turn.
        """
        if self._templated:
            turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "ANSWER"}]
            text = str(self.tokenizer.apply_chat_template(turns, tokenize=False))
            tail = text.rpartition("ANSWER")[2]
            for token_id in self.tokenizer(tail, add_special_tokens=False)["input_ids"]:
                if token_id in self.eos_ids:
                    return int(token_id)
        own = self.tokenizer.eos_token_id
        return int(own) if own is not None else min(self.eos_ids)

    @property
    def _templated(self) -> bool:
        """Whether prompts go through a chat template."""
        return self.chat_template == "auto" and bool(self.tokenizer.chat_template)

    @property
    def pad_id(self) -> int:
        """Fills tensors; masks come from lengths, never from this id."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else min(self.eos_ids, default=0)

    @property
    def max_positions(self) -> int | None:
        """Prompt and completion together fit into so many tokens, as far as the model says."""
        return positions_of(self.model.config)

    @property
    def is_adapter(self) -> bool:
        """True when a LoRA adapter is being trained or used."""
        return hasattr(self.model, "peft_config")

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids of a prompt, the generation prompt of the chat template included."""
        if not isinstance(prompt, str) and not self._templated:
            raise DataError(
                "a conversational prompt needs a chat template, and this model's tokenizer has "
                "none (or chat_template=never). Use plain prompts, or a chat model."
            )
        if self._templated:
            return self._encode_chat(
                ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt
            )
        text = f"{self.system_prompt}\n\n{prompt}" if self.system_prompt else str(prompt)
        return tuple(self.tokenizer(text)["input_ids"])

    def _encode_chat(self, turns: Sequence[Message]) -> tuple[int, ...]:
        messages = [dict(turn) for turn in turns]
        if self.system_prompt and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": self.system_prompt})
        if messages[0]["role"] == "system" and not self._template_takes_system():
            system = messages.pop(0)["content"]
            messages = messages or [{"role": "user", "content": ""}]
            messages[0]["content"] = f"{system}\n\n{messages[0]['content']}".rstrip()
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise DataError(
                f"the model's chat template refuses a conversation of the turns {roles} ({error}). "
                "Mend the prompt's turns, or use a plain prompt."
            ) from error
        # The template writes the special tokens itself; the tokenizer must not add a second BOS.
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _template_takes_system(self) -> bool:
        """Whether the chat template knows a system role: Gemma's raises on one, others drop it."""
        probe = [{"role": "system", "content": "SYSTEM"}, {"role": "user", "content": "U"}]
        try:
            return "SYSTEM" in str(self.tokenizer.apply_chat_template(probe, tokenize=False))
        except TemplateError:
            return False

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def token_at(self, token_ids: Sequence[int], offset: int) -> int:
        """Index of the token that begins character ``offset`` of the decoded text.

        ``len(token_ids)`` where the text has no such character. Found by bisection over decoded
        prefixes, which grow with every token: tokenizers that decode a text need not be able to say
        where each token ended.
        """
        low, high = 0, len(token_ids)
        while low < high:
            middle = (low + high) // 2
            if len(self.decode(token_ids[: middle + 1])) > offset:
                high = middle
            else:
                low = middle + 1
        return low

    def logprobs(
        self,
        batch: TokenBatch,
        temperature: float,
        forwarded: Forwarded | None = None,
        *,
        entropy_gradient: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy of every completion token, both [B, T], in nats.

        Where the model allows it, a prompt that several rows share is forwarded once for all of
        them, and not at all where it has been ``forwarded`` by these weights before. Entries
        outside the batch's mask are meaningless. A backward pass belongs inside of the same
        `training_pass`; it goes through the entropy only where asked for.
        """
        if not self.knows_architecture:
            return self._logprobs_of_any_model(batch, temperature, entropy_gradient)
        mask_B_T = batch.mask_B_T
        with self.placement.autocast(), self.training_pass(batch):
            packed = batch.shares_prompts
            hidden_N_D = self._hidden_of_packed(batch, forwarded) if packed else self._hidden(batch)
            targets_N = batch.completion_ids_B_T[mask_B_T]
            if any(p.requires_grad for p in self._causal.get_output_embeddings().parameters()):
                vocabulary = self._causal.config.vocab_size
                found = chunked_logprobs(
                    self.head, hidden_N_D, targets_N, temperature, vocabulary, entropy_gradient
                )
            else:
                found = frozen_head_logprobs(
                    self.head, hidden_N_D, targets_N, temperature, entropy_gradient
                )
        logprobs_B_T, entropy_B_T = (
            values_N.new_zeros(mask_B_T.shape).masked_scatter(mask_B_T, values_N)
            for values_N in found
        )
        return logprobs_B_T, entropy_B_T

    @property
    def knows_architecture(self) -> bool:
        """Whether a training pass can share prompts and compute log-probabilities in chunks."""
        # XLA compiles a graph for every new length, and what is packed hardly ever has the same.
        return can_share(self.model) and self.placement.device.type != "xla"

    @contextlib.contextmanager
    def training_pass(self, batch: TokenBatch) -> Iterator[None]:
        """Around `logprobs` and the backward pass behind it, in which layers with checkpointed
        activations run once more, and have to attend as they did."""
        is_shared = self.knows_architecture and batch.shares_prompts
        attention = self.attending(ATTENTION) if is_shared else contextlib.nullcontext()
        with attention, fused_norms(self.model):
            yield

    @property
    def _causal(self) -> Any:
        """The causal model itself, LoRA's matrices in its layers included."""
        return self.model.get_base_model() if self.is_adapter else self.model  # type: ignore[operator]

    @contextlib.contextmanager
    def attending(self, name: str) -> Iterator[None]:
        """Within it the model attends as what transformers knows under the name does."""
        with attending(self._causal, name):
            yield

    def hidden(self, ids_B_L: Tensor, positions_B_L: Tensor, **for_attention: Any) -> Tensor:
        """States behind the last layer, [B, L, D]; what else is given reaches the attention."""
        states_B_L_D: Tensor = (
            self._causal.get_decoder()(
                input_ids=ids_B_L, position_ids=positions_B_L, use_cache=False, **for_attention
            )
        ).last_hidden_state
        return states_B_L_D

    def head(self, hidden_N_D: Tensor) -> Tensor:
        """What a model of the known architectures makes of hidden states: logits, [N, V]."""
        logits_N_V: Tensor = self._causal.get_output_embeddings()(hidden_N_D)
        softcap = getattr(self._causal.config, "final_logit_softcapping", None)
        return logits_N_V if softcap is None else softcap * torch.tanh(logits_N_V / softcap)

    def _hidden_of_packed(self, batch: TokenBatch, forwarded: Forwarded | None) -> Tensor:
        """The hidden state that predicts each of the N completion tokens, [N, D]."""
        packed = batch.packed_behind(forwarded)
        states = [] if forwarded is None else [forwarded.last_B_D]
        if packed.input_ids_1_S.numel():  # nothing is left of forwarded prompts' single tokens
            ids, positions = packed.input_ids_1_S, packed.position_ids_1_S
            states += [*self.hidden(ids, positions, packed=packed, forwarded=forwarded)]
        # By index_select, whose gradient is summed in order: a prompt's last token is picked once
        # for each completion, and with plain indexing several threads would add these up at once.
        return torch.cat(states).index_select(0, packed.sources_N)

    def _hidden(self, batch: TokenBatch) -> Tensor:
        """The same of padded rows, each a prompt and its completion."""
        hidden_B_L_D = self.hidden(
            batch.input_ids_B_L,
            batch.position_ids_B_L,
            attention_mask=batch.attention_mask_B_L,
        )
        length_T = batch.completion_ids_B_T.shape[1]
        # Token t is predicted at the position before it; the last one predicts nothing.
        return hidden_B_L_D[:, -length_T - 1 : -1][batch.mask_B_T]

    def _logprobs_of_any_model(
        self, batch: TokenBatch, temperature: float, entropy_gradient: bool = False
    ) -> tuple[Tensor, Tensor]:
        length_T = batch.completion_ids_B_T.shape[1]
        with self.placement.autocast():
            output = self.model(
                input_ids=batch.input_ids_B_L,
                attention_mask=batch.attention_mask_B_L,
                position_ids=batch.position_ids_B_L,
                use_cache=False,
                logits_to_keep=length_T + 1,
            )
        logits_B_T_V, targets_B_T = output.logits[:, :-1], batch.completion_ids_B_T
        return token_logprobs(logits_B_T_V, targets_B_T, temperature, entropy_gradient)

    @contextlib.contextmanager
    def reference(self) -> Iterator[None]:
        """Within it the model is its own reference: adapter off, dropout off, no gradients."""
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad(), self.model.disable_adapter():  # type: ignore[operator]
                yield
        finally:
            self.model.train(was_training)

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        """Within it dropout is off and no gradients are recorded."""
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad(), self.placement.autocast(), fused_norms(self.model):
                yield
        finally:
            self.model.train(was_training)

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """Names and parameters that learn."""
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    def save(self, folder: Path) -> None:
        """Write model or adapter (safetensors) and tokenizer, as plain transformers and peft do."""
        # Embeddings never learn here; to find out by itself, peft would ask the Hub at every save.
        own: dict[str, Any] = {"save_embedding_layers": False} if self.is_adapter else {}
        with quietly():
            state = self.placement.savable(self.model)
            self.model.save_pretrained(folder, state_dict=state, **own)
            self.tokenizer.save_pretrained(folder)

    def load_weights(self, folder: Path) -> None:
        """Take over the weights that `save` wrote of the same model, bit for bit."""
        try:
            if self.is_adapter:
                self._load_adapter(folder)
                return
            with quietly():
                saved = AutoModelForCausalLM.from_pretrained(
                    folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
                )
            self.model.load_state_dict(saved.state_dict())
        except Exception as error:
            raise ModelError(
                f"{folder}: its weights do not fit this model ({first_line(error)}). Give the "
                "settings of the run that wrote it."
            ) from error

    def _load_adapter(self, folder: Path) -> None:
        from peft import load_peft_weights, set_peft_model_state_dict

        weights = load_peft_weights(str(folder))
        result: Any = set_peft_model_state_dict(self.model, weights)
        # peft is content with a part: a folder with fewer layers would leave the others at 0.
        if result.unexpected_keys or len(weights) != len(self.trainable()):
            raise ValueError(
                f"it holds {len(weights)} matrices and the adapter has {len(self.trainable())}"
            )


@contextlib.contextmanager
def quietly(*, bars: bool = False) -> Iterator[None]:
    """Within it transformers reports by exceptions alone; ``bars`` leaves its progress bars on.

    peft's use of names that transformers is about to change is theirs to settle, too.
    """
    shown = transformers_logging.is_progress_bar_enabled()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    if not bars:
        transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shown:
            transformers_logging.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """What an error of a library says, as far as it fits into a sentence of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".:") if lines else type(error).__name__
