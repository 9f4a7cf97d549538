"""The records stand for the programs and the versions that are here now, and cannot lie about them."""

import copy
import dataclasses
import hashlib
import json
import re
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest

from extensions import PageError, results
from extensions.records import FORM, RESULTS, Record, Run, machines_differ, path_of, read
from extensions.results import pinned
from runner.judge import VERDICT
from runner.pages import has_target
from tests.conftest import ROOT
from tools.programs import (
    enough_solved,
    how_many_seeds,
    seeds_of,
    split_switches,
    trains_with_tune,
    verdict_problem,
)
from tools.record import PACKAGES, all_switched, curve_of, needed_examples, points

EXAMPLES = needed_examples()
SWITCHED = all_switched()  # ablations and other environments: records that may hold failures


def source_of(name: str) -> bytes:
    return (ROOT / "examples" / f"{split_switches(name)[0]}.py").read_bytes()


LEARNING = [example for example in EXAMPLES if has_target(source_of(example).decode())]

# Programs that may take longer than a reader wants to wait, and why. An entry that is not needed fails.
LONG = {
    "scaling/twenty_kills": "it starts and ends a training twenty times",
    "scaling/tune_kills": "it starts and ends a search twelve times",
}
# Seeds whose curves may be the same, and why. An entry that is not needed any more fails.
SAME_CURVES = {
    **dict.fromkeys(
        ("algorithms/iqn", "algorithms/qmix", "algorithms/vdn"),
        "greedy play in a game without chance, which has a handful of returns",
    ),
    **dict.fromkeys(
        ("algorithms/iqn+ENV=Expedition", "algorithms/qmix+ENV=Expedition", "algorithms/vdn+ENV=Expedition"),
        "greedy play in a game without chance, which has a handful of returns",
    ),
    "approaches/hierarchical_flat": "it never finds the treasure, so every return is 0",
}


@pytest.mark.parametrize("example", [*EXAMPLES, *SWITCHED])
def test_the_record_is_of_this_source_and_these_versions(example):
    renew = f"renew it with: make record EXAMPLES={example}"
    file = path_of(example)
    assert file.is_file(), f"{example} has no record; {renew}"
    record = read(file)
    assert record.example == example
    assert record.source_sha256 == hashlib.sha256(source_of(example)).hexdigest(), (
        f"{example} has changed since its record; {renew}"
    )
    for name, sha in record.beside.items():
        assert hashlib.sha256((ROOT / name).read_bytes()).hexdigest() == sha, f"{name} has changed; {renew}"
    pins = pinned() | {"python": "3.11"}
    for package in ("python", *PACKAGES):
        assert record.versions[package] == pins[package], (
            f"{example} was recorded with another {package} than {pins[package]}; {renew}"
        )


# Every record ---------------------------------------------------------------------------------------


def problems(record: Record, source: bytes) -> list[str]:
    """All that is wrong with a record of this source, one sentence each."""
    example, learns = record.example, has_target(source.decode())
    found = [f"it ran on {record.machine['cores']} cores, not on 2"] if record.machine["cores"] != 2 else []
    if record.is_old:  # OLD FORM: five seeds that somebody chose, of which all have to be solved
        enough = len(record.runs) >= 5 and ("+" in example or len(record.solved) == len(record.runs))
        found += [] if enough else ["fewer than five seeds, or not all solved"]
    else:
        found += _seed_problems(record, source)
        found += [f"seed {run.seed}: {text}" for run in record.runs for text in _new_run_problems(run)]
        if learns and (problem := verdict_problem(source.decode())):
            found.append(f"examples/{split_switches(example)[0]}.py:{problem[0]}: {problem[1]}")
    found += [f"seed {run.seed}: {text}" for run in record.runs for text in _run_problems(run, record)]
    if learns:
        # OLD FORM: some old programs printed their progress in other words, so they have no points.
        curve = example.startswith(("algorithms/", "approaches/")) or not record.is_old
        if curve and not trains_with_tune(source.decode()):
            found += [f"seed {run.seed}: no curve" for run in record.solved if not run.points]
        found += _output_problems(record)
    same = _same_curves(record)
    if same and example not in SAME_CURVES:
        found.append(f"the seeds {same[0]} and {same[1]} have the same curve")
    return found


def _same_curves(record: Record) -> tuple[int, int] | None:
    for one, other in combinations(record.runs, 2):
        curves = [[point[:2] for point in run.points] for run in (one, other)]
        if curves[0] and curves[0] == curves[1]:
            return one.seed, other.seed
    return None


def _seed_problems(record: Record, source: bytes) -> list[str]:
    drawn = seeds_of(record.example, source, how_many_seeds(record.example, source.decode()))
    found = []
    if [run.seed for run in record.runs] != drawn:
        found.append(f"its seeds are not those that its source draws: {drawn}")
    if "+" not in record.example and not enough_solved(len(record.solved), len(record.runs)):
        found.append(f"only {len(record.solved)} of {len(record.runs)} seeds are solved")
    return found


def _run_problems(run: Run, record: Record) -> list[str]:
    found = []
    limit = 900 if "+" in record.example or record.example in LONG or not run.solved else 150
    if not (0 < run.seconds <= limit and run.cpu_seconds > 0):
        found.append(f"it took {run.seconds} s and {run.cpu_seconds} CPU seconds")
    if record.target is not None and run.solved != (
        run.greedy_return is not None and run.greedy_return >= record.target
    ):
        found.append(f"solved is {run.solved}, with {run.greedy_return} for a target of {record.target}")
    steps, seconds = [point[0] for point in run.points], [point[2] for point in run.points]
    if steps != sorted(set(steps)):
        found.append("its env steps do not rise from point to point")
    if seconds != sorted(seconds):
        found.append("its seconds fall from one point to the next")
    if record.is_old and steps and run.env_steps != steps[-1]:  # OLD FORM: the last point was all it had
        found.append("it did not take the env steps that its curve ends with")
    if steps and run.env_steps < steps[-1]:
        found.append("it took fewer env steps than its curve shows")
    return found


def _new_run_problems(run: Run) -> list[str]:
    found = []
    if len(run.work_seconds) != 2 or not all(0.01 < seconds < 60 for seconds in run.work_seconds):
        found.append("the speed of its machine was not measured before and after")
    elif max(run.work_seconds) > 1.1 * min(run.work_seconds) and not run.repeated:
        found.append("the speed of its machine changed, and it was not repeated")
    if run.greedy_return is not None and (run.episodes or 0) < 20:
        found.append(f"its verdict rests on {run.episodes} episodes")
    return found


def _output_problems(record: Record) -> list[str]:
    """The printed output has to be that of the first seed."""
    first, found = record.runs[0], []
    verdicts = list(VERDICT.finditer(record.output))
    if (first.greedy_return is None) != (not verdicts):
        return ["the printed output has a verdict and its seed none, or the other way round"]
    if verdicts:
        [verdict] = verdicts
        digits = len(verdict["value"].partition(".")[2])
        if abs(float(verdict["value"]) - first.greedy_return) > 0.5001 * 10**-digits:
            found.append("the printed verdict is not that of the first seed")
        if float(verdict["target"]) != record.target:
            found.append("the printed target is not the record's")
        if record.output.splitlines()[-1] != verdict[0]:
            found.append("the verdict is not the last line")
        if not record.is_old and int(verdict["episodes"]) != first.episodes:
            found.append("the printed number of episodes is not that of the first seed")
    if [tuple(point) for point in points(record.output)] != first.points:
        found.append("the printed progress is not that of the first seed")
    if not record.is_old and curve_of(record.output) != record.curve:
        found.append("the printed progress lines speak of another curve")
    return found


@pytest.mark.parametrize("example", [*EXAMPLES, *SWITCHED])
def test_the_record_does_not_lie(example):
    found = problems(read(path_of(example)), source_of(example))
    assert not found, f"results/{example}.json:1: " + "; ".join(found)


@pytest.mark.parametrize("example", SWITCHED)
def test_a_record_with_switches_is_whole(example):
    name, switches = split_switches(example)
    for switch in switches:
        assert f'"{switch}"' in source_of(example).decode(), f"{name} does not read {switch}"
    for run in read(path_of(example)).runs:
        learns = read(path_of(name)).runs[0].points
        assert run.points or not learns, f"seed {run.seed} ended without learning"


def test_the_list_of_equal_curves_is_no_longer_than_it_has_to_be():
    assert [name for name in SAME_CURVES if _same_curves(read(path_of(name))) is None] == []


def test_the_list_of_long_programs_is_no_longer_than_it_has_to_be():
    assert [name for name in LONG if read(path_of(name)).median("seconds") <= 150] == []


def test_no_record_without_its_example():
    known = {path_of(example) for example in [*EXAMPLES, *SWITCHED] if split_switches(example)[0] in EXAMPLES}
    others = {RESULTS / f"rllib_{name}.json" for name in ("defaults", "support", "history")}
    others |= set((RESULTS / "releases").glob("*.json"))
    assert set(RESULTS.rglob("*.json")) - known - others == set(), "no page shows these"


def test_the_readme_explains_every_key():
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    keys = {field.name for kind in (Record, Run) for field in dataclasses.fields(kind)}
    for key in keys - {"runs"} | {"seeds"}:  # a record's `seeds` are read into its `runs`
        assert f"| `{key}` " in text, f"results/README.md does not explain {key}"


def test_the_old_form_goes_with_its_last_record(capsys):
    """OLD FORM: this test, too."""
    records = [read(path_of(example)) for example in [*EXAMPLES, *SWITCHED]]
    old = [record.example for record in records if record.is_old]
    with capsys.disabled():
        print(f"\n{len(old)} of {len(records)} records are in the old form", end=" ")
    marks = [
        f"{file.relative_to(ROOT)}:{number}"
        for folder in ("extensions", "tests", "tools")
        for file in sorted((ROOT / folder).rglob("*.py"))
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if "OLD FORM" in line
    ]
    assert old or not marks, (
        f"No record is in the old form any more; delete what reads it: {', '.join(marks)}"
    )


# Planted lies ---------------------------------------------------------------------------------------

SOURCE = b"""\
TARGET = 10
while evaluated < TARGET:
    algo.train()
    evaluated = algo.evaluate()
greedy_return = algo.evaluate()
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
"""
NAME = "concepts/toy"


def made_up(name: str = NAME, source: bytes = SOURCE, **changes) -> dict:
    """A record in the new form that holds every rule, as JSON."""
    seeds = []
    for number, seed in enumerate(seeds_of(name, source, how_many_seeds(name, source.decode()))):
        seeds.append(
            {
                "seed": seed,
                "solved": True,
                "seconds": 20.0 + number,
                "cpu_seconds": 30.0 + number,
                "work_seconds": [0.3, 0.31],
                "repeated": False,
                "env_steps": 2100 + number,
                "updates": 40 + number,
                "greedy_return": 12.04 + number,
                "episodes": 20,
                "points": [[1000, 5.0 + number, 0.5], [2000, 10.0, 1.0]],
            }
        )
    return {
        "form": FORM,
        "example": name,
        "source_sha256": hashlib.sha256(source).hexdigest(),
        "versions": {},
        "machine": {"cpu": "A", "cores": 2},
        "recorded_at": "2026-01-01T00:00:00+00:00",
        "target": 10.0,
        "curve": "mean return",
        "seeds": seeds,
        "output": "iteration   1   env steps   1,000   mean return    5.0   seconds   0.5\n"
        "iteration   2   env steps   2,000   mean return   10.0   seconds   1.0\n"
        "greedy return 12.0 over 20 episodes, target 10\n",
    } | changes


def as_record(folder: Path, data: dict) -> Record:
    file = folder / "record.json"
    file.write_text(json.dumps(data))
    return read(file)


def test_an_honest_record_has_no_problem(tmp_path):
    assert problems(as_record(tmp_path, made_up()), SOURCE) == []


def set_seed(number: int, **changes):
    return lambda data: data["seeds"][number].update(changes)


def replace_output(old: str, new: str):
    return lambda data: data.update(output=data["output"].replace(old, new))


def fail(count: int):
    def change(data):
        for run in data["seeds"][1 : 1 + count]:
            run.update(solved=False, greedy_return=3.0)

    return change


LIES = [
    (set_seed(2, seed=7), "its seeds are not those that its source draws"),
    (lambda data: data["seeds"].pop(), "its seeds are not those"),
    (fail(2), "only 3 of 5 seeds are solved"),
    (set_seed(1, points=made_up()["seeds"][0]["points"]), "have the same curve"),
    (set_seed(1, points=[[1000, 6.0, 0.9], [2000, 10.0, 1.3]], solved=False), "solved is False, with 13.04"),
    (set_seed(1, greedy_return=9.99), "solved is True, with 9.99 for a target of 10.0"),
    (set_seed(1, greedy_return=None), "solved is True, with None"),
    (set_seed(1, episodes=19), "its verdict rests on 19 episodes"),
    (set_seed(1, episodes=None), "its verdict rests on None episodes"),
    (set_seed(1, points=[[1000, 6.0, 0.5], [1000, 7.0, 1.0]]), "its env steps do not rise"),
    (set_seed(1, points=[[2000, 6.0, 0.5], [1000, 7.0, 1.0]]), "its env steps do not rise"),
    (set_seed(1, points=[[1000, 6.0, 1.0], [2000, 7.0, 0.9]]), "its seconds fall"),
    (set_seed(1, points=[]), "no curve"),
    (set_seed(1, env_steps=1999), "fewer env steps than its curve shows"),
    (set_seed(1, seconds=151), "it took 151 s"),
    (set_seed(1, cpu_seconds=0), "and 0 CPU seconds"),
    (set_seed(1, work_seconds=[0.3]), "was not measured before and after"),
    (set_seed(1, work_seconds=[0.3, 0.0]), "was not measured before and after"),
    (set_seed(1, work_seconds=[0.4, 0.3]), "changed, and it was not repeated"),
    (replace_output("return 12.0", "return 12.2"), "the printed verdict is not that of the first seed"),
    (replace_output("over 20", "over 21"), "the printed number of episodes"),
    (replace_output("target 10", "target 9"), "the printed target is not the record's"),
    (replace_output("mean return    5.0", "mean return    5.1"), "the printed progress is not that"),
    (replace_output("mean return", "greedy return"), "speak of another curve"),
    (lambda data: data.update(output=data["output"] + "bye\n"), "the verdict is not the last line"),
    (lambda data: data.update(output=""), "the printed output has a verdict and its seed none"),
    (lambda data: data["machine"].update(cores=1), "it ran on 1 cores"),
]


@pytest.mark.parametrize(("lie", "message"), LIES, ids=[message for _, message in LIES])
def test_a_lie_is_named(tmp_path, lie, message):
    data = made_up()
    lie(data)
    found = problems(as_record(tmp_path, data), SOURCE)
    assert any(message in sentence for sentence in found), found


def test_what_a_record_may_say(tmp_path):
    """One failure of five, a failure with switches, and a second run at a speed that changed again."""
    data = made_up()
    fail(1)(data)
    set_seed(0, work_seconds=[0.3, 0.4], repeated=True)(data)
    assert problems(as_record(tmp_path, data), SOURCE) == []
    set_seed(1, greedy_return=None, episodes=None, points=[], env_steps=0)(data)  # it crashed
    assert problems(as_record(tmp_path, data), SOURCE) == []
    data = made_up(f"{NAME}+A=b")
    fail(4)(data)
    assert problems(as_record(tmp_path, data), SOURCE) == []


def test_a_verdict_that_ended_the_training_is_a_lie(tmp_path):
    stale = SOURCE.replace(b"greedy_return = algo.evaluate()\n", b"").replace(b"evaluated", b"greedy_return")
    found = problems(as_record(tmp_path, made_up(source=stale)), stale)
    assert found == [
        "examples/concepts/toy.py:2: `greedy_return`, the verdict, ends the training itself; "
        "name that value differently"
    ]


def test_a_record_in_a_form_of_tomorrow_is_refused(tmp_path):
    with pytest.raises(PageError, match="its form is 3"):
        as_record(tmp_path, made_up(form=3))


# Pages that show records ----------------------------------------------------------------------------

OLD_KEYS = ("work_seconds", "repeated", "updates", "episodes")


def old(data: dict, cpu: str = "A") -> dict:  # OLD FORM
    data = copy.deepcopy(data)
    del data["form"], data["curve"]
    data["seeds"] = [{key: run[key] for key in run if key not in OLD_KEYS} for run in data["seeds"]]
    data["machine"]["cpu"] = cpu
    return data


def at_speed(work_seconds: float, **changes) -> dict:
    data = made_up(**changes)
    for run in data["seeds"]:
        run["work_seconds"] = [work_seconds, work_seconds]
    return data


@pytest.fixture
def show(tmp_path, monkeypatch):
    """A function that puts records under the names a, b, ... where the formatters look for them."""

    def put(**records: dict) -> None:
        for name, data in records.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(data))
        monkeypatch.setattr(results, "record_of", lambda name: read(tmp_path / f"{name}.json"))
        monkeypatch.setattr(results, "path_of", lambda name: tmp_path / f"{name}.json")
        monkeypatch.setattr(results, "drawn", lambda kind, source, draw: draw())

    return put


def fence(kind: str, text: str) -> str:
    return getattr(results, kind)(text, kind, kind, {}, None)


def heads(html: str) -> list[str]:
    return re.findall(r'<th scope="col">(.*?)</th>', html)


def test_a_comparison_shows_all_that_its_rows_have(show):
    show(a=at_speed(0.3), b=at_speed(0.329))
    html = fence("comparison", "a: A\nb: B")
    assert heads(html) == ["program", "solved", "target", "env steps", "updates", "seconds", "CPU seconds"]
    assert '<td>5 of 5</td><td>10</td><td>2,100 <span class="range">(2,100–2,100)</span></td>' in html
    assert '<td>42 <span class="range">(40–44)</span></td>' in html
    assert "Ray's workers too" in html


def test_a_comparison_shows_failures_and_counts_only_solved_runs(show):
    data = made_up()
    fail(1)(data)
    show(a=data)
    html = fence("comparison", "a: A")
    assert "<td>4 of 5</td>" in html and "(20–24)</span>" in html
    data["seeds"] = [run | {"solved": False} for run in data["seeds"]]
    show(a=data)
    assert fence("comparison", "a: A").count("<td>–</td>") == 4


def test_a_comparison_refuses_machines_of_different_speed(show):
    show(a=at_speed(0.3), b=at_speed(0.331))
    with pytest.raises(PageError, match=r"speeds differ by more than a tenth .*0\.30 s.*0\.33 s"):
        fence("comparison", "a: A\nb: B")
    show(a=at_speed(0.3), b=old(made_up()), c=at_speed(0.331))
    with pytest.raises(PageError, match="speeds differ by more than a tenth"):
        fence("comparison", "a: A\nb: B\nc: C")


def test_without_updates_in_each_row_there_is_no_such_column(show):
    data = made_up()
    data["seeds"][3]["updates"] = None
    show(a=made_up(), b=data)
    assert "updates" not in heads(fence("comparison", "a: A\nb: B"))


def test_old_records_compare_seconds_on_one_cpu_only(show):  # OLD FORM
    show(a=old(made_up()), b=old(made_up()), c=old(made_up(), cpu="B"), d=made_up())
    html = fence("comparison", "a: A\nb: B")
    assert heads(html) == ["program", "solved", "target", "env steps", "seconds", "CPU seconds"]
    assert "CPU seconds leave out Ray's worker processes." in html
    html = fence("comparison", "a: A\nc: C")
    assert heads(html) == ["program", "solved", "target", "env steps"]
    assert "No seconds: the rows were recorded on different CPUs." in html
    html = fence("comparison", "a: A\nd: D")
    assert heads(html) == ["program", "solved", "target", "env steps", "seconds"]
    assert "No CPU seconds" in html


def test_the_output_of_a_failed_run_says_so(show):
    data = made_up()
    show(a=data)
    assert f"with seed {data['seeds'][0]['seed']}:" in fence("output", "a")
    assert "failed" not in fence("output", "a")
    data["seeds"][0]["solved"] = False
    show(a=data)
    assert "This run failed" in fence("output", "a")


def test_curves_on_one_axis_have_one_definition(show):
    exploring, greedy = made_up(), made_up(curve="greedy return")
    show(a=exploring, b=greedy, c=old(made_up()), d=made_up(curve=None))
    assert "mean return (exploring episodes)" in fence("curve", "a: A")
    assert "greedy return (evaluation)" in fence("curve", "b: B")
    with pytest.raises(PageError, match="`greedy return` .evaluation. on one axis: concepts/toy has mean"):
        fence("curve", "a: A\nb: B")
    with pytest.raises(PageError, match="on one axis"):
        fence("curve", "a: A\nb: B\nc: C")
    with pytest.raises(PageError, match="No record of this chart has a curve"):
        fence("curve", "d: D")
    html = fence("curve", "a: A\nc: C")  # OLD FORM
    assert "mean return" in html and "exploring" not in html


# Ratios ---------------------------------------------------------------------------------------------


def with_values(field: str, values: list, **changes) -> dict:
    data = made_up(**changes)
    data["seeds"] = [run | {field: value} for run, value in zip(data["seeds"], values, strict=True)]
    return data


def inline(text: str) -> str:
    return re.sub("<.*?>", "", results.inline(text, "result", "", None))


def test_a_ratio_prints_its_interval(show):
    show(a=with_values("seconds", [20, 30, 31, 32, 45]), b=with_values("seconds", [10, 19, 20, 21, 22]))
    ratio = results.ratio("seconds", "a", "b")
    assert inline("ratio seconds a b") == str(ratio)
    assert re.fullmatch(r"1\.6 \(95 % interval 1\.\d to \d\.\d\)", str(ratio)), str(ratio)
    assert ratio.value == 31 / 20
    assert results.ratio("seconds", "a", "b") == ratio, "the same records give the same interval"


def test_the_interval_is_that_of_all_resamples():
    """Against the exact bootstrap distribution, which lists all 256 resamples of each four runs."""
    one, other = [3.0, 4.0, 6.0, 9.0], [2.0, 2.5, 3.0, 7.0]
    medians = [[float(np.median(draw)) for draw in product(values, repeat=4)] for values in (one, other)]
    exact = np.divide.outer(*medians)
    low, high = results._interval(tuple(one), tuple(other))
    assert np.mean(exact < low) <= 0.03 and np.mean(exact <= low) >= 0.02
    assert np.mean(exact > high) <= 0.03 and np.mean(exact >= high) >= 0.02


def test_equal_runs_have_an_interval_of_no_width(show):
    show(a=with_values("env_steps", [3000] * 5), b=with_values("env_steps", [2500] * 5))
    assert inline("ratio env_steps a b") == "1.2 (95 % interval 1.2 to 1.2)"
    assert inline("ratio env_steps b a") == "0.83 (95 % interval 0.83 to 0.83)"


@pytest.mark.parametrize(
    ("low", "high", "excludes"),
    [(1.1, 2.0, True), (0.5, 0.9, True), (0.9, 1.1, False), (1.04, 2.0, False), (0.5, 0.996, False)],
)
def test_an_interval_excludes_one_as_it_is_printed(low, high, excludes):
    assert results.Ratio(1.0, low, high, False).excludes_one is excludes


def test_a_ratio_over_solved_runs_says_so(show):
    data = made_up()
    fail(1)(data)
    show(a=data, b=made_up())
    assert inline("ratio env_steps a b").endswith("; solved runs only)")
    fail(2)(data)
    show(a=data, b=made_up())
    with pytest.raises(PageError, match=r"has no interval: concepts/toy was solved with 3 of 5 seeds\."):
        inline("ratio env_steps b a")


@pytest.mark.parametrize("field", ["seconds", "cpu_seconds", "training_seconds", "env_steps_per_second"])
def test_times_of_different_machines_are_not_compared(show, field):
    show(a=at_speed(0.3), b=at_speed(0.331), c=at_speed(0.329), d=old(made_up()), e=old(made_up(), cpu="B"))
    inline(f"ratio {field} a c")
    inline("ratio env_steps a b")
    inline("ratio updates a b")
    inline("ratio env_steps d e")
    with pytest.raises(PageError, match="compares times of machines at different speeds"):
        inline(f"ratio {field} a b")
    inline(f"ratio {field} d d")  # OLD FORM
    with pytest.raises(PageError, match="compares times of machines on different CPUs"):
        inline(f"ratio {field} d e")


def test_cpu_seconds_with_and_without_workers_are_not_compared(show):  # OLD FORM
    show(a=made_up(), b=old(made_up()))
    inline("ratio seconds a b")
    with pytest.raises(PageError, match="compares CPU seconds with and without Ray's workers"):
        inline("ratio cpu_seconds a b")


def test_a_ratio_of_what_is_not_there(show):
    show(a=made_up(), b=old(made_up()))
    with pytest.raises(PageError, match="asks for what the record of concepts/toy does not hold"):
        inline("ratio updates a b")
    for words in ("ratio happiness a a", "ratio solved a a", "ratio env_steps a", "ratio env_steps a a a"):
        with pytest.raises(PageError, match="names nothing that is recorded"):
            inline(words)


def test_the_speed_of_a_machine_is_the_median_of_all_its_measurements(tmp_path):
    data = made_up()
    for run, work_seconds in zip(data["seeds"], ([1, 2], [3, 4], [5, 6], [7, 8], [9, 100]), strict=True):
        run["work_seconds"] = work_seconds
    record = as_record(tmp_path, data)
    assert record.work_seconds == 5.5
    assert not machines_differ([record, record])
