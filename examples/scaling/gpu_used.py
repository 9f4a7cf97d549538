"""Is a GPU used? Asks the learner and the env runners on which device they compute."""

import logging

import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig

print(f"torch {torch.__version__.split('+')[0]} sees {torch.cuda.device_count()} GPUs")

logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")
gpus = ray.cluster_resources().get("GPU", 0)
print(f"Ray hands out   {gpus:.0f} GPUs")


def devices(algo):
    """Where the learner's networks are, and those of each env runner that acts."""
    learner = algo.learner_group.foreach_learner(
        lambda learner: {
            str(p.device) for p in learner.module["default_policy"].parameters()
        }
    )
    env_runners = algo.env_runner_group.foreach_env_runner(
        lambda env_runner: {str(p.device) for p in env_runner.module.parameters()},
        local_env_runner=algo.config.num_env_runners == 0,
    )
    return [set().union(*(call.get() for call in learner)), set().union(*env_runners)]


def config():
    """One env runner in a process of its own, and the learner in this one."""
    return (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=1, rollout_fragment_length=50)
        .training(train_batch_size_per_learner=50, minibatch_size=50, num_epochs=1)
    )


if gpus and not torch.cuda.is_available():
    print("Ray has a GPU that this PyTorch cannot use: it is a build without CUDA")
    gpus = 0
settings = {
    "defaults": config(),
    "resources(num_gpus=1), the old way": config().resources(num_gpus=1),
}
if gpus:
    settings["learners(num_gpus_per_learner=1)"] = config().learners(
        num_gpus_per_learner=1
    )
    settings["env_runners(num_gpus_per_env_runner=0.5)"] = config().env_runners(
        num_gpus_per_env_runner=0.5  # half of one GPU
    )
print(f"{'setting':40s} {'learner':8s} {'env runner':10s}")
found = {}
for name, setting in settings.items():
    algo = setting.build_algo()
    algo.train()
    found[name] = learner, env_runner = devices(algo)
    algo.stop()
    print(
        f"{name:40s} {'+'.join(sorted(learner)):8s} {'+'.join(sorted(env_runner)):10s}"
    )
ray.shutdown()

# The old way changes nothing, with a GPU or without one.
assert found["resources(num_gpus=1), the old way"] == [{"cpu"}, {"cpu"}], found
if gpus:
    assert found["learners(num_gpus_per_learner=1)"][0] == {"cuda:0"}, found
    assert found["env_runners(num_gpus_per_env_runner=0.5)"][1] == {"cuda:0"}, found
