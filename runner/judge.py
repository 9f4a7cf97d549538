"""What counts as a program that did what its page says."""

from __future__ import annotations

import re

from .pages import Program
from .process import Outcome

# The last line of every program that learns. `target` may be any number, the return of a bad policy too.
VERDICT = re.compile(
    r"^greedy return (?P<value>-?[\d.]+) over (?P<episodes>\d+) episodes, target (?P<target>-?[\d.]+)$",
    re.MULTILINE,
)


def _squeeze(text: str, ignore_whitespace: bool) -> str:
    return re.sub(r"\s+", "", text) if ignore_whitespace else text.strip()


def judge(program: Program, outcome: Outcome) -> str | None:
    """What is wrong with how `program` ended, in one sentence without a full stop; None if nothing is."""
    if outcome.exit_status is None:
        return f"the program did not end within its limit of {program.limit:.0f} s"
    printed = "\n".join(line for _, line in outcome.lines)
    if program.fails_with is not None:
        if outcome.exit_status == 0:
            return f'the program ended well, but has to fail with "{program.fails_with}"'
        if program.fails_with not in printed:
            return f'the program failed, but not with "{program.fails_with}"'
    elif outcome.exit_status != 0:
        return f"the program failed with exit status {outcome.exit_status} after {outcome.seconds:.1f} s"
    if outcome.left_running:
        return f"the program left processes running: {', '.join(outcome.left_running)}"
    if outcome.left_files:
        return f"the program left files behind: {', '.join(outcome.left_files)}"
    if program.has_target and program.fails_with is None:
        verdict = VERDICT.search(outcome.stdout)
        if verdict is None:
            return "the program has a TARGET, but never printed its verdict (greedy return ... target ...)"
        if float(verdict["value"]) < float(verdict["target"]):
            return f"the program ended well, but stopped short of its target: {verdict[0]}"
    if program.expected_output is not None and (
        _squeeze(program.expected_output, program.ignore_whitespace)
        != _squeeze(outcome.stdout, program.ignore_whitespace)
    ):
        recorded = "its record" if program.prints_record else "the page"
        return f"the program did not print what {recorded} says it prints"
    return None
