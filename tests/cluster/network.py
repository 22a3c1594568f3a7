"""Nodes in networks of their own, so that one can be cut off while everything on it goes on.

Nothing is added to the network of the machine: the controller's namespace has a switch with an
address on it, and from there a cable leads into the namespace of each node.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

KEEPER = "ip link set lo up && echo ready && exec cat"


@dataclass(frozen=True)
class Network:
    """Namespaces, which are there as long as their keepers live.

    Attributes:
        keepers: A process in each: in the controller's, then in those of the nodes.
    """

    keepers: tuple[subprocess.Popen[str], ...]

    @classmethod
    def of(cls, nodes: int) -> Network:
        """Make a network of a controller and some nodes.

        Args:
            nodes: How many.

        Returns:
            The network, with all cables plugged in.

        Raises:
            OSError: Namespaces, or what connects them, cannot be made here.
        """
        network = cls(tuple(_keeper() for _ in range(nodes + 1)))
        try:
            network._plug_in()
        except OSError:
            network.close()
            raise
        return network

    def on(self, host: int) -> tuple[str, ...]:
        """Words before a command that is to run on a host."""
        return ("nsenter", f"--net=/proc/{self.keepers[host].pid}/ns/net", "--")

    def address(self, host: int) -> str:
        """Where a host is reached."""
        return f"10.77.0.{host + 1}"

    def cut(self, node: int) -> None:
        """Pull the cable of a node."""
        self._ip(0, f"link set n{node} down")

    def mend(self, node: int) -> None:
        """Plug it in again."""
        self._ip(0, f"link set n{node} up")

    def close(self) -> None:
        """Let go of the namespaces: they end with their last process."""
        for keeper in self.keepers:
            keeper.communicate()

    def _plug_in(self) -> None:
        for keeper in self.keepers:
            if keeper.stdout is None or not keeper.stdout.readline():
                raise OSError(keeper.communicate()[1].strip())
        self._ip(0, "link add switch type bridge")
        self._connect(0, "switch")
        for node in range(1, len(self.keepers)):
            far_end = f"peer name cable netns {self.keepers[node].pid}"
            self._ip(0, f"link add n{node} type veth {far_end}")
            self._ip(0, f"link set n{node} master switch up")
            self._connect(node, "cable")

    def _connect(self, host: int, device: str) -> None:
        self._ip(host, f"address add {self.address(host)}/24 dev {device}")
        self._ip(host, f"link set {device} up")

    def _ip(self, host: int, words: str) -> None:
        command = [*self.on(host), "ip", *words.split()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        if done.returncode:
            raise OSError(f"ip {words}: {done.stderr.strip()}")


def _keeper() -> subprocess.Popen[str]:
    """A process in a namespace of its own that ends with this one, whatever happens to it."""
    pipe = subprocess.PIPE
    command = ["unshare", "--net", "sh", "-c", KEEPER]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
