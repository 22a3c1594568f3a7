"""A real Slurm on one machine: three nodes by three slurmd, two fake GPUs each.

The nodes are on the loopback, or in a network of their own, where one can be cut off.
``python tests/cluster/lab.py DIRECTORY`` starts one to play with and says how to use it.
Needs root and Debian's packages slurm-wlm and munge. There is no accounting: nothing here may
depend on sacct, which many clusters do not offer.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
from cluster.network import Network

PACKAGES = ("slurm-wlm", "munge")
NODES, GPUS, CPUS, MEMORY = 3, 2, 4, 4000
LARGEST_ARRAY = 4  # as on sites that take few tasks at once

CONFIGURATION = """
ClusterName=lab
SlurmctldHost={host}({address})
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge.sock
CredType=cred/munge
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool/%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd-%n.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=8
MessageTimeout=6
KillWait=3
MinJobAge=300
MaxArraySize={largest}
CompleteWait=0
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory,CR_LLN
DefMemPerCPU=900
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{listening}
DebugFlags=NO_CONF_HASH
SlurmdParameters=config_overrides
MailProg=/bin/true
GresTypes=gpu
{nodes}
PartitionName=main Nodes=n[1-{count}] Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=high Nodes=n[1-{count}] Default=NO MaxTime=INFINITE State=UP PriorityTier=10
"""
LOOPBACK_ONLY = "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny"
NODE = (
    "NodeName=n{number} NodeHostname={host} NodeAddr={address} Port={port} CPUs={cpus} Boards=1 "
    "SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory={memory} Gres=gpu:{gpus}"
)


@dataclass(frozen=True)
class Lab:
    """A Slurm whose files are in one directory.

    Attributes:
        place: The directory.
        network: Where its nodes live; None is the loopback.
    """

    place: Path
    network: Network | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to find this Slurm."""
        return {**os.environ, "SLURM_CONF": str(self.place / "slurm.conf")}

    def on(self, host: int) -> tuple[str, ...]:
        """Words before a command that is to run on a node, or, for 0, beside the controller."""
        return self.network.on(host) if self.network else ()

    def ask(self, *command: str) -> str:
        """Run a command of Slurm."""
        done = subprocess.run(
            [*self.on(0), *command], env=self.environment, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        return done.stdout

    def start(self) -> None:
        """Start the daemons and wait until all nodes are idle."""
        for folder in ("state", "spool", "gpu", "munge"):
            (self.place / folder).mkdir(parents=True, exist_ok=True)
        (self.place / "munge").chmod(0o700)
        self.place.chmod(0o755)
        self._configure()
        self._daemon(
            0,
            "munged",
            f"--key-file={self.place}/munge/key",
            f"--socket={self.place}/munge.sock",
            f"--pid-file={self.place}/munged.pid",
            f"--log-file={self.place}/munge/munged.log",
            f"--seed-file={self.place}/munge/seed",
        )
        self._daemon(0, "slurmctld")
        for number in range(1, NODES + 1):
            self.start_node(number)
        wait_for(
            lambda: (
                self.ask("sinfo", "-hN", "-o", "%N", "-p", "main", "-t", "idle").count("n") == NODES
            ),
            60,
        )

    def start_node(self, number: int) -> None:
        """Start a node, or start it again."""
        self._daemon(number, "slurmd", "-N", f"n{number}")

    def kill_node(self, number: int) -> None:
        """Power fails: its daemon is gone from one moment to the next, and everything that it runs."""
        for process in self._processes_of(number):
            _kill(process, signal.SIGKILL)

    def start_node_with_a_full_disk(self, number: int, folder: Path) -> None:
        """Start a node anew that has no room in a directory, where the others have plenty."""
        self.stop_node(number)
        mount = f"mount -t tmpfs -o size=8k tmpfs {folder} && exec slurmd -N n{number}"
        self._daemon(number, "unshare", "--mount", "sh", "-c", mount)

    def stop_node(self, number: int) -> None:
        """End the daemon of a node."""
        daemon = int((self.place / f"slurmd-n{number}.pid").read_text())
        _kill(daemon, signal.SIGTERM)
        wait_for(lambda: not _alive(daemon), 20)

    def tasks(self) -> list[int]:
        """The processes of submitit that run now, of this Slurm alone."""
        return [process for process in _processes() if _is_task(process) and self._owns(process)]

    def tasks_on(self, number: int) -> list[int]:
        """Those of one node."""
        return [process for process in self._processes_of(number) if _is_task(process)]

    def restart_node(self, number: int) -> None:
        """Let a node tell Slurm at once that it is there, in place of being asked some day."""
        self.stop_node(number)
        self.start_node(number)

    def wait_until_idle(self) -> None:
        """Wait until every node is there and free."""
        asked = ("sinfo", "-hN", "-p", "main", "-o", "%t")
        try:
            wait_for(lambda: self.ask(*asked).split() == ["idle"] * NODES, 120)
        except TimeoutError as error:
            nodes = self.ask("sinfo", "-hN", "-p", "main", "-o", "%N %t %E")
            raise TimeoutError(f"{error}: {nodes}{self.ask('squeue', '-r')}") from error

    def state(self, number: int) -> str:
        """What Slurm says of a node, such as idle or down*."""
        return self.ask("sinfo", "-hN", "-n", f"n{number}", "-p", "main", "-o", "%t").strip()

    def stop(self) -> None:
        """Stop what was started."""
        self.ask("scancel", f"--user={os.environ.get('USER', 'root')}")
        for daemon in [int(file.read_text()) for file in self.place.glob("*.pid")]:
            _kill(daemon, signal.SIGTERM)
            try:
                wait_for(lambda process=daemon: not _alive(process), 20)
            except TimeoutError:  # a slurmd that was told in the middle of a job may not hear it
                _kill(daemon, signal.SIGKILL)

    def _configure(self) -> None:
        key = self.place / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        for number in range(GPUS):
            # a character device: for a plain file Slurm sets no CUDA_VISIBLE_DEVICES
            (self.place / "gpu" / f"gpu{number}").symlink_to("/dev/null")
        host, ports = socket.gethostname().split(".")[0], _free_ports(NODES + 1)
        nodes = "\n".join(
            NODE.format(
                number=number,
                host=host,
                address=self._address(number),
                port=ports[number],
                cpus=CPUS,
                memory=MEMORY,
                gpus=GPUS,
            )
            for number in range(1, NODES + 1)
        )
        text = CONFIGURATION.format(
            host=host,
            address=self._address(0),
            listening="" if self.network else LOOPBACK_ONLY,
            port=ports[0],
            place=self.place,
            nodes=nodes,
            count=NODES,
            largest=LARGEST_ARRAY,
        )
        (self.place / "slurm.conf").write_text(text)
        devices = f"{self.place}/gpu/gpu[0-{GPUS - 1}]"
        (self.place / "gres.conf").write_text(f"NodeName=n[1-{NODES}] Name=gpu File={devices}\n")
        (self.place / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")

    def _address(self, host: int) -> str:
        return self.network.address(host) if self.network else "127.0.0.1"

    def _daemon(self, host: int, *command: str) -> None:
        words = [*self.on(host), *command]
        subprocess.run(words, env=self.environment, check=True, timeout=60, capture_output=True)

    def _owns(self, process: int) -> bool:
        """Whether a task is of this Slurm: there may be others on the machine."""
        mine = f"SLURM_CONF={self.place / 'slurm.conf'}"
        return mine in _read(process, "environ").split("\0")

    def _processes_of(self, number: int) -> set[int]:
        """The daemon of a node, its job steps, and what these run."""
        tasks = {
            process
            for process in _processes()
            if self._owns(process)
            and f"SLURMD_NODENAME=n{number}" in _read(process, "environ").split("\0")
        }
        steps = {_parent(process) for process in tasks}
        keepers = {step for step in steps if _is_keeper(step)}
        return {int((self.place / f"slurmd-n{number}.pid").read_text()), *tasks, *keepers}


def _is_task(process: int) -> bool:
    command = _read(process, "cmdline").split("\0")
    return "submitit.core._submit" in command and "python" in _read(process, "comm")


def _is_keeper(process: int) -> bool:
    return "slurmstepd" in _read(process, "comm")


def _processes() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def _read(process: int, name: str) -> str:
    try:
        return Path(f"/proc/{process}/{name}").read_text()
    except OSError:  # it has ended
        return ""


def _parent(process: int) -> int:
    fields = _read(process, "stat").rpartition(")")[2].split()
    return int(fields[1]) if fields else 0


def _alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def _kill(process: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it may have ended by itself
        os.kill(process, number)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: It is not so in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not so after {seconds} s")
        time.sleep(0.2)  # a question to Slurm is a process


def why_not() -> str:
    """Why a Slurm cannot be started here; or nothing."""
    if os.geteuid() != 0:
        return "a Slurm of one's own needs root"
    lacking = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name) is None]
    if lacking:
        return f"{', '.join(lacking)} not found: apt-get install {' '.join(PACKAGES)}"
    return ""


def missing(reason: str) -> NoReturn:
    """Skip a test; in CI, which has to run it, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"CI has to run these tests: {reason}")
    pytest.skip(reason)


if __name__ == "__main__":
    lab = Lab(Path(sys.argv[1]).resolve())
    lab.start()
    print(f"export SLURM_CONF={lab.place}/slurm.conf")
