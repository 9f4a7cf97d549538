"""`make record`: runs examples over several seeds and writes what they printed and measured.

How many seeds, and which, follows from the program's source (programs.py): nobody chooses them. `SEEDS=`
tries a program out with others and writes nothing.

`algorithms/rainbow+WITHOUT=noisy` is the example `algorithms/rainbow`, run with that environment variable:
the way to record an ablation, or another environment than the page's. It has a record of its own.

Each example runs alone, on two cores, once for each seed. A finished seed is kept in `.cache/record/` at
once, so an interrupted recording goes on where it stopped. The record itself is written whole or not at all.
Before and after each seed the speed of the machine is measured (speed.py); a seed during which it changed by
more than a tenth is run again, once.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import hashlib
import json
import math
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from extensions.cache import write_whole
from extensions.records import ALIKE, FORM
from runner.judge import VERDICT, judge
from runner.pages import Origin, Program, has_target, read_programs
from runner.process import Outcome, run_as_on_page
from runner.selection import whole_file
from tools.programs import (
    enough_solved,
    how_many_seeds,
    seeds_of,
    shown_on_pages,
    split_switches,
)
from tools.speed import work_seconds

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
RESULTS = ROOT / "results"
PARTS = ROOT / ".cache" / "record"
PACKAGES = ("ray", "torch", "tensorflow", "gymnasium")
CORES = 2
LIMIT = 900.0  # seconds; an example's own budget is what ends it
TIMING = 4.0  # seconds for each seed in which the machine's speed is measured, twice

# A curve is one of two things: the mean return of exploring episodes, or the return of an evaluation.
POINT = re.compile(
    r"^iteration +\d+ +env steps +(?P<env_steps>[\d,]+) +(?P<curve>mean return|greedy return) +"
    r"(?P<value>-?[\d.]+|nan)(?: +env runners +\d+ +took +[\d.]+)? +seconds +(?P<seconds>[\d.]+)$"
)


def versions() -> dict[str, str]:
    """The versions that a record depends on; local labels such as `+cpu` left out."""
    found = {name: version(name).split("+")[0] for name in PACKAGES}
    return {"python": ".".join(platform.python_version_tuple()[:2])} | found


def _machine() -> dict:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {"cpu": model, "cores": min(CORES, len(os.sched_getaffinity(0)))}


def points(stdout: str) -> list[list[float | None]]:
    """The learning curve that a program printed: [env steps, return, seconds] for each iteration."""
    found = []
    for match in filter(None, map(POINT.match, stdout.splitlines())):
        value = float(match["value"])
        env_steps = int(match["env_steps"].replace(",", ""))
        found.append([env_steps, None if math.isnan(value) else value, float(match["seconds"])])
    return found


def curve_of(stdout: str) -> str | None:
    """What the progress lines of a program show: `mean return` or `greedy return`; None without any.

    Raises:
        ValueError: one program shows both, which makes no curve.
    """
    kinds = {match["curve"] for match in filter(None, map(POINT.match, stdout.splitlines()))}
    if len(kinds) > 1:
        raise ValueError("its progress lines say `mean return` here and `greedy return` there")
    return kinds.pop() if kinds else None


def _measured(seed: int, program: Program, outcome: Outcome, speed: list[float], repeated: bool) -> dict:
    """The entry of one seed. The program's own values count; what it printed is rounded."""
    curve = points(outcome.stdout)
    greedy_return, verdict = None, VERDICT.search(outcome.stdout)
    if verdict:  # without one, the program's `greedy_return` is whatever it had when it ended
        greedy_return = outcome.values.get("greedy_return", float(verdict["value"]))
    return {
        "seed": seed,
        "solved": judge(program, outcome) is None,
        "seconds": outcome.seconds,
        "cpu_seconds": outcome.cpu_seconds,
        "work_seconds": speed,
        "repeated": repeated,
        "env_steps": int(outcome.values.get("env_steps", curve[-1][0] if curve else 0)),
        "updates": outcome.updates,
        "greedy_return": greedy_return,
        "episodes": int(verdict["episodes"]) if verdict else None,
        "points": curve,
    }


def _write(file: Path, data: dict) -> None:
    """Write JSON whole or not at all, a point of a curve and a pair of speeds on a line of their own."""
    text = json.dumps(data, indent=1)
    number = r"(-?[\d.]+|null)"
    text = re.sub(rf"\[\s+{number},\s+{number},\s+{number}\s+\]", r"[\1, \2, \3]", text)
    text = re.sub(rf"\[\s+{number},\s+{number}\s+\]", r"[\1, \2]", text)
    write_whole(file, text + "\n")


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))[:CORES]


def _duration(seconds: float) -> str:
    """`40 s`, `12 min` or `3 h 20 min`: nobody needs it more exactly."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


@dataclass
class _Job:
    """An example to record (or to try out), with its seeds."""

    example: str
    seeds: list[int]
    program: Program
    switches: dict[str, str]
    sha: str
    usual: float | None
    """The seconds that a seed took when the example was last recorded."""

    def part(self, seed: int) -> Path:
        """Where the finished seed is kept until the record is written."""
        of = f"{self.sha}{_beside(self.program.beside)}{versions()}{_machine()}{FORM}"
        key = hashlib.sha256(of.encode()).hexdigest()[:16]
        return PARTS / f"{self.example.replace('/', '-')}-{key}-{seed}.json"

    def seeds_left(self) -> list[int]:
        """The seeds that have not been run yet."""
        return [seed for seed in self.seeds if not self.part(seed).is_file()]


def _job(example: str, seeds: list[int] | None) -> _Job:
    name, switches = split_switches(example)
    file = EXAMPLES / f"{name}.py"
    source = file.read_bytes()
    code = source.decode()
    lines = [Origin(file, number) for number in range(1, code.count("\n") + 2)]
    beside, needs = _asked_on_page(file)
    record = RESULTS / f"{example}.json"
    usual = None
    if record.is_file():
        runs = json.loads(record.read_text(encoding="utf-8"))["seeds"]
        usual = statistics.mean(run["seconds"] for run in runs) + TIMING
    return _Job(
        example,
        seeds or seeds_of(example, source, how_many_seeds(example, code, EXAMPLES.parent / "docs")),
        Program(file, 1, "python", code, lines, limit=LIMIT, beside=beside, needs=needs),
        switches,
        hashlib.sha256(source).hexdigest(),
        usual,
    )


def _asked_on_page(example: Path) -> tuple[tuple[Path, ...], str | None]:
    """The files beside an example and the extras that it needs, as its page asks for them."""
    root = EXAMPLES.parent
    include = f'--8<-- "{example.relative_to(root)}"'
    for page in sorted((root / "docs").rglob("*.md")):
        if include in page.read_text(encoding="utf-8"):
            for program in read_programs(page, root):
                if whole_file(program) == example and (program.beside or program.needs):
                    return program.beside, program.needs
    return (), None


def _beside(files: Iterable[Path]) -> dict[str, str]:
    """The hashes of files beside a program, by their paths."""
    return {
        str(file.relative_to(EXAMPLES.parent)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


def _left(jobs: list[_Job]) -> str:
    """What is left to run, and about how long that takes, judged by the last records."""
    seeds = {job.example: len(job.seeds_left()) for job in jobs}
    total = sum(seeds.values())
    known = sum(seeds[job.example] * job.usual for job in jobs if job.usual is not None)
    unknown = [job.example for job in jobs if job.usual is None and seeds[job.example]]
    about = f"about {_duration(known)}" if known or not unknown else "nobody knows how long"
    if known and unknown:
        about += f" and {len(unknown)} that have no record yet"
    return f"{total} {'seed' if total == 1 else 'seeds'} left, {about}"


def _record(job: _Job, later: list[_Job]) -> bool:
    """Record one example; whether enough seeds solved it. With switches, not solving it is a result, too.

    Raises:
        ValueError: the program's curve cannot be recorded.
    """
    parts = []
    for seed in job.seeds:
        part = job.part(seed)
        if part.is_file():
            print(f"{job.example}, seed {seed}: kept from an interrupted recording", flush=True)
        else:
            data, sentence = _run_steadily(job, seed)
            _write(part, data)
            print(f"{sentence}; {_left([job, *later])}", flush=True)
        parts.append((part, json.loads(part.read_text(encoding="utf-8"))))
    _write(
        RESULTS / f"{job.example}.json",
        {
            "form": FORM,
            "example": job.example,
            "source_sha256": job.sha,
            **({"beside": _beside(job.program.beside)} if job.program.beside else {}),
            "versions": versions(),
            "machine": _machine(),
            "recorded_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "target": next((data["target"] for _, data in parts if data["target"] is not None), None),
            "curve": next((data["curve"] for _, data in parts if data["curve"] is not None), None),
            "seeds": [data["run"] for _, data in parts],
            "output": parts[0][1]["output"],
        },
    )
    for part, _ in parts:
        part.unlink()
    solved = sum(data["run"]["solved"] for _, data in parts)
    print(
        f"{job.example}: {solved} of {len(job.seeds)} seeds solved; wrote results/{job.example}.json",
        flush=True,
    )
    return enough_solved(solved, len(job.seeds)) or bool(job.switches)


def _run_steadily(job: _Job, seed: int) -> tuple[dict, str]:
    """Run one seed, and once more if the machine's speed changed by more than a tenth meanwhile."""
    for repeated in (False, True):
        before = work_seconds(_cores())
        outcome, sentence = _run(job, seed)
        speed = [before, work_seconds(_cores())]
        if max(speed) <= ALIKE * min(speed):
            break
        print(
            f"{sentence}; meanwhile the machine's speed changed by more than a tenth (the fixed work took "
            f"{speed[0]:.2f} s before and {speed[1]:.2f} s after), "
            + ("again: kept as it is" if repeated else "so this seed is run once more"),
            flush=True,
        )
    verdict = VERDICT.search(outcome.stdout)
    printed = float(verdict["target"]) if verdict else None
    data = {
        "run": _measured(seed, job.program, outcome, speed, repeated),
        "target": outcome.values.get("TARGET", printed),
        "curve": curve_of(outcome.stdout),
        "output": outcome.stdout,
    }
    return data, sentence


def _run(job: _Job, seed: int) -> tuple[Outcome, str]:
    """Run one seed; how it ended, and the sentence that says so."""
    start = time.monotonic()
    live = sys.stdout.isatty()

    def show(stream: str, line: str) -> None:
        if live:
            seconds = time.monotonic() - start
            print(f"\r\033[K{job.example}, seed {seed}, {seconds:.0f} s: {line[:80]}", end="", flush=True)

    outcome = run_as_on_page(
        job.program,
        LIMIT,
        env={"SEED": str(seed)} | job.switches,
        cores=_cores(),
        on_line=show,
        note_written=False,  # the tests look for files left behind; that costs up to 3 % of the time
    )
    if live:
        print("\r\033[K", end="")
    problem = judge(job.program, outcome)
    if problem and not points(outcome.stdout):
        for _, line in outcome.lines[-8:]:
            print(f"    {line}")
    ending = "solved" if problem is None else problem
    return outcome, f"{job.example}, seed {seed}: {ending}, {outcome.seconds:.0f} s"


def _try_out(job: _Job) -> bool:
    """Run an example with seeds that somebody chose: printed, and never written."""
    solved = 0
    for seed in job.seeds:
        outcome, sentence = _run(job, seed)
        solved += judge(job.program, outcome) is None
        print(sentence, flush=True)
    print(
        f"{job.example}: {solved} of {len(job.seeds)} seeds solved; "
        "nothing written, because a record's seeds follow from the program's source",
        flush=True,
    )
    return solved == len(job.seeds) or bool(job.switches)


def all_examples() -> list[str]:
    """Every example, as `algorithms/ppo`."""
    return sorted(str(file.relative_to(EXAMPLES).with_suffix("")) for file in EXAMPLES.rglob("*.py"))


def needed_examples() -> list[str]:
    """The examples that have to have a record: those with a target, and those that a page shows."""
    shown = shown_on_pages((EXAMPLES.parent / "docs", EXAMPLES.parent / "snippets"))
    return [
        name
        for name in all_examples()
        if name in shown or has_target((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))
    ]


def all_switched() -> list[str]:
    """Every record of an example that ran with switches, as `algorithms/rainbow+WITHOUT=noisy`."""
    return sorted(str(file.relative_to(RESULTS))[: -len(".json")] for file in RESULTS.rglob("*+*.json"))


def is_stale(example: str) -> bool:
    """Whether an example has no record, or one of another source, of other versions or in the old form."""
    file = RESULTS / f"{example}.json"
    if not file.is_file():
        return True
    data = json.loads(file.read_text(encoding="utf-8"))
    program = EXAMPLES / f"{split_switches(example)[0]}.py"
    source = program.read_bytes()
    return (
        data.get("beside", {}) != _beside(_asked_on_page(program)[0])
        or data.get("form") != FORM
        or data["source_sha256"] != hashlib.sha256(source).hexdigest()
        or data["versions"] != versions()
    )


def main() -> int:
    """Record the examples named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("examples", nargs="*", help="such as algorithms/ppo; or stale; all when left out")
    parser.add_argument("--seeds", help="such as '0 1 2': try these out, and write nothing")
    arguments = parser.parse_args()
    known = all_examples()
    needed = [*needed_examples(), *all_switched()]
    examples = [name.removeprefix("examples/").removesuffix(".py") for name in arguments.examples] or needed
    if examples == ["stale"]:
        examples = [example for example in needed if is_stale(example)]
    for name in examples:
        try:
            example, _ = split_switches(name)
        except ValueError as error:
            return _refuse(f"A switch is written +NAME=value, such as +WITHOUT=noisy, not {error}.")
        if example not in known:
            return _refuse(f"There is no example {example}; the examples are: {', '.join(known)}.")
    seeds = None
    if arguments.seeds is not None:
        try:
            seeds = [int(seed) for seed in arguments.seeds.split()]
        except ValueError:
            return _refuse(f"Seeds are whole numbers, such as '0 1 2', not {arguments.seeds!r}.")
        if not seeds or min(seeds) < 0 or len(set(seeds)) != len(seeds):
            return _refuse("Name at least one seed, none negative and none twice.")
    PARTS.mkdir(parents=True, exist_ok=True)
    with open(PARTS / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return _refuse(
                "Another recording runs in this checkout; two at once would spoil each other's timings."
            )
        try:
            return _all([_job(example, seeds) for example in examples], trial=seeds is not None)
        except KeyboardInterrupt:
            if seeds is not None:
                return _refuse("Interrupted.")
            return _refuse(
                "Interrupted; finished seeds are kept, and the same command goes on with the rest."
            )


def _all(jobs: list[_Job], *, trial: bool) -> int:
    if trial:
        return 0 if all([_try_out(job) for job in jobs]) else _refuse("Not every seed solved its example.")
    print(f"{len(jobs)} {'example' if len(jobs) == 1 else 'examples'}: {_left(jobs)}", flush=True)
    fell_short = []
    for number, job in enumerate(jobs):
        try:
            if not _record(job, jobs[number + 1 :]):
                fell_short.append(job.example)
        except ValueError as error:
            return _refuse(f"{job.example} cannot be recorded: {error}.")
    if fell_short:
        return _refuse(f"Too few seeds solved {', '.join(fell_short)}: mend the program, not its seeds.")
    return 0


def _refuse(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
