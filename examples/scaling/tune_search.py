"""Tune searches a learning rate for PPO, stops poor trials early, and acts."""

import logging
import math
import os
import sys
import tempfile
from pathlib import Path

import gymnasium as gym
import ray
import torch
from ray import tune
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import BasicVariantGenerator

SEED = int(os.environ.get("SEED", 0))
TARGET = 195  # mean return of 20 greedy episodes; acting at random gives about 22
METRIC = "mean_return"  # the name that MeanReturn gives it
RUNGS, MAX_ITERATIONS = [4, 8, 16], 20  # ASHA looks at these (grace_period=4 below)
EVERY, KEEP = 2, 2  # iterations between two checkpoints, and how many stay


class MeanReturn(RLlibCallback):
    """Gives a result the mean return under a name of its own, in each iteration.

    RLlib's is in a dict of a dict, where Tune does not find it to compare checkpoints,
    and it is not there as long as no episode has ended.
    """

    def on_train_result(self, *, result, **kwargs):
        of_episodes = result.get("env_runners", {})  # not there if data come from files
        result[METRIC] = of_episodes.get("episode_return_mean", math.nan)


os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # with verbose=0 below: no tables while it runs
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init(
    "local",
    num_cpus=2,  # a trial takes 1 + num_env_runners; with fewer it waits for ever
    include_dashboard=False,
    log_to_driver=False,
    logging_level="error",
)

config = (
    PPOConfig()
    .environment("CartPole-v1")
    # 4 envs make 512 steps each in an iteration, and an episode has at most 500. So one
    # ends in each iteration, and there is a mean return to compare.
    .env_runners(num_env_runners=0, num_envs_per_env_runner=4)
    .training(
        lr=tune.loguniform(1e-4, 1e-2),  # what Tune draws stands in place of a value
        train_batch_size_per_learner=2048,
        minibatch_size=256,
        num_epochs=6,
    )
    .callbacks(MeanReturn)
    .debugging(seed=SEED)
)
with tempfile.TemporaryDirectory() as folder:  # a real search keeps it
    tuner = tune.Tuner(
        PPO,  # the class: the name "PPO" makes Tune import much else
        param_space=config,
        tune_config=tune.TuneConfig(
            num_samples=6,
            metric=METRIC,
            mode="max",
            search_alg=BasicVariantGenerator(random_state=SEED),
            # After 4, 8 and 16 iterations it ends a trial that is below the median of
            # those that were there before.
            scheduler=ASHAScheduler(
                grace_period=RUNGS[0], reduction_factor=2, max_t=MAX_ITERATIONS
            ),
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=folder,
            stop={METRIC: 1.3 * TARGET},
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=EVERY,
                checkpoint_at_end=True,
                num_to_keep=KEEP,  # the best ones, and the newest
                checkpoint_score_attribute=METRIC,
            ),
            verbose=0,
        ),
    )
    results = tuner.fit()
    if results.errors:
        sys.exit(f"A trial failed: {results.errors[0]}")

    curves = [t.metrics_dataframe.set_index("training_iteration") for t in results]
    stopped_by_asha = 0
    print("learning rate  iterations  mean return  seconds  checkpoints kept")
    for trial in sorted(results, key=lambda trial: trial.config["lr"]):
        last = trial.metrics
        iterations = last["training_iteration"]
        kept = sorted(path.name for path in Path(trial.path).glob("checkpoint_*"))
        # The checkpoints that were written, each with its mean return.
        frame = trial.metrics_dataframe.set_index("training_iteration")[METRIC]
        written = [*range(EVERY, iterations, EVERY), iterations]
        written = {f"checkpoint_{n:06d}": frame[i] for n, i in enumerate(written)}
        print(
            f"{trial.config['lr']:13.1e}  {iterations:10d}  {last[METRIC]:11.1f}  "
            f"{last['time_total_s']:7.1f}  "
            f"{', '.join(str(int(name[-6:])) for name in kept)} of {len(written)}"
        )
        best = sorted(written, key=written.get)[-KEEP:]
        if kept != sorted({*best, max(written)}):
            sys.exit(f"Tune keeps {kept}, and the best are {best}.")
        if iterations < MAX_ITERATIONS and last[METRIC] < 1.3 * TARGET:
            stopped_by_asha += 1
            if iterations not in RUNGS:
                sys.exit("A trial has ended between the rungs of ASHA.")
            others = [c[METRIC].get(iterations, -math.inf) for c in curves]
            if last[METRIC] >= max(others):
                sys.exit("ASHA has stopped the best trial of a rung.")
    if not stopped_by_asha:
        sys.exit("ASHA has stopped no trial early.")

    # The best checkpoint of the best trial is a policy that acts.
    best = results.get_best_result()
    # Not by get_best_checkpoint(): if a mean return is nan, it may choose that one.
    kept = [(m[METRIC], c.path) for c, m in best.best_checkpoints]
    checkpoint = Path(max(pair for pair in kept if not math.isnan(pair[0]))[1])
    print(f"best: learning rate {best.config['lr']:.1e}, {checkpoint.name}")
    module = RLModule.from_checkpoint(
        checkpoint / "learner_group" / "learner" / "rl_module" / "default_policy"
    )
ray.shutdown()

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
    sys.exit(f"The best trial of the search missed the target of {TARGET}.")
