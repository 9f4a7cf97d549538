"""QMIX, rebuilt on RLlib 2.60: agents act alone, a monotonic mixer teaches the team."""

import logging
import os
import sys
import time
from collections import deque

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.dqn import DQN, DQNConfig
from ray.rllib.algorithms.dqn.dqn import calculate_rr_weights
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.rl_module.apis import TargetNetworkAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME as ENV_STEPS
from torch import nn

SEED = int(os.environ.get("SEED", 0))
ENV = os.environ.get("ENV", "TwoStep")
TARGET = 8  # of 20 greedy episodes; it is the most in both games
MAX_ENV_STEPS = {"TwoStep": 6_000, "Expedition": 40_000}[ENV]
# Moves, last cell, steps, and for each place the team's pay by how many have arrived.
GAMES = {
    "TwoStep": ((0, 1), 1, 1, [[7, 7, 7], [0, 1, 8]]),
    # Moves: back, wait, ahead. Places: camp, orchard, mine.
    "Expedition": ((-1, 0, 1), 2, 4, [[5, 5, 5, 5], [0, 2, 4, 6], [0, 1, 2, 8]]),
}


class TeamGame(MultiAgentEnv):
    """Agent 0 chooses a place. There all move, and are paid by how many arrive."""

    def __init__(self, config):
        super().__init__()
        self.moves, self.last, self.steps, self.pays = GAMES[config["game"]]
        num_agents = len(self.pays[0]) - 1
        self.agents = self.possible_agents = [f"agent_{i}" for i in range(num_agents)]
        self.sizes = (len(self.pays) + 1, self.steps + 1, self.last + 1, num_agents)
        view = gym.spaces.Box(0.0, 1.0, (sum(self.sizes),), np.float32)
        self.observation_spaces = dict.fromkeys(self.agents, view)
        actions = gym.spaces.Discrete(len(self.moves))
        self.action_spaces = dict.fromkeys(self.agents, actions)

    def reset(self, *, seed=None, options=None):
        self.place, self.time, self.cells = 0, 0, np.zeros(len(self.agents), int)
        return self.views(), {}

    def views(self):  # the last part says who it is: one network plays all agents
        views = {}
        for i, agent in enumerate(self.agents):
            numbers = (self.place, self.time, self.cells[i], i)
            hot = [np.eye(n)[k] for n, k in zip(self.sizes, numbers, strict=True)]
            views[agent] = np.hstack(hot, dtype=np.float32)
        return views

    def step(self, actions):
        chosen = [actions[agent] for agent in self.agents]
        if self.place == 0:
            self.place = 1 + int(chosen[0])
        else:
            self.time += 1
            self.cells = np.clip(self.cells + np.take(self.moves, chosen), 0, self.last)
        done = self.time == self.steps
        pay = self.pays[self.place - 1][sum(self.cells == self.last)] * done
        shares = dict.fromkeys(self.agents, pay / len(self.agents))
        return self.views(), shares, {"__all__": done}, {"__all__": False}, {}


class QMIXConfig(DQNConfig):
    """DQN's settings. One network for all agents, and a mixer for the Learner."""

    def __init__(self, algo_class=None):
        super().__init__(algo_class or QMIX)
        self.multi_agent(
            policies={"agents"}, policy_mapping_fn=lambda *args, **kwargs: "agents"
        )
        self.learners(learner_class=QMIXLearner)

    def get_multi_rl_module_spec(self, *, inference_only=False, **kwargs):
        spec = super().get_multi_rl_module_spec(inference_only=inference_only, **kwargs)
        if not inference_only:  # env runners act without it
            spec.rl_module_specs["mixer"] = RLModuleSpec(
                module_class=Mixer,
                observation_space=spec["agents"].observation_space,
                model_config=self.model_config,
                learner_only=True,
            )
        return spec


class Mixer(TorchRLModule, TargetNetworkAPI):
    """Hypernetworks: from the state, all observations, to the weights that mix."""

    def setup(self):
        agents, hidden = self.model_config["mixer"]
        inputs = agents * self.observation_space.shape[0]
        last = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        sizes = {"w1": agents * hidden, "b1": hidden, "w2": hidden}
        layers = {name: nn.Linear(inputs, size) for name, size in sizes.items()}
        self.net = nn.ModuleDict({**layers, "b2": last})

    def _forward_train(self, batch, **kwargs):
        now = {name: layer(batch["obs"]) for name, layer in self.net.items()}
        return {"now": now, "next": self.forward_target(batch)}

    def forward_target(self, batch):
        return {name: layer(batch["new_obs"]) for name, layer in self.target.items()}

    def make_target_networks(self):
        self.target = make_target_network(self.net)

    def get_target_network_pairs(self):
        return [(self.net, self.target)]


def mix(q, w1, b1, w2, b2):
    """Q_tot of the agents' Q-values. Absolute weights: it falls with none of them."""
    hidden = torch.einsum("ba,bah->bh", q, w1.abs().unflatten(-1, (q.shape[-1], -1)))
    return (nn.functional.elu(hidden + b1) * w2.abs()).sum(-1) + b2.squeeze(-1)


class QMIXLearner(DQNTorchLearner):
    """One loss for the team. RLlib's learner of DQN does all the rest."""

    def compute_losses(self, *, fwd_out, batch):
        seen, out = batch["agents"], fwd_out["agents"]
        q = out["qf_preds"].gather(-1, seen["actions"][..., None].long()).squeeze(-1)
        # Double Q: the network chooses the next action, its older copy values it.
        best = out["qf_next_preds"].argmax(-1, keepdim=True)
        next_q = out["qf_target_next_preds"].gather(-1, best).squeeze(-1)
        value = mix(q, **fwd_out["mixer"]["now"])
        next_value = mix(next_q, **fwd_out["mixer"]["next"])
        rewards, goes_on = seen["rewards"].sum(-1), 1.0 - seen["terminateds"][:, 0]
        target = rewards + self.config.gamma * goes_on * next_value
        return {"agents": (value - target).square().mean()}

    @classmethod
    def rl_module_required_apis(cls):  # else the mixer would get no optimizer
        return [TargetNetworkAPI]


def joint_steps(episode):
    """A piece of an episode as env steps of the team: each column (steps, agents)."""
    agents = [episode.agent_episodes[name] for name in sorted(episode.agent_ids)]
    if {len(agent) for agent in agents} != {len(episode)}:
        raise ValueError("All agents have to act in every env step.")
    obs = np.stack([agent.get_observations() for agent in agents], axis=1)
    actions = np.stack([agent.get_actions() for agent in agents], axis=1)
    rewards = np.stack([agent.get_rewards() for agent in agents], axis=1)
    ended = np.zeros_like(rewards)
    ended[-1] = episode.is_terminated
    yield from zip(obs[:-1], obs[1:], actions, rewards, ended, strict=True)


class QMIX(DQN):
    """DQN with a replay of whole env steps: what all agents saw, did and got."""

    @classmethod
    def get_default_config(cls):
        return QMIXConfig()

    def _create_local_replay_buffer_if_necessary(self, config):
        return deque(maxlen=config.replay_buffer_config["capacity"])

    def training_step(self):
        sample_rounds, updates = calculate_rr_weights(self.config)
        for _ in range(sample_rounds):
            episodes, results = synchronous_parallel_sample(
                worker_set=self.env_runner_group,
                _uses_new_env_runners=True,
                _return_metrics=True,
            )
            self.metrics.aggregate(results, key=ENV_RUNNER_RESULTS)
            for episode in episodes:
                self.local_replay_buffer.extend(joint_steps(episode))
        steps = {ENV_STEPS: self.metrics.peek((ENV_RUNNER_RESULTS, ENV_STEPS))}
        if steps[ENV_STEPS] < self.config.num_steps_sampled_before_learning_starts:
            return
        for _ in range(updates):
            results = self.learner_group.update(batch=self.draw(), timesteps=steps)
            self.metrics.aggregate(results, key=LEARNER_RESULTS)
        self.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.learner_group,
            policies=["agents"],
            inference_only=True,
        )

    def draw(self):
        replay, count = self.local_replay_buffer, self.config.total_train_batch_size
        rows = [replay[i] for i in np.random.randint(len(replay), size=count)]
        keys = ("obs", "new_obs", "actions", "rewards", "terminateds")
        columns = dict(zip(keys, map(np.float32, zip(*rows, strict=True)), strict=True))
        state = {name: columns[name].reshape(count, -1) for name in ("obs", "new_obs")}
        batches = {"agents": SampleBatch(columns), "mixer": SampleBatch(state)}
        return MultiAgentBatch(batches, env_steps=count)


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
gym.logger.min_level = gym.logger.ERROR  # no word about a second env runner's envs
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    QMIXConfig()
    .environment(TeamGame, env_config={"game": ENV})
    .env_runners(num_envs_per_env_runner=16, rollout_fragment_length=4)  # 64 a round
    .training(
        epsilon=1.0,  # always at random, as in the paper's game: all see the same data
        training_intensity=16,  # 8 updates of 128 a round; default: one
        train_batch_size_per_learner=128,  # default 32
        num_steps_sampled_before_learning_starts=500,  # default 1000
        lr=3e-3,  # default 5e-4
        target_network_update_freq=0,  # at each update, but only 5 % of the way;
        tau=0.05,  # default: the whole way every 500 env steps
    )
    .rl_module(
        model_config={
            "fcnet_hiddens": [64],  # default [256, 256]
            "fcnet_activation": "relu",  # default "tanh"
            "mixer": (len(GAMES[ENV][-1][0]) - 1, 32),  # agents, hidden units
        }
    )
    # 20 greedy episodes. Only with an interval does evaluation have its own env runner.
    .evaluation(
        evaluation_interval=1_000_000,
        evaluation_duration=20,
        evaluation_config={"explore": False, "num_envs_per_env_runner": 20},
    )
    # One train() goes on for 500 env steps, or 2000 in the longer game.
    .reporting(min_sample_timesteps_per_iteration={"TwoStep": 500}.get(ENV, 2000))
    .debugging(seed=SEED)
)

algo = config.build_algo()
start, env_steps, iteration, in_a_row = time.perf_counter(), 0, 0, 0
while in_a_row < 3 and env_steps < MAX_ENV_STEPS:  # one could be luck
    iteration += 1
    env_steps = int(algo.train()["env_runners"]["num_env_steps_sampled_lifetime"])
    greedy_return = round(algo.evaluate()["env_runners"]["episode_return_mean"], 3)
    in_a_row = in_a_row + 1 if greedy_return >= TARGET else 0
    seconds = time.perf_counter() - start
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {greedy_return:6.1f}   seconds {seconds:5.1f}"
    )

algo.stop()
ray.shutdown()
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"QMIX missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
