"""Which programs a test run runs, and which rest on their records.

A snippet, and a program that stands on the page itself, always runs. Of the examples run
- those whose file or page (or a file with a fence that the page includes) was touched within the last day
  before HEAD or is changed in the working tree, and those without a record of their present source;
- an eighth of the others, drawn by the hash of the commit: the same for whoever runs that commit, and
  another at the next.
On a day when many pages change, this could be nearly all. So of the examples of which only the page changed,
and whose record is in step, those run that together take `ONLY_PAGE` seconds, drawn in the same way.
An example that takes more than `LONG` seconds, or needs one of `SYSTEM`, runs in `make test-all` only
while its record is in step.
The rest rests on records, which `tests/test_results.py` checks in every run.

A test that trains (`@pytest.mark.training("examples/x.py")`, with the files that it is about) is chosen in
the same way. It has no record: it rests until one of its files changes or its turn comes.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .pages import SYSTEM, Program

DAY = 24 * 60 * 60
LONG = 240.0  # seconds by its record
ONLY_PAGE = 300.0  # seconds by their records
SHARE = 8  # one of so many runs by turn
ALWAYS, CHANGED, TURN, OTHERS, RESTS = "on pages", "changed", "by turn", "others", "rest"
RAN = (ALWAYS, CHANGED, TURN, OTHERS)
PAGE_PROGRAM_SECONDS, EXAMPLE_SECONDS = 7.0, 60.0  # what one takes when nothing is known of it


@dataclass(frozen=True)
class Record:
    """What a test run needs to know of a record."""

    date: str
    seconds: float
    in_step: bool


@dataclass
class Selection:
    """Why each example runs or rests, by its file; and the records that they rest on."""

    why: dict[Path | None, str]
    records: dict[Path, Record] = field(default_factory=dict)
    changes: set[Path] | None = None
    commit: str | None = None
    postponed: set[Path] = field(default_factory=set)
    """Examples that rest although their page changed: there was no time for all of them."""

    def reason_of_test(self, name: str, files: Iterable[Path]) -> str:
        """`CHANGED`, `TURN` or `RESTS`, for a test that trains and is about `files`, which are all there."""
        files = {file.resolve() for file in files}
        if self.changes is None or files & self.changes or not all(file.exists() for file in files):
            return CHANGED
        number = int(hashlib.sha256(f"{self.commit} {name}".encode()).hexdigest(), 16)
        return RESTS if number % SHARE else TURN

    def reason(self, program: Program) -> str:
        """`CHANGED`, `TURN`, `ALWAYS` or `RESTS`."""
        return self.why.get(whole_file(program), ALWAYS)

    def expected_seconds(self, program: Program) -> float:
        """About how long the program takes, by its record where it has one."""
        example = whole_file(program)
        if example not in self.why:
            return PAGE_PROGRAM_SECONDS
        return self.records[example].seconds if example in self.records else EXAMPLE_SECONDS


def whole_file(program: Program) -> Path | None:
    """The example or snippet that the program is, line by line; None for a part, or a program of the page."""
    files = {origin.file.resolve() for origin in program.origins}
    if len(files) != 1:
        return None
    file = files.pop()
    return file if file.read_text(encoding="utf-8").strip() == program.code.strip() else None


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints, or None where there is no git or no repository."""
    try:
        found = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout


def touched(root: Path) -> set[Path] | None:
    """The files that the last day's commits or the working tree changed; None if that cannot be known.

    Compared are HEAD's first-parent ancestor of a day before and the working tree. In a clone without that
    ancestor (a shallow one, or a young repository) everything counts as touched.
    """
    time = _git(root, "show", "--no-patch", "--format=%ct", "HEAD")
    if time is None:
        return None
    before = ["--first-parent", f"--before={int(time) - DAY}", "HEAD"]
    base = (_git(root, "rev-list", "--max-count=1", *before) or "").strip()
    top = _git(root, "rev-parse", "--show-toplevel").strip()
    changed = _git(root, "diff", "--name-only", "-z", base) if base else None
    new = _git(root, "ls-files", "--others", "--exclude-standard", "--full-name", "-z")
    if changed is None or new is None:
        return None
    return {(Path(top) / name).resolve() for name in (changed + new).split("\0") if name}


def read_record(example: Path, root: Path) -> Record | None:
    """The record of an example, or None if there is none that can be read."""
    file = (root / "results" / example.relative_to((root / "examples").resolve())).with_suffix(".json")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        seconds = statistics.median(run["seconds"] for run in data["seeds"])
        files = {example: data["source_sha256"]}
        files |= {root / name: sha for name, sha in data.get("beside", {}).items()}
        in_step = all(hashlib.sha256(file.read_bytes()).hexdigest() == sha for file, sha in files.items())
        return Record(data["recorded_at"][:10], seconds, in_step)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def by_turn(seconds: dict[Path, float], commit: str) -> set[Path]:
    """One of each eight examples of about the same length, drawn by the hash of the commit.

    So the time that the drawn ones take differs little from commit to commit, and each example has its turn
    about once in eight commits.
    """
    order = sorted(seconds, key=lambda file: (-seconds[file], str(file)))
    drawn = set()
    for start in range(0, len(order), SHARE):
        number = int(hashlib.sha256(f"{commit} {start}".encode()).hexdigest(), 16) % SHARE
        drawn.update(order[start + number : start + number + 1])  # of the last, short group perhaps none
    return drawn


def select(pages: dict[Path, list[Program]], root: Path) -> Selection:
    """Why each example on the pages runs or rests.

    Args:
        pages: the programs on each page.
        root: the folder that holds `mkdocs.yml`.
    """
    root = root.resolve()
    sources: dict[Path, set[Path]] = {}  # of each example: what it was read from, its pages among them
    only_in_all: set[Path] = set()
    for programs in pages.values():
        for program in programs:
            example = whole_file(program)
            if example and example.is_relative_to(root / "examples"):
                read_from = {file.resolve() for file in program.files}
                sources.setdefault(example, set()).update(read_from)
                if program.needs in SYSTEM:
                    only_in_all.add(example)
    records = {example: record for example in sources if (record := read_record(example, root))}
    only_in_all |= {example for example in records if records[example].seconds > LONG}
    changes, commit = touched(root), _git(root, "rev-parse", "HEAD")
    why = {}
    for example, files in sources.items():
        record = records.get(example)
        rests = changes is not None and not files & changes or example in only_in_all
        why[example] = RESTS if rests and record and record.in_step else CHANGED
    only_page = [
        example
        for example, reason in why.items()
        if reason == CHANGED
        and changes is not None
        and example in records
        and records[example].in_step
        and not any(file.is_relative_to(root / "examples") for file in sources[example] & changes)
    ]
    postponed = set(only_page) - _within(ONLY_PAGE, only_page, records, commit or "")
    why |= dict.fromkeys(postponed, RESTS)
    only_in_all |= postponed
    resting = {
        example: records[example].seconds
        for example in why
        if why[example] == RESTS and example not in only_in_all
    }
    why |= dict.fromkeys(by_turn(resting, commit or ""), TURN)
    return Selection(why, records, changes, commit, postponed)


def _within(limit: float, examples: Iterable[Path], records: dict[Path, Record], commit: str) -> set[Path]:
    """Examples drawn by the hash of the commit, until together they take longer than the limit."""
    drawn: set[Path] = set()
    total = 0.0
    for example in sorted(
        examples, key=lambda file: hashlib.sha256(f"{commit} {file.name}".encode()).digest()
    ):
        total += records[example].seconds
        if total > limit:
            break
        drawn.add(example)
    return drawn


def shard(weights: dict[str, float], number: int, of: int) -> set[str]:
    """The names that belong to a shard: the heaviest first, each to the shard that has least so far.

    Args:
        weights: about how many seconds each name takes.
        number: which shard, from 1.
        of: how many shards there are.
    """
    loads = [0.0] * of
    mine = set()
    for name in sorted(weights, key=lambda name: (-weights[name], name)):
        lightest = loads.index(min(loads))
        loads[lightest] += weights[name]
        if lightest == number - 1:
            mine.add(name)
    return mine


def summary(
    counted: dict[str, Iterable[str]], oldest: str | None, tests: Iterable[str] = (), postponed: int = 0
) -> str:
    """What ran and what rests, as a sentence or two.

    Args:
        counted: the programs by the reason why they run or rest.
        oldest: the date of the oldest record that one rests on.
        tests: the tests that train and wait for their turn.
        postponed: how many rest although their page changed.
    """
    parts = [f"{len(set(counted[why]))} {why}" for why in RAN if counted.get(why)]
    ran = sum(len(set(counted.get(why, ()))) for why in RAN)
    text = f"{ran} programs ran" + (f" ({', '.join(parts)})." if parts else ".")
    if resting := len(set(counted.get(RESTS, ()))):
        text += f" {resting} rest on records, the oldest of {oldest}."
        text += f" The page of {postponed} of these has changed." if postponed else ""
    if waiting := len(set(tests)):
        text += f" {waiting} tests that train wait for their turn."
    return text + (" `make test-all` runs everything." if resting or waiting else "")
