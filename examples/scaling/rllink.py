"""A simulator in a process of its own connects to RLlib by RLlink, and PPO learns.

RLlib opens a port and waits. The simulator connects, fetches the weights, chooses its
actions itself, and sends whole batches of episodes.
"""

import logging
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import time

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.external import get_rllink_message, send_rllink_message
from ray.rllib.env.external.env_runner_server_for_external_inference import (
    EnvRunnerServerForExternalInference,
)
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

SEED = int(os.environ.get("SEED", 0))
TARGET = 450  # mean return of 20 greedy episodes; 500 is the most CartPole-v1 gives
MAX_ENV_STEPS = 150_000
BATCH = 1024  # env steps of one update: here, and in what the simulator sends

logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks


def simulator(port):
    """The client. It could run in a game, on a robot, in a factory's own program."""
    torch.set_num_threads(1)
    logging.getLogger("ray").setLevel(logging.ERROR)  # RLlib warns of its own code
    link = None
    while link is None:
        try:
            link = socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:  # RLlib does not listen yet
            time.sleep(0.2)

    def ask(**message):
        send_rllink_message(link, message)
        return get_rllink_message(link)[1]

    ask(type="PING")
    # The config comes as a pickle, which can run any code; here, where msgpack-numpy
    # reads the messages, so can every other one. Connect only to a server you trust.
    config = pickle.loads(ask(type="GET_CONFIG")["config"])
    module = config.get_rl_module_spec().build()
    state = ask(type="GET_STATE")["state"]
    module.set_state(state["rl_module"])

    chance = np.random.default_rng(SEED)
    env = gym.make("CartPole-v1")
    observation, _ = env.reset(seed=SEED)
    episode = SingleAgentEpisode(observations=[observation])
    episodes = [episode]
    while True:
        with torch.no_grad():
            out = module.forward_exploration({"obs": torch.tensor(observation)[None]})
        logits = out["action_dist_inputs"][0].numpy()
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        action = int(chance.random() > probabilities[0])
        observation, reward, terminated, truncated, _ = env.step(action)
        episode.add_env_step(
            observation,
            action,
            reward,
            terminated=terminated,
            truncated=truncated,
            # PPO compares these with what the next weights would choose.
            extra_model_outputs={
                "action_dist_inputs": logits,
                "action_logp": float(np.log(probabilities[action])),
            },
        )
        full = sum(map(len, episodes)) == BATCH
        if full:
            # Send all, and wait until RLlib has learned from it.
            answer = ask(
                type="EPISODES_AND_GET_STATE",
                episodes=[episode.get_state() for episode in episodes],
            )
            if answer["state"]["weights_seq_no"] <= state["weights_seq_no"]:
                raise RuntimeError("RLlib answered before it had learned.")
            state = answer["state"]
            module.set_state(state["rl_module"])
            episodes = []
        if episode.is_done:
            observation, _ = env.reset()
            episode = SingleAgentEpisode(observations=[observation])
            episodes.append(episode)
        elif full:
            episode = episode.cut()  # the same episode goes on in the next batch
            episodes.append(episode)


def greedy_return_of(module, first_seed, episodes=20):
    """The mean return of whole episodes that choose the likeliest action."""
    envs = gym.make_vec("CartPole-v1", num_envs=episodes)
    observations, _ = envs.reset(seed=first_seed)  # first_seed, first_seed + 1, ...
    returns, running = np.zeros(episodes), np.ones(episodes, bool)
    while running.any():
        with torch.no_grad():
            out = module.forward_inference({"obs": torch.tensor(observations)})
        actions = out["action_dist_inputs"].argmax(-1).numpy()
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        returns += rewards * running
        running &= ~(terminated | truncated)
    envs.close()
    return float(returns.mean())


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def too_long(*_):
    """End all, and at once: Ray's wait may swallow the exception of sys.exit()."""
    print("No batch came in time. Is the simulator still there?", file=sys.stderr)
    sys.stdout.flush()
    for client in multiprocessing.active_children():
        client.kill()
    os._exit(1)


if __name__ == "__main__":  # the simulator's process imports this file, too
    torch.set_num_threads(1)  # so small a network is slower with more threads
    ray.init(
        "local", include_dashboard=False, log_to_driver=False, logging_level="error"
    )
    port = free_port()
    config = (
        PPOConfig()
        # There is no environment here, so RLlib has to be told the spaces.
        .environment(
            observation_space=gym.spaces.Box(-np.inf, np.inf, (4,), np.float32),
            action_space=gym.spaces.Discrete(2),
            env_config={"port": port - 1},  # env runner number 1 listens at `port`
        )
        .env_runners(
            env_runner_cls=EnvRunnerServerForExternalInference,
            num_env_runners=1,
            create_local_env_runner=False,  # it would open a port of its own
            sample_timeout_s=None,  # wait for the simulator as long as it takes
            # This env runner has no connectors whose state could be shared, and each
            # such message would answer the simulator's request for new weights: with
            # the old ones.
            merge_env_runner_states=False,
            broadcast_env_runner_states=False,
        )
        .training(
            lr=[[0, 1e-3], [MAX_ENV_STEPS, 1e-4]],
            train_batch_size_per_learner=BATCH,
            minibatch_size=256,
            num_epochs=10,
            gamma=0.98,
            lambda_=0.8,
            use_kl_loss=False,
            vf_clip_param=float("inf"),
            vf_loss_coeff=0.5,
            grad_clip=0.5,
        )
        .rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"})
        .debugging(seed=SEED)
    )
    algo = config.build_algo()
    # The two settings keep the first weights back, too. So send them.
    algo.env_runner_group.sync_weights(
        from_worker_or_learner_group=algo.learner_group, inference_only=True
    )
    client = multiprocessing.get_context("spawn").Process(
        target=simulator, args=[port], daemon=True
    )
    client.start()

    signal.signal(signal.SIGALRM, too_long)  # sample() itself would wait for ever
    start, env_steps, good = time.perf_counter(), 0, 0
    while env_steps < MAX_ENV_STEPS and good < 2:  # one good evaluation may be luck
        signal.alarm(120)
        result = algo.train()
        before, env_steps = env_steps, int(result["num_env_steps_sampled_lifetime"])
        if env_steps - before != BATCH:
            sys.exit(f"An update used {env_steps - before} env steps, not {BATCH}.")
        print(
            f"iteration {algo.iteration:3d}   env steps {env_steps:7,d}   "
            f"mean return {result['env_runners']['episode_return_mean']:6.1f}   "
            f"seconds {time.perf_counter() - start:5.1f}"
        )
        if algo.iteration % 5 == 0:
            evaluated = greedy_return_of(algo.get_module(), 10**6 + algo.iteration * 20)
            good = good + 1 if evaluated >= TARGET else 0

    signal.alarm(0)
    module = algo.get_module()
    client.terminate()
    client.join()
    algo.stop()
    ray.shutdown()

    greedy_return = greedy_return_of(module, 1000 * SEED)
    print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
    if greedy_return < TARGET:
        sys.exit(f"PPO missed {TARGET} within {MAX_ENV_STEPS:,} env steps.")
