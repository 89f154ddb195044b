"""Models and adapters from folders and the Hub: safetensors alone, and errors in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig

from judicaita.errors import ConfigError, ModelError
from judicaita.training.compatibility import refuse_unfit
from judicaita.training.devices import Placement, place
from judicaita.training.durable import verify_if_sealed
from judicaita.training.policy import Policy, first_line, quietly

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from judicaita.training.config import RunConfig


def load_policy(config: RunConfig, base_model: str | None = None) -> Policy:
    """Load the model to train, with its adapter: a new one, ``config.adapter``, or none.

    ``base_model`` stands in for ``config.base_model`` where that is a name for something built
    here. Raises `ModelError` in one sentence for whatever cannot be loaded.
    """
    placement = place(config.device, config.precision)
    if config.gradient_checkpointing and not placement.recomputes:
        raise ConfigError(
            f"gradient_checkpointing: torch has none on device={config.device}. Leave it out, and "
            "to need less memory lower batch_size."
        )
    name = base_model or config.base_model
    # Full fine-tuning keeps float32 masters: a bf16 weight cannot take up an update of 1e-3 of it.
    dtype = placement.compute if config.use_lora else torch.float32
    model, tokenizer = _load(
        name,
        config.model_revision,
        dtype,
        attention=None if config.attention == "auto" else config.attention,
        check=partial(refuse_unfit, config, placement=placement),
    )
    if config.gradient_checkpointing:
        with quietly():
            model.gradient_checkpointing_enable({"use_reentrant": False})
        # Frozen embeddings' output must require a gradient, or checkpointed blocks record none.
        model.enable_input_require_grads()
    if config.use_lora:
        model = _with_adapter(model, config)
    _to_device(model, placement)
    return Policy(model, tokenizer, placement, config.system_prompt, config.chat_template)


def load_policy_for_inference(path: Path | str, device: str = "auto") -> Policy:
    """Load a model folder or Hub name, or an adapter folder on the base model it names."""
    placement = place(device, "auto")
    path = str(path)
    if (Path(path) / "adapter_config.json").is_file():
        base, tokenizer = _load(*_base_of(path), placement.compute, tokenizer_from=path)
        model = _attach(base, path, trainable=False)
    else:
        model, tokenizer = _load(path, None, placement.compute)
    _to_device(model, placement)
    model.eval()
    return Policy(model, tokenizer, placement)


def merge_adapter(path: Path, output: Path) -> None:
    """Write an adapter folder and its base as one model folder, merged in float32."""
    base, tokenizer = _load(*_base_of(str(path)), torch.float32, tokenizer_from=str(path))
    merged = _attach(base, str(path), trainable=False).merge_and_unload()  # type: ignore[operator]
    with quietly():
        merged.save_pretrained(output)
        tokenizer.save_pretrained(output)


def _base_of(path: str) -> tuple[str, str | None]:
    """Name and revision of the model that an adapter was trained on."""
    from peft import PeftConfig

    try:
        adapter = PeftConfig.from_pretrained(path)
        return str(adapter.base_model_name_or_path), adapter.revision
    except Exception as error:
        raise ModelError(
            f"{path}: its adapter_config.json cannot be read ({first_line(error)}). Restore it."
        ) from error


def _load(
    name: str,
    revision: str | None,
    dtype: torch.dtype,
    *,
    tokenizer_from: str | None = None,
    attention: str | None = None,
    check: Callable[[PretrainedConfig], None] | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """``check`` sees the model's configuration before anything large is read, and may raise."""
    is_folder = Path(name).is_dir()
    if is_folder and not (Path(name) / "config.json").is_file():
        raise ModelError(
            f"{name} is a folder without config.json, so no model. Name a model folder."
        )
    if is_folder:
        verify_if_sealed(Path(name))
    where: dict[str, Any] = {
        "revision": revision,
        "trust_remote_code": False,  # None would ask the person at the terminal
        "local_files_only": is_folder or not _hub_answers(name),
    }
    try:
        with quietly():
            model_config = AutoConfig.from_pretrained(name, **where)
        if check is not None:
            check(model_config)
        # A download from the Hub keeps its bars; reading a folder takes a moment.
        with quietly(bars=not is_folder):
            # An adapter's own folder holds its tokenizer, of no revision but its own.
            which = {**where, "revision": None} if tokenizer_from else where
            tokenizer = AutoTokenizer.from_pretrained(tokenizer_from or name, **which)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                # An adapter records where its base is: to be found from any working directory.
                Path(name).absolute() if is_folder else name,
                dtype=dtype,
                attn_implementation=attention,
                use_safetensors=True,  # never a pickle, whoever wrote the folder
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                # It also looks for an adapter of that name, and would ask the Hub regardless.
                adapter_kwargs={"local_files_only": where["local_files_only"]},
                **where,
            )
    except ConfigError:
        raise
    except Exception as error:
        raise ModelError(_why_not_loaded(name, error)) from error
    model, info = loaded
    unfit = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if unfit:
        # transformers fills them with random numbers and goes on.
        raise ModelError(
            f"{name}: {len(unfit)} weights of its architecture are missing or of another shape, "
            f"{unfit[0]} first, so its files do not belong together. Fetch the model anew."
        )
    ids = tokenizer("Conclusion: Yes")["input_ids"]
    if not str(tokenizer.decode(ids, skip_special_tokens=True)).strip():
        # transformers makes an empty tokenizer of a folder that has none.
        raise ModelError(
            f"{tokenizer_from or name}: its tokenizer knows no words, as when tokenizer.json is "
            "missing. Copy the tokenizer's files there."
        )
    return model, tokenizer


def _hub_answers(name: str) -> bool:
    """Ask the Hub once: without a network transformers tries each file six times, for a minute."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        HfApi().model_info(name, timeout=10)
    except (HfHubHTTPError, HFValidationError):
        return True  # what is wrong with the name, loading says
    except Exception:  # noqa: BLE001 - the errors of whatever HTTP library the Hub's client uses
        return False
    return True


def _why_not_loaded(name: str, error: BaseException) -> str:
    """One sentence for the ways in which a model is not to be had."""
    reasons = ""
    cause: BaseException | None = error
    while cause is not None:
        reasons += f"{type(cause).__name__} {cause} "
        cause = cause.__cause__ or cause.__context__
    if "Gated" in reasons:
        return (
            f"{name} is gated: accept its licence on its page, then log in with `hf auth login` "
            "(or set HF_TOKEN)."
        )
    if any(
        word in reasons
        for word in ("ConnectionError", "ConnectError", "couldn't connect", "resolve")
    ):
        return (
            f"{name}: not on this machine, and the Hub cannot be reached. Check the network, or "
            "give the path of a downloaded model folder; `tiny` needs no download."
        )
    if any(
        word in reasons
        for word in ("RepositoryNotFound", "not a valid model identifier", "HFValidation")
    ):
        return (
            f"{name}: no such model folder, nor a model of that name on the Hub. Check the "
            "spelling; `tiny` needs no download."
        )
    return f"{name} cannot be loaded as a causal language model: {first_line(error)}"


def _with_adapter(model: PreTrainedModel, config: RunConfig) -> PreTrainedModel:
    from peft import LoraConfig, get_peft_model

    if config.adapter is not None:
        return _attach(model, str(config.adapter), trainable=True)
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=config.lora_target_modules,
    )
    try:
        with quietly():
            adapted: Any = get_peft_model(model, lora, revision=config.model_revision)
    except ValueError as error:
        modules = ", ".join(config.lora_target_modules)
        raise ModelError(
            f"lora_target_modules={modules}: no such layers here ({first_line(error)})."
        ) from error
    return adapted  # type: ignore[no-any-return]


def _attach(model: PreTrainedModel, adapter: str, *, trainable: bool) -> PreTrainedModel:
    from peft import PeftModel

    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (Path(adapter) / name).is_file():  # without the second peft would load a pickle
            raise ModelError(
                f"{adapter} holds no {name}, so it is no LoRA adapter that can be loaded. Name the "
                "folder that save_checkpoint or peft wrote, in safetensors."
            )
    verify_if_sealed(Path(adapter))
    try:
        with quietly():
            adapted: Any = PeftModel.from_pretrained(model, adapter, is_trainable=trainable)
    except Exception as error:
        raise ModelError(
            f"{adapter} cannot be loaded on its base model: {first_line(error)}"
        ) from error
    return adapted  # type: ignore[no-any-return]


def _to_device(model: PreTrainedModel, placement: Placement) -> None:
    model.to(placement.device)  # type: ignore[arg-type]
    if placement.device.type == "xla":
        # The move copies each tensor apart, which silently unties lm_head from the embeddings.
        model.tie_weights()
