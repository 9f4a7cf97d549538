"""CQL learns to swing up a pendulum from the records of a half random controller."""

import logging
import os
import sys
import tempfile
import time
import warnings

import gymnasium as gym
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import ray
import ray.data
import torch
from ray.rllib.algorithms.cql import CQLConfig
from ray.tune.registry import register_env

SEED = int(os.environ.get("SEED", 0))
TARGET = -250  # mean return of 20 greedy episodes; the recorded policy has about -700
MAX_UPDATES = 3000
MIN_Q_WEIGHT = float(os.environ.get("MIN_Q_WEIGHT", 1.0))  # 0 believes every Q-value

rng = np.random.default_rng(SEED)


def scaled_pendulum(config):
    """Pendulum-v1 with actions from -1 to 1, as the policy's. Only its spaces count."""
    low, high = np.float32([-1, 1])
    return gym.wrappers.RescaleAction(gym.make("Pendulum-v1"), low, high)


def play(act, episodes, seed):
    """Whole episodes, side by side, as columns of what RLlib wants to read."""
    envs = gym.make_vec("Pendulum-v1", num_envs=episodes, vectorization_mode="sync")
    observations, _ = envs.reset(seed=seed)
    steps = []
    for _ in range(200):  # every episode is cut off here; none terminates
        actions = act(observations)
        new, rewards, terminated, _, _ = envs.step(2 * actions)  # torques from -2 to 2
        steps.append((observations, actions, rewards, new, terminated))
        observations = new
    names = ("obs", "actions", "rewards", "new_obs", "terminateds")
    columns = map(np.concatenate, zip(*steps, strict=True))
    return dict(zip(names, columns, strict=True))


def behaviour(observations):
    """A hand-written controller, which acts at random from 20 % to all of the time."""
    cosine, sine, speed = observations.T
    missing = 15 * (1 - cosine) - speed**2 / 2  # energy, to reach the top
    torque = np.where(cosine > 0.9, -8 * sine - 2 * speed, np.sign(speed) * missing)
    chance = rng.uniform(-0.95, 0.95, len(torque))
    at_random = rng.random(len(torque)) < np.linspace(0.2, 1, len(torque))
    actions = np.where(at_random, chance, np.clip(torque / 2, -0.95, 0.95))
    return actions[:, None].astype(np.float32)


def greedy(observations):
    with torch.no_grad():
        out = module.forward_inference({"obs": torch.from_numpy(observations)})
    middle, _ = out["action_dist_inputs"].chunk(2, dim=-1)
    return middle.tanh().numpy()


records = play(behaviour, 100, seed=1000 + SEED)
rewards = records["rewards"]
print(f"behaviour return {rewards.sum() / 100:.1f} over 100 episodes")
# Around 0, so that Q-values have a short way to go. No episode ends early: nothing else
# changes when each step brings the same amount more.
records["rewards"] = (rewards - rewards.mean()).astype(np.float32)
order = rng.permutation(len(rewards))  # RLlib reads the rows in order
table = pa.table({name: list(rows[order]) for name, rows in records.items()})
folder = tempfile.TemporaryDirectory()
parquet.write_table(table, f"{folder.name}/steps.parquet")

torch.set_num_threads(1)  # so small a network is slower with more threads
for name in ("ray.rllib", "ray.data"):
    logging.getLogger(name).setLevel(logging.ERROR)  # no banners, no progress reports
ray.data.DataContext.get_current().enable_progress_bars = False
warnings.filterwarnings("ignore", message="`ray_remote_args`")  # of max_restarts below
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

register_env("scaled-pendulum", scaled_pendulum)
config = (
    CQLConfig()
    # Not to act in: CQL builds one and takes its spaces.
    .environment("scaled-pendulum")
    .offline_data(
        input_=[folder.name],
        # Updates in each training step. Target networks move after them.
        dataset_num_iters_per_learner=10,
        # By default two processes prepare the rows. On two cores they wait for ever.
        map_batches_kwargs={"concurrency": 1, "max_restarts": 0},
    )
    .training(
        lr=None,  # default 3e-4, with which CQL refuses to start
        actor_lr=2e-3,  # default 1e-4
        critic_lr=2e-3,  # default 1e-3
        alpha_lr=2e-3,  # default 1e-3
        bc_iters=0,  # default 20,000, counted anew in each training step
        min_q_weight=MIN_Q_WEIGHT,  # default 5.0: more pessimism
        num_actions=2,  # default 10: cheaper updates
        initial_alpha=0.2,  # default 1.0: value chance less from the start
        tau=0.2,  # default 0.005, too slow for one move in 10 updates
        gamma=0.95,  # default 0.99: a swing-up is short
        train_batch_size_per_learner=128,  # default 256: cheaper updates
    )
    .rl_module(
        model_config={
            # Two layers of 64 for the policy, three for a Q-network.
            "fcnet_hiddens": [64],  # default [256, 256]
            "head_fcnet_hiddens": [64],  # default none
            "fusionnet_hiddens": [],  # default [256, 256], where state and action meet
            "fcnet_activation": "relu",  # default "tanh"
            "fusionnet_activation": "relu",
        }
    )
    # One train() is 250 updates of 128 steps, however long they take.
    .reporting(min_train_timesteps_per_iteration=250 * 128, min_time_s_per_iteration=0)
    .debugging(seed=SEED, log_level="ERROR")
)

algo = config.build_algo()
start, steps, iteration = time.perf_counter(), 0, 0
latest, greedy_return = -9999.0, -9999.0
while greedy_return < TARGET and steps < MAX_UPDATES * 128:
    iteration += 1
    result = algo.train()
    [learner] = algo.learner_group.foreach_learner(lambda learner: learner)
    module = learner.get().module["default_policy"]
    previous, latest = latest, play(greedy, 20, seed=0)["rewards"].sum() / 20
    greedy_return = min(previous, latest)  # twice in a row; once can be luck
    # Recorded steps, each time that they are trained on.
    steps = int(
        result["learners"]["__all_modules__"]["num_module_steps_trained_lifetime"]
    )
    print(
        f"iteration {iteration:3d}   env steps {steps:7,d}   "
        f"mean return {latest:6.1f}   "
        f"seconds {time.perf_counter() - start:5.1f}"
    )
algo.stop()
ray.shutdown()
folder.cleanup()

print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"CQL missed its target of {TARGET} within {MAX_UPDATES:,} updates.")
