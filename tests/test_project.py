"""What the repository says about itself is so: links, commands, settings, and nothing local."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from judicaita.training.config import TrainingConfig
from judicaita.training.settings import CHECKPOINT_VARIABLE, options, resolve

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _prose(page: Path) -> str:
    """A page without its code, where brackets are no links."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "", text)


def _commands(page: Path) -> list[str]:
    """The lines of a page's shell blocks, continued lines joined, comments gone."""
    blocks = re.findall(
        r"^```(?:bash|sh|console)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S
    )
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for raw in lines if (line := re.sub(r"(^|\s)#.*", "", raw).strip())]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_relative_links_resolve(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", _prose(page))
    local = [t.partition("#")[0] for t in targets if not re.match(r"[a-z]+:", t)]
    broken = [target for target in local if target and not (page.parent / target).exists()]
    assert not broken, f"{_name(page)} links to what is not there: {broken}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
    text = page.read_text(encoding="utf-8")
    inline = re.findall(r"`make ([a-z-]+)[^`]*`", text)
    named = {line.split()[1] for line in _commands(page) if line.startswith("make ")}
    assert named | set(inline) <= targets


@cache
def _help(*subcommand: str) -> str:
    code = "from judicaita.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", code, *subcommand, "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
    )
    assert run.returncode == 0, f"judicaita {' '.join(subcommand)} --help: {run.stderr}"
    return run.stdout


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_documented_flags_exist(page: Path) -> None:
    """Every `judicaita …` line of a shell block: its sub-command, and each flag it uses."""
    for line in _commands(page):
        words = line.split()
        if words[0] != "judicaita" or len(words) < 2:
            continue
        subcommand = (
            words[1:3] if words[1] in ("tasks", "data") else words[1:2]
        )  # a group of commands
        known = set(re.findall(r"--[a-z][a-z0-9.-]*", _help(*subcommand)))
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= known | {"--help"}, f"{_name(page)}: {line}"


def test_env_example_is_the_defaults() -> None:
    """Every name is known, and copying the file changes nothing."""
    example = ROOT / ".env.example"
    resolved = resolve(TrainingConfig, {}, environment={}, dotenv=example)
    assert resolved.config == TrainingConfig()

    names = set(re.findall(r"^([A-Z_]+)=", example.read_text(encoding="utf-8"), re.M))
    settings = {option.path for option in options(TrainingConfig) if option.variable in names}
    assert settings == {path for path, source in resolved.origins.items() if source == ".env"}
    assert CHECKPOINT_VARIABLE in names


def test_readme_starts_with_the_two_commands() -> None:
    first_screen = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40]
    assert "make quickstart" in "\n".join(first_screen)
    assert "make test" in "\n".join(first_screen)


def test_nothing_local_is_written_down() -> None:
    """No file names a package index or a folder of somebody's machine: others have neither."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode:
        pytest.skip("not a git checkout, so nothing tells the project's files from others")
    hosts = r"(?:pypi|pythonhosted|npmjs|anaconda)\.(?:org|com)"
    sources = r"--(?:(?:extra-)?index-url|find-links)\b"
    folders = r"(?<![\w.~])/(?:home|mnt|opt|root|Users|work)/\w"
    pattern = re.compile(f"{hosts}|{sources}|{folders}")
    found = []
    for name in filter(None, listing.stdout.split("\0")):
        path = ROOT / name
        if path.is_symlink() or not path.is_file() or b"\0" in (raw := path.read_bytes()):
            continue
        for number, line in enumerate(raw.decode("utf-8", "replace").splitlines(), 1):
            if match := pattern.search(line):
                found.append(f"{name}:{number}: {match.group()}")
    assert not found, "\n".join(found)
