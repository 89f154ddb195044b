"""Every error a person can cause, as one tree.

    JudicaitaError
    ├── ConfigError      a setting that is unknown, out of range or contradicts another
    ├── DataError        rows, files or prompts that cannot be used
    ├── ModelError       a model, tokenizer or adapter that cannot be loaded
    ├── RewardError      a reward that failed on a sample; it names both
    ├── RolloutError     generation that could not be finished
    ├── NumericalError   a loss, gradient, reward or log-probability that is no finite number
    ├── OutOfMemory      a training pass that does not fit into memory even piece by piece
    ├── CheckpointError  a folder that is no checkpoint, is damaged, or does not fit
    └── RunStopped       not a mistake: a run that was told to stop, and did

The message is one sentence or two: what happened, why, and what to do about it. The command line
prints it as it is and exits with 2. Broken invariants of our own are plain ``AssertionError``s.
"""

from __future__ import annotations


class JudicaitaError(Exception):
    """Root of all errors that judicaita raises on purpose."""


class ConfigError(JudicaitaError):
    """A setting is unknown, out of range, or contradicts another one."""


class DataError(JudicaitaError):
    """Rows, files or prompts cannot be used as they are."""


class ModelError(JudicaitaError):
    """A model, tokenizer or adapter cannot be loaded."""


class RewardError(JudicaitaError):
    """A reward raised on a sample, or returned something that is no number."""


class RolloutError(JudicaitaError):
    """Completions could not be generated."""


class NumericalError(JudicaitaError):
    """A loss, gradient, reward or log-probability is no finite number.

    ``kind`` says which of these it is; a training step skips over it, up to a limit.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[NumericalError], tuple[str, str]]:
        """What another process makes it anew from: by default that is the message alone."""
        return type(self), (self.kind, str(self))


class OutOfMemory(JudicaitaError):
    """A training pass does not fit into memory, one completion at a time."""


class CheckpointError(JudicaitaError):
    """A folder is no checkpoint, is damaged, or does not fit the run it is loaded into."""


class RunStopped(JudicaitaError):
    """A run was told to stop by a signal or its time limit, and has saved where it was."""
