"""Check an environment with the plain install alone: its size, absent packages, and the time of its imports."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

MOST_MB = 450
MOST_S = 0.5
# Packages of a fresh environment, which do not count.
FRESH = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence")
ABSENT = ("tensorflow", "tf_keras", "keras", "tensorflow_model_optimization", "onnx", "sklearn", "matplotlib")
# A busy machine may delay any single start. The fastest of five shows the cost of the import itself.
TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def size_mb(folder: Path) -> float:
    """Return the size of the installed packages, without bytecode: Python may or may not have written that cache."""
    files = (
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.suffix != ".pyc"
    )
    counted = (path for path in files if not path.relative_to(folder).parts[0].startswith(FRESH))
    return sum(path.stat().st_size for path in counted) / 1e6


def seconds(statement: str) -> float:
    """Return the time of an import in a fresh process."""
    command = [sys.executable, "-c", TIMED.format(statement)]
    return min(float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(5))


def main() -> None:
    faults = []
    size = size_mb(Path(sysconfig.get_paths()["purelib"]))
    print(f"size without pip and bytecode: {size:.0f} MB, allowed {MOST_MB}")
    if size > MOST_MB:
        faults.append(f"the plain install takes {size:.0f} MB")
    for name in ABSENT:
        if find_spec(name):
            faults.append(f"the plain install brings {name}")
    for statement in ("import capsule_edge.runtime", "from capsule_edge.runtime import Reader, Study"):
        took = seconds(statement)
        print(f"{statement}: {took:.3f} s, allowed {MOST_S}")
        if took >= MOST_S:
            faults.append(f"'{statement}' takes {took:.2f} s")
    if faults:
        raise SystemExit("error: " + "; ".join(faults))


if __name__ == "__main__":
    main()
