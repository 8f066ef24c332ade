"""What the package imports is what it declares, and what it declares is pinned."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

DISTRIBUTION = {"sklearn": "scikit-learn"}  # where the import is not called like its distribution
OPTIONAL = {
    "transformers": "llm",
    "peft": "llm",
    "huggingface-hub": "llm",
    "implicit": "baselines",
    "lightgbm": "baselines",
}  # distribution -> extra that brings it


def project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins(root: Path) -> dict[str, str]:
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def imports(path: Path) -> set[str]:
    """Third-party distributions that a module imports anywhere in its body."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    outside = found - set(sys.stdlib_module_names) - {"pagellm"}
    return {canonicalize_name(DISTRIBUTION.get(name, name)) for name in outside}


def test_every_import_of_the_package_is_declared(root: Path) -> None:
    declared = names(project(root)["dependencies"])
    extras = {extra: names(listed) for extra, listed in project(root)["optional-dependencies"].items()}
    used = {name for path in (root / "src").rglob("*.py") for name in imports(path)}
    assert "polars" in used
    undeclared = {name for name in used - declared if name not in extras.get(OPTIONAL.get(name, ""), set())}
    assert not undeclared, f"imported in src/ but not in pyproject.toml: {sorted(undeclared)}"


def test_every_base_dependency_is_used(root: Path) -> None:
    used = {name for path in (root / "src").rglob("*.py") for name in imports(path)}
    unused = names(project(root)["dependencies"]) - used
    assert not unused, f"in pyproject.toml but imported nowhere in src/: {sorted(unused)}"


def test_no_extra_is_empty(root: Path) -> None:
    assert all(project(root)["optional-dependencies"].values())


def test_every_requirement_is_pinned_inside_its_range(root: Path) -> None:
    pinned = pins(root)
    assert pinned["torch"] == "2.13.0"
    extras = project(root)["optional-dependencies"].values()
    for text in [*project(root)["dependencies"], *(r for extra in extras for r in extra)]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pinned[canonicalize_name(wanted.name)]), text


def test_pins_are_plain_versions(root: Path) -> None:
    for name, version in pins(root).items():
        assert name == canonicalize_name(name)
        assert re.fullmatch(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?", version), f"{name}=={version}"
