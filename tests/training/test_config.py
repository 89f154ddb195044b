"""The guide's names and defaults, written out by hand; one sentence for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from judicaita.errors import ConfigError
from judicaita.training.config import PROFILES, RunConfig, SFTConfig, TrainingConfig, profile_of
from judicaita.training.settings import resolve

# The training guide's own, one by one.
GUIDE: dict[str, Any] = {
    "base_model": "google/gemma-2-2b-it",
    "model_max_length": 2048,
    "device": "auto",
    "use_lora": True,
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "grpo_tau": 0.1,
    "grpo_gamma": 0.99,
    "num_rollouts": 4,
    "learning_rate": 1e-5,
    "num_epochs": 3,
    "batch_size": 4,
    "gradient_accumulation_steps": 4,
    "max_grad_norm": 1.0,
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "lr_scheduler": "cosine",
    "checkpoint_dir": Path("./checkpoints/grpo"),
    "save_steps": 500,
    "eval_steps": 100,
    "logging_steps": 10,
    "generation_max_length": 512,
    "format_weight": 0.3,
    "outcome_weight": 0.5,
    "verbosity_weight": 0.2,
}
# Where the guide leaves it open, or departs from what is sound (top_p).
OWN: dict[str, Any] = {
    "warmup_steps": 0,
    "temperature": 1.0,
    "top_p": 1.0,
    "beta": 0.0,
    "num_iterations": 1,
    "gradient_checkpointing": False,
    "seed": 0,
    "model_revision": None,
    "max_steps": None,
    "resume": "never",
    "precision": "auto",
    "adapter": None,
    "loss": {"type": "dapo", "clip_low": 0.2, "clip_high": 0.2, "dual_clip": None},
    "advantage": {"type": "z_score", "epsilon": 1e-4},
    "advantage_bound": {"type": "none"},
    "kl": {
        **{"estimator": "k3", "place": "loss", "gradient": "own"},
        **{"target": 0.0, "gain": 0.1},
    },
    "dynamic_sampling": 0,
    "mini_batches": 1,
    "entropy_bonus": 0.0,
    "top_entropy": 1.0,
    "mask_truncated": False,
    "overlong_buffer": None,
    "overlong_penalty": 1.0,
}


def sentence(**values: Any) -> str:
    with pytest.raises(ConfigError) as error:
        TrainingConfig(**values)
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert "validation error" not in text
    return text


def test_defaults_are_the_guide_s() -> None:
    config = TrainingConfig()
    assert {name: getattr(config, name) for name in GUIDE} == GUIDE
    values = config.model_dump()
    assert {name: values[name] for name in OWN} == OWN
    assert config.samples_per_step == 16


def test_supervised_runs_share_the_names() -> None:
    config = SFTConfig()
    shared = {name: GUIDE[name] for name in GUIDE if name in RunConfig.model_fields}
    shared["checkpoint_dir"] = Path("./checkpoints/sft")
    assert {name: getattr(config, name) for name in shared} == shared
    with pytest.raises(ConfigError, match="num_rollouts: no such setting"):
        SFTConfig(num_rollouts=4)


@pytest.mark.parametrize("name", TrainingConfig.model_fields)
def test_every_option_says_what_it_is(name: str) -> None:
    description = TrainingConfig.model_fields[name].description
    assert description
    assert description.endswith(".")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"num_rollouts": 1},
            "num_rollouts=1: group-relative advantage needs at least 2 completions, since one "
            "equals its own mean. Set num_rollouts >= 2 (default 4).",
        ),
        ({"batch_size": 0}, "batch_size=0: should be greater than or equal to 1 (default 4)."),
        ({"grpo_tau": 0}, "grpo_tau=0: should be greater than 0 (default 0.1)."),
        ({"grpo_tau": -1.0}, "grpo_tau=-1.0: should be greater than 0 (default 0.1)."),
        ({"grpo_gamma": 1.5}, "grpo_gamma=1.5: should be less than or equal to 1 (default 0.99)."),
        ({"lora_dropout": 1}, "lora_dropout=1: should be less than 1 (default 0.05)."),
        (
            {"lerning_rate": 1e-3},
            "lerning_rate: no such setting. Did you mean 'learning_rate'? "
            "See docs/configuration.md.",
        ),
        ({"zzz": 1}, "zzz: no such setting. See docs/configuration.md."),
        (
            {"reference_sync_steps": 8},
            "reference_sync_steps=8 with beta=0: nothing is compared with a reference. Set beta "
            "above 0, or leave it out.",
        ),
        (
            {"beta": 0.04, "reference_mixup": 0.6},
            "reference_mixup=0.6 without reference_sync_steps: the reference stays as it is. Set "
            "reference_sync_steps, 1 for a moving average.",
        ),
        (
            {"format_weight": 0, "outcome_weight": 0, "verbosity_weight": 0},
            "format_weight, outcome_weight, verbosity_weight and step_weight are all 0, so nothing "
            "would be rewarded. Set at least one above 0 (defaults 0.3, 0.5, 0.2).",
        ),
        (
            {"format_weight": 0, "outcome_weight": 0, "verbosity_weight": 0}
            | {"step_weight": 1, "step_mode": "per_step"},
            "format_weight, outcome_weight and verbosity_weight are all 0, so nothing would be "
            "rewarded. Set at least one above 0 (defaults 0.3, 0.5, 0.2).",
        ),
        (
            {"step_mode": "gated"},
            "step_mode=gated with step_weight=0: steps are not looked at, so the mode would change "
            "nothing. Set step_weight above 0, or leave the mode out.",
        ),
    ],
)
def test_what_why_and_the_fix(values: dict[str, Any], expected: str) -> None:
    assert sentence(**values) == expected


@pytest.mark.parametrize(
    ("values", "start"),
    [
        ({"device": "gpu"}, "device='gpu': should be 'auto', 'cpu', 'cuda', 'mps' or 'tpu'"),
        (
            {"lr_scheduler": "step"},
            "lr_scheduler='step': should be 'cosine', 'linear', 'constant', 'wsd' or",
        ),
        ({"batch_size": "many"}, "batch_size='many': should be a valid integer"),
        ({"use_lora": "maybe"}, "use_lora='maybe': should be a valid boolean"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: should be"),
        ({"max_grad_norm": float("nan")}, "max_grad_norm=nan: should be"),
        ({"report_to": "wandb,printer"}, "report_to='wandb,printer': unknown tracker 'printer'"),
        ({"lora_target_modules": ""}, "lora_target_modules=[]: List should have at least 1 item"),
        ({"loss": {"clip_low": 1.5}}, "loss.clip_low=1.5: should be less than 1"),
        (
            {"loss": {"type": "dappo"}},
            "loss.type='dappo': there is no such kind. Did you mean 'dapo'? Use one of dapo, grpo,",
        ),
        ({"loss": "grp"}, "loss.type='grp': there is no such kind. Did you mean 'grpo'?"),
        ({"loss": {"delta": 1}}, "loss.delta: no such setting."),
        ({"loss": {"clip_lo": 0.1}}, "loss.clip_lo: no such setting. Did you mean 'loss.clip_low'"),
        ({"loss": 3}, "loss=3: should be one of dapo, grpo, bnpo, dr_grpo, cispo, gspo,"),
        ({"kl": "k1"}, "kl='k1': should be settings such as kl.estimator."),
        (
            {"loss": {"cap": 3}},
            "loss.cap: loss.type=dapo has no such knob, which is one of cispo. Leave cap out, or",
        ),
        ({"loss": {"type": "cispo", "cap": 0}}, "loss.cap=0: should be greater than 0 (default"),
        ({"loss": {"dual_clip": 1.1}}, "loss: dual_clip=1.1 lies within the other bound"),
        (
            {"loss": {"type": "cispo", "clip_low": 0.1}},
            "loss: clip_low is no knob of bound=cap. Leave it out, or set bound=interval.",
        ),
        ({"advantage": "zscore"}, "advantage.type='zscore': there is no such kind. Did you mean"),
        (
            {"advantage": {"type": "centred", "epsilon": 0.1}},
            "advantage.epsilon: advantage.type=centred has no such knob, which is one of z_score,",
        ),
        (
            {"advantage_bound": {"low": 3}},
            "advantage_bound.low: advantage_bound.type=none has no such knob, which is one of clip",
        ),
        ({"kl": {"estimator": "k4"}}, "kl.estimator='k4': should be 'k1', 'k2' or 'k3'."),
        ({"kl": {"estimator": "k1"}, "beta": 0.1}, "kl: k1's own gradient is 0 on average"),
        ({"seed": 2**32}, "seed=4294967296: should be less than 4294967296"),
        ({"eval_fraction": 0}, "eval_fraction=0: should be greater than 0"),
    ],
)
def test_the_sentence_names_the_setting_and_its_value(values: dict[str, Any], start: str) -> None:
    assert sentence(**values).startswith(start)


def test_several_mistakes_are_counted() -> None:
    assert sentence(batch_size=0, num_rollouts=1, top_p=2).endswith(". And 2 more.")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"kl": {"place": "reward"}}, "kl.… with beta=0: there is no penalty. Set beta above 0"),
        ({"overlong_penalty": 0.5}, "overlong_penalty=0.5 without overlong_buffer"),
        ({"overlong_buffer": 600}, "overlong_buffer=600 is more than generation_max_length=512"),
        ({"overlong_buffer": 64, "mask_truncated": True}, "what is punished most would stay out"),
        ({"dynamic_sampling": 2, "num_rollouts": 2}, "dynamic_sampling with num_rollouts=2"),
        ({"dynamic_sampling": 2, "loss": "bnpo"}, "dynamic_sampling with loss.type=bnpo"),
        ({"mini_batches": 3}, "mini_batches=3 of 16 groups a step: they cannot be divided evenly"),
        ({"loss": "gspo", "top_entropy": 0.2}, "loss.type=gspo with top_entropy=0.2"),
        ({"correction": {"cap": 2}}, "correction.cap=2 with correction.type=none"),
        (
            {"advantage": "batch", "step_mode": "per_step", "step_weight": 0.5},
            "advantage.type=batch with step_mode=per_step",
        ),
        (
            {"advantage": "gdpo", "overlong_buffer": 64},
            "advantage.type=gdpo with overlong_buffer=64",
        ),
        (
            {"advantage": "gdpo", "beta": 0.1, "kl": {"place": "reward"}},
            "advantage.type=gdpo with kl.place=reward",
        ),
        ({"advantage": "gdpo", "reward": "a:b"}, "advantage.type=gdpo with reward=a:b"),
        (
            {"advantage": "gdpo", "step_mode": "gated", "step_weight": 0.5},
            "advantage.type=gdpo with step_mode=gated",
        ),
    ],
)
def test_combinations_without_meaning_are_refused(values: dict[str, Any], expected: str) -> None:
    assert expected in sentence(**values)


def test_a_kind_by_its_bare_name() -> None:
    config = TrainingConfig(loss="cispo", advantage="centred", advantage_bound="tanh")
    assert (config.loss.type, config.advantage.type) == ("cispo", "centred")
    assert TrainingConfig(loss={"clip_high": 0.28}).loss.type == "dapo"


def test_lists_from_one_string() -> None:
    config = TrainingConfig(lora_target_modules="q_proj, v_proj", tasks="a,,b", report_to="")
    assert config.lora_target_modules == ["q_proj", "v_proj"]
    assert (config.tasks, config.report_to) == (["a", "b"], [])


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TrainingConfig().batch_size = 8  # type: ignore[misc]


def test_a_profile_lies_between_the_given_and_the_default() -> None:
    profile = PROFILES["tiny"]
    config = TrainingConfig(base_model="tiny", num_rollouts=6)
    assert config.num_rollouts == 6
    kept = {name: value for name, value in profile.items() if name != "num_rollouts"}
    assert {name: getattr(config, name) for name in kept} == kept
    assert config.lora_r == GUIDE["lora_r"]
    assert profile["num_rollouts"] != 6
    # An explicit value that happens to be the default wins, too.
    assert TrainingConfig(base_model="tiny", use_lora=True).use_lora is True
    assert profile_of(TrainingConfig, "google/gemma-2-2b-it") == {}


def test_profiles_name_real_settings() -> None:
    for name, profile in PROFILES.items():
        assert set(profile) <= set(TrainingConfig.model_fields)
        assert set(profile_of(SFTConfig, name)) == set(profile) & set(SFTConfig.model_fields)
        SFTConfig(base_model=name)


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "base_model": st.sampled_from(["tiny", "a/b", "./model folder"]),
        "use_lora": st.booleans(),
        "learning_rate": st.floats(1e-9, 1.0),
        "grpo_tau": st.floats(1e-3, 10),
        "num_rollouts": st.integers(2, 64),
        "max_steps": st.none() | st.integers(1, 10**6),
        "eval_samples": st.none() | st.integers(1, 10**6),
        "system_prompt": st.text(
            st.characters(blacklist_categories=("Cs", "Cc", "Cn")), max_size=30
        ),
        "tasks": st.lists(st.sampled_from(["a", "b_*", "no", "1"]), max_size=3),
        "checkpoint_dir": st.sampled_from(["runs/x", "/tmp/y"]).map(Path),
        "loss": st.fixed_dictionaries(
            {}, optional={"clip_low": st.floats(0.01, 0.99), "clip_high": st.floats(0.01, 9)}
        ),
        "resume": st.sampled_from(["never", "auto", "runs/x/checkpoints/step-5"]),
    },
)


@settings(max_examples=60, deadline=None)
@given(changes=CHANGES)
def test_a_dump_in_a_file_is_the_same_configuration(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    """Profiles must not creep into what a run has written down."""
    config = TrainingConfig(**changes)
    values = config.model_dump(mode="json")
    assert TrainingConfig(**json.loads(json.dumps(values))) == config
    folder = tmp_path_factory.getbasetemp()
    file = folder / "round-trip.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    resolved = resolve(TrainingConfig, {}, file=file, environment={}, dotenv=folder / "none")
    assert resolved.config == config
    assert set(resolved.origins.values()) == {"file"}


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("90m", 5400), ("8h", 28800), ("2d", 172800), ("1.5 h", 5400), ("30s", 30), ("45", 45)],
)
def test_a_time_limit_has_a_unit(given: str, seconds: float) -> None:
    assert TrainingConfig(time_limit=given).time_limit == seconds
    assert TrainingConfig(time_limit=seconds).time_limit == seconds


@pytest.mark.parametrize("given", ["soon", "8 hours", "h", "", "1.2.3h", "-5m", "inf"])
def test_a_time_that_is_none_is_one_sentence(given: str) -> None:
    with pytest.raises(ConfigError, match=r"^time_limit=.*should be [^\n]*\.$"):
        TrainingConfig(time_limit=given)
