-- Open a partition, which the seal of the one before has named; a second time does nothing.
-- KEYS: 1 state (hash)   ARGV: 1 how many events the log has before it
return redis.call('HSETNX', KEYS[1], 'first', ARGV[1])
