"""The algorithms side by side: a table to filter, and what RLlib supports of each.

Nothing is typed here or on the index page: properties come from the *Facts* of each algorithm's page, and
support from `results/rllib_support.json`, which holds what trials with the installed RLlib gave.
"""

import html
import json
import re

import yaml

from . import PageError
from .cache import ROOT
from .records import RESULTS, path_of, record_of
from .tables import table

PAGES = ROOT / "docs" / "algorithms"
SUPPORT = RESULTS / "rllib_support.json"
# What a reader can ask for: heading, then tag and words. An algorithm is shown if it has every tag asked for.
FILTERS = {
    "Actions": {"discrete": "discrete", "continuous": "continuous"},
    "Learns": {"on-policy": "on-policy", "off-policy": "off-policy"},
    "Sampling and learning": {"synchronous": "in turns", "asynchronous": "asynchronous"},
    "Also": {"multi-agent": "many agents", "memory": "memory", "offline": "learns from files"},
    "Framework": {"pytorch": "PyTorch", "tensorflow": "TensorFlow"},
    "Status": {"ships": "ships in RLlib", "rebuilt": "rebuilt here"},
}


def facts(name: str) -> dict[str, str]:
    """The table under *Facts* of an algorithm's page, by its first column.

    Raises:
        PageError: there is no such page, or it has no facts.
    """
    file = PAGES / f"{name}.md"
    if not file.is_file():
        raise PageError(f"There is no page docs/algorithms/{name}.md.")
    text = file.read_text(encoding="utf-8")
    section = re.search(r"^## Facts\n(.*?)^## ", text, flags=re.MULTILINE | re.DOTALL)
    if section is None:
        raise PageError(f"docs/algorithms/{name}.md has no facts.")
    return dict(re.findall(r"^\| ([A-Z][^|]*?) \| (.+?) \|$", section[1], flags=re.MULTILINE))


def tags(name: str) -> set[str]:
    """What can be asked of an algorithm, read from its facts; the values of `FILTERS`.

    Raises:
        PageError: a fact does not begin with one of the words that this function knows.
    """
    known, found = facts(name), set()

    def one_of(fact: str, words: dict[str, str | None]) -> None:
        text = known.get(fact, "")
        for word, tag in words.items():
            if re.match(rf"{word}\b", text):
                found.update({tag} - {None})
                return
        raise PageError(f"docs/algorithms/{name}.md: {fact} has to begin with {', '.join(words)}: {text!r}")

    one_of("Learns", {"on-policy": "on-policy", "off-policy": "off-policy"})
    one_of("Agents", {"one or many": "multi-agent", "one": None, "many": "multi-agent"})
    one_of("Stateful models", {"yes": "memory", "no": None})
    one_of("Offline data", {"yes": "offline", "no": None})
    one_of("Distribution", {"synchronous": "synchronous", "asynchronous": "asynchronous"})
    one_of("Status", {"ships": "ships", "rebuilt here": "rebuilt"})
    one_of("Frameworks", {"PyTorch": "pytorch"})
    spaces = known.get("Action spaces", "")
    found |= {kind for kind in ("discrete", "continuous") if re.search(rf"(?<!-)\b{kind}\b", spaces)}
    if re.search(r"\bTensorFlow on the old API stack", known["Frameworks"]):
        found.add("tensorflow")
    return found


def selector(source: str, language: str, css_class: str, options: dict, md, **kwargs) -> str:
    """A fence of `page: when to use it` lines: a table of algorithms with boxes to tick above it.

    The boxes filter by style rules alone (`:has()`), without a script. A browser that does not know these
    shows the whole table.
    """
    try:
        entries = yaml.safe_load(source)
        rows = [(name, tags(name), str(when)) for name, when in entries.items()]
    except (yaml.YAMLError, AttributeError) as error:
        raise PageError(f"This fence is not a list of `page: when to use it` lines: {error}") from None
    boxes, rules = "", ""
    for heading, choices in FILTERS.items():
        labels = "".join(
            f'<label><input type="checkbox" name="{tag}"> {html.escape(words)}</label> '
            for tag, words in choices.items()
        )
        boxes += f"<fieldset><legend>{heading}</legend>{labels}</fieldset>"
        exclusive = all(len(has & choices.keys()) <= 1 for _, has, _ in rows)
        for tag in choices:
            # Of two that no algorithm has together, both ticked mean either.
            others = choices.keys() - {tag} if exclusive else ()
            either = "".join(f":not(:has(input[name={other}]:checked))" for other in others)
            rules += (
                f".selector:has(input[name={tag}]:checked){either} tbody tr:not(.has-{tag}){{display:none}}"
            )
    words = {tag: text for choices in FILTERS.values() for tag, text in choices.items()}
    common = set.intersection(*(has for _, has, _ in rows))
    cells, classes = [], []
    for name, has, when in rows:
        page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
        title = re.search(r"^# ([^:\n]+)", page, flags=re.MULTILINE)[1]
        link = f'<a href="{_url(name, md)}">{html.escape(title)}</a>'
        cells.append([link, html.escape(when), ", ".join(words[tag] for tag in words if tag in has - common)])
        classes.append(" ".join(f"has-{tag}" for tag in words if tag in has))
    heads = ["algorithm", "use it when", "properties"]
    return (
        f'<style>{rules}</style><form class="selector" aria-label="Filter the algorithms">'
        f'<div class="boxes">{boxes}</div>{table("Algorithms", "algorithms", heads, cells, classes)}'
        f'<p class="caption"><span class="shown"></span> of {len(rows)} shown. '
        '<button type="reset">Show all</button></p></form>'
    )


def _url(name: str, md) -> str:
    if "relpath" in md.treeprocessors:  # MkDocs, which knows where the page's links lead
        return md.treeprocessors["relpath"].path_to_url(f"{name}.md")
    return f"{name}/"


def support(source: str, language: str, css_class: str, options: dict, md, **kwargs) -> str:
    """A fence of `page: algorithm` lines: for each feature whether a training went well, else the error.

    Raises:
        PageError: an algorithm was never tried.
    """
    known = json.loads(SUPPORT.read_text(encoding="utf-8"))
    features = list(dict.fromkeys(feature for tried in known.values() for feature in tried))
    cells, entries = [], yaml.safe_load(source)
    for name, algorithm in entries.items():
        if algorithm not in known:
            raise PageError(f"{SUPPORT.name} does not know {algorithm}; renew that file with: make defaults")
        row = [html.escape(algorithm)]
        if (PAGES / f"{name}.md").is_file():
            row = [f'<a href="{_url(name, md)}">{row[0]}</a>']
        for feature in features:
            error = known[algorithm].get(feature, "")
            row.append("yes" if error is None else "no" if error else "–")
        row.append(_tensorflow(f"algorithms/{name}"))
        cells.append(row)
    errors = "".join(
        f"<li>{algorithm}, {feature}: <code>{html.escape(error)}</code></li>"
        for algorithm in entries.values()
        for feature, error in known[algorithm].items()
        if error
    )
    return (
        table("What RLlib supports", "support", ["algorithm", *features, "TensorFlow"], cells)
        + f"<details><summary>The errors behind each no</summary><ul>{errors}</ul></details>"
    )


def _tensorflow(example: str) -> str:
    """Whether a program in TensorFlow stands on the page, and which target all of its seeds reached."""
    if not path_of(f"{example}_tensorflow").is_file():
        return "–"
    record = record_of(f"{example}_tensorflow")
    if len(record.solved) < len(record.runs):
        return "runs"
    return "learns" if record.target >= record_of(example).target else f"to {record.target:g}"
