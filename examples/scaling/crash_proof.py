"""Training that may be killed at any moment: start it again, and it goes on."""

import json
import logging
import math
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import gymnasium as gym
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModule

SEED = int(os.environ.get("SEED", 0))
TARGET = 450  # mean return of 20 greedy episodes; 500 is the most CartPole-v1 gives
MAX_ENV_STEPS = 150_000
EVERY = 5  # iterations from one checkpoint to the next: all that a kill can cost
KEEP = 3  # so many of the newest checkpoints stay, and the best one

# Name a folder in CHECKPOINTS (or here). Without one, the program takes a folder that
# ends with it: good for a look, but nothing to go on from.
named = os.environ.get("CHECKPOINTS")
temporary = None if named else tempfile.TemporaryDirectory()
FOLDER = Path(named or temporary.name).absolute()
FOLDER.mkdir(parents=True, exist_ok=True)
PARTIAL, REMOVED = FOLDER / "partial", FOLDER / "removed"  # what is not whole


def checkpoints():
    """The whole checkpoints, oldest first."""
    return sorted(FOLDER.glob("iteration_*"))


def read_progress(checkpoint):
    """One entry for each iteration, from the first to the one of this checkpoint."""
    return json.loads((checkpoint / "progress.json").read_text())


def best_checkpoint():
    """The one that did best when it was evaluated, if one was."""
    evaluated = [c for c in checkpoints() if "evaluated" in read_progress(c)[-1]]
    return max(evaluated, key=lambda c: read_progress(c)[-1]["evaluated"], default=None)


def save(algo, progress):
    """Write a checkpoint that either is there as a whole or is not there."""
    whole = FOLDER / f"iteration_{algo.iteration:06d}"
    if whole.exists() or not progress:  # nothing new
        return
    for left_by_a_kill in PARTIAL, REMOVED:
        shutil.rmtree(left_by_a_kill, ignore_errors=True)
    algo.save_to_path(PARTIAL)
    (PARTIAL / "progress.json").write_text(json.dumps(progress))
    onto_the_disk(*PARTIAL.rglob("*"), PARTIAL)  # all of it, before it gets its name
    PARTIAL.rename(whole)  # at one stroke
    onto_the_disk(FOLDER)  # the name too, before old ones go
    for old in set(checkpoints()[:-KEEP]) - {best_checkpoint()}:
        old.rename(REMOVED)  # first the name: a kill may leave half of it
        shutil.rmtree(REMOVED)


def onto_the_disk(*paths):
    """Wait until files and folders are on the disk, and not in memory only."""
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.close(file)


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")
# SIGTERM only leaves a note here, which the loop reads. ray.init() sets a handler of
# its own, so this one has to come after it.
signals = []
signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))

config = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .training(
        lr=[[0, 1e-3], [MAX_ENV_STEPS, 1e-4]],  # a schedule has to go on, too
        train_batch_size_per_learner=512,
        minibatch_size=256,
        num_epochs=10,
        gamma=0.98,
        lambda_=0.8,
        clip_param=0.2,
        use_kl_loss=False,
        vf_clip_param=float("inf"),
        vf_loss_coeff=0.5,
        grad_clip=0.5,
    )
    .rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"})
    .evaluation(
        evaluation_interval=1_000_000,  # only when algo.evaluate() is called
        evaluation_duration=20,
        evaluation_config={"explore": False, "num_envs_per_env_runner": 20},
    )
    .debugging(seed=SEED)
)
algo = config.build_algo()
progress = []
if checkpoints():
    newest = checkpoints()[-1]
    algo.restore_from_path(newest)  # weights, optimizer, counters
    # Env runners in processes of their own may have missed the weights, and would act
    # at random for an iteration. So send them again, and wait.
    weights = {"rl_module": algo.learner_group.get_weights()}
    algo.env_runner_group.foreach_env_runner(lambda runner: runner.set_state(weights))
    progress = read_progress(newest)
    print(f"going on from iteration {algo.iteration}")

before = progress[-1]["seconds"] if progress else 0.0
start, saving = time.perf_counter(), []
while not signals:
    good = [row["evaluated"] >= TARGET for row in progress if "evaluated" in row]
    env_steps = progress[-1]["env_steps"] if progress else 0
    if good[-2:] == [True, True] or env_steps >= MAX_ENV_STEPS:
        break  # one good evaluation may be luck, so it takes two
    result = algo.train()
    learner = result["learners"]["default_policy"]
    now = {
        "iteration": algo.iteration,
        "env_steps": int(result["num_env_steps_sampled_lifetime"]),
        # Not there if no episode ended, as may be right after a restart.
        "mean_return": result["env_runners"].get("episode_return_mean", math.nan),
        "lr": float(learner["default_optimizer_learning_rate"]),
        "seconds": before + time.perf_counter() - start,
    }
    progress.append(now)
    print(
        f"iteration {now['iteration']:3d}   env steps {now['env_steps']:7,d}   "
        f"mean return {now['mean_return']:6.1f}   seconds {now['seconds']:5.1f}"
    )
    if algo.iteration % EVERY == 0 or now["env_steps"] >= MAX_ENV_STEPS:
        evaluation = algo.evaluate()["env_runners"]
        now["evaluated"] = float(evaluation["episode_return_mean"])
        begin = time.perf_counter()
        save(algo, progress)
        saving.append(time.perf_counter() - begin)

if signals:  # one more
    save(algo, progress)
    print(f"SIGTERM: stopped, iteration {algo.iteration} is saved")
algo.stop()
ray.shutdown()
if signals:
    sys.exit(128 + signal.SIGTERM)

# The best checkpoint is a policy that acts: its network is enough.
best = best_checkpoint()
print(f"kept: {', '.join(c.name for c in checkpoints())}")
print(f"best: {best.name}")
if saving:
    size = sum(file.stat().st_size for file in best.rglob("*")) / 1e6
    print(f"a checkpoint: {size:.1f} MB, {statistics.median(saving):.2f} s to write it")
network = "learner_group/learner/rl_module/default_policy"
module = RLModule.from_checkpoint(best / network)
env, returns = gym.make("CartPole-v1"), []
for episode in range(20):
    observation, _ = env.reset(seed=1000 * SEED + episode)
    episode_return, done = 0.0, False
    while not done:
        with torch.no_grad():
            out = module.forward_inference({"obs": torch.tensor(observation)[None]})
        action = out["action_dist_inputs"].argmax().item()
        observation, reward, terminated, truncated, _ = env.step(action)
        episode_return += reward
        done = terminated or truncated
    returns.append(episode_return)

greedy_return = sum(returns) / len(returns)
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"PPO missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
