"""The algorithms that are rebuilt here: their arithmetic by hand, two env runners, checkpoint and restore."""

import ast
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from extensions import catalogue
from tests.conftest import ROOT
from tests.runner.process import run_program

EXAMPLES = ROOT / "examples" / "algorithms"
REBUILT = [
    page.stem
    for page in sorted((ROOT / "docs" / "algorithms").glob("*.md"))
    if page.stem != "index" and "rebuilt" in catalogue.tags(page.stem)
]


def definitions(name: str) -> SimpleNamespace:
    """The imports, functions and classes of an example, without running its training."""
    tree = ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))
    kept = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef
    tree.body = [node for node in tree.body if isinstance(node, kept)]
    found = {"__name__": name}
    # RLlib imports TensorFlow where it is installed, which takes ten seconds more.
    hidden = "tensorflow" not in sys.modules and sys.modules.setdefault("tensorflow", None) is None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(tree, f"{name}.py", "exec"), found)
    finally:
        if hidden:
            del sys.modules["tensorflow"]
    return SimpleNamespace(**found)


@pytest.fixture(scope="module")
def pg():
    return definitions("pg")


@pytest.fixture(scope="module")
def a2c():
    return definitions("a2c")


# PG ------------------------------------------------------------------------------------------------


def test_pg_discounts_returns_from_the_end(pg):
    # G_2 = 4, G_1 = 2 + 4/2, G_0 = 1 + 4/2
    np.testing.assert_allclose(pg.returns_to_go([1.0, 2.0, 4.0], gamma=0.5), [3.0, 4.0, 4.0])


def test_pg_takes_the_mean_of_all_episodes_at_the_same_step(pg):
    above = pg.over_baseline([np.array([4.0, 2.0]), np.array([2.0])])
    # At step 0 the mean is 3, at step 1 only the first episode counts.
    np.testing.assert_allclose(above[0], [1.0, 0.0])
    np.testing.assert_allclose(above[1], [-1.0])


def test_pg_weighs_log_probabilities_with_standardized_returns(pg):
    loss = pg.policy_loss(torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 3.0]))
    # Mean 2, deviation (of a sample) √2: weights -1/√2 and 1/√2.
    assert loss.item() == pytest.approx(-(1 / 2**0.5 - 2 / 2**0.5) / 2, rel=1e-5)


def test_pg_joins_pieces_and_hands_out_only_whole_episodes(pg):
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

    episode = SingleAgentEpisode(len_lookback_buffer=0)
    episode.add_env_reset(0.0)
    episode.add_env_step(1.0, 0, 1.0)
    rest = episode.cut()
    rest.add_env_step(2.0, 1, 5.0, terminated=True)
    holder = SimpleNamespace(pieces={})
    assert pg.PG.ended_episodes(holder, [episode]) == []
    [whole] = pg.PG.ended_episodes(holder, [rest])
    assert list(whole.get_rewards()) == [1.0, 5.0] and holder.pieces == {}


# A2C -----------------------------------------------------------------------------------------------


def test_a2c_losses(a2c):
    log_prob, advantages = torch.tensor([-1.0, -3.0]), torch.tensor([2.0, -1.0])
    values, targets = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.0])
    policy_loss, value_loss = a2c.a2c_losses(log_prob, advantages, values, targets)
    assert policy_loss.item() == pytest.approx(-(-2.0 + 3.0) / 2)
    assert value_loss.item() == pytest.approx((4.0 + 1.0) / 2)


def test_a2c_makes_one_update_of_each_batch(a2c):
    config = a2c.A2CConfig()
    assert config.num_epochs == 1 and config.minibatch_size is None and not config.use_kl_loss


# All of them ---------------------------------------------------------------------------------------

RESTORE = """
import tempfile
import gymnasium as gym

def greedy_return(algo):
    module, env, total = algo.get_module(), gym.make(ENV), 0.0
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        done = False
        while not done:
            with torch.no_grad():
                out = module.forward_inference({"obs": torch.tensor(observation)[None]})
            action = out["action_dist_inputs"][0].argmax().item()
            observation, reward, terminated, truncated, _ = env.step(action)
            total += reward
            done = terminated or truncated
    return total

config.env_runners(num_env_runners=2)
algo = config.build_algo()
for _ in range(2):
    before = algo.train()["env_runners"]["num_env_steps_sampled_lifetime"]
assert algo.env_runner_group.num_healthy_remote_workers() == 2
expected = greedy_return(algo)
with tempfile.TemporaryDirectory() as folder:
    algo.save_to_path(folder)
    algo.stop()  # its env runners hold the cores that the restored ones need
    restored = type(algo).from_checkpoint(folder)
assert greedy_return(restored) == expected, "another policy came back"
after = restored.train()["env_runners"]["num_env_steps_sampled_lifetime"]
assert after > before, (before, after)
assert restored.evaluate()["env_runners"]["episode_return_mean"] is not None
restored.stop()
ray.shutdown()
print("restored")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", REBUILT)
def test_it_runs_with_two_env_runners_and_comes_back_from_a_checkpoint(name):
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    start, found, _ = source.partition("\nalgo = config.build_algo()\n")
    assert found, "the program builds its algorithm in a line of its own"
    outcome = run_program(start + RESTORE, file_name=f"{name}.py", limit=240)
    printed = "\n".join(line for _, line in outcome.lines)
    assert outcome.exit_status == 0, printed[-3000:]
    assert outcome.stdout.splitlines()[-1] == "restored"
    assert outcome.left_running == []
