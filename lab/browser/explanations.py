"""Why an experiment ends as it does: two sentences for each fault and each subject, and where the chapter says more."""

from dataclasses import dataclass

from lab.faults.promises import STEPS, SUBJECTS

CHAPTERS = {
    1: "1_foreground",
    2: "2_parallel",
    3: "3_local_messages",
    4: "4_remote_messages",
    5: "5_remote_queue",
    6: "6_event_bus",
}
PROMISES = "what-it-promises"
STEP_ANCHORS = {
    "3-pass_on": "experiment-the-simpler-design",
    "5-pop": "step-1-pop",
    "5-move": "step-2-move",
    "5-lease": "step-3-lease",
    "6-cursor_first": "step-1-cursor_first",
    "6-commit_after": "step-2-commit_after",
    "6-group": "step-3-group",
    "6s": "todays-redis-the-same-on-streams",
    "6j": "the-same-on-jetstream",
    "6jc": "three-nodes",
    "5r": "what-it-promises-on-rabbitmq",
}

WAITS = "The caller waits for the mail server, so a failure reaches the caller as an error and not as a 2xx."
MASTER = "The master keeps every email until the worker reports that it was sent."
QUEUE = "Redis keeps a job until its worker has sent the email and acknowledged the job."
EVENTS = "The log keeps every event, and the consumer's position moves only after the email was sent."
MEMORY = "The worker keeps its emails in its own memory only."
ONE = "Only one process sends emails here, so there is no second worker to start."
IN_DOUBT = "If the mail server had accepted an email and the worker died before it noted that, the email arrives twice."
TWICE = "A worker without the 250 cannot know that the email was accepted, so it sends it again."
UNTOUCHED = "This strategy does not use Redis, so nothing happens to it."

TEXTS: dict[tuple[str, str], tuple[str, str]] = {
    # (text, anchor) by fault and subject
    ("worker-kill", "1"): (f"{WAITS} So no accepted email can be lost.", PROMISES),
    ("worker-kill", "2"): (
        "Each email in flight was a task in the memory of the web server, and the kill ended all of them. Their "
        "callers already had a 202.",
        "experiment-what-is-a-202-worth",
    ),
    ("worker-kill", "3"): (f"{MASTER} {IN_DOUBT}", PROMISES),
    ("worker-kill", "4"): (
        f"{MEMORY} Redis pub/sub stores nothing, so no copy is left when the worker is killed.",
        "experiment-what-is-lost-when-the-worker-is-killed",
    ),
    ("worker-kill", "5"): (f"{QUEUE} {IN_DOUBT}", "experiment-kill-the-worker-with-eight-emails-in-flight"),
    ("worker-kill", "6"): (f"{EVENTS} {IN_DOUBT}", "experiment-kill-the-worker-and-redis"),
    ("worker-kill", "3-pass_on"): (
        "The master passes each email on and keeps no copy. What the worker held when it was killed is lost.",
        STEP_ANCHORS["3-pass_on"],
    ),
    ("worker-kill", "5-pop"): (
        "The worker removes a job from the queue before it sends the email. A worker that is killed in between takes "
        "the job with it.",
        STEP_ANCHORS["5-pop"],
    ),
    ("worker-kill", "5-move"): (
        "The worker moves a job to a list of its own, so a killed worker leaves it in Redis. The next worker returns "
        "it to the queue, and an email that was already sent arrives twice.",
        STEP_ANCHORS["5-move"],
    ),
    ("worker-kill", "6-cursor_first"): (
        "The consumer moves its position before it sends the email. After the kill it continues behind the events that "
        "it had not finished, so these are lost.",
        STEP_ANCHORS["6-cursor_first"],
    ),
    ("smtp-hang", "1"): (f"{WAITS} Here it is a 504, which says that the email may or may not be sent.", PROMISES),
    ("smtp-hang", "2"): (
        "Each task waits until its time is over (2 seconds here) and tries only once. The callers already had a 202, "
        "so the emails are lost.",
        PROMISES,
    ),
    ("smtp-hang", "3"): (f"{MASTER} When the time of an attempt is over, the worker tries the email again.", PROMISES),
    ("smtp-hang", "4"): (f"{MEMORY} It is still alive, so it tries each email again until the 250 comes.", PROMISES),
    ("smtp-hang", "5"): (f"{QUEUE} A failed attempt puts the job back with a pause, so nothing is lost.", PROMISES),
    ("smtp-hang", "6"): (f"{EVENTS} While the mail server hangs, the events wait in the log.", PROMISES),
    ("worker-second", "1"): (f"{WAITS} {ONE}", PROMISES),
    ("worker-second", "2"): (f"The web server sends each email in a task of its own. {ONE}", PROMISES),
    ("worker-second", "3"): (f"The master starts exactly one worker. {ONE}", PROMISES),
    ("worker-second", "4"): (
        "Pub/sub gives every message to every subscriber, so each worker sends its own copy. You can only have one "
        "worker.",
        "experiment-two-workers",
    ),
    ("worker-second", "5"): ("A claim gives each job to one worker. Two workers share the work.", PROMISES),
    ("worker-second", "6"): (
        "Both workers are the same named consumer, and a claim gives each event to one of them. They share the work.",
        PROMISES,
    ),
    ("worker-second", "6-commit_after"): (
        "Both workers read the same position and send the same emails. Nothing tells one worker what the other has "
        "claimed.",
        STEP_ANCHORS["6-commit_after"],
    ),
    ("redis-kill", "1"): (f"{WAITS} {UNTOUCHED}", PROMISES),
    ("redis-kill", "2"): (f"The emails are in the memory of the web server. {UNTOUCHED}", PROMISES),
    ("redis-kill", "3"): (f"{MASTER} {UNTOUCHED}", PROMISES),
    ("redis-kill", "4"): (
        f"{MEMORY} It goes on sending what it has received, and only what was published and not yet read is lost.",
        PROMISES,
    ),
    ("redis-kill", "5"): (
        "Redis writes each job to its disk before the caller gets the 202, so all jobs are there after the restart. "
        "An email whose acknowledgement was lost can arrive twice.",
        PROMISES,
    ),
    ("redis-kill", "6"): (
        "Redis writes each event to its disk before the caller gets the 202, so the log is complete after the restart. "
        "An email whose commit was lost can arrive twice.",
        "experiment-kill-the-worker-and-redis",
    ),
    ("smtp-lose-reply", "1"): (
        "The email arrived, but the web server cannot know that and answers 504. It does not try again, so a copy "
        "comes only if the caller repeats the request.",
        PROMISES,
    ),
    ("smtp-lose-reply", "2"): (
        "The email arrived, and the task has logged a failure. Strategy 2 tries once, so there is no second copy.",
        PROMISES,
    ),
    ("smtp-lose-reply", "3"): (f"{TWICE} Both copies have the same Message-ID.", PROMISES),
    ("smtp-lose-reply", "4"): (f"{TWICE} Both copies have the same Message-ID.", PROMISES),
    ("smtp-lose-reply", "5"): (f"{TWICE} Both copies have the same Message-ID.", PROMISES),
    ("smtp-lose-reply", "6"): (f"{TWICE} Both copies have the same Message-ID.", PROMISES),
}

SERVERS = {
    "1": (f"{WAITS} So no accepted email can be lost.", PROMISES),
    "2": TEXTS["worker-kill", "2"],
    "3": (f"{MASTER} The web server held only the requests that were open.", PROMISES),
    "4": (f"{MEMORY} The web server had already published what it had accepted.", PROMISES),
    "5": (f"{QUEUE} The web server answers 202 only when the job is in Redis.", PROMISES),
    "6": (f"{EVENTS} The web server answers 202 only when the event is in the log.", PROMISES),
}
TERMINATED = (
    "After SIGTERM a process accepts nothing new and finishes what is in flight, within a limit. So nothing is lost "
    "and nothing arrives twice."
)
FROZEN = (
    "A frozen process looks dead to the others, but it is not. If another process takes over its work and it then "
    "wakes up, an email can arrive twice."
)
MASTER_KILLED = (
    "The queue of strategy 3 is in the memory of the master. The kill takes all emails that are waiting or in flight."
)
KEPT = "What was accepted is stored outside the process that ended. It goes on as soon as that process is back."


@dataclass(frozen=True)
class Explanation:
    text: str
    link: str
    """A path on the strategy's own web server."""


def explanation(fault: str, subject: str) -> Explanation:
    """Falls back from a step or an engine to its strategy, and from a fault to what all strategies have in common."""
    number = (SUBJECTS | STEPS)[subject].number
    text, anchor = TEXTS.get((fault, subject)) or TEXTS.get((fault, str(number))) or _general(fault, str(number))
    if subject != str(number) and (fault, subject) not in TEXTS:
        anchor = STEP_ANCHORS.get(subject, anchor)
    return Explanation(text, f"/source/{CHAPTERS[number]}/README.md#{anchor}")


def _general(fault: str, number: str) -> tuple[str, str]:
    role, _, how = fault.partition("-")
    match role, how:
        case "master", "kill":
            return MASTER_KILLED, PROMISES
        case "server", "kill":
            return SERVERS[number]
        case _, "term":
            return TERMINATED, PROMISES
        case _, "stop":
            return FROZEN, PROMISES
        case _:
            return KEPT, PROMISES
