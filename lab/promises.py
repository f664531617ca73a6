"""What each strategy promises when it is hit: the table that `make faults` holds against what it measures.

`promise` says it for every strategy and every fault. The chapters say the same under "What it promises", in words.
"""

from dataclasses import dataclass, field
from enum import Enum

from common.sender import WINDOW
from common.settings import Settings


class Bound(Enum):
    NONE = "0"
    UNDER_WAY = "≤ under way"
    """Only emails that were under way when the fault was done: asked for, and not yet sent and acknowledged."""
    IN_HANDS = f"≤ {WINDOW} a fault"
    """The same, and not more than a worker has in its hands."""


@dataclass(frozen=True)
class Promise:
    lost: Bound = Bound.NONE
    twice: Bound = Bound.NONE
    given_up: int | None = None
    """After how many faults an email may be given up, by its id: in a failed list, parked, or at least in a log. None:
    never.
    """

    def text(self) -> str:
        given_up = "" if self.given_up is None else f" or given up{self._after()}"
        return f"lost {self.lost.value}{given_up}; twice {self.twice.value}"

    def given_up_text(self) -> str:
        return "none" if self.given_up is None else f"only{self._after() or ' under a fault'}"

    def _after(self) -> str:
        return f" after {self.given_up} faults" if self.given_up != 1 else ""


@dataclass(frozen=True)
class Subject:
    """What is hit: a strategy, in the way it is used."""

    number: int
    title: str
    roles: dict[str, str]
    """What the faults call a process, and under which name it speaks."""
    query: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    redis: bool = False


SUBJECTS: dict[str, Subject] = {
    "1": Subject(1, "1 foreground", {"server": "server"}),
    "2": Subject(2, "2 parallel", {"server": "server"}),
    "3": Subject(3, "3 local messages", {"server": "web server", "worker": "email worker", "master": "master"}),
    "4": Subject(4, "4 remote messages", {"server": "server", "worker": "worker"}, redis=True),
    "4w": Subject(4, "4 with ?wait=5", {"server": "server", "worker": "worker"}, query="?wait=5", redis=True),
    "5": Subject(5, "5 remote queue", {"server": "server", "worker": "worker", "scheduler": "scheduler"}, redis=True),
    "6": Subject(6, "6 event bus", {"server": "server", "worker": "worker"}, redis=True),
    "6s": Subject(6, "6 on Streams", {"server": "server", "worker": "worker"}, settings={"LOG": "streams"}, redis=True),
}

FAULTS: dict[str, str] = {
    "none": "nothing is done",
    "server-kill": "SIGKILL to the web server",
    "server-term": "SIGTERM to the web server",
    "server-stop": "SIGSTOP to the web server, then SIGCONT",
    "worker-kill": "SIGKILL to the worker",
    "worker-term": "SIGTERM to the worker",
    "worker-stop": "SIGSTOP to the worker for longer than its lease, then SIGCONT",
    "worker-second": "a second worker beside the first for a while",
    "master-kill": "SIGKILL to the master",
    "scheduler-kill": "SIGKILL to the scheduler",
    "all-term": "SIGTERM to all, as by Ctrl-C, and a new start",
    "redis-kill": "SIGKILL to Redis",
    "redis-restart": "SIGTERM to Redis",
    "redis-stop": "SIGSTOP to Redis, then SIGCONT",
    "redis-full": "Redis is out of memory for a while",
    "redis-tail": "SIGKILL to Redis, and what it has written last is cut off",
    "smtp-kill": "SIGKILL to the mail server, which comes back",
    "smtp-term": "SIGTERM to the mail server, which comes back",
    "smtp-stop": "SIGSTOP to the mail server, then SIGCONT",
    "smtp-451": "the mail server says 451 to every other email",
    "smtp-550": "the mail server says 550 to every other email",
    "smtp-hang": "the mail server answers nothing any more",
    "smtp-lose-reply": "the mail server takes every other email and cuts the connection before its 250",
}

ATTEMPTS = int(Settings.model_fields["attempts"].default)

NONE, UNDER_WAY, IN_HANDS = Bound.NONE, Bound.UNDER_WAY, Bound.IN_HANDS
LOSSES = {("3", "master-kill"), ("4", "worker-kill"), ("4", "redis-kill"), ("4", "redis-restart")}
REPEATED = ("worker-kill", "worker-stop", "smtp-kill", "smtp-term", "smtp-stop", "smtp-hang", "smtp-lose-reply")
"""After these it is not known whether an email was sent, and who keeps it sends it again."""
REFUSED = ("smtp-550", "smtp-451", "smtp-lose-reply")
"""These cost an email an attempt each time; one whose mail server is only away loses none."""


def faults_of(subject: Subject) -> list[str]:
    """Those that can be done to it."""
    there = {"none", "all", "smtp", *subject.roles, *(["redis"] if subject.redis else [])}
    return [fault for fault in FAULTS if fault.partition("-")[0] in there and (fault, subject.number) not in POINTLESS]


POINTLESS = {("redis-tail", 4), ("worker-second", 3)}
"""Nothing of a published message is ever in Redis's file; and the master has one worker."""


def promise(subject: str, fault: str) -> Promise:
    who = fault.partition("-")[0]
    if fault == "worker-second" and SUBJECTS[subject].number == 4:  # every subscriber sends its copy
        return Promise(twice=UNDER_WAY)
    if subject in ("1", "4w"):  # a 2xx says that the mail server has taken it
        return Promise()
    if subject == "2":
        return Promise(lost=UNDER_WAY if fault == "server-kill" or who == "smtp" else NONE)
    lost, twice, given_up = NONE, NONE, None
    if (subject, fault) in LOSSES:
        lost = UNDER_WAY
    if fault in REPEATED:
        twice = IN_HANDS if who == "worker" else UNDER_WAY
    if fault in REFUSED:
        given_up = 1
    if subject in ("5", "6", "6s"):
        if who == "redis":  # what it forgets of what was done, is done again
            twice = UNDER_WAY
        if fault in ("worker-kill", "worker-stop"):  # the email may be what kills them
            given_up = ATTEMPTS
    return Promise(lost, twice, given_up)
