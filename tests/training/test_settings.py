"""Six sources, one order, and no name that nobody knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from judicaita.errors import ConfigError
from judicaita.training.algorithms.losses import DAPOLoss, GRPOLoss
from judicaita.training.config import PROFILES, SFTConfig, TrainingConfig
from judicaita.training.settings import Resolved, default_checkpoint, flatten, options, resolve


def resolved(
    folder: Path,
    flags: dict[str, Any] | None = None,
    *,
    environment: dict[str, str] | None = None,
    dotenv: str | None = None,
    file: str | bytes | None = None,
) -> Resolved[TrainingConfig]:
    if dotenv is not None:
        (folder / ".env").write_text(dotenv, encoding="utf-8")
    path = None
    if file is not None:
        path = folder / "config.yaml"
        path.write_bytes(file if isinstance(file, bytes) else file.encode())
    return resolve(
        TrainingConfig,
        flags or {},
        file=path,
        environment=environment or {},
        dotenv=folder / ".env",
    )


def refusal(folder: Path, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(ConfigError) as error:
        resolved(folder, *args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


TINY_RATE = PROFILES["tiny"]["learning_rate"]


@pytest.mark.parametrize(
    ("sources", "value", "origin"),
    [
        ("flag environment dotenv file profile", 0.1, "flag"),
        ("environment dotenv file profile", 0.2, "environment"),
        ("dotenv file profile", 0.3, ".env"),
        ("file profile", 0.4, "file"),
        ("profile", TINY_RATE, "profile"),
        ("", 1e-5, "default"),
        ("flag profile", 0.1, "flag"),
        ("environment file", 0.2, "environment"),
    ],
)
def test_order_of_sources(tmp_path: Path, sources: str, value: float, origin: str) -> None:
    given = sources.split()
    found = resolved(
        tmp_path,
        {
            **({"learning_rate": 0.1} if "flag" in given else {}),
            **({"base_model": "tiny"} if "profile" in given else {}),
        },
        environment={"GRPO_LEARNING_RATE": "0.2"} if "environment" in given else None,
        dotenv="GRPO_LEARNING_RATE=0.3\n" if "dotenv" in given else None,
        file="learning_rate: 0.4\n" if "file" in given else None,
    )
    assert found.config.learning_rate == value
    assert found.origins["learning_rate"] == origin


@pytest.mark.parametrize("where", ["environment", "dotenv", "file"])
def test_a_profile_follows_the_model_wherever_it_is_named(tmp_path: Path, where: str) -> None:
    sources: dict[str, Any] = {
        "environment": {"environment": {"GRPO_BASE_MODEL": "tiny"}},
        "dotenv": {"dotenv": "GRPO_BASE_MODEL=tiny\n"},
        "file": {"file": "base_model: tiny\n"},
    }
    found = resolved(tmp_path, **sources[where])
    assert found.config == TrainingConfig(base_model="tiny")
    assert found.origins["use_lora"] == "profile"
    assert found.origins["lora_r"] == "default"


@pytest.mark.parametrize(
    "source",
    [
        {"flags": {"loss.clip_low": 0.1}},
        {"flags": {"loss.clip_low": "0.1"}},
        {"environment": {"GRPO_LOSS__CLIP_LOW": "0.1"}},
        {"dotenv": "GRPO_LOSS__CLIP_LOW=0.1"},
        {"file": "loss:\n  clip_low: 0.1\n"},
        {"file": "loss.clip_low: 0.1\n"},
    ],
    ids=["flag", "flag-text", "environment", "dotenv", "file", "file-dotted"],
)
def test_a_part_of_the_loss(tmp_path: Path, source: dict[str, Any]) -> None:
    found = resolved(tmp_path, **source)
    assert found.config.loss == DAPOLoss(clip_low=0.1)
    assert found.origins["loss.clip_low"] in {"flag", "environment", ".env", "file"}
    assert found.origins["loss.clip_high"] == "default"


@pytest.mark.parametrize(
    "source",
    [
        {"flags": {"loss.clip_low": "0.1"}},
        {"environment": {"GRPO_LOSS__CLIP_LOW": "0.1"}},
        {"file": "loss: grpo\nloss.clip_low: 0.1\n"},
    ],
    ids=["flag", "environment", "file"],
)
def test_a_bare_kind_in_the_file_and_its_knob_elsewhere(
    tmp_path: Path, source: dict[str, Any]
) -> None:
    found = resolved(tmp_path, **{"file": "loss: grpo\n", **source})
    assert found.config.loss == GRPOLoss(clip_low=0.1)
    assert found.origins["loss.type"] == "file"


def test_a_kind_by_its_short_names(tmp_path: Path) -> None:
    """``GRPO_LOSS`` and ``--loss`` for the type; the flag goes before the file."""
    assert resolved(tmp_path, environment={"GRPO_LOSS": "grpo"}).config.loss == GRPOLoss()
    found = resolved(tmp_path, {"loss.type": "cispo"}, file="loss: grpo\n")
    assert (found.config.loss.type, found.origins["loss.type"]) == ("cispo", "flag")
    flags = {option.path: option.flags for option in options(TrainingConfig)}
    assert flags["loss.type"] == ("--loss.type", "--loss")


def test_parts_of_the_loss_from_two_sources(tmp_path: Path) -> None:
    found = resolved(
        tmp_path,
        {"loss.clip_low": 0.1},
        environment={"GRPO_LOSS__CLIP_HIGH": "0.5"},
        file="loss: {clip_low: 0.3, clip_high: 0.4}\n",
    )
    assert (found.config.loss.clip_low, found.config.loss.clip_high) == (0.1, 0.5)


def test_names_of_variables_and_flags() -> None:
    found = {option.path: option for option in options(TrainingConfig)}
    variables = {
        "base_model": "GRPO_BASE_MODEL",
        "learning_rate": "GRPO_LEARNING_RATE",
        "num_epochs": "GRPO_NUM_EPOCHS",
        "batch_size": "GRPO_BATCH_SIZE",
        "use_lora": "GRPO_USE_LORA",
        "grpo_tau": "GRPO_TAU",
        "grpo_gamma": "GRPO_GAMMA",
        "checkpoint_dir": "GRPO_CHECKPOINT_DIR",
        "loss.clip_high": "GRPO_LOSS__CLIP_HIGH",
    }
    assert {path: found[path].variable for path in variables} == variables
    assert found["batch_size"].flags == ("--batch-size",)
    assert found["num_epochs"].flags == ("--num-epochs", "--epochs")
    assert found["checkpoint_dir"].flags == ("--checkpoint-dir", "--output-dir")
    assert found["loss.clip_low"].flags == ("--loss.clip-low",)
    for names in (
        [o.variable for o in found.values()],
        [f for o in found.values() for f in o.flags],
    ):
        assert len(names) == len(set(names))
    assert {option.variable for option in options(SFTConfig)} >= {
        "SFT_BATCH_SIZE",
        "SFT_BASE_MODEL",
    }


def test_every_option_has_a_value_and_an_origin(tmp_path: Path) -> None:
    found = resolved(tmp_path)
    values = flatten(found.config.model_dump(mode="json"))
    known = {option.path for option in options(TrainingConfig)}
    assert set(values) == set(found.origins) <= known
    # What is missing is of kinds that were not chosen.
    assert {path.split(".")[0] for path in known - set(values)} == {
        *("loss", "advantage_bound"),
    }
    lines = found.describe().splitlines()
    assert len(lines) == len(values)
    assert [line.split()[:3] for line in lines if line.startswith("batch_size")] == [
        ["batch_size", "default", "4"]
    ]


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


def test_unknown_variables(tmp_path: Path) -> None:
    assert refusal(tmp_path, environment={"GRPO_BATCHSIZE": "4"}) == (
        "GRPO_BATCHSIZE in the environment: no such setting. Did you mean 'GRPO_BATCH_SIZE'? "
        "Remove or rename it; docs/configuration.md lists them all."
    )
    text = refusal(tmp_path, dotenv="GRPO_GRPO_TAU=0.1\n")
    assert text.startswith(f"GRPO_GRPO_TAU in {tmp_path / '.env'}: no such setting.")
    assert "Did you mean 'GRPO_TAU'?" in text


def test_other_variables_are_nobody_s_business(tmp_path: Path) -> None:
    found = resolved(
        tmp_path,
        environment={
            "HOME": "/x",
            "SFT_BATCH_SIZE": "9",
            "GRPO_CHECKPOINT_PATH": "/y",
            "grpo_x": "1",
        },
        dotenv="HF_TOKEN=abc\nGRPO_CHECKPOINT_PATH=z\nexport GRPO_BATCH_SIZE='2'  # two\n",
    )
    assert found.config == TrainingConfig(batch_size=2)


def test_a_supervised_run_reads_its_own_variables(tmp_path: Path) -> None:
    environment = {"SFT_BATCH_SIZE": "9", "GRPO_BATCH_SIZE": "2", "GRPO_NO_SUCH": "1"}
    found = resolve(SFTConfig, {}, environment=environment, dotenv=tmp_path / ".env")
    assert found.config.batch_size == 9


@pytest.mark.parametrize(
    ("source", "start"),
    [
        ({"flags": {"batch_size": 0}}, "batch_size=0: should be greater than or equal to 1"),
        ({"environment": {"GRPO_BATCH_SIZE": "0"}}, "batch_size='0': should be greater than or"),
        ({"environment": {"GRPO_USE_LORA": "perhaps"}}, "use_lora='perhaps': should be a valid"),
        ({"environment": {"GRPO_LOSS__CLIP_LOW": "2"}}, "loss.clip_low='2': should be less than 1"),
        ({"dotenv": "GRPO_NUM_ROLLOUTS=1"}, "num_rollouts='1': group-relative advantage needs"),
        ({"file": "batch_sise: 4"}, "batch_sise: no such setting. Did you mean 'batch_size'?"),
        ({"file": "loss: {delta: 1}"}, "loss.delta: no such setting."),
        ({"file": "7: 1"}, "7: no such setting."),
        ({"flags": {"no.such": 1}}, "no: no such setting."),
        (
            {"file": "kl: k1\nkl.target: 0.1"},
            "kl='k1' and kl.target are both",
        ),
    ],
)
def test_bad_values_wherever_they_stand(tmp_path: Path, source: dict[str, Any], start: str) -> None:
    assert refusal(tmp_path, **source).startswith(start)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("a: [1", "is no valid YAML: while parsing a flow sequence"),
        ("a: b: c", "is no valid YAML: mapping values are not allowed here"),
        ("a: !!python/object:os.system x", "is no valid YAML: could not determine a constructor"),
        (b"\xff\xfe\x00", "is no valid YAML: 'utf-8' codec can't decode byte 0xff"),
        ("", "holds no settings: write one `name: value` a line."),
        ("- batch_size", "holds no settings"),
        ("batch_size", "holds no settings"),
    ],
)
def test_files_that_cannot_be_read_as_settings(
    tmp_path: Path, content: str | bytes, part: str
) -> None:
    text = refusal(tmp_path, file=content)
    assert text.startswith(str(tmp_path / "config.yaml"))
    assert part in text


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path, reason in (("none.yaml", "No such file or directory"), (".", "Is a directory")):
        with pytest.raises(ConfigError, match=f"cannot be read .{reason}.. Check --config."):
            resolve(TrainingConfig, {}, file=tmp_path / path, environment={})


def test_a_dotenv_of_another_encoding(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"GRPO_SYSTEM_PROMPT=\xff\n")
    assert ".env is no UTF-8 text" in refusal(tmp_path)


# ── values ───────────────────────────────────────────────────────────────────────────────────────


def test_yaml_s_numbers(tmp_path: Path) -> None:
    """YAML 1.1 reads 1e-5 as text, for want of a point."""
    found = resolved(tmp_path, file="learning_rate: 1e-5\nmax_steps: null\nuse_lora: no\n")
    assert (found.config.learning_rate, found.config.max_steps) == (1e-5, None)
    assert found.config.use_lora is False


def test_variables_are_text(tmp_path: Path) -> None:
    environment = {
        "GRPO_LEARNING_RATE": "3e-4",
        "GRPO_USE_LORA": "false",
        "GRPO_LORA_TARGET_MODULES": "q_proj,v_proj",
        "GRPO_CHECKPOINT_DIR": "/a b/c",
        "GRPO_MAX_STEPS": "7",
        "GRPO_SYSTEM_PROMPT": "",
    }
    config = resolved(tmp_path, environment=environment).config
    assert config.model_dump(include={"learning_rate", "use_lora", "max_steps"}) == {
        "learning_rate": 3e-4,
        "use_lora": False,
        "max_steps": 7,
    }
    assert config.lora_target_modules == ["q_proj", "v_proj"]
    assert config.checkpoint_dir == Path("/a b/c")
    assert config.system_prompt == ""


def test_the_process_s_own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("GRPO_BATCH_SIZE=2\nGRPO_CHECKPOINT_PATH=from-file\n")
    monkeypatch.setenv("GRPO_NUM_EPOCHS", "5")
    monkeypatch.delenv("GRPO_CHECKPOINT_PATH", raising=False)
    found = resolve(TrainingConfig, {})
    assert (found.config.batch_size, found.config.num_epochs) == (2, 5)
    assert default_checkpoint() == "from-file"
    monkeypatch.setenv("GRPO_CHECKPOINT_PATH", "from-environment")
    assert default_checkpoint() == "from-environment"
    assert resolve(TrainingConfig, {}).config.checkpoint_dir == Path("checkpoints/grpo")


def test_no_checkpoint_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRPO_CHECKPOINT_PATH", raising=False)
    assert default_checkpoint(tmp_path / ".env") is None


def test_flatten() -> None:
    nested = {"a": 1, "loss": {"clip_low": 0.2, "deep": {"x": None}}, "list": [1, {"y": 2}]}
    assert flatten(nested) == {
        "a": 1,
        "loss.clip_low": 0.2,
        "loss.deep.x": None,
        "list": [1, {"y": 2}],
    }
