"""All faults by name. lab/faults/promises.py has the same names, with a description of each.

Each takes the strategy and a random generator, which decides when within its limits a fault ends.
"""

import signal

from lab.faults.engine_faults import LEFT_BYTES, fill_stream, kill_leader
from lab.faults.engine_faults import fill_disk as fill_disk_of
from lab.faults.fault import Fault
from lab.faults.mail_faults import GREYLIST_SECONDS, answer_late, end_mail_server, misbehave
from lab.faults.process_faults import end_all, exit_in_jobs, kill, kill_scheduler, nothing, second_worker, stop
from lab.faults.redis_faults import cut_tail, fill_disk, fill_memory, restore_backup, set_clock_back
from lab.faults.running import LEASE_SECONDS, SEND_SECONDS

INJECTIONS: dict[str, Fault] = {
    "none": nothing,
    "server-kill": kill("server", signal.SIGKILL),
    "server-term": kill("server", signal.SIGTERM),
    "server-stop": stop("server", 0.2, 1.5),
    "worker-kill": kill("worker", signal.SIGKILL),
    "worker-term": kill("worker", signal.SIGTERM),
    "worker-stop": stop("worker", LEASE_SECONDS + 0.5, LEASE_SECONDS + 1.5),
    "worker-second": second_worker,
    "master-kill": kill("master", signal.SIGKILL),
    "scheduler-kill": kill_scheduler,
    "all-term": end_all,
    "redis-kill": kill("redis", signal.SIGKILL),
    "redis-restart": kill("redis", signal.SIGTERM),
    "redis-stop": stop("redis", 0.5, LEASE_SECONDS + 1.0),
    "nats-kill": kill("nats", signal.SIGKILL),
    "nats-restart": kill("nats", signal.SIGTERM),
    "nats-stop": stop("nats", 0.5, LEASE_SECONDS + 1.0),
    "nats-full": fill_stream,
    "nats-disk": fill_disk_of("nats", 0),
    "node-kill": kill_leader,
    "node-disk": fill_disk_of("nats_cluster", 0),
    "redis-full": fill_memory,
    "redis-tail": cut_tail,
    "redis-disk": fill_disk,
    "redis-clock": set_clock_back,
    "redis-restored": restore_backup,
    "broker-kill": kill("broker", signal.SIGKILL),
    "broker-restart": kill("broker", signal.SIGTERM),
    "broker-stop": stop("broker", 0.5, LEASE_SECONDS + 1.0),
    "broker-disk": fill_disk_of("rabbitmq", LEFT_BYTES),
    "smtp-kill": end_mail_server(signal.SIGKILL),
    "smtp-term": end_mail_server(signal.SIGTERM),
    "smtp-stop": stop("smtp", 0.5, SEND_SECONDS + 1.0),
    "smtp-451": misbehave(refuse_rate=0.5, refuse_code=451),
    "smtp-550": misbehave(refuse_rate=0.5, refuse_code=550),
    "smtp-hang": misbehave(hang_rate=1.0),
    "smtp-lose-reply": misbehave(lose_reply_rate=0.5),
    "smtp-greylist": misbehave(GREYLIST_SECONDS + 0.5, GREYLIST_SECONDS + 1.5, greylist_seconds=GREYLIST_SECONDS),
    "smtp-session": misbehave(messages_per_session=3),
    "smtp-slow": answer_late,
    "job-exit": exit_in_jobs,
}
