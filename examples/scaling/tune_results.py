"""Tune's results: a table, a plot, files for TensorBoard. And a stop that never comes.

The plot needs matplotlib.
"""

import logging
import os
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import ray
from ray import tune
from ray.rllib.algorithms.ppo import PPO, PPOConfig

SEED = int(os.environ.get("SEED", 0))
METRIC = "env_runners/episode_return_mean"
STEPS = "num_env_steps_sampled_lifetime"
logged = []


class Short(logging.Handler):
    """Prints the beginning and the end of a message: its middle names 200 keys."""

    def emit(self, record):
        message = record.getMessage()
        logged.append(message)
        print(f"{message[:66]} ...\n... {message[-49:]}")


os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # with verbose=0 below: no tables while it runs
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init(
    "local",
    num_cpus=2,  # a trial takes 1 + num_env_runners; with fewer it waits for ever
    include_dashboard=False,
    log_to_driver=False,
    logging_level="error",
)
of_trials = logging.getLogger("ray.tune.experiment.trial")
of_trials.setLevel(logging.WARNING)
of_trials.addHandler(Short())
of_trials.propagate = False

config = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0, num_envs_per_env_runner=4)
    .training(lr=tune.grid_search([3e-4, 3e-3]), train_batch_size_per_learner=2048)
    .training(minibatch_size=256, num_epochs=6)
    .debugging(seed=SEED)
)
with tempfile.TemporaryDirectory() as folder:
    results = tune.Tuner(
        PPO,
        param_space=config,
        run_config=tune.RunConfig(
            name="look",
            storage_path=folder,
            # The first name is of older RLlib: any policy has a mean return of 8 or
            # more, and yet nothing stops. The second ends what would run for ever.
            stop={"episode_reward_mean": 8, "training_iteration": 4},
            verbose=0,
        ),
    ).fit()
    if results.errors:
        sys.exit(f"A trial failed: {results.errors[0]}")

    # A table: one row a trial, from its last result.
    table = results.get_dataframe().rename(columns={METRIC: "mean return"})
    columns = ["config/lr", "training_iteration", "mean return", "time_total_s"]
    print(table[columns].round(5).to_string(index=False))

    # A plot: one row an iteration, of one trial.
    figure, axes = plt.subplots()
    for trial in results:
        frame = trial.metrics_dataframe
        axes.plot(frame[STEPS], frame[METRIC], label=f"lr {trial.config['lr']}")
    axes.set(xlabel="env steps", ylabel="mean return")
    axes.legend()
    figure.savefig(Path(folder) / "curves.svg")

    print("files of a trial:")
    for file in sorted(Path(results[0].path).iterdir()):
        print(f"  {file.name.split('.tfevents')[0]}")
    events = list(Path(folder).rglob("events.out.tfevents.*"))
ray.shutdown()

if table["training_iteration"].tolist() != [4, 4] or table["mean return"].min() < 8:
    sys.exit("The wrong name has stopped something.")
if not any("'episode_reward_mean'" in message for message in logged):
    sys.exit("Tune has not warned of the wrong name.")
if len(events) != 2:
    sys.exit("There is nothing for TensorBoard to read.")
