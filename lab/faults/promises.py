"""What each strategy promises under each fault: the table that `make faults` holds against what it measures.

`promise` says it for every strategy and every fault. The chapters say the same under "What it promises", in words.
"""

from dataclasses import dataclass, field
from enum import Enum

from common.mail.sender import WINDOW

ATTEMPTS = 5  # as the lab sets it: by default an email is tried for a day


class Bound(Enum):
    NONE = "0"
    UNDER_WAY = "≤ under way"
    """Only emails that were under way when the fault was done: asked for, and not yet sent and acknowledged."""
    IN_HANDS = f"≤ {WINDOW} a fault"
    """The same, and not more than a worker has in its hands."""
    REFUSED = "≤ refused"
    """Only emails that the mail server has refused."""


class GivenUp(Enum):
    """When an email may be given up, by its id: in a failed list, parked, or at least in a log."""

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
    """Of one email, beyond the first, for each fault that it was under way at."""
    refusals: frozenset[str] = frozenset()
    """Answers that callers may get that are no 2xx."""

    def text(self) -> str:
        given_up = f" or given up {self.given_up.value}" if self.given_up.value else ""
        return f"lost {self.lost.value}{given_up}; twice {self.twice.value}"


@dataclass(frozen=True)
class Subject:
    """What a fault is injected into: a strategy, in the way it is used."""

    number: int
    title: str
    roles: dict[str, str]
    """What the faults call a process, and under which name it speaks."""
    query: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    redis: bool = False

    @property
    def is_step(self) -> bool:
        return "STEP" in self.settings


SUBJECTS: dict[str, Subject] = {
    "1": Subject(1, "1 foreground", {"server": "server"}),
    "2": Subject(2, "2 parallel", {"server": "server"}),
    "3": Subject(3, "3 local messages", {"server": "web server", "worker": "email worker", "master": "master"}),
    "4": Subject(4, "4 remote messages", {"server": "server", "worker": "worker"}, redis=True),
    "4w": Subject(4, "4 with ?wait=5", {"server": "server", "worker": "worker"}, query="?wait=5", redis=True),
    "5": Subject(5, "5 remote queue", {"server": "server", "worker": "worker", "scheduler": "scheduler"}, redis=True),
    "6": Subject(6, "6 event bus", {"server": "server", "worker": "worker"}, redis=True),
    "6s": Subject(6, "6 on Streams", {"server": "server", "worker": "worker"}, settings={"LOG": "streams"}, redis=True),
    "6j": Subject(
        6,
        "6 on JetStream",
        {"server": "server", "worker": "worker", "nats": "nats"},
        settings={"LOG": "jetstream"},
    ),
}


def _step(number: int, step: str) -> Subject:
    roles = {"server": "server", "worker": "worker"}
    return Subject(number, f"{number} {step.replace('_', ' ')}", roles, settings={"STEP": step}, redis=True)


STEPS: dict[str, Subject] = {
    **{f"5-{step}": _step(5, step) for step in ("pop", "move", "lease")},
    **{f"6-{step}": _step(6, step) for step in ("cursor_first", "commit_after", "group")},
}
"""The small workers that lead to strategies 5 and 6."""

FAULTS: dict[str, str] = {
    "none": "nothing is done",
    "server-kill": "SIGKILL to the web server",
    "server-term": "SIGTERM to the web server",
    "server-stop": "SIGSTOP to the web server, then SIGCONT",
    "worker-kill": "SIGKILL to the worker",
    "worker-term": "SIGTERM to the worker",
    "worker-stop": "SIGSTOP to the worker for longer than a lease of 5 and 6, then SIGCONT",
    "worker-second": "a second worker beside the first for a while",
    "master-kill": "SIGKILL to the master",
    "scheduler-kill": "SIGKILL to the scheduler",
    "all-term": "SIGTERM to all, as by Ctrl-C, and a new start",
    "redis-kill": "SIGKILL to Redis",
    "redis-restart": "SIGTERM to Redis",
    "redis-stop": "SIGSTOP to Redis, then SIGCONT",
    "redis-full": "Redis is out of memory for a while",
    "redis-tail": "SIGKILL to Redis, and what it has written last is cut off",
    "redis-disk": "the disk of Redis is full for a while",
    "redis-clock": "the clock of Redis is put back by a minute to two hours",
    "nats-kill": "SIGKILL to NATS",
    "nats-restart": "SIGTERM to NATS",
    "nats-stop": "SIGSTOP to NATS, then SIGCONT",
    "smtp-kill": "SIGKILL to the mail server, which comes back",
    "smtp-term": "SIGTERM to the mail server, which comes back",
    "smtp-stop": "SIGSTOP to the mail server, then SIGCONT",
    "smtp-451": "the mail server says 451 to every other email",
    "smtp-550": "the mail server says 550 to every other email",
    "smtp-hang": "the mail server answers nothing any more",
    "smtp-lose-reply": "the mail server takes every other email and cuts the connection before its 250",
    "smtp-greylist": "the mail server greylists: 450 to the first attempts of each email",
    "smtp-session": "the mail server takes three emails in each session, then says 452",
    "smtp-slow": "the mail server says its 250 after 25 seconds",
    "job-exit": "jobs call sys.exit in a second worker",
}

NONE, UNDER_WAY, IN_HANDS = Bound.NONE, Bound.UNDER_WAY, Bound.IN_HANDS

LOSSES = {
    ("2", "server-kill"): IN_HANDS,
    **{("2", f"smtp-{how}"): UNDER_WAY for how in ("kill", "term", "stop", "hang")},
    ("2", "smtp-451"): Bound.REFUSED,
    ("2", "smtp-550"): Bound.REFUSED,
    ("2", "smtp-greylist"): Bound.REFUSED,
    ("3", "master-kill"): IN_HANDS,
    ("4", "worker-kill"): IN_HANDS,
    ("4", "redis-kill"): IN_HANDS,
    ("4", "redis-restart"): IN_HANDS,
}
"""All that may be lost; everywhere else nothing is."""

REPEATED = ("worker-stop", "smtp-kill", "smtp-term", "smtp-stop", "smtp-hang", "smtp-lose-reply")
"""After these it is not known whether an email was sent, and who keeps it sends it again."""
REFUSED = {"smtp-550": GivenUp.REFUSED, "smtp-451": GivenUp.REFUSED_OFTEN}
CRASHES = ("worker-kill", "worker-stop")
"""What these faults strike may be their cause: an email that kills its workers is not handed out for ever."""


LOST, TWICE = Promise(lost=IN_HANDS), Promise(twice=IN_HANDS)

STEP_PROMISES: dict[tuple[str, str], Promise] = {
    **{(step, fault): Promise() for step in STEPS for fault in ("none", "worker-term")},
    **{(step, "worker-kill"): TWICE for step in STEPS},
    ("5-pop", "worker-kill"): LOST,
    ("6-cursor_first", "worker-kill"): LOST,
    **{(step, "worker-stop"): TWICE for step in ("5-lease", "6-group")},
    **{(step, "worker-second"): Promise() for step in ("5-pop", "5-lease", "6-cursor_first", "6-group")},
    ("6-commit_after", "worker-second"): Promise(twice=UNDER_WAY, copies=ATTEMPTS),  # two workers read the same events
}
"""What the steps promise. Other faults are not done to them."""


def faults_of(subject: Subject) -> list[str]:
    """Those that can be done to it."""
    if subject.is_step:
        return [fault for fault in FAULTS if (f"{subject.number}-{subject.settings['STEP']}", fault) in STEP_PROMISES]
    there = {"none", "all", "smtp", *subject.roles, *(["redis"] if subject.redis else [])}
    if subject.number == 5:
        there.add("job")
    return [fault for fault in FAULTS if fault.partition("-")[0] in there and (fault, subject.number) not in POINTLESS]


POINTLESS = {*((f"redis-{what}", 4) for what in ("tail", "full", "disk", "clock")), ("worker-second", 3)}
"""Of a published message Redis keeps nothing, neither in its memory nor in its file, and no time;
and the master has one worker."""


def refusals(subject: str, fault: str) -> frozenset[str]:
    """What callers may be told that is no 2xx: HTTP statuses, and "none" where a connection breaks or is refused."""
    number, (who, _, how) = SUBJECTS[subject].number, fault.partition("-")
    in_doubt = {"504"} if subject == "4w" else set[str]()  # no report of the worker in time
    failed = {"502"} if subject == "4w" else set[str]()  # a report of failure
    match who, how:
        case "server", "stop":
            return frozenset(in_doubt)
        case "server" | "master" | "all", _:
            return frozenset(
                {"none", *in_doubt, *(["503", "504"] if number > 3 else ["504"] if number == 3 else [])}
            )  # the one who comes back is early
        case "worker", "kill" | "term" if number == 4:
            return frozenset({"503"} | in_doubt)  # nobody is listening
        case "worker", _:
            return frozenset(in_doubt | failed)
        case "redis", "clock":
            return frozenset()
        case "redis", "full":
            return frozenset({"503"})  # Redis answers, and says no
        case "redis" | "nats", _:
            return frozenset({"503", "504"})  # 504: its answer did not come, so the email may be sent
        case "smtp", "session":
            return frozenset()
        case "smtp", "slow":  # one that waits is in doubt; the others take emails until a limit is reached
            return frozenset({"1": {"503", "504"}, "4w": {"502", "504"}}.get(subject, {"503"}))
        case "smtp", "greylist" if number == 1:
            return frozenset({"503"})
        case "smtp", _ if number == 1:
            return frozenset({"451": {"503"}, "550": {"502"}, "lose-reply": {"504"}}.get(how, {"503", "504"}))
        case "smtp", _:
            return frozenset(in_doubt | failed)
        case _:
            return frozenset()


def promise(subject: str, fault: str) -> Promise:
    if subject in STEPS:
        return STEP_PROMISES[subject, fault]
    who, number = fault.partition("-")[0], SUBJECTS[subject].number
    lost, twice, given_up = LOSSES.get((subject, fault), NONE), NONE, GivenUp.NEVER
    keeps = number in (3, 5, 6) or subject == "4"  # and tries again
    if keeps and fault in REPEATED:
        twice = UNDER_WAY if fault == "smtp-lose-reply" else IN_HANDS
    if number in (3, 5, 6) and fault == "worker-kill":
        twice = IN_HANDS
    if number in (5, 6) and who in ("redis", "nats"):  # a claim or an acknowledgement that it has not taken, or forgets
        twice = IN_HANDS
    if number == 4 and fault == "worker-second":  # every subscriber sends its copy
        twice = UNDER_WAY
    if number in (5, 6) and fault in CRASHES:
        given_up = GivenUp.CRASHED
    elif keeps and fault in REFUSED:
        given_up = REFUSED[fault]
    copies = ATTEMPTS if fault == "smtp-lose-reply" else 1
    return Promise(lost, twice, given_up, copies, refusals(subject, fault))
