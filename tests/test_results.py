"""The records stand for the programs and the versions that are here now."""

import hashlib
import json
from types import SimpleNamespace

import pytest

from extensions import PageError, results
from extensions.records import RESULTS, path_of, read
from extensions.results import pinned
from tests.conftest import ROOT
from tools.record import PACKAGES, all_examples, all_switched, split_switches

EXAMPLES = all_examples()
SWITCHED = all_switched()  # ablations and other environments: records that may hold failures
LEARNING = [
    e for e in EXAMPLES if "\nTARGET =" in (ROOT / "examples" / f"{e}.py").read_text(encoding="utf-8")
]
MINIMUM_SEEDS = 5


@pytest.mark.parametrize("example", [*EXAMPLES, *SWITCHED])
def test_the_record_is_of_this_source_and_these_versions(example):
    renew = f"renew it with: make record EXAMPLES={example}"
    file = path_of(example)
    assert file.is_file(), f"{example} has no record; {renew}"
    record = read(file)
    assert record.example == example
    source = (ROOT / "examples" / f"{split_switches(example)[0]}.py").read_bytes()
    assert record.source_sha256 == hashlib.sha256(source).hexdigest(), (
        f"{example} has changed since its record; {renew}"
    )
    pins = pinned() | {"python": "3.11"}
    for package in ("python", *PACKAGES):
        assert record.versions[package] == pins[package], (
            f"{example} was recorded with another {package} than {pins[package]}; {renew}"
        )


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_record_holds_enough_seeds_and_all_solved(example):
    record = read(path_of(example))
    assert len(record.runs) >= MINIMUM_SEEDS
    assert [run.seed for run in record.runs if not run.solved] == []
    assert record.machine["cores"] == 2
    for run in record.runs:
        assert 0 < run.seconds <= 150
        assert run.cpu_seconds > 0


@pytest.mark.parametrize("example", SWITCHED)
def test_a_record_with_switches_is_whole(example):
    name, switches = split_switches(example)
    source = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    for switch in switches:
        assert f'"{switch}"' in source, f"{name} does not read {switch}"
    record = read(path_of(example))
    assert len(record.runs) >= MINIMUM_SEEDS
    assert record.machine["cores"] == 2
    for run in record.runs:
        assert run.points, f"seed {run.seed} ended without learning"
        assert run.solved == (run.greedy_return >= record.target)


@pytest.mark.parametrize("example", LEARNING)
def test_a_learning_run_reached_its_target(example):
    record = read(path_of(example))
    for run in record.runs:
        assert run.greedy_return >= record.target
    assert record.output.splitlines()[-1].startswith("greedy return")
    assert float(record.output.split("target ")[-1]) == record.target


@pytest.mark.parametrize("example", [e for e in LEARNING if e.startswith(("algorithms/", "approaches/"))])
def test_the_curve_of_a_learning_run_is_whole(example):
    for run in read(path_of(example)).runs:
        steps = [point[0] for point in run.points]
        assert steps == sorted(set(steps)), "env steps rise from iteration to iteration"
        assert run.env_steps == steps[-1]


def test_no_record_without_its_example():
    known = {path_of(example) for example in [*EXAMPLES, *SWITCHED] if split_switches(example)[0] in EXAMPLES}
    others = {RESULTS / f"rllib_{name}.json" for name in ("defaults", "support", "history")}
    assert set(RESULTS.rglob("*.json")) - known - others == set()


def test_a_record_says_what_the_readme_says():
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    data = json.loads(path_of("algorithms/ppo").read_text(encoding="utf-8"))
    for key in [*data, *data["seeds"][0]]:
        assert f"`{key}`" in text, f"results/README.md does not explain {key}"


def test_a_table_says_on_which_cpus_its_rows_were_recorded():
    assert results.machines({"PPO": "A", "APPO": "A"}) == "All were recorded on A."
    assert results.machines({"PPO": "A", "IMPALA": "B", "APPO": "A"}).endswith(
        ": PPO, APPO on A; IMPALA on B."
    )


def test_times_on_different_cpus_are_not_compared(monkeypatch):
    cpus = {"a": "A", "b": "B"}

    def record_of(example):
        return SimpleNamespace(machine={"cpu": cpus[example]}, median=lambda field: 3.0)

    monkeypatch.setattr(results, "record_of", record_of)
    assert "1.0" in results.inline("ratio env_steps a b", "result", "", None)
    assert "1.0" in results.inline("ratio seconds a a", "result", "", None)
    with pytest.raises(PageError, match="compares times on different CPUs"):
        results.inline("ratio seconds a b", "result", "", None)
