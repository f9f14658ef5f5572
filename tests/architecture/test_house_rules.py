"""What docs/architecture.md asks of the code, as far as a machine can see it."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PACKAGES = ("homeserver", "client_api", "federation", "storage")
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
NAMES_WITHOUT_SUBJECT = ("handler", "manager", "helper", "util", "common", "misc", "info", "processor")

# What would tie the repository to the machine or the network that it was written on.
FOREIGN_TEXTS = re.compile(r"/(?:root|work)/|/tmp/ref|file:///|index-url|extra-index|PIP_INDEX|https?://[^ /]*pypi")
TEXT_FILES = {
    *(".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".cfg", ".ini", ".sql", ".sh", ".service", ".json", ".mjs", ""),
}
CACHES = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
MADE = CACHES | {".git", ".venv", ".venv-synapse", "node_modules"}


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((TOP / package).rglob("*.py"))]


def label(path: Path) -> str:
    return str(path.relative_to(TOP))


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def test_imports_point_down() -> None:
    program = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"
    result = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], cwd=TOP, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_top_package_is_empty() -> None:
    assert (TOP / "homeserver" / "__init__.py").read_text() == ""


@pytest.mark.parametrize("path", modules(), ids=label)
def test_module(path: Path) -> None:
    """Its size, its names and its imports."""
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= FILE_LINES_MAX, f"{label(path)} has {lines} lines"
    mistakes = [*_long_functions(path), *_names_without_subject(path), *_hidden_imports(path)]
    assert not mistakes, "\n".join(mistakes)


def _long_functions(path: Path) -> Iterator[str]:
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            # A section is the list of its endpoints, each a function of its own.
            inner = sum(
                (child.end_lineno or child.lineno) - min([child.lineno, *(d.lineno for d in child.decorator_list)]) + 1
                for child in node.body
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            )
            if lines - inner > FUNCTION_LINES_MAX:
                yield f"{label(path)}:{node.lineno}: {node.name} has {lines - inner} lines"


def _names_without_subject(path: Path) -> Iterator[str]:
    names = {path.stem} | {node.name for node in nodes(path) if isinstance(node, ast.ClassDef)}
    for name in names:
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_")
        for word in words:
            if word.removesuffix("s") in NAMES_WITHOUT_SUBJECT:
                yield f"{label(path)}: {name} says nothing about its subject"


def _hidden_imports(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and node not in tree.body:
            yield f"{label(path)}:{node.lineno}: an import that is not at the top"


def test_nothing_names_the_machine_it_was_made_on() -> None:
    found = []
    for path in TOP.rglob("*"):
        inside = path.relative_to(TOP).parts
        if path.is_file() and path.suffix in TEXT_FILES and not MADE & set(inside) and inside[0] not in ("dev", "data"):
            text = path.read_text(encoding="utf-8", errors="replace")
            found += [f"{label(path)}: {match[0]}" for match in FOREIGN_TEXTS.finditer(text) if path != Path(__file__)]
    assert not found, "\n".join(found)


def test_every_dependency_has_its_reason() -> None:
    reasons = (TOP / "docs" / "dependencies.md").read_text()
    declared = re.findall(r'^    "([a-z0-9-]+)(?:\[[a-z0-9]+\])?>=', (TOP / "pyproject.toml").read_text(), re.MULTILINE)
    assert len(declared) > 20
    assert [name for name in declared if f"**{name}**" not in reasons] == []


def test_every_dependency_has_its_version() -> None:
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in _constraints()}
    declared = re.findall(r'^    "([a-z0-9-]+)(?:\[[a-z0-9]+\])?>=', (TOP / "pyproject.toml").read_text(), re.MULTILINE)
    assert [name for name in declared if name not in pinned] == []


def _constraints() -> list[str]:
    lines = (TOP / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_constraints_are_versions_and_nothing_else() -> None:
    assert [line for line in _constraints() if not re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.]+", line)] == []
