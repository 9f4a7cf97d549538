"""What RLlink's server does when its client is absent, wrong or cut. No Ray runs."""

import io
import logging
import socket
import sys
import threading
import time

import gymnasium as gym
import numpy as np
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.external import get_rllink_message, send_rllink_message
from ray.rllib.env.external.env_runner_server_for_external_inference import (
    EnvRunnerServerForExternalInference,
)
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

logging.getLogger("ray").setLevel(logging.ERROR)  # RLlib warns of its own code
SHORT, LONG = 2.0, 60.0  # seconds: until we call it silence; until we give up
screen, sys.stdout = sys.stdout, io.StringIO()  # the server prints ports
died = []  # errors that ended a thread
threading.excepthook = lambda args: died.append(args.exc_value)
passed = 0  # what came out of a message


def report(what, seen, holds):
    """Print a line of the table; end the program if it is not what the page says."""
    print(f"{what:42s} {seen}", file=screen, flush=True)
    if not holds:
        sys.exit(f"It was not as the page says: {what}: {seen}.")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def server_at(port):
    """The env runner that listens, without an algorithm around it."""
    config = (
        PPOConfig()
        .environment(
            observation_space=gym.spaces.Box(-np.inf, np.inf, (4,), np.float32),
            action_space=gym.spaces.Discrete(2),
            env_config={"port": port},
        )
        .env_runners(env_runner_cls=EnvRunnerServerForExternalInference)
    )
    return EnvRunnerServerForExternalInference(config=config)


def connect(port):
    """A connection that was answered, made as often as it takes."""
    deadline = time.monotonic() + LONG
    while True:
        try:
            link = socket.create_connection(("127.0.0.1", port))
            if answers(link, "PING", LONG):
                return link
        except OSError:
            time.sleep(0.05)
        if time.monotonic() > deadline:
            sys.exit("The server did not listen again.")


def answers(link, kind, patience=SHORT, **message):
    """Whether a message gets an answer in time."""
    link.settimeout(patience)
    try:
        send_rllink_message(link, {"type": kind, **message})
        get_rllink_message(link)
        return True
    except ConnectionError:  # of RLlink, also where the time is over
        return False


class Sampling(threading.Thread):
    """A call of sample(), which may take for ever."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.episodes = server, None
        self.start()

    def run(self):
        self.episodes = self.server.sample()

    def returned(self, patience=SHORT):
        """Whether it has returned in time."""
        self.join(patience)
        return not self.is_alive()


def ten_steps():
    """Ten steps of an episode, as a client sends them."""
    env = gym.make("CartPole-v1")
    episode = SingleAgentEpisode(observations=[env.reset(seed=0)[0]])
    for step in range(10):
        observation, reward, *_ = env.step(step % 2)
        episode.add_env_step(observation, step % 2, reward)
    return [episode.get_state()]


def run_by_a_message():
    global passed
    passed += 1


class Surprise:
    def __reduce__(self):
        return run_by_a_message, ()


server = server_at(port := free_port())
sampling = Sampling(server)
waits = not sampling.returned()
report("no simulator", "sample() waits" if waits else "sample() returns", waits)

first = connect(port)
second = socket.create_connection(("127.0.0.1", port))
silent = not answers(second, "PING")
report("a second simulator", "connected, no answer" if silent else "answer", silent)

start = time.perf_counter()
first.close()
first = connect(port)
seconds = time.perf_counter() - start
report("the first is cut", f"answered again after {seconds:.1f} s", seconds >= 5)
second.settimeout(LONG)
try:
    gone = second.recv(1) == b""
except ConnectionResetError:
    gone = True
report("the second, meanwhile", "connection reset" if gone else "still there", gone)

episodes = ten_steps()
silent = not answers(first, "EPISODES_AND_GET_STATE", episodes=episodes)
report("10 steps, new weights asked for", "no answer" if silent else "answer", silent)
sampling.returned(LONG)
steps = sum(map(len, sampling.episodes))
sampling = Sampling(server)
waits = not sampling.returned()
words = f"had {steps} steps, the next " + ("waits" if waits else "returns")
report("sample(), meanwhile", words, waits and steps == 10)
server.set_state({"rl_module": server.module.get_state(), "weights_seq_no": 1})
first.settimeout(LONG)
kind, _ = get_rllink_message(first)
report("set_state()", f"{kind} arrives", str(kind) == "SET_STATE")

first.setblocking(True)
before = passed
array = np.array([Surprise()], dtype=object)
answers(first, "PING", LONG, note=array)
report("a message with an array of objects", "its code ran", passed > before)

send_rllink_message(first, {"type": "EPISODES"})  # a key is missing
server.thread.join(LONG)
words = f"{type(died[-1]).__name__}: {died[-1]}" if died else "nothing"
report("a message that lacks a key", words, not server.thread.is_alive())
silent = not answers(first, "PING")
report("the same simulator, from now on", "no answer" if silent else "answer", silent)
server.assert_healthy()
report("assert_healthy()", "all well", True)

with socket.create_server(("127.0.0.1", 0)) as other:
    server = server_at(other.getsockname()[1])
    server.thread.join(LONG)
    words = f"{type(died[-1]).__name__}: {died[-1].strerror}, in a thread"
    report("the port is taken", words, not server.thread.is_alive())
