"""`make repeat PAGE=docs/scaling/faults.md TIMES=20`: runs each program of a page many times in a row.

A program that starts processes, kills some and waits for others may fail by chance, and one run cannot tell.
So each program runs as often as asked, each time with another seed, and the first failure ends it all. Runs
that passed count in `.cache/repeat/`, by the program's text: an interrupted call goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from extensions import PageError
from extensions.cache import write_whole
from runner.judge import judge
from runner.pages import Program, read_programs
from runner.plugin import key_of, named, report
from runner.process import run_as_on_page

ROOT = Path(__file__).resolve().parent.parent
PASSED = ROOT / ".cache" / "repeat"


def passed(program: Program) -> int:
    """How often in a row this very program has passed."""
    file = PASSED / key_of(program)
    return int(file.read_text(encoding="utf-8")) if file.is_file() else 0


def repeat(name: str, program: Program, times: int) -> str | None:
    """Run a program until it has passed `times` times in a row; the report of a failure, None without one.

    Args:
        name: what to call it on the lines that are printed.
        program: the program.
        times: how often; runs that passed before count.
    """
    for number in range(passed(program) + 1, times + 1):
        # The first as on the page; then with seeds far from each other.
        outcome = run_as_on_page(program, program.limit, env={"SEED": str(1000 * (number - 1))})
        problem = judge(program, outcome)
        print(f"{name}: run {number} of {times}: {problem or 'passed'}, {outcome.seconds:.0f} s", flush=True)
        write_whole(PASSED / key_of(program), "0" if problem else str(number))
        if problem:
            return report(program, outcome, problem, ROOT)
    print(f"{name}: passed {times} times in a row", flush=True)
    return None


def main() -> int:
    """Repeat the programs of the page on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--times", type=int, default=20)
    arguments = parser.parse_args()
    try:
        programs = read_programs(arguments.page.resolve(), ROOT)
    except (OSError, ValueError, PageError) as error:
        print(f"{arguments.page} cannot be read: {error}", file=sys.stderr)
        return 1
    for line, program in named(programs):
        if failure := repeat(f"{arguments.page}, {line} ({program.file_name})", program, arguments.times):
            print(failure, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
