"""Resolve the lowest and the newest versions that setup.cfg allows and write them to ``constraints/``.

    python .ci/constraints.py [--newest] [--lowest]     (needs uv: pip install uv)

``constraints/lowest.txt`` has the lowest version of each direct dependency, ``constraints/newest.txt`` the newest of
all, for every Python that setup.cfg names. ``.ci/run`` installs both. How bounds are raised: ``docs/dependencies.md``.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
OLDEST_PYTHON = "3.11"
# uv does not see that a version is for older Pythons only, and pip refuses such a version.
NOT_FOR_OUR_PYTHONS = "backports.strenum<1.3\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in RESOLUTIONS:
        parser.add_argument(f"--{name}", action="store_true", help=f"write constraints/{name}.txt only")
    chosen = vars(parser.parse_args())
    if shutil.which("uv") is None:
        raise SystemExit("error: uv is not installed; pip install uv")
    for name, resolution in RESOLUTIONS.items():
        if chosen[name] or not any(chosen.values()):
            write_constraints(ROOT / "constraints" / f"{name}.txt", resolution)


def write_constraints(path: Path, resolution: str) -> None:
    """Write the versions that ``resolution`` gives for all extras together to ``path``."""
    command = ["uv", "pip", "compile", "pyproject.toml", "--all-extras", "--universal", "--quiet"]
    command += ["--python-version", OLDEST_PYTHON, "--resolution", resolution, "--no-header", "--no-annotate"]
    with tempfile.TemporaryDirectory() as folder:
        bounds = Path(folder) / "bounds.txt"
        bounds.write_text(NOT_FOR_OUR_PYTHONS, "utf-8")
        command += ["--constraint", str(bounds)]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"# Made by: python .ci/constraints.py --{path.stem}\n{done.stdout}", "utf-8")
    print(f"wrote {path.relative_to(ROOT)}: {len(done.stdout.splitlines())} packages")


if __name__ == "__main__":
    main()
