"""Settings that are one of several kinds, each with knobs of its own: a loss, an estimator.

In a configuration class such a field is a union of models told apart by ``type``. One that is left
out is the first kind; a bare name stands for the kind with its defaults. Knobs of several kinds may
have one name, and are one flag.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Kinds = Mapping[str, type[BaseModel]]
"""Classes by the name of their ``type``, the default first."""


def kinds_of(field: FieldInfo) -> Kinds:
    """The kinds of a setting; none for any other setting."""
    if field.discriminator is None:
        return {}
    return {kind.model_fields["type"].default: kind for kind in get_args(field.annotation)}


def with_kind(value: Any, kinds: Kinds) -> Any:
    """What was given, as the model that ``type`` or its absence names."""
    if isinstance(value, str):
        return {"type": value}
    if isinstance(value, Mapping) and "type" not in value:
        return {"type": next(iter(kinds)), **value}
    return value


def knobs_of(kinds: Kinds) -> Iterator[tuple[str, FieldInfo, Kinds]]:
    """Every knob once: its name, its field in the first kind that has it, and the kinds that do."""
    names = dict.fromkeys(name for kind in kinds.values() for name in kind.model_fields)
    for name in names:
        own = {known: kind for known, kind in kinds.items() if name in kind.model_fields}
        first = next(iter(own.values())).model_fields[name]
        yield name, _type_field(kinds) if name == "type" else first, own


def _type_field(kinds: Kinds) -> FieldInfo:
    """``type`` itself, with all its values."""
    first = next(iter(kinds.values())).model_fields["type"]
    return FieldInfo(
        annotation=Literal[tuple(kinds)],  # type: ignore[arg-type]
        default=first.default,
        description=first.description,
    )
