"""A search with Tune that may be killed at any moment: start it again, and it goes on.

Each trial keeps whole checkpoints of its own, and finds them by its settings. What Tune
itself notes about its trials is not needed for that.
"""

import json
import logging
import math
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import gymnasium as gym
import ray
import torch
from ray import tune
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.rl_module.rl_module import RLModule

SEED = int(os.environ.get("SEED", 0))
TARGET = 450  # mean return of 20 greedy episodes; 500 is the most CartPole-v1 gives
MAX_ENV_STEPS = 100_000  # for each trial
LEARNING_RATES = [1e-3, 2e-3]  # one trial each; no two may be the same
EVERY = 5  # iterations from one checkpoint to the next: all that a kill costs a trial
KEEP = 3  # so many of a trial's newest checkpoints stay, and its best one

# Name a folder in CHECKPOINTS (or here). Without one, the program takes a folder that
# ends with it: good for a look, but nothing to go on from.
named = os.environ.get("CHECKPOINTS")
temporary = None if named else tempfile.TemporaryDirectory()
FOLDER = Path(named or temporary.name).absolute()


def folder_of(lr):
    """Where the trial with this learning rate keeps its checkpoints, in every life."""
    return FOLDER / f"lr_{lr}"


def checkpoints(folder):
    """The whole checkpoints of a trial, oldest first."""
    return sorted(folder.glob("iteration_*"))


def read_progress(checkpoint):
    """One entry for each iteration, from the first to the one of this checkpoint."""
    return json.loads((checkpoint / "progress.json").read_text())


def evaluated(checkpoint):
    """How well it did when it was evaluated."""
    return read_progress(checkpoint)[-1]["evaluated"]


def finished(lr):
    """Whether the newest checkpoint of this trial says that it was the last."""
    return any(read_progress(c)[-1]["done"] for c in checkpoints(folder_of(lr))[-1:])


def onto_the_disk(*paths):
    """Wait until files and folders are on the disk, and not in memory only."""
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.close(file)


class CrashProof(RLlibCallback):
    """Lets a trial go on from its newest whole checkpoint, and writes the next ones."""

    def on_algorithm_init(self, *, algorithm, **kwargs):
        self.folder, self.progress = folder_of(algorithm.config.lr), []
        self.folder.mkdir(parents=True, exist_ok=True)
        if checkpoints(self.folder):
            newest = checkpoints(self.folder)[-1]
            algorithm.restore_from_path(newest)  # weights, optimizer, counters
            # Env runners in processes of their own may have missed the weights.
            weights = {"rl_module": algorithm.learner_group.get_weights()}
            runners = algorithm.env_runner_group
            runners.foreach_env_runner(lambda runner: runner.set_state(weights))
            self.progress = read_progress(newest)
        self.before = self.progress[-1]["seconds"] if self.progress else 0.0
        self.start = time.perf_counter()

    def on_train_result(self, *, algorithm, result, **kwargs):
        now = {
            "iteration": algorithm.iteration,
            "env_steps": int(result["num_env_steps_sampled_lifetime"]),
            # Not there if no episode ended, as may be right after a restart.
            "mean_return": result["env_runners"].get("episode_return_mean", math.nan),
            "evaluated": math.nan,
            "seconds": self.before + time.perf_counter() - self.start,
            "done": False,
        }
        self.progress.append(now)
        if algorithm.iteration % EVERY == 0:  # it has just been evaluated
            evaluation = result["evaluation"]["env_runners"]
            now["evaluated"] = float(evaluation["episode_return_mean"])
            enough = now["evaluated"] >= 490 or now["env_steps"] >= MAX_ENV_STEPS
            now["done"] = enough
            self.save(algorithm)
        # Tune reads them, and its loggers do. `done` is the end of the trial.
        result.update(evaluated=now["evaluated"], done=now["done"])

    def save(self, algorithm):
        """Write a checkpoint that either is there as a whole or is not there."""
        partial, removed = self.folder / "partial", self.folder / "removed"
        for left_by_a_kill in partial, removed:
            shutil.rmtree(left_by_a_kill, ignore_errors=True)
        algorithm.save_to_path(partial)
        (partial / "progress.json").write_text(json.dumps(self.progress))
        onto_the_disk(*partial.rglob("*"), partial)  # all of it, before it gets a name
        partial.rename(self.folder / f"iteration_{algorithm.iteration:06d}")
        onto_the_disk(self.folder)  # the name too, before old ones go
        whole = checkpoints(self.folder)
        for old in set(whole[:-KEEP]) - {max(whole, key=evaluated)}:
            old.rename(removed)  # first the name: a kill may leave half of it
            shutil.rmtree(removed)


class Watch(tune.Callback):
    """Prints a line for each result that reaches Tune."""

    def on_trial_result(self, iteration, trials, trial, result, **info):
        name, number = f"lr {trial.config['lr']}", result["training_iteration"]
        if result["iterations_since_restore"] == 1 < number:
            print(f"{name}   going on from iteration {number - 1}")
        env_steps = int(result["num_env_steps_sampled_lifetime"])
        line = f"{name}   iteration {number:3d}   env steps {env_steps:7,d}"
        if number % EVERY == 0:
            line += f"   evaluated {result['evaluated']:5.1f}"
        print(line)


os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # with verbose=0 below: no tables while it runs
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init(
    "local",
    num_cpus=2,  # a trial takes 1 + num_env_runners; with fewer it waits for ever
    include_dashboard=False,
    log_to_driver=False,
    logging_level="error",
)
# Only trials that are not at their end: this list takes the place of Tune's notes.
unfinished = [lr for lr in LEARNING_RATES if not finished(lr)]
config = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .training(
        lr=tune.grid_search(unfinished),
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
        evaluation_interval=EVERY,
        evaluation_duration=20,
        evaluation_config={"explore": False, "num_envs_per_env_runner": 20},
    )
    .callbacks(CrashProof)
    .debugging(seed=SEED)
)
if unfinished:
    results = tune.Tuner(
        PPO,
        param_space=config,
        run_config=tune.RunConfig(
            storage_path=str(FOLDER / "tune"),  # tables and curves, one folder a life
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=[Watch()],
            verbose=0,
        ),
    ).fit()
    if results.errors:
        sys.exit(f"A trial failed, start it again: {results.errors[0]}")
ray.shutdown()
if not all(finished(lr) for lr in LEARNING_RATES):
    sys.exit("Tune was stopped before the trials were at their end.")

# The best checkpoint of all trials is a policy that acts: its network is enough.
whole = [c for lr in LEARNING_RATES for c in checkpoints(folder_of(lr))]
best = max(whole, key=evaluated)
print(f"best: {best.relative_to(FOLDER)}, evaluated {evaluated(best):.1f}")
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
    sys.exit(f"The search missed its target of {TARGET}.")
