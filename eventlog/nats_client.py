"""A connection to NATS. Each request ends within a limit of time, and its error says whether the server may have
executed it.

nats-py can reconnect by itself. It then sends requests from its buffer whose callers have already got an error, and
silently loses a waiting pull request. So here a lost connection fails all its requests at once, and a new client
replaces the old one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Self

import orjson
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from asynckit.tasks import background, end_tasks, keep_running

from .errors import LogError, NotTaken
from .nats_connect import Misconfigured, QuietClient, connect_options, reason_of
from .outcomes import redis_log as log_once  # at most one line a second for all that needs the server

ANSWER_SECONDS = 2.0
AGAIN_SECONDS = 0.1  # between two attempts to connect
LOOK_SECONDS = 0.1  # between two checks whether the connection is lost
NO_STREAM, NO_CONSUMER, NO_MESSAGE = 10059, 10014, 10037  # err_code in an answer of JetStream
NO_JETSTREAM = (10039, 10076)  # not enabled for the account of the user; not enabled at all


class Refused(NotTaken):
    """JetStream has answered with an error. `code` is JetStream's number for it."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"NATS: {error.get('description', 'an error')}")
        self.code = error.get("err_code", 0)


class NotReady(NotTaken):
    """No node answers for this stream: it has no leader at the moment, or there is no JetStream."""


class Nats:
    """One connection, which is opened again after each loss. Raises LogError."""

    def __init__(self, url: str, prepare: Callable[["Nats"], Awaitable[None]] | None = None) -> None:
        """`url`: one or more of `nats://[user:password@ or token@]host[:4222]` or `tls://…`, separated by commas.

        `prepare` is called on each new connection, and repeated until it succeeds. Other requests do not wait for it,
        because in a cluster it may need a node that has just been killed.
        """
        self._options = connect_options(url)
        self._prepare = prepare
        self._client: Client | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._why = "NATS: not connected yet"

    async def __aenter__(self) -> Self:
        """Try to connect once, then retry in the background. Raises Misconfigured."""
        self._tried: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connecting = keep_running(self._keep_connected, "connecting to NATS")
        try:
            await asyncio.shield(self._tried)
        except LogError:
            await end_tasks([self._connecting])
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await end_tasks([self._connecting])

    async def _keep_connected(self) -> None:
        while True:
            lost = asyncio.Event()
            try:
                client = await self._connect(lost)
            except Misconfigured as error:
                if self._tried.done():
                    self._say(error)
                else:
                    self._tried.set_exception(error)
            except (LogError, errors.Error, OSError, TimeoutError) as error:
                self._say(error)
            else:
                try:
                    await self._use(client, lost)
                finally:
                    with suppress(errors.Error, OSError, RuntimeError):
                        await client.close()
            if not self._tried.done():
                self._tried.set_result(None)
            await asyncio.sleep(AGAIN_SECONDS)

    def _say(self, error: Exception) -> None:
        self._why = str(error) if isinstance(error, LogError) else f"NATS: cannot connect: {str(error) or 'no answer'}"
        log_once.warning("%s", self._why)

    async def _connect(self, lost: asyncio.Event) -> Client:
        """Raises Misconfigured, errors.Error, OSError, TimeoutError."""
        client, reasons = QuietClient(), []

        async def closed() -> None:
            lost.set()

        async def failed(error: Exception) -> None:
            reasons.append(error)
            if "permissions violation" in str(error).lower():
                log_once.warning("NATS: %s", str(error).removeprefix("nats: "))

        try:
            await client.connect(**self._options, error_cb=failed, closed_cb=closed)
        except (errors.Error, OSError, TimeoutError) as error:
            raise reason_of(reasons[-1] if isinstance(error, errors.NoServersError) and reasons else error) from None
        return client

    async def _use(self, client: Client, lost: asyncio.Event) -> None:
        """Return when the connection is lost. Requests that wait for an answer fail then."""
        self._client = client
        preparing = background(self._prepare_connection(), "preparing a connection to NATS")
        try:
            while client.is_connected:  # the callback may not be called: see QuietClient
                with suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), LOOK_SECONDS)
            self._say(LogError("NATS: the connection was lost"))
        finally:
            self._client = None
            await end_tasks([preparing])
            for task in self._tasks:
                task.cancel()

    async def _prepare_connection(self) -> None:
        while True:
            try:
                if self._prepare is not None:
                    await self._prepare(self)
                return
            except LogError as error:  # JetStream is not ready, or is not enabled
                self._say(error)
            finally:
                if not self._tried.done():
                    self._tried.set_result(None)
            await asyncio.sleep(AGAIN_SECONDS)

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        headers: dict[str, str] | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> Msg:
        """Send a request and wait for the answer. Raises NotTaken or LogError."""
        client = self.connected()
        answer: Msg = await self.until_lost(client.request(subject, payload, timeout=seconds, headers=headers))
        return answer

    async def check_jetstream(self) -> None:
        """Raises Misconfigured if the server has no JetStream, or none for this user.

        Raises NotTaken or LogError if it cannot find this out.
        """
        try:
            await self.api("INFO")
        except NotReady:
            raise Misconfigured("NATS: the server has no JetStream (nats-server -js)") from None
        except Refused as error:
            if error.code in NO_JETSTREAM:
                raise Misconfigured(str(error)) from None
            raise

    async def api(self, call: str, *, limit: float = ANSWER_SECONDS, **body: Any) -> dict[str, Any]:
        """One call of JetStream's API, answered within `limit` seconds. Raises Refused, NotTaken or LogError."""
        return checked((await self.request(f"$JS.API.{call}", orjson.dumps(body), seconds=limit)).data)

    async def publish(
        self,
        subject: str,
        payload: bytes,
        headers: dict[str, str] | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> int:
        """Store a message in the stream of this subject. Returns its number there. Raises Refused, NotTaken or
        LogError.
        """
        return int(checked((await self.request(subject, payload, headers, seconds)).data)["seq"])

    async def make_stream(self, name: str, **config: Any) -> None:
        """Create a stream if it does not exist; an existing one keeps the limits that its operator has set. `discard
        new`: a full stream refuses new events and never drops old ones.
        """
        try:
            await self.api(f"STREAM.INFO.{name}")
        except Refused as error:
            if error.code != NO_STREAM:
                raise
            await self.api(f"STREAM.CREATE.{name}", **{"name": name, "storage": "file", "discard": "new"} | config)

    async def send(self, subjects: Sequence[str], payload: bytes) -> None:
        """Publish without an answer; return when the server has read it."""
        client = self.connected()

        async def publish() -> None:
            for subject in subjects:
                await client.publish(subject, payload)
            await client.flush(int(ANSWER_SECONDS))

        await self.until_lost(publish())

    def connected(self) -> Client:
        """The client of the current connection. Raises NotTaken if there is none."""
        if self._client is None:
            raise NotTaken(self._why)
        return self._client

    async def until_lost(self, work: Awaitable[Any]) -> Any:
        """Returns the result of `work`. Raises LogError as soon as the connection is lost."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            raise LogError("NATS: the connection was lost") from None
        except errors.NoRespondersError:
            raise NotReady("NATS: JetStream is not ready") from None
        except errors.ConnectionClosedError:
            raise NotTaken("NATS: the connection was lost") from None
        except errors.MaxPayloadError:
            raise NotTaken("NATS: the message is too large") from None
        except TimeoutError:
            raise LogError("NATS does not answer in time") from None
        except (errors.Error, OSError, RuntimeError) as error:
            raise LogError(f"NATS: {error}") from None
        finally:
            self._tasks.discard(task)


def checked(answer: bytes) -> dict[str, Any]:
    """JetStream's answer. Raises Refused."""
    found: dict[str, Any] = orjson.loads(answer)
    if error := found.get("error"):
        raise Refused(error)
    return found
