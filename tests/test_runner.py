"""The runner catches what it has to: each test plants a fault in a small page tree and runs pytest on it."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent

MKDOCS = """\
site_name: planted
markdown_extensions:
  - pymdownx.snippets: {base_path: ["."], check_paths: true, dedent_subsections: true}
"""


class Tree:
    """A page tree of its own, with the project's runner."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "docs").mkdir()
        (folder / "examples").mkdir()
        self.write("mkdocs.yml", MKDOCS)
        self.write(
            "pytest.ini",
            "[pytest]\naddopts = -p runner.plugin --codeblocks --no-header -p no:cacheprovider\n",
        )

    def write(self, name: str, text: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text), encoding="utf-8")

    def page(self, text: str, name: str = "page.md") -> None:
        self.write(f"docs/{name}", text)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "pytest", *(arguments or ("docs", "examples"))]

    def environment(self) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        return env | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "TMPDIR": "/tmp"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def failure(result: subprocess.CompletedProcess, *expected: str) -> str:
    """The report of a run that failed; each expected line has to stand in it."""
    assert result.returncode != 0, result.stdout
    for text in expected:
        assert text in result.stdout, f"{text!r} is not in:\n{result.stdout}"
    return result.stdout


def test_a_good_page_passes(tree):
    tree.page("```python\nprint('well')\n```\n")
    result = tree.run()
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout


def test_an_exception_names_page_line_example_and_line(tree):
    tree.write(
        "examples/broken.py", "first = 1\nprint('started', first)\n\nraise ValueError('the cart fell')\n"
    )
    tree.page('# A page\n\n```python title="broken.py"\n--8<-- "examples/broken.py"\n```\n')
    report = failure(
        tree.run(),
        "docs/page.md:3: the program failed with exit status 1 after",
        "examples/broken.py:4: ValueError: the cart fell",
        "The last lines that it printed:\n    started 1",
    )
    # Nothing of the runner, of pytest or of this machine belongs in the report.
    details = report.split("FAILURES")[1].split("short test summary")[0]
    assert "site-packages" not in details
    assert "supervisor" not in details
    assert "rbe-" not in details


def test_a_wrong_api_name(tree):
    tree.write(
        "examples/wrong.py",
        """\
        from ray.rllib.algorithms.ppo import PPOConfig

        config = PPOConfig().trainig(lr=0.1)
        """,
    )
    tree.page('```python\n--8<-- "examples/wrong.py"\n```\n')
    failure(
        tree.run(),
        "docs/page.md:1: the program failed with exit status 1",
        "examples/wrong.py:3: AttributeError: 'PPOConfig' object has no attribute 'trainig'",
    )


def test_a_program_that_never_ends(tree):
    tree.page(
        """\
        <!-- program: limit 4 -->
        ```python
        import time
        print("waiting")
        time.sleep(600)
        ```
        """
    )
    failure(
        tree.run(),
        "docs/page.md:2: the program did not end within its limit of 4 s.",
        "The last lines that it printed:\n    waiting",
    )


def test_a_ray_cluster_left_behind(tree):
    tree.page(
        """\
        ```python
        import os, subprocess
        print("folder", os.environ["RAY_TMPDIR"])
        options = ["--port=0", "--num-cpus=1", "--include-dashboard=false"]
        subprocess.run(["ray", "start", "--head", *options], check=True, stdout=subprocess.DEVNULL)
        ```
        """
    )
    report = failure(
        tree.run(), "docs/page.md:1: the program left processes running: ", "gcs_server", "raylet"
    )
    folder = re.search(r"folder (\S+)", report)[1]
    left = [process.name() for process in psutil.process_iter() if folder in " ".join(command_of(process))]
    assert left == []
    assert not Path(folder).exists()


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize(
    ("include", "message"),
    [
        ("examples/none.py", "docs/page.md:4: Snippet at path 'examples/none.py' could not be found."),
        ("examples/one.py:end", "docs/page.md:4: Snippet section 'end' could not be located."),
    ],
)
def test_an_include_of_a_missing_file_or_section(tree, include, message):
    tree.write("examples/one.py", "print(1)\n")
    tree.page(f'# A page\n\n```python\n--8<-- "{include}"\n```\n')
    failure(tree.run(), message)


@pytest.mark.parametrize(
    "info",
    [
        'python title="x.py"',
        'python linenums="1"',
        'python hl_lines="1 2"',
        "{.python .annotate}",
        "{ .python title='x' }",
        " python",
        "py",
        "Python",
    ],
)
def test_a_fence_with_a_title_line_numbers_or_attributes(tree, info):
    tree.page(f"```{info}\nraise ValueError('ran')\n```\n")
    failure(tree.run(), "docs/page.md:2: ValueError: ran")


def test_a_tilde_fence(tree):
    tree.page("~~~python\nraise ValueError('ran')\n~~~\n")
    failure(tree.run(), "docs/page.md:2: ValueError: ran")


def test_code_behind_a_main_guard(tree):
    tree.page('```python\nif __name__ == "__main__":\n    raise ValueError("ran")\n```\n')
    failure(tree.run(), "docs/page.md:3: ValueError: ran")


@pytest.mark.parametrize(
    "opening",
    ['=== "PyTorch"\n\n', "!!! note\n\n", "1. A step:\n\n", '??? example "More"\n\n'],
    ids=["tab", "admonition", "list", "details"],
)
def test_a_fence_inside_another_block(tree, opening):
    tree.page(f"{opening}    ```python\n    for _ in range(1):\n        raise ValueError('ran')\n    ```\n")
    failure(tree.run(), "docs/page.md:5: ValueError: ran")


def test_an_example_embedded_inside_a_tab(tree):
    tree.write("examples/broken.py", "if True:\n    raise ValueError('ran')\n")
    tree.page('=== "PyTorch"\n\n    ```python title="broken.py"\n    --8<-- "examples/broken.py"\n    ```\n')
    failure(tree.run(), "docs/page.md:3: the program failed", "examples/broken.py:2: ValueError: ran")


def test_a_section_of_an_example_keeps_its_line_numbers(tree):
    tree.write(
        "examples/parts.py",
        """\
        one = 1
        if one:
            # --8<-- [start:middle]
            two = 2
            raise ValueError("ran")
            # --8<-- [end:middle]
        """,
    )
    tree.page('```python\n--8<-- "examples/parts.py:middle"\n```\n')
    failure(tree.run(), "examples/parts.py:5: ValueError: ran")


def test_a_program_in_two_parts_keeps_its_line_numbers(tree):
    tree.page(
        """\
        ```python
        value = 1
        ```
        and then
        <!--pytest-codeblocks:cont-->
        ```python
        assert value == 2
        ```
        """
    )
    failure(tree.run(), "docs/page.md:1: the program failed", "docs/page.md:7: AssertionError")


def test_an_output_that_is_not_what_the_page_says(tree):
    tree.page(
        """\
        ```python
        print("one")
        ```
        <!--pytest-codeblocks:expected-output-->
        ```text
        two
        ```
        """
    )
    failure(
        tree.run(),
        "docs/page.md:1: the program did not print what the page says it prints.",
        "The last lines that it printed:\n    one",
    )


@pytest.mark.parametrize(("printed", "passes"), [("one", True), ("two", False)])
def test_an_output_that_has_to_be_the_recorded_one(tree, printed, passes):
    tree.write("examples/diagram.py", f"print({printed!r})\n")
    tree.write("results/diagram.json", '{"output": "one\\n"}')
    tree.page('<!-- program: prints its record -->\n```python\n--8<-- "examples/diagram.py"\n```\n')
    result = tree.run()
    assert (result.returncode == 0) is passes, result.stdout
    if not passes:
        failure(result, "docs/page.md:2: the program did not print what its record says it prints.")


def test_a_program_without_a_record_cannot_print_it(tree):
    tree.write("examples/diagram.py", "print(1)\n")
    tree.page('<!-- program: prints its record -->\n```python\n--8<-- "examples/diagram.py"\n```\n')
    failure(tree.run(), "docs/page.md:2: diagram.py has no record.")


def test_an_output_that_is_what_the_page_says(tree):
    tree.page("```python\nprint(1)\n```\n<!--pytest-codeblocks:expected-output-->\n```text\n1\n```\n")
    assert tree.run().returncode == 0


def test_a_page_with_no_program(tree):
    tree.page("# Words\n\n```text\nno program\n```\n")
    failure(tree.run(), "docs/page.md: no program on this page is run.")


def test_an_example_on_no_page(tree):
    tree.write("examples/algorithms/lonely.py", "print(1)\n")
    tree.page("```python\nprint(1)\n```\n")
    failure(tree.run(), "examples/algorithms/lonely.py: no page embeds this example.")


@pytest.mark.parametrize(
    "comment",
    [
        # Text of a planted page: the runner has to refuse each, so none of these skips anything here.
        "<!--pytest.mark.skip-->",  # refused: leaves the program out
        "<!--pytest.mark.skip()-->",  # refused: the same, called
        "<!--pytest.mark.skipif(True, reason='')-->",  # refused: leaves it out on a condition
        "<!--pytest.mark.skip(reason='it needs a GPU')-->",  # refused: a reason is no run
        "<!--pytest.mark.xfail(reason='it is flaky')-->",  # refused: runs it, and forgives a failure
        "<!-- pytest-codeblocks:skip -->",  # refused: spaces do not hide it
        "<!--pytest-codeblocks:skip-->",  # refused: pytest-codeblocks' own word for leaving out
        "<!--pytest-codeblocks:skipfile-->",  # refused: leaves out every program of the page
        "<!--pytest-codeblocks:skipif(True)-->",  # refused: pytest-codeblocks' own condition
        "<!--pytest-codeblocks:importorskip(nothing)-->",  # refused: leaves out what cannot be imported
    ],
)
def test_no_comment_leaves_a_program_out(tree, comment):
    tree.page(f"{comment}\n```python\nprint(1)\n```\n")
    failure(tree.run(), "docs/page.md:1: every program on a page is run; this would leave one out.")


def test_no_instruction_leaves_a_program_out(tree):
    tree.page("<!-- program: not run, because it needs a GPU -->\n```python\nprint(1)\n```\n")
    failure(tree.run(), "docs/page.md:1: unknown instruction `program: not run, because it needs a GPU`.")


def test_an_expected_error_that_does_not_come(tree):
    tree.page('<!-- program: fails with "ValueError: too large" -->\n```python\nprint("fine")\n```\n')
    failure(
        tree.run(), 'docs/page.md:2: the program ended well, but has to fail with "ValueError: too large".'
    )


def test_another_error_than_the_expected_one(tree):
    tree.page('<!-- program: fails with "ValueError: too large" -->\n```python\nraise KeyError("lr")\n```\n')
    failure(
        tree.run(),
        'docs/page.md:2: the program failed, but not with "ValueError: too large".',
        "docs/page.md:3: KeyError: 'lr'",
    )


def test_the_expected_error_passes(tree):
    tree.page('<!-- program: fails with "KeyError: \'lr\'" -->\n```python\nraise KeyError("lr")\n```\n')
    result = tree.run()
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        ("limit soon", "docs/page.md:1: unknown instruction `program: limit soon`."),
        ("fails", "docs/page.md:1: name the error that is expected"),
    ],
)
def test_an_instruction_that_cannot_be_understood(tree, instruction, message):
    tree.page(f"<!-- program: {instruction} -->\n```python\nprint(1)\n```\n")
    failure(tree.run(), message)


def test_an_instruction_away_from_its_fence(tree):
    tree.page("<!-- program: limit 5 -->\nSome words.\n\n```python\nprint(1)\n```\n")
    failure(tree.run(), "docs/page.md:2: an instruction for a program has to stand right above its fence.")


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        (
            'print("greedy return 212.4 over 20 episodes, target 450")',
            "the program ended well, but stopped short of its target: "
            "greedy return 212.4 over 20 episodes, target 450.",
        ),
        (
            'raise SystemExit("PPO missed its target of 450.")',
            "the program failed with exit status 1",
        ),
        ("", "the program has a TARGET, but never printed its verdict"),
    ],
    ids=["ends well", "exits", "says nothing"],
)
def test_an_example_that_stops_short_of_its_target(tree, ending, message):
    tree.write("examples/short.py", f"TARGET = 450\n{ending}\n")
    tree.page('```python\n--8<-- "examples/short.py"\n```\n')
    failure(tree.run(), f"docs/page.md:1: {message}", "examples/short.py:")


def test_a_verdict_that_reaches_its_target_passes(tree):
    tree.page("```python\nTARGET = -250\nprint('greedy return -180.0 over 20 episodes, target -250')\n```\n")
    result = tree.run()
    assert result.returncode == 0, result.stdout


def test_files_left_behind(tree):
    tree.page("```python\nopen('policy.pt', 'w').close()\n```\n")
    failure(tree.run(), "docs/page.md:1: the program left files behind: policy.pt.")


def test_a_program_cannot_import_this_repository(tree):
    tree.page("```python\nimport extensions\n```\n")
    failure(tree.run(), "docs/page.md:2: ModuleNotFoundError: No module named 'extensions'")


def test_shell_programs_stop_at_their_first_error(tree):
    tree.page("```bash\nfalse | true\necho too far\n```\n")
    report = failure(tree.run(), "docs/page.md:1: the program failed with exit status 1")
    assert "too far" not in report


def test_the_same_program_on_two_pages_runs_once(tree, tmp_path):
    counter = tmp_path / "counter"
    tree.write("examples/once.py", f"with open({str(counter)!r}, 'a') as file:\n    file.write('x')\n")
    for name in ("one.md", "two.md"):
        tree.page('```python\n--8<-- "examples/once.py"\n```\n', name)
    for workers in ([], ["-n", "2"]):
        counter.write_text("")
        result = tree.run(*workers, "docs")
        assert "2 passed" in result.stdout, result.stdout
        assert counter.read_text() == "x"


def wait_for(condition, seconds: float = 20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError("it never came")


SLOW_PAGE = """\
```python
import subprocess, sys, time
from pathlib import Path
child = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
)
Path({pids!r}).write_text(f"{{__import__('os').getpid()}} {{child.pid}}")
time.sleep(600)
```
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "two workers"])
def test_nothing_is_left_after_an_interruption(tree, tmp_path, number, workers):
    pids = tmp_path / "pids"
    tree.page(SLOW_PAGE.format(pids=str(pids)))
    run = subprocess.Popen(
        tree.command(*workers, "docs"),
        cwd=tree.folder,
        env=tree.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    started = [int(pid) for pid in wait_for(lambda: pids.exists() and pids.read_text()).split()]
    assert all(psutil.pid_exists(pid) for pid in started)
    run.send_signal(number)
    run.wait(timeout=30)
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in started))


def test_a_daemon_is_gone_after_a_time_out(tree, tmp_path):
    pids = tmp_path / "pids"
    tree.page("<!-- program: limit 3 -->\n" + SLOW_PAGE.format(pids=str(pids)))
    failure(tree.run(), "the program did not end within its limit of 3 s")
    assert not any(psutil.pid_exists(int(pid)) for pid in pids.read_text().split())


def test_a_long_run_says_what_is_running(tree):
    tree.page("```python\nimport time\ntime.sleep(2.5)\n```\n")
    result = subprocess.run(
        tree.command("docs"),
        cwd=tree.folder,
        env=tree.environment() | {"RUNNER_PROGRESS_EVERY": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert re.search(r"^running: docs/page\.md::line 1 \(\d s\)$", result.stdout, re.MULTILINE), result.stdout


def test_two_runs_side_by_side_do_not_disturb_each_other(tree, tmp_path):
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    other = Tree(other_folder)
    for place in (tree, other):
        place.page(
            """\
            ```python
            import ray
            ray.init("local", include_dashboard=False, num_cpus=1, logging_level="error")
            print(ray.get(ray.remote(lambda: 1).remote()))
            ray.shutdown()
            ```
            """
        )
    runs = [
        subprocess.Popen(
            place.command("docs"),
            cwd=place.folder,
            env=place.environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        for place in (tree, other)
    ]
    for run in runs:
        output, _ = run.communicate(timeout=120)
        assert run.returncode == 0, output


def test_a_program_without_tensorflow_starts_as_if_there_were_none(tree):
    tree.page(
        """\
        ```python
        try:
            __import__("".join(["tensor", "flow"]))
        except ImportError:
            print("none")
        ```
        <!--pytest-codeblocks:expected-output-->
        ```text
        none
        ```
        """
    )
    result = tree.run()
    assert result.returncode == 0, result.stdout
