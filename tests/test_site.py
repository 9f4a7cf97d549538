"""The built site is sound: for a reader's browser, keyboard, eyes and network."""

import functools
import gzip
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urldefrag, urljoin, urlsplit

import markdown
import pytest

from tests.conftest import ROOT, build

AXE = {"resultTypes": ["violations"]}  # all rules; of those that hold, no list of every element


class _Page(HTMLParser):
    """What a page refers to and what can be referred to in it."""

    def __init__(self, html: str):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.resources: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if "id" in attributes:
            self.ids.add(attributes["id"])
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag == "link" and attributes.get("rel") not in ("canonical", "next", "prev"):
            self.resources.append(attributes["href"])
        if tag in ("script", "img", "iframe", "source") and attributes.get("src"):
            self.resources.append(attributes["src"])


def pages_of(site: Path) -> list[Path]:
    return [page for page in sorted(site.rglob("*.html")) if page.name != "404.html"]


def test_every_link_and_anchor_leads_somewhere(site):
    """Links in raw HTML and in diagrams too, which MkDocs does not check."""
    parsed = {page: _Page(page.read_text(encoding="utf-8")) for page in pages_of(site)}
    for page, content in parsed.items():
        for link in content.links + content.resources:
            path, anchor = urldefrag(link)
            parts = urlsplit(path)
            if parts.scheme in ("http", "https", "mailto"):
                continue
            target = page if not path else Path(urljoin(str(page), parts.path))
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{page.relative_to(site)} links to {link}"
            if anchor and target in parsed:
                assert anchor in parsed[target].ids, f"{page.relative_to(site)} links to {link}"


def test_nothing_on_a_page_comes_from_another_host(site):
    for page in pages_of(site):
        html = page.read_text(encoding="utf-8")
        for resource in _Page(html).resources:
            assert not urlsplit(resource).netloc, f"{page.relative_to(site)} loads {resource}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:", style.read_text(encoding="utf-8")), style


def test_no_link_offers_to_edit_a_page_while_there_is_no_repository(site):
    for page in pages_of(site):
        assert "Edit this page" not in page.read_text(encoding="utf-8")


def test_diagrams_are_pictures_with_a_text(site):
    html = (site / "index.html").read_text(encoding="utf-8")
    diagrams = re.findall(r'<div class="diagram">(<svg.*?</svg>)', html, flags=re.DOTALL)
    assert len(diagrams) == 1
    for diagram in diagrams:
        assert "<title" in diagram and "<desc" in diagram
        assert "aria-labelledby" in diagram and "aria-describedby" in diagram
    assert 'href="algorithms/"' in diagrams[0] and 'href="concepts/api/"' in diagrams[0]
    assert "my-svg" not in html
    assert "mermaid.min.js" not in html


def test_equations_are_mathml(site):
    html = (site / "algorithms" / "ppo" / "index.html").read_text(encoding="utf-8")
    assert html.count('<math tabindex="0" xmlns="http://www.w3.org/1998/Math/MathML" display="block">') >= 4
    assert "mathjax" not in html.lower() and "katex.min" not in html.lower()


def test_an_equation_may_hold_signs_that_html_escapes():
    equation = "$$\n\\begin{cases} 1 & x < 2 \\end{cases}\n$$"
    text = markdown.markdown(equation, extensions=["extensions.equations"])
    assert text.count("<mtd") == 2 and "&#x0003C;" in text and "amp" not in text


def test_pages_are_small(site):
    for page in pages_of(site):
        size = len(gzip.compress(page.read_bytes()))
        assert size < 60_000, f"{page.relative_to(site)} has {size} bytes gzip"


def test_numbers_on_the_page_are_those_of_the_record(site):
    record = json.loads((ROOT / "results" / "algorithms" / "ppo.json").read_text(encoding="utf-8"))
    html = (site / "algorithms" / "ppo" / "index.html").read_text(encoding="utf-8")
    seconds = sorted(run["seconds"] for run in record["seeds"])
    assert f'<span class="result">{seconds[len(seconds) // 2]:.0f} s</span>' in html
    assert record["output"].splitlines()[-1] in html


# In a browser --------------------------------------------------------------------------------------


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def urls_of(site: Path) -> list[str]:
    return [str(page.relative_to(site)).removesuffix("index.html") for page in pages_of(site)]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_in_a_browser(site, address, browser, scheme, width):
    """No request to another host, no error, nothing wider than the screen, nothing that axe objects to."""
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    elsewhere, errors = [], []
    page.on("request", lambda request: elsewhere.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    for url in urls_of(site):
        page.goto(address + url)
        # Each page has a program, and the theme's script is done when the program has its button.
        page.locator(".md-code__button").first.wait_for(state="attached")
        expected = "slate" if scheme == "dark" else "default"
        assert page.evaluate("document.body.dataset.mdColorScheme") == expected
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{url} is wider than {width}"
        violations = {
            violation["id"]: [node["html"][:120] for node in violation["nodes"]]
            for violation in Axe().run(page, options=AXE).response["violations"]
            # Material puts each copy button into a navigation landmark of its own, all without a name.
            if violation["id"] != "landmark-unique"
        }
        assert violations == {}, url
    assert [url for url in elsewhere if not url.startswith((address, "data:"))] == []
    assert errors == []
    context.close()


SEARCHES = {  # what people type, and a page that has to be among the first three
    "proximal policy": "algorithms/ppo/",
    "ApexTrainer": "algorithms/apex_dqn/",
    "build_algo": "concepts/api/",
    "get_module": "concepts/api/",
    "compute_single_action": "concepts/api/",
    "custom environment": "concepts/modules/environments/",
    "observation normalization": "concepts/modules/connectors/",
    "resume training": "scaling/crash_proof/",
    "sample_timeout_s": "scaling/faults_in_the_env/",
    "cluster": "scaling/cluster/",
    "Slurm": "scaling/launchers/",
    "multi gpu": "scaling/gpus/",
    "num_gpus": "scaling/gpus/",
    "episode_reward_mean": "",  # the older RLlib's names stand on many pages
    "compute_action": "",
}


@pytest.mark.slow
def test_search_finds_pages_and_names_in_code(address, browser):
    page = browser.new_page()
    missing = {}
    for query, expected in SEARCHES.items():
        page.goto(f"{address}?q={quote(query)}")
        results = page.locator(".md-search-result__item > .md-search-result__link")
        results.first.wait_for()
        links = [urlsplit(link.get_attribute("href")).path.removeprefix("/") for link in results.all()]
        first = list(dict.fromkeys(links))[:3]
        if expected not in first and expected:
            missing[query] = first
    page.close()
    assert missing == {}


@pytest.mark.slow
def test_nothing_is_cut_without_a_sign(address, browser):
    """Wide tables of ours fit at 1280, stack on a phone; a long output has a fold that shows its middle."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address + "algorithms/")
    fits = "box => box.scrollWidth <= box.clientWidth"
    for table in (".support", ".algorithms"):
        assert page.locator(table).evaluate(fits), f"{table} is wider than its place"
    page.set_viewport_size({"width": 390, "height": 900})
    page.goto(address + "algorithms/ppo/")
    assert page.locator(".settings").evaluate(fits)
    assert "when learning stalls" in page.locator(".settings td").nth(2).evaluate(
        "cell => getComputedStyle(cell, '::before').content"
    )
    page.goto(address + "concepts/architecture/")
    fold = page.locator("figure.output details")
    assert not fold.locator("pre").is_visible()
    fold.locator("summary").focus()
    page.keyboard.press("Enter")
    assert fold.locator("pre").is_visible()
    shown = [pre.text_content() for pre in page.locator("figure.output:has(details) pre").all()]
    record = json.loads((ROOT / "results" / "concepts" / "train_call.json").read_text(encoding="utf-8"))
    assert "\n".join(shown) == record["output"].rstrip()
    page.close()


@pytest.mark.slow
def test_diagrams_and_charts_are_read_in_the_dark_too(address, browser):
    """Text stands in the middle of its box, arrowheads have the colour of text, charts the site's font."""
    page = browser.new_page(color_scheme="dark")
    page.goto(address + "concepts/architecture/")
    off = page.locator("svg[aria-roledescription^=flowchart] foreignObject .nodeLabel").evaluate_all(
        """labels => labels.map(label => {
            const box = label.closest("foreignObject").getBoundingClientRect();
            const range = document.createRange();
            range.selectNodeContents(label);
            const text = range.getBoundingClientRect();
            return Math.abs((text.left + text.right) / 2 - (box.left + box.right) / 2);
        })"""
    )
    assert off and max(off) <= 2, off
    colours = page.locator("svg[aria-roledescription=sequence] marker path").evaluate_all(
        "paths => paths.map(path => getComputedStyle(path).fill)"
    )
    text = page.evaluate(
        """() => {
            const probe = document.body.appendChild(document.createElement("i"));
            probe.style.color = "var(--md-default-fg-color--light)";
            return getComputedStyle(probe).color;
        }"""
    )
    assert colours and set(colours) == {text}
    page.goto(address + "algorithms/ppo/")
    fonts = page.locator("figure.curve text").evaluate_all(
        "texts => texts.map(text => getComputedStyle(text).fontFamily)"
    )
    assert fonts and all(font.startswith("Roboto") for font in fonts), set(fonts)
    page.close()


@pytest.mark.slow
def test_the_copy_button_copies_the_program(address, browser):
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(address)
    page.locator(".language-python .md-code__button[data-md-type=copy]").first.click()
    page.wait_for_timeout(300)
    copied = page.evaluate("navigator.clipboard.readText()")
    program = (ROOT / "examples" / "first_agent.py").read_text(encoding="utf-8")
    assert copied.strip() == program.strip()
    context.close()


@pytest.mark.slow
def test_the_map_leads_to_a_page(address, browser):
    page = browser.new_page()
    page.goto(address)
    links = page.locator(".diagram a")
    leads_to = sorted({links.nth(number).get_attribute("href") for number in range(links.count())})
    assert len(leads_to) >= 10
    page.locator('.diagram a[href="algorithms/"]').first.click()
    page.wait_for_url("**/algorithms/")
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("scripts", [True, False])
def test_the_algorithms_can_be_filtered_by_keyboard_and_without_scripts(address, browser, scripts):
    context = browser.new_context(java_script_enabled=scripts)
    page = context.new_page()
    page.goto(address + "algorithms/")
    rows = page.locator(".selector tbody tr")
    everything = rows.count()
    assert everything >= 9

    def shown() -> set[str]:
        visible = [row for row in rows.all() if row.is_visible()]
        return {row.locator("a").inner_text() for row in visible}

    assert len(shown()) == everything
    for name in ("continuous", "off-policy"):
        page.locator(f".selector input[name={name}]").focus()
        page.keyboard.press("Space")
    found = shown()
    assert {"SAC", "TQC"} <= found and not {"PPO", "DQN"} & found
    count = page.locator(".selector .caption")
    assert count.bounding_box()["y"] < rows.locator("visible=true").first.bounding_box()["y"]
    page.locator(".selector input[name=on-policy]").focus()
    page.keyboard.press("Space")  # one of two that exclude each other: both mean either
    assert {"SAC", "TQC", "PPO"} <= shown() and "DQN" not in shown()
    page.locator(".selector button[type=reset]").focus()
    page.keyboard.press("Enter")
    assert len(shown()) == everything
    context.close()


# What the builder says -----------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path, site: Path) -> Path:
    """The site's sources, to be edited, and the pictures that were drawn for `site`."""
    shutil.copytree(ROOT / ".cache", tmp_path / ".cache", ignore=shutil.ignore_patterns("record"))
    for name in ("docs", "examples", "snippets", "results", "extensions", "diagrams"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("mkdocs.yml", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def two_pages(copy: Path, text: str) -> subprocess.CompletedProcess:
    """Build a site with the settings of this one: a page that holds `text`, and another to link to."""
    for page in (copy / "docs").rglob("*.md"):
        page.unlink()
    (copy / "docs" / "index.md").write_text(f"# A page\n\n{text}\n", encoding="utf-8")
    (copy / "docs" / "other.md").write_text("# Another page\n", encoding="utf-8")
    config = copy / "mkdocs.yml"
    nav = re.compile(r"^nav:\n(?: .*\n)+", re.MULTILINE)
    two, replaced = nav.subn("nav: [index.md, other.md]\n", config.read_text(encoding="utf-8"))
    assert replaced == 1
    config.write_text(two, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(copy / "site")],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "```output\nalgorithms/none\n```",
            "There is no record of algorithms/none; make it with: make record",
        ),
        ("```curve\nalgorithms/none: None\n```", "There is no record of algorithms/none"),
        ("```curve\nnot a list\n```", "This fence is not a list of `example: label` lines"),
        (
            "`#!result algorithms/ppo happiness`",
            "`#!result algorithms/ppo happiness` names nothing that is recorded.",
        ),
        ("`#!version nothing`", "`#!version nothing` names nothing that is recorded."),
        ("```mermaid\nflowchart TB\n  a --> b\n```", "A diagram has no accTitle"),
        (
            "```mermaid\nflowchart TB\n  accTitle: T\n  accDescr: D\n  a -- b --> --> c\n```",
            "Mermaid cannot draw this diagram",
        ),
        (
            '```mermaid\nflowchart TB\naccTitle: T\naccDescr: D\na --> b\nclick a href "none.md"\n```',
            "contains a link 'none.md', but the target is not found",
        ),
        (
            "```settings\nconfig: PPOConfig\nexample: algorithms/ppo\nsettings: {speed: {does: a}}\n```",
            "The settings table names 'speed', which rllib_defaults.json does not know",
        ),
        ("[a page](none.md)", "contains a link 'none.md', but the target is not found"),
        ("[a part](other.md#none)", "does not contain an anchor '#none'"),
        ('```python\n--8<-- "examples/none.py"\n```', "docs/index.md:4: Snippet at path 'examples/none.py'"),
        ("Read [words][nowhere].", "docs/index.md:3: the page shows a link as it is written"),
        (
            "```python\n--8<--\nexamples/first_agent.py\n--8<--\n```",
            "docs/index.md:4: write an include on one",
        ),
    ],
    ids=lambda value: value[:30] if value.startswith(("`", "[")) else "",
)
def test_a_page_that_asks_for_what_is_not_there(copy, text, message):
    result = two_pages(copy, text)
    assert result.returncode != 0, "the site was built all the same"
    assert message in result.stderr
    assert "Traceback" not in result.stderr, result.stderr


@pytest.mark.slow
def test_a_page_that_asks_for_what_is_there(copy):
    """So what fails above fails for its text, and for nothing else."""
    asks = ["[a page](other.md)", "```output\nalgorithms/ppo\n```", "`#!result algorithms/ppo seconds`"]
    result = two_pages(copy, "\n\n".join(asks))
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_notebook_becomes_a_page_that_asks_no_other_host(copy, browser):
    import nbformat

    notebook = nbformat.v4.new_notebook()
    cell = nbformat.v4.new_code_cell("1 + 1", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("stream", text="two")]
    notebook.cells = [nbformat.v4.new_markdown_cell("# A lesson"), cell]
    nbformat.write(notebook, copy / "docs" / "lesson.ipynb")
    config = copy / "mkdocs.yml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("  - Start: index.md", "  - Start: index.md\n  - Lesson: lesson.ipynb"))
    result = build(copy, copy / "site")
    assert result.returncode == 0, result.stderr
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(copy / "site"))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    page = browser.new_page()
    urls = []
    page.on("request", lambda request: urls.append(request.url))
    page.goto(address + "lesson/", wait_until="networkidle")
    assert "two" in page.inner_text("body")
    page.close()
    server.shutdown()
    server.server_close()
    assert [url for url in urls if not url.startswith((address, "data:"))] == []


class _Preview:
    """`make serve` of a copy of the site."""

    def __init__(self, copy: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        shutil.copytree(ROOT / "tools", copy / "tools", ignore=shutil.ignore_patterns("__pycache__"))
        self.copy = copy
        self.log = copy / "serve.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tools.serve", f"127.0.0.1:{self.port}"],
                cwd=copy,
                env=os.environ | {"TMPDIR": str(copy)},
                stdout=log,
                stderr=log,
            )

    def get(self, url: str) -> str:
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{url}", timeout=60).read().decode()
        except OSError:
            return ""

    def wait_for(self, seen: Callable[[], bool]) -> None:
        # Two seconds are the aim for an edit; this is only the limit for one that never shows.
        end = time.monotonic() + 300
        while not seen():
            assert self.process.poll() is None, f"the server has ended:\n{self.log.read_text()}"
            assert time.monotonic() < end, f"it did not show:\n{self.log.read_text()}"
            time.sleep(0.1)

    def edit(self, name: str, old: str, new: str) -> None:
        file = self.copy / name
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{name} has no {old!r}; this test needs another place to edit"
        file.write_text(text.replace(old, new, 1), encoding="utf-8")

    def rendered_by(self, name: str, old: str, new: str, url: str, sign: str) -> str:
        """Edit a file, wait until `sign` shows, and say which pages were rendered for it."""
        before = len(self.log.read_text())
        self.edit(name, old, new)
        self.wait_for(lambda: sign in self.get(url))
        lines = re.compile(r"rendered anew: (.*)\n")
        self.wait_for(lambda: lines.search(self.log.read_text()[before:]))
        return lines.search(self.log.read_text()[before:])[1]


@pytest.fixture
def preview(copy: Path) -> Iterator[_Preview]:
    server = _Preview(copy)
    try:
        server.wait_for(lambda: "The map of RLlib" in server.get(""))
        yield server
    finally:
        server.process.terminate()
        server.process.wait(timeout=60)
    assert not list(copy.glob("mkdocs_*")), "it has left its folder behind"


@pytest.mark.slow
def test_an_edit_shows_and_renders_only_the_pages_that_it_can_change(preview):
    """Of a page, an example, a snippet, a result, and of facts that another page shows."""
    new = "An edited page.\n\n## The way through"
    pages = preview.rendered_by("docs/index.md", "## The way through", new, "", "An edited page.")
    assert pages == "index.md"
    new = "An edited example"
    pages = preview.rendered_by("examples/first_agent.py", "Your first RLlib agent", new, "", new)
    assert pages == "index.md, reference/versions.md"  # which says of each example whether it has changed
    new = "an edited result "
    pages = preview.rendered_by("results/first_agent.json", "greedy return ", new, "", new)
    assert pages == "index.md"
    new = "edited advantage estimation"
    snippet = "snippets/abbreviations.md"
    url = "algorithms/a2c/"
    pages = preview.rendered_by(snippet, "generalized advantage estimation", new, url, f'<abbr title="{new}"')
    everything = len(list((preview.copy / "docs").rglob("*.md")))
    assert 0 < len(pages.split(", ")) < everything and pages != f"{everything} pages"
    pages = preview.rendered_by("docs/algorithms/sac.md", "# SAC", "# Edited", "algorithms/", ">Edited</a>")
    assert pages == "algorithms/index.md, algorithms/sac.md"
    # What the search finds has to follow, also for the pages that were not rendered anew.
    entries = json.loads(preview.get("search/search_index.json"))["docs"]
    assert any("An edited page." in entry["text"] for entry in entries)
    assert {entry["location"].partition("#")[0] for entry in entries} >= {
        "",
        "algorithms/",
        "algorithms/ppo/",
    }


@pytest.mark.slow
def test_an_edit_that_can_change_every_page_renders_all(preview):
    """The settings, the theme, an extension; and a page that comes and goes."""
    everything = len(list((preview.copy / "docs").rglob("*.md")))
    for name, old, new, sign in [
        ("mkdocs.yml", "site_name: RLlib by Example", "site_name: An edited name", "An edited name"),
        ("extensions/theme/main.html", "{% block header %}", "{% block header %}An edited theme", None),
        ("extensions/results.py", "Printed by the recorded run", "An edited extension", None),
    ]:
        pages = preview.rendered_by(name, old, new, "", sign or new.removeprefix("{% block header %}"))
        assert pages == f"{everything} pages"
    (preview.copy / "docs" / "more.md").write_text("# One more page\n", encoding="utf-8")
    preview.edit("mkdocs.yml", "  - Start: index.md", "  - Start: index.md\n  - More: more.md")
    preview.wait_for(lambda: "One more page" in preview.get("more/"))
    assert 'href="more/"' in preview.get("")


@pytest.mark.slow
def test_a_broken_page_is_reported_and_the_last_good_build_is_served_until_it_is_mended(preview):
    text = (preview.copy / "docs" / "index.md").read_text(encoding="utf-8")
    for broken, message in [
        ("[a page](none.md)", "Doc file 'index.md' contains a link 'none.md', but the target is not found"),
        ("[a part](algorithms/ppo.md#none)", "does not contain an anchor '#none'"),
        ("`#!result first_agent luck`", "`#!result first_agent luck` names nothing that is recorded."),
    ]:
        for turn in ("first", "second"):  # a page that stays broken has to be reported each time
            before = len(preview.log.read_text())
            page = f"{text}\n\n{broken} for the {turn} time\n"
            (preview.copy / "docs" / "index.md").write_text(page, encoding="utf-8")
            preview.wait_for(lambda before=before: "Not built;" in preview.log.read_text()[before:])
            assert preview.log.read_text()[before:].count(message) == 1
        before = len(preview.log.read_text())
        preview.edit("docs/algorithms/ppo.md", "# PPO", "# PPO ")  # which does not hide it
        preview.wait_for(lambda before=before: "Not built;" in preview.log.read_text()[before:])
        assert message in preview.log.read_text()[before:]
        assert "The map of RLlib" in preview.get("") and broken.strip("[`") not in preview.get("")
        assert "Traceback" not in preview.log.read_text()
        (preview.copy / "docs" / "index.md").write_text(
            f"{text}\n\nMended: {broken[2:6]}\n", encoding="utf-8"
        )
        preview.wait_for(lambda broken=broken: f"Mended: {broken[2:6]}" in preview.get(""))
