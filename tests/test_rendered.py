"""No code block of a rendered page escapes the tests, and no Markdown is left as text.

Each planted page is rendered with the settings of the site. Its first line is a title; the text is line 3.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from extensions import PageError, results
from runner.pages import read_programs, site_config
from runner.rendered import check_page, check_site
from tests.conftest import ROOT

BAD = "raise SystemExit(1)"
NO_FENCE = "no fence that the tests read shows this code block"
NOT_SHOWN = "the page does not show this fence as a code block"
LIKE_CODE = "a reader takes this for code, and no test reads it"
NOT_RUN = "this program is not run"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "page.md"


def render(page: Path, text: str) -> str:
    """The HTML of a page that holds `text`."""
    page.write_text(f"# A page\n\n{text}\n", encoding="utf-8")
    file = File(page.name, str(page.parent), str(page.parent / "site"), use_directory_urls=True)
    rendered = Page(None, file, site_config(ROOT))
    rendered.read_source(site_config(ROOT))
    rendered.render(site_config(ROOT), Files([file]))
    return rendered.content


def problems(page: Path, text: str) -> list[str]:
    found = check_page(render(page, text), page, ROOT)
    return [problem.replace(f"{page.parent}/", "") for problem in found]


def same(found: list[str], expected: list[str]) -> None:
    """Each problem begins as it has to, and there is no other."""
    assert len(found) == len(expected), found
    for problem, start in zip(found, expected, strict=True):
        assert problem.startswith(start), found


def test_the_site_shows_no_code_that_the_tests_do_not_read(site):
    assert check_site(site, ROOT) == []


# Code blocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # fences that no test reads
        (f"> ```python\n> {BAD}\n> ```", [f"page.md:4: {NO_FENCE}"]),
        (f"> > ```text\n> > {BAD}\n> > ```", [f"page.md:4: {NO_FENCE}"]),
        (f"```\n{BAD}\n```", ["page.md:3: this code block names no language"]),
        (f'``` {{ title="x" }}\n{BAD}\n```', ["page.md:3: this code block names no language"]),
        (f'```{{ title="x" linenums="1" }}\n{BAD}\n```', ["page.md:3: this code block names no language"]),
        ("```pycon\n>>> 1 + 1\n3\n```", ["page.md:3: `pycon` is neither run (python, sh, bash)"]),
        (f"```ipython\n{BAD}\n```", ["page.md:3: `ipython` is neither run"]),
        (f"```ipython3\n{BAD}\n```", ["page.md:3: `ipython3` is neither run"]),
        (f"```python2\n{BAD}\n```", ["page.md:3: `python2` is neither run"]),
        (f"```numpy\n{BAD}\n```", ["page.md:3: `numpy` is neither run"]),
        (f"```pythn\n{BAD}\n```", ["page.md:3: `pythn` is neither run"]),
        ('```{.zsh title=""}\nfalse\n```', ["page.md:3: `zsh` is neither run"]),
        ("```shell-session\n$ false\n```", ["page.md:3: `shell-session` is neither run"]),
        (f"```text\nimport sys\n\n{BAD}\n```", ["page.md:3: this is a program; write it as `python`"]),
        ("```yaml\nprint(1 / 0)\n```", ["page.md:3: this is a program; write it as `python`"]),
        ("```text\n>>> 1 + 1\n3\n```", ["page.md:3: this is a program"]),
        ("```text\n$ python missing.py\n```", ["page.md:3: this is a program"]),
        ("```text\n  import sys\n  sys.exit(1\n```", ["page.md:3: this is a program"]),
        (
            "```sbatch\necho yes\n```",
            ["page.md:3: this is `sbatch`, and no program of the page runs beside it"],
        ),
        # programs that an instruction takes away
        (
            f"```python\nprint(1)\n```\n\n<!--pytest-codeblocks:expected-output-->\n```python\n{BAD}\n```",
            [f"page.md:8: {NOT_RUN}"],
        ),
        (
            f"```text\none\n```\n\n<!--pytest-codeblocks:cont-->\n```python\n{BAD}\n```",
            [f"page.md:8: {NOT_RUN}"],
        ),
        (
            f"```sh\ntrue\n```\n\n<!--pytest-codeblocks:cont-->\n```python\n{BAD}\n```",
            [f"page.md:8: {NOT_RUN}"],
        ),
        # what runs is not what stands there
        (
            "```python\nif True:\n\tprint('a\tb')\n```",
            [f"page.md:3: {NOT_SHOWN}", f"page.md:4: {NO_FENCE}"],
        ),
        (f"<!--\n```python\n{BAD}\n```\n-->", [f"page.md:4: {NOT_SHOWN}"]),
        (
            f"Words.\n\n    ```python\n    {BAD}\n    ```",
            [f"page.md:5: {NO_FENCE}", f"page.md:5: {NOT_SHOWN}"],
        ),
        # indented blocks, wherever they may stand
        (f"Words.\n\n    {BAD}", [f"page.md:5: {NO_FENCE}"]),
        (f"- one\n    - two\n\n            {BAD}", [f"page.md:6: {NO_FENCE}"]),
        (f'=== "A tab"\n\n        {BAD}', [f"page.md:5: {NO_FENCE}"]),
        (f"!!! note\n\n        {BAD}", [f"page.md:5: {NO_FENCE}"]),
        (f'??? note "More"\n\n        {BAD}', [f"page.md:5: {NO_FENCE}"]),
        (f"Words.[^1]\n\n[^1]: A note.\n\n        {BAD}", [f"page.md:7: {NO_FENCE}"]),
        (f"Term\n:   Meaning.\n\n        {BAD}", [f"page.md:6: {NO_FENCE}"]),
        (f"<div markdown>\n\n    {BAD}\n\n</div>", [f"page.md:5: {NO_FENCE}"]),
        # HTML
        (f"<pre>{BAD}</pre>", [f"page.md:3: {NO_FENCE}"]),
        ("<pre>raise&#32;SystemExit(1)</pre>", [f"page.md:3: {NO_FENCE}"]),
        (f"Words <pre>{BAD}</pre>", [f"page.md:3: {NO_FENCE}"]),
        (f"<table><tr><td><pre>{BAD}</pre></td></tr></table>", [f"page.md:3: {NO_FENCE}"]),
        (f"<details><pre><code>{BAD}</code></pre></details>", [f"page.md:3: {NO_FENCE}"]),
        (f"<!--><pre>{BAD}</pre><!-- -->", [f"page.md:3: {NO_FENCE}"]),
        (f"<svg><foreignObject><pre>{BAD}</pre></foreignObject></svg>", [f"page.md:3: {NO_FENCE}"]),
        (f"<noscript><pre>{BAD}</pre></noscript>", [f"page.md:3: {NO_FENCE}"]),
        (f"<code><pre>{BAD}</pre></code>", [f"page.md:3: {NO_FENCE}"]),
        (f"> !!! note\n>     ```python\n>     {BAD}\n>     ```", [f"page.md:5: {NO_FENCE}"]),
        (f"<PRE>\n{BAD}\n</PRE>", [f"page.md:4: {NO_FENCE}"]),
        ("<code>import sys<br>sys.exit(1)</code>", [f"page.md:3: {LIKE_CODE}"]),
        ("`import sys`<br>`sys.exit(1)`", [f"page.md:3: {LIKE_CODE}"]),
        ("<div><code>import sys</code><br><code>sys.exit(1)</code></div>", [f"page.md:3: {LIKE_CODE}"]),
        ("`import sys`  \n`sys.exit(1)`", [f"page.md:4: {LIKE_CODE}"]),
        (f"<textarea>{BAD}</textarea>", [f"page.md:3: {LIKE_CODE}"]),
        (f"<samp>import sys<br>{BAD}</samp>", [f"page.md:3: {LIKE_CODE}"]),
        ('<iframe src="../first_agent.py"></iframe>', [f"page.md:3: {LIKE_CODE}"]),
        (f'<div style="white-space: pre">{BAD}</div>', [f"page.md:3: {LIKE_CODE}"]),
        (f'<p style="font-family: monospace">{BAD}</p>', [f"page.md:3: {LIKE_CODE}"]),
        ("<article><script>1</script></article>", [f"page.md:3: {LIKE_CODE}"]),
        # classes that were borrowed
        (f'<figure class="output"><pre>{BAD}</pre></figure>', [f"page.md:3: {NO_FENCE}"]),
        (f'<figure class="output"><pre>one</pre><pre>{BAD}</pre></figure>', [f"page.md:3: {NO_FENCE}"]),
        (f'<div class="language-text highlight"><pre>{BAD}</pre></div>', [f"page.md:3: {NO_FENCE}"]),
        (f'<table><tr><td class="linenos"><pre>{BAD}</pre></td></tr></table>', [f"page.md:3: {NO_FENCE}"]),
        (
            '```text\none\n```\n\n<div class="language-text highlight"><pre>one</pre></div>',
            [f"page.md:4: {NO_FENCE}"],
        ),
        (
            '```text\none\n```\n\n<div class="language-python highlight"><pre>one</pre></div>',
            [f"page.md:4: {NO_FENCE}"],
        ),
    ],
)
def test_code_that_no_test_runs_is_named_by_page_and_line(page, text, expected):
    same(problems(page, text), expected)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ('pip install "ray[rllib]==2.59.0" torch', "requirements.txt has ray==2.60.0"),
        ("pip install 'ray[rllib]' torch", "RLlib's version is missing: ray[rllib]==2.60.0"),
        ("pip install 'torch>=2'", "requirements.txt has torch=="),
        ("pip install tensorfow", "tensorfow is not in requirements.txt"),
        ("pip install -U torch", "-U is no package"),
        ("pip install torch && false", "&& is no package"),
        ("pip install 'torch @ https://example.com/torch.whl'", "requirements.txt has torch=="),
        ("pip uninstall torch", "only `pip install`"),
        ("python other.py", "other.py is no program of this page"),
        ("python -c 'raise SystemExit(1)'", "only `pip install`"),
        ("make nothing", "the Makefile has no target nothing"),
        ("make test; false", "the Makefile has no target test;"),
        ("make test | tail", "the Makefile knows no setting |"),
        ("make record SPEED=9", "the Makefile knows no setting SPEED=9"),
        ('make record EXAMPLES="algorithms/ppo algorithms/none"', "there is no examples/algorithms/none.py"),
        ("make record EXAMPLES=algorithms/ppo+LR=3", "nothing is recorded of algorithms/ppo+LR=3"),
        ("make test-page PAGE=docs/none.md", "there is no docs/none.md"),
        ("ray start --head", "only `pip install`"),
        ("$ make test", "only `pip install`"),
        ("make 'test", "a shell cannot read it: No closing quotation"),
    ],
)
def test_a_command_that_is_not_known_to_work(page, command, words):
    fence = f'```python\n--8<-- "examples/first_agent.py"\n```\n\n```console\nmake test\n{command}\n```'
    same(problems(page, fence), [f"page.md:9: this command is not known to work: {words}"])


WELL = [
    '```python title="x.py" linenums="1" hl_lines="2"\nx = 1\nprint(x)\n```',
    "```{.python .annotate}\nprint(2)  # (1)!\n```\n\n1. A note.",
    '```{.py3 title=""}\nprint(3)\n```',
    "```PYTHON\nprint(4)\n```",
    "``` {#part .python}\nprint(5)\n```",
    "~~~python\nprint('~~')\n~~~",
    "````python\ntext = '''\n```\n'''\n````",
    '=== "A tab"\n\n    ```python\n    if True:\n        print(6)\n    ```',
    '!!! note\n\n    ??? tip "More"\n\n        ```python\n        print(7)\n        ```',
    "- one\n    - two\n\n        ```python\n        print(8)\n        ```",
    "Words.[^1]\n\n[^1]: A note.\n\n    ```python\n    print(9)\n    ```",
    "Term\n:   Meaning.\n\n    ```python\n    print(10)\n    ```",
    "<div markdown>\n\n```python\nprint(11)\n```\n\n</div>",
    '<details markdown>\n\n```python\nprint("&lt;p>", "<b>", "GAE *[GAE]:")\n```\n\n</details>',
    '```python\n\n\nprint(12)\n   \nprint("a  ")   \n\n```',
    '```python\n--8<-- "examples/first_agent.py"\n```',
    "```python\nx = 1\n```\n\n<!--pytest-codeblocks:cont-->\n```python\nprint(x)\n```",
    "```python\nprint(1)\n```\n\n<!--pytest-codeblocks:expected-output-->\n```text\n1\n```",
    "```shell\ntrue\n```",
]
NOTHING_TO_RUN = [
    "```text\nKeyError: 'actions'\n```",
    "```text\nfor each episode\n    learn from it\n```",
    "```{.text title='x'}\n\n  one\n\n```",
    "```yaml\na: [1, 2]\n```\n\n```json\n{}\n```",
    "```text\n;--8<--\n```",
    "```output\nalgorithms/ppo\n```",
    "```console\npip install torch tf-keras # a comment\n\nmake record EXAMPLES=stale\n```",
    "```console\nmake record EXAMPLES='algorithms/ppo algorithms/rainbow+WITHOUT=noisy'\nmake test\n```",
    "The code `#!python x = 1`, `x`<br>and <code>y</code>, <kbd>Enter</kbd>.",
    "| a | b |\n| --- | --- |\n| `x`<br>`y` | $x$ |",
    'A box <div style="color: red">of words</div>',
]


@pytest.mark.parametrize("text", WELL)
def test_a_program_that_is_written_well_is_read(page, text):
    assert problems(page, text) == []
    assert len(read_programs(page, ROOT)) == 1


@pytest.mark.parametrize("text", NOTHING_TO_RUN)
def test_what_cannot_be_run_is_no_problem(page, text):
    assert problems(page, text) == []
    assert read_programs(page, ROOT) == []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A site of its own with the settings of this one, and one page, `index.md`."""
    for name in ("examples", "snippets", "results", "extensions"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.txt", "Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    without, replaced = re.subn(r"^nav:\n(?: .*\n)+", "", config, flags=re.MULTILINE)
    assert replaced == 1
    (tmp_path / "mkdocs.yml").write_text(without, encoding="utf-8")
    write(tmp_path, "docs/index.md", "# A page\n\n```python\nprint(1)\n```\n")
    return tmp_path


def write(tree: Path, name: str, text: str) -> None:
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).write_text(text, encoding="utf-8")


def build_tree(tree: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tree / "site")],
        cwd=tree,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.mark.slow
def test_code_from_other_files_is_named_by_that_file(tree):
    """Included, appended to every page, and in files that pytest does not read as pages."""
    write(tree, "snippets/part.md", "Words.\n\n--8<-- [start:one]\n```pycon\n>>> 1\n```\n--8<-- [end:one]\n")
    write(tree, "docs/index.md", '# A page\n\n--8<-- "snippets/part.md:one"\n')
    appended = (tree / "snippets/abbreviations.md").read_text(encoding="utf-8")
    write(tree, "snippets/abbreviations.md", f"```zsh\nfalse\n```\n\n{appended}")
    write(tree, "docs/other.markdown", f"# Another page\n\n```python\n{BAD}\n```\n")
    write(tree, "docs/more/page.html", f"<pre>{BAD}</pre>")
    cell = {"cell_type": "code", "source": BAD, "metadata": {}, "outputs": [], "execution_count": None}
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
    write(tree, "docs/lesson.ipynb", json.dumps(notebook))
    result = build_tree(tree)
    assert result.returncode == 0, result.stderr
    expected = [
        "snippets/abbreviations.md:1: `zsh` is neither run",
        "snippets/part.md:4: `pycon` is neither run",
        f"docs/lesson.ipynb:1: {NO_FENCE}",
        f"docs/more/page.html:1: {NO_FENCE}",
        f"docs/other.markdown:1: {NO_FENCE}",
    ]
    same(check_site(tree / "site", tree), expected)


@pytest.mark.slow
def test_pytest_collects_the_programs_of_every_page_that_the_site_shows(tree):
    """Of folders too that pytest would pass over, because programs make folders of that name."""
    pages = ["index.md", "build/index.md", "dist/page.md", "how_to/venv/page.md"]
    for page in pages:
        write(tree, f"docs/{page}", "# A page\n\n```python\nprint(1)\n```\n")
    assert build_tree(tree).returncode == 0
    assert check_site(tree / "site", tree) == []
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "docs"],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert {f"docs/{page}::line 3" for page in pages} <= set(listed.stdout.splitlines()), listed.stdout


# Markdown left as text -----------------------------------------------------------------------------


def refusal(page: Path, text: str) -> str:
    with pytest.raises(PageError) as caught:
        render(page, text)
    return str(caught.value).replace(f"{page.parent}/", "")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("Read [words][nowhere].", "a link as it is written: '[words][nowhere]'"),
        ("Read [`code`][nowhere].", "a link"),
        ("Read [*words* here][nowhere].", "a link"),
        ("Read [words][].", "a link"),
        ("Read [words].", "a reference as it is written: '[words]'"),
        ("Read [words] (other.md).", "a reference"),
        ("<div>[words](other.md)</div>", "a link"),
        ("Words ![a picture][nowhere].", "a picture"),
        ("Words.[^none]", "a footnote as it is written: '[^none]'"),
        ("Words {: .class }", "an attribute list"),
        ("Words { .class } more", "an attribute list"),
        ("Words {#part} more", "an attribute list"),
        ('Words { title="x" } more', "an attribute list"),
        ("<div>$$x$$</div>", "an equation as it is written: '$$'"),
        ("Words $$x = 1 more.", "an equation"),
        ("<div>where $x$ is</div>", "an equation as it is written: '$x$'"),
        (r"<div>\(x\)</div>", "an equation"),
        (r"<div>\begin{cases}</div>", "an equation"),
        ('Words --8<-- "snippets/abbreviations.md"', "an include"),
        ('<div>\n;--8<-- "examples/x.py"\n</div>', "an include"),
        ("`#!result`", "inline code with a language as it is written: '#!result'"),
        ("`ray==#!version ray`", "inline code with a language as it is written: 'ray==#!version ray'"),
        ("<code>#!version ray</code>", "inline code with a language"),
        ("<div>`#!version ray`</div>", "a backtick"),
        ("`` `#!version ray` ", "a backtick"),
        ("&#96;&#96;&#96;python\nprint(1)\n&#96;&#96;&#96;", "a fence as it is written: '```'"),
        ("~~~python\nprint(1)", "a fence as it is written: '~~~'"),
        ("::: extensions.records", "a block"),
        ("/// note\nWords.\n///", "a block"),
        ('<div>\n=== "A tab"\n</div>', "a tab, a note or a box"),
        ("<div>\n!!! note\n</div>", "a tab, a note or a box"),
        ("<div>\n??? note\n</div>", "a tab, a note or a box"),
        ("<div>**bold**</div>", "bold text as it is written: '**'"),
        ("Words ** bold** more", "bold text"),
        ("<div>__bold__</div>", "bold text as it is written: '__bold__'"),
        ("<div>*words*</div>", "emphasis as it is written: '*words*'"),
        ("<div>\n## A heading\n</div>", "a heading"),
        ("####### Seven", "a heading"),
        ("<div>\n> words\n</div>", "a quote"),
        ("Words:\n- one\n- two", "a list as it is written: '- o'"),
        ("Words:\n* `one`\n* `two`", "a list as it is written: '* ...'"),
        ("<div>\n# A heading\n</div>", "a heading"),
        ("[words]: nowhere else", "a link's definition"),
        ("| a | b |\n| 1 | 2 |", "a table"),
        ("Words\n| --- | --- |\n| 1 | 2 |", "a table"),
        ("&lt;!-- program: limit 90 --&gt;", "a comment"),
        ("&lt;div>words&lt;/div>", "an HTML tag as it is written: '<div'"),
        ("Words *[GAE]: more", "a reference"),
        ("<div>\n*[GAE]: more\n</div>", "an abbreviation"),
        ("Words :material-nothing: more", "an emoji as it is written: ':material-nothing:'"),
        ("~~words~~", "struck or marked text"),
        ("Words ==marked== more", "struck or marked text"),
        ("{{ config.site_name }}", "a template"),
        ('```python foo="bar"\nprint(1)\n```', "code over several lines"),
        ("```python title=x\nprint(1)\n```", "code over several lines"),
        ("- ```python\n  print(1)\n  ```", "code over several lines"),
        ("<div>\n<pre>words\n</div>", "an open tag as it is written: '<pre'"),
    ],
)
def test_markdown_that_is_left_as_text_ends_the_build(page, text, what):
    message = refusal(page, f"Words before.\n\n{text}")
    assert re.match(rf"page\.md:[567]: the page shows {re.escape(what)}", message), message


@pytest.mark.parametrize("fence", ["output title='x'", 'mermaid title="x"'])
def test_a_fence_of_ours_is_never_shown_as_it_is_written(page, fence):
    """Superfences takes its options, which it does not know, for those of a code block."""
    assert re.match(r"page.md:3: a `\w+` fence takes no options", refusal(page, f"```{fence}\nx\n```"))


def test_the_place_of_a_leftover_is_its_own_line(page):
    text = "Here `**code**` is fine.\n\n**bold** as well.\n\n<div>**not**</div>\n\n<p>**nor this**</p>"
    message = refusal(page, f"{text}\n\nRead [words][none] or\n[words][none].")
    places = [line.split(": ")[0] for line in message.splitlines()]
    assert places == ["page.md:7", "page.md:9", "page.md:11", "page.md:12"]


@pytest.mark.parametrize(
    "text",
    [
        "The first is a[i], the box is [0, 1] or [low, high], both a[i][j] and (a)[0](b).",
        "It costs $5 to $6, 2 * 3 * 4, 2**3, a_b_c, `**kwargs` and `[words][nowhere]`.",
        "At 12:30:15 the ratio is 1:2, a -> b, a <- b, x < y and z > w, a | b, C++ and 1 + 2 = 3.",
        "| # seeds | steps |\n| --- | --- |\n| > 10 | DQN<br>+ noise |\n| - 5 | [0, 1] |",
        "A set {0, 1}, a map {a: 1}, #1 and # 2 of 3; a - b - c; http://example.com/a_b_c_d",
        "Words $x_i^* = [a][b]$ and\n\n$$\n\\mathbf{a} **b** [c][d]\n$$",
        "```text\n[words][nowhere] **bold** {: .class } --8<-- $$ ::: !!! note\n```",
        "<!-- **bold** [words][nowhere] <pre> -->",
        "Words.[^1] :material-check: and [a link](https://example.com){ title='x' }\n\n[^1]: A note.",
        "[words][there] and [there]\n\n[there]: https://example.com",
    ],
)
def test_prose_and_well_formed_markdown_pass(page, text):
    assert render(page, text)


# What pymdownx would forgive -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [OSError, KeyError, UnicodeError, ZeroDivisionError, PageError, RuntimeError]
)
@pytest.mark.parametrize("text", ["`#!version ray`", "```output\nalgorithms/ppo\n```", "`#!python x`"])
def test_nothing_that_a_formatter_raises_is_forgiven(page, monkeypatch, text, error):
    def fail(*args, **kwargs):
        raise error("the cart fell")

    monkeypatch.setattr(results, "pinned", fail)
    monkeypatch.setattr(results, "record_of", fail)
    monkeypatch.setattr("pymdownx.highlight.Highlight.highlight", fail)
    message = refusal(page, f"Words.\n\n{text}")
    assert message.startswith("page.md:5: ") and ("the cart fell" in message or "names nothing" in message)


@pytest.mark.slow
def test_a_version_without_requirements_ends_the_build(tree):
    write(tree, "docs/index.md", "# A page\n\nRay `#!version ray`.\n")
    assert build_tree(tree).returncode == 0
    (tree / "requirements.txt").unlink()
    result = build_tree(tree)
    assert result.returncode == 1
    assert "docs/index.md:3: " in result.stderr and "requirements.txt" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_every_leftover_of_a_page_is_named_at_once(tree):
    write(
        tree, "docs/index.md", "---\ndescription: A page.\n---\n\n# A page\n\n[a b][none]\n\n<p>**b**</p>\n"
    )
    result = build_tree(tree)
    assert result.returncode == 1
    assert "docs/index.md:7: the page shows a link as it is written: '[a b][none]'." in result.stderr
    assert "docs/index.md:9: the page shows bold text as it is written: '**'." in result.stderr


# Includes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("```python\n--8<--\nexamples/first_agent.py\n--8<--\n```", 4),
        ("```python\n-8<-\nexamples/first_agent.py\n-8<-\n```", 4),
        ("```python\nprint(1)\n```\n\n--8<--", 7),
        ('=== "A"\n\n    ```python\n    ----8<----\n    examples/first_agent.py\n    --8<--\n    ```', 6),
    ],
)
def test_an_include_in_block_form_is_refused(page, text, line):
    expected = f"page.md:{line}: write an include on one line"
    assert refusal(page, text).startswith(expected)
    with pytest.raises(PageError, match="write an include on one line") as caught:
        read_programs(page, ROOT)
    assert f"{page.name}:{line}: " in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [("examples/none.py", "could not be found"), ("examples/first_agent.py:none", "could not be located")],
)
def test_an_include_that_is_not_there_is_named_by_page_and_line(page, name, words):
    message = refusal(page, f'```python\n--8<-- "{name}"\n```')
    assert message.startswith("page.md:4: ") and words in message
