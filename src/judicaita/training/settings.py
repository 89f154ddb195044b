"""Where a setting comes from: flag > environment > ``.env`` > file > profile > default."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from judicaita.errors import ConfigError
from judicaita.training.choices import kinds_of, knobs_of
from judicaita.training.config import RunConfig, nearest, profile_of

ConfigT = TypeVar("ConfigT", bound=RunConfig)

CHECKPOINT_VARIABLE = "GRPO_CHECKPOINT_PATH"
"""Names the checkpoint that traces and evaluation use; training writes to ``checkpoint_dir``."""


@dataclass(frozen=True)
class Option:
    """One leaf of a configuration, under all its names."""

    path: str
    """Dotted: ``batch_size``, ``loss.clip_low``."""
    flags: tuple[str, ...]
    """``--batch-size``; further ones after it."""
    variable: str
    """``GRPO_BATCH_SIZE``; a leading ``grpo_`` of the field is not doubled."""
    field: FieldInfo
    kinds: tuple[tuple[str, Any], ...] = ()
    """Of a setting that is one of several kinds: which ones have it, and their defaults."""


def options(config_class: type[RunConfig]) -> list[Option]:
    """Every option of a configuration class, nested ones included, in order of definition."""
    return list(_walk(config_class, config_class.env_prefix, ""))


def _walk(model: type[BaseModel], prefix: str, parent: str) -> Iterator[Option]:
    for name, field in model.model_fields.items():
        path = f"{parent}{name}"
        if kinds := kinds_of(field):
            for knob, own, having in knobs_of(kinds):
                defaults = tuple((k, c.model_fields[knob].default) for k, c in having.items())
                yield _option(prefix, f"{path}.{knob}", own, defaults)
            continue
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _walk(field.annotation, prefix, f"{path}.")
            continue
        yield _option(prefix, path, field)


def _option(
    prefix: str, path: str, field: FieldInfo, kinds: tuple[tuple[str, Any], ...] = ()
) -> Option:
    extra = field.json_schema_extra
    more = extra.get("flags", []) if isinstance(extra, dict) else []
    if kinds and path.endswith(".type"):
        more = [f"--{path.removesuffix('.type').replace('_', '-')}"]
    flags = (f"--{path.replace('_', '-')}", *(str(flag) for flag in _as_list(more)))
    variable = prefix + path.upper().removeprefix(prefix).replace(".", "__")
    return Option(path, flags, variable, field, kinds)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class Resolved(Generic[ConfigT]):
    """A configuration, and for every dotted path the source of its value."""

    config: ConfigT
    origins: Mapping[str, str]

    def describe(self) -> str:
        """One line an option: path, value, where it came from."""
        values = flatten(self.config.model_dump(mode="json"))
        width = max(map(len, values))
        return "\n".join(
            f"{path:<{width}}  {self.origins[path]:<12}  {value!r}"
            for path, value in values.items()
        )


def resolve(
    config_class: type[ConfigT],
    flags: Mapping[str, Any],
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    dotenv: Path = Path(".env"),
) -> Resolved[ConfigT]:
    """Merge all sources into one configuration.

    ``flags`` maps dotted paths to what was given on the command line. ``environment`` is
    ``os.environ`` unless given. Raises `ConfigError` for an unknown key or variable, wherever it
    stands, and for a value that is out of range.
    """
    environment = os.environ if environment is None else environment
    layers = [
        ("flag", dict(flags)),
        ("environment", _from_variables(config_class, environment, "the environment")),
        (".env", _from_variables(config_class, _read_dotenv(dotenv), str(dotenv))),
        ("file", _read_file(file) if file else {}),
    ]
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for source, values in layers:
        for given, value in values.items():
            path = _of_kind(config_class, given, value)
            if path not in merged:
                merged[path], origins[path] = value, source
    base_model = merged.get("base_model", config_class.model_fields["base_model"].default)
    profile = profile_of(config_class, base_model)
    config = config_class.model_validate(_nest(merged))
    for path in flatten(config.model_dump(mode="json")):
        origins.setdefault(path, "profile" if path in profile else "default")
    return Resolved(config, origins)


def default_checkpoint(dotenv: Path = Path(".env")) -> str | None:
    """What GRPO_CHECKPOINT_PATH says, in the environment or else in ``.env``."""
    return os.environ.get(CHECKPOINT_VARIABLE) or _read_dotenv(dotenv).get(CHECKPOINT_VARIABLE)


def flatten(values: Mapping[str, Any], parent: str = "") -> dict[str, Any]:
    """``{"loss": {"clip_low": 0.2}}`` → ``{"loss.clip_low": 0.2}``."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{parent}{name}."))
        else:
            flat[f"{parent}{name}"] = value
    return flat


def _of_kind(config_class: type[RunConfig], path: str, value: Any) -> str:
    """``loss.type`` for ``loss`` with the bare name of a kind, so that it meets other knobs."""
    field = config_class.model_fields.get(path)
    is_kind = isinstance(value, str) and field is not None and kinds_of(field)
    return f"{path}.type" if is_kind else path


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, leaf = path.split(".")
        level = nested
        for name in parents:
            level = level.setdefault(name, {})
            if not isinstance(level, dict):
                raise ConfigError(
                    f"{name}={level!r} and {path} are both given: keep {path}, which names a part."
                )
        level[leaf] = value
    return nested


def _from_variables(
    config_class: type[RunConfig], variables: Mapping[str, str], where: str
) -> dict[str, str]:
    known = {option.variable: option.path for option in options(config_class)}
    kinds = [option.variable for option in options(config_class) if option.kinds]
    known |= {v.removesuffix("__TYPE"): known[v] for v in kinds if v.endswith("__TYPE")}
    found: dict[str, str] = {}
    for variable, value in variables.items():
        if not variable.startswith(config_class.env_prefix) or variable == CHECKPOINT_VARIABLE:
            continue
        if variable not in known:
            raise ConfigError(
                f"{variable} in {where}: no such setting.{nearest(variable, list(known))} "
                "Remove or rename it; docs/configuration.md lists them all."
            )
        found[known[variable]] = value
    return found


def _read_dotenv(path: Path) -> dict[str, str]:
    from dotenv import dotenv_values

    if not path.is_file():
        return {}
    try:
        values = dotenv_values(path)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no UTF-8 text: {error}. Mend it there.") from None
    return {name: value for name, value in values.items() if value is not None}


def _read_file(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Check --config.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} is no valid YAML: {reason}. Mend it there.") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no settings: write one `name: value` a line.")
    return flatten(content)
