"""What `pip install` gets is what the checkout holds: every module, template and the licence, under one version."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pagellm


def test_the_wheel_holds_the_whole_package(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"pagellm-{pagellm.__version__}-py3-none-any.whl"
    packed = set(zipfile.ZipFile(wheel).namelist())
    here = {
        str(path.relative_to(root / "src"))
        for path in (root / "src" / "pagellm").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "pagellm/py.typed" in here
    assert here == {name for name in packed if name.startswith("pagellm/")}
    assert any(name.endswith("LICENSE") for name in packed)
