"""The shape of the house: which room may know which, read from every module's syntax tree.

Imports inside functions and under ``TYPE_CHECKING`` count like any other: they are knowledge, too.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"

LAYERS = (
    ("errors",),
    ("types",),
    ("legal",),
    (
        "training.algorithms",
        "training.choices",
        "training.columns",
        "training.combinations",
        "training.config",
        "training.reward_plugins",
        "training.rewards",
        "training.reference",
        "training.settings",
        "training.sources",
        "training.step_reward",
    ),
    (
        "training.audit",
        "training.batching",
        "training.block_attention",
        "training.checkpoints",
        "training.compatibility",
        "training.console",
        "training.credit",
        "training.devices",
        "training.divergence",
        "training.durable",
        "training.forwards",
        "training.fused_attention",
        "training.groups",
        "training.hub",
        "training.kernels",
        "training.legalbench_scores",
        "training.loading",
        "training.markdown",
        "training.metrics",
        "training.norms",
        "training.optimization",
        "training.optimizers",
        "training.paired",
        "training.plots",
        "training.policy",
        "training.prefill",
        "training.provenance",
        "training.records",
        "training.reference_policy",
        "training.resume",
        "training.rollouts",
        "training.run_folder",
        "training.sampler",
        "training.shared_prefix",
        "training.supervised",
        "training.supervision",
        "training.trackers",
        "training.update",
    ),
    (
        "training.contamination",
        "training.data_curation",
        "training.held_out",
        "training.legalbench_data",
        "training.pile_of_law",
    ),
    ("training.evaluation",),
    ("training.predictions", "training.report"),
    ("training.report_pages",),
    ("training.report_files",),
    ("training.comparison",),
    ("training.coverage", "training.rehearsal", "training.state"),
    ("training.embedded", "training.grpo_trainer", "training.warm_start"),
    ("reasoning_trace",),
    ("quickstart",),
    ("cli_compare", "cli_data", "cli_tasks"),
    ("cli", "__main__"),
)
"""From the ground up. A room may import its own layer and those before it; a name stands for the
module and everything inside the package."""

FACADES = {"judicaita": "errors", "judicaita.training": "training.grpo_trainer"}
"""Packages that hold a version or lazy names and no code of their own: the layer they count as."""

HEAVY = ("torch", "transformers", "peft", "datasets")


def _modules() -> dict[str, Path]:
    """Every module of the package under its dotted name."""
    found = {}
    for path in sorted((SOURCE / "judicaita").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def _is_inside(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def _has_layer(module: str) -> bool:
    """True for the rooms themselves, so that one that is not written yet has its place, too."""
    return any(module == f"judicaita.{room}" for rooms in LAYERS for room in rooms)


def _layer(module: str) -> int:
    """The number of a module's layer; fails with a sentence where the table does not know it."""
    name = FACADES.get(module, module.removeprefix("judicaita."))
    for number, rooms in enumerate(LAYERS):
        if any(_is_inside(name, room) for room in rooms):
            return number
    pytest.fail(
        f"{module} is in no layer: decide who may import it and enter it in LAYERS of "
        f"{Path(__file__).name}.",
        pytrace=False,
    )


def _imports(module: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of all that a module imports, relative names made absolute."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in MODULES or _has_layer(inner) else base


def _where(module: str, line: int) -> str:
    return f"{MODULES[module].relative_to(SOURCE.parent)}:{line}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    if module in FACADES:
        return  # test_facades_only_forward_names
    upward = [
        f"{_where(module, line)} imports {target}, which lies above it"
        for line, target in _imports(module)
        if _is_inside(target, "judicaita") and _layer(target) > _layer(module)
    ]
    assert not upward, "\n".join(upward)


@pytest.mark.parametrize("module", FACADES)
def test_facades_only_forward_names(module: str) -> None:
    """A facade may name what it forwards to type checkers, and loads nothing when imported."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    eager = [
        f"{_where(module, node.lineno)} imports judicaita's own modules on import"
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom) and "judicaita" in ast.unparse(node)
    ]
    assert not eager, "\n".join(eager)


@pytest.mark.parametrize(
    "module", [name for name in MODULES if _is_inside(name, "judicaita.training.algorithms")]
)
def test_maths_stay_apart_from_engines(module: str) -> None:
    """`algorithms` knows tensors, errors and types: no model, tokenizer, file or device."""
    rooms = ("judicaita.errors", "judicaita.types", "judicaita.training.algorithms")
    refused = [
        f"{_where(module, line)} imports {target}"
        for line, target in _imports(module)
        if target.partition(".")[0] in set(HEAVY) - {"torch"}
        or (_is_inside(target, "judicaita") and not any(_is_inside(target, it) for it in rooms))
    ]
    assert not refused, "\n".join(refused)


GROUND_FLOOR = [
    name
    for name in MODULES
    if name in {"judicaita.errors", "judicaita.types"} or _is_inside(name, "judicaita.legal")
]


@pytest.mark.parametrize("module", GROUND_FLOOR)
def test_the_domain_is_torch_free(module: str) -> None:
    """Not even inside a function."""
    heavy = [
        f"{_where(module, line)} imports {target}"
        for line, target in _imports(module)
        if target.partition(".")[0] in HEAVY
    ]
    assert not heavy, "\n".join(heavy)


LIGHT = GROUND_FLOOR + [
    name
    for name in MODULES
    if name
    in {
        "judicaita",
        "judicaita.cli",
        "judicaita.cli_data",
        "judicaita.cli_tasks",
        "judicaita.training",
        "judicaita.training.config",
        "judicaita.training.settings",
    }
]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_no_heavy_library(module: str) -> None:
    code = (
        "import importlib, sys; importlib.import_module(sys.argv[1]); "
        "print(*(name for name in sys.argv[2:] if name in sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, module, *HEAVY], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [], f"importing {module} loads {run.stdout.strip()}"


def _has_all(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(
        isinstance(target, ast.Name) and target.id == "__all__"
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
    )


@pytest.mark.parametrize("module", [name for name, path in MODULES.items() if _has_all(path)])
def test_all_names_resolve(module: str) -> None:
    loaded = importlib.import_module(module)
    missing = [name for name in loaded.__all__ if not hasattr(loaded, name)]
    assert not missing, f"{module}.__all__ names what is not there: {missing}"
    assert len(loaded.__all__) == len(set(loaded.__all__)), f"{module}.__all__ repeats a name"
