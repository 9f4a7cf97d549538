"""Every page keeps its form, and its words stay true."""

import json
import re
import subprocess
from pathlib import Path

import markdown
import pytest
import yaml

from extensions import catalogue
from extensions.records import RESULTS
from extensions.results import pinned
from runner.pages import read_programs
from tests.conftest import ROOT

PAGES = sorted((ROOT / "docs").rglob("*.md"))
ALGORITHM_PAGES = [page for page in PAGES if page.parent.name == "algorithms" and page.name != "index.md"]
CONCEPT_PAGES = [page for page in PAGES if page.is_relative_to(ROOT / "docs" / "concepts")]
SCALING_PAGES = [page for page in PAGES if page.parent.name == "scaling"]
APPROACH_PAGES = [page for page in PAGES if page.parent.name == "approaches" and page.name != "index.md"]
SKELETON = [
    "In one paragraph",
    "Facts",
    "How data flows",
    "The idea in equations",
    "Run it",
    "What it learned",
    "Settings that matter",
    "Scale it",
    "From older RLlib",
    "How it differs from the paper",
    "Read next",
]
FACTS = [
    "Learns",
    "Action spaces",
    "Agents",
    "Stateful models",
    "Offline data",
    "Distribution",
    "Frameworks",
    "Status",
    "Paper",
]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def sections(page: Path) -> dict[str, str]:
    """The text under each heading of the second level."""
    parts = re.split(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("page", ALGORITHM_PAGES, ids=name)
def test_an_algorithm_page_has_the_skeleton_in_order(page):
    assert list(sections(page)) == SKELETON


@pytest.mark.parametrize("page", ALGORITHM_PAGES, ids=name)
def test_each_part_of_an_algorithm_page_has_what_it_is_for(page):
    parts = sections(page)
    facts = re.findall(r"^\| ([^|]+?) \|", parts["Facts"], flags=re.MULTILINE)
    assert [fact for fact in facts if fact in FACTS] == FACTS
    assert "```mermaid" in parts["How data flows"]
    assert "$$" in parts["The idea in equations"]
    pseudocode = re.search(r"```text\n(.*?)```", parts["The idea in equations"], flags=re.DOTALL)
    assert 1 <= pseudocode[1].count("\n") <= 15
    stem = page.stem
    assert f'--8<-- "examples/algorithms/{stem}.py"' in parts["Run it"]
    assert "```output" in parts["Run it"]
    assert "```curve" in parts["What it learned"]
    assert "```comparison" in parts["What it learned"]
    assert "make record EXAMPLES=" in parts["What it learned"]
    assert "```settings" in parts["Settings that matter"]
    assert "ray.rllib.agents" in parts["From older RLlib"]
    assert "ray/rllib/" in parts["Read next"]


@pytest.mark.parametrize("page", ALGORITHM_PAGES, ids=name)
def test_the_facts_of_a_page_agree_with_what_rllib_supports(page):
    """Facts are words; results/rllib_support.json holds what trials with the installed RLlib gave."""
    has = catalogue.tags(page.stem)
    support = {key.lower(): value for key, value in json.loads(catalogue.SUPPORT.read_text()).items()}
    if page.stem not in support:
        return
    tried = support[page.stem]
    for feature in ("discrete", "continuous", "multi-agent", "memory"):
        if feature in tried:
            assert (feature in has) == (tried[feature] is None), (feature, tried[feature])
    tensorflow = RESULTS / "algorithms" / f"{page.stem}_tensorflow.json"
    assert ("tensorflow" in has) == tensorflow.is_file()


@pytest.mark.parametrize("page", ALGORITHM_PAGES, ids=name)
def test_a_rebuilt_algorithm_names_the_last_release_that_had_it(page):
    status = catalogue.facts(page.stem)["Status"]
    history = json.loads((RESULTS / "rllib_history.json").read_text(encoding="utf-8"))
    last = {key.lower(): value["last_working"] for key, value in history.items()}
    last |= dict.fromkeys(("vdn", "iqn"), last["qmix"])  # RLlib's QMIX with another `mixer`
    if status.startswith("rebuilt here"):
        assert re.search(rf"until {re.escape(last[page.stem.replace('_', '')])}\b", status)


def test_every_algorithm_is_in_the_tables_of_the_index():
    text = (ROOT / "docs" / "algorithms" / "index.md").read_text(encoding="utf-8")
    for kind in ("selector", "comparison"):
        [fence] = re.findall(rf"```{kind}\n(.*?)```", text, flags=re.DOTALL)
        for page in ALGORITHM_PAGES:
            assert re.search(rf"^(algorithms/)?{page.stem}: ", fence, flags=re.MULTILINE), (kind, page.stem)
    [fence] = re.findall(r"```support\n(.*?)```", text, flags=re.DOTALL)
    shown = re.findall(r": (\w+)$", fence, flags=re.MULTILINE)
    assert shown == list(json.loads(catalogue.SUPPORT.read_text()))


@pytest.mark.parametrize("page", CONCEPT_PAGES, ids=name)
def test_a_concept_page_has_its_form(page):
    """A question and its answer, a diagram, a program and its output, what goes wrong, where to go next."""
    text = page.read_text(encoding="utf-8")
    first = re.search(r"^# .+\n\n(.+)", text, flags=re.MULTILINE)[1]
    assert re.match(r"\*\*.+\?\*\*", first), (
        "a concept page begins with the question that it answers, in bold"
    )
    assert "```mermaid" in text or "```recorded-diagram" in text
    assert "```output" in text or "```recorded-diagram" in text
    parts = sections(page)
    assert list(parts)[-2:] == ["What goes wrong", "Read next"]
    assert "<!-- program: fails with" in parts["What goes wrong"], "show a real error"
    assert "](" in parts["Read next"]


@pytest.mark.parametrize("page", SCALING_PAGES, ids=name)
def test_a_scaling_page_has_its_form(page):
    """A question and its answer, a diagram, a program and its record, what it costs, what goes wrong."""
    text = page.read_text(encoding="utf-8")
    first = re.search(r"^# .+\n\n(.+)", text, flags=re.MULTILINE)[1]
    assert re.match(r"\*\*.+\?\*\*", first), "a scaling page begins with its question, in bold"
    assert "```mermaid" in text
    assert re.search(r'^ *--8<-- "examples/scaling/\w+\.py"$', text, flags=re.MULTILINE)
    assert "```output" in text
    parts = sections(page)
    assert "What it costs" in parts
    assert list(parts)[-2:] == ["What goes wrong", "Read next"]
    measured = ("```output", "```comparison", "`#!result ")
    assert any(sign in parts["What it costs"] for sign in measured), "a cost is measured"
    shown = ("<!-- program: fails with", "```output")
    assert any(sign in parts["What goes wrong"] for sign in shown), "show a real error, or a real wait"
    assert "](" in parts["Read next"]


@pytest.mark.parametrize("page", APPROACH_PAGES, ids=name)
def test_an_approach_page_has_its_form(page):
    parts = sections(page)
    assert list(parts) == [
        "When",
        "How it works",
        "A program that learns",
        "Evaluate it",
        "Use it",
        "Pitfalls",
        "Read next",
    ]
    assert "```mermaid" in parts["How it works"]
    assert "```output" in parts["A program that learns"] and "```curve" in parts["A program that learns"]
    assert "<!-- program: fails with" in parts["Pitfalls"], "show a real error"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_says_what_it_is_about(page):
    [head] = re.match(r"---\n(description: .{30,160}\n)---\n", page.read_text(encoding="utf-8")).groups()
    assert set(yaml.safe_load(head)) == {"description"}  # a colon in it, say, would show it all on the page


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_source_files_that_a_page_cites_are_in_the_installed_rllib(page):
    import ray

    packages = Path(ray.__file__).parent.parent
    for cited in re.findall(r"`(ray/[\w/]+\.py)`", page.read_text(encoding="utf-8")):
        assert (packages / cited).is_file(), f"{name(page)} cites {cited}, which is not installed"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=name)
def test_install_commands_name_the_pinned_rllib(page):
    for version in re.findall(r"ray\[rllib\]==([\d.]+)", page.read_text(encoding="utf-8")):
        assert version == pinned()["ray"]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_numbers_about_runs_are_not_typed(page):
    """A number of seconds in running text comes from a record."""
    text = re.sub(
        r"^(`{3,}|~{3,}).*?^\1", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    text = re.sub(r"`[^`]*`", "", text)
    assert not re.findall(r"\b\d[\d.,]* ?(?:s|seconds|minutes)\b", text)


def test_an_example_is_one_whole_program_of_readable_length():
    for example in sorted((ROOT / "examples").rglob("*.py")):
        text = example.read_text(encoding="utf-8")
        assert text.count("\n") <= 260, f"{name(example)} is longer than a reader wants to read"
        assert "argparse" not in text, f"{name(example)} parses arguments"
        assert text.startswith('"""'), f"{name(example)} does not say what it does"
        if ".evaluate()" in text:  # else it explores: see docs/concepts/api.md
            assert re.search(r"evaluation_(interval|num_env_runners)=[1-9]|interval in", text), name(example)
        for ours in ("extensions", "runner", "tests", "tools", "snippets"):
            assert not re.search(rf"^(from|import) {ours}\b", text, flags=re.MULTILINE)


def test_a_long_page_of_programs_is_read_in_order():
    programs = read_programs(ROOT / "docs" / "algorithms" / "ppo.md", ROOT)
    assert [program.file_name for program in programs][:2] == ["ppo.py", "ppo_tensorflow.py"]
    assert [program.line for program in programs] == sorted(program.line for program in programs)


def test_nothing_committed_names_what_it_may_not():
    """No path of one machine, no host of a package registry."""
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"))]
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    for file in [ROOT / name for name in listed if name and not name.startswith("tests/")]:
        if file.suffix == ".woff2" or not file.is_file():
            continue
        text = file.read_text(encoding="utf-8")
        assert not [host for host in hosts if host in text], name(file)
        assert not re.search(r"(?<![\w./-])/(work|root|home)/\w", text), name(file)


def test_of_boxes_that_no_algorithm_has_together_both_ticked_mean_either():
    rules = catalogue.selector("ppo: a\ndqn: b\napex_dqn: c", "selector", "selector", {}, markdown.Markdown())
    hides = re.findall(r"\.selector:has\(input\[name=([\w-]+)\]:checked\)([^ ]*) tbody", rules)
    others = {tag: re.findall(r"name=([\w-]+)", rest) for tag, rest in hides}
    assert others["on-policy"] == ["off-policy"] and others["off-policy"] == ["on-policy"]
    assert others["synchronous"] == ["asynchronous"] and others["rebuilt"] == ["ships"]
    assert others["discrete"] == others["continuous"] == []  # PPO has both, so both ticked mean both
