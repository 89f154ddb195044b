"""Fixtures that several rooms share."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from judicaita.training.policy import Policy


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Public data sets kept beside the repository; tests that need them skip without."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the public data sets are not at {folder}")
    return folder


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Path]:
    """The folder of LegalBench's repository on an imitation of the Hub, whose port stands in
    ``tmp_path / "port"``; the server answers as long as the test runs."""
    repository = tmp_path / "hub" / "datasets" / "nguha" / "legalbench"
    (repository / "main").mkdir(parents=True)
    (repository / "main" / "README.md").write_text("# LegalBench\n")
    port = tmp_path / "port"
    server = Path(__file__).with_name("hub_server.py")
    process = subprocess.Popen([sys.executable, str(server), str(tmp_path / "hub"), str(port)])
    while not port.exists():
        assert process.poll() is None, "the server did not start"
        time.sleep(0.02)
    yield repository
    process.kill()
    process.wait()


# Random models small enough to build in milliseconds. Soft-caps and initial weights are set so that
# every part matters: with the usual ones a random model is uniform, and a bug in it stays unseen.

SPECIAL_TOKENS = (
    *("<pad>", "<eos>", "<bos>"),
    *("<start_of_turn>", "<end_of_turn>", "<|im_start|>", "<|im_end|>"),
)
CORPUS = (
    "Step 1: The plaintiff is a citizen of Ohio and the defendant of Texas.",
    "Step 2: The amount in controversy exceeds $75,000.",
    "Conclusion: Yes",
    "Conclusion: No",
)
CHAT_TEMPLATES = {
    # As Gemma's: it writes the BOS itself and refuses a system turn.
    "gemma": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}\
{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}\
{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' \
+ message['content'] + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}\
{{ '<start_of_turn>model\\n' }}{% endif %}""",
    # As Qwen's: no BOS, any role.
    "chatml": """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' \
+ message['content'] + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}\
{{ '<|im_start|>assistant\\n' }}{% endif %}""",
}
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
GEMMA2: dict[str, Any] = {
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 6,
    "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": 8.0,
}
"""Layer 0 sees 6 tokens back, fewer than any prompt with its completion; layer 1 sees all."""
GEMMA3: dict[str, Any] = {
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 6,
    "layer_types": ["sliding_attention", "full_attention"],
}


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """A byte-level BPE tokenizer; ``template`` is None, ``gemma`` or ``chatml``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    def make(template: str | None = None) -> PreTrainedTokenizerFast:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(CORPUS, trainer)
        if template != "chatml":
            tokenizer.post_processor = processors.TemplateProcessing(
                single="<bos> $A", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
            )
        wrapped = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>"
        )
        wrapped.chat_template = CHAT_TEMPLATES.get(template or "")
        return wrapped

    return make


@pytest.fixture(scope="session")
def make_model() -> Callable[..., PreTrainedModel]:
    """A random model of 30,000 parameters in float32, of one of the architectures below.

    GPT-2 is the one whose positions are absolute: rotary ones forgive a row that is shifted.
    """
    import torch
    import transformers as hf

    classes = {
        "gemma2": (hf.Gemma2Config, hf.Gemma2ForCausalLM, GEMMA2),
        "gemma3": (hf.Gemma3TextConfig, hf.Gemma3ForCausalLM, GEMMA3),
        "llama": (hf.LlamaConfig, hf.LlamaForCausalLM, {}),
        "mistral": (hf.MistralConfig, hf.MistralForCausalLM, {"sliding_window": 6}),
        "qwen2": (hf.Qwen2Config, hf.Qwen2ForCausalLM, {}),
        "qwen3": (hf.Qwen3Config, hf.Qwen3ForCausalLM, {"head_dim": 8}),
        "gpt2": (hf.GPT2Config, hf.GPT2LMHeadModel, {}),
    }

    def make(architecture: str = "gemma2", *, vocabulary: int = 320, seed: int = 0) -> Any:
        config_class, model_class, extra = classes[architecture]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = model_class(config_class(vocab_size=vocabulary, **SIZES, **extra))
            # Norms and biases start at 0 or 1, where leaving them out would go unseen.
            for name, parameter in model.named_parameters():
                if parameter.ndim == 1:
                    torch.nn.init.normal_(parameter, 0.0 if "bias" in name else 0.5, 0.2)
            if architecture == "gemma2":
                # Tied to the head, large embeddings answer every token with itself.
                model.model.embed_tokens.weight.data.mul_(0.25)
                model.model.norm.weight.data.add_(4)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def make_policy(
    make_model: Callable[..., PreTrainedModel],
    make_tokenizer: Callable[..., PreTrainedTokenizerFast],
) -> Callable[..., Policy]:
    """A `Policy` on the CPU; keyword arguments other than these are the policy's own."""
    from judicaita.training.devices import place
    from judicaita.training.policy import Policy

    def make(
        architecture: str = "gemma2", *, template: str | None = None, seed: int = 0, **settings: Any
    ) -> Policy:
        model = make_model(architecture, seed=seed)
        return Policy(model, make_tokenizer(template), place("cpu", "fp32"), **settings)

    return make


@pytest.fixture(scope="session")
def with_adapter() -> Callable[..., Policy]:
    """Puts LoRA on queries, values and outputs, its B no longer 0; a first layer's keys then have
    no gradient."""
    import warnings

    import torch
    from peft import LoraConfig, get_peft_model

    def add(policy: Policy, dropout: float = 0.0) -> Policy:
        lora = LoraConfig(r=4, lora_dropout=dropout, target_modules=["q_proj", "v_proj", "o_proj"])
        torch.manual_seed(0)
        with warnings.catch_warnings():
            # Of transformers, about a property that peft still asks for.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            policy.model = get_peft_model(policy.model, lora)  # type: ignore[assignment, arg-type]
        for name, parameter in policy.trainable():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        return policy

    return add


@pytest.fixture(scope="session")
def upcasts() -> Callable[[str], AbstractContextManager[Any]]:
    """What becomes of the upcasts to float32 inside the stock modules while a float64 model runs.

    Norms, softmax and rotary embeddings are written for models of 16 bits and round a float64 model
    to 7 digits. ``as they are`` leaves that, and only keeps the mask of a float64 model, whose
    −1.8e308 overflows float32 into a row of NaN. ``to float64`` promotes them all, so that what is
    left of a difference is arithmetic and not rounding.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    lowest = torch.finfo(torch.float32).min

    class Upcasts(TorchFunctionMode):
        def __init__(self, treatment: str) -> None:
            super().__init__()
            self.promote = {"as they are": False, "to float64": True}[treatment]

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = dict(kwargs or {})
            if self.promote:
                if func is torch.Tensor.float:
                    func = torch.Tensor.double
                args = [torch.float64 if arg is torch.float32 else arg for arg in args]
                if kwargs.get("dtype") is torch.float32:
                    kwargs["dtype"] = torch.float64
            elif func is torch.nn.functional.softmax:
                args = [args[0].clamp(min=lowest), *args[1:]]
            return func(*args, **kwargs)

    return Upcasts


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the embedded model after two steps of its supervised stage: built in a second,
    and it knows nothing."""
    from judicaita.training.embedded import Recipe, tiny_folder

    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("platformdirs.user_cache_path", lambda _: cache)
        return tiny_folder(Recipe(steps=2))


@pytest.fixture
def quick_tiny(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let ``base_model="tiny"`` mean `tiny_model`, whose folder this is."""
    monkeypatch.setattr("judicaita.training.embedded.tiny_folder", lambda: tiny_model)
    return tiny_model
