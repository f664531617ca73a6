"""Every key in Redis: its name, its type, what is in it. `resque:` before each is the namespace.

What Resque, resque-scheduler and node-resque know too. RAW is a job's exact JSON, ID a worker's `host:pid+slot:queues`,
NAME the same without its queues, TS unix seconds:

    queues                   set     the names of all queues
    queue:QUEUE              list    RAW jobs, the oldest at the head
    failed                   list    what was given up, and why, the oldest at the head (wire.py: failure)
    failed_queues            set     names of lists QUEUE_failed, in which Ruby's RedisMultiQueue keeps failures
    workers                  set     the IDs of the workers that are there
    worker:ID                string  the job that this worker works on; while it is here, it is nowhere else
    worker:ID:started        string  since when the worker is there
    workers:heartbeat        hash    ID -> last sign of life, as Ruby writes it
    worker:ping:NAME         string  last sign of life, as Node writes it
    stat:processed, …:ID     string  how many jobs have ended, well or not; in all, and of each worker
    stat:failed, …:ID        string  how many of them not well
    delayed_queue_schedule   zset    TS -> TS: the seconds for which something is planned
    delayed:TS               list    RAW jobs that are due at that second
    timestamps:RAW           set     the `delayed:TS` in which this job waits
    persistent_schedules     hash    name -> cron schedule, as resque-scheduler writes it (schedules.py)
    schedules_changed        set     names of schedules that a resque-scheduler should look at again
    pause-all-workers        string  "true": nobody takes a job
    delayed:last_enqueued_at hash    name of a schedule -> when it was enqueued last, as Ruby writes it
    resque_scheduler_leader_lock           string  who promotes delayed jobs, as Node asks
    resque:resque_scheduler_master_lock    string  the same as Ruby asks (namespace twice, yes); we only read it

Ours alone; no foreign program looks at keys that begin with `py:`:

    py:leases                zset    ID -> until when this worker counts as alive (ms, by Redis's clock)
    py:reaping               hash    looked -> when somebody last looked for dead workers; from -> when the next may be
                                     found, since Redis was away (ms)
    py:attempts              hash    job -> how often it has failed
    py:crashes               hash    job -> how often its worker has died while it ran
    py:seen, py:seen:before  set     digests of the ids enqueued lately; they go away by themselves
    py:unreadable            list    what was in a queue and is no job, on its way to `failed`
    py:paused:QUEUE          string  why nobody takes jobs from this queue; goes away by itself, or not
    py:throttle:QUEUE        string  when the next job may be taken (ms); goes away by itself
    py:unique:DIGEST         string  the id of the one job of its kind that may wait or run; goes away by itself
    py:chart:N               hash    what ended in the ten seconds number N, and how long it had waited; for two hours
    py:totals                hash    since ever: succeeded, failed, retried, crashed, late
    py:written               string  how many batches of jobs have waited for replicas
    py:cron                  hash    name of a schedule -> the last due second for which it was enqueued, and a digest
                                     of when it is due
"""

CHART_SECONDS = 10
CHART_KEPT_SECONDS = 7200


class Keys:
    """The names of the keys. They belong together: on a Redis Cluster make the namespace a hash tag, {resque}."""

    def __init__(self, namespace: str = "resque") -> None:
        self.namespace = namespace
        self.queues = self.key("queues")
        self.failed = self.key("failed")
        self.failed_queues = self.key("failed_queues")
        self.workers = self.key("workers")
        self.heartbeats = self.key("workers:heartbeat")
        self.schedule = self.key("delayed_queue_schedule")
        self.cron_schedules = self.key("persistent_schedules")
        self.schedules_changed = self.key("schedules_changed")
        self.pause_all = self.key("pause-all-workers")
        self.last_enqueued = self.key("delayed:last_enqueued_at")
        self.node_lock = self.key("resque_scheduler_leader_lock")
        self.ruby_lock = self.key(namespace, "resque_scheduler_master_lock")
        self.leases = self.key("py:leases")
        self.reaping = self.key("py:reaping")
        self.attempts = self.key("py:attempts")
        self.crashes = self.key("py:crashes")
        self.seen = self.key("py:seen")
        self.seen_before = self.key("py:seen:before")
        self.unreadable = self.key("py:unreadable")
        self.totals = self.key("py:totals")
        self.written = self.key("py:written")
        self.cron = self.key("py:cron")

    def key(self, *parts: str) -> str:
        return ":".join((self.namespace, *parts))

    def queue(self, queue: str) -> str:
        return self.key("queue", queue)

    def worker(self, worker_id: str) -> str:
        return self.key("worker", worker_id)

    def started(self, worker_id: str) -> str:
        return self.key("worker", worker_id, "started")

    def ping(self, name: str) -> str:
        return self.key("worker:ping", name)

    def processed(self, *who: str) -> str:
        return self.key("stat:processed", *who)

    def failures(self, *who: str) -> str:
        return self.key("stat:failed", *who)

    def delayed(self, second: int) -> str:
        return self.key("delayed", str(second))

    def timestamps(self, raw: str) -> str:
        return self.key("timestamps", raw)

    def paused(self, queue: str) -> str:
        return self.key("py:paused", queue)

    def throttle(self, queue: str) -> str:
        return self.key("py:throttle", queue)

    def unique(self, digest: str) -> str:
        return self.key("py:unique", digest)

    def chart(self, number: int) -> str:
        return self.key("py:chart", str(number))
