"""PG (REINFORCE), rebuilt on RLlib 2.60: whole episodes, their returns, no critic."""

import copy
import logging
import os
import sys
import time

import numpy as np
import ray
import torch
from ray.rllib.algorithms import Algorithm, AlgorithmConfig
from ray.rllib.algorithms.bc.torch.default_bc_torch_rl_module import (
    DefaultBCTorchRLModule,
)
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    TIMERS,
)

SEED = int(os.environ.get("SEED", 0))
ENV = os.environ.get("ENV", "CartPole-v1")
TARGET = {"CartPole-v1": 300, "Acrobot-v1": -100}[ENV]  # of 20 greedy episodes
MAX_ENV_STEPS = {"CartPole-v1": 200_000, "Acrobot-v1": 400_000}[ENV]


class PGConfig(AlgorithmConfig):
    """Every algorithm's settings, and one of PG's own: the weight of the entropy."""

    def __init__(self, algo_class=None):
        super().__init__(algo_class or PG)
        self.entropy_coeff = 0.0

    def training(self, *, entropy_coeff=None, **kwargs):
        super().training(**kwargs)
        if entropy_coeff is not None:
            self.entropy_coeff = entropy_coeff
        return self

    def get_default_rl_module_spec(self):
        # RLlib's BC has a policy and no value function, which is what PG needs.
        return RLModuleSpec(module_class=DefaultBCTorchRLModule)

    def get_default_learner_class(self):
        return PGLearner


def returns_to_go(rewards, gamma):
    """G_t = R_t + γ G_(t+1), from the end of the episode backwards."""
    returns, later = np.zeros(len(rewards), np.float32), 0.0
    for t in reversed(range(len(rewards))):
        returns[t] = later = rewards[t] + gamma * later
    return returns


def over_baseline(returns):
    """Of each return, how far it is above the mean of all episodes at the same t."""
    table = np.full((len(returns), max(map(len, returns))), np.nan)
    for row, of_episode in zip(table, returns, strict=True):
        row[: len(of_episode)] = of_episode
    baseline = np.nanmean(table, axis=0)
    return [of_episode - baseline[: len(of_episode)] for of_episode in returns]


class ReturnsOverBaseline(ConnectorV2):
    """Adds to each env step its return, less the baseline, before the batch is made."""

    def __init__(self, gamma):
        super().__init__()
        self.gamma = gamma

    def __call__(self, *, rl_module, batch, episodes, **kwargs):
        agents = list(
            self.single_agent_episode_iterator(episodes, agents_that_stepped_only=False)
        )
        returns = [returns_to_go(agent.get_rewards(), self.gamma) for agent in agents]
        for agent, values in zip(agents, over_baseline(returns), strict=True):
            self.add_n_batch_items(
                batch, Columns.RETURNS_TO_GO, values, len(agent), agent
            )
        return batch


class PGLearner(TorchLearner):
    """Makes actions likelier that were followed by a larger return than usual."""

    def build(self):
        super().build()
        self._learner_connector.prepend(ReturnsOverBaseline(self.config.gamma))

    def compute_loss_for_module(self, *, module_id, config, batch, fwd_out):
        module = self.module[module_id].unwrapped()
        action_dist = module.get_train_action_dist_cls().from_logits(
            fwd_out[Columns.ACTION_DIST_INPUTS]
        )
        log_prob = action_dist.logp(batch[Columns.ACTIONS])
        loss = policy_loss(log_prob, batch[Columns.RETURNS_TO_GO])
        return loss - config.entropy_coeff * action_dist.entropy().mean()


def policy_loss(log_prob, returns):
    """-E[log π(a|s) (G - mean G) / std G]; the standardized return is the weight."""
    weight = (returns - returns.mean()) / (returns.std() + 1e-6)
    return -(log_prob * weight).mean()


class PG(Algorithm):
    """One training step: sample whole episodes, update once, send the weights."""

    @classmethod
    def get_default_config(cls):
        return PGConfig()

    def setup(self, config):
        super().setup(config)
        self.pieces = {}  # of episodes that go on, by their id

    def training_step(self):
        episodes, results = [], []
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            while sum(map(len, episodes)) < self.config.total_train_batch_size:
                pieces, stats = synchronous_parallel_sample(
                    worker_set=self.env_runner_group,
                    sample_timeout_s=self.config.sample_timeout_s,
                    _uses_new_env_runners=True,
                    _return_metrics=True,
                )
                if not pieces:  # no env runner has answered
                    return
                results += stats
                episodes += self.ended_episodes(pieces)
        self.metrics.aggregate(results, key=ENV_RUNNER_RESULTS)
        env_steps = self.metrics.peek(
            (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)
        )
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            results = self.learner_group.update(
                episodes=episodes, timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: env_steps}
            )
        self.metrics.aggregate(results, key=LEARNER_RESULTS)
        self.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.learner_group, inference_only=True
        )

    def ended_episodes(self, pieces):
        """Join the pieces that the env runners send; hand out what is whole.

        With batch_mode="complete_episodes" RLlib does this, but it throws away the
        episodes that others have overtaken: the long ones, in CartPole the best.
        """
        for piece in pieces:
            if piece.id_ in self.pieces:
                self.pieces[piece.id_].concat_episode(piece)
            else:  # a copy: a local env runner counts returns with its own piece
                self.pieces[piece.id_] = copy.deepcopy(piece)
        ended = [episode for episode in self.pieces.values() if episode.is_done]
        for episode in ended:
            del self.pieces[episode.id_]
        return ended


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    PGConfig()
    .environment(ENV)
    # Both envs are cheap: 16 copies in this process beat extra sampling processes.
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .training(
        lr=4e-3,  # default 1e-3; the network is small, and each batch is used once
        gamma=0.99,  # the default
        train_batch_size_per_learner=2000,  # or more: whole episodes; default 32
    )
    .rl_module(model_config={"fcnet_hiddens": [64, 64]})  # default [256, 256]
    # 20 greedy episodes, side by side, when algo.evaluate() is called. Only with an
    # interval does evaluation get an env runner of its own, which can act greedily.
    .evaluation(
        evaluation_interval=1_000_000,
        evaluation_duration=20,
        evaluation_config={"explore": False, "num_envs_per_env_runner": 20},
    )
    # One train() goes on for 4000 env steps: one or two updates.
    .reporting(min_sample_timesteps_per_iteration=4000)
    .debugging(seed=SEED)
)
if ENV == "Acrobot-v1":
    config.update_from_dict(
        {
            "entropy_coeff": 0.03,  # success is rare at first: go on trying
            # Evaluations take long while all episodes have 500 steps.
            "min_sample_timesteps_per_iteration": 16_000,
        }
    )

algo = config.build_algo()
start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, -9999.0
while greedy_return < TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    env_steps = int(algo.train()["env_runners"]["num_env_steps_sampled_lifetime"])
    # In training, actions are drawn from the policy. What counts is its best action.
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
    sys.exit(f"PG missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
