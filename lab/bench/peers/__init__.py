"""One small program for each queue that `make bench PEERS=1` measures, including ours. All have the same interface.

    python -m lab.bench.peers.NAME enqueue FIRST COUNT CALLERS PAUSE_MS
    python -m lab.bench.peers.NAME work CONCURRENCY JOB_MS

`enqueue` enqueues the jobs FIRST to FIRST + COUNT - 1 from CALLERS callers, each with one call in flight, and prints
{"seconds": …, "asked_ns": {job: when it was enqueued, only with a pause}}. `work` runs one worker process until it is
stopped. A job appends a line `NUMBER MONOTONIC_NS` to the file RECORD. If JOB_MS is not 0, it first appends such a line
with -1 - NUMBER, and sleeps for JOB_MS. Redis is at REDIS_URL.

The programs in Node are run as `node NAME.mjs enqueue …`. interface.py and interface.mjs read the arguments.
"""
