"""Which settings survive when PBT copies a checkpoint into another trial?"""

import logging
import math
import os
import sys
import tempfile
import warnings

import ray
from ray import tune
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.tune.schedulers import PopulationBasedTraining

SEED = int(os.environ.get("SEED", 0))
METRIC = "mean_return"  # the name that InUse gives it
# name: (what both trials begin with, what PBT draws). PBT draws from lists of one value
# here, so that we know what comes.
SETTINGS = {
    "lr": (2e-3, 1e-3),
    "clip_param": (0.2, 0.3),
    "entropy_coeff": (0.0, 0.01),
    "gamma": (0.98, 0.99),
    "lambda_": (0.9, 0.95),
    "num_epochs": (6, 3),
    "minibatch_size": (256, 512),
    "train_batch_size_per_learner": (1024, 2048),
    "train_batch_size": (4000, 100),  # of the old API stack
}
# Tune hands the config on as a dict, config.to_dict(), in which some names are others.
KEYS = {
    "lambda_": "lambda",
    "train_batch_size_per_learner": "_train_batch_size_per_learner",
}
EXPLOIT_AT = 3  # iterations
reported = {}  # by trial and iteration: what InUse below has found


class InUse(RLlibCallback):
    """Puts into each result what the parts of the algorithm really work with."""

    def on_checkpoint_loaded(self, *, algorithm, **kwargs):
        optimizer = algorithm.learner_group._learner.get_optimizer("default_policy")
        self.lr = optimizer.param_groups[0]["lr"]  # what the next update will take
        self.steps = int(next(iter(optimizer.state.values()))["step"])

    def on_train_result(self, *, algorithm, result, **kwargs):
        # Without a value, Tune would end the search: no episode may have ended yet.
        result[METRIC] = result["env_runners"].get("episode_return_mean", math.nan)
        learner = algorithm.learner_group._learner
        optimizer = learner.get_optimizer("default_policy")
        [gae] = [c for c in learner._learner_connector if hasattr(c, "lambda_")]
        env_steps = int(result["env_runners"]["num_env_steps_sampled"])
        steps = int(next(iter(optimizer.state.values()))["step"])
        entropy = learner.entropy_coeff_schedulers_per_module["default_policy"]
        result["in_use"] = {
            "lr": getattr(self, "lr", optimizer.param_groups[0]["lr"]),
            "clip_param": learner.config.clip_param,
            "entropy_coeff": float(entropy.get_current_value()),
            "gamma": gae.gamma,
            "lambda_": gae.lambda_,
            "num_epochs": learner.config.num_epochs,
            "minibatch_size": learner.config.minibatch_size,
            "train_batch_size_per_learner": env_steps,
            "train_batch_size": env_steps,
            "gradient steps": steps - getattr(self, "steps", 0),
            "process": os.getpid(),
        }
        self.lr, self.steps = optimizer.param_groups[0]["lr"], steps


class Note(tune.Callback):
    """Keeps what each trial reports: Tune's table may lose rows by an exploit."""

    def on_trial_result(self, iteration, trials, trial, result, **info):
        in_use = reported.setdefault(trial.trial_id, {})
        in_use[result["training_iteration"]] = result["in_use"]


warnings.filterwarnings("ignore", message="Consider boosting PBT")  # RLlib cannot
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # with verbose=0 below: no tables while it runs
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
    .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
    .training(**{name: first for name, (first, _) in SETTINGS.items()})
    .callbacks(InUse)
    .debugging(seed=SEED)
)
with tempfile.TemporaryDirectory() as folder:
    results = tune.Tuner(
        PPO,
        param_space=config,
        tune_config=tune.TuneConfig(
            num_samples=2,
            metric=METRIC,
            mode="max",
            scheduler=PopulationBasedTraining(
                time_attr="training_iteration",
                perturbation_interval=EXPLOIT_AT,
                quantile_fraction=0.5,  # the worse of the two copies the better
                resample_probability=1.0,
                hyperparam_mutations={
                    KEYS.get(name, name): [new] for name, (_, new) in SETTINGS.items()
                },
                synch=True,
            ),
        ),
        run_config=tune.RunConfig(
            storage_path=folder,
            stop={"training_iteration": EXPLOIT_AT + 2},
            callbacks=[Note()],
            verbose=0,
        ),
    ).fit()
    if results.errors:
        sys.exit(f"A trial failed: {results.errors[0]}")
    exploited = [
        trial.metrics["trial_id"]
        for trial in results
        if trial.config["lr"] == SETTINGS["lr"][1]
    ]
ray.shutdown()
if len(exploited) != 1:
    sys.exit("PBT does not let one trial take over the other's checkpoint.")


def in_use(name):
    """Before the exploit, in the first iteration after it, and in the second."""
    of_trial = reported[exploited[0]]
    return [of_trial[EXPLOIT_AT + number][name] for number in (0, 1, 2)]


def show(name, drawn=""):
    before, then, later = in_use(name)
    print(f"{name:29s}{before:8g}{drawn!s:>10}{then:8g}{later:8g}")


missing = sorted(set(SETTINGS) - set(config.to_dict()))
print(f"not in the dict by this name: {', '.join(missing)}")
print(f"{'setting':29s}  before  PBT drew     1st     2nd")
for name, (_, drawn) in SETTINGS.items():
    show(name, drawn)
show("gradient steps")
process, process_then, _ = in_use("process")
same = process == process_then
print(f"the trial goes on in {'the same' if same else 'another'} process")

for name, (first, drawn) in SETTINGS.items():
    before, then, later = in_use(name)
    if name == "train_batch_size":
        right = before < 1.1 * 1024 and then > 1.9 * 1024  # as the other one says
    elif name == "train_batch_size_per_learner":
        right = before < 1.1 * first and drawn <= then < 1.1 * drawn
    elif name == "lr":  # the checkpoint's for one iteration
        right = (before, then, later) == (first, first, drawn)
    else:
        right = abs(before - first) < 1e-6 and abs(then - drawn) < 1e-6
    if not right:
        sys.exit(f"{name} does something else than this page says.")
# Epochs and minibatches are not only in the config: they are in the number of steps.
for number in (0, 1):
    epochs, minibatch = (
        SETTINGS["num_epochs"][number],
        SETTINGS["minibatch_size"][number],
    )
    asked = in_use("train_batch_size")[number] / minibatch * epochs
    if not 0.8 * asked < in_use("gradient steps")[number] < 1.3 * asked:
        sys.exit("The gradient steps are not those of num_epochs and minibatch_size.")
if same or missing != sorted(KEYS):
    sys.exit("PBT does something else than this page says.")
