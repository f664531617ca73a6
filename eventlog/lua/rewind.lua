-- Place a consumer's cursor, for a new consumer or a replay. This starts a new epoch: at the first claim in a new epoch
-- a partition forgets what the consumer has claimed and committed.
-- KEYS: 1 cursor (hash)   ARGV: 1 partition  2 its first  3 index in it  4 "NX" to keep an existing cursor
redis.call('PERSIST', KEYS[1]) -- changes nothing, but a full Redis then allows the next writes: see scripts.py
if ARGV[4] == 'NX' and redis.call('EXISTS', KEYS[1]) == 1 then
    return 0
end
redis.call('HSET', KEYS[1], 'partition', ARGV[1], 'first', ARGV[2], 'index', ARGV[3])
redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('PUBLISH', 'eventlog:appended', 'rewound')
return 1
