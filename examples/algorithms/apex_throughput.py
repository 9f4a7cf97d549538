"""Env steps and replayed env steps a second: Ape-X (apex_dqn.py) and RLlib's DQN."""

import logging
import os
import sys
import time
from types import SimpleNamespace

import numpy as np
import ray
import torch
from ray.rllib.algorithms.dqn import DQN, DQNConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME, TD_ERROR_KEY

SEED = int(os.environ.get("SEED", 0))


class ApeXConfig(DQNConfig):
    """DQN's settings with n-step transitions, and those of the replay actors."""

    def __init__(self, algo_class=None):
        super().__init__(algo_class or ApeX)
        self.env_runner_cls = ApeXEnvRunner
        self.num_replay_shards = 2
        self.batches_per_draw = 4  # batches in each answer of a replay actor
        self.epsilon_ladder = (0.4, 7.0)  # ε and α in the paper
        self.n_step = 3  # DQN: 1
        self.rollout_fragment_length = 16  # in each env; DQN: n_step
        self.max_requests_in_flight_per_env_runner = 2  # so that none waits; DQN: 1


def ladder(epsilon, alpha, places):
    """ε^(1 + α i / (N - 1)) for i from 0 to N - 1: from much chance to hardly any."""
    return epsilon ** (1 + alpha * np.arange(places) / max(1, places - 1))


def n_step(observations, actions, rewards, n, gamma, terminated, truncated):
    """From each step to the one n later, or to the end. The rest waits for the end."""
    steps = len(rewards)
    starts = np.arange(steps if terminated or truncated else max(0, steps - n + 1))
    ends = np.minimum(starts + n, steps)
    padded = np.concatenate([rewards, np.zeros(n)])
    returns = sum(gamma**k * padded[starts + k] for k in range(n))
    return {
        Columns.OBS: observations[starts],
        Columns.ACTIONS: actions[starts],
        Columns.REWARDS: returns.astype(np.float32),
        Columns.NEXT_OBS: observations[ends],
        Columns.TERMINATEDS: terminated & (ends == steps),
        "n_step": (ends - starts).astype(np.float32),
    }


def td_errors(rows, q, q_next, gamma):
    """|R + γ^n max Q(s', ·) - Q(s, a)|, without the second part where it terminated."""
    goes_on = gamma ** rows["n_step"] * ~rows[Columns.TERMINATEDS]
    q_chosen = q[np.arange(len(q)), rows[Columns.ACTIONS]]
    return np.abs(rows[Columns.REWARDS] + goes_on * q_next.max(axis=1) - q_chosen)


class ReplayShard:
    """An actor with a part of the replay: an array for each column, by priority."""

    def __init__(self, capacity, alpha, seed):
        self.capacity, self.alpha, self.added = capacity, alpha, 0
        self.columns, self.priorities = {}, np.zeros(capacity)
        self.rng = np.random.default_rng(seed)

    def add(self, rows, errors):
        serials = self.added + np.arange(len(errors))
        for name, values in rows.items():
            empty = np.zeros((self.capacity, *values.shape[1:]), values.dtype)
            self.columns.setdefault(name, empty)[serials % self.capacity] = values
        self.added += len(errors)
        self.update_priorities(serials, errors)

    def update_priorities(self, serials, errors):
        kept = serials >= self.added - self.capacity  # others are overwritten by now
        index = serials[kept] % self.capacity
        self.priorities[index] = (errors[kept] + 1e-6) ** self.alpha

    def sample(self, count, beta):
        size = min(self.added, self.capacity)
        chances = self.priorities[:size] / self.priorities[:size].sum()
        index = self.rng.choice(size, size=count, p=chances)
        rows = {name: column[index] for name, column in self.columns.items()}
        weights = (size * chances[index]) ** -beta
        rows["weights"] = (weights / weights.max()).astype(np.float32)
        serials = self.added - 1 - (self.added - 1 - index) % self.capacity
        return serials, rows


class ApeXEnvRunner(SingleAgentEnvRunner):
    """Samples, and hands transitions with first priorities to a replay actor."""

    def make_module(self):
        super().make_module()
        config, runner = self.config, max(0, self.worker_index - 1)
        envs, runners = config.num_envs_per_env_runner, max(1, config.num_env_runners)
        epsilons = torch.as_tensor(ladder(*config.epsilon_ladder, runners * envs))
        mine = epsilons[runner * envs :][:envs]  # one for each env; RLlib: one for all
        self.module.epsilon_schedule = SimpleNamespace(
            update=lambda timestep: None, get_current_value=lambda: mine
        )
        self.tails, self.last_add, self.turn = {}, [], runner

    def sample_into(self, shards):
        pieces = [self.transitions(piece) for piece in self.sample()]
        rows = {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}
        both = np.concatenate([rows[Columns.OBS], rows[Columns.NEXT_OBS]])
        with torch.no_grad():
            q = self.module.compute_q_values({Columns.OBS: torch.from_numpy(both)})
        q, q_next = np.split(q["qf_preds"].numpy(), 2)
        errors = td_errors(rows, q, q_next, self.config.gamma)
        ray.get(self.last_add)  # no more than one on its way
        self.turn += 1
        self.last_add = [shards[self.turn % len(shards)].add.remote(rows, errors)]
        return len(errors), self.get_metrics()

    def transitions(self, piece):
        """Those that a piece of an episode completes, with what its last one left."""
        tail = self.tails.pop(piece.id_, ([], [], []))
        observations = np.array([*tail[0], *piece.get_observations()], np.float32)
        actions = np.array([*tail[1], *piece.get_actions()])
        rewards = np.array([*tail[2], *piece.get_rewards()])
        n, gamma = self.config.n_step, self.config.gamma
        ends = piece.is_terminated, piece.is_truncated
        rows = n_step(observations, actions, rewards, n, gamma, *ends)
        if not piece.is_done:
            rest = slice(len(rows["n_step"]), len(rewards))
            self.tails[piece.id_] = observations[rest], actions[rest], rewards[rest]
        return rows


class ApeX(DQN):
    """One training step: ask the env runners, learn from one draw, send weights."""

    @classmethod
    def get_default_config(cls):
        return ApeXConfig()

    def setup(self, config):
        super().setup(config)
        if self.config.num_env_runners == 0:
            raise ValueError("Ape-X needs env runners: set num_env_runners.")
        replay, count = self.config.replay_buffer_config, self.config.num_replay_shards
        actor = ray.remote(num_cpus=0)(ReplayShard)
        self.shards = [
            actor.remote(replay["capacity"] // count, replay["alpha"], seed)
            for seed in np.random.SeedSequence(self.config.seed).spawn(count)
        ]
        # What is in the replay is not in RLlib's checkpoints, so these begin anew.
        self.stored, self.replayed, self.asked, self.draws = 0, 0, 0, []

    def training_step(self):
        config, group = self.config, self.env_runner_group
        # Env runners get more to do unless they are too far ahead of the learner.
        ahead = self.stored - config.num_steps_sampled_before_learning_starts
        if ahead * (config.training_intensity or 0) <= self.replayed:
            call = {"tag": "sample", "kwargs": {"shards": self.shards}}
            group.foreach_env_runner_async("sample_into", **call)
        wait = {"timeout_seconds": 0.1 if ahead < 0 else 0.0}
        for _, (stored, metrics) in group.fetch_ready_async_reqs(tags="sample", **wait):
            self.stored += stored
            self.metrics.aggregate([metrics], key="env_runners")
        if ahead < 0:
            return

        # The next draws are on their way while the learner works on this one.
        rows_in_draw = config.train_batch_size_per_learner * config.batches_per_draw
        while len(self.draws) <= 2 * len(self.shards):
            shard = self.shards[self.asked % len(self.shards)]
            beta = config.replay_buffer_config["beta"]
            self.draws.append((shard, shard.sample.remote(rows_in_draw, beta)))
            self.asked += 1
        shard, draw = self.draws.pop(0)
        with self.metrics.log_time(("timers", "learner_waits")):
            serials, rows = ray.get(draw)
        steps = self.metrics.peek(("env_runners", NUM_ENV_STEPS_SAMPLED_LIFETIME))
        [result] = self.learner_group.update(
            batch=MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(rows)}, rows_in_draw),
            minibatch_size=config.train_batch_size_per_learner,
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: steps},
        )
        errors = result[DEFAULT_MODULE_ID].pop(TD_ERROR_KEY).peek()
        shard.update_priorities.remote(serials, np.concatenate(errors))
        self.replayed += rows_in_draw
        self.metrics.aggregate([result], key="learners")
        group.sync_weights(
            from_worker_or_learner_group=self.learner_group, inference_only=True
        )

    def cleanup(self):
        super().cleanup()
        for shard in self.shards:
            ray.kill(shard)


torch.set_num_threads(1)  # as in apex_dqn.py
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")


def measure(name, config):
    """Env steps and replayed env steps a second, once an algorithm learns."""
    algo = (
        config.environment("CartPole-v1")
        .env_runners(
            num_env_runners=2,
            num_envs_per_env_runner=4,
            rollout_fragment_length=16,
        )
        .fault_tolerance(restart_failed_env_runners=False)  # Ray has nothing to warn of
        .training(
            train_batch_size_per_learner=256,
            training_intensity=16,  # replayed env steps for each env step, at least
            n_step=3,
            target_network_update_freq=100,
        )
        .rl_module(model_config={"fcnet_hiddens": [64, 64], "head_fcnet_hiddens": [64]})
        .reporting(min_sample_timesteps_per_iteration=0, min_time_s_per_iteration=5)
        .debugging(seed=SEED)
        .build_algo()
    )
    counts = []
    while len(counts) < 4:  # iterations
        result = algo.train()
        if learned := result.get("learners"):
            replayed = learned["__all_modules__"]["num_env_steps_trained_lifetime"]
            sampled = result["num_env_steps_sampled_lifetime"]
            counts.append([time.perf_counter(), sampled, replayed])
    algo.stop()
    seconds, sampled, replayed = np.subtract(counts[-1], counts[0])
    rates = np.array([sampled, replayed]) / seconds
    print(f"{name:10s} {rates[0]:12,.0f} {rates[1]:14,.0f} {rates[1] / 256:12,.0f}")
    return rates


print("a second:     env steps       replayed      updates")
dqn = measure("DQN", DQNConfig())
apex = measure("Ape-X DQN", ApeXConfig())
ray.shutdown()

more = apex / dqn
print(f"Ape-X DQN: {more[0]:.1f} times the env steps, {more[1]:.1f} times the replayed")
if more.min() < 1.5:
    sys.exit("Ape-X DQN was not clearly ahead of DQN.")
