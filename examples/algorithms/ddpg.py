"""DDPG, rebuilt on RLlib 2.60: DQN for continuous actions, whose max is a policy."""

import logging
import os
import sys
import time

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.dqn import DQN, DQNConfig
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import QF_PREDS, DQNTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, QNetAPI, TargetNetworkAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.tune.registry import register_env
from torch import nn

SEED = int(os.environ.get("SEED", 0))
ENV = os.environ.get("ENV", "Pendulum-v1")
PENDULUM = ENV == "Pendulum-v1"
# The target is a mean return of 20 greedy episodes; at first it is about -1200 and 0.
TARGET, MAX_ENV_STEPS = (-250, 12_000) if PENDULUM else (90, 40_000)


class DDPGConfig(DQNConfig):
    """DQN's settings; those of epsilon and of its network have no effect."""

    def __init__(self, algo_class=None):
        super().__init__(algo_class or DDPG)
        self.training(
            grad_clip=None,  # DQN: 40
            train_batch_size_per_learner=128,  # DQN: 32
            training_intensity=64,  # replayed steps for each env step: 1/2 update
            tau=0.02,  # part of the way that target networks go; DQN: 1.0, all of it
            target_network_update_freq=0,  # after each update; DQN: 500 env steps
        )

    def get_default_rl_module_spec(self):
        return RLModuleSpec(module_class=DDPGModule)

    def get_default_learner_class(self):
        return DDPGLearner


class DDPGModule(TorchRLModule, InferenceOnlyAPI, TargetNetworkAPI, QNetAPI):
    """A policy π(s), with actions from -1 to 1, and a critic Q(s, a)."""

    def setup(self):
        states, actions = self.observation_space.shape[0], self.action_space.shape[0]
        hiddens = self.model_config["fcnet_hiddens"]
        self.pi = nn.Sequential(mlp(states, *hiddens, actions), nn.Tanh())
        self.q = mlp(states + actions, *hiddens, 1)
        self.register_buffer("updates", torch.tensor(0))
        self.noise = torch.zeros(0, actions)

    def make_target_networks(self):  # DQNLearner calls this, and moves them by tau
        self.target_pi = make_target_network(self.pi)
        self.target_q = make_target_network(self.q)

    def get_target_network_pairs(self):
        return [(self.pi, self.target_pi), (self.q, self.target_q)]

    def get_non_inference_attributes(self):  # env runners need none of these
        return ["q", "target_pi", "target_q"]

    def _forward(self, batch, **kwargs):  # greedy
        return {Columns.ACTIONS: self.pi(batch[Columns.OBS])}

    def _forward_exploration(self, batch, **kwargs):
        pi = action = self.pi(batch[Columns.OBS])
        theta, sigma = self.model_config["ou_theta"], self.model_config["ou_sigma"]
        # Before its first update the policy knows nothing: then only noise, and much.
        if self.updates == 0:
            action, sigma = 0.0, 1.0
        last = self.noise if self.noise.shape == pi.shape else 0.0  # one for each env
        self.noise = ou_step(last, theta, sigma * torch.randn_like(pi))
        return {Columns.ACTIONS: (action + self.noise).clamp(-1.0, 1.0)}

    def _forward_train(self, batch):
        self.updates += 1
        out = self.compute_q_values(batch) | self.forward_target(batch)
        self.q.requires_grad_(False)  # the policy's loss is not to change the critic
        policy = self._forward(batch) | {Columns.OBS: batch[Columns.OBS]}
        out["q_of_policy"] = self.compute_q_values(policy)[QF_PREDS]
        self.q.requires_grad_(True)
        return out

    def compute_q_values(self, batch):
        return {QF_PREDS: q_value(self.q, batch[Columns.OBS], batch[Columns.ACTIONS])}

    def forward_target(self, batch):
        actions = self.target_pi(batch[Columns.NEXT_OBS])
        return {"q_next": q_value(self.target_q, batch[Columns.NEXT_OBS], actions)}


def mlp(*sizes):
    layers = [nn.Linear(*pair) for pair in zip(sizes[:-1], sizes[1:], strict=True)]
    return nn.Sequential(layers[0], *[nn.Sequential(nn.ReLU(), x) for x in layers[1:]])


def q_value(critic, observations, actions):
    return critic(torch.cat([observations, actions], dim=-1)).squeeze(-1)


def ou_step(noise, theta, push):
    """Ornstein-Uhlenbeck noise: `theta` draws it to 0. Gaussian noise if theta is 1."""
    return noise - theta * noise + push


def td_target(batch, q_next, gamma):
    """r + γ Q(s', π(s')), without the second part where the episode terminated."""
    return batch[Columns.REWARDS] + gamma * (1 - batch[Columns.TERMINATEDS]) * q_next


class DDPGLearner(DQNTorchLearner):
    """The loss of critic and policy. Neither reaches the other's weights."""

    def compute_loss_for_module(self, *, module_id, config, batch, fwd_out):
        target = td_target(batch, fwd_out["q_next"], config.gamma)
        q_loss = torch.square(fwd_out[QF_PREDS] - target).mean()
        return q_loss - fwd_out["q_of_policy"].mean()


class ReplayBuffer:
    """A plain list of transitions. RLlib's own buffers are slower: see the SAC page."""

    def __init__(self, capacity, seed):
        self.rows, self.capacity = [], capacity
        self.rng = np.random.default_rng(seed)

    def add(self, episodes):
        for piece in episodes:
            states, actions = piece.get_observations(), piece.get_actions()
            ends = [False] * (len(piece) - 1) + [piece.is_terminated]
            rest = (piece.get_rewards(), states[1:], ends)
            self.rows += zip(states[:-1], actions, *rest, strict=True)
        del self.rows[: -self.capacity]

    def sample(self, num_items):
        drawn = self.rng.integers(len(self.rows), size=num_items)
        columns = zip(*[self.rows[row] for row in drawn], strict=True)
        arrays = [np.array(column, np.float32) for column in columns]
        names = ("obs", "actions", "rewards", "new_obs", "terminateds")
        batch = SampleBatch(dict(zip(names, arrays, strict=True)))
        return MultiAgentBatch({DEFAULT_MODULE_ID: batch}, env_steps=num_items)


class DDPG(DQN):
    """Some env steps with noise, updates from the buffer, new weights, and again."""

    @classmethod
    def get_default_config(cls):
        return DDPGConfig()

    def setup(self, config):
        super().setup(config)
        self.replay = ReplayBuffer(capacity=50_000, seed=self.config.seed)

    def training_step(self):
        config, batch_size = self.config, self.config.total_train_batch_size
        episodes, results = synchronous_parallel_sample(
            worker_set=self.env_runner_group,
            _uses_new_env_runners=True,
            _return_metrics=True,
        )
        self.metrics.aggregate(results, key="env_runners")
        self.replay.add(episodes)
        # Buffers are not in RLlib's checkpoints: a restored algorithm fills it again.
        if len(self.replay.rows) < config.num_steps_sampled_before_learning_starts:
            return
        updates = config.training_intensity * sum(map(len, episodes)) / batch_size
        for _ in range(max(1, round(updates))):
            results = self.learner_group.update(batch=self.replay.sample(batch_size))
            self.metrics.aggregate(results, key="learners")
        self.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.learner_group, inference_only=True
        )


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")
gym.logger.min_level = gym.logger.ERROR  # no word about a second env runner's envs

# Observations from -1 to 1: the mountain car's speed is below 0.07.
register_env("scaled", lambda _: gym.wrappers.RescaleObservation(gym.make(ENV), -1, 1))
config = (
    DDPGConfig()
    .environment("scaled")
    .env_runners(num_env_runners=0, num_envs_per_env_runner=8)  # one by default
    .training(
        lr=2e-3 if PENDULUM else 1e-3,  # of policy and critic; DQN: 5e-4
        num_steps_sampled_before_learning_starts=1000 if PENDULUM else 4000,
        gamma=0.95 if PENDULUM else 0.99,  # 0.99 by default; a swing-up is short
    )
    .rl_module(
        model_config={
            "fcnet_hiddens": [64, 64],  # default [256, 256]
            "ou_theta": 0.15,  # with 1.0, the noise is Gaussian
            "ou_sigma": 0.2 if PENDULUM else 0.5,
        }
    )
    .reporting(min_sample_timesteps_per_iteration=500 if PENDULUM else 2000)
    # Only with an interval has evaluation an env runner that can act greedily.
    .evaluation(
        evaluation_interval=1_000_000,
        evaluation_duration=20,
        evaluation_config={"explore": False, "num_envs_per_env_runner": 20},
    )
    .debugging(seed=SEED, log_level="ERROR")
)

algo = config.build_algo()
start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, -9999.0
while greedy_return < TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    env_steps = int(algo.train()["num_env_steps_sampled_lifetime"])
    greedy_return = algo.evaluate()["env_runners"]["episode_return_mean"]
    seconds = time.perf_counter() - start
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {greedy_return:6.1f}   seconds {seconds:5.1f}"
    )

algo.stop()
ray.shutdown()
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"DDPG missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
