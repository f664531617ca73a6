"""When the slots of a worker are worth a call of Redis."""

import asyncio
from typing import Any

import pytest

from resque.claims import Claim, Slot
from resque.slots import Slots


def slots(free: int, running: int) -> Slots:
    unused: Any = None
    found = Slots(unused, unused, lambda _: None, asyncio.Event())
    found.free = [Slot(number, "", "") for number in range(free)]
    found.running = {Slot(number, "", ""): unused for number in range(running)}
    return found


@pytest.mark.parametrize(("free", "enough"), [(1, False), (2, False), (3, True), (10, True)])
def test_a_fourth_of_the_slots_is_enough_for_a_claim(free: int, enough: bool) -> None:
    assert slots(free, 10 - free).are_enough_free() is enough


@pytest.mark.parametrize(("done", "enough"), [(1, False), (3, False), (4, True)])
def test_a_third_of_the_slots_is_enough_for_an_acknowledgement(done: int, enough: bool) -> None:
    assert slots(0, 10).are_enough_done(done) is enough


def test_a_job_beside_which_none_is_running_is_acknowledged_at_once() -> None:
    assert slots(9, 1).are_enough_done(1)
    assert not slots(8, 2).are_enough_done(1)


def test_a_job_that_is_cancelled_during_its_acknowledgement_frees_its_slot_once() -> None:
    """Its task ends, and then the answer to the acknowledgement comes."""
    found = slots(0, 1)
    [slot] = found.running
    claim = Claim(slot, "", "q", "", None, "", "", 0, 0, None)
    for _ in range(2):
        found.vacate(claim)
    assert (found.free, found.running) == ([slot], {})
