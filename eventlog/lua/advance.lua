-- Move a consumer's cursor to a partition, because every event before it is done. Never moves it back.
-- KEYS: 1 cursor (hash)   ARGV: 1 epoch  2 partition  3 its first
redis.call('PERSIST', KEYS[1]) -- changes nothing, but a full Redis then allows the next writes: see scripts.py
local epoch, partition = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'partition'))
if epoch ~= ARGV[1] or tonumber(partition) >= tonumber(ARGV[2]) then
    return 0
end
redis.call('HSET', KEYS[1], 'partition', ARGV[2], 'first', ARGV[3], 'index', 0)
return 1
