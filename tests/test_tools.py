"""The commands: what they write, what they refuse, and how they say so."""

import hashlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from runner.pages import Program, has_target
from runner.process import Outcome
from tests.conftest import ROOT
from tools import programs, record, repeat, speed, upgrade

# make ------------------------------------------------------------------------------------------------


def make(*arguments: str) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)


def test_make_alone_lists_the_commands():
    result = make()
    assert result.returncode == 0
    everything = "serve site test test-all check test-page record upgrade defaults diagrams lock clean"
    for command in everything.split():
        assert re.search(rf"^make {command} +\w", result.stdout, flags=re.MULTILINE), command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["test-page"], "Name a page: make test-page PAGE=docs/algorithms/ppo.md"),
        (["test-page", "PAGE=docs/none.md"], "There is no page docs/none.md; pages stand in docs/."),
        (["record", "EXAMPLES=algorithms/none"], "There is no example algorithms/none; the examples are:"),
        (
            ["record", "EXAMPLES=first_agent", "SEEDS=one"],
            "Seeds are whole numbers, such as '0 1 2', not 'one'.",
        ),
        (
            ["record", "EXAMPLES=first_agent", "SEEDS=1 1"],
            "Name at least one seed, none negative and none twice.",
        ),
    ],
)
def test_make_refuses_in_one_sentence(arguments, message):
    result = make(*arguments)
    assert result.returncode != 0
    lines = [line for line in result.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(lines) == 1 and message in lines[0], result.stderr


def test_a_repeated_command_does_not_reinstall():
    result = make("--dry-run", "check")
    assert "tools/environment.sh" not in result.stdout


def test_serving_on_an_impossible_address():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        for address in (f"127.0.0.1:{other.getsockname()[1]}", "127.0.0.1:99999", "nowhere"):
            command = [sys.executable, "-m", "tools.serve", address]
            result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
            assert result.returncode != 0
            assert result.stderr.count("\n") == 1
            assert f"Cannot serve on {address} (" in result.stderr and "choose another" in result.stderr


# environment.sh --------------------------------------------------------------------------------------


def environment(folder: Path, **env: str) -> subprocess.CompletedProcess:
    requirements = folder / "requirements.txt"
    if not requirements.exists():
        requirements.write_text("")
    return subprocess.run(
        [str(ROOT / "tools" / "environment.sh"), str(folder / "venv"), str(requirements)],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=120,
    )


def fake_python(folder: Path, version: str) -> str:
    file = folder / "bin" / "python3"
    file.parent.mkdir(exist_ok=True)
    numbers = f"({version.replace('.', ', ')})"  # the real Python judges, as if it were that version
    run = f'exec {sys.executable} -c "import sys; sys.version_info = {numbers}; $2"'
    file.write_text(f"#!/bin/sh\n{run}\n")
    file.chmod(file.stat().st_mode | stat.S_IEXEC)
    return str(file)


def refused(result: subprocess.CompletedProcess, message: str, folder: Path) -> None:
    assert result.returncode != 0
    assert message in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert not (folder / "venv").exists(), "something half-made was left"


@pytest.mark.parametrize("version", ["3.9.18", "3.11.2", "3.12.0"])
def test_a_python_that_does_not_fit(tmp_path, version):
    python = fake_python(tmp_path, version)
    result = environment(tmp_path, PYTHON=python)
    refused(
        result,
        "Python 3.11.5 or a later 3.11 is needed, because the pinned packages are tested with it, "
        f"but {python} is Python {version}",
        tmp_path,
    )


def test_no_python_of_that_name(tmp_path):
    refused(environment(tmp_path, PYTHON="/no/python"), "There is no Python at /no/python", tmp_path)


def test_no_python_at_all(tmp_path):
    fake_python(tmp_path, "3.11.2")
    for tool in ("sh", "flock", "cmp", "touch", "rm", "cp"):
        (tmp_path / "bin" / tool).symlink_to(subprocess.check_output(["which", tool], text=True).strip())
    result = environment(tmp_path, PYTHON="", PATH=str(tmp_path / "bin"))
    refused(result, "Python 3.11.5 or a later 3.11 is needed and none was found", tmp_path)


@pytest.mark.slow
def test_an_installation_that_fails(tmp_path):
    (tmp_path / "requirements.txt").write_text("a-package-that-does-not-exist-anywhere==1.0\n")
    result = environment(tmp_path, PYTHON=sys.executable, PIP_NO_INDEX="1")
    refused(result, "failed, most often for want of a network", tmp_path)
    assert "a-package-that-does-not-exist-anywhere" in (tmp_path / "venv.log").read_text()


@pytest.mark.slow
def test_an_installation_that_is_there_is_kept(tmp_path):
    assert environment(tmp_path, PYTHON=sys.executable).returncode == 0
    mark = tmp_path / "venv" / "mark"
    mark.touch()
    again = environment(tmp_path, PYTHON="/no/python")  # not even asked for
    assert again.returncode == 0, again.stderr
    assert mark.exists()
    (tmp_path / "requirements.txt").write_text("# changed\n")
    assert environment(tmp_path, PYTHON=sys.executable).returncode == 0
    assert not mark.exists()


# record ----------------------------------------------------------------------------------------------

# Of the five drawn seeds one lies in each of 1000 to 4999, 5000 to 8999 and so on.
FIRST_FAILS, TWO_FAIL = 5_000, 9_000
PROGRAM = """\
import os
SEED = int(os.environ.get("SEED", 0))
TARGET = 10
{before}
for iteration in (1, 2):
    print(f"iteration {{iteration:3d}}   env steps {{1000 * iteration:7,d}}   "
          f"mean return {{5.0 * iteration + SEED / 1e4:6.1f}}   seconds {{0.5 * iteration:5.1f}}")
greedy_return = 12.0 if SEED >= {solved_from} else 7.0
print(f"greedy return {{greedy_return:.1f}} over 20 episodes, target {{TARGET}}")
if greedy_return < TARGET:
    raise SystemExit("missed")
"""


PLANTED = 'site_name: planted\nmarkdown_extensions:\n  - pymdownx.snippets: {base_path: ["."]}\n'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place with one example, for the recorder to work in, on a machine of steady speed."""
    for name in ("EXAMPLES", "RESULTS"):
        monkeypatch.setattr(record, name, tmp_path / name.lower())
    monkeypatch.setattr(record, "PARTS", tmp_path / "parts")
    monkeypatch.setattr(record, "work_seconds", lambda cores: 0.3)
    (tmp_path / "examples" / "algorithms").mkdir(parents=True)
    write(tmp_path)
    return tmp_path


def write(place: Path, before: str = "", solved_from: int = 0) -> list[int]:
    """Write the example; the seeds that it draws."""
    file = place / "examples" / "algorithms" / "toy.py"
    file.write_text(PROGRAM.format(before=before, solved_from=solved_from))
    return programs.seeds_of("algorithms/toy", file.read_bytes(), 5)


def data_of(place: Path, name: str = "algorithms/toy") -> dict:
    return json.loads((place / "results" / f"{name}.json").read_text())


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["record", *arguments])
    return record.main()


def test_a_record_holds_what_was_measured(place, monkeypatch, capsys):
    seeds = write(place)
    assert run(monkeypatch, "algorithms/toy") == 0
    data = data_of(place)
    assert data["form"] == 2
    assert data["example"] == "algorithms/toy"
    assert data["target"] == 10
    assert data["curve"] == "mean return"
    assert data["machine"]["cores"] == min(2, len(os.sched_getaffinity(0)))
    assert set(data["versions"]) == {"python", "ray", "torch", "tensorflow", "gymnasium"}
    assert [run["seed"] for run in data["seeds"]] == seeds
    first = data["seeds"][0]
    assert first["solved"] is True
    assert first["env_steps"] == 2000
    assert first["greedy_return"] == 12.0
    assert first["episodes"] == 20
    assert first["points"] == [
        [1000, round(5 + seeds[0] / 1e4, 1), 0.5],
        [2000, round(10 + seeds[0] / 1e4, 1), 1.0],
    ]
    assert first["work_seconds"] == [0.3, 0.3] and first["repeated"] is False
    assert 0 < first["cpu_seconds"] < 30 and 0 < first["seconds"] < 30
    assert data["output"].splitlines()[-1] == "greedy return 12.0 over 20 episodes, target 10"
    assert list((place / "parts").glob("*.json")) == []
    text = (place / "results" / "algorithms" / "toy.json").read_text()
    assert '"work_seconds": [0.3, 0.3],' in text and "\n    [1000, " in text, "one line each in a diff"


def test_a_record_takes_the_values_of_the_program_itself(place, monkeypatch):
    """What is printed is rounded, and a program may take more env steps than its progress line counts."""
    outcome = Outcome(
        exit_status=0,
        seconds=1.0,
        cpu_seconds=1.0,
        left_running=[],
        left_files=[],
        lines=[("stdout", "greedy return 12.0 over 30 episodes, target 10")],
        values={"greedy_return": 11.96, "TARGET": 9.99, "env_steps": 7000.0},
        updates=48,
    )
    monkeypatch.setattr(record, "run_as_on_page", lambda program, limit, **options: outcome)
    run(monkeypatch, "algorithms/toy")
    data = data_of(place)
    assert data["target"] == 9.99
    first = data["seeds"][0]
    assert (first["greedy_return"], first["env_steps"], first["updates"]) == (11.96, 7000, 48)
    assert first["episodes"] == 30
    outcome.lines.clear()
    run(monkeypatch, "algorithms/toy")
    first = data_of(place)["seeds"][0]
    assert first["greedy_return"] is None and first["episodes"] is None, "it ended before its verdict"


@pytest.mark.slow
def test_progress_says_what_is_left(place, monkeypatch, capsys):
    seeds = write(place)
    assert run(monkeypatch, "algorithms/toy") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 example: 5 seeds left, nobody knows how long"
    assert re.fullmatch(
        rf"algorithms/toy, seed {seeds[0]}: solved, \d+ s; 4 seeds left, nobody knows how long", lines[1]
    )
    assert "; 1 seed left, " in lines[4] and "; 0 seeds left, about 0 s" in lines[5]
    assert lines[6] == "algorithms/toy: 5 of 5 seeds solved; wrote results/algorithms/toy.json"
    file = place / "results" / "algorithms" / "toy.json"
    data = json.loads(file.read_text())
    for entry in data["seeds"]:
        entry["seconds"] = 116.0  # and four for the speed of the machine
    file.write_text(json.dumps(data))
    (place / "examples" / "algorithms" / "other.py").write_text("TARGET = 1\nraise SystemExit(1)\n")
    run(monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 examples: 10 seeds left, about 10 min and 1 that have no record yet"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89, "89 s"), (91, "2 min"), (3570, "1 h 0 min"), (12000, "3 h 20 min")],
)
def test_a_duration_is_said_roughly(seconds, words):
    assert record._duration(seconds) == words


def test_a_seed_that_fails_is_recorded_too(place, monkeypatch, capsys):
    write(place, solved_from=FIRST_FAILS)
    assert run(monkeypatch, "algorithms/toy") == 0, "four of five are enough"
    data = data_of(place)
    assert [run["solved"] for run in data["seeds"]] == [False, True, True, True, True]
    assert data["seeds"][0]["greedy_return"] == 7.0
    assert data["output"].splitlines()[-1] == "greedy return 7.0 over 20 episodes, target 10"
    assert "4 of 5 seeds solved" in capsys.readouterr().out
    write(place, solved_from=TWO_FAIL)
    assert run(monkeypatch, "algorithms/toy") == 1
    assert [run["solved"] for run in data_of(place)["seeds"]] == [False, False, True, True, True]
    assert "Too few seeds solved algorithms/toy: mend the program, not its seeds." in capsys.readouterr().err


def test_seeds_that_somebody_chose_leave_no_record(place, monkeypatch, capsys):
    assert run(monkeypatch, "algorithms/toy", "--seeds", "3 5") == 0
    output = capsys.readouterr().out
    assert "algorithms/toy, seed 3: solved" in output and "nothing written" in output
    assert not (place / "results").exists()
    assert list((place / "parts").glob("*.json")) == []
    write(place, solved_from=4)
    assert run(monkeypatch, "algorithms/toy", "--seeds", "3 5") == 1
    assert capsys.readouterr().err == "Not every seed solved its example.\n"


@pytest.mark.slow
def test_only_stale_examples_are_recorded_when_asked(place, monkeypatch, capsys):
    def recorded() -> bool:
        assert run(monkeypatch, "stale") == 0
        return "algorithms/toy: 5 of 5 seeds solved" in capsys.readouterr().out

    assert recorded(), "it has no record"
    assert run(monkeypatch, "stale") == 0
    assert capsys.readouterr().out == "0 examples: 0 seeds left, about 0 s\n"
    write(place, "# changed")
    assert recorded(), "its source has changed"
    file = place / "results" / "algorithms" / "toy.json"
    for changes in ({"versions": {}}, {"form": None}):
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        assert recorded(), f"it has other {changes}"
    assert not recorded()


@pytest.mark.slow
def test_a_file_beside_a_program_belongs_to_its_record(place, monkeypatch, capsys):
    write(place, "assert open('note.txt').read() in ('one', 'two')")
    note, page = place / "examples" / "note.txt", place / "docs" / "page.md"
    note.write_text("one")
    page.parent.mkdir()
    (place / "mkdocs.yml").write_text(PLANTED)
    include = '```python\n--8<-- "examples/algorithms/toy.py"\n```\n'
    page.write_text(f'<!-- program: beside "examples/note.txt" -->\n{include}')
    assert run(monkeypatch, "algorithms/toy") == 0
    assert data_of(place)["beside"] == {"examples/note.txt": hashlib.sha256(b"one").hexdigest()}
    capsys.readouterr()
    assert run(monkeypatch, "stale") == 0
    assert capsys.readouterr().out.startswith("0 examples")
    note.write_text("two")
    assert run(monkeypatch, "stale") == 0
    assert "algorithms/toy: 5 of 5 seeds solved" in capsys.readouterr().out
    assert data_of(place)["beside"] == {"examples/note.txt": hashlib.sha256(b"two").hexdigest()}


@pytest.mark.slow
def test_a_switch_is_passed_on_and_has_a_record_of_its_own(place, monkeypatch, capsys):
    """An ablation may fail: that is a result. It goes stale with its program."""
    before = "assert os.environ.get('WITHOUT', '') in ('', 'noisy')"
    write(place, before, solved_from=TWO_FAIL)
    name = "algorithms/toy+WITHOUT=noisy"
    assert run(monkeypatch, name) == 0
    data = data_of(place, name)
    assert data["example"] == name
    assert [run["solved"] for run in data["seeds"]] == [False, False, True, True, True]
    assert not (place / "results" / "algorithms" / "toy.json").exists()
    source = (place / "examples" / "algorithms" / "toy.py").read_bytes()
    assert [run["seed"] for run in data["seeds"]] == programs.seeds_of(name, source, 5)
    write(place, before + "  # changed")
    capsys.readouterr()
    assert run(monkeypatch, "stale") == 0
    assert f"{name}: 5 of 5 seeds solved" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["algorithms/toy+noisy", "algorithms/toy+without=x", "algorithms/toy+A=b c"])
def test_a_switch_has_a_name_and_a_value(place, monkeypatch, capsys, name):
    assert run(monkeypatch, name) == 1
    assert "A switch is written +NAME=value" in capsys.readouterr().err


def test_a_program_that_crashes_is_recorded_as_not_solved(place, monkeypatch, capsys):
    write(place, "raise ValueError('no')")
    assert run(monkeypatch, "algorithms/toy") == 1
    first = data_of(place)["seeds"][0]
    assert first["solved"] is False and first["points"] == [] and first["episodes"] is None
    assert "ValueError: no" in capsys.readouterr().out


def test_a_program_with_two_kinds_of_curve_is_not_recorded(place, monkeypatch, capsys):
    mixed = "print('iteration   0   env steps   500   greedy return    1.0   seconds   0.1')"
    write(place, mixed)
    assert run(monkeypatch, "algorithms/toy") == 1
    assert capsys.readouterr().err == (
        "algorithms/toy cannot be recorded: its progress lines say `mean return` here and "
        "`greedy return` there.\n"
    )
    assert not (place / "results").exists()


def test_a_curve_of_evaluations_is_told_from_one_of_exploring_episodes():
    line = "iteration  12   env steps  24,000   {} return  -17.5   seconds  12.5\n"
    for kind in ("mean", "greedy"):
        assert record.curve_of(line.format(kind)) == f"{kind} return"
        assert record.points(line.format(kind)) == [[24000, -17.5, 12.5]]
    assert record.curve_of("greedy return 12.0 over 20 episodes, target 10") is None
    assert record.points("iteration 1 env steps 5 mean return nan seconds 1.0") == [[5, None, 1.0]]


@pytest.mark.parametrize(
    ("speeds", "kept", "runs"),
    [
        ([0.30, 0.33, 0.30, 0.30], [0.30, 0.33], 1),
        ([0.30, 0.34, 0.34, 0.35], [0.34, 0.35], 2),
        ([0.34, 0.30, 0.30, 0.30], [0.30, 0.30], 2),
        ([0.30, 0.34, 0.30, 0.34], [0.30, 0.34], 2),
    ],
)
def test_a_seed_is_run_again_when_the_machine_changed_its_speed(
    place, monkeypatch, capsys, speeds, kept, runs
):
    count = place / "count"
    count.touch()  # a new file would be one that the program leaves behind
    seeds = write(place, f"open({str(count)!r}, 'a').write(f'{{SEED}}\\n')")
    left = iter([*speeds[: 2 * runs], *[0.3] * 8])
    monkeypatch.setattr(record, "work_seconds", lambda cores: next(left))
    assert run(monkeypatch, "algorithms/toy") == 0
    assert [int(seed) for seed in count.read_text().split()] == seeds[:1] * runs + seeds[1:]
    first = data_of(place)["seeds"][0]
    assert first["work_seconds"] == kept and first["repeated"] is (runs == 2)
    output = capsys.readouterr().out
    assert ("so this seed is run once more" in output) == (runs == 2)
    assert ("again: kept as it is" in output) == (runs == 2 and kept == [0.30, 0.34])


def test_the_speed_of_this_machine_is_measured():
    cores = sorted(os.sched_getaffinity(0))[:1]
    assert 0.01 < speed.work_seconds(cores) < 60


@pytest.mark.slow
def test_cpu_seconds_count_child_processes(place, monkeypatch):
    busy = (
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'for i in range(20_000_000): pass'])"
    )
    write(place, busy)
    assert run(monkeypatch, "algorithms/toy") == 0
    assert data_of(place)["seeds"][0]["cpu_seconds"] > 0.25


def test_another_recording_in_this_checkout_is_not_disturbed(place, monkeypatch, capsys):
    import fcntl

    (place / "parts").mkdir()
    with open(place / "parts" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(monkeypatch, "algorithms/toy") == 1
    assert "Another recording runs in this checkout" in capsys.readouterr().err
    assert not (place / "results").exists()


def test_an_interrupted_recording_goes_on_where_it_stopped(place, tmp_path):
    """Ctrl-C during the second seed: no record is written, and the first seed is not run again."""
    runs, first = tmp_path / "runs", tmp_path / "first"
    runs.touch()  # a new file would be one that the program leaves behind
    seeds = write(
        place,
        f"open({str(runs)!r}, 'a').write(f'{{SEED}}\\n')\n"
        f"second = open({str(runs)!r}).read().count('\\n') == 2\n"
        f"if second: __import__('time').sleep(30)",
    )
    code = (
        "import sys; from pathlib import Path; from tools import record; place = Path(sys.argv.pop(1)); "
        "record.EXAMPLES, record.RESULTS, record.PARTS = "
        "place / 'examples', place / 'results', place / 'parts'; record.work_seconds = lambda cores: 0.3; "
        "sys.exit(record.main())"
    )
    command = [sys.executable, "-c", code, str(place), "algorithms/toy"]
    with open(first, "w") as output:
        start = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    deadline = time.monotonic() + 60
    while not (runs.exists() and runs.read_text().count("\n") == 2):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    start.send_signal(signal.SIGINT)
    _, error = start.communicate(timeout=30)
    assert start.returncode == 1
    assert error == "Interrupted; finished seeds are kept, and the same command goes on with the rest.\n"
    assert not (place / "results").exists()

    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("1 example: 4 seeds left, ")
    assert f"algorithms/toy, seed {seeds[0]}: kept from an interrupted recording" in again.stdout
    assert [int(seed) for seed in runs.read_text().split()] == [*seeds[:2], *seeds[1:]]
    assert (place / "results" / "algorithms" / "toy.json").is_file()


# upgrade ---------------------------------------------------------------------------------------------


def test_an_unknown_release_is_refused():
    result = make("upgrade", "RAY=2.0.nine")
    assert result.returncode != 0
    assert result.stderr.startswith(
        "pip knows no release 2.0.nine of Ray; a release is written like 2.59.0.\n"
    )


def test_another_release_keeps_every_pin_that_it_allows():
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    asked = [Requirement(text) for text in ("gymnasium==0.28.1", "lz4", "dm_tree>=0.1", "tensorboardX>=99")]
    lines = upgrade.requirements("2.41.0", asked).splitlines()
    assert lines[0] == "ray[rllib]==2.41.0"
    assert "gymnasium==0.28.1" in lines and "tensorboardX>=99" in lines
    for name in ("lz4", "dm-tree", "torch"):
        assert re.search(rf"^{name}==\S+", pins, flags=re.MULTILINE)[0] in lines
    packages = re.findall(r"^[\w.-]+==", pins, flags=re.MULTILINE)
    assert len(lines) == len(packages)


def test_another_release_has_the_extras_too_and_nothing_twice():
    asked = [Requirement(text) for text in ("aiohttp==3.9.0", "numpy<2")]
    lines = upgrade.requirements("2.41.0", asked, "requirements-cluster.txt").splitlines()
    assert lines[0] == "ray[default,serve]==2.41.0"
    assert "aiohttp==3.9.0" in lines
    names = {Requirement(line).name for line in lines}
    assert "fastapi" in names and "numpy" not in names, "the environment below it has a numpy"


def test_the_pinned_release_is_not_tried(tmp_path, monkeypatch, capsys):
    """Nor is there a trial of it on the page about versions."""
    number = upgrade.pinned()["ray"]
    monkeypatch.setattr(upgrade, "BROKEN", tmp_path / "broken.md")
    monkeypatch.setattr(upgrade, "resolve", lambda release: (number, []))
    monkeypatch.setattr(sys, "argv", ["upgrade"])
    assert upgrade.main() == 0
    assert capsys.readouterr().out == (tmp_path / "broken.md").read_text()
    assert f"Ray {number} is the release that is pinned here" in (tmp_path / "broken.md").read_text()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("KeyError: 'a'\nRuntimeError: " + 400 * "x", "RuntimeError: " + 286 * "x"),
        (None, None),
    ],
)
def test_a_release_has_more_time_and_its_last_line_counts(tmp_path, monkeypatch, error, said):
    limits = []

    def run(program, limit):
        limits.append(limit)
        return Outcome(1 if error else None, 30.0, 1.0, [], [], [], error=error)

    monkeypatch.setattr(upgrade, "run_as_on_page", run)
    monkeypatch.setattr(upgrade, "PARTS", tmp_path)
    program = Program(tmp_path / "page.md", 1, "python", "x = 1\n", [], limit=10.0)
    found = upgrade._try(program, "release")
    assert limits == [30.0]
    assert found["error"] == (said or found["problem"])
    assert found["problem"]
    program.fails_with = "KeyError: 'a'"
    found = upgrade._try(program, "has to fail")
    assert (found["error"] is None) == bool(error), "an error that the page announces breaks nothing"


def test_what_is_kept_of_a_release_is_of_these_versions(monkeypatch):
    kept = upgrade._part("program")
    assert kept == upgrade._part("program") != upgrade._part("another")
    monkeypatch.setattr(upgrade, "version", lambda name: "9" if name == "torch" else version(name))
    assert upgrade._part("program") != kept


def test_a_program_of_which_two_pages_ask_another_thing_is_tried_twice(tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    (tmp_path / "mkdocs.yml").write_text("site_name: planted\n")
    fence = "```python\n{'a': 1}['b']\n```\n"
    for name, above in ("a", ""), ("b", "<!-- program: fails with \"KeyError: 'b'\" -->\n"), ("c", ""):
        (tmp_path / "docs" / f"{name}.md").write_text(above + fence)
    monkeypatch.setattr(upgrade, "ROOT", tmp_path)
    assert [name for name, _ in upgrade._programs().values()] == ["docs/a.md#1", "docs/b.md#1"]


@pytest.mark.slow
def test_a_program_that_fails_by_chance_is_seen_when_it_is_repeated(tmp_path, monkeypatch, capsys):
    """The second of two programs fails at its third run; after an interruption what passed counts."""
    runs = tmp_path / "runs"
    runs.touch()  # a new file would be one that a program leaves behind
    count = f"import os\nopen({str(runs)!r}, 'a').write(os.environ['SEED'] + ' ')\n"
    fails = count + f"assert open({str(runs)!r}).read().count('2000') < 2, 'by chance'\n"
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text(f"```python\n{count}```\n\n```python\n{fails}```\n")
    (tmp_path / "mkdocs.yml").write_text("site_name: planted\n")
    monkeypatch.setattr(repeat, "ROOT", tmp_path)
    monkeypatch.setattr(repeat, "PASSED", tmp_path / "passed")

    def run(times: int) -> int:
        monkeypatch.setattr(sys, "argv", ["repeat", str(page), "--times", str(times)])
        return repeat.main()

    assert run(2) == 0
    assert runs.read_text() == "0 1000 " * 2
    assert run(3) == 1
    assert runs.read_text() == "0 1000 " * 2 + "2000 2000 "
    error = capsys.readouterr().err
    assert "docs/page.md:9: AssertionError: by chance" in error
    assert run(1) == 1, "after a failure it has passed not even once in a row"
    assert runs.read_text().endswith("2000 2000 0 ")


def test_a_page_that_is_not_there_is_not_repeated(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["repeat", "docs/nothing.md"])
    assert repeat.main() == 1
    assert capsys.readouterr().err.startswith("docs/nothing.md cannot be read: ")


@pytest.mark.slow
def test_what_breaks_with_a_release_is_listed(tmp_path, monkeypatch, capsys):
    """Three programs, two of which fail; after an interruption none runs anew, after a list each does."""
    runs = tmp_path / "runs"
    runs.touch()  # a new file would be one that a program leaves behind
    count = f"open({str(runs)!r}, 'a').write('x')\n"
    (tmp_path / "docs").mkdir()
    (tmp_path / "examples").mkdir()
    (tmp_path / "mkdocs.yml").write_text(
        'site_name: planted\nmarkdown_extensions:\n  - pymdownx.snippets: {base_path: ["."]}\n'
    )
    (tmp_path / "examples" / "whole.py").write_text(f"{count}print(1)\n")
    (tmp_path / "docs" / "page.md").write_text(
        '```python\n--8<-- "examples/whole.py"\n```\n\n'
        f"```python\n{count}raise KeyError('no such setting')\n```\n\n"
        f"```python\n{count}import sys; sys.exit('The team missed it.')\n```\n"
    )
    (tmp_path / "docs" / "again.md").write_text('```python\n--8<-- "examples/whole.py"\n```\n')
    monkeypatch.setattr(upgrade, "ROOT", tmp_path)
    monkeypatch.setattr(upgrade, "RELEASES", tmp_path / "releases")
    monkeypatch.setattr(upgrade, "PARTS", tmp_path / "parts")
    monkeypatch.setattr(upgrade, "BROKEN", tmp_path / "parts" / "broken.md")
    with monkeypatch.context() as interrupted:
        interrupted.setattr(upgrade, "_source_hash", lambda program: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            upgrade.run(jobs=2)
    assert runs.read_text() == "xxx" and not (tmp_path / "releases").exists()
    assert upgrade.run(jobs=2) == 1
    assert runs.read_text() == "xxx"
    assert upgrade.run(jobs=2) == 1
    assert runs.read_text() == "xxxxxx"
    [file] = (tmp_path / "releases").glob("*.json")
    data = json.loads(file.read_text())
    assert file.stem == data["versions"]["ray"] == upgrade.version("ray")
    assert [(one["page"], one["program"], one["error"]) for one in data["programs"]] == [
        ("docs/again.md", "examples/whole.py", None),
        ("docs/page.md", "docs/page.md#2", "KeyError: 'no such setting'"),
        ("docs/page.md", "docs/page.md#3", "The team missed it."),
    ]
    whole = hashlib.sha256((tmp_path / "examples" / "whole.py").read_bytes()).hexdigest()
    assert data["programs"][0]["source_sha256"] == whole
    output = capsys.readouterr()
    assert "1 of 3 programs run unchanged." in output.out
    assert "- `docs/page.md#2` on `docs/page.md`: the program failed with exit status 1" in output.out
    assert "KeyError: 'no such setting'" in (tmp_path / "parts" / "broken.md").read_text()
    assert output.err.endswith("they are listed above.\n")


# what a program's source decides ---------------------------------------------------------------------


def test_the_seeds_follow_from_name_and_source():
    for how_many in (2, 5, 10):
        drawn = [
            tuple(programs.seeds_of(name, source, how_many))
            for name in ("algorithms/ppo", "algorithms/ppo+A=b")
            for source in (b"x = 1\n", b"x = 2\n")
        ]
        assert len(set(drawn)) == 4, "another name or another source draws others"
        assert drawn[0] == tuple(programs.seeds_of("algorithms/ppo", b"x = 1\n", how_many))
        for seeds in drawn:
            assert len(seeds) == how_many


def test_seeds_suit_the_programs():
    """They count on from SEED for many envs, test from SEED + 1000, and multiply by up to 100,000."""
    for number in range(300):
        for how_many in (2, 5, 10):
            seeds = programs.seeds_of("a", str(number).encode(), how_many)
            assert min(seeds) >= 1000 and 100_000 * (max(seeds) + 1) < 2**31
            assert all(after - before >= 1200 for before, after in zip(seeds, seeds[1:], strict=False))
    examples = "".join(file.read_text() for file in (ROOT / "examples").rglob("*.py"))
    factors = re.findall(r"([\d_]+) \* SEED", examples)
    assert max(map(int, factors)) == 100_000


def test_how_many_seeds(tmp_path):
    (tmp_path / "algorithms").mkdir()
    (tmp_path / "algorithms" / "ppo.md").touch()
    learns, measures = "TARGET = 1\n", "print(1)\n"
    for name, source, how_many in (
        ("algorithms/ppo", learns, 10),
        ("algorithms/ppo_sb3", learns, 10),
        ("algorithms/ppo_tensorflow", learns, 5),
        ("algorithms/ppo+ENV=Acrobot-v1", learns, 5),
        ("algorithms/ppo_scale", measures, 2),
        ("algorithms/ppo_scale+A=b", measures, 5),
        ("algorithms/none", learns, 5),
        ("concepts/ppo", learns, 5),
        ("first_agent", learns, 5),
        ("first_agent", measures, 2),
    ):
        assert programs.how_many_seeds(name, source, tmp_path) == how_many, name


def test_every_algorithm_page_has_a_program_with_ten_seeds():
    for page in (ROOT / "docs" / "algorithms").glob("*.md"):
        if page.stem != "index":
            name = f"algorithms/{page.stem}"
            source = (ROOT / "examples" / f"{name}.py").read_text()
            assert programs.how_many_seeds(name, source) == 10


@pytest.mark.parametrize(
    ("solved", "of", "enough"),
    [(10, 10, True), (9, 10, True), (8, 10, False), (5, 5, True), (4, 5, True), (3, 5, False), (2, 2, True)]
    + [(1, 2, False)],
)
def test_how_many_have_to_be_solved(solved, of, enough):
    assert programs.enough_solved(solved, of) is enough


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("TARGET = 450\n", True),
        ("TARGET: float = 450\n", True),
        ("TARGET, MOST = (1, 2) if ENV else (3, 4)\n", True),
        ("BOUND = 1\n", False),
        ("def train():\n    TARGET = 1\n", False),
        ("print('TARGET = 1')\n", False),
    ],
)
def test_a_target_is_found_however_it_is_assigned(source, expected):
    assert has_target(source) is expected


def test_what_pages_show_needs_a_record(place, monkeypatch):
    (place / "docs").mkdir()
    (place / "docs" / "page.md").write_text(
        "```output\nconcepts/a\n```\n\n```comparison\nalgorithms/b: B\nalgorithms/b+ENV=x: B: x\n```\n\n"
        "    ```curve\n    algorithms/c: C\n    ```\n\n```recorded-diagram\nd 1\n```\n\n"
        "`#!result e seconds` `#!result ratio env_steps f g+A=b`\n\n"
        '<!-- program: prints its record -->\n```python\n--8<-- "examples/h.py"\n```\n\n'
        '```python\n--8<-- "examples/not_shown.py"\n```\n'
    )
    assert programs.shown_on_pages((place / "docs",)) == {
        *("concepts/a", "algorithms/b", "algorithms/b+ENV=x", "algorithms/c", "d", "e", "f", "g+A=b", "h")
    }
    for name in ("e", "not_shown"):
        (place / "examples" / f"{name}.py").write_text("print(1)\n")
    assert record.needed_examples() == ["algorithms/toy", "e"]


# the verdict of a program, by its syntax tree --------------------------------------------------------

FRESH = """\
TARGET = 10
evaluated = 0.0
while evaluated < TARGET:
    result = algo.train()
    print(f"iteration {iteration:3d}")
    evaluated = algo.evaluate()["env_runners"]["episode_return_mean"]
"""
VERDICT_LINE = 'print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")\n'


@pytest.mark.parametrize(
    "after",
    [
        'greedy_return = algo.evaluate()["env_runners"]["episode_return_mean"]\n',
        "greedy_return = evaluate(algo, seed=1000 * SEED)\n",
        "greedy_return, _ = evaluate_policy(model, env)\n",
        "returns = []\nfor episode in range(20):\n    returns.append(play(policy))\n"
        "greedy_return = np.mean(returns)\n",
        "greedy_return = 0.0\nfor episode in range(20):\n    _, reward, done, _, _ = env.step(act())\n"
        "    greedy_return += reward / 20\n",
        "measured = algo.evaluate()\ngreedy_return = float(measured['mean'])\n",
        "with torch.no_grad():\n    greedy_return = play(policy)\n",
        "greedy_return = play(policy)\npolicy.train(False)\n",
    ],
)
def test_a_verdict_that_is_measured_after_the_training_is_fresh(after):
    assert programs.verdict_problem(FRESH + after + VERDICT_LINE) is None
    guarded = "".join(f"    {line}\n" for line in (FRESH + after + VERDICT_LINE).splitlines())
    assert programs.verdict_problem(f'if __name__ == "__main__":\n{guarded}') is None


def test_a_training_with_tune_is_a_training():
    source = "TARGET = 10\nresults = tune.Tuner(PPO).fit()\ngreedy_return = play(results)\n" + VERDICT_LINE
    assert programs.verdict_problem(source) is None and programs.trains_with_tune(source)
    after = "TARGET = 10\ngreedy_return = play(1)\ntune.Tuner(PPO).fit()\n" + VERDICT_LINE
    assert "not measured after the training" in programs.verdict_problem(after)[1]
    assert not programs.trains_with_tune(FRESH)


def test_a_verdict_after_a_training_in_a_function_is_fresh():
    loop = "".join(f"    {line}\n" for line in FRESH.splitlines())
    source = f"def train():\n{loop}    return evaluated\n\nTARGET = 10\nbest = train()\n"
    assert programs.verdict_problem(source + "greedy_return = play(20)\n" + VERDICT_LINE) is None
    assert programs.verdict_problem(source + "greedy_return = best\n" + VERDICT_LINE) is not None
    source = "model.learn(1000, callback=callback)\n"
    assert programs.verdict_problem(source + "greedy_return = play(model)\n" + VERDICT_LINE) is None
    assert programs.verdict_problem(
        source + VERDICT_LINE.replace("greedy_return", "callback.greedy_return")
    ) == (
        2,
        "the verdict `callback.greedy_return` is no variable that is set after the training",
    )


NOT_AFTER = "`greedy_return`, the verdict, is not measured after the training"
ENDS = "`greedy_return`, the verdict, ends the training itself; name that value differently"


@pytest.mark.parametrize(
    ("source", "line", "problem"),
    [
        (FRESH.replace("evaluated", "greedy_return") + VERDICT_LINE, 3, ENDS),
        (
            FRESH.replace("evaluated", "greedy_return") + "greedy_return = algo.evaluate()\n" + VERDICT_LINE,
            3,
            ENDS,
        ),
        (
            FRESH.replace("while evaluated < TARGET", "while True")
            + "    greedy_return = evaluated\n    if greedy_return >= TARGET:\n        break\n"
            + VERDICT_LINE,
            8,
            ENDS,
        ),
        (FRESH + "greedy_return = evaluated\n" + VERDICT_LINE, 8, NOT_AFTER),
        (FRESH + "greedy_return = float(np.mean([evaluated]))\n" + VERDICT_LINE, 8, NOT_AFTER),
        (FRESH + "greedy_return = np.median([evaluated])\n" + VERDICT_LINE, 8, NOT_AFTER),
        (FRESH + "greedy_return = result['env_runners'].get('mean')\n" + VERDICT_LINE, 8, NOT_AFTER),
        (FRESH + "greedy_return = 450.0\n" + VERDICT_LINE, 8, NOT_AFTER),
        (FRESH + "greedy_return = algo.evaluate()\ngreedy_return = evaluated\n" + VERDICT_LINE, 9, NOT_AFTER),
        (FRESH + "returns = []\ngreedy_return = sum(returns)\n" + VERDICT_LINE, 9, NOT_AFTER),
        ("greedy_return = play()\n" + FRESH + VERDICT_LINE, 8, NOT_AFTER),
        (
            FRESH + "greedy_return = play()\n" + VERDICT_LINE + FRESH,
            8,
            "the verdict is printed during the training",
        ),
        (FRESH + f"    {VERDICT_LINE}", 7, "the verdict is printed during the training"),
        (FRESH, 1, "no line `greedy return ...` is printed at the top level"),
        (
            "greedy_return = play()\n" + VERDICT_LINE,
            1,
            "no training (a progress line, train(), learn() or fit()) stands at the top level",
        ),
    ],
)
def test_a_verdict_that_is_not_fresh_is_named_with_its_line(source, line, problem):
    assert programs.verdict_problem(source) == (line, problem)


def test_the_program_that_shows_how_has_a_fresh_verdict():
    source = (ROOT / "examples" / "approaches" / "multi_agent.py").read_text()
    assert programs.verdict_problem(source) is None


# the workflows ---------------------------------------------------------------------------------------

WORKFLOWS = sorted(map(str, (ROOT / ".github" / "workflows").glob("*.yml")))


def test_the_workflows_pass_their_linter():
    result = subprocess.run(
        [
            str(Path(sys.executable).with_name("zizmor")),
            "--offline",
            "--pedantic",
            "--no-progress",
            *WORKFLOWS,
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_workflows_keep_their_schema():
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
        *WORKFLOWS,
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout


def test_actions_are_pinned_by_commit():
    for workflow in WORKFLOWS:
        for action in re.findall(r"uses: (\S+)", Path(workflow).read_text(encoding="utf-8")):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action


def test_the_workflow_runs_every_shard():
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    shards = json.loads(re.search(r"shard: (\[.*\])", text)[1])
    assert shards == list(range(1, len(shards) + 1))
    assert set(re.findall(r"/(\d+)\b(?=[\"\n])", text)) == {str(len(shards))}


def test_ci_runs_what_the_readme_says():
    assert "exec make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make serve" in readme and "make test" in readme


@pytest.mark.parametrize(
    ("needed", "sentence"),
    [
        (
            "chromium",
            "The browser tests need Chromium: install it (on Debian: sudo apt-get install chromium)",
        ),
        (
            "slurm",
            "The program about Slurm needs Slurm: install it (on Debian: sudo apt-get install slurmctld",
        ),
        ("", "Name what is needed: chromium or slurm."),
    ],
)
def test_what_pip_cannot_install_is_named(tmp_path, needed, sentence):
    (tmp_path / "id").symlink_to("/usr/bin/id")
    script = (ROOT / "tools" / "debian.sh").read_text().replace(":/usr/sbin", "")  # there may be one there
    result = subprocess.run(
        ["/bin/sh", "-c", script, "debian.sh", needed],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.returncode == 1
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1
