-- Place a consumer's cursor: at its birth, and for a replay. A new epoch begins: from here on each partition forgets what
-- was claimed and committed in the old one, when it is visited first.
-- KEYS: 1 cursor (hash)   ARGV: 1 partition  2 its first  3 index in it  4 "NX" for a consumer that may be there already
redis.call('PERSIST', KEYS[1]) -- changes nothing: see scripts.py, a full Redis
if ARGV[4] == 'NX' and redis.call('EXISTS', KEYS[1]) == 1 then
    return 0
end
redis.call('HSET', KEYS[1], 'partition', ARGV[1], 'first', ARGV[2], 'index', ARGV[3])
redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('PUBLISH', 'eventlog:appended', 'rewound')
return 1
