"""Mail servers with the unusual behaviour of some real ones, by name. `odd_server` runs one in a separate thread."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.programs import wait_until
from tests.support.smtp_peer import CHUNKING, CHUNKS, ENVELOPE, OTHERS, SmtpPeer, smtp_peer

GREYLISTING_SECONDS = 1.0
SLOW_SECONDS = 2.0

REFUSAL = b"550-5.1.1 The account does not exist.\r\n550-5.1.1 Check the address.\r\n550 5.1.1 https://s.example/x"
LOGIN_OFFERED: dict[str, Any] = {"extensions": ["PIPELINING", "AUTH PLAIN LOGIN"]}

ODD_SERVERS: dict[str, dict[str, Any]] = {
    "greylisting": {"greylist_seconds": GREYLISTING_SECONDS},  # RFC 6647; in reality 300 s
    "messages per session, at DATA": {"most_messages": 3},
    "messages per session, at MAIL": {
        "most_messages": 3,
        "over_most_messages": ("MAIL", b"450 4.7.0 too many messages"),
    },
    "messages per session, at BDAT": {
        "extensions": CHUNKING,
        "most_messages": 3,
        "over_most_messages": ("BDAT", b"452 4.4.5 Maximum number of messages per session exceeded"),
    },
    "chunking that fails": {"extensions": CHUNKING, "knows_bdat": False},
    "pipelining that drops commands": {"ahead": "drop"},
    "pipelining that closes": {"ahead": "cut"},
    "pipelining that refuses": {"ahead": "refuse"},
    "three connections": {"most_sessions": 3, "pause": 0.05},  # Microsoft 365
    "slow 250": {"pause": SLOW_SECONDS},  # a server that scans each message; in reality 25 s
    "slow 250 to BDAT": {"extensions": CHUNKING, "pause": SLOW_SECONDS},
    "slow greeting": {"greeting_pause": SLOW_SECONDS},  # Postfix's postscreen waits 6 s
    "multi-line refusal": {"replies": {"RCPT": REFUSAL}},
    "login refused and closed": {
        **LOGIN_OFFERED,
        "replies": {"AUTH": b"535 5.7.8 bad credentials"},
        "cut_after": {"AUTH"},
    },
    "too many logins": {**LOGIN_OFFERED, "replies": {"AUTH": b"454 4.7.0 too many login attempts"}},
    "login demanded": {"replies": {"MAIL": b"530 5.7.0 authentication required"}},  # and 250 to NOOP
}


class OddServer:
    """An SmtpPeer in another thread; `url` is for SMTP_URL."""

    def __init__(self, peer: SmtpPeer, loop: asyncio.AbstractEventLoop) -> None:
        self.peer = peer
        self.started = time.monotonic()
        self._loop = loop
        user = "jo:secret@" if "AUTH" in peer.replies else ""
        self.url = f"smtp://{user}127.0.0.1:{peer.port}"

    def become(self, name: str) -> None:
        """Close all sessions, and behave as another of these servers on the same port, without any state."""
        self._loop.call_soon_threadsafe(self.peer.drop_connections)
        wait_until(lambda: not self.peer.sessions, "all sessions have ended")
        fresh = SmtpPeer(**_fields(name), port=self.peer.port)
        for field in ("writers", "sessions", "conversations"):
            setattr(fresh, field, getattr(self.peer, field))
        self.peer.__dict__.update(fresh.__dict__)

    def repair_login(self) -> None:
        self.peer.cut_after.clear()
        self.peer.replies |= {"AUTH": b"235 2.7.0 welcome", "MAIL": ENVELOPE["MAIL"]}

    def copies(self, message_id: str) -> int:
        """How many messages with this Message-ID it has accepted."""
        header = f"Message-ID: {message_id}\r\n".encode()
        return sum(header in message for message in list(self.peer.messages))


def _fields(name: str) -> dict[str, Any]:
    fields = ODD_SERVERS[name]
    replies = ENVELOPE | CHUNKS | OTHERS | fields.get("replies", {})
    return {**fields, "replies": replies, "cut_after": set(fields.get("cut_after", ())), "data_after_refusal": False}


@contextmanager
def odd_server(name: str) -> Iterator[OddServer]:
    """Run the server of this name on a free port of loopback."""
    servers: list[OddServer] = []
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def main() -> None:
        async with smtp_peer(**_fields(name)) as peer:
            servers.append(OddServer(peer, loop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    try:
        assert ready.wait(10)
        yield servers[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
