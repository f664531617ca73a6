"""Every key in Redis: its name, type and content. Each name is preceded by the namespace, `resque:`.

Keys that Resque, resque-scheduler and node-resque use, too. RAW is a job's exact JSON, ID a worker's
`host:pid+slot:queues`, NAME the same without the queues, TS unix seconds:

    queues                   set     the names of all queues
    queue:QUEUE              list    RAW jobs, the oldest at the head
    failed                   list    failed jobs with their errors, the oldest at the head (wire.py: failure)
    failed_queues            set     names of the lists QUEUE_failed, in which Ruby's RedisMultiQueue keeps failures
    workers                  set     the IDs of all registered workers
    worker:ID                string  the job that this worker runs; a job here is in no other key
    worker:ID:started        string  when the worker started
    workers:heartbeat        hash    ID -> last heartbeat, as Ruby writes it
    worker:ping:NAME         string  last heartbeat, as Node writes it
    stat:processed, …:ID     string  how many jobs have ended, in all and per worker
    stat:failed, …:ID        string  how many of them have failed
    delayed_queue_schedule   zset    TS -> TS: the seconds at which delayed jobs are due
    delayed:TS               list    RAW jobs that are due at that second
    timestamps:RAW           set     the `delayed:TS` in which this job waits
    persistent_schedules     hash    name -> cron schedule, as resque-scheduler writes it (cron.py)
    schedules_changed        set     names of schedules that a resque-scheduler should read again
    pause-all-workers        string  "true": no worker of Ruby or of ours claims a job
    delayed:last_enqueued_at hash    name of a schedule -> when it was last enqueued, as Ruby writes it
    resque_scheduler_leader_lock           string  the leader that promotes delayed jobs, for Node
    resque:resque_scheduler_master_lock    string  the same for Ruby (the namespace occurs twice); fire.lua takes it for
                                                   a second

Keys that only our programs use:

    py:leases                zset    ID -> when the worker's lease ends (ms, by Redis's clock)
    py:reaping               hash    looked -> when a worker last called reap.lua (ms); from -> when it may declare
                                     workers dead again after an outage of Redis (ms)
    py:attempts              hash    job -> how often it has failed
    py:crashes               hash    job -> how often its worker has died while running it
    py:counted               hash    job in one of these two -> since when it may run again (TS), and its queue
    py:seen, py:seen:before  set     digests of recently enqueued ids; they expire
    py:unreadable            list    invalid jobs from the queues, which housekeeping moves to `failed`
    py:paused:QUEUE          string  why this queue is paused; a timed pause expires
    py:throttle:QUEUE        string  when the next job may be claimed (ms); expires
    py:unique:DIGEST         string  the id of the unique job that holds this lock; expires
    py:chart:N               hash    counts and waiting times of jobs that ended in the ten seconds N; expires after 2 h
    py:totals                hash    counts of all time: succeeded, failed, retried, crashed, late
    py:written               string  how many batches of jobs have waited for replicas
    py:guarded               string  set for ten seconds after fire.lua has taken Ruby's lock
    py:cron                  hash    name of a schedule -> the last due second for which it was enqueued, and a digest
                                     of when it is due
"""

CHART_SECONDS = 10
CHART_KEPT_SECONDS = 7200


class Keys:
    """The names of the keys. On a Redis Cluster, make the namespace a hash tag, {resque}: all must be in one slot."""

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
        self.counted = self.key("py:counted")
        self.seen = self.key("py:seen")
        self.seen_before = self.key("py:seen:before")
        self.unreadable = self.key("py:unreadable")
        self.totals = self.key("py:totals")
        self.written = self.key("py:written")
        self.cron = self.key("py:cron")
        self.guarded = self.key("py:guarded")

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

    def processed(self, *worker_id: str) -> str:
        return self.key("stat:processed", *worker_id)

    def failures(self, *worker_id: str) -> str:
        return self.key("stat:failed", *worker_id)

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
