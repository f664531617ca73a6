-- These jobs are done: remove their records. Only the claim whose token is in the record may do that.
--
-- KEYS  workers, stat:processed, py:attempts, py:crashes, py:totals, py:chart:N,
--       then for each job worker:ID, stat:processed:ID and, if its kind is unique, py:unique:…
-- ARGV  1: JSON [[ID, token, index of worker:ID, index of py:unique:… or 0, job's id,
--          field under which it was counted or "", 1 if the call is repeated] …]
--       2: JSON [[field of the chart, how much to add] …]   3: how long to keep a chart (s)
-- Returns for each job 1, or 0: it was no longer the caller's.
-- prelude.lua is put before this.
local workers, processed, attempts, crashes, totals, chart = unpack(KEYS, 1, 6)
local results, done, before = {}, 0, 0
for i, job in ipairs(cjson.decode(ARGV[1])) do
    local worker_id, token, record, lock, id, counted, repeated = unpack(job)
    results[i] = 0
    if is_held(KEYS[record], token, workers, worker_id) then
        redis.call('DEL', KEYS[record])
        redis.pcall('INCR', KEYS[record + 1])
        if counted ~= '' then
            redis.call('HDEL', attempts, counted)
            redis.call('HDEL', crashes, counted)
        end
        if lock > 0 and redis.call('GET', KEYS[lock]) == id then redis.call('DEL', KEYS[lock]) end
        results[i], done = 1, done + 1
    elseif was_settled(repeated, workers, worker_id) then
        results[i], before = 1, before + 1
    end
end
redis.pcall('INCRBY', processed, done)
redis.pcall('HINCRBY', totals, 'succeeded', done)
redis.pcall('HINCRBY', totals, 'late', #results - done - before)
for _, field in ipairs(cjson.decode(ARGV[2])) do redis.pcall('HINCRBY', chart, field[1], field[2]) end
redis.call('EXPIRE', chart, ARGV[3])
return results
