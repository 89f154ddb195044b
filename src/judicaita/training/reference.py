"""docs/configuration.md, made from the configuration classes: each setting is described once."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

from judicaita.training.config import PROFILES, RunConfig, SFTConfig, TrainingConfig
from judicaita.training.settings import CHECKPOINT_VARIABLE, Option, options

_HEAD = f"""# Configuration

<!-- Made by `make docs` from src/judicaita/training/config.py; edit it there. -->

A setting is taken from the first of these that names it: a flag of the command line, the
environment, `.env` in the working directory, the file given by `--config` (YAML), the profile of
the base model, the default. `judicaita train-grpo --show-config` prints every setting with its
source and stops; a run records them in its `config.yaml` and `manifest.json`. A name that is not
listed here is refused wherever it stands.

`{CHECKPOINT_VARIABLE}` is no setting of a run: it names the checkpoint that `trace`,
`evaluate-model`, `export` and `ReasoningTraceGenerator` use where none is given. Where training
writes is `checkpoint_dir`.
"""


_BOUNDS = (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))


def configuration_reference() -> str:
    """The page as Markdown."""
    return "\n".join([_HEAD, *_section(TrainingConfig), *_section(SFTConfig), *_profiles()])


def _section(config_class: type[RunConfig]) -> Iterator[str]:
    command = "train-grpo" if config_class is TrainingConfig else "sft"
    yield f"## `{config_class.__name__}`: `judicaita {command}`\n"
    yield f"{inspect.getdoc(config_class)}\n"
    yield "| setting | default | flag, environment | what it does |"
    yield "|---|---|---|---|"
    for option in options(config_class):
        if config_class is TrainingConfig or not _is_shared(option):
            yield _row(option)
    if config_class is not TrainingConfig:
        shared = ", ".join(f"`{o.path}`" for o in options(config_class) if _is_shared(o))
        yield f"\nAnd, with the meaning and default they have above: {shared}."
    yield ""


def _is_shared(option: Option) -> bool:
    same = {each.path: each.field.description for each in options(TrainingConfig)}
    return same.get(option.path) == option.field.description


def _row(option: Option) -> str:
    default = option.field.get_default(call_default_factory=True)
    shown = ", ".join(default) if isinstance(default, list) else str(default)
    if option.path == "system_prompt":
        shown = "asks for numbered steps and a conclusion"
    names = " ".join(f"`{name}`" for name in (*option.flags, option.variable))
    text = " ".join((option.field.description or "").split()).replace("``", "`")
    bounds = ", ".join(
        f"{sign} {getattr(limit, name)}"
        for limit in option.field.metadata
        for name, sign in _BOUNDS
        if hasattr(limit, name)
    )
    note = f" ({bounds})" if bounds else ""
    if option.kinds and not option.path.endswith(".type"):
        having = ", ".join(
            f"`{kind}`" + ("" if own == default else f" (default {own})")
            for kind, own in option.kinds
        )
        text = f"Of {having}: {text[:1].lower() + text[1:]}"
    if option.kinds and option.path.endswith(".type"):
        text = f"{text} One of {', '.join(f'`{kind}`' for kind, _ in option.kinds)}."
    return f"| `{option.path}` | {shown or '(none)'} | {names} | {text}{note} |"


def _profiles() -> Iterator[str]:
    yield "## Profiles\n"
    for name, values in PROFILES.items():
        listed = ", ".join(
            f"`{key}` {value if value != '' else '(none)'}" for key, value in values.items()
        )
        yield f"`{name}`: {listed}.\n"


if __name__ == "__main__":
    Path("docs/configuration.md").write_text(configuration_reference(), encoding="utf-8")
