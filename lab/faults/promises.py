"""What each strategy promises under each fault. `make faults` compares its measurements with these promises.

`promise` returns the promise of one strategy under one fault. The chapters say the same in words, under "What it
promises".
"""

from dataclasses import dataclass, field
from enum import Enum

from common.mail.sender import WINDOW

ATTEMPTS = 5  # set by the lab: with the default an email is retried for a day


class Bound(Enum):
    NONE = "0"
    IN_FLIGHT = "≤ in flight"
    """Only emails that were in flight when the fault began: requested, and not yet sent and acknowledged."""
    PER_FAULT = f"≤ {WINDOW} a fault"
    """The same, and for each fault not more than a worker holds at a time."""
    NOT_REPLICATED = "≤ not replicated"
    """Only emails that were accepted during a failover, and only as many as fit into what no replica had received."""
    REFUSED = "≤ refused"
    """Only emails that the mail server has refused."""


class GivenUp(Enum):
    """When an email may be given up. Its id is then in a failed list, among the parked events, or in a log."""

    NEVER = ""
    REFUSED = "after a 550"
    REFUSED_OFTEN = f"after {ATTEMPTS} times 451"
    CRASHED = f"after {ATTEMPTS} faults"


@dataclass(frozen=True)
class Promise:
    lost: Bound = Bound.NONE
    twice: Bound = Bound.NONE
    given_up: GivenUp = GivenUp.NEVER
    copies: int = 1
    """How many copies of one email, beyond the first, each fault may cause."""
    refusals: frozenset[str] = frozenset()
    """Answers other than 2xx that callers may get."""
    back_seconds: float | None = None
    """An email that is requested after a fault is in the inbox within this time after the fault."""

    def text(self) -> str:
        given_up = f" or given up {self.given_up.value}" if self.given_up.value else ""
        back = f"; back within {self.back_seconds:g} s" if self.back_seconds else ""
        return f"lost {self.lost.value}{given_up}; twice {self.twice.value}{back}"


@dataclass(frozen=True)
class Subject:
    """What a fault is injected into: a strategy with its settings."""

    number: int
    title: str
    roles: dict[str, str]
    """The name of a process in the faults, and its name in the log."""
    query: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    redis: bool = False
    only: frozenset[str] = frozenset()
    """The faults that are injected, if not all that apply."""

    @property
    def is_step(self) -> bool:
        return "STEP" in self.settings

    @property
    def topology(self) -> str:
        """The topology of its Redis."""
        return self.settings.get("REDIS", "single")

    @property
    def on_rabbitmq(self) -> bool:
        return self.settings.get("QUEUE") == "rabbitmq"


ROLES = {"server": "server", "worker": "worker"}
ON_RABBITMQ, ON_JETSTREAM = {"QUEUE": "rabbitmq", "RABBITMQ_PORT": "0"}, {"LOG": "jetstream"}

SUBJECTS: dict[str, Subject] = {
    "1": Subject(1, "1 foreground", {"server": "server"}),
    "2": Subject(2, "2 parallel", {"server": "server"}),
    "3": Subject(3, "3 local messages", {"server": "web server", "worker": "email worker", "master": "master"}),
    "4": Subject(4, "4 remote messages", {"server": "server", "worker": "worker"}, redis=True),
    "4w": Subject(4, "4 with ?wait=5", {"server": "server", "worker": "worker"}, query="?wait=5", redis=True),
    "5": Subject(5, "5 remote queue", {"server": "server", "worker": "worker"}, redis=True),
    "5r": Subject(5, "5 on RabbitMQ", {**ROLES, "broker": "rabbitmq"}, settings=ON_RABBITMQ),
    "6": Subject(6, "6 event bus", {"server": "server", "worker": "worker"}, redis=True),
    "6s": Subject(6, "6 on Streams", {"server": "server", "worker": "worker"}, settings={"LOG": "streams"}, redis=True),
    "6j": Subject(6, "6 on JetStream", {**ROLES, "nats": "nats"}, settings=ON_JETSTREAM),
    "6jc": Subject(
        6,
        "6 on three nodes of JetStream",
        {**ROLES, "node": "node"},
        settings=ON_JETSTREAM | {"NATS": "cluster"},
        only=frozenset({"none", "worker-kill", "node-kill", "node-disk", "all-term"}),
    ),
}


def _step(number: int, step: str) -> Subject:
    roles = SUBJECTS["3"].roles if number == 3 else {"server": "server", "worker": "worker"}
    return Subject(number, f"{number} {step.replace('_', ' ')}", roles, settings={"STEP": step}, redis=number > 3)


STEPS: dict[str, Subject] = {
    "3-pass_on": _step(3, "pass_on"),
    **{f"5-{step}": _step(5, step) for step in ("pop", "move", "lease")},
    **{f"6-{step}": _step(6, step) for step in ("cursor_first", "commit_after", "group")},
}
"""The small programs that lead to strategies 3, 5 and 6."""

FAULTS: dict[str, str] = {
    "none": "no fault",
    "server-kill": "SIGKILL to the web server",
    "server-term": "SIGTERM to the web server",
    "server-stop": "SIGSTOP to the web server, then SIGCONT",
    "worker-kill": "SIGKILL to the worker",
    "worker-term": "SIGTERM to the worker",
    "worker-stop": "SIGSTOP to the worker for longer than a lease of 5 and 6, then SIGCONT",
    "worker-second": "a second worker runs for a while",
    "master-kill": "SIGKILL to the master",
    "scheduler-kill": "SIGKILL to the scheduler",
    "all-term": "SIGTERM to all processes, as Ctrl-C does, then a restart",
    "redis-kill": "SIGKILL to Redis",
    "redis-restart": "SIGTERM to Redis",
    "redis-stop": "SIGSTOP to Redis, then SIGCONT",
    "redis-full": "Redis is out of memory for a while",
    "redis-tail": "SIGKILL to Redis, and its last writes are cut off",
    "redis-disk": "the disk of Redis is full for a while",
    "redis-clock": "the clock of Redis is set back by a minute to two hours",
    "redis-restored": "the data of Redis is replaced by a backup that was made up to a few seconds before",
    "broker-kill": "SIGKILL to RabbitMQ",
    "broker-restart": "SIGTERM to RabbitMQ",
    "broker-stop": "SIGSTOP to RabbitMQ, then SIGCONT",
    "nats-kill": "SIGKILL to NATS",
    "nats-restart": "SIGTERM to NATS",
    "nats-stop": "SIGSTOP to NATS, then SIGCONT",
    "broker-disk": "the disk of RabbitMQ is nearly full for a while: less than its disk_free_limit is free",
    "nats-full": "the stream of NATS may not grow for a while: its max_bytes is reached",
    "nats-disk": "the disk of NATS is full for a while",
    "node-kill": "SIGKILL to the node of NATS that leads the stream",
    "node-disk": "the disk of all three nodes of NATS is full for a while",
    "smtp-kill": "SIGKILL to the mail server, then a restart",
    "smtp-term": "SIGTERM to the mail server, then a restart",
    "smtp-stop": "SIGSTOP to the mail server, then SIGCONT",
    "smtp-451": "the mail server answers 451 to every other email",
    "smtp-550": "the mail server answers 550 to every other email",
    "smtp-hang": "the mail server stops answering",
    "smtp-lose-reply": "the mail server accepts every other email and closes the connection before its 250",
    "smtp-greylist": "the mail server greylists: 450 to the first attempts of each email",
    "smtp-session": "the mail server accepts three emails in each session, then answers 452",
    "smtp-slow": "the mail server sends its 250 after 25 seconds",
    "job-exit": "jobs call sys.exit in a second worker",
}

NONE, IN_FLIGHT, PER_FAULT = Bound.NONE, Bound.IN_FLIGHT, Bound.PER_FAULT

LOSSES = {
    ("2", "server-kill"): PER_FAULT,
    **{("2", f"smtp-{how}"): IN_FLIGHT for how in ("kill", "term", "stop", "hang")},
    ("2", "smtp-451"): Bound.REFUSED,
    ("2", "smtp-550"): Bound.REFUSED,
    ("2", "smtp-greylist"): Bound.REFUSED,
    ("3", "master-kill"): PER_FAULT,
    ("4", "worker-kill"): PER_FAULT,
    ("4", "redis-kill"): PER_FAULT,
    ("4", "redis-restart"): PER_FAULT,
    **{(name, "redis-restored"): IN_FLIGHT for name in ("5", "6", "6s")},  # what was accepted after the backup
}
"""The only cells in which emails may be lost."""

REPEATED = ("worker-stop", "smtp-kill", "smtp-term", "smtp-stop", "smtp-hang", "smtp-lose-reply")
"""After these it is unknown whether an email was sent, and a strategy that still has it sends it again."""
REFUSED = {"smtp-550": GivenUp.REFUSED, "smtp-451": GivenUp.REFUSED_OFTEN}
FAILOVER_SECONDS = 10.0  # NATS nodes elect a leader after 4 to 9 seconds without a message from the old one
CRASHES = ("worker-kill", "worker-stop")
"""After ATTEMPTS of these a job is given up, because it may be a poison job."""


LOST, TWICE = Promise(lost=PER_FAULT), Promise(twice=PER_FAULT)

STEP_PROMISES: dict[tuple[str, str], Promise] = {
    **{(step, fault): Promise() for step in STEPS for fault in ("none", "worker-term")},
    **{(step, "worker-kill"): TWICE for step in STEPS},
    ("5-pop", "worker-kill"): LOST,
    ("6-cursor_first", "worker-kill"): LOST,
    **{(step, "worker-stop"): TWICE for step in ("5-lease", "6-group")},
    **{(step, "worker-second"): Promise() for step in ("5-pop", "5-lease", "6-cursor_first", "6-group")},
    ("6-commit_after", "worker-second"): Promise(twice=IN_FLIGHT, copies=ATTEMPTS),  # two workers read the same events
    ("3-pass_on", "worker-kill"): Promise(lost=IN_FLIGHT, refusals=frozenset({"503"})),
    ("3-pass_on", "worker-term"): Promise(lost=IN_FLIGHT, refusals=frozenset({"503"})),
    ("3-pass_on", "master-kill"): Promise(lost=IN_FLIGHT, refusals=frozenset({"none", "503", "504"})),
}
"""What the steps promise. They are not tested with other faults."""


def faults_of(subject: Subject) -> list[str]:
    """The faults that apply to this subject."""
    if subject.is_step:
        return [fault for fault in FAULTS if (f"{subject.number}-{subject.settings['STEP']}", fault) in STEP_PROMISES]
    targets = {"none", "all", "smtp", *subject.roles, *(["redis"] if subject.redis else [])}
    if subject.number == 5 and not subject.on_rabbitmq:
        targets |= {"job", "scheduler"}
    applicable = [fault for fault in FAULTS if fault.partition("-")[0] in targets]
    applicable = [fault for fault in applicable if (fault, subject.number) not in WITHOUT_EFFECT]
    return [fault for fault in applicable if not subject.only or fault in subject.only]


WITHOUT_EFFECT = {
    *((f"redis-{what}", 4) for what in ("tail", "full", "disk", "clock", "restored")),
    ("worker-second", 3),
}
"""Redis stores neither a published message nor its time, in memory or on disk; and the master of strategy 3 starts
exactly one worker."""


def refusals(subject: str, fault: str) -> frozenset[str]:
    """Answers other than 2xx that callers may get: HTTP statuses, or "none" if a connection breaks or is refused."""
    number, (target, _, how) = SUBJECTS[subject].number, fault.partition("-")
    in_doubt = {"504"} if subject == "4w" else set[str]()  # the worker's report did not come in time
    failed = {"502"} if subject == "4w" else set[str]()  # the worker reported a failure
    match target, how:
        case "server", "stop":
            return frozenset(in_doubt)
        case "server" | "master" | "all", _:
            early = ["503", "504"] if number > 3 else ["504"] if number == 3 else []  # restarted before its partners
            return frozenset({"none", *in_doubt, *early})
        case "worker", "kill" | "term" if number == 4:
            return frozenset({"503"} | in_doubt)  # the channel has no subscriber
        case "worker", _:
            return frozenset(in_doubt | failed)
        case "redis", "restored":
            return frozenset({"none", "503", "504"})  # all processes are stopped and started
        case "redis", "clock":
            return frozenset()
        case "redis" | "nats", "full":
            return frozenset({"503"})  # Redis answers with an error
        case "redis" | "nats" | "node", _:
            return frozenset({"503", "504"})  # 504: its answer did not come, so the email may be sent
        case "broker", _:
            return frozenset({"503", "504"})
        case "smtp", "session":
            return frozenset()
        case "smtp", "slow":  # 1 and 4w wait for the 250; the others accept emails until a limit is reached
            return frozenset({"1": {"503", "504"}, "4w": {"502", "504"}}.get(subject, {"503"}))
        case "smtp", "greylist" if number == 1:
            return frozenset({"503"})
        case "smtp", _ if number == 1:
            return frozenset({"451": {"503"}, "550": {"502"}, "lose-reply": {"504"}}.get(how, {"503", "504"}))
        case "smtp", _:
            return frozenset(in_doubt | failed)
        case _:
            return frozenset()


def copies_bound(subject: str, fault: str) -> Bound:
    """Which emails may arrive twice."""
    number = SUBJECTS[subject].number
    if number == 4 and fault == "worker-second":  # every subscriber sends its copy
        return IN_FLIGHT
    if fault == "redis-restored":  # what was sent after the backup
        return IN_FLIGHT
    if number in (5, 6) and fault.startswith(
        ("redis-", "broker-", "nats-", "node-")
    ):  # a claim or an acknowledgement failed, or was lost
        return PER_FAULT
    if number in (3, 5, 6) and fault == "worker-kill":
        return PER_FAULT
    if retries(subject) and fault in REPEATED:
        return IN_FLIGHT if fault == "smtp-lose-reply" else PER_FAULT
    return NONE


def given_up_bound(subject: str, fault: str) -> GivenUp:
    if SUBJECTS[subject].number in (5, 6) and fault in CRASHES and subject != "5r":  # whose limit is 20 deaths
        return GivenUp.CRASHED
    return REFUSED.get(fault, GivenUp.NEVER) if retries(subject) else GivenUp.NEVER


def retries(subject: str) -> bool:
    """Whether the strategy keeps an email and sends it again after a failure."""
    return subject == "4" or SUBJECTS[subject].number in (3, 5, 6)


def promise(subject: str, fault: str) -> Promise:
    if subject in STEPS:
        return STEP_PROMISES[subject, fault]
    lost = LOSSES.get((subject, fault), NONE)
    copies = ATTEMPTS if fault == "smtp-lose-reply" else 1
    twice, given_up = copies_bound(subject, fault), given_up_bound(subject, fault)
    back_seconds = FAILOVER_SECONDS if fault == "node-kill" else None
    return Promise(lost, twice, given_up, copies, refusals(subject, fault), back_seconds)
