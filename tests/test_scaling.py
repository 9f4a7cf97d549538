"""How RLlib scales: what the page foretells follows from the record, in Python and in JavaScript alike."""

import html
import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import quickjs

from extensions import PageError, scaling
from extensions.records import record_of
from extensions.scaling import INPUTS, PARTS, SHOWN, Size, foretell, model_of, rows_of
from tests.conftest import ROOT

EXAMPLE = "scaling/scale_measure"
SCRIPT = ROOT / "docs" / "assets" / "javascripts" / "scale.js"
MODEL = {
    "cpu": {"vector_step": 7e-4, "env_step": 3e-5, "wake": 1e-4},
    "collect": {"once": 4e-3, "runner": 1e-3, "fragment": 5e-5, "env_step": 1e-6},
    "learn": {"once": 5e-3, "fragment": 1e-4, "env_step": 2e-6, "gradient_step": 3e-3},
    "weights": {"once": 2e-3, "runner": 1e-3},
    "rest": {"once": 5e-3, "runner": 3e-3, "fragment": 1e-5},
    "bytes": {"fragment": 3000.0, "env_step": 80.0},
    "weights_bytes": 60_000.0,
}
SIZES = [
    Size(),
    Size(runners=1, envs=1, wait=0.0, batch=1000, per_machine=1),
    Size(runners=8, envs=16, wait=0.0, compute=0.002, cores=2, batch=2048, per_machine=3),
    Size(runners=1000, batch=777, epochs=3, per_machine=7, network=0.5),  # 4000 env steps at least
]


def test_the_model_adds_up_by_hand():
    """Two env runners on one core, worked out on paper."""
    size = Size(runners=2, envs=4, wait=0.01, batch=800, epochs=3, cores=1)
    parts = foretell(MODEL, replace(size, per_machine=1, network=1.0))
    work = 200 * 7e-4 + 800 * 3e-5 + 800 * 1e-4  # of both
    waits = 4.0  # 400 env steps of 10 ms in each env runner
    fragments = 2 * 4 + 4  # each copy has one at the end; 800 env steps end four episodes of 200
    assert parts["sampling"] == pytest.approx(work / 2 + waits + 4e-3 + 2e-3 + fragments * 5e-5 + 800e-6), (
        "the waits are longer than the work of both on one core"
    )
    assert parts["learning"] == pytest.approx(5e-3 + fragments * 1e-4 + 800 * 2e-6 + 20 * 3e-3), (
        "3 epochs of 812 steps, 128 a minibatch"
    )
    assert parts["weights"] == pytest.approx(4e-3)
    assert parts["rest"] == pytest.approx(5e-3 + 6e-3 + fragments * 1e-5)
    sent = (fragments * 3000 + 800 * 80) / 2 + 60_000  # half of the episodes, the weights once
    assert parts["network"] == pytest.approx(sent * 8 / 1e9)
    assert parts["iteration"] == pytest.approx(sum(parts[part] for part in PARTS[:-1]))
    assert parts["env_steps_per_second"] == pytest.approx(800 / parts["iteration"])
    assert parts["idle"] == pytest.approx(1 - (work / 2 + waits) / parts["iteration"])
    computing = foretell(MODEL, replace(size, wait=0.0, compute=0.5))
    assert computing["sampling"] > 400, "one core does the work of two env runners"
    apart = foretell(MODEL, replace(size, runners=3, per_machine=2, network=1.0))
    sent = ((3 * 4 + 4) * 3000 + 800 * 80) / 3 + 60_000  # one of three is on another machine
    assert apart["network"] == pytest.approx(sent * 8 / 1e9)
    least = replace(size, batch=8)  # each of 2 * 4 copies takes one step
    assert foretell(MODEL, replace(size, batch=1)) == foretell(MODEL, least)


def test_the_script_computes_what_python_computes():
    context = quickjs.Context()
    context.eval(SCRIPT.read_text(encoding="utf-8"))
    for model in (MODEL, model_of(record_of(EXAMPLE).output)):
        for size in SIZES:
            call = f"JSON.stringify(foretell({json.dumps(model)}, {json.dumps(asdict(size))}))"
            found, expected = json.loads(context.eval(call)), foretell(model, size)
            assert set(found) == set(expected)
            for part, value in expected.items():
                assert found[part] == pytest.approx(value, rel=1e-12), (part, size)


def test_episodes_and_minibatches_are_the_programs():
    program = (ROOT / "examples" / f"{EXAMPLE}.py").read_text(encoding="utf-8")
    assert f"LENGTH, MINIBATCH = {scaling.LENGTH}, {scaling.MINIBATCH} " in program
    script = SCRIPT.read_text(encoding="utf-8")
    assert f"const LENGTH = {scaling.LENGTH};\nconst MINIBATCH = {scaling.MINIBATCH};" in script


def test_the_form_asks_for_each_thing_that_the_model_needs():
    assert [name for name, *_ in INPUTS] == list(asdict(Size()))


# The record -----------------------------------------------------------------------------------------


def test_the_record_foretold_what_it_was_not_fitted_to():
    """By a factor of 1.25 at most: the program itself is more lenient when other programs disturb it."""
    record = record_of(EXAMPLE)
    assert all(run.solved for run in record.runs)
    model, (_, rows) = model_of(record.output), rows_of(record.output)
    held_out = [row for row in rows if row.held_out]
    assert len(held_out) >= 3 and len(rows) >= 20
    assert "no good time to judge" not in record.output, "record it again, on a quiet machine"
    most = max(row.size.runners for row in rows if not row.held_out)
    assert max(row.size.runners for row in held_out) > most, "one lies outside of what was fitted"
    for row in held_out:
        factor = foretell(model, row.size)["iteration"] / row.iteration
        assert max(factor, 1 / factor) <= 1.25, row


def test_the_page_computes_what_the_program_computed():
    """The program prints its own model's seconds; the page has nothing but the printed coefficients."""
    record = record_of(EXAMPLE)
    model = model_of(record.output)
    for row in rows_of(record.output)[1]:
        assert foretell(model, row.size)["iteration"] == pytest.approx(row.model, rel=0.005, abs=0.002), row


def test_an_output_without_coefficients_is_refused():
    output = record_of(EXAMPLE).output
    with pytest.raises(PageError, match="does not print the coefficients"):
        model_of(re.sub(r"^  learn .*\n", "", output, flags=re.MULTILINE))


# The page -------------------------------------------------------------------------------------------


def page(site: Path) -> str:
    return (site / "scaling" / "how_it_scales" / "index.html").read_text(encoding="utf-8")


def cells(text: str, label: str) -> list[list[str]]:
    [found] = re.findall(rf'aria-label="{label}">.*?<tbody>(.*?)</tbody>', text, flags=re.DOTALL)
    return [re.findall(r"<td>(.*?)</td>", row) for row in found.split("</tr>")[:-1]]


def test_the_table_on_the_page_is_that_of_the_record(site):
    model = model_of(record_of(EXAMPLE).output)
    rows = cells(page(site), "Foretold for 10, 100 and 1000 env runners")
    assert [row[0] for row in rows] == ["10", "100", "1,000"] * 2
    for row, size in zip(rows, SHOWN, strict=True):
        parts = foretell(model, size)
        assert row[1] == f"{size.batch:,}"
        for text, part in zip(row[2:8], PARTS, strict=True):
            assert float(text) == pytest.approx(parts[part], rel=0.01, abs=0.005), part
        assert row[8] == f"{parts['env_steps_per_second']:,.0f}"


def test_the_prediction_stands_beside_the_measurement(site):
    rows = rows_of(record_of(EXAMPLE).output)[1]
    shown = cells(page(site), "Foretold and measured")
    assert [row[6] for row in shown] == [f"{row.iteration:.3f}" for row in rows if row.held_out]


def test_the_form_has_the_records_coefficients_and_is_hidden_without_its_script(site):
    [form] = re.findall(r"<form class=\"calculator\".*?</form>", page(site), flags=re.DOTALL)
    [model] = re.findall(r"data-model='(.*?)'", form)
    assert json.loads(html.unescape(model)) == model_of(record_of(EXAMPLE).output)
    assert " hidden>" in form.partition("<div")[0]
    assert form.count("<label>") == form.count("<input ") == len(INPUTS)
    [script] = re.findall(r'<script src="([^"]*scale\.js)" defer>', page(site))
    assert (site / "scaling" / "how_it_scales" / script).resolve().is_file()
    others = [file for file in site.rglob("*.html") if file.parent.name != "how_it_scales"]
    assert not [file for file in others if "scale.js" in file.read_text(encoding="utf-8")]


def test_the_chart_has_measurements_the_model_and_ideal_lines(monkeypatch):
    monkeypatch.setattr(scaling, "drawn", lambda kind, source, draw: draw())
    svg = scaling.speed(EXAMPLE, "speed", "speed", {}, None)
    for words in (*scaling.SERIES, "env runners on 2 cores", "env steps sampled a second"):
        assert html.escape(words) in svg
    assert svg.count("var(--series-1)") >= 3 and svg.count("var(--series-2)") >= 3


@pytest.mark.slow
@pytest.mark.parametrize("scripts", [True, False])
def test_the_calculator_by_keyboard_and_without_scripts(site, browser, scripts):
    context = browser.new_context(java_script_enabled=scripts, offline=True)
    tab = context.new_page()
    tab.goto(f"file://{site}/scaling/how_it_scales/index.html")
    form = tab.locator("form.calculator")
    assert tab.locator(".foretold table").last.is_visible()
    assert form.is_visible() == scripts
    if scripts:
        model = model_of(record_of(EXAMPLE).output)

        def shown() -> str:
            return form.locator("output[name=iteration]").inner_text()

        seconds = foretell(model, Size())["iteration"]
        assert float(shown().removesuffix(" s")) == pytest.approx(seconds, rel=0.01)
        tab.get_by_label("env runners", exact=True).focus()
        tab.keyboard.press("Control+A")
        tab.keyboard.type("1000")
        expected = foretell(model, Size(runners=1000))["iteration"]
        assert float(shown().removesuffix(" s")) == pytest.approx(expected, rel=0.01)
        tab.keyboard.press("Control+A")
        tab.keyboard.type("0")
        assert shown() == "–", "without env runners there is nothing to foretell"
        tab.keyboard.type("8")
        assert not form.locator(".said").text_content(), "nothing is read aloud while one types"
        tab.keyboard.press("Tab")
        assert form.locator(".said").text_content().startswith(f"Iteration {shown()}, ")
    context.close()
