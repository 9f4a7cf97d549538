"""`make test` runs what is due: snippets, what changed, an eighth by turn; it counts what rests."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runner import selection
from runner.pages import read_programs
from runner.selection import ALWAYS, CHANGED, RESTS, TURN
from tests.conftest import ROOT

LONG_AGO, NOW = "2026-01-01T00:00:00Z", "2026-02-03T00:00:00Z"
MKDOCS = (
    'site_name: planted\nmarkdown_extensions:\n  - pymdownx.snippets: {base_path: ["."], check_paths: true}\n'
)
INI = "[pytest]\ntestpaths = docs\naddopts = -p runner.plugin --codeblocks --no-header -p no:cacheprovider\n"


class Repository:
    """A small repository with sixteen examples on two pages, and a record of each."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.write("mkdocs.yml", MKDOCS)
        self.write("pytest.ini", INI)
        self.write("snippets/note.md", "A note.\n")
        for number in range(16):
            self.example(f"e{number:02d}", number)
        self.page("one", [f"e{number:02d}" for number in range(8)], '--8<-- "snippets/note.md"\n')
        self.page(
            "two", [f"e{number:02d}" for number in range(8, 16)], "```python\nprint('of the page')\n```\n"
        )
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit(LONG_AGO)
        self.write("README.md", "One day later, nothing that counts has changed.\n")
        self.commit(NOW)

    def write(self, name: str, text: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def example(self, name: str, number: int) -> None:
        source = f"print({number})\n"
        self.write(f"examples/{name}.py", source)
        sha = hashlib.sha256(source.encode()).hexdigest()
        seeds = [{"seconds": 10.0 + number}, {"seconds": 12.0 + number}, {"seconds": 90.0}]
        record = {"recorded_at": f"2026-01-{number + 1:02d}T00:00:00", "source_sha256": sha, "seeds": seeds}
        self.write(f"results/{name}.json", json.dumps(record))

    def page(self, name: str, examples: list[str], more: str) -> None:
        fences = [f'```python\n--8<-- "examples/{example}.py"\n```\n' for example in examples]
        self.write(f"docs/{name}.md", "\n".join([f"# {name}\n", *fences, more]))

    def git(self, *arguments: str, date: str = NOW) -> str:
        people = {
            f"GIT_{who}_{what}": "x@example.org"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        env = os.environ | people | {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        # Somebody's own settings may sign commits, say.
        env |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        return subprocess.run(
            ["git", *arguments], cwd=self.folder, env=env, check=True, capture_output=True, text=True
        ).stdout

    def commit(self, date: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", date, date=date)

    def selection(self) -> selection.Selection:
        pages = {
            page: read_programs(page, self.folder) for page in sorted((self.folder / "docs").glob("*.md"))
        }
        return selection.select(pages, self.folder)

    def why(self) -> dict[str, str]:
        """The reason for each example, by its name."""
        return {file.stem: why for file, why in self.selection().why.items()}

    def changed(self) -> set[str]:
        return {name for name, why in self.why().items() if why == CHANGED}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch) -> Repository:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)  # a hook of git names its own repository
    return Repository(tmp_path)


FIRST_PAGE = {f"e{number:02d}" for number in range(8)}
EVERY = {f"e{number:02d}" for number in range(16)}


def test_of_what_has_not_changed_an_eighth_runs(repository):
    why = repository.why()
    assert sorted(why.values()) == [TURN] * 2 + [RESTS] * 14
    assert repository.why() == why


def test_an_example_changed_in_the_last_day_runs(repository):
    repository.example("e03", 33)
    repository.commit(NOW)
    assert repository.changed() == {"e03"}


def test_a_long_example_rests_on_its_record_whatever_else_changes(repository):
    file = repository.folder / "results" / "e03.json"
    record = json.loads(file.read_text())
    record["seeds"] = [{"seconds": selection.LONG + 1}]
    file.write_text(json.dumps(record))
    page = repository.folder / "docs" / "one.md"
    page.write_text(page.read_text() + "\nOne more sentence.\n")
    assert repository.changed() == FIRST_PAGE - {"e03"}
    for number in range(20):  # nor by turn
        repository.write("README.md", f"{number}\n")
        repository.commit(NOW)
        assert repository.why()["e03"] == RESTS
    repository.write("examples/e03.py", "print('another program')\n")
    assert "e03" in repository.changed(), "its record is of another program"


def test_an_example_that_needs_slurm_rests_until_everything_runs(repository):
    page = repository.folder / "docs" / "one.md"
    fence = '```python\n--8<-- "examples/e03.py"\n```'
    page.write_text(page.read_text().replace(fence, f'<!-- program: needs "Slurm" -->\n{fence}'))
    assert repository.changed() == FIRST_PAGE - {"e03"}
    assert repository.why()["e03"] == RESTS


def test_a_record_is_out_of_step_when_a_file_beside_the_program_changes(repository):
    repository.write("examples/job.sbatch", "echo one\n")
    file = repository.folder / "results" / "e03.json"
    record = json.loads(file.read_text())
    record["beside"] = {"examples/job.sbatch": hashlib.sha256(b"echo one\n").hexdigest()}
    file.write_text(json.dumps(record))
    example = repository.folder / "examples" / "e03.py"
    assert selection.read_record(example, repository.folder).in_step
    repository.write("examples/job.sbatch", "echo two\n")
    assert not selection.read_record(example, repository.folder).in_step
    (repository.folder / "examples" / "job.sbatch").unlink()
    assert selection.read_record(example, repository.folder) is None


def test_an_example_changed_longer_ago_does_not(repository):
    repository.example("e03", 33)
    repository.commit("2026-02-03T01:00:00Z")
    repository.write("README.md", "Two days later.\n")
    repository.commit("2026-02-05T00:00:00Z")
    assert repository.changed() == set()


def test_only_the_commits_of_one_day_count(repository):
    repository.example("e03", 33)
    repository.commit(NOW)
    repository.example("e04", 44)
    repository.commit("2026-02-03T23:59:00Z")
    assert repository.changed() == {"e03", "e04"}
    repository.write("README.md", "A little later, the first is more than a day old.\n")
    repository.commit("2026-02-04T00:01:00Z")
    assert repository.changed() == {"e04"}


def test_examples_of_a_changed_page_run(repository):
    page = repository.folder / "docs" / "one.md"
    page.write_text(page.read_text() + "\nOne more sentence.\n")
    repository.commit(NOW)
    assert repository.changed() == FIRST_PAGE


def test_when_many_pages_change_only_so_many_examples_run(repository, monkeypatch):
    """And those whose own files changed all do."""
    monkeypatch.setattr(selection, "ONLY_PAGE", 60.0)
    for page in sorted((repository.folder / "docs").glob("*.md")):
        page.write_text(page.read_text() + "\nOne more sentence.\n")
    repository.example("e03", 33)
    repository.commit(NOW)
    changed = repository.changed()
    seconds = [12.0 + int(name[1:]) for name in changed - {"e03"}]
    assert "e03" in changed
    assert seconds and sum(seconds) <= 60 < sum(range(12, 28))
    selected = repository.selection()
    assert len(selected.postponed) == 16 - len(changed)
    assert set(repository.why().values()) == {CHANGED, RESTS}, "a postponed one is not drawn by turn"
    repository.write("README.md", "Another commit.\n")
    repository.commit(NOW)
    assert repository.changed() != changed, "another commit, another draw"


def test_text_that_a_page_includes_changes_no_program(repository):
    repository.write("snippets/note.md", "Another note.\n")
    repository.commit(NOW)
    assert repository.changed() == set()


def test_a_fence_may_stand_in_an_included_file(repository):
    """What stands around the program there, its limit say, is not on the page."""
    fence = '<!-- program: limit {} -->\n\n```python\n--8<-- "examples/e16.py"\n```\n'
    repository.example("e16", 16)
    repository.write("snippets/fence.md", fence.format(90))
    repository.page("three", [], '--8<-- "snippets/fence.md"\n')
    repository.commit("2026-02-03T01:00:00Z")
    repository.write("snippets/fence.md", fence.format(30))
    repository.commit("2026-02-05T00:00:00Z")
    assert repository.changed() == {"e16"}


def test_a_renamed_example_runs(repository):
    repository.git("mv", "examples/e15.py", "examples/e16.py")
    repository.git("mv", "results/e15.json", "results/e16.json")
    repository.page("two", [f"e{number:02d}" for number in (*range(8, 15), 16)], "")
    repository.commit(NOW)
    assert "e16" in repository.changed()


def test_what_a_merge_brings_counts(repository):
    """Its commits are older than a day; here they are new."""
    repository.git("checkout", "--quiet", "-b", "branch")
    repository.example("e03", 33)
    repository.commit("2026-02-03T05:00:00Z")
    repository.git("checkout", "--quiet", "main")
    repository.write("README.md", "Meanwhile.\n")
    repository.commit("2026-02-03T02:00:00Z")
    repository.git("merge", "--quiet", "--no-ff", "branch", date="2026-02-06T00:00:00Z")
    assert repository.changed() == {"e03"}


def test_a_program_in_snippets_runs_also_below_a_folder_called_examples(repository, tmp_path):
    repository = Repository(tmp_path / "examples" / "clone")
    repository.write("snippets/short.py", "print('short')\n")
    repository.write("docs/three.md", '```python\n--8<-- "snippets/short.py"\n```\n')
    repository.commit(NOW)
    page = repository.folder / "docs" / "three.md"
    pages = {page: read_programs(page, repository.folder)}
    chosen = selection.select(pages, repository.folder)
    assert chosen.why == {}
    [program] = pages[page]
    assert chosen.reason(program) == ALWAYS
    assert chosen.expected_seconds(program) == selection.PAGE_PROGRAM_SECONDS


def test_a_change_in_the_working_tree_counts(repository):
    repository.example("e03", 33)
    assert repository.changed() == {"e03"}
    repository.git("add", "--all")
    assert repository.changed() == {"e03"}


def test_a_new_file_that_git_does_not_know_counts(repository):
    repository.example("e16", 16)
    repository.page("three", ["e16"], "")
    assert repository.changed() == {"e16"}


@pytest.mark.parametrize("source", ["", "print('another')\n"], ids=["no record", "of another source"])
def test_an_example_without_a_record_in_step_runs(repository, source):
    """Committed long ago, so nothing else makes it run."""
    if source:
        repository.write("examples/e03.py", source)
    else:
        (repository.folder / "results" / "e03.json").unlink()
    repository.commit("2026-02-03T01:00:00Z")
    repository.write("README.md", "Two days later.\n")
    repository.commit("2026-02-05T00:00:00Z")
    assert repository.changed() == {"e03"}


@pytest.mark.parametrize("how", ["no repository", "a shallow clone"])
def test_where_the_last_day_cannot_be_known_everything_runs(repository, tmp_path, how):
    if how == "no repository":
        for file in sorted((repository.folder / ".git").rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        (repository.folder / ".git").rmdir()
    else:
        shallow = repository.folder / "shallow"
        repository.git("clone", "--quiet", "--depth=1", f"file://{repository.folder}", str(shallow))
        repository.folder = shallow
    assert repository.changed() == EVERY


def test_an_example_is_expected_to_take_the_median_of_its_record(repository):
    page = repository.folder / "docs" / "one.md"
    programs = read_programs(page, repository.folder)
    chosen = selection.select({page: programs}, repository.folder)
    assert [chosen.expected_seconds(program) for program in programs] == [12.0 + n for n in range(8)]
    (repository.folder / "results" / "e03.json").unlink()
    chosen = selection.select({page: programs}, repository.folder)
    assert chosen.expected_seconds(programs[3]) == selection.EXAMPLE_SECONDS


def test_a_commit_that_changes_nothing_draws_anew(repository):
    drawn = set()
    for number in range(12):
        repository.git("commit", "--quiet", "--allow-empty", "--message", str(number))
        drawn.add(frozenset(name for name, why in repository.why().items() if why == TURN))
    assert len(drawn) > 1


def test_two_clones_of_a_commit_draw_the_same(repository):
    clone = repository.folder / "elsewhere" / "clone"
    repository.git("clone", "--quiet", str(repository.folder), str(clone))
    why = repository.why()
    repository.folder = clone
    assert repository.why() == why


def test_each_example_has_its_turn_and_each_turn_takes_about_as_long(tmp_path):
    seconds = {tmp_path / f"e{number}": float(number) for number in range(1, 81)}
    turns = [selection.by_turn(seconds, f"commit {number}") for number in range(100)]
    assert set.union(*turns) == set(seconds)
    assert {len(turn) for turn in turns} == {10}
    assert len({frozenset(turn) for turn in turns}) > 90
    for turn in turns:
        assert abs(sum(seconds[file] for file in turn) / (sum(seconds.values()) / 8) - 1) < 0.1


def test_the_last_examples_have_their_turn_as_often_as_others(tmp_path):
    """Eleven examples: the last three are a group of their own, which is not always drawn from."""
    seconds = {tmp_path / f"e{number:02d}": 1.0 for number in range(11)}
    drawn = [file for number in range(2000) for file in selection.by_turn(seconds, str(number))]
    assert all(150 < drawn.count(file) < 350 for file in seconds)


def test_a_part_of_an_example_is_a_program_of_the_page(repository):
    repository.write("examples/e03.py", "# --8<-- [start:a]\nprint(1)\n# --8<-- [end:a]\nprint(2)\n")
    repository.write("docs/part.md", '```python\n--8<-- "examples/e03.py:a"\n```\n')
    [program] = read_programs(repository.folder / "docs" / "part.md", repository.folder)
    assert selection.whole_file(program) is None
    assert selection.Selection({}).reason(program) == ALWAYS


def test_shards_are_disjoint_whole_and_about_even():
    weights = {f"program {number}": float(number % 13 + 1) for number in range(60)}
    parts = [selection.shard(weights, number, 4) for number in range(1, 5)]
    assert sorted(name for part in parts for name in part) == sorted(weights)
    loads = [sum(weights[name] for name in part) for part in parts]
    assert max(loads) - min(loads) <= 2


def pytest_in(repository: Repository, *options: str) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-ra", *options],
        cwd=repository.folder,
        env=env | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_the_end_of_a_run_counts_what_rests_although_its_page_changed(repository):
    """The sixteen examples take 312 s by their records, more than what `ONLY_PAGE` allows."""
    for page in sorted((repository.folder / "docs").glob("*.md")):
        page.write_text(page.read_text() + "\nOne more sentence.\n")
    repository.commit(NOW)
    [postponed] = repository.selection().postponed
    result = pytest_in(repository, "--programs", "due")
    date = selection.read_record(postponed, repository.folder).date
    sentence = f"1 rest on records, the oldest of {date}. The page of 1 of these has changed."
    assert sentence in result.stdout
    result = pytest_in(repository)
    assert "rest on records" not in result.stdout


@pytest.mark.slow
def test_the_summary_counts_what_ran_and_what_rests(repository):
    repository.example("e03", 33)
    repository.commit(NOW)
    why = repository.why()
    rests = sorted(name for name, reason in why.items() if reason == RESTS)
    for workers in ([], ["-n", "2"]):
        result = pytest_in(repository, "--programs", "due", *workers)
        assert result.returncode == 0, result.stdout
        turn = 15 - len(rests)
        assert (
            f"{2 + turn} programs ran (1 on pages, 1 changed, {turn} by turn). {len(rests)} rest on records, "
            f"the oldest of 2026-01-{int(rests[0][1:]) + 1:02d}. `make test-all` runs everything."
        ) in result.stdout
        assert f"{2 + turn} passed, {len(rests)} resting" in result.stdout
        assert "skip" not in result.stdout.lower()
        assert "RESTS on its record of 2026-01-" in result.stdout
        assert "This takes about " in result.stdout


@pytest.mark.slow
def test_a_program_that_fails_in_its_turn_fails_the_run(repository):
    for number in range(16):
        source = f"raise SystemExit({number + 1})\n"
        repository.write(f"examples/e{number:02d}.py", source)
        record = {"recorded_at": "2026-01-01", "source_sha256": hashlib.sha256(source.encode()).hexdigest()}
        repository.write(f"results/e{number:02d}.json", json.dumps(record | {"seeds": [{"seconds": 10.0}]}))
    repository.commit("2026-02-03T01:00:00Z")
    repository.write("README.md", "Two days later.\n")
    repository.commit("2026-02-05T00:00:00Z")
    result = pytest_in(repository, "--programs", "due")
    assert result.returncode == 1 and "2 failed, 1 passed, 14 resting" in result.stdout, result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "minutes"), [([], "12"), (["-n", "2"], "6"), (["--programs", "due"], "[78]")]
)
def test_it_says_at_its_start_about_how_long_it_takes(repository, options, minutes):
    result = pytest_in(repository, "--collect-only", *options)
    assert re.search(rf"^This takes about {minutes} minutes\.$", result.stdout, re.MULTILINE), result.stdout


@pytest.mark.slow
def test_a_test_that_trains_waits_for_its_turn(repository):
    repository.write(
        "tests/test_toy.py",
        "import pytest\n\n@pytest.mark.training('examples/e{number:02d}.py')\n"
        "@pytest.mark.parametrize('number', range(16))\n"
        "def test_toy(number):\n    print(f'ran {number}.')\n",
    )
    repository.commit("2026-02-03T01:00:00Z")
    repository.example("e03", 33)
    repository.commit("2026-02-05T00:00:00Z")
    result = pytest_in(repository, "--programs", "due", "-s", "tests")
    ran = set(map(int, re.findall(r"ran (\d+)\.", result.stdout)))
    assert 3 in ran and len(ran) < 10, result.stdout
    waiting = 16 - len(ran)
    assert (
        f"{waiting} tests that train wait for their turn. `make test-all` runs everything." in result.stdout
    )
    assert f"{len(ran)} passed, {waiting} resting" in result.stdout
    assert result.stdout.count("RESTS until its turn") == waiting
    everything = pytest_in(repository, "-s", "tests")
    assert "16 passed" in everything.stdout and "wait" not in everything.stdout
    file = repository.folder / "tests" / "test_toy.py"
    file.write_text(file.read_text() + "\n# changed\n")
    assert "16 passed" in pytest_in(repository, "--programs", "due", "tests").stdout


def test_a_test_that_trains_has_its_turn_in_one_of_eight_commits(tmp_path):
    reasons = [
        selection.Selection({}, changes=set(), commit=str(number)).reason_of_test("test", [tmp_path])
        for number in range(1600)
    ]
    assert 120 < reasons.count(TURN) < 280 and CHANGED not in reasons
    changed = selection.Selection({}, changes={tmp_path}, commit="1")
    assert changed.reason_of_test("test", [tmp_path]) == CHANGED
    (tmp_path / "folder").mkdir()
    assert changed.reason_of_test("test", [tmp_path / "folder" / ".."]) == CHANGED
    resting = selection.Selection({}, changes=set(), commit=str(reasons.index(RESTS)))
    assert resting.reason_of_test("test", [tmp_path]) == RESTS
    assert resting.reason_of_test("test", [tmp_path, tmp_path / "misspelt.py"]) == CHANGED
    unknown = selection.Selection({}, changes=None, commit="1")
    assert unknown.reason_of_test("test", [tmp_path]) == CHANGED


@pytest.mark.slow
def test_without_a_word_about_it_everything_runs(repository):
    result = pytest_in(repository)
    assert result.returncode == 0, result.stdout
    assert "17 programs ran (1 on pages, 2 by turn, 14 others).\n" in result.stdout
    assert "17 passed in" in result.stdout
    ran = re.findall(r"^docs/(\w+)\.md::line (\d+) PASSED", result.stdout, flags=re.MULTILINE)
    longest_first = [("two", str(line)) for line in range(31, 2, -4)]
    longest_first += [("one", str(line)) for line in range(31, 2, -4)] + [("two", "35")]
    assert len(ran) == 17 and ran == longest_first, result.stdout


@pytest.mark.slow
def test_a_resting_example_that_stands_on_a_changed_page_too_runs_once(repository):
    repository.page("three", ["e03"], "")
    result = pytest_in(repository, "--programs", "due", "docs/three.md", "docs/one.md")
    assert "1 changed" in result.stdout, result.stdout


@pytest.mark.slow
def test_all_shards_together_run_everything_once(repository):
    ran = []
    for number in (1, 2, 3):
        result = pytest_in(repository, "--shard", f"{number}/3")
        assert result.returncode == 0, result.stdout
        ran += re.findall(r"^(docs/\S+ \d+) PASSED", result.stdout, flags=re.MULTILINE)
    assert len(ran) == len(set(ran)) == 17


@pytest.mark.slow
def test_a_file_of_tests_weighs_as_much_as_all_that_is_in_it(repository):
    many = "import pytest\n\n@pytest.mark.parametrize('number', range(900))\ndef test_a(number):\n    pass\n"
    repository.write("tests/test_many.py", many)
    for name in "bc":
        training = f"import pytest\n\n@pytest.mark.training\ndef test_{name}():\n    pass\n"
        repository.write(f"tests/test_{name}.py", training)
    result = pytest_in(repository, "--shard", "1/2", "tests")
    assert "900 passed, 2 deselected" in result.stdout, result.stdout[-1000:]


@pytest.mark.parametrize("option", ["3/2", "0/2", "two"])
@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["one process", "workers"])
def test_a_shard_that_there_cannot_be(repository, option, workers):
    result = pytest_in(repository, "--shard", option, *workers)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"A shard is written like 2/6, the second of six, not {option}." in result.stderr
    assert "Traceback" not in result.stderr and "INTERNALERROR" not in result.stdout


@pytest.mark.slow
def test_two_fences_in_the_same_line_of_two_files_both_run(repository):
    """On workers, pytest-xdist runs one item of each name."""
    fence = "Text.\n\n```python\n{}\n```\n"
    repository.write("snippets/fence.md", fence.format("raise SystemExit('the second')"))
    repository.write("docs/three.md", fence.format("print(1)") + '\n--8<-- "snippets/fence.md"\n')
    for workers in ([], ["-n", "2"]):
        result = pytest_in(repository, *workers, "docs/three.md")
        assert "1 failed, 1 passed" in result.stdout, result.stdout
        assert "2 programs ran" in result.stdout


@pytest.mark.slow
def test_it_needs_no_xdist(repository):
    result = pytest_in(repository, "-p", "no:xdist", "docs/two.md")
    assert result.returncode == 0 and "9 passed" in result.stdout, result.stdout
