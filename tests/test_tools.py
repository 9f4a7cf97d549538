"""The commands: what they write, what they refuse, and how they say so."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tools import record

# make ------------------------------------------------------------------------------------------------


def make(*arguments: str) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)


def test_make_alone_lists_the_commands():
    result = make()
    assert result.returncode == 0
    for command in (
        "serve",
        "site",
        "test",
        "check",
        "test-page",
        "record",
        "defaults",
        "diagrams",
        "lock",
        "clean",
    ):
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
    major, minor = version.split(".")
    file.write_text(f'#!/bin/sh\ncase "$2" in *exit*) exit 1;; *print*) echo {major}.{minor};; esac\n')
    file.chmod(file.stat().st_mode | stat.S_IEXEC)
    return str(file)


def refused(result: subprocess.CompletedProcess, message: str, folder: Path) -> None:
    assert result.returncode != 0
    assert message in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert not (folder / "venv").exists(), "something half-made was left"


def test_an_old_python(tmp_path):
    python = fake_python(tmp_path, "3.9")
    result = environment(tmp_path, PYTHON=python)
    refused(
        result,
        f"Python 3.11 is needed, because the pinned packages are tested with it, but {python}",
        tmp_path,
    )


def test_no_python_of_that_name(tmp_path):
    refused(environment(tmp_path, PYTHON="/no/python"), "There is no Python at /no/python", tmp_path)


def test_no_python_at_all(tmp_path):
    fake_python(tmp_path, "3.9")
    for tool in ("sh", "flock", "cmp", "touch", "rm", "cp"):
        (tmp_path / "bin" / tool).symlink_to(subprocess.check_output(["which", tool], text=True).strip())
    result = environment(tmp_path, PYTHON="", PATH=str(tmp_path / "bin"))
    refused(result, "Python 3.11 is needed and none was found", tmp_path)


def test_an_installation_that_fails(tmp_path):
    (tmp_path / "requirements.txt").write_text("a-package-that-does-not-exist-anywhere==1.0\n")
    result = environment(tmp_path, PYTHON=sys.executable, PIP_NO_INDEX="1")
    refused(result, "failed, most often for want of a network", tmp_path)
    assert "a-package-that-does-not-exist-anywhere" in (tmp_path / "venv.log").read_text()


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

PROGRAM = """\
import os
SEED = int(os.environ.get("SEED", 0))
TARGET = 10
{before}
for iteration in (1, 2):
    print(f"iteration {{iteration:3d}}   env steps {{1000 * iteration:7,d}}   "
          f"mean return {{5.0 * iteration:6.1f}}   seconds {{0.5 * iteration:5.1f}}")
print(f"greedy return {{12.0 - SEED:.1f}} over 20 episodes, target {{TARGET}}")
if 12.0 - SEED < TARGET:
    raise SystemExit("missed")
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place with one example, for the recorder to work in."""
    for name in ("EXAMPLES", "RESULTS"):
        monkeypatch.setattr(record, name, tmp_path / name.lower())
    monkeypatch.setattr(record, "PARTS", tmp_path / "parts")
    (tmp_path / "examples" / "algorithms").mkdir(parents=True)
    write(tmp_path)
    return tmp_path


def write(place: Path, before: str = "") -> None:
    (place / "examples" / "algorithms" / "toy.py").write_text(PROGRAM.format(before=before))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["record", *arguments])
    return record.main()


def test_a_record_holds_what_was_measured(place, monkeypatch, capsys):
    assert run(monkeypatch, "algorithms/toy", "--seeds", "0 1") == 0
    data = json.loads((place / "results" / "algorithms" / "toy.json").read_text())
    assert data["example"] == "algorithms/toy"
    assert data["target"] == 10
    assert data["machine"]["cores"] == min(2, len(os.sched_getaffinity(0)))
    assert set(data["versions"]) == {"python", "ray", "torch", "tensorflow", "gymnasium"}
    assert [run["seed"] for run in data["seeds"]] == [0, 1]
    first = data["seeds"][0]
    assert first["solved"] is True
    assert first["env_steps"] == 2000
    assert first["greedy_return"] == 12.0
    assert first["points"] == [[1000, 5.0, 0.5], [2000, 10.0, 1.0]]
    assert 0 < first["cpu_seconds"] < 30 and 0 < first["seconds"] < 30
    assert data["output"].splitlines()[-1] == "greedy return 12.0 over 20 episodes, target 10"
    assert "algorithms/toy, seed 1: solved" in capsys.readouterr().out
    assert list((place / "parts").glob("*.json")) == []


def test_a_seed_that_fails_is_recorded_too(place, monkeypatch, capsys):
    assert run(monkeypatch, "algorithms/toy", "--seeds", "0 5") == 1
    data = json.loads((place / "results" / "algorithms" / "toy.json").read_text())
    assert [run["solved"] for run in data["seeds"]] == [True, False]
    assert data["seeds"][1]["greedy_return"] == 7.0
    output = capsys.readouterr()
    assert "1 of 2 seeds solved" in output.out
    assert "Not every seed solved its example" in output.err


def test_only_stale_examples_are_recorded_when_asked(place, monkeypatch, capsys):
    assert run(monkeypatch, "stale", "--seeds", "0") == 0
    assert "algorithms/toy: 1 of 1 seeds solved" in capsys.readouterr().out
    assert run(monkeypatch, "stale", "--seeds", "0") == 0
    assert capsys.readouterr().out == ""
    write(place, "# changed")
    assert run(monkeypatch, "stale", "--seeds", "0") == 0
    assert "algorithms/toy: 1 of 1 seeds solved" in capsys.readouterr().out


def test_a_switch_is_passed_on_and_has_a_record_of_its_own(place, monkeypatch, capsys):
    """An ablation may fail: that is a result. It goes stale with its program."""
    before = "assert os.environ.get('WITHOUT', '') in ('', 'noisy')"
    write(place, before)
    assert run(monkeypatch, "algorithms/toy+WITHOUT=noisy", "--seeds", "0 5") == 0
    file = place / "results" / "algorithms" / "toy+WITHOUT=noisy.json"
    data = json.loads(file.read_text())
    assert data["example"] == "algorithms/toy+WITHOUT=noisy"
    assert [run["solved"] for run in data["seeds"]] == [True, False]
    assert not (place / "results" / "algorithms" / "toy.json").exists()
    write(place, before + "  # changed")
    capsys.readouterr()
    assert run(monkeypatch, "stale", "--seeds", "0") == 0
    assert "algorithms/toy+WITHOUT=noisy: 1 of 1 seeds solved" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["algorithms/toy+noisy", "algorithms/toy+without=x", "algorithms/toy+A=b c"])
def test_a_switch_has_a_name_and_a_value(place, monkeypatch, capsys, name):
    assert run(monkeypatch, name) == 1
    assert "A switch is written +NAME=value" in capsys.readouterr().err


def test_a_program_that_crashes_is_recorded_as_not_solved(place, monkeypatch, capsys):
    write(place, "raise ValueError('no')")
    assert run(monkeypatch, "algorithms/toy", "--seeds", "0") == 1
    data = json.loads((place / "results" / "algorithms" / "toy.json").read_text())
    assert data["seeds"][0]["solved"] is False and data["seeds"][0]["points"] == []
    assert "ValueError: no" in capsys.readouterr().out


def test_cpu_seconds_count_child_processes(place, monkeypatch):
    busy = (
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'for i in range(20_000_000): pass'])"
    )
    write(place, busy)
    assert run(monkeypatch, "algorithms/toy", "--seeds", "0") == 0
    data = json.loads((place / "results" / "algorithms" / "toy.json").read_text())
    assert data["seeds"][0]["cpu_seconds"] > 0.25


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
    runs = tmp_path / "runs"
    write(place, f"open({str(runs)!r}, 'a').write(str(SEED))\nif SEED == 1: __import__('time').sleep(3)")
    code = (
        "import sys; from pathlib import Path; from tools import record; place = Path(sys.argv.pop(1)); "
        "record.EXAMPLES, record.RESULTS, record.PARTS = "
        "place / 'examples', place / 'results', place / 'parts'; sys.exit(record.main())"
    )
    command = [sys.executable, "-c", code, str(place), "algorithms/toy", "--seeds", "0 1"]
    start = subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 30
    while not (runs.exists() and runs.read_text() == "01"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    start.send_signal(signal.SIGINT)
    _, error = start.communicate(timeout=30)
    assert start.returncode == 1
    assert error == "Interrupted; finished seeds are kept, and the same command goes on with the rest.\n"
    assert not (place / "results").exists()

    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert "algorithms/toy, seed 0: kept from an interrupted recording" in again.stdout
    assert runs.read_text() == "011"
    assert (place / "results" / "algorithms" / "toy.json").is_file()


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


def test_ci_runs_what_the_readme_says():
    assert "exec make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make serve" in readme and "make test" in readme


def test_a_missing_browser_is_named(tmp_path):
    (tmp_path / "id").symlink_to("/usr/bin/id")
    script = str(ROOT / "tools" / "browser.sh")
    result = subprocess.run(
        ["/bin/sh", script], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=30
    )
    assert result.returncode == 1
    assert result.stderr.startswith(
        "The browser tests need Chromium: install it (on Debian: sudo apt-get install"
    )
    assert result.stderr.count("\n") == 1
