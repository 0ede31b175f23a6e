"""Builds the wheel from a clean copy of the tree, so that nothing left by an earlier build can slip into it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "typings", "node_modules")


def build_wheel(into: Path) -> Path:
    """The path of the wheel, built in `into` with the setuptools of this environment."""
    source = into / "source"
    shutil.copytree(ROOT, source, ignore=LEFT_OUT)
    options = ["--no-build-isolation", "--no-deps", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(into), str(source)],
        check=True,
        capture_output=True,
        text=True,
    )
    (wheel,) = into.glob("*.whl")
    return wheel


if __name__ == "__main__":
    build_wheel(Path(sys.argv[1]).resolve())
