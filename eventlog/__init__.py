"""An immutable log of events in Redis that any number of consumers read, each at its own pace.

log          the interface of both logs, its keys and its guarantees: read this first
partitions   the log on lists and Lua; appender, reader and inspection are its parts
streams      the same log on Redis Streams
jetstream    the same log on NATS JetStream; jetstream_inspection and nats_* are its parts
interface    what consumers, producers and the page call on any of these logs
leases       commit, put back, delay, park, renew: what the holder of a lease can do
consumers    claim, call the handler, commit; outcomes reports the results to the log; suspects and early
             are its parts
handlers     the interface of a handler
worker       runs consumers in one process: heartbeat, retention, an orderly stop
syndication  each event becomes a job in the queue of every application that subscribed
dashboard    the page at /log
"""
