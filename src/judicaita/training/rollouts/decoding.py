"""From a batch's prompts to the logits of one next token after the other.

R  rows that are still going     B  prompts     S  their tokens, one behind the other
H  heads, K of keys              D  numbers of a head    C  tokens for which a cache has room
N  rows at the beginning         V  the vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from judicaita.training import shared_prefix
from judicaita.training.kernels import at_least_float32, attend_next, is_built
from judicaita.training.policy import Policy
from judicaita.training.shared_prefix import pack

ATTENTION = "judicaita_decoding"
"""The name under which transformers finds `attend`."""

_FIRST_CAPACITY = 64
"""C at the beginning; it doubles when it is full."""

_COMPACT_SHARE = 0.25
"""Of the rows of a cache must have finished before it is compacted, which copies it."""


class Decoder(Protocol):
    """The model, and what it remembers of a batch."""

    def prefill(self) -> Tensor:
        """Logits of the first token, [R, V]: the same for all rows of a prompt."""
        ...

    def keep(self, rows: Sequence[int]) -> bool:
        """Go on with these of the rows alone; False where that is not worth it yet."""
        ...

    def step(self, tokens_R: Tensor) -> Tensor:
        """Logits of the token after these, [R, V]."""
        ...


def decoder_of(policy: Policy, prompts: Sequence[tuple[int, ...]], n: int) -> Decoder:
    """The fastest one for the policy's model and device."""
    placement = policy.placement
    known = policy.knows_architecture and placement.compute != torch.float16
    shares = known and placement.device.type == "cpu"
    return (SharedDecoder if shares and is_built() else CachedDecoder)(policy, prompts, n)


class CachedDecoder:
    """Any model, with transformers' own cache: prefilled once for a prompt, and copied."""

    def __init__(self, policy: Policy, prompts: Sequence[tuple[int, ...]], n: int) -> None:
        self.policy, self.prompts, self.n = policy, prompts, n
        # Without the configuration every layer's cache is whole; the window is then in the mask.
        cuts = policy.placement.cuts_caches
        self.cache = DynamicCache(config=policy.model.config if cuts else None)

    def prefill(self) -> Tensor:
        """Prompts side by side, padded at their beginning; then a copy for each row."""
        longest = max(map(len, self.prompts))
        ids_B_L = torch.full((len(self.prompts), longest), self.policy.pad_id)
        attention_B_L = torch.zeros_like(ids_B_L)
        for row, prompt in enumerate(self.prompts):
            ids_B_L[row, longest - len(prompt) :] = torch.tensor(prompt)
            attention_B_L[row, longest - len(prompt) :] = 1
        positions_B_L = (attention_B_L.cumsum(dim=1) - 1).clamp(min=0)
        ids, attention, positions = (
            tensor.to(self.policy.placement.device)
            for tensor in (ids_B_L, attention_B_L, positions_B_L)
        )
        logits_B_V = self._forward(ids, attention, positions)
        self.cache.batch_repeat_interleave(self.n)
        self.attention_R_L = attention.repeat_interleave(self.n, 0)
        self.position_R = positions[:, -1].repeat_interleave(self.n, 0)
        return logits_B_V.repeat_interleave(self.n, 0)

    def keep(self, rows: Sequence[int]) -> bool:
        """Once a quarter has finished: the cache is copied."""
        if len(rows) > (1 - _COMPACT_SHARE) * len(self.position_R):
            return False
        index_R = torch.tensor(rows, device=self.position_R.device)
        self.cache.batch_select_indices(index_R)
        self.attention_R_L, self.position_R = self.attention_R_L[index_R], self.position_R[index_R]
        return True

    def step(self, tokens_R: Tensor) -> Tensor:
        """The cache grows by a token, which copies it, too."""
        one_R_1 = self.attention_R_L.new_ones(len(tokens_R), 1)
        self.attention_R_L = torch.cat([self.attention_R_L, one_R_1], dim=1)
        self.position_R = self.position_R + 1
        ids_R_1 = tokens_R.to(self.position_R.device)[:, None]
        return self._forward(ids_R_1, self.attention_R_L, self.position_R[:, None])

    def _forward(self, ids: Tensor, attention: Tensor, positions: Tensor) -> Tensor:
        output = self.policy.model(
            input_ids=ids,
            attention_mask=attention,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1].float()
        self.policy.placement.flush()
        return logits


class SharedDecoder:
    """Models whose attention is known, on a processor: a prompt's keys and values are there once.

    Prompts of any length go through the model in one row, without padding. A row that has finished
    leaves at once: nothing is copied for that, since each row has a slot of its own.
    """

    def __init__(self, policy: Policy, prompts: Sequence[tuple[int, ...]], n: int) -> None:
        self.policy, self.prompt_ids, self.n = policy, tuple(prompts), n
        # Of a completion of one token nothing is packed.
        self.packed = pack([(prompt, (0,)) for prompt in prompts], torch.device("cpu"))
        last_R = self.packed.sources_N.repeat_interleave(n)
        self.lengths_R = self.packed.position_ids_1_S[0, last_R] + 1
        self.starts_R = last_R + 1 - self.lengths_R
        self.slots = len(last_R)
        """N: rows that have left keep theirs."""
        self.slots_R = torch.arange(self.slots)
        self.generated = 0
        """Tokens of each row that went through the model."""
        self.last_B_D: Tensor
        """The state behind the last layer of each prompt's last token."""
        self.states: dict[int, tuple[Tensor, Tensor]] = {}
        """Keys and values of each layer as the model made them, [1, K, S, D], if with gradients."""
        self.prompts: dict[int, tuple[Tensor, Tensor]] = {}
        """Keys [K, D, S] and values [K, S, D] of each layer."""
        self.own: dict[int, tuple[Tensor, Tensor]] = {}
        """The same of each slot, [N, K, D, C] and [N, K, C, D]."""

    def prefill(self) -> Tensor:
        """Prompts behind each other, as in a training pass."""
        hidden_1_S_D = self._hidden(self.packed.input_ids_1_S, self.packed.position_ids_1_S)
        self.last_B_D = hidden_1_S_D[0, self.packed.sources_N]
        with torch.no_grad():
            logits_B_V = self.policy.head(self.last_B_D)
        return at_least_float32(logits_B_V).repeat_interleave(self.n, 0)

    def keep(self, rows: Sequence[int]) -> bool:
        """Always."""
        index_R = torch.tensor(rows)
        self.lengths_R, self.starts_R, self.slots_R = (
            values_R[index_R] for values_R in (self.lengths_R, self.starts_R, self.slots_R)
        )
        return True

    def step(self, tokens_R: Tensor) -> Tensor:
        """A token of each row is a batch of its own."""
        positions_R = self.lengths_R + self.generated
        hidden_R_1_D = self._hidden(tokens_R[:, None], positions_R[:, None])
        self.generated += 1
        return at_least_float32(self.policy.head(hidden_R_1_D[:, 0]))

    def _hidden(self, ids: Tensor, positions: Tensor) -> Tensor:
        with self.policy.attending(ATTENTION):
            return self.policy.hidden(ids, positions, decoder=self)

    def remember(self, layer: int, key_1_K_S_D: Tensor, value_1_K_S_D: Tensor) -> None:
        """The prompts' keys and values."""
        if torch.is_grad_enabled():
            self.states[layer] = key_1_K_S_D, value_1_K_S_D
        key_K_S_D, value_K_S_D = (
            at_least_float32(x[0].detach()) for x in (key_1_K_S_D, value_1_K_S_D)
        )
        self.prompts[layer] = key_K_S_D.mT.contiguous(), value_K_S_D.contiguous()

    def caches(self, layer: int) -> tuple[Tensor, Tensor]:
        """Of the rows' own keys and values, with room for one more token."""
        keys_K_D_S, values_K_S_D = self.prompts[layer]
        if layer not in self.own:
            slots, (heads, width, _) = self.slots, keys_K_D_S.shape
            self.own[layer] = (
                keys_K_D_S.new_empty(slots, heads, width, _FIRST_CAPACITY),
                values_K_S_D.new_empty(slots, heads, _FIRST_CAPACITY, values_K_S_D.shape[-1]),
            )
        keys_N_K_D_C, values_N_K_C_D = self.own[layer]
        if keys_N_K_D_C.shape[-1] == self.generated:
            self.own[layer] = (
                torch.cat([keys_N_K_D_C, torch.empty_like(keys_N_K_D_C)], dim=-1),
                torch.cat([values_N_K_C_D, torch.empty_like(values_N_K_C_D)], dim=-2),
            )
        return self.own[layer]


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    decoder: SharedDecoder,
    scaling: float,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: of all prompts, [1, H, S, D], then of one more token of
    each row, [R, H, 1, D]; returns heads behind tokens, and no weights."""
    del attention_mask, rest
    layer: int = module.layer_idx  # type: ignore[assignment]
    if layer not in decoder.prompts:
        decoder.remember(layer, key, value)
        return shared_prefix.attend(
            module,
            *(query, key, value, None),
            packed=decoder.packed,
            scaling=scaling,
            softcap=softcap,
            sliding_window=sliding_window,
        )
    query_R_H_D, key_R_K_D, value_R_K_D = (
        at_least_float32(x[:, :, 0]).contiguous() for x in (query, key, value)
    )
    seen_R_H_D = attend_next(
        query_R_H_D,
        key_R_K_D,
        value_R_K_D,
        *decoder.prompts[layer],
        *decoder.caches(layer),
        decoder.starts_R,
        decoder.lengths_R,
        decoder.slots_R,
        decoder.generated,
        sliding_window,
        scaling,
        softcap,
    )
    return seen_R_H_D[:, None].to(value.dtype), None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
