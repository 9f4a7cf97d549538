"""Who does what in one call of algo.train(): four processes keep one common journal."""

import logging
import os
import sys
import time

import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

SEED = int(os.environ.get("SEED", 0))


@ray.remote
class Journal:
    """A process of its own that writes down what the others tell it."""

    def __init__(self):
        self.entries = []

    def add(self, who, what, process):
        self.entries.append((time.perf_counter(), who, what, process))

    def read(self):
        return self.entries


def note(who, what):
    journal = ray.get_actor("journal")
    ray.get(journal.add.remote(who, what, os.getpid()))


class NotingEnvRunner(SingleAgentEnvRunner):
    def sample(self, **kwargs):
        note(f"env runner {self.worker_index}", "sample() begins")
        episodes = super().sample(**kwargs)
        steps = sum(len(episode) for episode in episodes)
        note(f"env runner {self.worker_index}", f"sample() ends with {steps} steps")
        return episodes

    def set_state(self, state):
        super().set_state(state)
        if "rl_module" in state:
            note(f"env runner {self.worker_index}", "has new weights")


class NotingLearner(PPOTorchLearner):
    def before_gradient_based_update(self, **kwargs):
        note("learner", "update begins")
        super().before_gradient_based_update(**kwargs)

    def after_gradient_based_update(self, **kwargs):
        super().after_gradient_based_update(**kwargs)
        note("learner", "update ends")


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init(
    "local",
    num_cpus=4,  # what Ray may hand out, whatever the machine has
    include_dashboard=False,
    log_to_driver=False,
    logging_level="error",
)
journal = Journal.options(name="journal", num_cpus=0).remote()

config = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=2, env_runner_cls=NotingEnvRunner)
    .fault_tolerance(restart_failed_env_runners=False)  # and Ray has nothing to warn of
    .learners(num_learners=1, learner_class=NotingLearner)
    .training(train_batch_size_per_learner=1000, minibatch_size=250, num_epochs=2)
    .debugging(seed=SEED)
)
algo = config.build_algo()
algo.train()  # the first call also warms things up: watch the second one
before = len(ray.get(journal.read.remote()))
note("driver", "train() begins")
algo.train()
note("driver", "train() ends")
entries = ray.get(journal.read.remote())[before:]
algo.stop()
ray.shutdown()

for moment, who, what, _ in entries:
    print(f"{moment - entries[0][0]:6.3f} s   {who:13s} {what}")

processes = {process for *_, process in entries}
print(f"{len(processes)} processes wrote this, the journal itself is one more")


def when(text):
    return [moment for moment, _, what, _ in entries if text in what]


if len(processes) != 4:
    sys.exit("Driver, two env runners and learner should be four processes.")
if max(when("sample() begins")) > min(when("sample() ends")):
    sys.exit("The env runners did not sample at the same time.")
if max(when("sample() ends")) > min(when("update begins")):
    sys.exit("The learner did not wait for the samples of both env runners.")
if max(when("update ends")) > min(when("new weights")):
    sys.exit("The env runners had new weights before the update ended.")
