"""Shows records on pages: printed output, learning curves, comparison tables, single numbers."""

import contextlib
import functools
import html
import io
import re
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import yaml

from . import PageError
from .cache import ROOT, drawn, source_of
from .records import Record, machines_differ, path_of, record_of
from .tables import table

# ```output ------------------------------------------------------------------------------------------


def output(source: str, language: str, css_class: str, options: dict, md, **kwargs) -> str:
    """A fence that names an example: what its first recorded run printed, whatever came of it."""
    record = record_of(source)
    run = record.runs[0]
    caption = (
        f"Printed by the recorded run with seed {run.seed}: {_seconds(run.seconds)} on "
        f"{record.machine['cores']} cores ({html.escape(record.machine['cpu'])}), {record.recorded_at[:10]}."
    )
    if not run.solved:
        caption += " This run failed: it did not do all that its page says it does."
    return f'<figure class="output">{_folded(record.output)}<figcaption>{caption}</figcaption></figure>'


WHOLE = 40  # lines of an output that are shown without a fold
ENDS = (22, 12)  # of a longer one, how many lines stand before and behind the fold


def _folded(text: str) -> str:
    """HTML of an output; of a long one the middle is folded, so that nothing is cut without a sign."""

    def pre(lines: list[str]) -> str:
        return f'<pre tabindex="0"><code>{html.escape(chr(10).join(lines))}</code></pre>'

    lines = text.rstrip().split("\n")
    if len(lines) <= WHOLE:
        return pre(lines)
    first, last = ENDS
    middle = lines[first:-last]
    return (
        f"{pre(lines[:first])}<details><summary>{len(middle)} more lines</summary>{pre(middle)}</details>"
        f"{pre(lines[-last:])}"
    )


# ```curve -------------------------------------------------------------------------------------------


def _labelled(source: str) -> dict[str, str]:
    """Lines of `example: label`, as YAML."""
    try:
        entries = yaml.safe_load(source)
    except yaml.YAMLError as error:
        raise PageError(f"This fence is not a list of `example: label` lines: {error}") from None
    if not isinstance(entries, dict) or not entries:
        raise PageError(f"This fence is not a list of `example: label` lines:\n{source}")
    return {str(example): str(label) for example, label in entries.items()}


_AXES = {
    "mean return": "mean return (exploring episodes)",
    "greedy return": "greedy return (evaluation)",
}


def _axis(records: Iterable[Record]) -> str:
    """What the curves of these records show.

    Raises:
        PageError: they show different things, which do not belong on one axis.
    """
    kinds = {record.curve for record in records if not record.is_old and record.curve}
    if len(kinds) > 1:
        raise PageError(
            "This chart would put `mean return` (exploring episodes) and `greedy return` (evaluation) on "
            f"one axis: {'; '.join(f'{record.example} has {record.curve}' for record in records)}."
        )
    if any(record.is_old for record in records):  # OLD FORM: the progress line did not say what it shows
        return "mean return"
    if not kinds:
        raise PageError(f"No record of this chart has a curve: {', '.join(r.example for r in records)}.")
    return _AXES[kinds.pop()]


# Placeholder colours: site.css gives each series its colour in the light and in the dark scheme.
PLACEHOLDERS = ["#010101", "#020202", "#030303", "#040404"]


@contextlib.contextmanager
def chart() -> Iterator[tuple]:
    """An empty chart, a figure and its axes, to be drawn in black and the placeholder colours."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "rllib-by-example",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with plt.rc_context(settings):
        figure, axes = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
        yield figure, axes
        plt.close(figure)


def themed(figure, label: str) -> str:
    """The SVG of a figure, in the site's colours and type.

    Args:
        figure: a matplotlib figure made by `chart`.
        label: what it shows, for screen readers.
    """
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    for number, colour in enumerate(PLACEHOLDERS, 1):
        svg = svg.replace(colour, f"var(--series-{number})")
    svg = svg.replace("#000000", "currentColor")
    svg = re.sub(
        r"(<svg[^>]*?) width=\"[^\"]*\"", r"\1", re.sub(r"(<svg[^>]*?) height=\"[^\"]*\"", r"\1", svg)
    )
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--md-text-font-family, sans-serif)", svg)
    # Without this, text without a fill of its own stays black in the dark scheme.
    label = html.escape(label, quote=True)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{label}" fill="currentColor" ', 1)
    return svg.replace("\n", " ")


def _draw_curves(records: dict[str, Record], axis: str) -> str:
    import numpy as np
    from matplotlib.ticker import EngFormatter

    with chart() as (figure, axes):
        for colour, (label, record) in zip(PLACEHOLDERS, records.items(), strict=False):
            runs = [[point for point in run.points if point[1] is not None] for run in record.runs]
            for points in runs:
                steps, returns, _ = zip(*points, strict=True)
                axes.plot(steps, returns, color=colour, linewidth=0.9, alpha=0.35)
            # On one grid for all seeds; numpy.interp keeps a run's last value after its end.
            grid = np.linspace(max(run[0][0] for run in runs), max(run[-1][0] for run in runs), 100)
            median = np.median([np.interp(grid, *list(zip(*run, strict=True))[:2]) for run in runs], axis=0)
            axes.plot(grid, median, color=colour, linewidth=2.4, label=label)
        for target in {record.target for record in records.values() if record.target is not None}:
            axes.axhline(target, color="#000000", linewidth=1, linestyle=(0, (4, 4)))
            axes.annotate(
                f"target {target:g}",
                (0, target),
                xytext=(4, -4),
                textcoords="offset points",
                va="top",
                fontsize=10,
            )
        axes.set_xlabel("env steps")
        axes.set_ylabel(axis)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlim(left=0)
        axes.grid(alpha=0.15)
        axes.legend(frameon=False, loc="best")
        names = "; ".join(
            f"{label}: {len(record.solved)} of {len(record.runs)} seeds solved"
            for label, record in records.items()
        )
        return themed(figure, f"Learning curves, {axis} over env steps. {names}.")


def curve(source: str, language: str, css_class: str, options: dict, md, **kwargs) -> str:
    """A fence of `example: label` lines: all seeds (thin) and their median (thick) in one chart."""
    labels = _labelled(source)
    records = {label: record_of(example) for example, label in labels.items()}
    texts = "\n".join(path_of(example).read_text(encoding="utf-8") for example in labels)
    axis = _axis(records.values())
    svg = drawn(f"curve {source_of(__file__)}", f"{source}\n{texts}", lambda: _draw_curves(records, axis))
    # Two charts on a page must not share ids.
    prefix = re.sub(r"\W+", "-", "-".join(labels))
    svg = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'(href="#|url\(#)([^")]+)', rf"\g<1>{prefix}-\2", svg)
    seeds = {len(record.runs) for record in records.values()}
    caption = (
        f"Thin lines: {'–'.join(str(n) for n in sorted(seeds))} seeds each. Thick lines: their median. "
        "A run stops when it has reached its target; its last value is kept for the median."
    )
    return f'<figure class="curve">{svg}<figcaption>{caption}</figcaption></figure>'


# ```comparison --------------------------------------------------------------------------------------


_WHOLE = ("env_steps", "updates")  # counted, not timed


def _columns(records: list[Record]) -> tuple[dict[str, str], str]:
    """The columns that these rows can be compared in, and the sentence about the missing ones.

    Raises:
        PageError: the rows were recorded on machines of different speed.
    """
    new = [record for record in records if not record.is_old]
    if new and machines_differ(new):
        speeds = "; ".join(f"{record.example} {record.work_seconds:.2f} s" for record in new)
        raise PageError(
            "These rows were recorded on machines whose speeds differ by more than a tenth (the fixed work "
            f"took: {speeds}); record them anew on one."
        )
    columns = {"env_steps": "env steps"}
    if all(run.updates is not None for record in records for run in record.runs):
        columns["updates"] = "updates"
    if machines_differ(records):  # OLD FORM
        return columns, "No seconds: the rows were recorded on different CPUs."
    columns["seconds"] = "seconds"
    if len({record.is_old for record in records}) > 1:  # OLD FORM
        return columns, f"{_SECONDS} No CPU seconds: some rows count Ray's worker processes, some do not."
    columns["cpu_seconds"] = "CPU seconds"
    if records[0].is_old:  # OLD FORM
        return columns, f"{_SECONDS} CPU seconds leave out Ray's worker processes."
    return columns, f"{_SECONDS} CPU seconds add up all its processes, Ray's workers too."


_SECONDS = "Seconds count the whole program, from its start to its exit."


def comparison(source: str, language: str, css_class: str, options: dict, md, **kwargs) -> str:
    """A fence of `example: label` lines: a table of what each needed to reach its target."""
    labels = _labelled(source)
    records = [record_of(example) for example in labels]
    columns, sentence = _columns(records)
    rows = []
    for record, label in zip(records, labels.values(), strict=True):
        cells = [
            html.escape(label),
            f"{len(record.solved)} of {len(record.runs)}",
            "–" if record.target is None else f"{record.target:g}",
        ]
        for field in columns:
            values = [getattr(run, field) for run in record.solved]
            if not values:
                cells.append("–")
                continue
            form = "{:,}".format if field in _WHOLE else "{:.0f}".format
            median, least, most = (
                form(_rounded(value) if field in _WHOLE else value)
                for value in (statistics.median(values), min(values), max(values))
            )
            cells.append(f'{median} <span class="range">({least}–{most})</span>')
        rows.append(cells)
    return (
        table(
            "Comparison of programs", "comparison", ["program", "solved", "target", *columns.values()], rows
        )
        + '<p class="caption">Median over the solved seeds, in brackets the least and the most. '
        f"{html.escape(sentence, quote=False)}</p>"
    )


# `#!result algorithms/ppo seconds` ------------------------------------------------------------------


def _rounded(value: float) -> int:
    """Three significant digits: more would claim more than five seeds can tell."""
    return int(float(f"{value:.3g}"))


def _seconds(value: float) -> str:
    return f"{value:.0f} s"


_FIELDS = {
    "seconds": lambda record: _seconds(record.median("seconds")),
    "cpu_seconds": lambda record: _seconds(record.median("cpu_seconds")),
    "training_seconds": lambda record: _seconds(record.median("training_seconds")),
    "env_steps": lambda record: f"{_rounded(record.median('env_steps')):,}",
    "updates": lambda record: f"{_rounded(record.median('updates')):,}",
    "env_steps_per_second": lambda record: f"{_rounded(record.median('env_steps_per_second')):,}",
    "solved": lambda record: f"{len(record.solved)} of {len(record.runs)}",
    "seeds": lambda record: str(len(record.runs)),
    "target": lambda record: f"{record.target:g}",
    "cpu": lambda record: record.machine["cpu"],
    "cores": lambda record: str(record.machine["cores"]),
}


DRAWS = 10_000
LEAST_RUNS = 4  # fewer solved runs say nothing about an interval


@dataclass(frozen=True)
class Ratio:
    """The ratio of two medians, with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float
    solved_only: bool
    """Whether runs that missed their target are left out of it."""

    def __str__(self) -> str:
        low, high = map(_factor, (self.low, self.high))
        note = "; solved runs only" if self.solved_only else ""
        return f"{_factor(self.value)} (95 % interval {low} to {high}{note})"

    @property
    def excludes_one(self) -> bool:
        """Whether the interval, as it is printed, lies on one side of 1."""
        return float(_factor(self.low)) > 1 or float(_factor(self.high)) < 1


def _factor(value: float) -> str:
    """Two digits below 1, one above: `0.83`, `1.4`, `12.5`."""
    return f"{value:.2f}" if value < 0.995 else f"{value:.1f}"


@functools.lru_cache(maxsize=256)
def _interval(ones: tuple[float, ...], others: tuple[float, ...]) -> tuple[float, float]:
    """The percentile bootstrap of a ratio of medians; the runs of both are drawn independently."""
    import numpy as np  # here, because most builds find what they draw in the cache

    rng = np.random.default_rng(0)
    medians = [np.median(rng.choice(values, size=(DRAWS, len(values))), axis=1) for values in (ones, others)]
    low, high = np.percentile(medians[0] / medians[1], [2.5, 97.5])
    return float(low), float(high)


def ratio(field: str, one: str, other: str) -> Ratio:
    """The median of `field` of one example over that of another, both over the solved runs.

    Raises:
        PageError: seconds from machines of different speed, or too few solved runs.
    """
    records = record_of(one), record_of(other)
    said = f"`#!result ratio {field} {one} {other}`"
    if field not in _WHOLE:
        if machines_differ(records):
            how = "on different CPUs" if any(record.is_old for record in records) else "at different speeds"
            raise PageError(f"{said} compares times of machines {how}; record both anew.")
        if field == "cpu_seconds" and records[0].is_old != records[1].is_old:  # OLD FORM
            raise PageError(f"{said} compares CPU seconds with and without Ray's workers; record both anew.")
    for record in records:
        if len(record.solved) < LEAST_RUNS:
            raise PageError(
                f"{said} has no interval: {record.example} was solved with {len(record.solved)} "
                f"of {len(record.runs)} seeds."
            )
        if any(getattr(run, field) is None for run in record.solved):
            raise PageError(f"{said} asks for what the record of {record.example} does not hold.")
    values = [tuple(float(getattr(run, field)) for run in record.solved) for record in records]
    low, high = _interval(*values)
    return Ratio(
        statistics.median(values[0]) / statistics.median(values[1]),
        low,
        high,
        solved_only=any(len(record.solved) < len(record.runs) for record in records),
    )


def _ratio_words(words: list[str]) -> tuple[str, str, str]:
    _, field, one, other = words
    if field not in (*_WHOLE, "seconds", "cpu_seconds", "training_seconds", "env_steps_per_second"):
        raise KeyError(field)
    return field, one, other


def inline(source: str, language: str, css_class: str, md) -> str:
    """A number from a record, or a pinned version, in running text.

    `#!result EXAMPLE FIELD`, `#!result ratio FIELD EXAMPLE EXAMPLE` (with its 95 % interval) or
    `#!version PACKAGE`.

    Raises:
        PageError: there is no such record, field or package.
    """
    words = source.split()
    try:
        if language == "version":
            text = pinned()[words[0].lower()]
        elif words[0] == "ratio":
            text = str(ratio(*_ratio_words(words)))
        else:
            text = _FIELDS[words[1]](record_of(words[0]))
    except (KeyError, IndexError, ValueError, statistics.StatisticsError):
        raise PageError(f"`#!{language} {source}` names nothing that is recorded.") from None
    return f'<span class="result">{html.escape(text)}</span>'


def pinned() -> dict[str, str]:
    """The pinned version of each package, from requirements.txt."""
    pin = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==([^\s;]+)", re.MULTILINE)
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    return {name.lower().replace("_", "-"): number for name, number in pin.findall(text)}
