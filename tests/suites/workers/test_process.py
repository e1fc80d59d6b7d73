"""Messages between processes arrive whole, or it is told that they do not."""

import socket
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Thread

import pytest

from suites.workers.process import MessageChannel


@pytest.fixture
def wires():
    both = [MessageChannel(end) for end in Pipe()]
    yield both
    for wire in both:
        wire.close()


def test_a_message_arrives_as_it_was_sent(wires):
    message = {"do": "draw", "with": {"calls": 3, "seconds": [0.1, 2e-9], "name": "naïve"}, "turn": 1}
    assert wires[0].send(message)
    assert wires[1].receive() == message


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1", b"\xff\xfe", b"[1, 2]", b"7"])
def test_what_is_no_message_is_nobody(wires, sent):
    """A stranger at the port, or a library that prints into the pipe, must not end the run."""
    wires[0].connection.send_bytes(sent)
    assert wires[1].receive() is None


def test_a_length_that_no_message_has_is_nobody():
    """The first four bytes of what else knocks at a port are taken for a length: b"GET " is over a gigabyte."""
    ours, theirs = socket.socketpair()
    with theirs:
        wire = MessageChannel(Connection(ours.detach()))
        theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert wire.receive() is None
        wire.close()


def test_when_the_other_side_is_gone_it_is_said(wires):
    wires[1].close()
    assert wires[0].send({"do": "end"}) is False
    assert wires[0].receive() is None


def test_what_was_sent_before_closing_still_arrives(wires):
    wires[0].send({"done": "check"})
    wires[0].close()
    assert wires[1].receive() == {"done": "check"}
    assert wires[1].receive() is None


def test_threads_that_tell_at_once_do_not_mix_their_messages(wires):
    """A pulse and a reply share the pipe; longer than a pipe's 64 KiB, they would be cut where threads change."""
    long = {name: {"from": name, "text": name * 200_000} for name in "abcd"}
    threads = [Thread(target=lambda m=m: [wires[0].send(m) for _ in range(5)], daemon=True) for m in long.values()]
    for thread in threads:
        thread.start()
    heard = [wires[1].receive() for _ in range(20)]
    for thread in threads:
        thread.join(30)
    assert sorted(one["from"] for one in heard) == sorted("abcd" * 5)
    assert all(one == long[one["from"]] for one in heard)
