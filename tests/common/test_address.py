"""Hosts and ports: a reserved port belongs to one server, even while that server is down."""

import socket
import sys

import pytest

from common.address import reserved_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot reserve a port")


def test_no_other_program_can_bind_a_reserved_port() -> None:
    with reserved_port("127.0.0.1", 0) as port, socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))


def test_a_server_can_listen_on_its_reserved_port_again_and_again() -> None:
    with reserved_port("127.0.0.1", 0) as port:
        for _ in range(2):
            with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
                pass


def test_a_reservation_ends_with_its_block() -> None:
    with reserved_port("127.0.0.1", 0) as port:
        pass
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))


def test_a_port_in_use_cannot_be_reserved() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(OSError, match="in use"):
        reserved_port(*server.getsockname()).__enter__()
