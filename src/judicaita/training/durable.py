"""Writing so that a crash leaves the old or the new, never half of one; and telling which it is.

What is written stands aside first, as a hidden neighbour of its place; it is synced to disk and
renamed, and then the rename is synced. A folder is sealed besides: `SUMS` in it holds the SHA-256
of every file, in the form that ``sha256sum --check`` reads. Torch-free.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from judicaita.errors import CheckpointError

SUMS = "SHA256SUMS"

_PICKLES = {".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"}
"""Suffixes of formats whose readers may run what a file says."""

_PICKLE_START = re.compile(rb"\x80[\x02-\x05]|PK\x03\x04")
"""How a pickle of protocol 2 to 5 begins, or the zip archive that torch puts one into."""

_ADDED = {".md", ".txt"}
"""Suffixes of what people may add to a sealed folder: nothing loads such a file."""


def write_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a hidden neighbour of ``path``, sync it, and rename it to ``path``."""
    aside = _aside(path)
    try:
        with aside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to report
            aside.unlink()
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON for people to read, as `write_file` does."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_file(path, lambda file: file.write(f"{text}\n".encode()))


@contextmanager
def writing_folder(folder: Path) -> Iterator[Path]:
    """Give a hidden neighbour of ``folder`` to fill; afterwards seal it and put it in its place.

    A folder that stood there is replaced whole. If anything fails it stands there as before.
    """
    aside, replaced = _aside(folder), _replaced(folder)
    shutil.rmtree(aside, ignore_errors=True)
    try:
        if not folder.parent.exists():
            folder.parent.mkdir(parents=True)
            sync_folder(folder.parent.parent)
        aside.mkdir()
        yield aside
        _seal(aside)
        if folder.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            folder.replace(replaced)
        aside.replace(folder)
        sync_folder(folder.parent)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to report
            recover(folder)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def recover(folder: Path) -> None:
    """Clear up what a writer that was killed has left of a folder.

    What was half written or half deleted goes; what was about to be replaced comes back.
    """
    shutil.rmtree(_aside(folder), ignore_errors=True)
    replaced = _replaced(folder)
    if replaced.exists() and not folder.exists():
        replaced.replace(folder)
    shutil.rmtree(replaced, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Delete a folder; one that is deleted in part no longer goes by its name."""
    gone = _aside(folder)
    shutil.rmtree(gone, ignore_errors=True)
    folder.replace(gone)
    shutil.rmtree(gone)


def verify(folder: Path) -> None:
    """`CheckpointError` unless the folder is sealed and every file is as it was written.

    Refused as well: a pickle in any guise, a file that the seal does not know (but for notes such
    as README.md), a name or a link that leads out of the folder.
    """
    try:
        sums = _read_sums(folder)
        for path in sorted(folder.rglob("*")):
            _refuse_guest(folder, path, sums)
        for name, expected in sums.items():
            if _sha256(folder / name) != expected:
                raise _damaged(folder, f"{name} is not what was written (its SHA-256 differs)")
    except OSError as error:
        name = Path(error.filename or folder).name
        raise _damaged(folder, f"{name} cannot be read ({error.strerror})") from error


def verify_if_sealed(folder: Path) -> None:
    """`verify` a folder that has a seal; one of another origin has none."""
    if (folder / SUMS).is_file():
        verify(folder)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder last; does nothing where folders cannot be synced."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems
            raise
    finally:
        os.close(descriptor)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _replaced(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _seal(folder: Path) -> None:
    """Sync every file and write their sums."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    lines = []
    for path in files:
        with path.open("r+b") as file:
            os.fsync(file.fileno())
        lines.append(f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n")
    write_file(folder / SUMS, lambda file: file.write("".join(lines).encode()))
    for inner in sorted(path for path in folder.rglob("*") if path.is_dir()):
        sync_folder(inner)


def _read_sums(folder: Path) -> dict[str, str]:
    """Name → SHA-256 of every sealed file."""
    path = folder / SUMS
    if not path.is_file():
        raise _damaged(folder, f"{SUMS} is missing, so nothing says whether it is whole")
    sums: dict[str, str] = {}
    *lines, rest = path.read_bytes().decode(errors="replace").split("\n")
    for line in [*lines, rest] if rest else lines:
        match = re.fullmatch(r"([0-9a-f]{64})  (.+)", line)
        if not match or line is rest:
            raise _damaged(folder, f"{SUMS} has a line that is none of sha256sum's")
        name = PurePosixPath(match[2])
        if name.is_absolute() or ".." in name.parts or "\\" in match[2]:
            raise _damaged(folder, f"{SUMS} names a file outside of it ({match[2]})")
        sums[match[2]] = match[1]
    return sums


def _refuse_guest(folder: Path, path: Path, sums: Mapping[str, str]) -> None:
    """`CheckpointError` for what must not lie in a sealed folder."""
    name = path.relative_to(folder).as_posix()
    if not path.resolve().is_relative_to(folder.resolve()):
        raise _damaged(folder, f"{name} leads out of it")
    if path.is_dir():
        return
    if not path.is_file():
        raise _damaged(folder, f"{name} is no ordinary file")
    with path.open("rb") as file:
        is_pickle = _PICKLE_START.match(file.read(4)) is not None
    if is_pickle or path.suffix in _PICKLES:
        raise _damaged(folder, f"{name} is a pickle, which could run anything when loaded")
    is_known = name in sums or name == SUMS
    if not is_known and path.suffix not in _ADDED and not path.name.startswith("."):
        raise CheckpointError(
            f"{folder}: {name} was not there when it was written, and might be loaded with it. "
            "Move it out, or use another checkpoint."
        )


def _damaged(folder: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{folder} is damaged: {what}. Restore it, or use another checkpoint.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
