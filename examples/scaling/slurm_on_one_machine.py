"""Submits train.sbatch to a Slurm of two nodes, both of which are this machine."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Debian keeps the daemons where a plain user's PATH does not look.
os.environ["PATH"] += ":/usr/sbin"
missing = [name for name in ("munged", "slurmctld", "slurmd") if not shutil.which(name)]
if missing:
    sys.exit(
        f"There is no {missing[0]}; on Debian and Ubuntu: "
        "apt-get install slurmctld slurmd slurm-client munge"
    )
if len(os.sched_getaffinity(0)) < 2:
    sys.exit("Two nodes of one CPU each need two CPUs.")

folder = Path(tempfile.mkdtemp(prefix="slurm-", dir=os.environ.get("RAY_TMPDIR")))
for name in ("munge", "state", "log", "spool", "ray"):
    (folder / name).mkdir(mode=0o755)
for name in ("train.sbatch", "train.py"):
    shutil.copy(name, folder)


def free_ports(count):
    """Ports that nothing listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports


host = socket.gethostname().split(".")[0]
user = subprocess.check_output(["id", "--user", "--name"], text=True).strip()
control, a, b = free_ports(3)
(folder / "slurm.conf").write_text(
    f"""
ClusterName=one-machine
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket
SlurmctldPort={control}
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=5
NodeName=a NodeHostname={host} NodeAddr=127.0.0.2 Port={a} CPUs=1 RealMemory=2000
NodeName=b NodeHostname={host} NodeAddr=127.0.0.3 Port={b} CPUs=1 RealMemory=2000
PartitionName=main Nodes=a,b Default=YES MaxTime=10 State=UP
"""
)
(folder / "munge" / "key").write_bytes(os.urandom(1024))
(folder / "munge" / "key").chmod(0o400)
env = os.environ | {
    "SLURM_CONF": str(folder / "slurm.conf"),
    "RAY_TMPDIR": f"{folder}/ray",
}


def run(*command):
    """Run a command of Slurm; what it prints."""
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        errors = "".join(file.read_text() for file in folder.glob("rllib-*.err"))
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}{errors}")
    return done.stdout


munge = folder / "munge"
MUNGE = ("socket", "key-file", "pid-file", "seed-file")
deadline = time.monotonic() + 60
daemons = []


def start(*command):
    """Start a daemon of Slurm, which stays in the foreground."""
    with open(folder / "log" / f"{len(daemons)}-{command[0]}", "w") as log:
        daemons.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))


def not_ready(what):
    """End with what the daemons say."""
    logs = sorted((folder / "log").iterdir())
    said = "".join(log.read_text()[-1000:] for log in logs)
    sys.exit(f"{what} not ready within a minute:\n{said}")


try:
    # --force: the folder may be open to nobody but you, about which munge complains.
    paths = [f"--{name}={munge}/{name.split('-')[0]}" for name in MUNGE]
    start("munged", "--foreground", "--force", *paths)
    while not (munge / "socket").exists():  # the others ask it for credentials at once
        if time.monotonic() > deadline:
            not_ready("munge was")
        time.sleep(0.1)
    start("slurmctld", "-D", "-i")
    start("slurmd", "-D", "-N", "a")
    start("slurmd", "-D", "-N", "b")
    nodes = ""
    while nodes.count("idle\n") < 2:
        if time.monotonic() > deadline:
            not_ready("the two nodes were")
        time.sleep(0.5)
        sinfo = ["sinfo", "--Node", "--format=%N %T"]
        nodes = subprocess.run(sinfo, env=env, capture_output=True, text=True).stdout
    print(nodes, end="")
    start = time.perf_counter()
    print(run("sbatch", "--wait", "train.sbatch"), end="", flush=True)
    for line in (folder / "rllib-1.out").read_text().splitlines():
        print(f"  {line}")
    print(f"the job took {time.perf_counter() - start:.0f} seconds")
finally:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # a job under way
        subprocess.run(["scancel", "--me"], env=env, capture_output=True, timeout=20)
        while subprocess.check_output(["squeue", "--noheader"], env=env, timeout=20):
            time.sleep(0.5)
    for daemon in reversed(daemons):
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
    shutil.rmtree(folder, ignore_errors=True)
