"""Checkpoints on a disk that gets full: the error, what is left, a way that is safe."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

# A small disk that only this program sees, in a mount namespace that ends with it.
# Linux allows that to any user on most machines; elsewhere a limit on the size of
# a file stands in for the full disk.
OWN = ["unshare", "--user", "--map-root-user", "--mount"]
if "_DISK_FULL" not in os.environ:
    allowed = (
        shutil.which("unshare")
        and not subprocess.run(
            [*OWN, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True
        ).returncode
    )
    os.environ["_DISK_FULL"] = "tmpfs" if allowed else "limit"
    command = [sys.executable, __file__]
    os.execvp(*((OWN[0], OWN + command) if allowed else (command[0], command)))

import resource

import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig

SEED = int(os.environ.get("SEED", 0))
torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
disk = Path(folder.name) / "disk"
disk.mkdir()
if os.environ["_DISK_FULL"] == "tmpfs":
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", disk]
    subprocess.run(mount, check=True)
    print("a disk of 8 MB that only this program sees")
else:
    print("no disk of its own is allowed here: a limit on a file's size instead")


def fill():
    """Let the next checkpoint not fit any more."""
    if os.environ["_DISK_FULL"] == "tmpfs":
        free = shutil.disk_usage(disk).free
        (disk / "other_data").write_bytes(bytes(free - 600_000))
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))


def make_room():
    (disk / "other_data").unlink(missing_ok=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


def content(checkpoint):
    files = [path for path in checkpoint.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    return f"{len(files)} files, {size:,} bytes"


def loads(checkpoint):
    """Whether an algorithm can be made from this checkpoint, and of which iteration."""
    try:
        restored = Algorithm.from_checkpoint(checkpoint)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:50]} ..."
    iteration = restored.iteration
    restored.stop()
    return f"loads, iteration {iteration}"


def save(algo, checkpoint):
    """Write aside, then rename: what has the checkpoint's name is whole."""
    aside = checkpoint.with_name(checkpoint.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        algo.save_to_path(aside)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)  # make room for what matters
        raise
    aside.rename(checkpoint)


config = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0)
    .training(train_batch_size_per_learner=500, minibatch_size=250, num_epochs=1)
    .debugging(seed=SEED)
)
algo = config.build_algo()
algo.train()
algo.save_to_path(disk / "1")
print("iteration 1, saved:           ", content(disk / "1"))

algo.train()
fill()
try:
    algo.save_to_path(disk / "2")
except Exception as error:
    print("iteration 2, the disk is full:", type(error).__name__)
    print(textwrap.fill(str(error), 76, initial_indent="   ", subsequent_indent="   "))
else:
    sys.exit("The second checkpoint should not fit.")
print("left of it:                   ", content(disk / "2"))
first, second = loads(disk / "1"), loads(disk / "2")
print("the checkpoint of iteration 1:", first)
print("the checkpoint of iteration 2:", second)
shutil.rmtree(disk / "2")

algo.train()
try:
    save(algo, disk / "3")
except OSError as error:
    print(f"iteration 3, with save(): {type(error).__name__}")
names = sorted(path.name for path in disk.iterdir())
print("on the disk:                  ", ", ".join(names))
make_room()
algo.train()
save(algo, disk / "4")
fourth = loads(disk / "4")
print("iteration 4, with room again: ", fourth)
algo.stop()
ray.shutdown()
if os.environ["_DISK_FULL"] == "tmpfs":
    subprocess.run(["umount", disk], check=True)
folder.cleanup()
if (first, fourth) != ("loads, iteration 1", "loads, iteration 4"):
    sys.exit("The checkpoints that had room should be whole.")
if second.startswith("loads") or {"3", "3.part"} & set(names):
    sys.exit("The half-written checkpoint should not load; save() should leave none.")
