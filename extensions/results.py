"""Shows records on pages: printed output, learning curves, comparison tables, single numbers."""

import html
import io
import re
import statistics

import yaml

from . import PageError
from .cache import ROOT, drawn, source_of
from .records import Record, path_of, record_of
from .tables import table

# ```output ------------------------------------------------------------------------------------------


def output(source: str, language: str, css_class: str, options: dict, md, **kwargs) -> str:
    """A fence that names an example: what its recorded run printed."""
    record = record_of(source)
    run = record.runs[0]
    caption = (
        f"Printed by the recorded run with seed {run.seed}: {_seconds(run.seconds)} on "
        f"{record.machine['cores']} cores ({html.escape(record.machine['cpu'])}), {record.recorded_at[:10]}."
    )
    return (
        f'<figure class="output"><pre tabindex="0"><code>{html.escape(record.output.rstrip())}</code></pre>'
        f"<figcaption>{caption}</figcaption></figure>"
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


def _draw_curves(records: dict[str, Record]) -> str:
    import matplotlib
    import numpy as np

    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import EngFormatter

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "rllib-by-example",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    # Placeholder colours: site.css gives each series its colour in the light and in the dark scheme.
    placeholders = ["#010101", "#020202", "#030303", "#040404"]
    with plt.rc_context(settings):
        figure, axes = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
        for colour, (label, record) in zip(placeholders, records.items(), strict=False):
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
        axes.set_ylabel("mean return")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlim(left=0)
        axes.grid(alpha=0.15)
        axes.legend(frameon=False, loc="best")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
        plt.close(figure)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    for number, colour in enumerate(placeholders, 1):
        svg = svg.replace(colour, f"var(--series-{number})")
    svg = svg.replace("#000000", "currentColor")
    svg = re.sub(
        r"(<svg[^>]*?) width=\"[^\"]*\"", r"\1", re.sub(r"(<svg[^>]*?) height=\"[^\"]*\"", r"\1", svg)
    )
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 var(--md-text-font-family, sans-serif)", svg)
    names = "; ".join(
        f"{label}: {len(record.solved)} of {len(record.runs)} seeds solved"
        for label, record in records.items()
    )
    label = html.escape(f"Learning curves, mean return over env steps. {names}.", quote=True)
    # Without this, text without a fill of its own stays black in the dark scheme.
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{label}" fill="currentColor" ', 1)
    return svg.replace("\n", " ")


def curve(source: str, language: str, css_class: str, options: dict, md, **kwargs) -> str:
    """A fence of `example: label` lines: all seeds (thin) and their median (thick) in one chart."""
    labels = _labelled(source)
    records = {label: record_of(example) for example, label in labels.items()}
    texts = "\n".join(path_of(example).read_text(encoding="utf-8") for example in labels)
    svg = drawn(f"curve {source_of(__file__)}", f"{source}\n{texts}", lambda: _draw_curves(records))
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


def machines(cpus: dict[str, str]) -> str:
    """Which rows were recorded on which CPU, as a sentence; `cpus` holds the CPU of each label."""
    rows: dict[str, list[str]] = {}
    for label, cpu in cpus.items():
        rows.setdefault(cpu, []).append(label)
    if len(rows) == 1:
        return f"All were recorded on {next(iter(rows))}."
    places = "; ".join(f"{', '.join(labels)} on {cpu}" for cpu, labels in rows.items())
    return f"Seconds compare only rows that were recorded on the same CPU: {places}."


def comparison(source: str, language: str, css_class: str, options: dict, md, **kwargs) -> str:
    """A fence of `example: label` lines: a table of what each needed to reach its target."""
    labels = _labelled(source)
    rows, cpus = [], {}
    for example, label in labels.items():
        record = record_of(example)
        cpus[label] = record.machine["cpu"]
        cells = [
            html.escape(label),
            f"{len(record.solved)} of {len(record.runs)}",
            "–" if record.target is None else f"{record.target:g}",
        ]
        for field in ("env_steps", "seconds", "cpu_seconds"):
            values = [getattr(run, field) for run in record.solved]
            if not values:
                cells.append("–")
                continue
            form = (
                (lambda value: f"{_rounded(value):,}")
                if field == "env_steps"
                else (lambda value: f"{value:.0f}")
            )
            cells.append(
                f"{form(statistics.median(values))} "
                f'<span class="range">({form(min(values))}–{form(max(values))})</span>'
            )
        rows.append(cells)
    heads = ["program", "solved", "target", "env steps", "seconds", "CPU seconds"]
    return (
        table("Comparison of programs", "comparison", heads, rows)
        + '<p class="caption">Median over the solved seeds, in brackets the least and the most. '
        "Seconds count the whole program, from its start to its exit. CPU seconds leave out Ray's worker "
        "processes: env runners, learners and other actors outside the program itself. "
        f"{html.escape(machines(cpus))}</p>"
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
    "env_steps_per_second": lambda record: f"{_rounded(record.median('env_steps_per_second')):,}",
    "solved": lambda record: f"{len(record.solved)} of {len(record.runs)}",
    "seeds": lambda record: str(len(record.runs)),
    "target": lambda record: f"{record.target:g}",
    "cpu": lambda record: record.machine["cpu"],
    "cores": lambda record: str(record.machine["cores"]),
}


def _ratio(words: list[str]) -> str:
    """`ratio seconds A B`: the median of A over the median of B.

    Raises:
        PageError: times that were measured on different CPUs.
    """
    field, one, other = words
    records = record_of(one), record_of(other)
    if field != "env_steps" and len({record.machine["cpu"] for record in records}) > 1:
        raise PageError(
            f"`#!result ratio {' '.join(words)}` compares times on different CPUs; record both anew."
        )
    return f"{records[0].median(field) / records[1].median(field):.1f}"


def inline(source: str, language: str, css_class: str, md) -> str:
    """A number from a record, or a pinned version, in running text.

    `#!result EXAMPLE FIELD`, `#!result ratio FIELD EXAMPLE EXAMPLE` or `#!version PACKAGE`.

    Raises:
        PageError: there is no such record, field or package.
    """
    words = source.split()
    try:
        if language == "version":
            text = pinned()[words[0].lower()]
        elif words[0] == "ratio":
            text = _ratio(words[1:])
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
