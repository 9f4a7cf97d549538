"""`make defaults`, second part: tries what RLlib's algorithms support; writes `results/rllib_support.json`.

Nothing is read from documentation: each cell of the support matrix is one short training on an environment of
random numbers. It ends well, or with the error that is written down. `python -m tools.support PPO DQN` tries
only those and prints what came out.
"""

import importlib
import json
import logging
import sys
import tempfile
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np

from extensions.cache import write_whole

FILE = Path(__file__).resolve().parent.parent / "results" / "rllib_support.json"
ALGORITHMS = ("PPO", "APPO", "IMPALA", "DQN", "SAC", "TQC", "DreamerV3", "BC", "MARWIL", "CQL", "IQL")
OFFLINE = ("BC", "MARWIL", "CQL", "IQL")
BOX = gym.spaces.Box(-1, 1, (2,), np.float32)
ACTIONS = {
    "discrete": gym.spaces.Discrete(3),
    "multi-discrete": gym.spaces.MultiDiscrete([3, 2]),
    "continuous": BOX,
    "dict": gym.spaces.Dict({"which": gym.spaces.Discrete(3), "how_far": BOX}),
}


class Noise(gym.Env):
    """Random observations and rewards, episodes of 10 env steps, any action space."""

    def __init__(self, config):
        self.observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)
        self.action_space = config["action_space"]

    def reset(self, *, seed=None, options=None):
        """Start an episode."""
        super().reset(seed=seed)
        self.left = 10
        return self._observation(), {}

    def step(self, action):
        """Refuse an action outside the space, which is what a wrong distribution would give."""
        assert self.action_space.contains(action), f"{action} is not in {self.action_space}"
        self.left -= 1
        return self._observation(), float(self.np_random.normal()), self.left == 0, False, {}

    def _observation(self):
        return self.np_random.uniform(-1, 1, 4).astype(np.float32)


def _small(name):
    """The algorithm's config, with as little work as there can be in one training iteration."""
    config = getattr(importlib.import_module(f"ray.rllib.algorithms.{name.lower()}"), f"{name}Config")()
    config.env_runners(num_env_runners=0).learners(num_learners=0)  # IMPALA and APPO: 1 by default
    config.reporting(
        min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=0, min_train_timesteps_per_iteration=0
    )
    if name == "DreamerV3":
        config.training(model_size="nano", batch_size_B=2, batch_length_T=4, horizon_H=2, training_ratio=8)
    elif name == "PPO":
        config.training(train_batch_size_per_learner=32, minibatch_size=16, num_epochs=1)
    elif name in ("DQN", "SAC", "TQC"):
        config.training(num_steps_sampled_before_learning_starts=8, train_batch_size_per_learner=8)
    else:
        config.training(train_batch_size_per_learner=32)
    if name == "CQL":
        config.training(lr=None)  # with its default it refuses to build
    return config


def _on_file(config, action_space, folder):
    """Let an offline algorithm read a file of random steps."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    env = Noise({"action_space": action_space})
    rows, (observation, _) = [], env.reset(seed=0)
    for number in range(64):
        action = action_space.sample()
        new_observation, reward, done, _, _ = env.step(action)
        row = {"obs": observation.tolist(), "actions": np.asarray(action).tolist(), "rewards": reward}
        row |= {"new_obs": new_observation.tolist(), "terminateds": done, "truncateds": False}
        rows.append(row | {"eps_id": number // 10})
        observation = env.reset()[0] if done else new_observation
    parquet.write_table(pa.Table.from_pylist(rows), f"{folder}/steps.parquet")
    config.environment(observation_space=env.observation_space, action_space=action_space)
    return config.offline_data(
        input_=[folder],
        dataset_num_iters_per_learner=2,  # with 1, CQL ends in a KeyError
        map_batches_kwargs={"concurrency": 1, "max_restarts": 0},
    )


def _trial(name, feature):
    """Train for an iteration; None if that ends well, else the error's first line."""
    config, action_space = _small(name), ACTIONS.get(feature, ACTIONS["continuous"])
    replays = name in ("DQN", "SAC", "TQC")
    if feature in ("multi-agent", "memory") and name not in ("SAC", "TQC"):
        action_space = ACTIONS["discrete"]
    with tempfile.TemporaryDirectory() as folder:
        try:
            if name in OFFLINE:
                config = _on_file(config, action_space, folder)
                if name == "CQL":  # the only one of them that wants an environment
                    config.environment(Noise, env_config={"action_space": action_space})
            elif feature == "multi-agent":
                from ray.rllib.env.multi_agent_env import make_multi_agent

                env = make_multi_agent(lambda settings: Noise({"action_space": action_space}))
                config.environment(env, env_config={"num_agents": 2})
                config.multi_agent(policies={"one"}, policy_mapping_fn=lambda *_, **__: "one")
                if replays:
                    buffer = {"type": "MultiAgentPrioritizedEpisodeReplayBuffer", "alpha": 0.6, "beta": 0.4}
                    config.training(replay_buffer_config=buffer | {"capacity": 1000})
            else:
                config.environment(Noise, env_config={"action_space": action_space})
            if feature == "memory":
                config.rl_module(model_config={"use_lstm": True, "max_seq_len": 4})
                if replays:
                    config.training(replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 1000})
            algo = config.build_algo()
            try:
                for _ in range(100):  # a few env steps each: until there is enough to learn from
                    if algo.train().get("learners"):
                        return None
                return "nothing was learned in 100 iterations"
            finally:
                algo.stop()
        except Exception as error:  # whatever RLlib raises is the answer
            while "RLModuleConfig" in str(error) and error.__context__:  # hides what went wrong in the module
                error = error.__context__
            text = f"{type(error).__name__}: {error}".strip()
            return text.splitlines()[0][:160]


def read_support(names=ALGORITHMS):
    """What each algorithm supports: for each feature null, or the error that RLlib ends with."""
    sys.modules.setdefault("tensorflow", None)  # RLlib imports it where it is installed: ten seconds
    import ray
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    gym.logger.min_level = gym.logger.ERROR
    ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="critical")
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    found = {}
    for name in names:
        features = ["discrete", "continuous"]
        if name not in OFFLINE:
            features = [*ACTIONS, "multi-agent", "memory"]
        found[name] = {feature: _trial(name, feature) for feature in features}
    ray.shutdown()
    return found


def main() -> None:
    """Write the file, whole or not at all; with names, only print."""
    if names := sys.argv[1:]:
        if unknown := [name for name in names if name not in ALGORITHMS]:
            sys.exit(f"RLlib's algorithms here are {', '.join(ALGORITHMS)}; there is no {unknown[0]}.")
        print("#", json.dumps(read_support(names), indent=1))
        return
    write_whole(FILE, json.dumps(read_support(), indent=1) + "\n")
    print(f"Wrote {FILE.name}.")


if __name__ == "__main__":
    main()
