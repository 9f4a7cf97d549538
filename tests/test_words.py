"""Pages claim no more about measured programs than the records show.

Where a page shows records side by side, and wherever a paragraph quotes a record, a word that compares
("needs fewer env steps", "pays", "is faster") stands beside a `#!result ratio` whose 95 % interval excludes
1, and words that deny a difference ("no profit") beside one that does not. Elsewhere a page speaks of RLlib,
not of runs that this site made.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from extensions.results import Ratio, ratio
from tests.conftest import ROOT

PAGES = sorted(page for folder in ("docs", "snippets") for page in (ROOT / folder).rglob("*.md"))

# What a program needs, compared: time, env steps, updates, work. "The pay", "an apple brings 5" are games.
COMPARING = re.compile(
    r"\b(?:fast|slow|quick|soon|cheap|dear|few|stead[yi])(?:er|est)\b"
    r"|\b(?:more|less|most) (?:env steps|updates|time|seconds|work|computing)\b"
    r"|\b(?:takes?|took|needs?|needed) (?:far |much |a little )?longer\b"
    r"|\bcosts? (?:far |much |a little )?(?:more|less)\b"
    r"|\bpays(?! \d)\b|\b(?:does|do|did) not pay\b|\bbrings?\b(?! \d)|\bgain(?:s|ed)?\b|\bsave[sd]?\b"
    r"|\bshorten(?:s|ed)?\b|\boutperform(?:s|ed)?\b|\bbetter choice\b|\bfar ahead\b"
    r"|\b(?:twice|half|thrice|(?:two|three|four|five|ten|\d+) times) "
    r"(?:as (?:many|much|long|fast|quick)|(?:the|its) (?:env steps|updates|time|seconds|work))\b"
)
DENYING = re.compile(r"\bno (?:profit|harm of|difference|gain)\b|\brecords do not show\b")
RATIO = re.compile(r"`#!result ratio (\S+) (\S+) (\S+)`")
_FENCE = re.compile(r"^\s*(?P<fence>`{3,}|~{3,})\s*(?P<kind>[\w-]*)")
_HEADING = re.compile(r"^(#+) ")
_STARTS_UNIT = re.compile(r"^\s*(?:[-*] |\d+\. |\||#)")


def units(text: str) -> Iterator[tuple[int, str, bool]]:
    """Paragraphs, list items, table rows and headings: line, text, and whether they are about measured runs.

    They are if they quote a record, or stand under a heading (or one of its parts) with a `curve` or
    `comparison` fence.
    """
    found: list[tuple[int, list[str], list[dict]]] = []
    headings: list[dict] = []
    fence = None
    open_unit = False
    for number, line in enumerate(text.split("\n"), 1):
        match = _FENCE.match(line)
        if fence is not None:
            fence = None if match and match["fence"].startswith(fence) and not match["kind"] else fence
            continue
        if match:
            fence, open_unit = match["fence"], False
            if match["kind"] in ("curve", "comparison"):
                for heading in headings:
                    heading["shows runs"] = heading["level"] > 1
            continue
        if heading := _HEADING.match(line):
            level = len(heading[1])
            headings = [h for h in headings if h["level"] < level] + [{"level": level, "shows runs": False}]
        if not line.strip():
            open_unit = False
        elif open_unit and not _STARTS_UNIT.match(line):
            found[-1][1].append(line.strip())
        else:
            found.append((number, [line.strip()], list(headings)))
            open_unit = not heading
    for number, lines, under in found:
        said = " ".join(lines)
        yield number, said, "`#!result " in said or any(heading["shows runs"] for heading in under)


def unproved(text: str) -> list[tuple[int, str]]:
    """The comparing and denying words of a page, with their lines, that no ratio beside them bears out."""
    found = []
    for number, said, about_runs in units(text):
        words = re.sub(r"`[^`]*`|\]\([^)]*\)", " ", said)
        if about_runs:
            proved = {ratio(*words).excludes_one for words in RATIO.findall(said)}
            for kind, bears_out in ((DENYING, False), (COMPARING, True)):
                word = kind.search(words)
                if word and bears_out not in proved:
                    found.append((number, word[0]))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_compares_the_records_show(page: Path):
    problems = [
        f"{page.relative_to(ROOT)}:{line}: no `#!result ratio` and its interval bear out '{word}'."
        for line, word in unproved(page.read_text(encoding="utf-8"))
    ]
    assert not problems, "\n".join(problems)


# The rule itself --------------------------------------------------------------------------------------


@pytest.fixture
def ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records in which A needs clearly more env steps than B, and perhaps more seconds."""

    def made_up(field: str, one: str, other: str) -> Ratio:
        return Ratio(2.0, 1.5, 3.0, False) if field == "env_steps" else Ratio(1.2, 0.8, 1.9, False)

    monkeypatch.setattr("tests.test_words.ratio", made_up)


PROOF, NO_PROOF = "`#!result ratio env_steps A B`", "`#!result ratio seconds A B`"
SHOWS_RUNS = "# Page\n\n## What it learned\n\n```curve\nA: A\n```\n\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{SHOWS_RUNS}B needs fewer env steps.", [(9, "fewer")]),
        (f"{SHOWS_RUNS}B needs fewer env steps, {NO_PROOF}.", [(9, "fewer")]),
        (f"{SHOWS_RUNS}B needs fewer env steps. A takes {PROOF} times as many.", []),
        (f"{SHOWS_RUNS}A takes {NO_PROOF} times as long: the records show no profit.", []),
        (f"{SHOWS_RUNS}The records show no harm of B, {PROOF}.", [(9, "no harm of")]),
        (f"{SHOWS_RUNS}There is no difference.", [(9, "no difference")]),
        (f"{SHOWS_RUNS}A takes {NO_PROOF} times as long.", []),
        (f"{SHOWS_RUNS}A takes {PROOF} times as many.\n\nB is faster.", [(11, "faster")]),
        (f"{SHOWS_RUNS}- A takes {PROOF} times as many.\n- B does\n  not pay.", [(10, "does not pay")]),
        (f"{SHOWS_RUNS}| B | brings little |\n| A | {PROOF} |", [(9, "brings")]),
        (f"{SHOWS_RUNS}### What each part brings\n", [(9, "brings")]),
        (f"{SHOWS_RUNS}### A part of it\n\nA took three times as long.", [(11, "three times as long")]),
        (f"{SHOWS_RUNS}The game pays 8, and the best apple brings 5.", []),
        (f"{SHOWS_RUNS}[What A does](a.md#faster) is `faster`.\n\n```text\nfaster\n```", []),
        (f"{SHOWS_RUNS}## Scale it\n\nMore env runners are faster when steps are slow.", []),
        ("# Page\n\nIt took `#!result A seconds`, so it is faster.", [(3, "faster")]),
        ("# Page\n\n```comparison\nA: A\n```\n\n## Scale it\n\nGPUs are faster.", []),
    ],
)
def test_a_comparing_word_stands_beside_its_proof(ratios, text, found):
    assert unproved(text) == found
