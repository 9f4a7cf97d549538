"""How RLlib scales: a chart, a table and a calculator, all from one record.

The record's program fits a model of an iteration's seconds and prints it. What is shown here is computed from
the printed coefficients, by the same formula as in the program and in docs/assets/javascripts/scale.js.
"""

import html
import json
import math
import re
from dataclasses import dataclass, replace

from . import PageError
from .cache import drawn, source_of
from .records import record_of
from .results import chart, themed
from .tables import table

GBIT = 1.25e8  # bytes a second
# Of the program, which varies neither: env steps of an episode, and of a minibatch.
LENGTH, MINIBATCH = 200, 128


@dataclass(frozen=True)
class Size:
    """What an iteration's seconds depend on. Waits and computing are in seconds, the network is in Gbit/s."""

    runners: int = 100
    envs: int = 4
    wait: float = 0.01
    compute: float = 0.0
    batch: int = 32_000
    epochs: int = 4
    cores: int = 0  # one for each env runner
    per_machine: int = 32
    network: float = 10.0


# What the form asks for: name, words, least value, step, and what one of it is in the unit of `Size`.
INPUTS = [
    ("runners", "env runners", 1, 1, 1),
    ("envs", "envs in each", 1, 1, 1),
    ("wait", "a step waits, ms", 0, "any", 0.001),
    ("compute", "a step computes, ms", 0, "any", 0.001),
    ("batch", "env steps of a batch", 1, 1, 1),
    ("epochs", "epochs", 1, 1, 1),
    ("cores", "cores for all env runners (0: one each)", 0, 1, 1),
    ("per_machine", "env runners on a machine", 1, 1, 1),
    ("network", "network, Gbit/s", 0.001, "any", 1),
]
FITTED = ("cpu", "collect", "learn", "weights", "rest", "bytes")
PARTS = ("sampling", "learning", "weights", "rest", "network", "iteration")


@dataclass(frozen=True)
class Row:
    """One measured size: its parts, and what the program's own model gave for the iteration."""

    size: Size
    sampling: float
    iteration: float
    model: float
    held_out: bool


def model_of(output: str) -> dict:
    """The seconds (of episodes the bytes) of each thing, by part and term, and the bytes of the weights.

    Raises:
        PageError: the output holds no such lines.
    """
    model: dict = {}
    for part, term, value in re.findall(rf"^  ({'|'.join(FITTED)}) +(\w+) +([\d.]+)$", output, re.M):
        if term == "weights":
            model["weights_bytes"] = float(value)
        else:
            model.setdefault(part, {})[term] = float(value) * (1 if part == "bytes" else 1e-6)
    if set(model) != {*FITTED, "weights_bytes"}:
        raise PageError("This record does not print the coefficients of a model.")
    return model


def rows_of(output: str) -> tuple[int, list[Row]]:
    """How many cores the measurements had, and the measurements."""
    cores = int(re.search(r" on (\d+) cores", output)[1])
    rows = []
    number = r" +([\d.]+)"
    for line in re.finditer(rf"^ *(\d+){number * 10} +[+-]\d+%(\*?)$", output, re.M):
        runners, envs, wait, batch, epochs, sample, _, _, _, iteration, model = map(float, line.groups()[:11])
        size = Size(
            runners=int(runners),
            envs=int(envs),
            wait=wait / 1000,
            batch=int(batch),
            epochs=int(epochs),
            cores=cores,
            per_machine=int(runners),
        )
        rows.append(Row(size, sample, iteration, model, line[12] == "*"))
    return cores, rows


def foretell(model: dict, size: Size) -> dict[str, float]:
    """The seconds of each part of an iteration, its env steps a second, and the share that runners idle."""
    batch = max(size.batch, size.runners * size.envs)  # each copy takes a step at least
    fragments = size.runners * size.envs + batch / LENGTH
    happens = {
        "vector_step": batch / size.envs,
        "env_step": batch,
        "wake": batch if size.wait > 0 else 0,
        "once": 1,
        "runner": size.runners,
        "fragment": fragments,
        "gradient_step": math.ceil(size.epochs * (batch + fragments) / MINIBATCH),
    }

    def takes(part: str) -> float:
        return sum(seconds * happens[term] for term, seconds in model[part].items())

    work = (takes("cpu") + batch * size.compute) / size.runners
    waits = batch * size.wait / size.runners
    cores = size.cores or size.runners
    machines = math.ceil(size.runners / size.per_machine)
    elsewhere = max(0, size.runners - size.per_machine) / size.runners  # than the learner
    sent = takes("bytes") * elsewhere + model["weights_bytes"] * (machines - 1)
    parts = {
        "sampling": max(work + waits, work * size.runners / cores) + takes("collect"),
        "learning": takes("learn"),
        "weights": takes("weights"),
        "rest": takes("rest"),
        "network": sent / (size.network * GBIT),
    }
    parts["iteration"] = sum(parts.values())
    parts["env_steps_per_second"] = batch / parts["iteration"]
    parts["idle"] = 1 - (work + waits) / parts["iteration"]
    return parts


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}"


# Ten times as many env runners: first for the same batch, then each with as much to do as before.
SHOWN = [Size(runners=n) for n in (10, 100, 1000)] + [Size(runners=n, batch=320 * n) for n in (10, 100, 1000)]


def calculator(source: str, language: str, css_class: str, options: dict, md, **kwargs) -> str:
    """A fence that names the example: a table for 10, 100 and 1000 env runners, and a form above it.

    The form stays hidden until its script runs, which extensions/theme/main.html loads where there is a form.
    Without scripts the table stands alone.
    """
    model = model_of(record_of(source).output)
    fields = "".join(
        f'<label>{words} <input type="number" name="{name}" data-unit="{unit}" min="{least}" step="{step}" '
        f'value="{getattr(Size, name) / unit:g}" required></label>'
        for name, words, least, step, unit in INPUTS
    )
    names = [*((part, part) for part in PARTS), ("env_steps_per_second", "env steps a second")]
    names.append(("idle", "env runners idle"))
    found = "".join(
        f'<div><dt>{words}</dt><dd><output name="{name}" aria-live="off">–</output></dd></div>'
        for name, words in names
    )
    rows = []
    for size in SHOWN:
        parts = foretell(model, size)
        rows.append(
            [
                f"{size.runners:,}",
                f"{size.batch:,}",
                *(_seconds(parts[part]) for part in PARTS),
                f"{parts['env_steps_per_second']:,.0f}",
                f"{parts['idle']:.0%}".replace("%", " %"),
            ]
        )
    heads = ["env runners", "batch", *PARTS, "env steps/s", "idle"]
    return (
        f'<form class="calculator" aria-label="Seconds of an iteration" data-model=\'{json.dumps(model)}\' '
        f'hidden><div class="fields">{fields}</div>'
        f'<dl>{found}</dl><p class="said" role="status"></p></form>'
        + table("Foretold for 10, 100 and 1000 env runners", "foretold", heads, rows)
        + '<p class="caption">Seconds of an iteration and of its parts, env steps a second, and the share of '
        "the iteration in which an env runner neither works nor waits for its environment.</p>"
    )


def check(source: str, language: str, css_class: str, options: dict, md, **kwargs) -> str:
    """A fence that names the example: what was foretold for held-out sizes, and what was measured."""
    output = record_of(source).output
    model, rows = model_of(output), []
    for row in rows_of(output)[1]:
        if row.held_out:
            size, seconds = row.size, foretell(model, row.size)["iteration"]
            numbers = (size.runners, size.envs, f"{1000 * size.wait:g} ms", size.batch, size.epochs)
            rows.append(
                [
                    *map(str, numbers),
                    f"{seconds:.3f}",
                    f"{row.iteration:.3f}",
                    f"{seconds / row.iteration - 1:+.0%}".replace("%", " %"),
                ]
            )
    heads = ["env runners", "envs", "wait", "batch", "epochs", "foretold, s", "measured, s", "off by"]
    return table("Foretold and measured", "foretold", heads, rows)


# The chart ------------------------------------------------------------------------------------------

SERIES = {
    "waits: 1 env that waits 4 ms": {"envs": 1, "wait": 0.004, "batch": 128, "epochs": 4},
    "computes: 8 envs that do not wait": {"envs": 8, "wait": 0.0, "batch": 2048, "epochs": 1},
}


def _draw(output: str) -> str:
    model, (cores, rows) = model_of(output), rows_of(output)
    with chart() as (figure, axes):
        for colour, (label, kind) in zip(("#010101", "#020202"), SERIES.items(), strict=True):
            chosen = [row for row in rows if all(getattr(row.size, key) == kind[key] for key in kind)]
            if len(chosen) < 2:
                raise PageError(f"This record has no measurements for the chart's line {label!r}.")
            runners = [row.size.runners for row in chosen]
            rates = [row.size.batch / row.sampling for row in chosen]
            axes.plot(runners, rates, "o", color=colour, label=label)
            axes.plot(runners, [rates[0] * n / runners[0] for n in runners], "--", color=colour, linewidth=1)
            grid = [runners[0] + (runners[-1] - runners[0]) * step / 99 for step in range(100)]
            foretold = [
                kind["batch"] / foretell(model, replace(chosen[0].size, runners=n, per_machine=n))["sampling"]
                for n in grid
            ]
            axes.plot(grid, foretold, color=colour, linewidth=2)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=10)
        axes.set_xticks(runners, [str(n) for n in runners])
        axes.minorticks_off()
        axes.set_xlabel(f"env runners on {cores} cores")
        axes.set_ylabel("env steps sampled a second")
        axes.grid(alpha=0.15)
        axes.legend(frameon=False, loc="best")
        return themed(
            figure, f"Env steps sampled a second against the number of env runners: {', '.join(SERIES)}."
        )


def speed(source: str, language: str, css_class: str, options: dict, md, **kwargs) -> str:
    """A fence that names the example: sampling against the number of env runners, with the ideal lines."""
    output = record_of(source).output
    svg = drawn(f"speed {source_of(__file__)}", output, lambda: _draw(output))
    caption = (
        "Dots: measured. Thick lines: the model. Dashed lines: ideal, each env runner adds as much as the "
        "first. Both axes are logarithmic."
    )
    return f'<figure class="curve">{svg}<figcaption>{html.escape(caption)}</figcaption></figure>'
