"""The algorithms that are rebuilt here: their arithmetic by hand, two env runners, checkpoint and restore."""

import ast
import sys
import warnings
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch

from extensions import catalogue
from runner.process import run_program
from tests.conftest import ROOT

EXAMPLES = ROOT / "examples" / "algorithms"
# Rainbow's page says that RLlib ships it, as settings of DQN; two of its parts are written here.
REBUILT = ["rainbow"] + [
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


# ES ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def es():
    return definitions("es")


@pytest.fixture(scope="module")
def ars():
    return definitions("ars")


def test_es_replaces_returns_by_centered_ranks(es):
    # Sorted: -7, 1, 3, 1000. The outlier counts no more than the best of four.
    ranks = es.centered_ranks(torch.tensor([[3.0, 1000.0], [-7.0, 1.0]]))
    torch.testing.assert_close(ranks, torch.tensor([[1 / 6, 0.5], [-0.5, -1 / 6]]))


def test_es_goes_where_the_better_mirror_image_went(es):
    config = SimpleNamespace(lr=0.1, weight_decay=0.0, noise_stdev=0.5)
    search = es.Search(torch.zeros(2), config)
    search.noise[:3] = torch.tensor([1.0, -2.0, 4.0])
    # Direction (1, -2) did worse than its mirror image, (-2, 4) better: ranks -1/2 and 1/6, 1/2 and -1/6.
    search.update([0, 1], torch.tensor([[1.0, 3.0], [4.0, 2.0]]))
    gradient = ((-1 / 2 - 1 / 6) * np.array([1.0, -2.0]) + (1 / 2 + 1 / 6) * np.array([-2.0, 4.0])) / (
        2 * 2 * 0.5
    )
    np.testing.assert_allclose(-search.theta.grad, gradient, rtol=1e-6)
    # The first step of Adam is as long as the learning rate in each weight, up the gradient.
    np.testing.assert_allclose(search.theta.detach(), 0.1 * np.sign(gradient), rtol=1e-5)
    assert search.generation == 1


@pytest.mark.parametrize("name", ["es", "ars"])
def test_all_processes_have_the_same_table_of_noise(name, request):
    module = request.getfixturevalue(name)
    if name == "es":
        tables = [module.Search(torch.zeros(3), module.ESConfig()).noise for _ in range(2)]
    else:
        tables = [module.Search(module.ARSConfig(), (2, 5)).noise for _ in range(2)]
    assert torch.equal(*tables)


def test_a_worker_that_follows_the_updates_holds_the_driver_s_weights(es):
    returns = torch.tensor([[1.0, 3.0], [4.0, 2.0], [0.0, 9.0]])
    driver, worker = (es.Search(torch.zeros(4), es.ESConfig()) for _ in range(2))
    for places in ([5, 70, 900], [1, 2, 3]):
        driver.update(places, returns)
        worker.update(places, returns)
    assert torch.equal(driver.theta, worker.theta)
    late = es.Search(torch.ones(4), es.ESConfig(), generation=-1)
    late.set_state(driver.get_state())
    late.update([8, 9, 10], returns)
    driver.update([8, 9, 10], returns)
    assert torch.equal(driver.theta, late.theta) and late.generation == driver.generation == 3


# ARS -----------------------------------------------------------------------------------------------


def test_ars_steps_along_the_top_directions(ars):
    config = SimpleNamespace(lr=0.5, top_directions=1)
    search = ars.Search(config, (1, 2))
    search.noise[:4] = torch.tensor([1.0, 2.0, -3.0, 5.0])
    # The second direction has the best single return, 8. Mean 5, deviation 3, difference -6.
    search.update(
        np.array([0, 2]), torch.tensor([[7.0, 1.0], [2.0, 8.0]]), torch.zeros(3, dtype=torch.float64)
    )
    np.testing.assert_allclose(search.theta, 0.5 / (1 * 3) * -6 * np.array([[-3.0, 5.0]]), rtol=1e-5)


def test_ars_sums_of_parts_give_the_filter_of_the_whole(ars):
    seen = torch.tensor([[1.0, 10.0], [3.0, 10.0], [8.0, 40.0]], dtype=torch.float64)
    mean, deviation = ars.mean_and_deviation(ars.sums(seen[:1]) + ars.sums(seen[1:]))
    np.testing.assert_allclose(mean, [4.0, 20.0])
    np.testing.assert_allclose(deviation, [np.sqrt((9 + 1 + 16) / 3), np.sqrt((100 + 100 + 400) / 3)])


def test_ars_policy_is_linear_in_the_filtered_observation(ars):
    policy = ars.LinearPolicy(
        observation_space=gym.spaces.Box(-1, 1, (2,)), action_space=gym.spaces.Discrete(2), model_config={}
    )
    policy.mean[:], policy.deviation[:] = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.5])
    theta = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 1.0]])  # the last column is the bias
    # Filtered: ((5 - 1) / 2, (3 - 2) / 0.5) = (2, 2).
    logits = policy.logits(theta, torch.tensor([[5.0, 3.0]]))
    torch.testing.assert_close(logits, torch.tensor([[9.0, -1.0]]))
    each = policy.logits(torch.stack([theta, 2 * theta]), torch.tensor([[5.0, 3.0], [5.0, 3.0]]))
    torch.testing.assert_close(each, torch.tensor([[9.0, -1.0], [18.0, -2.0]]))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("es", {"noise_stdev": 0.1, "lr": 0.05, "weight_decay": 0.005}),
        ("ars", {"noise_stdev": 0.1, "lr": 0.05, "top_directions": 16}),
    ],
)
def test_the_settings_on_the_page_are_the_program_s(name, settings, request):
    """These two have settings of their own, in a list that is typed and not drawn from RLlib's defaults."""
    config = getattr(request.getfixturevalue(name), f"{name.upper()}Config")()
    page = (ROOT / "docs" / "algorithms" / f"{name}.md").read_text(encoding="utf-8")
    for setting, value in settings.items():
        assert getattr(config, setting) == value
        assert f"- **`{setting}`** ({value}): " in page


# DDPG and TD3 --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ddpg():
    return definitions("ddpg")


@pytest.fixture(scope="module")
def td3():
    return definitions("td3")


DDPG_SETTINGS = {"fcnet_hiddens": [4], "ou_theta": 0.5, "ou_sigma": 2.0}
TD3_SETTINGS = DDPG_SETTINGS | {
    "twin_q": True,
    "policy_delay": 2,
    "target_noise": 0.2,
    "target_noise_clip": 0.5,
}
SPACES = {"observation_space": gym.spaces.Box(-1, 1, (2,)), "action_space": gym.spaces.Box(-2, 2, (1,))}


def transitions(rows: int) -> dict:
    torch.manual_seed(0)
    ended = torch.zeros(rows)
    ended[0] = 1.0
    return {
        "obs": torch.randn(rows, 2),
        "new_obs": torch.randn(rows, 2),
        "actions": torch.rand(rows, 1),
        "rewards": torch.randn(rows),
        "terminateds": ended,
    }


def test_ornstein_uhlenbeck_noise_remembers_and_gaussian_noise_does_not(ddpg):
    # 1 - 0.15 · 1 + 0.3 = 1.15
    assert ddpg.ou_step(1.0, 0.15, 0.3) == pytest.approx(1.15)
    assert ddpg.ou_step(1.0, 1.0, 0.3) == pytest.approx(0.3)


def test_ddpg_target_stops_at_a_termination(ddpg):
    batch = {"rewards": torch.tensor([1.0, 1.0]), "terminateds": torch.tensor([0.0, 1.0])}
    target = ddpg.td_target(batch, torch.tensor([10.0, 10.0]), 0.9)
    np.testing.assert_allclose(target, [10.0, 1.0])


def test_td3_target_takes_the_smaller_of_two_q_values(td3):
    batch = {"rewards": torch.tensor([1.0, 1.0, 1.0]), "terminateds": torch.tensor([0.0, 0.0, 1.0])}
    q_next = torch.tensor([[10.0, 20.0], [4.0, 2.0], [10.0, 20.0]])
    np.testing.assert_allclose(td3.td_target(batch, q_next, 0.5), [6.0, 2.0, 1.0])


def test_td3_smooths_the_target_with_clipped_noise_within_the_action_limits(td3):
    actions, noise = torch.tensor([0.0, 0.0, 0.8, -0.8]), torch.tensor([0.3, -0.9, 0.4, -2.0])
    np.testing.assert_allclose(td3.smoothed(actions, noise, 0.5), [0.3, -0.5, 1.0, -1.0])


def test_an_untrained_policy_leaves_exploring_to_the_noise(ddpg):
    module = ddpg.DDPGModule(**SPACES, model_config=DDPG_SETTINGS)
    observations = {"obs": torch.ones(3, 2)}
    torch.manual_seed(1)
    first = module.forward_exploration(observations)["actions"]
    torch.manual_seed(1)
    np.testing.assert_allclose(first, torch.randn(3, 1).clamp(-1, 1))
    # After an update: the policy's action, half of the old noise, and twice what is drawn.
    module.updates += 1
    old = module.noise
    torch.manual_seed(2)
    second = module.forward_exploration(observations)["actions"]
    torch.manual_seed(2)
    expected = module.pi(observations["obs"]) + 0.5 * old + 2.0 * torch.randn(3, 1)
    np.testing.assert_allclose(second.detach(), expected.clamp(-1, 1).detach(), rtol=1e-5)


@pytest.mark.parametrize("name", ["ddpg", "td3"])
def test_the_loss_of_the_policy_does_not_reach_the_critic(name, request):
    example = request.getfixturevalue(name)
    module = getattr(example, f"{name.upper()}Module")(**SPACES, model_config=TD3_SETTINGS)
    module.make_target_networks()
    module.forward_train(transitions(5))
    out = module.forward_train(transitions(5))  # the second: TD3's policy is due
    out["q_of_policy"].mean().backward()
    assert all(parameter.grad is None for parameter in module.q.parameters())
    assert any(parameter.grad is not None for parameter in module.pi.parameters())


@pytest.mark.parametrize(("name", "moves"), [("ddpg", [True, True]), ("td3", [False, True])])
def test_td3_delays_policy_and_target_networks_and_ddpg_does_not(name, moves, request):
    from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

    example = request.getfixturevalue(name)
    config = getattr(example, f"{name.upper()}Config")()
    config.environment(**SPACES).rl_module(model_config=TD3_SETTINGS)
    learner = config.build_learner()
    module = learner.module["default_policy"]

    def weights(network) -> np.ndarray:
        return torch.cat([parameter.flatten() for parameter in network.parameters()]).detach().numpy()

    batch = {column: values.numpy() for column, values in transitions(5).items()}
    for moved in moves:
        before = [weights(network).copy() for network in (module.q, module.pi, module.target_q)]
        learner.update(batch=MultiAgentBatch({"default_policy": SampleBatch(batch)}, env_steps=5))
        after = [weights(network) for network in (module.q, module.pi, module.target_q)]
        changed = [not np.array_equal(old, new) for old, new in zip(before, after, strict=True)]
        assert changed == [True, moved, moved]


@pytest.mark.parametrize("name", ["ddpg", "td3"])
def test_the_replay_buffer_keeps_the_last_transitions(name, request):
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

    episode = SingleAgentEpisode(
        observations=[np.array([float(t)]) for t in range(5)],
        actions=[np.array([t / 10]) for t in range(4)],
        rewards=[0.0, 1.0, 2.0, 3.0],
        terminated=True,
        len_lookback_buffer=0,
    )
    buffer = request.getfixturevalue(name).ReplayBuffer(capacity=3, seed=0)
    buffer.add([episode.to_numpy()])
    kept = [(s.item(), a.item(), r, s2.item(), bool(end)) for s, a, r, s2, end in buffer.rows]
    assert kept == [(1.0, 0.1, 1.0, 2.0, False), (2.0, 0.2, 2.0, 3.0, False), (3.0, 0.3, 3.0, 4.0, True)]
    batch = buffer.sample(64)["default_policy"]
    assert set(batch["rewards"]) == {1.0, 2.0, 3.0}
    np.testing.assert_allclose(batch["new_obs"], batch["obs"] + 1)
    np.testing.assert_allclose(batch["terminateds"], batch["rewards"] == 3.0)


# QMIX, VDN, IQN ------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["qmix", "vdn", "iqn"])
def team(request):
    """One of the three programs, with the games that it plays."""
    found = definitions(request.param)
    tree = ast.parse((EXAMPLES / f"{request.param}.py").read_text(encoding="utf-8"))
    [games] = [node for node in tree.body if ast.unparse(node).startswith("GAMES = ")]
    found.TeamGame.__init__.__globals__["GAMES"] = ast.literal_eval(games.value)
    return found


@pytest.fixture(scope="module")
def qmix():
    return definitions("qmix")


@pytest.fixture(scope="module")
def vdn():
    return definitions("vdn")


@pytest.fixture(scope="module")
def iqn():
    return definitions("iqn")


def play(env, *steps):
    """The team's return, and whether its episode ended with the last of these joint actions."""
    env.reset()
    total, done = 0.0, False
    for actions in steps:
        assert not done
        _, rewards, done, truncated, _ = env.step(dict(zip(env.agents, actions, strict=True)))
        assert len(set(rewards.values())) == 1 and not truncated["__all__"]
        total, done = total + sum(rewards.values()), done["__all__"]
    return total, done


def test_the_two_step_game_pays_what_the_paper_says(team):
    env = team.TeamGame({"game": "TwoStep"})
    pays = {(first, i, j): play(env, (first, j), (i, j)) for first in (0, 1) for i in (0, 1) for j in (0, 1)}
    assert all(done for _, done in pays.values())
    assert [pays[0, i, j][0] for i in (0, 1) for j in (0, 1)] == [7, 7, 7, 7]
    assert [pays[1, i, j][0] for i in (0, 1) for j in (0, 1)] == [0, 1, 1, 8]


def test_the_expedition_pays_by_how_many_arrive(team):
    env = team.TeamGame({"game": "Expedition"})
    walk, wait = [(2, 2, 2)] * 2, [(1, 1, 1)] * 2
    only_two = [(2, 2, 1)] * 4
    assert play(env, (0, 0, 0), *wait, *walk) == pytest.approx((5, True))  # the camp
    assert play(env, (1, 0, 0), *walk, *wait) == pytest.approx((6, True))  # the orchard
    assert play(env, (1, 0, 0), *only_two) == pytest.approx((4, True))
    assert play(env, (2, 2, 2), *wait, *walk) == pytest.approx((8, True))  # the mine
    assert play(env, (2, 2, 2), *only_two) == pytest.approx((2, True))
    assert play(env, (2, 2, 2), (0, 0, 0), *walk)[1] is False


def test_agents_see_place_time_their_own_cell_and_who_they_are(team):
    env = team.TeamGame({"game": "Expedition"})
    env.reset()
    env.step({"agent_0": 1, "agent_1": 2, "agent_2": 2})
    views = env.step({"agent_0": 2, "agent_1": 1, "agent_2": 0})[0]
    place, time = [0, 0, 1, 0], [0, 1, 0, 0, 0]
    np.testing.assert_array_equal(views["agent_0"], [*place, *time, 0, 1, 0, 1, 0, 0])
    np.testing.assert_array_equal(views["agent_1"], [*place, *time, 1, 0, 0, 0, 1, 0])
    assert all(env.observation_spaces[agent].contains(view) for agent, view in views.items())


def test_a_sum_cannot_say_what_the_second_place_is_worth():
    """What the pages of VDN and IQN say: the best sum of two values for 0, 1, 1, 8, all equally often."""
    sums = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]])
    fit = sums @ np.linalg.lstsq(sums, np.array([0, 1, 1, 8]), rcond=None)[0]
    np.testing.assert_allclose(fit, [-1.5, 2.5, 2.5, 6.5])


def joint_episode(team):
    from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

    episode = MultiAgentEpisode(len_lookback_buffer=0)
    episode.add_env_reset(observations={"b": np.array([10.0]), "a": np.array([0.0])})
    for t, actions in enumerate(((1, 0), (0, 1)), 1):
        episode.add_env_step(
            {"b": np.array([10.0 + t]), "a": np.array([0.0 + t])},
            {"a": actions[0], "b": actions[1]},
            {"a": 1.0 * t, "b": 2.0 * t},
            terminateds={"__all__": t == 2},
            truncateds={"__all__": False},
        )
    return episode


def test_a_joint_step_holds_what_all_agents_saw_and_did(team):
    first, second = team.joint_steps(joint_episode(team))
    obs, new_obs, actions, rewards, ended = first
    np.testing.assert_array_equal(obs, [[0.0], [10.0]])
    np.testing.assert_array_equal(new_obs, [[1.0], [11.0]])
    assert list(actions) == [1, 0] and list(rewards) == [1.0, 2.0] and list(ended) == [0.0, 0.0]
    assert list(second[2]) == [0, 1] and list(second[3]) == [2.0, 4.0] and list(second[4]) == [1.0, 1.0]


def test_agents_that_act_in_turns_are_refused(team):
    from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

    episode = MultiAgentEpisode(len_lookback_buffer=0)
    episode.add_env_reset(observations={"a": np.array([0.0])})
    off = {"terminateds": {"__all__": False}, "truncateds": {"__all__": False}}
    episode.add_env_step({"b": np.array([1.0])}, {"a": 0}, {"a": 1.0}, **off)
    episode.add_env_step({"a": np.array([2.0])}, {"b": 0}, {"b": 1.0}, **off)
    with pytest.raises(ValueError, match="every env step"):
        list(team.joint_steps(episode))


def test_qmix_mixes_with_absolute_weights(qmix):
    q = torch.tensor([[2.0, -1.0], [-2.0, 0.0]])
    # One hidden unit: |−1| q_1 + |2| q_2 + 0.5, through ELU, times |−3|, plus 1.
    w1, b1 = torch.tensor([[-1.0, 2.0]] * 2), torch.tensor([[0.5]] * 2)
    w2, b2 = torch.tensor([[-3.0]] * 2), torch.tensor([[1.0]] * 2)
    hidden = [0.5, np.exp(-1.5) - 1.0]
    expected = [3.0 * unit + 1.0 for unit in hidden]
    np.testing.assert_allclose(qmix.mix(q, w1, b1, w2, b2), expected, rtol=1e-5)


def test_qmix_weighs_each_agent_with_its_own_row(qmix):
    q, zeros = torch.tensor([[1.0, 10.0]]), torch.zeros(1, 2)
    # Two hidden units; agent 1 has weights 1 and 2, agent 2 has 3 and 4: 31 and 42.
    w1 = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    value = qmix.mix(q, w1, zeros, torch.tensor([[1.0, 100.0]]), torch.zeros(1, 1))
    assert value.item() == pytest.approx(31 + 4200)


def test_qmix_rises_with_each_agent_in_every_state(qmix):
    import gymnasium as gym

    torch.manual_seed(0)
    view = gym.spaces.Box(0.0, 1.0, (5,), np.float32)
    mixer = qmix.Mixer(observation_space=view, action_space=None, model_config={"mixer": (3, 8)})
    mixer.make_target_networks()
    batch = {"obs": 3 * torch.randn(1000, 15), "new_obs": torch.randn(1000, 15)}
    q = (5 * torch.randn(1000, 3)).requires_grad_()
    weights = mixer.forward_train(batch)["now"]
    value = qmix.mix(q, **weights)
    assert value.shape == (1000,)
    slopes = torch.autograd.grad(value.sum(), q)[0]
    assert slopes.min() >= 0 and slopes.max() > 0
    assert any((weights[name] < 0).any() for name in ("w1", "w2")), "else there was nothing to test"


def two_joint_steps():
    """Q-values of two agents with two actions, in two env steps; the second one ends its episode."""
    batch = {
        "actions": torch.tensor([[0.0, 1.0], [1.0, 1.0]]),
        "rewards": torch.tensor([[1.0, 2.0], [0.5, 0.5]]),
        "terminateds": torch.tensor([[0.0, 0.0], [1.0, 1.0]]),
    }
    out = {
        "qf_preds": torch.tensor([[[1.0, 9.0], [9.0, 4.0]], [[9.0, 2.0], [9.0, 1.0]]]),
        "qf_next_preds": torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]]),
        "qf_target_next_preds": torch.tensor([[[50.0, 2.0], [6.0, 50.0]], [[50.0, 50.0], [50.0, 50.0]]]),
    }
    # Step 1: Q 1 + 4 = 5, target 3 + 0.5 (2 + 6) = 7. Step 2: Q 2 + 1 = 3, target 1.
    return {"agents": batch}, {"agents": out}, ((7 - 5) ** 2 + (1 - 3) ** 2) / 2


def test_vdn_learns_the_sum(vdn):
    batch, out, expected = two_joint_steps()
    learner = SimpleNamespace(config=SimpleNamespace(gamma=0.5))
    loss = vdn.VDNLearner.compute_losses(learner, fwd_out=out, batch=batch)
    assert list(loss) == ["agents"] and loss["agents"].item() == pytest.approx(expected)


def test_qmix_learns_the_mixed_value(qmix):
    batch, out, expected = two_joint_steps()
    ones = {"w1": torch.ones(2, 2), "b1": torch.zeros(2, 1), "w2": torch.ones(2, 1), "b2": torch.zeros(2, 1)}
    # With weights of one and values above 0, QMIX's mixer is VDN's sum.
    learner = SimpleNamespace(config=SimpleNamespace(gamma=0.5))
    loss = qmix.QMIXLearner.compute_losses(
        learner, fwd_out=out | {"mixer": {"now": ones, "next": ones}}, batch=batch
    )
    assert loss["agents"].item() == pytest.approx(expected)
    # A next mixer that doubles: step 1's target is 3 + 0.5 * 2 (2 + 6) = 11.
    twice = ones | {"w2": torch.full((2, 1), -2.0)}
    loss = qmix.QMIXLearner.compute_losses(
        learner, fwd_out=out | {"mixer": {"now": ones, "next": twice}}, batch=batch
    )
    assert loss["agents"].item() == pytest.approx(((11 - 5) ** 2 + (1 - 3) ** 2) / 2)


def test_iqn_has_the_learner_of_dqn_and_no_mixer(iqn):
    assert iqn.IQNConfig().learner_class is iqn.DQNConfig().learner_class


# A3C -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def a3c():
    return definitions("a3c")


@pytest.fixture
def a3c_worker(a3c):
    config = a3c.A3CConfig().environment("CartPole-v1").debugging(seed=3)
    config.env_runners(num_envs_per_env_runner=3, rollout_fragment_length=12)
    config.training(gamma=0.5, vf_loss_coeff=0.25, entropy_coeff=0.125)
    worker = a3c.A3CEnvRunner(config=config, worker_index=1)
    yield worker
    worker.stop()


def a3c_weights(worker) -> np.ndarray:
    return torch.nn.utils.parameters_to_vector(worker.module.parameters()).detach().numpy()


def piece_of_episode(rewards, terminated=False, truncated=False):
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

    return SingleAgentEpisode(
        observations=[np.array([float(t), 0.0], np.float32) for t in range(len(rewards) + 1)],
        actions=[t % 2 for t in range(len(rewards))],
        rewards=rewards,
        terminated=terminated,
        truncated=truncated,
        len_lookback_buffer=0,
    ).to_numpy()


class CriticIsTheObservation:
    """V(s) is the observation's first number; the policy is the same everywhere."""

    logits = torch.tensor([0.0, np.log(3.0)])  # probabilities 1/4 and 3/4

    def forward_train(self, batch):
        return {"action_dist_inputs": self.logits.expand(len(batch["obs"]), 2)}

    def compute_values(self, batch, embeddings):
        assert embeddings is None
        return batch["obs"][:, 0]

    def get_train_action_dist_cls(self):
        from ray.rllib.models.torch.torch_distributions import TorchCategorical

        return TorchCategorical


def test_a3c_adds_up_rewards_and_what_the_critic_expects_after_them(a3c):
    # 4 + 8/2 = 8, 2 + 8/2 = 6, 1 + 6/2 = 4
    np.testing.assert_allclose(a3c.n_step_returns([1.0, 2.0, 4.0], 8.0, gamma=0.5), [4.0, 6.0, 8.0])
    np.testing.assert_allclose(a3c.n_step_returns([1.0, 2.0, 4.0], 0.0, gamma=0.5), [3.0, 4.0, 4.0])


@pytest.mark.parametrize(
    ("end", "returns"),
    [
        ({"terminated": True}, [1.0 + 2.0 / 2, 2.0]),  # nothing follows
        ({"truncated": True}, [1.0 + 3.0 / 2, 2.0 + 2.0 / 2]),  # V = 2 in the last state
        ({}, [1.0 + 3.0 / 2, 2.0 + 2.0 / 2]),  # a piece of an episode that goes on
    ],
)
def test_a3c_asks_the_critic_unless_the_episode_terminated(a3c, end, returns):
    piece = piece_of_episode([1.0, 2.0], **end)
    policy_loss, value_loss, entropy = a3c.losses(CriticIsTheObservation(), [piece], gamma=0.5)
    advantages = np.array(returns) - [0.0, 1.0]  # less V of the states 0 and 1
    standardized = np.array([1.0, -1.0]) / 2**0.5 * np.sign(advantages[0] - advantages[1])
    log_prob = np.log([0.25, 0.75])  # actions 0 and 1
    assert policy_loss.item() == pytest.approx(-(log_prob * standardized).mean(), abs=1e-4)
    assert value_loss.item() == pytest.approx((advantages**2).mean())
    assert entropy.item() == pytest.approx(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)))


def test_a3c_takes_the_mean_over_the_steps_of_all_pieces(a3c):
    pieces = [piece_of_episode([1.0, 2.0], terminated=True), piece_of_episode([5.0])]
    _, value_loss, _ = a3c.losses(CriticIsTheObservation(), pieces, gamma=0.5)
    # Returns 2, 2 and 5 + 1/2; values 0, 1 and 0.
    assert value_loss.item() == pytest.approx((2.0**2 + 1.0**2 + 5.5**2) / 3)


def test_a3c_advantage_is_not_differentiated(a3c):
    """The policy's loss moves no critic, though its advantages come from it."""
    values = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
    module = CriticIsTheObservation()
    module.compute_values = lambda batch, embeddings: values
    policy_loss, value_loss, _ = a3c.losses(module, [piece_of_episode([1.0, 2.0])], gamma=0.5)
    assert not policy_loss.requires_grad
    # d/dV of the mean of (V - R)²: (2 (0 - 2.5), 2 (1 - 3)) / 2; the last state only bootstraps.
    np.testing.assert_allclose(torch.autograd.grad(value_loss, values)[0], [-2.5, -2.0, 0.0])


def test_a3c_worker_returns_the_gradient_of_its_loss_at_the_weights_it_was_given(a3c, a3c_worker):
    given = a3c_weights(a3c_worker) + 0.01
    played = []
    sample = a3c_worker.sample
    a3c_worker.sample = lambda: played.append(sample()) or played[-1]
    gradient, version, metrics = a3c_worker.compute_gradient(given, version=7)
    assert version == 7 and metrics["num_env_steps_sampled"].peek() >= 36
    np.testing.assert_array_equal(a3c_weights(a3c_worker), given)
    [episodes] = played
    assert sum(len(piece) for piece in episodes) >= 36
    assert any(piece.is_terminated for piece in episodes) and not all(p.is_done for p in episodes)

    def loss() -> torch.Tensor:
        """The loss once more, a piece and a step at a time, through other parts of the module."""
        module, terms, advantages = a3c_worker.module, [], []
        for piece in episodes:
            obs = torch.tensor(np.array(piece.get_observations()))
            logits = module.pi(module.encoder({"obs": obs})["encoder_out"]["actor"])
            log_p, values = torch.log_softmax(logits, 1), module.compute_values({"obs": obs})
            following = 0.0 if piece.is_terminated else values[-1].item()
            for t in reversed(range(len(piece))):
                following = piece.get_rewards(t) + 0.5 * following
                advantages.append(following - values[t].item())
                entropy = -(log_p[t].exp() * log_p[t]).sum()
                critic = (values[t] - following) ** 2
                terms.append((log_p[t, piece.get_actions(t)], 0.25 * critic - 0.125 * entropy))
        mean, deviation = np.mean(advantages), np.std(advantages, ddof=1)
        steps = zip(terms, advantages, strict=True)
        return sum(rest - log_p * (above - mean) / deviation for (log_p, rest), above in steps) / len(terms)

    expected = torch.autograd.grad(loss(), list(a3c_worker.module.parameters()))
    expected = torch.nn.utils.parameters_to_vector(expected).numpy()
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-5)


def test_a3c_learner_steps_rmsprop_along_the_clipped_gradient(a3c):
    config = a3c.A3CConfig().environment(
        observation_space=gym.spaces.Box(-1.0, 1.0, (3,), np.float32), action_space=gym.spaces.Discrete(2)
    )
    config.training(lr=0.1, grad_clip=2.0).rl_module(model_config={"fcnet_hiddens": [4]})
    learner = config.build_learner()
    before = learner.get_vector().copy()
    gradient = np.zeros_like(before)
    gradient[5] = -8.0  # its size is clipped to 2
    learner.step_along(gradient, env_steps=0)
    moved = learner.get_vector() - before
    # RMSProp's first step: the mean of squares is 0.01 g².
    expected = np.zeros_like(before)
    expected[5] = 0.1 * 2.0 / (np.sqrt(0.01 * 2.0**2) + 1e-5)
    np.testing.assert_allclose(moved, expected, atol=1e-5)


class A3CWorkers:
    """Stands for the env runner group: gradients become ready in the order that the test says."""

    def __init__(self, workers):
        self.workers, self.asked, self.ready = workers, {}, []

    def num_remote_workers(self):
        return len(self.workers)

    num_healthy_remote_workers = num_remote_workers

    def num_in_flight_async_reqs(self, tag):
        return len(self.asked)

    def healthy_worker_ids(self):
        return self.workers

    def foreach_env_runner_async(self, function, tag, kwargs, remote_worker_ids):
        assert (function, tag) == ("compute_gradient", "gradient")
        for worker in remote_worker_ids:
            self.asked.setdefault(worker, (kwargs["weights"], kwargs["version"]))

    def fetch_ready_async_reqs(self, tags, timeout_seconds):
        return [(worker, (*self.asked.pop(worker), {})) for worker in self.ready]


@pytest.fixture
def a3c_driver(a3c):
    """A3C.training_step with everything around it made of paper."""
    from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

    class Driver(a3c.A3C):
        def __init__(self):
            self.env_runner_group, self.metrics = A3CWorkers([1, 2, 3]), MetricsLogger(root=True)
            self.updates, self.applied = 0, []
            module = torch.nn.Linear(1, 1, bias=False)
            self.local_env_runner = SimpleNamespace(module=module)
            self.fetch_weights()

        env_runner = property(lambda self: self.local_env_runner)

        def on_learner(self, function):
            metrics = SimpleNamespace(reduce=dict)
            weights = np.array([float(self.updates)], np.float32)  # the version, as weights
            return function(
                SimpleNamespace(
                    metrics=metrics,
                    get_vector=lambda: weights,
                    step_along=lambda gradient, env_steps: self.applied.append(gradient.item()),
                )
            )

    return Driver()


def test_a3c_counts_the_updates_that_others_made_meanwhile(a3c_driver):
    workers = a3c_driver.env_runner_group
    for workers.ready in ([], [2], [2], [1, 2], [3], [3]):
        a3c_driver.training_step()
    # Versions asked for: all get 0; 2 then has 1, then 2; 1 brings 0, 2 brings 2; 3 brings 0, then 5.
    assert a3c_driver.applied == [0, 1, 0, 2, 0, 5]
    assert a3c_driver.metrics.reduce(compile=True)["staleness"] == [0, 0, 2, 1, 4, 0]
    assert {worker: version for worker, (_, version) in workers.asked.items()} == {1: 3, 2: 4, 3: 6}
    # The module of the driver has the newest weights.
    assert a3c_driver.env_runner.module.weight.item() == 6


def test_a3c_asks_a_worker_that_came_back(a3c_driver):
    workers = a3c_driver.env_runner_group
    for workers.ready in ([], [1], [3]):
        a3c_driver.training_step()
    del workers.asked[2]  # it died, and RLlib has restarted it
    workers.ready = []
    a3c_driver.training_step()
    assert workers.asked[2][1] == 2


# Ape-X DQN -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def apex_dqn():
    return definitions("apex_dqn")


def test_the_ladder_of_epsilons_goes_from_much_to_hardly_any_chance(apex_dqn):
    # 0.4^(1 + 7 · 0), 0.4^(1 + 3.5) = 0.4^4.5, 0.4^(1 + 7) = 0.4^8
    ladder = apex_dqn.ladder(0.4, 7.0, 3)
    np.testing.assert_allclose(ladder, [0.4, 0.016190861620062103, 0.00065536])
    np.testing.assert_allclose(apex_dqn.ladder(0.4, 7.0, 1), [0.4])


def numbered(steps: int) -> tuple:
    """Observations 0 to `steps`, actions 10, 11, ..., rewards 1, 2, 4, ..."""
    observations = np.arange(steps + 1.0, dtype=np.float32)[:, None]
    return observations, 10 + np.arange(steps), 2.0 ** np.arange(steps)


@pytest.mark.parametrize("name", ["apex_dqn", "rainbow"])
def test_n_steps_stop_at_a_termination(name, request):
    rows = request.getfixturevalue(name).n_step(
        *numbered(4), n=3, gamma=0.5, terminated=True, truncated=False
    )
    # Rewards 1, 2, 4, 8. From step 0: 1 + 2/2 + 4/4. From step 1: 2 + 4/2 + 8/4. Then 4 + 8/2, and 8.
    np.testing.assert_allclose(rows["rewards"], [3.0, 6.0, 8.0, 8.0])
    np.testing.assert_array_equal(rows["obs"][:, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(rows["new_obs"][:, 0], [3, 4, 4, 4])
    np.testing.assert_array_equal(rows["actions"], [10, 11, 12, 13])
    np.testing.assert_array_equal(rows["n_step"], [3, 3, 2, 1])
    np.testing.assert_array_equal(rows["terminateds"], [False, True, True, True])


@pytest.mark.parametrize("name", ["apex_dqn", "rainbow"])
def test_n_steps_go_on_after_a_time_limit(name, request):
    rows = request.getfixturevalue(name).n_step(
        *numbered(4), n=3, gamma=0.5, terminated=False, truncated=True
    )
    np.testing.assert_array_equal(rows["new_obs"][:, 0], [3, 4, 4, 4])
    np.testing.assert_array_equal(rows["n_step"], [3, 3, 2, 1])
    assert not rows["terminateds"].any()


@pytest.mark.parametrize("name", ["apex_dqn", "rainbow"])
@pytest.mark.parametrize(("steps", "complete"), [(5, 3), (3, 1), (2, 0), (1, 0)])
def test_the_last_steps_of_a_piece_wait_for_the_next_one(name, steps, complete, request):
    rows = request.getfixturevalue(name).n_step(
        *numbered(steps), n=3, gamma=0.5, terminated=False, truncated=False
    )
    assert {len(column) for column in rows.values()} == {complete}
    np.testing.assert_array_equal(rows["new_obs"][:, 0], 3 + np.arange(complete))


def pieces_of_an_episode(lengths: list[int], terminated: bool) -> list:
    """The episode of `numbered` as an env runner returns it; a time limit ends it if nothing else does."""
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

    steps, done, pieces = sum(lengths), 0, []
    observations, actions, rewards = numbered(steps)
    for length in lengths:
        span = slice(done, done + length)
        done += length
        piece = SingleAgentEpisode(
            id_="one",
            observations=list(observations[span.start : span.stop + 1]),
            actions=list(actions[span]),
            rewards=list(rewards[span]),
            terminated=terminated and done == steps,
            truncated=not terminated and done == steps,
            len_lookback_buffer=0,
        )
        pieces.append(piece.to_numpy())
    return pieces


@pytest.mark.parametrize("cuts", [[9], [1, 2, 3, 3], [2, 7], [4, 5], [8, 1]])
@pytest.mark.parametrize("terminated", [True, False])
def test_however_an_episode_is_cut_its_transitions_are_the_same(apex_dqn, rainbow, cuts, terminated):
    config = SimpleNamespace(n_step=3, gamma=0.5, seed=0)
    config.replay_buffer_config = {"capacity": 9, "alpha": 0.5, "beta": 0.4}
    runner, buffer = SimpleNamespace(tails={}, config=config), rainbow.PrioritizedReplay(config)
    found = []
    for piece in pieces_of_an_episode(cuts, terminated):
        found.append(apex_dqn.ApeXEnvRunner.transitions(runner, piece))
        buffer.add(piece)
    assert runner.tails == buffer.tails == {}
    assert buffer.added == 9
    whole = apex_dqn.n_step(*numbered(9), 3, 0.5, terminated, not terminated)
    for name, column in whole.items():
        np.testing.assert_allclose(np.concatenate([rows[name] for rows in found]), column)
        np.testing.assert_allclose(buffer.columns[name], column)


def test_first_priorities_are_the_td_errors_of_the_env_runner_s_network(apex_dqn):
    rows = {
        "rewards": np.array([1.0, 1.0]),
        "actions": np.array([1, 0]),
        "n_step": np.array([2.0, 2.0]),
        "terminateds": np.array([False, True]),
    }
    q, q_next = np.array([[9.0, 2.0], [4.0, 9.0]]), np.array([[5.0, 8.0], [5.0, 8.0]])
    # |1 + 0.5² · 8 - 2| = 1 and |1 - 4| = 3
    np.testing.assert_allclose(apex_dqn.td_errors(rows, q, q_next, 0.5), [1.0, 3.0])


def test_a_shard_draws_in_proportion_to_priorities_and_weighs_against_it(apex_dqn):
    shard = apex_dqn.ReplayShard(capacity=10, alpha=0.5, seed=0)
    shard.add({"number": np.arange(3)}, np.array([1.0, 4.0, 49.0]))
    serials, rows = shard.sample(20_000, beta=0.5)
    np.testing.assert_array_equal(rows["number"], serials)
    # The roots, 1, 2 and 7 of 10.
    np.testing.assert_allclose(np.bincount(serials) / 20_000, [0.1, 0.2, 0.7], atol=0.015)
    # (3 · 0.1)^-½, (3 · 0.2)^-½ and (3 · 0.7)^-½, over the largest of them.
    expected = np.array([1.0, 0.5**0.5, (1 / 7) ** 0.5])
    np.testing.assert_allclose(rows["weights"], expected[serials], rtol=1e-5)


def test_new_priorities_replace_those_of_transitions_that_are_still_there(apex_dqn):
    shard = apex_dqn.ReplayShard(capacity=3, alpha=1.0, seed=0)
    shard.add({"number": np.arange(3)}, np.ones(3))
    shard.add({"number": np.array([3, 4])}, np.array([5.0, 6.0]))  # in the places of 0 and 1
    shard.update_priorities(np.array([0, 2, 4]), np.array([70.0, 8.0, 9.0]))  # 0 is gone
    np.testing.assert_allclose(shard.priorities, [5.0, 9.0, 8.0], rtol=1e-5)
    serials, rows = shard.sample(50, beta=0.4)
    assert set(serials) == {2, 3, 4}
    np.testing.assert_array_equal(rows["number"], serials)


def test_a_transition_without_error_can_still_be_drawn(apex_dqn):
    shard = apex_dqn.ReplayShard(capacity=3, alpha=0.6, seed=0)
    shard.add({"number": np.arange(2)}, np.zeros(2))
    assert set(shard.sample(50, beta=0.4)[0]) == {0, 1}


def test_each_env_of_each_env_runner_has_its_own_epsilon(apex_dqn):
    config = apex_dqn.ApeXConfig().environment("CartPole-v1")
    config.env_runners(num_env_runners=2, num_envs_per_env_runner=3)
    ladder = apex_dqn.ladder(*config.epsilon_ladder, 6)
    for worker in (1, 2):
        runner = apex_dqn.ApeXEnvRunner(config=config, worker_index=worker)
        held = runner.module.epsilon_schedule.get_current_value()
        np.testing.assert_allclose(held, ladder[3 * worker - 3 : 3 * worker])
        runner.stop()


def test_td_errors_come_back_in_the_order_of_the_draw(apex_dqn):
    from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

    config = apex_dqn.ApeXConfig().training(lr=0.0).rl_module(model_config={"fcnet_hiddens": [4]})
    config.environment(observation_space=gym.spaces.Box(-1, 1, (2,)), action_space=gym.spaces.Discrete(2))
    learner = config.build_learner()
    rows = apex_dqn.n_step(
        np.random.default_rng(0).normal(size=(13, 2)).astype(np.float32),
        np.arange(12) % 2,
        np.arange(12.0),
        3,
        0.9,
        True,
        False,
    )
    rows["weights"] = np.ones(12, np.float32)

    def errors(**settings) -> np.ndarray:
        batch = MultiAgentBatch({"default_policy": SampleBatch(rows)}, 12)
        result = learner.update(batch=batch, timesteps={}, **settings)
        return np.concatenate(result["default_policy"]["td_error"].peek())

    in_parts, whole = errors(minibatch_size=4), errors()
    assert in_parts.shape == (12,) and len(set(in_parts.round(4))) == 12
    np.testing.assert_allclose(in_parts, whole, rtol=1e-5)


def test_what_is_measured_for_its_throughput_is_the_program_on_the_page():
    def parts(name: str) -> dict[str, str]:
        tree = ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))
        named = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        return {node.name: ast.unparse(node) for node in named}

    measured = parts("apex_throughput")
    assert measured.pop("measure")
    assert measured == parts("apex_dqn")


# Rainbow --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rainbow():
    return definitions("rainbow")


DISCRETE = {"observation_space": gym.spaces.Box(-1, 1, (2,)), "action_space": gym.spaces.Discrete(2)}


def rainbow_module(rainbow, **settings):
    """A small network of Rainbow as its learner has it, with three atoms: 0, 10 and 20."""
    from ray.rllib.algorithms.dqn import DQNConfig
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

    model = {"fcnet_hiddens": [4], "noisy": settings.pop("noisy", True)}
    config = DQNConfig().training(**{"num_atoms": 3, "v_min": 0.0, "v_max": 20.0} | settings)
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=rainbow.RainbowModule), model_config=model)
    torch.manual_seed(0)
    return config.environment(**DISCRETE).build_learner().module["default_policy"]


def test_a_noisy_layer_adds_the_outer_product_of_two_draws_to_each_row(rainbow):
    torch.manual_seed(0)
    layer, x = rainbow.NoisyLinear(3, 2), torch.randn(4, 3)
    assert layer.sigma_weight.unique().item() == pytest.approx(0.5 / 3**0.5)
    assert layer.sigma_bias.unique().item() == pytest.approx(0.5 / 3**0.5)
    with torch.no_grad():  # each size of its own, so that a mix-up shows
        layer.sigma_weight.copy_(torch.rand(2, 3))
        layer.sigma_bias.copy_(torch.rand(2))
    torch.manual_seed(1)
    found = layer(x)
    torch.manual_seed(1)
    into, out_of = (torch.sgn(z) * z.abs() ** 0.5 for z in (torch.randn(4, 3), torch.randn(4, 2)))
    for row in range(4):
        weight = layer.weight + layer.sigma_weight * torch.outer(out_of[row], into[row])
        expected = weight @ x[row] + layer.bias + layer.sigma_bias * out_of[row]
        torch.testing.assert_close(found[row], expected)


def test_noise_acts_in_exploring_and_learning_and_not_in_the_greedy_policy(rainbow):
    module = rainbow_module(rainbow, epsilon=0.0)
    batch = {"obs": torch.randn(500, 2), "new_obs": torch.randn(500, 2)}

    def differ(call, key: str) -> bool:
        return not torch.equal(call()[key], call()[key])

    assert differ(lambda: module.forward_exploration(batch, t=0), "actions")
    for key in ("qf_preds", "qf_next_preds", "qf_target_next_preds"):
        assert differ(lambda: module.forward_train(batch), key)
    assert not differ(lambda: module.forward_inference(batch), "actions")
    assert differ(lambda: module.forward_train(batch), "qf_preds"), "noise is back after a greedy action"


def test_the_value_stream_moves_the_distribution(rainbow):
    """In RLlib's own network it has one output for all atoms, which the softmax takes out again."""
    module = rainbow_module(rainbow, noisy=False)
    with torch.no_grad():
        for layer in (module.af, module.vf):
            layer.weight.zero_()
        # Of action 0, then of action 1: their mean, (1, 1, 1), goes.
        module.af.bias.copy_(torch.tensor([1.0, 2.0, 0.0, 1.0, 0.0, 2.0]))
        module.vf.bias.copy_(torch.tensor([0.0, 0.0, 3.0]))
        out = module.compute_q_values({"obs": torch.ones(1, 2)})
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.0, -1.0, 4.0]])
    torch.testing.assert_close(out["qf_logits"][0], logits)
    torch.testing.assert_close(out["qf_probs"][0], logits.exp() / logits.exp().sum(dim=1, keepdim=True))
    torch.testing.assert_close(out["atoms"], torch.tensor([0.0, 10.0, 20.0]))
    torch.testing.assert_close(out["qf_preds"], (out["qf_probs"] * out["atoms"]).sum(dim=-1))


def test_without_a_distribution_q_is_value_plus_centered_advantage(rainbow):
    module = rainbow_module(rainbow, noisy=False, num_atoms=1)
    with torch.no_grad():
        for layer in (module.af, module.vf):
            layer.weight.zero_()
        module.af.bias.copy_(torch.tensor([1.0, 4.0]))
        module.vf.bias.fill_(10.0)
        out = module.compute_q_values({"obs": torch.ones(3, 2)})
    torch.testing.assert_close(out["qf_preds"], torch.tensor([[8.5, 11.5]]).expand(3, 2))


@pytest.fixture
def replay(rainbow):
    config = SimpleNamespace(n_step=1, gamma=0.5, seed=0)
    config.replay_buffer_config = {"capacity": 4, "alpha": 0.5, "beta": 0.5}
    return rainbow.PrioritizedReplay(config)


def test_the_replay_draws_in_proportion_to_priorities_and_weighs_against_it(replay):
    replay.add(pieces_of_an_episode([3], terminated=True)[0])
    replay.update(np.arange(3), np.array([1.0, 4.0, 49.0]))
    index, rows = replay.sample(20_000)
    np.testing.assert_array_equal(rows["obs"][:, 0], index)
    # The roots, 1, 2 and 7 of 10.
    np.testing.assert_allclose(np.bincount(index) / 20_000, [0.1, 0.2, 0.7], atol=0.015)
    # (3 · 0.1)^-½, (3 · 0.2)^-½ and (3 · 0.7)^-½, over the largest of them.
    expected = np.array([1.0, 0.5**0.5, (1 / 7) ** 0.5])
    np.testing.assert_allclose(rows["weights"], expected[index], rtol=1e-5)


def test_new_transitions_take_the_place_of_the_oldest_and_the_highest_priority(replay):
    replay.add(pieces_of_an_episode([4], terminated=True)[0])
    np.testing.assert_allclose(replay.priorities, 1.0)
    replay.update(np.arange(4), np.array([1.0, 4.0, 16.0, 9.0]))
    replay.add(pieces_of_an_episode([2], terminated=True)[0])
    np.testing.assert_allclose(replay.priorities, [4.0, 4.0, 4.0, 3.0], rtol=1e-5)
    np.testing.assert_array_equal(replay.columns["obs"][:, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(replay.columns["terminateds"], [False, True, False, True])


@pytest.mark.parametrize(
    ("left_out", "changed"),
    [
        ("double", {"double_q"}),
        ("priorities", {"replay_buffer_config"}),
        ("dueling", {"dueling"}),
        ("n_step", {"n_step"}),
        ("distribution", {"num_atoms"}),
        ("noisy", {"_model_config", "epsilon"}),
    ],
)
def test_a_switch_of_rainbow_leaves_out_one_part_and_nothing_else(left_out, changed, rainbow):
    tree = ast.parse((EXAMPLES / "rainbow.py").read_text(encoding="utf-8"))
    [built] = [node for node in tree.body if ast.unparse(node).startswith("config = ")]

    def settings(without: str) -> dict:
        names = vars(rainbow) | {"SEED": 0, "WITHOUT": without}
        exec(compile(ast.Module([built], []), "rainbow.py", "exec"), names)
        return names["config"].to_dict()

    whole, part = settings(""), settings(left_out)
    assert {name for name in whole if whole[name] != part[name]} == changed


# All of them ---------------------------------------------------------------------------------------

RESTORE = """
import tempfile
import gymnasium as gym

def greedy_return(algo):
    module, env, total = algo.get_module(), gym.make(globals().get("ENV", algo.config.env)), 0.0
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        done = False
        while not done:
            with torch.no_grad():
                out = module.forward_inference({"obs": torch.tensor(observation)[None]})
            if "actions" in out:  # of a deterministic policy
                action = out["actions"][0].numpy()
            else:
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

RESTORE_TEAM = """
import tempfile

def greedy_return(algo):
    module, env, total, done = algo.get_module("agents"), TeamGame({"game": ENV}), 0.0, False
    views, _ = env.reset()
    while not done:
        with torch.no_grad():
            out = module.forward_inference({"obs": torch.tensor(np.stack(list(views.values())))})
        actions = dict(zip(views, out["actions"].tolist()))
        views, rewards, terminated, _, _ = env.step(actions)
        total, done = total + sum(rewards.values()), terminated["__all__"]
    return total

def learned(algo):
    modules = algo.learner_group.get_state()["learner"]["rl_module"]
    return {(name, key): value for name, state in modules.items() for key, value in state.items()}

config.env_runners(num_env_runners=2)
algo = config.build_algo()
for _ in range(2):
    before = algo.train()["env_runners"]["num_env_steps_sampled_lifetime"]
assert algo.env_runner_group.num_healthy_remote_workers() == 2
expected, weights = greedy_return(algo), learned(algo)
with tempfile.TemporaryDirectory() as folder:
    algo.save_to_path(folder)
    algo.stop()  # its env runners hold the cores that the restored ones need
    restored = type(algo).from_checkpoint(folder)
assert greedy_return(restored) == expected, "another policy came back"
again = learned(restored)
assert again.keys() == weights.keys() and all((again[key] == weights[key]).all() for key in weights)
assert {name for name, _ in again} == ({"agents", "mixer"} if "Mixer" in globals() else {"agents"})
after = restored.train()["env_runners"]["num_env_steps_sampled_lifetime"]
assert after > before, (before, after)
assert restored.evaluate()["env_runners"]["episode_return_mean"] is not None
restored.stop()
ray.shutdown()
print("restored")
"""


@pytest.mark.slow
@pytest.mark.training("examples/algorithms/{name}.py")
@pytest.mark.parametrize("name", REBUILT)
def test_it_runs_with_two_env_runners_and_comes_back_from_a_checkpoint(name):
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    start, found, _ = source.partition("\nalgo = config.build_algo()\n")
    assert found, "the program builds its algorithm in a line of its own"
    rest = RESTORE_TEAM if "class TeamGame(" in start else RESTORE
    outcome = run_program(start + rest, file_name=f"{name}.py", limit=240)
    printed = "\n".join(line for _, line in outcome.lines)
    assert outcome.exit_status == 0, printed[-3000:]
    assert outcome.stdout.splitlines()[-1] == "restored"
    assert outcome.left_running == []
