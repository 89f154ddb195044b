"""Written whole or not at all, and whatever has changed since is found."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from judicaita.errors import CheckpointError
from judicaita.training.durable import (
    recover,
    remove_folder,
    verify,
    write_file,
    write_json,
    writing_folder,
)


def make(folder: Path, **files: bytes) -> Path:
    with writing_folder(folder) as aside:
        for name, content in {"model": b"weights", "card": b"{}", **files}.items():
            (aside / name).write_bytes(content)
        (aside / "deep").mkdir()
        (aside / "deep" / "er").write_bytes(b"deeper")
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class Boom(BaseException):
    """Stands for the end of a process."""


# ── files ────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, lambda file: file.write(b"old"))

    def fails(file: Any) -> None:
        file.write(b"new")
        raise Boom

    with pytest.raises(Boom):
        write_file(path, fails)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"file"}


def test_json_is_for_people_too(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"§": [1]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "§": [\n    1\n  ]\n}\n'
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "b.json", {"nan": float("nan")})
    assert names(tmp_path) == {"a.json"}


# ── folders ──────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_is_sealed_as_sha256sum_reads_it(tmp_path: Path) -> None:
    folder = make(tmp_path / "deep" / "step-1")
    verify(folder)
    assert names(folder) == {"model", "card", "deep", "SHA256SUMS"}
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True)
    assert names(folder.parent) == {"step-1"}


def test_a_folder_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    folder = make(tmp_path / "step-1", only=b"old")

    def fail() -> None:
        with writing_folder(folder) as aside:
            (aside / "model").write_bytes(b"new")
            raise Boom

    with pytest.raises(Boom):
        fail()
    verify(folder)
    assert (folder / "only").read_bytes() == b"old"
    make(folder)
    assert not (folder / "only").exists()
    assert names(tmp_path) == {"step-1"}


@pytest.mark.parametrize("moment", ["before it is moved away", "after", "when it is replaced"])
def test_a_killed_replacement_is_cleared_up(tmp_path: Path, moment: str) -> None:
    folder = make(tmp_path / "step-1", only=b"old")
    shutil.copytree(folder, tmp_path / ".step-1.tmp")
    if moment == "after":
        folder.replace(tmp_path / ".step-1.old")
    elif moment == "when it is replaced":
        folder.replace(tmp_path / ".step-1.old")
        (tmp_path / ".step-1.tmp").replace(folder)
    recover(folder)
    assert names(tmp_path) == {"step-1"}
    assert (folder / "only").read_bytes() == b"old"
    verify(folder)


def test_a_folder_is_removed(tmp_path: Path) -> None:
    remove_folder(make(tmp_path / "step-1"))
    assert names(tmp_path) == set()


# ── damage ───────────────────────────────────────────────────────────────────────────────────────


@given(st.data())
def test_any_flipped_bit_and_any_lost_byte_is_found(data: st.DataObject) -> None:
    with TemporaryDirectory() as root:
        folder = make(Path(root) / "step-1")
        file = data.draw(st.sampled_from(["model", "card", "deep/er", "SHA256SUMS"]))
        content = bytearray((folder / file).read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        else:
            del content[place:]
        (folder / file).write_bytes(content)
        with pytest.raises(CheckpointError, match=r"is damaged: .* Restore it|Move it") as error:
            verify(folder)
        assert "\n" not in str(error.value)


def add(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def link_out(folder: Path) -> None:
    (folder.parent / "secret").write_bytes(b"weights")
    (folder / "model").unlink()
    (folder / "model").symlink_to("../secret")


def name_outside(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder.parent / "secret").write_bytes(b"weights")
        lines = (folder / "SHA256SUMS").read_text()
        (folder / "SHA256SUMS").write_text(lines.replace("  model", f"  {name}"))

    return change


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no seal": (lambda folder: (folder / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
    "an odd seal": (lambda folder: (folder / "SHA256SUMS").write_text("x"), "a line that is none"),
    "a lost file": (lambda folder: (folder / "model").unlink(), "model cannot be read .No such"),
    "a guest": (add("model.index.json", b"{}"), "model.index.json was not there"),
    "a pickle by name": (add("adapter_model.bin", b"?"), "adapter_model.bin is a pickle"),
    "a pickle in a note": (add("README.md", pickle.dumps({}, 4)), "README.md is a pickle"),
    "a link that leads out": (link_out, "model leads out of it"),
    "a linked folder": (lambda f: (f / "more").symlink_to("/etc"), "more leads out of it"),
    "a path upwards": (name_outside("../secret"), r"names a file outside of it \(../secret\)"),
    "an absolute path": (name_outside("/etc/passwd"), "names a file outside of it"),
    "a pipe": (lambda folder: os.mkfifo(folder / "pipe"), "pipe is no ordinary file"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(tmp_path: Path, damage: str) -> None:
    folder = make(tmp_path / "step-1")
    change, expected = DAMAGE[damage]
    change(folder)
    with pytest.raises(CheckpointError, match=expected):
        verify(folder)


def test_a_sealed_pickle_is_refused_all_the_same(tmp_path: Path) -> None:
    """Whoever can write the folder can write its sums."""
    torch.save({"a": 1}, tmp_path / "x")
    for content in (pickle.dumps([1], 2), pickle.dumps([1], 5), (tmp_path / "x").read_bytes()):
        folder = make(tmp_path / "step-1", weights=content)
        with pytest.raises(CheckpointError, match="weights is a pickle"):
            verify(folder)


def test_notes_may_be_added(tmp_path: Path) -> None:
    folder = make(tmp_path / "step-1")
    (folder / "README.md").write_text("Mine.")
    (folder / ".gitattributes").touch()
    verify(folder)
