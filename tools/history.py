"""When each algorithm left RLlib, found in the wheels of ray; writes `results/rllib_history.json`.

`python -m tools.history` asks pip which releases there are, and narrows each answer down by halves, so that
it downloads about a dozen wheels, one at a time, and keeps none. `python -m tools.history 2.6.3 2.7.2` only
prints what those wheels hold. It needs a network, and a few minutes.

An algorithm did not leave at once. First its folder stayed in the wheel, and its class did nothing but raise
an error that names another place. Then the folder was gone too. So each algorithm has four releases:

- `last_working`: the last whose class is the algorithm itself;
- `first_stub`: the first whose class only raises the error, or null if the folder went without one;
- `last`: the last whose wheel holds the folder, stub or not;
- `first_without`: the first whose wheel does not.
"""

import functools
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from extensions.cache import write_whole

FILE = Path(__file__).resolve().parent.parent / "results" / "rllib_history.json"
# The folder and the class of each. VDN and independent Q-learning were QMIX, with mixer="vdn" and mixer=None.
ALGORITHMS = {
    "PG": ("pg", "PG"),
    "A2C": ("a2c", "A2C"),
    "A3C": ("a3c", "A3C"),
    "DDPG": ("ddpg", "DDPG"),
    "TD3": ("td3", "TD3"),
    "ApexDQN": ("apex_dqn", "ApexDQN"),
    "ARS": ("ars", "ARS"),
    "ES": ("es", "ES"),
    "QMIX": ("qmix", "QMix"),
}
OLDEST = "2.0.0"  # from here on, algorithms stand in rllib/algorithms/
# Any platform will do: the Python files are the same on all.
WHEEL = ["--only-binary=:all:", "--python-version=3.10", "--platform=manylinux2014_x86_64"]


def releases() -> list[str]:
    """Every release of ray from OLDEST on that has such a wheel, the oldest first."""
    printed = _pip("index", "versions", "ray", *WHEEL)
    found = re.search(r"Available versions: (.+)", printed)[1].split(", ")
    known = sorted((v for v in found if re.fullmatch(r"\d+\.\d+\.\d+", v)), key=_number)
    return [version for version in known if _number(version) >= _number(OLDEST)]


@functools.cache
def states(version: str) -> dict[str, str]:
    """For each algorithm: "works", "stub" or "gone" in the wheel of this release."""
    with tempfile.TemporaryDirectory() as folder:
        _pip("download", "--no-deps", "--dest", folder, *WHEEL, f"ray=={version}")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            # The oldest wheels hold everything in a folder ray-2.0.0.data/purelib/.
            files = {re.sub(r"^ray-[\d.]+data/purelib/", "", name): name for name in wheel.namelist()}
            found = {}
            for algorithm, (stem, _) in ALGORITHMS.items():
                file = files.get(f"ray/rllib/algorithms/{stem}/{stem}.py")
                found[algorithm] = _state(algorithm, wheel.read(file).decode()) if file else "gone"
    print(f"ray {version}: {json.dumps(found)}", flush=True)
    return found


def _state(algorithm: str, source: str) -> str:
    # A decorator right above the class that makes its use an error.
    stub = rf"@Deprecated\([^)]*error=True,?\s*\)\s*class {ALGORITHMS[algorithm][1]}\("
    return "stub" if re.search(stub, source) else "works"


def history(versions: list[str]) -> dict[str, dict[str, str | None]]:
    """The four releases of each algorithm. Halving is right because what has gone does not come back."""
    found = {}
    for algorithm in ALGORITHMS:
        left = _first(versions, lambda version, a=algorithm: states(version)[a] != "works")
        gone = _first(versions, lambda version, a=algorithm: states(version)[a] == "gone")
        found[algorithm] = {
            "last_working": versions[left - 1],
            "first_stub": versions[left] if left < gone else None,
            "last": versions[gone - 1],
            "first_without": versions[gone],
        }
    return found


def _first(versions: list[str], holds) -> int:
    """The place of the first release for which it holds, where it holds for all later ones."""
    low, high = 0, len(versions) - 1
    assert not holds(versions[low]) and holds(versions[high])
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(versions[middle]) else (middle, high)
    return high


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _pip(*words: str) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        sys.exit(f"pip {words[0]} failed ({last}); finding releases needs a network and a package registry.")
    return done.stdout


def main() -> None:
    """Print what the given releases hold, or find and write the history."""
    if sys.argv[1:]:
        for version in sys.argv[1:]:
            states(version)
        return
    found = history(releases())
    write_whole(FILE, json.dumps(found, indent=1) + "\n")
    print(f"Wrote {FILE.name}.")


if __name__ == "__main__":
    main()
