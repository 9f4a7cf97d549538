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

from runner.judge import judge
from runner.pages import Program
from runner.process import run_as_on_page, run_program

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
            'greedy_return = 212.4\nprint("greedy return 212.4 over 20 episodes, target 450")',
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
    tree.page(
        "```python\nTARGET = -250\ngreedy_return = -180.04\n"
        "print('greedy return -180.0 over 20 episodes, target -250')\n```\n"
    )
    result = tree.run()
    assert result.returncode == 0, result.stdout


def test_files_left_behind(tree):
    tree.page(fences("open('policy.pt', 'w').close()", "open('../policy.pt', 'w').close()"))
    failure(
        tree.run(),
        "docs/page.md:1: the program left files behind: policy.pt.",
        "docs/page.md:5: the program left files behind: ../policy.pt.",
    )


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
    pids.touch()  # a new file would be one that the program leaves behind
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
    pids.touch()  # a new file would be one that the program leaves behind
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


# what really happened -------------------------------------------------------------------------------


def fences(*programs: str, instruction: str = "", language: str = "python") -> str:
    """A page of several programs, a blank line between them."""
    return "\n".join(f"{instruction}```{language}\n{text}\n```\n" for text in programs)


def test_a_pipeline_of_sh_whose_first_command_fails(tree):
    tree.page(fences("false | cat\necho too far", "true | cat", language="sh"))
    report = failure(tree.run(), "docs/page.md:1: the program failed with exit status 1", "1 passed")
    assert "too far" not in report


def test_an_error_that_is_not_named(tree):
    texts = ["e", "Error", "KeyError", "ValueError:", "an error of kind", "x" * 40]
    for number, text in enumerate(texts):
        instruction = f'<!-- program: fails with "{text}" -->\n'
        tree.page(f"# A page\n\n{fences('raise KeyError()', instruction=instruction)}", f"{number}.md")
    failure(
        tree.run(), *(f"docs/{n}.md:3: `{text}` fits many errors; name one" for n, text in enumerate(texts))
    )


@pytest.mark.parametrize(
    ("code", "expected", "error"),
    [
        ('print("KeyError: \'lr\'")\nraise ValueError("other")', "KeyError: 'lr'", "ValueError: other"),
        ('raise KeyError("lr")  # ValueError: too', "ValueError: too", "KeyError: 'lr'"),
        ('raise KeyError("lr")', "Error: 'lr'", "KeyError: 'lr'"),
        ('raise KeyError("lr")', "KeyError: 'l", "KeyError: 'lr'"),
        ('raise ValueError("too large")', "ValueError: too", "ValueError: too large"),
        (
            'try:\n    raise KeyError("lr")\nexcept KeyError:\n    raise ValueError("other")',
            "KeyError: 'lr'",
            "ValueError: other",
        ),
        (
            'import sys\nprint("it missed its target of 3", file=sys.stderr)\nsys.exit("something else")',
            "it missed its target of 3",
            "something else",
        ),
    ],
    ids=["printed", "in a comment", "half a name", "half a word", "half a message", "handled", "said before"],
)
def test_text_that_is_not_in_the_error(code, expected, error):
    outcome = run_program(code, limit=20)
    assert outcome.error.splitlines()[-1] == error
    page = Program(Path("page.md"), 1, "python", code, [], fails_with=expected)
    assert judge(page, outcome) == f'the program failed, but not with "{expected}"'


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('class NoEnv(Exception): ...\nraise NoEnv("there is none")', "NoEnv: there is none"),
        (
            'try:\n    raise KeyError("lr")\nexcept KeyError as error:\n    raise ValueError("x") from error',
            "KeyError: 'lr'",
        ),
        ('raise RuntimeError("Errors:\\n\\tsize mismatch for pi.net")', "size mismatch for pi.net"),
        ('import sys\nsys.exit("it missed its target of 3")', "it missed its target of 3"),
        (
            'error = ValueError("too large for this")\nraise error from error',
            "ValueError: too large for this",
        ),
        ("f = (", "SyntaxError: '(' was never closed"),
    ],
    ids=["own class", "cause", "several lines", "exit", "its own cause", "syntax"],
)
def test_text_that_is_in_the_error(code, expected):
    page = Program(Path("page.md"), 1, "python", code, [], fails_with=expected)
    assert judge(page, run_program(code, limit=20)) is None


GOOD = "greedy return 460.0 over 20 episodes, target 450"
LEARNED = "TARGET = 450\ngreedy_return = 460.0\n"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            f"{LEARNED}print({GOOD!r})\nprint('greedy return 12.0 over 20 episodes, target 450')",
            "the program printed 2 verdicts; it has to print one, as its last line",
        ),
        (
            f"{LEARNED}print({GOOD!r})\nprint('and then it fell')",
            "the program printed more after its verdict, which has to be its last line: " + GOOD,
        ),
        (
            f"TARGET = 475\ngreedy_return = 460.0\nprint({GOOD!r})",
            "the program's TARGET is 475, but its verdict says otherwise: " + GOOD,
        ),
        (
            f"TARGET = 450\ngreedy_return = 12.0\nprint({GOOD!r})",
            "the program's greedy_return is 12, but its verdict says otherwise: " + GOOD,
        ),
        (
            f"TARGET = 450\nprint({GOOD!r})",
            "the program printed a verdict, but has no greedy_return that is a number at its end",
        ),
        (
            f"print({GOOD!r})",
            "the program printed a verdict, but has no TARGET that is a number at its end",
        ),
        (
            f"{LEARNED}print({GOOD!r}, flush=True)\nimport os\nos._exit(0)",
            "the program printed a verdict, but has no TARGET that is a number at its end",
        ),
        (
            "TARGET = 450\ngreedy_return = 449.96\n"
            "print(f'greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}')",
            "the program ended well, but stopped short of its target: "
            "greedy return 450.0 over 20 episodes, target 450",
        ),
    ],
    ids=["two", "not last", "target", "value", "no value", "no target", "no end", "rounded up"],
)
def test_a_verdict_that_is_not_the_programs_own(code, message):
    page = Program(Path("page.md"), 1, "python", code, [])
    assert judge(page, run_program(code, limit=20)) == message


@pytest.mark.parametrize(
    "form",
    [
        "TARGET: float = 450",
        "TARGET, steps = 450, 1",
        "if True:\n    TARGET = 450",
        "print((TARGET := 450))",
        "for TARGET in (1, 450):\n    pass",
        "from math import pi as TARGET",
        "def aim():\n    global TARGET\n    TARGET = 450\naim()",
        "globals()['TARGET'] = 450",
    ],
)
def test_a_target_in_any_form_asks_for_a_verdict(form):
    page = Program(Path("page.md"), 1, "python", form, [])
    outcome = run_program(form, limit=20)
    assert judge(page, outcome).startswith("the program has a TARGET, but never printed its verdict")
    if "pi" not in form:
        code = f"{form}\ngreedy_return = 460.0\nprint({GOOD!r})"
        assert judge(Program(Path("page.md"), 1, "python", code, []), run_program(code, limit=20)) is None


def test_a_verdict_from_a_child_process_or_a_callback():
    """Values are those of the program's own process; a callback of its may hold them."""
    child = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'TARGET = 3; greedy_return = 4'])"
    assert run_program(child, limit=20).values == {}
    callback = "class C: pass\ncallback = C()\ncallback.greedy_return = 3.5\nTARGET = 3\nenv_steps = 7"
    assert run_program(callback, limit=20).values == {"TARGET": 3, "greedy_return": 3.5, "env_steps": 7}
    two = f"{callback}\nother = C()\nother.greedy_return = 9"
    assert "greedy_return" not in run_program(two, limit=20).values


@pytest.mark.parametrize("place", ["/tmp", "/var/tmp", "/dev/shm"])
def test_files_left_in_a_temporary_folder_of_the_machine(tree, place):
    """By a name in the text or a computed one, from Python or a shell; others' files are not blamed."""
    mark = f"rllib-by-example-{os.getpid()}"
    codes = [
        f"open('{place}/{mark}.literal', 'w').close()",
        f"import os\nos.mkdir('{place}/' + '{mark}.'[::-1][::-1] + 'computed')",
        f"import subprocess\nsubprocess.run(['touch', '{place}/{mark}.child'], check=True)",
        f"import subprocess, sys\nfile = '{place}/{mark}.' + 'grand' + 'child'\n"
        "subprocess.run([sys.executable, '-c', f'open({file!r}, chr(119))'], check=True)",
    ]
    removes = f"import os\nopen('{place}/{mark}', 'w').close()\nos.remove('{place}/{mark}')"
    waits = f"import os, time\nprint(os.listdir('{place}'))\ntime.sleep(3)"
    shell = f"cd {place}\ntouch {mark}.shell"
    tree.page("\n".join([fences(*codes, removes, waits), fences(shell, language="bash")]))
    kept = [Path(place) / f"{mark}-{number}" for number in range(100)]  # another program's
    run = subprocess.Popen(
        tree.command("docs"), cwd=tree.folder, env=tree.environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        while run.poll() is None and kept:
            kept.pop().touch()
            time.sleep(0.1)
        report, _ = run.communicate(timeout=60)
        for kind in ("literal", "computed", "child", "grandchild", "shell"):
            assert f"the program left files behind: {place}/{mark}.{kind}." in report, report
        assert "5 failed, 2 passed" in report, report
        assert not list(Path(place).glob(f"{mark}.*"))
        assert list(Path(place).glob(f"{mark}-*"))
    finally:
        run.kill()
        for file in Path(place).glob(f"{mark}*"):
            file.unlink()


def test_a_deprecated_call_on_the_page(tree):
    """RLlib says so by a logger that the programs silence; its own deprecated calls are not the page's."""
    call = """\
    import logging
    from ray.rllib.algorithms.ppo import PPOConfig
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    logging.getLogger("ray").setLevel(logging.ERROR)
    PPOConfig().resources(num_cpus_per_worker=1)
    """
    tree.write("examples/old.py", call)
    include = '--8<-- "examples/old.py"'
    announced = '<!-- program: deprecated "AlgorithmConfig.resources(num_cpus_per_worker)" -->\n'
    tree.page(fences(include) + fences(include, instruction=announced))
    report = failure(
        tree.run(),
        "docs/page.md:1: the program makes a deprecated call: "
        "`AlgorithmConfig.resources(num_cpus_per_worker)` has been deprecated. "
        "Use `AlgorithmConfig.env_runners(num_cpus_per_env_runner)` instead.",
        "examples/old.py:5: `AlgorithmConfig.resources",
        "It printed nothing.",
        "1 failed, 2 passed",
    )
    assert "\n    202" not in report  # a line of the log


def test_a_deprecated_call_by_a_library_or_with_a_warning_of_python():
    deprecated = """\
        from ray._common.deprecation import Deprecated, deprecation_warning
        library = '''
        @Deprecated(new="new_one", error=False)
        def decorated(): pass
        def warns(): deprecation_warning("warns", "new_two", error=False)
        def calls(): decorated(), warns()
        class Base:
            def old(self): deprecation_warning("old", "new_three", error=False)
        class Child(Base):
            def old(self): super().old()
        '''
        exec(compile(library, "library.py", "exec"))
        """
    deprecated = textwrap.dedent(deprecated)
    found = {
        call: run_program(deprecated + call, limit=60).deprecated
        for call in ("calls()", "decorated()", "warns()", "Child().old()")
    }
    assert found["calls()"] == []
    assert [(line, text.split("Use ")[1][:9]) for line, text in found["decorated()"]] == [(13, "`new_one`")]
    assert [(line, text.split("Use ")[1][:9]) for line, text in found["warns()"]] == [(13, "`new_two`")]
    assert [line for line, _ in found["Child().old()"]] == [13]
    code = "import warnings\n\nwarnings.warn('use the other', DeprecationWarning)"
    assert run_program(code, limit=20).deprecated == [(3, "use the other")]
    assert run_program(code.replace("Deprecation", "Runtime"), limit=20).deprecated == []


def test_an_announced_deprecation_that_does_not_come(tree):
    tree.page(
        fences("print(1)", instruction='<!-- program: deprecated "`old_thing` has been deprecated" -->\n')
    )
    failure(
        tree.run(), 'docs/page.md:2: nothing that the program calls is deprecated with "`old_thing` has been'
    )


BURN = "import time\nstart = time.process_time()\nwhile time.process_time() - start < {seconds}: pass\n"


def test_cpu_seconds_count_children_that_nobody_waits_for():
    """As Ray's workers: the raylet ignores SIGCHLD, and the kernel then adds their time to nobody's."""
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGCHLD, {action})\n"
        f"child = subprocess.Popen([sys.executable, '-c', {BURN.format(seconds=1.5)!r}])\n"
        "while child.poll() is None: time.sleep(0.02)"
    )
    ignored = run_program(code.format(action="signal.SIG_IGN"), limit=60).cpu_seconds
    waited = run_program(code.format(action="signal.SIG_DFL"), limit=60).cpu_seconds
    assert 0.75 < ignored < 2.5  # up to its last sample, which a busy machine may take late
    assert 1.5 < waited < 2.5  # and not twice


def test_cpu_seconds_count_a_worker_of_ray():
    code = f"""\
        import ray, time
        ray.init("local", include_dashboard=False, num_cpus=1, logging_level="error")
        @ray.remote
        def burn():
            exec({BURN.format(seconds=8)!r})
        ray.get(burn.remote())
        ray.shutdown()
        print(time.process_time())
        """
    outcome = run_program(textwrap.dedent(code), limit=240)
    # Without the worker, Ray's daemons would have to burn 8 s; they take about 4.
    assert outcome.cpu_seconds > float(outcome.stdout) + 8


def test_updates_count_the_busiest_optimizer_of_any_process():
    code = """\
        import os, signal
        import torch
        weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
        actor, critic = (torch.optim.Adam([weight]) for weight in weights)
        def step(optimizer, times):
            for _ in range(times):
                optimizer.step()
        step(actor, 3), step(critic, 5)
        pid = os.fork()
        if pid == 0:
            step(actor, 2), step(critic, 7)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        """
    assert run_program(textwrap.dedent(code), limit=60).updates == 7
    assert run_program("updates = 3", limit=60).updates is None


def test_what_the_runner_notes_is_not_seen_by_the_program():
    """The program prints what it prints without the runner, a failing import and a warning included."""
    code = """\
        import logging, sys, warnings
        import ray._common.deprecation as deprecation
        logging.basicConfig(format="%(name)s %(message)s")
        deprecation.deprecation_warning("shown", "other", error=False)
        logging.getLogger("ray").setLevel(logging.ERROR)
        deprecation.deprecation_warning("hidden", "other", error=False)
        import nothing_of_this_name
        """
    code = textwrap.dedent(code)
    plain = subprocess.run(
        [sys.executable, "-c", f"exec(compile({code!r}, 'program.py', 'exec'))"],
        capture_output=True,
        text=True,
    )
    plain_lines = [line for line in plain.stderr.splitlines() if "<string>" not in line]
    lines = [
        line for _, line in run_program(code, limit=60).lines if line != "    import nothing_of_this_name"
    ]
    clock = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+")
    assert [clock.sub("", line) for line in lines] == [clock.sub("", line) for line in plain_lines]
    assert any("shown" in line for line in lines) and not any("hidden" in line for line in lines)


def test_what_only_begins_like_a_name_in_the_text_is_reported_and_not_removed(tree, tmp_path):
    """Another process may have made it: here a shell, whose text holds the beginning alone."""
    start = tmp_path / "begins_"
    tree.page(fences(f"for end in one; do touch {start}$end; done", language="bash"))
    failure(tree.run("docs"), f"the program left files behind: {start}one.")
    assert Path(f"{start}one").exists()


# What a program finds: files beside it, extras ---------------------------------------------------------


def test_a_file_beside_a_program_is_there_and_is_not_left_over(tree):
    tree.write("examples/train.py", "print('trained')\n")
    fence = '```python\n--8<-- "examples/train.py"\n```\n\n'
    shell = "```sh\npython train.py\n```\n"
    tree.page(f'{fence}<!-- program: beside "examples/train.py" -->\n{shell}')
    result = tree.run()
    assert result.returncode == 0, result.stdout
    tree.page(fence + shell)
    failure(tree.run(), "can't open file", "docs/page.md:5: the program failed with exit status 2")


def test_with_another_file_beside_it_a_program_is_another(tree):
    """Equal programs run once, so the file beside one belongs to what makes it equal."""
    page = ""
    for folder, code in ("a", "print('trained')"), ("b", "raise ValueError('it fell')"):
        example = f"examples/{folder}/train.py"
        tree.write(example, code)
        page += f'<!-- program: beside "{example}" -->\n```sh\npython train.py\n```\n\n'
    tree.page(page)
    failure(tree.run("docs"), "docs/page.md:7: the program failed with exit status 1", "1 failed, 1 passed")


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        ('beside "examples/none.py"', "docs/page.md:1: there is no examples/none.py to stand beside"),
        ('beside "mkdocs.yml"', "docs/page.md:1: unknown instruction"),
        ('needs "ray[default]"', "docs/page.md:1: requirements-cluster.in does not ask for ray[default]"),
    ],
)
def test_an_instruction_about_something_that_is_not_there(tree, instruction, message):
    tree.page(f"<!-- program: {instruction} -->\n```sh\ntrue\n```\n")
    failure(tree.run(), message)


def test_two_files_of_one_name_cannot_stand_beside_a_program(tree):
    instructions = ""
    for example in "examples/a/train.py", "examples/b/train.py":
        tree.write(example, "")
        instructions += f'<!-- program: beside "{example}" -->\n'
    tree.page(f"{instructions}```sh\ntrue\n```\n")
    failure(tree.run(), "docs/page.md:2: two files named train.py cannot stand in one folder.")


def test_a_program_that_needs_extras_finds_them(tree):
    """`ray[default]` brings aiohttp, which the ordinary environment has not; and its `ray` finds it too."""
    tree.write("requirements-cluster.in", "ray[default]==2.60.0\n")
    shell = "```sh\npython -c 'import aiohttp, torch'\nhead -1 $(command -v ray) | grep -q cluster\n```\n"
    tree.page(f'<!-- program: needs "ray[default]" -->\n{shell}')
    result = tree.run()
    assert result.returncode == 0, result.stdout
    tree.page(shell)
    failure(tree.run(), "No module named 'aiohttp'")


def test_without_the_environment_of_the_extras_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    program = Program(Path("page.md"), 1, "python", "x = 1\n", [], needs="ray[default]")
    with pytest.raises(RuntimeError, match=r"needs ray\[default\], .*make .venv-cluster/.installed makes it"):
        run_as_on_page(program, limit=10)
