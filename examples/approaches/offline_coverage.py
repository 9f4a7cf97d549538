"""The same learner and two files: what nobody ever tried, nobody can learn from."""

import logging
import os
import sys
import tempfile
import warnings

import gymnasium as gym
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import ray
import ray.data
import torch
from ray.rllib.algorithms.marwil import MARWILConfig

SEED = int(os.environ.get("SEED", 0))
UPDATES = 600
GAMMA = 0.95  # how much the next step counts in the returns below

rng, env = np.random.default_rng(SEED), gym.make("CartPole-v1")


def stubborn(observation):
    """Always pushes to the side that the pole leans to."""
    return int(observation[2] > 0)


def curious(observation):
    """The same, but 7 times in 10 it does whatever comes to mind."""
    return stubborn(observation) if rng.random() > 0.7 else int(rng.integers(2))


def greedy(observation):
    with torch.no_grad():
        out = module.forward_inference({"obs": torch.tensor(observation)[None]})
    return out["action_dist_inputs"].argmax().item()


def play(act, seed):
    """One episode, as rows of what RLlib wants to read."""
    observation, _ = env.reset(seed=seed)
    rows, done = [], False
    while not done:
        action = act(observation)
        new_observation, reward, terminated, truncated, _ = env.step(action)
        row = {"obs": observation.tolist(), "actions": action, "rewards": reward}
        row |= {"new_obs": new_observation.tolist(), "terminateds": terminated}
        rows.append(row | {"truncateds": truncated})
        observation, done = new_observation, terminated or truncated
    return rows


def record(behaviour):
    """20,000 steps of a behaviour, shuffled, and its mean return."""
    records, episodes = [], 0
    while len(records) < 20_000:
        rows = play(behaviour, 100_000 * SEED + episodes)
        # "rewards" becomes the return from there on; gamma below is 0. RLlib reads
        # each row as an episode of its own, so it could not add them up itself.
        for row, after in zip(rows[-2::-1], rows[:0:-1], strict=True):
            row["rewards"] += GAMMA * after["rewards"]
        records += rows
        episodes += 1
    rng.shuffle(records)  # RLlib reads them in order
    return records, len(records) / episodes


torch.set_num_threads(1)  # so small a network is slower with more threads
for name in ("ray.rllib", "ray.data"):
    logging.getLogger(name).setLevel(logging.ERROR)  # no banners, no progress reports
ray.data.DataContext.get_current().enable_progress_bars = False
warnings.filterwarnings("ignore", message="`ray_remote_args`")  # of max_restarts below
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

returns = {}
for behaviour in (stubborn, curious):
    records, behaviour_return = record(behaviour)
    folder = tempfile.TemporaryDirectory()
    parquet.write_table(pa.Table.from_pylist(records), f"{folder.name}/steps.parquet")
    config = (
        MARWILConfig()
        .environment(
            observation_space=env.observation_space, action_space=env.action_space
        )
        .offline_data(
            input_=[folder.name],
            dataset_num_iters_per_learner=UPDATES,  # all of them in one train()
            materialize_mapped_data=True,  # default False: prepares rows each time
            # By default two processes prepare rows. On two cores they wait for ever.
            map_batches_kwargs={"concurrency": 1, "max_restarts": 0},
        )
        .training(
            beta=1.0,  # the default; 0 would imitate good and bad steps alike
            gamma=0.0,  # default 0.99; the returns are in the file already
            lr=1e-3,  # default 1e-4
            train_batch_size_per_learner=1024,  # default 2000
            moving_average_sqd_adv_norm_update_rate=1e-2,  # default 1e-8: hardly moves
        )
        .rl_module(
            model_config={
                "fcnet_hiddens": [64, 64],
                "fcnet_activation": "tanh",
                "vf_share_layers": False,  # default True: values spoil the policy
            }
        )
        .debugging(seed=SEED)
    )
    algo = config.build_algo()
    algo.train()
    [learner] = algo.learner_group.foreach_learner(lambda learner: learner)
    module = learner.get().module["default_policy"]
    greedy_return = sum(len(play(greedy, seed)) for seed in range(20)) / 20
    algo.stop()
    folder.cleanup()

    # Look at the file: how often was the less usual push tried, on either side?
    against = [(row["obs"][2] > 0) != bool(row["actions"]) for row in records]
    returns[behaviour] = greedy_return
    print(
        f"{behaviour.__name__:8s}  return in the file {behaviour_return:5.1f}   "
        f"tried the other action in {np.mean(against):3.0%} of the steps   "
        f"learned: {greedy_return:5.1f}"
    )
ray.shutdown()
if returns[stubborn] > 100 or returns[curious] < 2 * returns[stubborn]:
    sys.exit("Only the curious behaviour's file should teach more than it does itself.")
