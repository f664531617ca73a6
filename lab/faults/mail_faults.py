"""Faults of the mail server: it is killed, refuses, hangs, answers late, or loses its replies."""

import random
import signal
import time
from time import perf_counter_ns

from lab.faults.fault import Fault, NoEffect
from lab.faults.running import Running
from lab.harness.account import Injection

GREYLIST_SECONDS = 1
SLOW_SECONDS = 25.0


def end_mail_server(number: signal.Signals) -> Fault:
    """End it by this signal, and start it again on the same ports after 0.2 to 1 second."""

    def fault(running: Running, rng: random.Random) -> Injection:
        begin = perf_counter_ns()
        running.box.end(number)
        time.sleep(rng.uniform(0.2, 1.0))
        running.box.start()
        return Injection(begin, perf_counter_ns())

    return fault


def misbehave(minimum: float = 0.5, maximum: float = 1.5, /, **dial: float) -> Fault:
    """Turn the mail server's fault dial for a time between `minimum` and `maximum` seconds."""

    def fault(running: Running, rng: random.Random) -> Injection:
        begin, before = perf_counter_ns(), len(running.box.mail_faults())
        running.box.dial(**dial)
        try:
            time.sleep(rng.uniform(minimum, maximum))
        finally:
            running.box.dial()
        if len(running.box.mail_faults()) == before:
            raise NoEffect("the mail server got no email while it misbehaved")
        return Injection(begin, perf_counter_ns())

    return fault


def answer_late(running: Running, rng: random.Random) -> Injection:
    """The mail server stores each email at once and sends its 250 SLOW_SECONDS later."""
    begin, before = perf_counter_ns(), len(running.box.arrivals())
    running.box.dial(latency_ms=round(SLOW_SECONDS * 1000))
    try:
        time.sleep(rng.uniform(0.5, 1.5))
    finally:
        running.box.dial()
    if len(running.box.arrivals()) == before:
        raise NoEffect("the mail server got no email while it answered late")
    return Injection(begin, perf_counter_ns())
