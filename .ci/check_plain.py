"""Check an environment with the plain install alone: its size, absent packages, and the time of its imports."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

MOST_MB = 450
# Times the core time of the libraries that every use needs. On a machine that imports them in .2 s, that is .5 s.
MOST_RATIO = 2.5
LIBRARIES = "import numpy, av"
# Packages of a fresh environment, which do not count.
FRESH = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence")
ABSENT = ("tensorflow", "tf_keras", "keras", "tensorflow_model_optimization", "onnx", "sklearn", "matplotlib")
# Core time, which other programs hardly change; the least of five shows the cost of the import itself.
TIMED = "import time; start = time.process_time(); {}; print(time.process_time() - start)"


def size_mb(folder: Path) -> float:
    """Return the size of the installed packages, without bytecode: Python may or may not have written that cache."""
    files = (
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.suffix != ".pyc"
    )
    counted = (path for path in files if not path.relative_to(folder).parts[0].startswith(FRESH))
    return sum(path.stat().st_size for path in counted) / 1e6


def core_times(*statements: str) -> list[float]:
    """Return the least core time of each import, seconds, taken in turns in fresh processes."""
    commands = [[sys.executable, "-c", TIMED.format(statement)] for statement in statements]
    rounds = [
        [float(subprocess.run(command, capture_output=True, check=True).stdout) for command in commands]
        for _ in range(5)
    ]
    return [min(times) for times in zip(*rounds, strict=True)]


def main() -> None:
    faults = []
    size = size_mb(Path(sysconfig.get_paths()["purelib"]))
    print(f"size without pip and bytecode: {size:.0f} MB, allowed {MOST_MB}")
    if size > MOST_MB:
        faults.append(f"the plain install takes {size:.0f} MB")
    for name in ABSENT:
        if find_spec(name):
            faults.append(f"the plain install brings {name}")
    ours = "from capsule_edge.runtime import Reader, Study"
    libraries, took = core_times(LIBRARIES, ours)
    print(f"{ours}: {took:.3f} s, {took / libraries:.2f} times '{LIBRARIES}', allowed {MOST_RATIO}")
    if took >= MOST_RATIO * libraries:
        faults.append(f"'{ours}' takes {took / libraries:.2f} times as long as '{LIBRARIES}'")
    if faults:
        raise SystemExit("error: " + "; ".join(faults))


if __name__ == "__main__":
    main()
