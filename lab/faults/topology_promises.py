"""What strategies 4, 5 and 6 promise with Sentinel and on a Redis Cluster: `make faults TOPOLOGY=sentinel`.

With ACK_REPLICAS=1 a 2xx means that a replica has the email, so a failover loses none. Without it, a failover loses at
most what the new primary had not received: the lab computes these bytes from the offsets of both.
"""

from lab.faults.promises import ATTEMPTS, SUBJECTS, Bound, Promise, Subject

TITLES = {"sentinel": "with Sentinel", "cluster": "on a cluster"}
SETTINGS = {"sentinel": {}, "cluster": {"PARTITION_SECONDS": "2"}}  # so that the events of strategy 6 spread


def _subject(number: int, topology: str, ack: bool) -> Subject:
    settings = {"REDIS": topology, **SETTINGS[topology], **({"ACK_REPLICAS": "1"} if ack else {})}
    title = f"{number} {TITLES[topology]}{', ACK_REPLICAS=1' if ack else ''}"
    return Subject(number, title, SUBJECTS[str(number)].roles, settings=settings, redis=True)


REPLICATED: dict[str, Subject] = {
    f"{number}_{topology}{'_ack' if ack else ''}": _subject(number, topology, ack)
    for topology in TITLES
    for number, ack in ((4, False), (5, False), (5, True), (6, False), (6, True))
}

CUT_SECONDS = {f"net-{seconds}": float(seconds) for seconds in (1, 5, 15, 30)}

TOPOLOGY_FAULTS: dict[str, str] = {
    "none": "no fault",
    "primary-kill": "SIGKILL to a primary",
    "primary-cut": "the links of a primary to its replicas are cut for two seconds, then SIGKILL to it",
    "primary-freeze": "SIGSTOP to a primary, and SIGCONT when a replica has taken over",
    "primary-alone": "the replicas and sentinels cannot reach the primary, but our processes can; after the failover "
    "they all can",
    **{name: f"our processes cannot reach Redis for {seconds:g} s" for name, seconds in CUT_SECONDS.items()},
    "sentinel-one": "one of three sentinels is cut off, then SIGKILL to the primary",
    "sentinel-two": "two of three sentinels are cut off, then SIGKILL to the primary, which is started again",
    "slot-move": "a slot that is in use is moved to another primary",
}

FAILOVERS = ("primary-kill", "primary-cut", "primary-freeze", "primary-alone", "sentinel-one")
LONG = ("primary-freeze", "primary-alone", *CUT_SECONDS)
"""These may last longer than a lease. An email is sent again after each lease that could not be renewed."""
ONLY = {
    "sentinel": {*TOPOLOGY_FAULTS} - {"slot-move"},
    "cluster": {*TOPOLOGY_FAULTS} - {"primary-alone", "sentinel-one", "sentinel-two"},
}


def topology_faults_of(subject: Subject) -> list[str]:
    """The faults that apply. A message of strategy 4 is neither stored nor replicated, so it has fewer."""
    of_4 = {"none", "primary-kill", "net-1", "net-5", "slot-move"}
    possible = ONLY[subject.topology] & (of_4 if subject.number == 4 else set(TOPOLOGY_FAULTS))
    return [fault for fault in TOPOLOGY_FAULTS if fault in possible]


def topology_promise(name: str, fault: str) -> Promise:
    subject = REPLICATED[name]
    if fault == "none":
        return Promise()
    refusals = frozenset({"503", "504"})  # 504: the answer did not come, or too few replicas have the email
    if subject.number == 4:
        return Promise(lost=Bound.PER_FAULT, refusals=refusals)
    acknowledged = "ACK_REPLICAS" in subject.settings or fault not in FAILOVERS
    lost = Bound.NONE if acknowledged else Bound.NOT_REPLICATED
    copies = ATTEMPTS if fault in LONG else 1
    return Promise(lost=lost, twice=Bound.IN_FLIGHT, copies=copies, refusals=refusals)
