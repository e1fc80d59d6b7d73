"""Two "hosts": network namespaces of this machine with one cable between them."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

ADDRESSES = ("10.213.77.1", "10.213.77.2")


class Hosts:
    """Their names; both ends of the cable are called `cable`."""

    def __init__(self):
        self.names = tuple(f"shardbench-{os.getpid()}-{end}" for end in "ab")

    def python(self, host):
        """The words before a program of Python that runs on a host."""
        return ("ip", "netns", "exec", self.names[host], sys.executable)

    def cut(self):
        """Take the cable down at the first host: nobody is told."""
        ip("-n", self.names[0], "link", "set", "cable", "down")


def ip(*words):
    return subprocess.run(("ip", *words), check=True, capture_output=True, text=True, timeout=30)


@contextmanager
def two_hosts():
    """Skips where the machine does not allow it; always cleans up."""
    hosts = Hosts()
    first, second = hosts.names
    try:
        try:
            for name in hosts.names:
                ip("netns", "add", name)
            ip("-n", first, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", second)
            for name, address in zip(hosts.names, ADDRESSES, strict=True):
                ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
                ip("-n", name, "link", "set", "lo", "up")
                ip("-n", name, "link", "set", "cable", "up")
            ip("netns", "exec", first, "true")
        except FileNotFoundError:
            pytest.skip("network namespaces need the `ip` command (iproute2)")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces need root: {error.stderr.strip()}")
        yield hosts
    finally:
        for name in hosts.names:
            subprocess.run(("ip", "netns", "delete", name), check=False, capture_output=True)  # the cable goes with it
