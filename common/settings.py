"""The settings of all strategies, read once at the start from the environment and from `.env`.

The environment wins over `.env`; an empty value counts as unset. A bad value ends the program with one line on stderr
and exit status 2. That line never repeats the value, because a URL may contain a password.
"""

import sys
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import AfterValidator, Field, PositiveInt, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from asynckit.backoff import scheduled_pause
from common.address import cannot_listen, free_port
from common.mail.emails import Address, BadEmail, read_address
from common.smtp_url import SmtpServer, read_smtp_url
from common.url_checks import (
    check_amqp_url,
    check_database_url,
    check_host,
    check_nats_url,
    check_password,
    check_redis_url,
    check_smtp_url,
)

MAX_PAUSE = 86_400.0  # seconds
USAGE_ERROR = 2  # the exit status for a bad setting or a port in use
SENTINEL_SERVICE = "sixways"  # what the embedded sentinels call their primary
NATS_PORT = 4322  # the embedded NATS's port if NATS_PORT is not set and the port is free
VALKEY_PORT = 6390  # the embedded Valkey's port if VALKEY_PORT is not set and the port is free
PORTS = (
    "port", "inbox_port", "inbox_smtp_port", "valkey_port", "rabbitmq_port", "nats_port",
    "sentinel_1_port", "sentinel_2_port", "sentinel_3_port", "postgres_port",
    "cluster_1_port", "cluster_2_port", "cluster_3_port",
    "nats_1_port", "nats_2_port", "nats_3_port",
)  # fmt: skip
"""In the order in which PORT_BASE numbers them."""
RABBITMQ_PORT = 5690  # the same for the embedded RabbitMQ
POSTGRES_PORT = 5490  # the same for the embedded Postgres
POSTGRES_USER = "postgres"


def _check_sender(text: str) -> str:
    try:
        read_address(text)
    except BadEmail as error:
        raise ValueError(error.reason) from None
    return text


def read_pauses(text: str) -> tuple[float, ...]:
    """Read pauses in seconds, separated by spaces or commas: "1 5 30". Raises ValueError."""
    try:
        pauses = tuple(float(word) for word in text.replace(",", " ").split())
    except ValueError:
        pauses = ()
    if not pauses or not all(0 < pause <= MAX_PAUSE for pause in pauses):
        raise ValueError("expected pauses in seconds, such as 1 5 30 300, each above 0 and at most a day")
    return pauses


def _check_pauses(text: str) -> str:
    read_pauses(text)
    return text


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """Every setting of the project; `.env.example` lists them with their meaning."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    host: Annotated[str, AfterValidator(check_host)] = "127.0.0.1"
    port_base: Annotated[int, Field(ge=1024, le=65500)] | None = None  # moves all ports that are not set themselves
    port: Port = 8080
    page_password: Annotated[SecretStr, AfterValidator(check_password)] | None = None  # for changes on the pages
    smtp_url: Annotated[SecretStr, AfterValidator(check_smtp_url)] | None = None
    smtp_sessions: PositiveInt = 20
    smtp_connect_seconds: Seconds = 5.0
    smtp_send_seconds: Seconds = 20.0  # strategy 1: for a whole send, because its caller waits
    smtp_greeting_seconds: Seconds = 300.0  # 2 to 6: for each answer of the server, as RFC 5321, 4.5.3.2, says
    smtp_command_seconds: Seconds = 300.0
    smtp_data_seconds: Seconds = 120.0
    smtp_answer_seconds: Seconds = 600.0
    email_from: Annotated[str, AfterValidator(_check_sender)] = "workshop@example.com"
    redis_url: Annotated[SecretStr, AfterValidator(check_redis_url)] | None = None
    topology: Annotated[  # of the embedded Redis
        Literal["single", "sentinel", "cluster"], Field(validation_alias="REDIS")
    ] = "single"
    redis_server: Path | None = None  # the program for the servers of REDIS=sentinel and cluster; unset: Valkey
    sentinel_1_port: Port | None = None  # of the embedded sentinels, set by `make run-N REDIS=sentinel`
    sentinel_2_port: Port | None = None
    sentinel_3_port: Port | None = None
    cluster_1_port: Port | None = None  # of three nodes of the embedded cluster, set by `make run-N REDIS=cluster`
    cluster_2_port: Port | None = None
    cluster_3_port: Port | None = None
    ack_replicas: Annotated[int, Field(ge=0, le=10)] = 0  # strategies 5 and 6: replicas that a 2xx waits for
    nats_url: Annotated[SecretStr, AfterValidator(check_nats_url)] | None = None  # strategy 6 with LOG=jetstream
    nats_topology: Annotated[  # of the embedded NATS
        Literal["single", "cluster"], Field(validation_alias="NATS")
    ] = "single"
    nats_1_port: Port | None = None  # of the embedded cluster, set by `make run-6 LOG=jetstream NATS=cluster`
    nats_2_port: Port | None = None
    nats_3_port: Port | None = None
    nats_replicas: Annotated[int, Field(ge=1, le=5)] | None = None  # how many nodes of a cluster keep each event
    emails_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    attempts: PositiveInt = 31  # with the pauses below they last about a day
    retry_pauses_seconds: Annotated[str, AfterValidator(_check_pauses)] = "1 5 30 120 300 900 1800 3600"
    email_class: Literal["sendEmail", "SendEmail"] = "sendEmail"  # strategy 5: Ruby workers run only the second
    drain_seconds: Seconds = 10.0
    lease_seconds: Seconds = 10.0
    inbox_smtp_port: Port = 1025
    inbox_port: Port = 8025
    valkey_port: Port | None = None  # unset: VALKEY_PORT or the next free one
    queue: Literal["resque", "rabbitmq"] = "resque"  # strategy 5: on which engine
    amqp_url: Annotated[SecretStr, AfterValidator(check_amqp_url)] | None = None
    rabbitmq_port: Port | None = None  # unset: RABBITMQ_PORT or the next free one
    nats_port: Port | None = None  # unset: NATS_PORT or the next free one
    database_url: Annotated[SecretStr, AfterValidator(check_database_url)] | None = None  # examples/pictures
    postgres_port: Port | None = None  # unset: POSTGRES_PORT or the next free one
    data_dir: Path = Path(".data")
    role: str | None = None  # `make run-5 ROLE=worker`: only this role
    step: str | None = None  # `make run-5 STEP=pop`: one of the chapter's steps in place of the full worker
    demo: bool = False  # `make run-5 DEMO=1`: the strategy's demonstration in place of its roles
    servers: PositiveInt = 1  # `make run-5 SERVERS=2`: the number of web server processes, on one port
    siblings: Path | None = None  # where they find each other (common/http/siblings.py), set by `make run-N SERVERS=2`
    workers: PositiveInt = 1  # `make run-5 WORKERS=3`: the number of worker processes
    log: Literal["lua", "streams", "jetstream"] = "lua"  # strategy 6: the implementation of the log
    partition_seconds: Seconds = 60.0  # strategy 6: how long a partition of the log takes events
    # Strategy 6 deletes events that every consumer has processed when they are older than this,
    retention_seconds: Seconds = 86_400.0
    retention_bytes: PositiveInt = 1_000_000_000  # and the oldest ones while the log is larger than this

    @model_validator(mode="before")
    @classmethod
    def _move_ports(cls, given: dict[str, Any]) -> dict[str, Any]:
        """With PORT_BASE, each port that is not set itself is PORT_BASE plus its place in PORTS."""
        base = str(given.get("port_base") or "")
        if not base.isdecimal():
            return given
        return {name: int(base) + place for place, name in enumerate(PORTS)} | given

    @cached_property
    def smtp(self) -> SmtpServer:
        """The mail server that SMTP_URL names, or else the embedded inbox."""
        if self.smtp_url is None:
            return SmtpServer("127.0.0.1", self.inbox_smtp_port)
        return read_smtp_url(self.smtp_url.get_secret_value())

    def retry_pause(self, attempt: int) -> float:
        """How long an email waits after failed attempt number `attempt`, in seconds."""
        return scheduled_pause(read_pauses(self.retry_pauses_seconds), attempt)

    @property
    def redis(self) -> str:
        """REDIS_URL, or else the URL of the embedded Valkey. Never log it, because it may contain a password."""
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        if self.topology == "sentinel":
            ports = (self.sentinel_1_port, self.sentinel_2_port, self.sentinel_3_port)
            hosts = ",".join(f"127.0.0.1:{port}" for port in ports if port is not None)
            return f"redis+sentinel://{hosts}/{SENTINEL_SERVICE}/0"
        if self.topology == "cluster":
            ports = (self.cluster_1_port, self.cluster_2_port, self.cluster_3_port)
            return f"redis+cluster://{','.join(f'127.0.0.1:{port}' for port in ports if port is not None)}"
        return f"redis://127.0.0.1:{self.valkey_port or VALKEY_PORT}/0"

    @property
    def on_cluster(self) -> bool:
        from asynckit.cluster import read_cluster_url  # here: see check_redis_url

        return read_cluster_url(self.redis) is not None if self.redis_url else self.topology == "cluster"

    @property
    def own_redis(self) -> str | None:
        """REDIS_URL if it is set and used. Never log it."""
        return None if self.redis_url is None or self.queue == "rabbitmq" or self.log == "jetstream" else self.redis

    @property
    def amqp(self) -> str:
        """The URL of RabbitMQ: AMQP_URL, else the embedded one. It may hold a password: never log it."""
        if self.amqp_url is not None:
            return self.amqp_url.get_secret_value()
        return f"amqp://guest:guest@127.0.0.1:{self.rabbitmq_port or RABBITMQ_PORT}/"

    @property
    def nats(self) -> str:
        """NATS_URL, or else the URL of the embedded NATS. Never log it, because it may contain a password."""
        if self.nats_url is not None:
            return self.nats_url.get_secret_value()
        if self.nats_topology == "cluster":
            ports = (self.nats_1_port, self.nats_2_port, self.nats_3_port)
            return ",".join(f"nats://127.0.0.1:{port}" for port in ports if port is not None)
        return f"nats://127.0.0.1:{self.nats_port or NATS_PORT}"

    @property
    def event_replicas(self) -> int:
        """How many nodes of NATS keep each event: NATS_REPLICAS, or else all three of the embedded cluster."""
        embedded_cluster = self.nats_topology == "cluster" and self.nats_url is None
        return self.nats_replicas or (3 if embedded_cluster else 1)

    @property
    def database(self) -> str:
        """DATABASE_URL, or else the URL of the embedded Postgres. Never log it, because it contains a password."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        password = (self.data_dir / "postgres" / "password").read_text()
        port = self.postgres_port or POSTGRES_PORT
        return f"postgresql://{POSTGRES_USER}:{password}@127.0.0.1:{port}/postgres"

    @cached_property
    def sender(self) -> Address:
        return read_address(self.email_from)

    @cached_property
    def id_domain(self) -> str:
        """The part after the @ in the Message-IDs that we create: the sender's domain."""
        return self.sender.wire.rpartition("@")[2]

    @property
    def inbox_page(self) -> str | None:
        """The URL of the embedded inbox's page; None if SMTP_URL names another mail server."""
        return f"http://127.0.0.1:{self.inbox_port}/" if self.smtp_url is None else None


S = TypeVar("S", bound=Settings)


def setting_names() -> dict[str, str]:
    """The environment variable of each field."""
    fields = Settings.model_fields.items()
    return {name: str(field.validation_alias or name).upper() for name, field in fields}


def read_settings() -> Settings:
    """Read the settings, or end the program with one line per bad value and exit status 2."""
    return read_settings_of(Settings)


def read_settings_of(kind: type[S]) -> S:
    """The same, for a program with settings of its own besides."""
    try:
        return kind()
    except ValidationError as error:
        reasons = [f"{'.'.join(map(str, e['loc'][:1])).upper()}: {_plain(e['msg'])}" for e in error.errors()]
        exit_with_usage_error("\n".join(reasons))
    except (SettingsError, UnicodeDecodeError) as error:
        exit_with_usage_error(f".env: {error}")


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ").lower().removeprefix("input ")


def exit_with_usage_error(line: str) -> NoReturn:
    print(line, file=sys.stderr, flush=True)
    sys.exit(USAGE_ERROR)


def checked_port(settings: Settings) -> int:
    """Check early that the server's port is free. If it is not, prints one line and exits with status 2."""
    try:
        return free_port(settings.host, settings.port)
    except OSError as error:
        exit_with_usage_error(cannot_listen(settings.host, settings.port, error))
