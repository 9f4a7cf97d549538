"""What counts as a program that did what its page says."""

from __future__ import annotations

import re

from .pages import NAMED_ERROR, TELLING, Program
from .process import Outcome

# The last line of every program that learns. `target` may be any number, the return of a bad policy too.
VERDICT = re.compile(
    r"^greedy return (?P<value>-?[\d.]+) over (?P<episodes>\d+) episodes, target (?P<target>-?[\d.]+)$",
    re.MULTILINE,
)


def _squeeze(text: str, ignore_whitespace: bool) -> str:
    return re.sub(r"\s+", "", text) if ignore_whitespace else text.strip()


def _is(expected: str, error: str) -> bool:
    """Whether an error is the expected one.

    A named one (`SomeError: text`) has to start a line of the error, after its modules perhaps; a short
    message has to be all that the line says. Other text may stand anywhere in the error, in whole words.
    """
    named = NAMED_ERROR.fullmatch(expected)
    start = r"^(?:\w+\.)*" if named else r"(?<!\w)" if expected[0].isalnum() else ""
    whole = named and len(named["message"]) < TELLING
    end = "$" if whole else r"(?!\w)" if expected[-1].isalnum() else ""
    return bool(re.search(start + re.escape(expected) + end, error, re.MULTILINE))


def _verdict_problem(outcome: Outcome) -> str | None:
    """What is wrong with the verdict of a program that has a target."""
    verdicts = list(VERDICT.finditer(outcome.stdout))
    if not verdicts:
        return "the program has a TARGET, but never printed its verdict (greedy return ... target ...)"
    if len(verdicts) > 1:
        return f"the program printed {len(verdicts)} verdicts; it has to print one, as its last line"
    verdict = verdicts[0]
    if outcome.stdout[verdict.end() :].strip():
        return f"the program printed more after its verdict, which has to be its last line: {verdict[0]}"
    target = outcome.values.get("TARGET")
    if target is None:
        return "the program printed a verdict, but has no TARGET that is a number at its end"
    if float(verdict["target"]) != target:
        return f"the program's TARGET is {target:g}, but its verdict says otherwise: {verdict[0]}"
    value = outcome.values.get("greedy_return")
    if value is None:
        return "the program printed a verdict, but has no greedy_return that is a number at its end"
    decimals = len(verdict["value"].partition(".")[2])
    if f"{value:.{decimals}f}" != verdict["value"]:
        return f"the program's greedy_return is {value:g}, but its verdict says otherwise: {verdict[0]}"
    if not value >= target:
        return f"the program ended well, but stopped short of its target: {verdict[0]}"
    return None


def unannounced_deprecation(program: Program, outcome: Outcome) -> tuple[int, str] | None:
    """The first deprecated call that the page does not announce: its line, and what is said of it."""
    for line, message in outcome.deprecated:
        if not any(expected in message for expected in program.deprecated):
            return line, message
    return None


def judge(program: Program, outcome: Outcome) -> str | None:
    """What is wrong with how `program` ended, in one sentence without a full stop; None if nothing is."""
    if outcome.exit_status is None:
        return f"the program did not end within its limit of {program.limit:.0f} s"
    if program.fails_with is not None:
        if outcome.exit_status == 0:
            return f'the program ended well, but has to fail with "{program.fails_with}"'
        if not _is(program.fails_with, outcome.error or ""):
            return f'the program failed, but not with "{program.fails_with}"'
    elif outcome.exit_status != 0:
        return f"the program failed with exit status {outcome.exit_status} after {outcome.seconds:.1f} s"
    if outcome.left_running:
        return f"the program left processes running: {', '.join(outcome.left_running)}"
    if outcome.left_files:
        return f"the program left files behind: {', '.join(outcome.left_files)}"
    if found := unannounced_deprecation(program, outcome):
        return f"the program makes a deprecated call: {found[1].rstrip('.')}"
    for expected in program.deprecated:
        if not any(expected in message for _, message in outcome.deprecated):
            return f'nothing that the program calls is deprecated with "{expected}"'
    has_verdict = program.has_target or "TARGET" in outcome.values or VERDICT.search(outcome.stdout)
    if has_verdict and program.fails_with is None and (problem := _verdict_problem(outcome)):
        return problem
    if program.expected_output is not None and (
        _squeeze(program.expected_output, program.ignore_whitespace)
        != _squeeze(outcome.stdout, program.ignore_whitespace)
    ):
        recorded = "its record" if program.prints_record else "the page"
        return f"the program did not print what {recorded} says it prints"
    return None
