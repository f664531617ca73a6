"""All subjects and faults of `make faults`, those with replicas included, and what is promised for each pair."""

from lab.faults import promises
from lab.faults.injections import INJECTIONS
from lab.faults.promises import FAULTS, STEPS, SUBJECTS, Promise, Subject
from lab.faults.topology_faults import TOPOLOGY_INJECTIONS
from lab.faults.topology_promises import REPLICATED, TOPOLOGY_FAULTS, topology_faults_of, topology_promise

EVERY_SUBJECT = SUBJECTS | STEPS | REPLICATED
EVERY_FAULT = FAULTS | TOPOLOGY_FAULTS
EVERY_INJECTION = INJECTIONS | TOPOLOGY_INJECTIONS


def faults_of(subject: Subject) -> list[str]:
    """The faults that apply to this subject."""
    return promises.faults_of(subject) if subject.topology == "single" else topology_faults_of(subject)


def promise(subject: str, fault: str) -> Promise:
    return topology_promise(subject, fault) if subject in REPLICATED else promises.promise(subject, fault)
