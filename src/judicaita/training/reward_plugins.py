"""What a reward is, how one is called, and how a user's own comes in.

A user brings a function ``fn(prompt, response, reference, **columns)`` that returns a number or a
`RewardResult`, or an object or a class with such a ``compute``; `as_reward` makes a `Reward` of it.
An exception inside a reward never becomes a score: it stops the run and names reward and sample.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import numbers
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from judicaita.errors import ConfigError, NumericalError, RewardError
from judicaita.types import Prompt, RewardResult

_OWN = ("prompt", "response", "reference")
"""Arguments that every reward gets; a column of that name gives way to them."""


@runtime_checkable
class Reward(Protocol):
    """What the trainer and the evaluation ask of a reward."""

    @property
    def name(self) -> str:
        """Names it in records and error messages."""

    @property
    def part_names(self) -> tuple[str, ...]:
        """Parts that its results may break down into; () for a reward that is one whole."""

    def compute(
        self, prompt: Prompt, response: str, reference: str = "", **columns: Any
    ) -> RewardResult:
        """Score one response, or abstain."""


class FunctionReward:
    """A user's function as a reward.

    It takes prompt, response and reference in this order, then the columns that it names (all of
    them if it has ``**columns``). It returns a number, or a `RewardResult`.
    """

    part_names: tuple[str, ...] = ()

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self._function = function
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except ValueError:  # built-in functions may not tell
            parameters = []
        kinds = [parameter.kind for parameter in parameters]
        positional = [
            parameter
            for parameter in parameters
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        if len(positional) < len(_OWN) and inspect.Parameter.VAR_POSITIONAL not in kinds:
            raise ConfigError(
                f"reward {name!r} takes {len(positional)} positional arguments; it needs three: "
                "(prompt, response, reference), then columns by name or **columns."
            )
        self.takes_all = inspect.Parameter.VAR_KEYWORD in kinds
        self._takes = {parameter.name for parameter in parameters} - {
            parameter.name for parameter in positional[: len(_OWN)]
        }

    def compute(
        self, prompt: Prompt, response: str, reference: str = "", **columns: Any
    ) -> RewardResult:
        """Call the function with the columns it takes; a failure is a `RewardError`."""
        kept = {
            name: value for name, value in columns.items() if self.takes_all or name in self._takes
        }
        with _naming(self.name, prompt, columns):
            return _as_result(self._function(prompt, response, reference, **kept))


def as_reward(source: Any) -> Reward:
    """A `Reward` of a reward, an object with ``compute``, a class of such, a function, or the
    ``module:name`` or ``file.py:name`` of any of them."""
    if isinstance(source, str):
        return load_reward(source)
    if isinstance(source, type):
        try:
            source = source()
        except TypeError as error:
            raise ConfigError(
                f"reward {source.__name__!r} cannot be made without arguments ({error}); give its "
                "parameters defaults, or pass an instance."
            ) from error
    compute = getattr(source, "compute", None)
    if callable(compute):
        wrapped = FunctionReward(str(getattr(source, "name", type(source).__name__)), compute)
        # A complete reward stays itself, with whatever else it can do.
        return source if isinstance(source, Reward) and wrapped.takes_all else wrapped
    if callable(source):
        return FunctionReward(getattr(source, "__name__", type(source).__name__), source)
    raise ConfigError(
        f"{source!r} is no reward: use a function (prompt, response, reference, **columns), or an "
        "object with such a compute()."
    )


def load_reward(spec: str) -> Reward:
    """The reward that ``module:name`` or ``path/to/file.py:name`` points to.

    Modules are also looked for in the working directory.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise ConfigError(
            f"reward {spec!r}: write module:function or path/to/file.py:function, with one colon."
        )
    module = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"reward {spec!r}: {place} has no {name!r}; check the spelling.")
        found = getattr(found, part)
    return as_reward(found)


def _load_module(name: str) -> ModuleType:
    folder = str(Path.cwd())
    added = folder not in sys.path
    if added:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ConfigError(
            f"reward module {name!r} cannot be imported ({type(error).__name__}: {error}); check "
            "the name and that it imports on its own."
        ) from error
    finally:
        if added:
            sys.path.remove(folder)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"reward file {path} does not exist; check the path.")
    # A name of its own: the file's stem may be that of an installed package.
    name = f"judicaita_user_reward_{path.stem}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None  # the suffix is .py
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(
            f"reward file {path} cannot be run ({type(error).__name__}: {error}); it must import "
            "on its own."
        ) from error
    return module


def score_safely(
    reward: Reward,
    prompt: Prompt,
    response: str,
    reference: str,
    columns: Mapping[str, Any],
    *,
    name: str | None = None,
) -> RewardResult:
    """``reward.compute``, where any failure is a `RewardError` that names reward and sample.

    A failure is an exception, or a score that is no number; for one that is not finite it is a
    `NumericalError`. ``name`` stands for the reward's own name, where a composite knows it by
    another.
    """
    columns = {key: value for key, value in columns.items() if key not in _OWN}
    with _naming(name or reward.name, prompt, columns):
        return _as_result(reward.compute(prompt, response, reference, **columns))


@contextmanager
def _naming(reward: str, prompt: Prompt, columns: Mapping[str, Any]) -> Iterator[None]:
    """Turn an exception into a `RewardError` that says where; one that is stays as it is."""
    try:
        yield
    except RewardError:
        raise
    except NumericalError as error:
        if error.args[0].startswith("reward "):  # it names one already
            raise
        where = f"reward {reward!r} on {describe_sample(prompt, columns)}"
        raise NumericalError("reward", f"{where}: {error}") from error
    except Exception as error:
        raise RewardError(
            f"reward {reward!r} failed on {describe_sample(prompt, columns)}: "
            f"{type(error).__name__}: {error}"
        ) from error


def describe_sample(prompt: Prompt, columns: Mapping[str, Any]) -> str:
    """A sample for an error message: its id if the columns hold one, and how its prompt starts."""
    text = prompt if isinstance(prompt, str) else " / ".join(turn["content"] for turn in prompt)
    start = " ".join(text.split())
    start = start if len(start) <= 60 else start[:60] + "…"
    known = columns.get("sample_id")
    return f"sample {known} ({start!r})" if known else f"the sample {start!r}"


def _as_result(value: Any) -> RewardResult:
    """A `RewardResult` of what a reward returned; `TypeError` for what is no number,
    `NumericalError` for one that is not finite."""
    score: Any = value
    details: Mapping[str, Any] = {}
    if isinstance(value, RewardResult):
        score, details = value.score, value.details
        if score is None:
            return value
    if not isinstance(score, numbers.Real):
        raise TypeError(
            f"it returned {value!r}, which is no number; return a number, or a RewardResult "
            "(with score None to abstain)"
        )
    if not math.isfinite(score):
        raise NumericalError(
            "reward", f"it returned {value!r}, which is no finite number; return one that is."
        )
    return RewardResult(float(score), details)
