"""`make record`: runs examples over several seeds and writes what they printed and measured.

`algorithms/rainbow+WITHOUT=noisy` is the example `algorithms/rainbow`, run with that environment variable:
the way to record an ablation, or another environment than the page's. It has a record of its own.

Each example runs alone, on two cores, once for each seed. A finished seed is kept in `.cache/record/` at
once, so an interrupted recording goes on where it stopped. The record itself is written whole or not at all.
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
import sys
import time
from importlib.metadata import version
from pathlib import Path

from runner.judge import VERDICT, judge
from runner.pages import Origin, Program
from runner.process import Outcome, run_program

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
RESULTS = ROOT / "results"
PARTS = ROOT / ".cache" / "record"
PACKAGES = ("ray", "torch", "tensorflow", "gymnasium")
CORES = 2
LIMIT = 900.0  # seconds; an example's own budget is what ends it

POINT = re.compile(
    r"^iteration +\d+ +env steps +(?P<env_steps>[\d,]+) +mean return +(?P<mean_return>-?[\d.]+|nan) +"
    r"seconds +(?P<seconds>[\d.]+)$"
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
    """The learning curve that a program printed: [env steps, mean return, seconds] for each iteration."""
    found = []
    for line in stdout.splitlines():
        if match := POINT.match(line):
            mean_return = float(match["mean_return"])
            found.append(
                [
                    int(match["env_steps"].replace(",", "")),
                    None if math.isnan(mean_return) else mean_return,
                    float(match["seconds"]),
                ]
            )
    return found


def _measured(seed: int, program: Program, outcome: Outcome) -> dict:
    curve = points(outcome.stdout)
    verdict = VERDICT.search(outcome.stdout)
    return {
        "seed": seed,
        "solved": judge(program, outcome) is None,
        "seconds": outcome.seconds,
        "cpu_seconds": outcome.cpu_seconds,
        "env_steps": curve[-1][0] if curve else 0,
        "greedy_return": float(verdict["value"]) if verdict else None,
        "points": curve,
    }


def _write(file: Path, data: dict) -> None:
    """Write JSON whole or not at all, a point of a curve on a line of its own."""
    text = json.dumps(data, indent=1)
    text = re.sub(r"\[\s+(-?[\d.]+|null),\s+(-?[\d.]+|null),\s+(-?[\d.]+|null)\s+\]", r"[\1, \2, \3]", text)
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f".{file.name}.{os.getpid()}")
    half.write_text(text + "\n", encoding="utf-8")
    half.replace(file)


def split_switches(name: str) -> tuple[str, dict[str, str]]:
    """`algorithms/rainbow+WITHOUT=noisy` as the example and the environment variables that it runs with.

    Raises:
        ValueError: what follows a `+` is not `NAME=value`.
    """
    example, *switches = name.split("+")
    for switch in switches:
        if not re.fullmatch(r"[A-Z][A-Z_]*=[\w.-]+", switch):
            raise ValueError(switch)
    return example, dict(switch.split("=", 1) for switch in switches)


def _record(example: str, seeds: list[int]) -> bool:
    """Record one example; whether all seeds solved it. With switches, not solving it is a result, too."""
    name, switches = split_switches(example)
    file = EXAMPLES / f"{name}.py"
    code = file.read_text(encoding="utf-8")
    sha = hashlib.sha256(code.encode()).hexdigest()
    key = hashlib.sha256(f"{sha}{versions()}{_machine()}".encode()).hexdigest()[:16]
    lines = [Origin(file, number) for number in range(1, code.count("\n") + 2)]
    program = Program(file, 1, "python", code, lines, limit=LIMIT)
    parts = []
    for seed in seeds:
        part = PARTS / f"{example.replace('/', '-')}-{key}-{seed}.json"
        if part.is_file():
            print(f"{example}, seed {seed}: kept from an interrupted recording", flush=True)
        else:
            _write(part, _run(example, program, seed, switches))
        parts.append((part, json.loads(part.read_text(encoding="utf-8"))))
    target = next((data["target"] for _, data in parts if data["target"] is not None), None)
    _write(
        RESULTS / f"{example}.json",
        {
            "example": example,
            "source_sha256": sha,
            "versions": versions(),
            "machine": _machine(),
            "recorded_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "target": target,
            "seeds": [data["run"] for _, data in parts],
            "output": parts[0][1]["output"],
        },
    )
    for part, _ in parts:
        part.unlink()
    solved = sum(data["run"]["solved"] for _, data in parts)
    print(f"{example}: {solved} of {len(seeds)} seeds solved; wrote results/{example}.json", flush=True)
    return solved == len(seeds) or bool(switches)


def _run(example: str, program: Program, seed: int, switches: dict[str, str]) -> dict:
    start = time.monotonic()
    live = sys.stdout.isatty()

    def show(stream: str, line: str) -> None:
        if live:
            print(
                f"\r\033[K{example}, seed {seed}, {time.monotonic() - start:.0f} s: {line[:80]}",
                end="",
                flush=True,
            )

    outcome = run_program(
        program.code,
        file_name=program.file_name,
        limit=LIMIT,
        env={"SEED": str(seed)} | switches,
        cores=sorted(os.sched_getaffinity(0))[:CORES],
        on_line=show,
    )
    problem = judge(program, outcome)
    ending = "solved" if problem is None else problem
    clear = "\r\033[K" if live else ""
    print(
        f"{clear}{example}, seed {seed}: {ending}, {outcome.seconds:.0f} s",
        flush=True,
    )
    if problem and not points(outcome.stdout):
        for _, line in outcome.lines[-8:]:
            print(f"    {line}")
    verdict = VERDICT.search(outcome.stdout)
    target = float(verdict["target"]) if verdict else None
    return {"run": _measured(seed, program, outcome), "target": target, "output": outcome.stdout}


def all_examples() -> list[str]:
    """Every example, as `algorithms/ppo`."""
    return sorted(str(file.relative_to(EXAMPLES).with_suffix("")) for file in EXAMPLES.rglob("*.py"))


def all_switched() -> list[str]:
    """Every record of an example that ran with switches, as `algorithms/rainbow+WITHOUT=noisy`."""
    return sorted(str(file.relative_to(RESULTS))[: -len(".json")] for file in RESULTS.rglob("*+*.json"))


def is_stale(example: str) -> bool:
    """Whether an example has no record, or one of another source or of other versions."""
    file = RESULTS / f"{example}.json"
    if not file.is_file():
        return True
    data = json.loads(file.read_text(encoding="utf-8"))
    source = (EXAMPLES / f"{split_switches(example)[0]}.py").read_bytes()
    return data["source_sha256"] != hashlib.sha256(source).hexdigest() or data["versions"] != versions()


def main() -> int:
    """Record the examples named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("examples", nargs="*", help="such as algorithms/ppo; or stale; all when left out")
    parser.add_argument("--seeds", default="0 1 2 3 4", help="such as '0 1 2'")
    arguments = parser.parse_args()
    known = all_examples()
    examples = [name.removeprefix("examples/").removesuffix(".py") for name in arguments.examples] or known
    if examples == ["stale"]:
        examples = [example for example in [*known, *all_switched()] if is_stale(example)]
    for name in examples:
        try:
            example, _ = split_switches(name)
        except ValueError as error:
            return _refuse(f"A switch is written +NAME=value, such as +WITHOUT=noisy, not {error}.")
        if example not in known:
            return _refuse(f"There is no example {example}; the examples are: {', '.join(known)}.")
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
            results = [_record(example, seeds) for example in examples]
        except KeyboardInterrupt:
            return _refuse(
                "Interrupted; finished seeds are kept, and the same command goes on with the rest."
            )
    return 0 if all(results) else _refuse("Not every seed solved its example; the record says which.")


def _refuse(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
