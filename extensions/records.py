"""Reads the records of runs. `tools/record.py` writes them; `results/README.md` says what is in them."""

import functools
import json
import os
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from . import PageError
from .cache import ROOT

RESULTS = ROOT / "results"
# OLD FORM: what bears this mark reads the records that were made before seeds were drawn, machines timed and
# Ray's workers counted. A test counts them; with the last one, delete every line and branch that bears it.
OLD_FORM = 1
FORM = 2
# Two machines are alike if the same work takes them the same time, give or take a tenth.
ALIKE = 1.1


@dataclass(frozen=True)
class Run:
    """One seed. `points` holds (env steps, return, seconds) for each iteration."""

    seed: int
    solved: bool
    seconds: float
    cpu_seconds: float
    env_steps: int
    greedy_return: float | None
    points: list[tuple[int, float, float]]
    work_seconds: list[float] = field(default_factory=list)  # OLD FORM: these four have no default then
    repeated: bool = False
    updates: int | None = None
    episodes: int | None = None

    @property
    def training_seconds(self) -> float:
        """From the first iteration to the last, without start-up and the end."""
        return self.points[-1][2]

    @property
    def env_steps_per_second(self) -> float:
        """Of training: everything in the loop counts, sampling, learning and evaluation."""
        return self.points[-1][0] / self.training_seconds


@dataclass(frozen=True)
class Record:
    """All that was measured of one example."""

    example: str
    source_sha256: str
    versions: dict[str, str]
    machine: dict
    recorded_at: str
    target: float | None
    runs: list[Run]
    output: str
    form: int = OLD_FORM  # OLD FORM: no default then
    beside: dict[str, str] = field(default_factory=dict)
    """The hashes of the files that stood beside the program, by their paths."""
    curve: str | None = None
    """What the points' returns are, `mean return` or `greedy return`; None if there are no points."""

    @property
    def is_old(self) -> bool:  # OLD FORM
        """Whether the record was made by the older rules."""
        return self.form == OLD_FORM

    @property
    def solved(self) -> list[Run]:
        """The runs that reached the target."""
        return [run for run in self.runs if run.solved]

    def median(self, field: str) -> float:
        """The median of a field of `Run` over all solved runs."""
        return statistics.median(getattr(run, field) for run in self.solved)

    @property
    def work_seconds(self) -> float:
        """The seconds that the fixed piece of work took while this was recorded: how fast the machine was."""
        return statistics.median(seconds for run in self.runs for seconds in run.work_seconds)


def machines_differ(records: Iterable[Record]) -> bool:
    """Whether records come from machines (or hours) of different speed: their seconds do not compare."""
    records = list(records)
    if any(record.is_old for record in records):  # OLD FORM: nothing but the CPU's name is known
        return len({record.machine["cpu"] for record in records}) > 1
    speeds = [record.work_seconds for record in records]
    return max(speeds) > ALIKE * min(speeds)


def path_of(example: str, results: Path = RESULTS) -> Path:
    """Where the record of `algorithms/ppo` stands."""
    return results / f"{example}.json"


def read(file: Path) -> Record:
    """Read one record.

    Raises:
        PageError: there is no such file, or it is not a record.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        runs = [
            Run(**{**run, "points": [tuple(point) for point in run["points"]]}) for run in data.pop("seeds")
        ]
        record = Record(runs=runs, **data)
        if record.form not in (OLD_FORM, FORM):  # OLD FORM: only FORM then
            raise ValueError(f"its form is {record.form}")
        return record
    except FileNotFoundError:
        example = file.relative_to(RESULTS).with_suffix("") if file.is_relative_to(RESULTS) else file.stem
        raise PageError(
            f"There is no record of {example}; make it with: make record EXAMPLES={example}"
        ) from None
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise PageError(f"{file.name} is not a record of a run ({error}).") from None


@functools.lru_cache(maxsize=256)
def _cached(file: Path, modified: int) -> Record:
    return read(file)


def record_of(example: str) -> Record:
    """The record of an example such as `algorithms/ppo`, read again when it has changed."""
    file = path_of(example.strip())
    modified = os.stat(file).st_mtime_ns if file.exists() else 0
    return _cached(file, modified)
