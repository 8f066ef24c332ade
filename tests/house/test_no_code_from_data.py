"""Nothing in the package turns bytes or text into code: no pickle, no eval, no unsafe loader. Read from the syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

BANNED_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
BANNED_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "torch.load",
    "torch.save",
    "torch.hub.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "pandas.read_pickle",
    "pd.read_pickle",
    "os.system",
    "os.popen",
}
BANNED_KEYWORDS = {"allow_pickle": True, "trust_remote_code": True, "shell": True, "weights_only": False}


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or attribute, empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""


def offences(source: str) -> Iterator[str]:
    """What the source does that data must never be able to reach, one line each."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if f"{node.module}.load" in BANNED_CALLS and any(alias.name == "load" for alias in node.names):
                yield f"line {node.lineno}: imports load from {node.module}"
        for name in names:
            if name.partition(".")[0] in BANNED_MODULES:
                yield f"line {node.lineno}: imports {name}"
        if isinstance(node, ast.Call):
            if dotted(node.func) in BANNED_CALLS:
                yield f"line {node.lineno}: calls {dotted(node.func)}"
            for keyword in node.keywords:
                if keyword.arg in BANNED_KEYWORDS and not (
                    isinstance(keyword.value, ast.Constant) and keyword.value.value is not BANNED_KEYWORDS[keyword.arg]
                ):
                    yield f"line {node.lineno}: passes {keyword.arg}={ast.unparse(keyword.value)}"


@pytest.mark.parametrize(
    "bad",
    [
        "import pickle",
        "from joblib import load",
        "import marshal as m",
        "eval('1')",
        "exec(text)",
        "torch.load(path)",
        "from torch import load",
        "yaml.load(text)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=flag)",
        "subprocess.run(text, shell=True)",
        "torch.serialization.load(path, weights_only=False)",
    ],
)
def test_the_reader_finds_what_is_banned(bad: str) -> None:
    assert list(offences(bad))


@pytest.mark.parametrize(
    "good",
    ["model.eval()", "re.compile(text)", "np.load(path, allow_pickle=False)", "json.load(file)", "torch.compile(model)"],
)
def test_the_reader_lets_pass_what_is_safe(good: str) -> None:
    assert not list(offences(good))


def test_no_module_of_the_project_does_it(root: Path) -> None:
    files = [path for folder in ("src", "benchmarks", "examples") for path in sorted((root / folder).rglob("*.py"))]
    assert len(files) > 10
    found = [f"{path.relative_to(root)} {what}" for path in files for what in offences(path.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)
