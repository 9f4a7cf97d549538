"""`make upgrade RAY=2.59.0`: tries every program with another release of RLlib and lists what breaks.

The other release gets an environment of its own, `.venv-ray-RELEASE`, with this project's pins wherever
that release allows them. There each program runs once, as on its page. The list is written to
`results/releases/RELEASE.json`, whole or not at all. Until then a finished program is kept in
`.cache/releases/`, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import hashlib
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from extensions.cache import write_whole
from extensions.results import pinned
from runner.judge import judge
from runner.pages import Program, read_programs
from runner.process import run_as_on_page
from runner.selection import whole_file

ROOT = Path(__file__).resolve().parent.parent
RELEASES = ROOT / "results" / "releases"
PARTS = ROOT / ".cache" / "releases"
BROKEN = PARTS / "broken.md"
PACKAGES = ("ray", "torch", "tensorflow", "gymnasium")
NEWEST = "newest"
EXTRAS = ("rllib", "default", "serve")
SLACK = 3  # times a program's own limit: this is about what breaks, not about seconds


def resolve(release: str) -> tuple[str, list[Requirement]]:
    """The number of a release of Ray, and what that release asks for, the used extras included.

    Args:
        release: such as `2.59.0`, or `newest`.

    Raises:
        ValueError: pip knows no such release.
    """
    wanted = "ray" if release == NEWEST else f"ray=={release}"
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet"]
    answer = subprocess.run([*pip, "--report", "-", wanted], capture_output=True, text=True)
    if answer.returncode != 0:
        raise ValueError(release)
    metadata = json.loads(answer.stdout)["install"][0]["metadata"]
    asked = [Requirement(text) for text in metadata["requires_dist"]]
    extras = [{"extra": extra} for extra in EXTRAS]
    asked = [one for one in asked if one.marker is None or any(map(one.marker.evaluate, extras))]
    return metadata["version"], asked


def requirements(number: str, asked: list[Requirement], name: str = "requirements.txt") -> str:
    """A file of pinned requirements with another Ray; where a pin is none that Ray takes, Ray's wish.

    Of `requirements-cluster.txt` only what is not in `requirements.txt`: its environment stands on the other.
    """
    cluster = name != "requirements.txt"
    lines = [f"ray[{'default,serve' if cluster else 'rllib'}]=={number}"]
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if not (text := line.split("#")[0].strip()) or (cluster and "-c requirements.txt" in line):
            continue
        pin = Requirement(text)
        [specifier] = pin.specifier
        wishes = [one for one in asked if canonicalize_name(one.name) == canonicalize_name(pin.name)]
        if pin.name == "ray":
            continue
        if all(one.specifier.contains(specifier.version, prereleases=True) for one in wishes):
            lines.append(text)
        else:
            lines += [f"{one.name}{one.specifier}" for one in wishes]
    return "\n".join(lines) + "\n"


def _try(program: Program, key: str) -> dict:
    """What is wrong with how one program ends here, and the last line of its error; None if nothing is."""
    part = _part(key)
    if part.is_file():
        return json.loads(part.read_text(encoding="utf-8"))
    outcome = run_as_on_page(program, SLACK * program.limit)
    problem = judge(program, outcome)
    error = outcome.error.strip().splitlines()[-1][:300] if problem and outcome.error else problem
    found = {"problem": problem, "error": error}
    _write(part, found)
    print(f"{program.file_name}: {problem or 'runs'}, {outcome.seconds:.0f} s", flush=True)
    return found


def _part(key: str) -> Path:
    """Where a finished program is kept until the list is written: it is of these very versions."""
    of = hashlib.sha256(f"{key} {_versions()}".encode()).hexdigest()[:16]
    return PARTS / version("ray") / f"{of}.json"


def _versions() -> dict[str, str]:
    return {name: version(name).split("+")[0] for name in PACKAGES}


def _write(file: Path, data: dict) -> None:
    write_whole(file, json.dumps(data, indent=1) + "\n")


def _programs() -> dict[str, tuple[str, Program]]:
    """Each program of the site once: by the hash of what it is, its name and itself.

    The name is that of its file, or `docs/index.md#2` for the second program on a page.
    """
    found: dict[str, tuple[str, Program]] = {}
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for number, program in enumerate(read_programs(page, ROOT), 1):
            asked = [program.fails_with, program.expected_output, program.deprecated, program.needs]
            asked += [file.read_text(encoding="utf-8") for file in program.beside]
            text = f"{program.language}\n{asked}\n{program.code}"
            file = whole_file(program)
            name = file.relative_to(ROOT) if file else f"{page.relative_to(ROOT)}#{number}"
            found.setdefault(hashlib.sha256(text.encode()).hexdigest()[:16], (str(name), program))
    return found


def _source_hash(program: Program) -> str:
    """Of an example or a snippet its file's hash; so the site can tell whether it has changed since."""
    file = whole_file(program)
    return hashlib.sha256(file.read_bytes() if file else program.code.encode()).hexdigest()


def run(jobs: int) -> int:
    """Try every program once, write the list, and print what breaks."""
    programs = _programs()
    release = version("ray")
    print(f"Trying {len(programs)} programs with Ray {release}.", flush=True)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        ends = pool.map(lambda key: _try(programs[key][1], key), programs)
        tried = [
            {
                "program": name,
                "page": str(program.page.relative_to(ROOT)),
                "source_sha256": _source_hash(program),
            }
            | end
            for (name, program), end in zip(programs.values(), ends, strict=True)
        ]
    _write(
        RELEASES / f"{release}.json",
        {
            "versions": _versions(),
            "tried_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "programs": sorted(tried, key=lambda one: (one["page"], one["program"])),
        },
    )
    for key in programs:  # the next call tries anew: RLlib is not the only thing that may have changed
        _part(key).unlink()
    broken = [one for one in tried if one["problem"]]
    lines = [f"With Ray {release}, {len(tried) - len(broken)} of {len(tried)} programs run unchanged."]
    for one in broken:
        error = "" if one["error"] == one["problem"] else f": `{one['error']}`"
        lines.append(f"- `{one['program']}` on `{one['page']}`: {one['problem']}{error}")
    text = "\n".join(lines)
    write_whole(BROKEN, text + "\n")  # for the summary of the workflow
    print(f"\n{text}")
    if broken:
        print(f"{len(broken)} programs break with Ray {release}; they are listed above.", file=sys.stderr)
    return int(bool(broken))


def main() -> int:
    """Make the environment and go on in it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("release", nargs="?", default=NEWEST, help="such as 2.59.0; the newest when left out")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--here", action="store_true", help="run the programs in the environment that runs this"
    )
    arguments = parser.parse_args()
    if arguments.here:
        return run(arguments.jobs)
    try:
        number, asked = resolve(arguments.release)
    except ValueError as error:
        print(f"pip knows no release {error} of Ray; a release is written like 2.59.0.", file=sys.stderr)
        return 1
    if number == pinned()["ray"]:
        sentence = f"Ray {number} is the release that is pinned here; `make test-all` runs all with it."
        write_whole(BROKEN, sentence + "\n")
        print(sentence)
        return 0
    folder = ROOT / f".venv-ray-{number}"
    script = ROOT / "tools" / "environment.sh"
    env = {"PYTHON": sys.executable} | os.environ
    for name, base in ("requirements.txt", []), ("requirements-cluster.txt", [folder.name]):
        file = PARTS / name.replace(".txt", f"-{number}.txt")
        write_whole(file, requirements(number, asked, name))
        made = f"{folder.name}-cluster" if base else folder.name
        if subprocess.run([script, made, file, *base], cwd=ROOT, env=env).returncode != 0:
            return 1
    again = [folder / "bin" / "python", "-m", "tools.upgrade", "--here", "--jobs", str(arguments.jobs)]
    return subprocess.run(again, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
