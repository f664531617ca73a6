-- Claim the next jobs for free slots: move each from its queue into `worker:ID` in one step. Earlier queues come first.
--
-- KEYS  py:leases, workers, pause-all-workers, py:attempts, py:crashes, py:unreadable,
--       then for each queue queue:QUEUE, py:paused:QUEUE, py:throttle:QUEUE, then for each slot worker:ID
-- ARGV  1: JSON [head of the slot's record …]   2: this call's token   3: "1" if other slots of this process are busy
--       4: the largest job (bytes)   5: ms between two jobs of a queue or 0   6: the prefix of a queue's key, 7: of
--       worker:ID. The names of queues and slots follow from their keys: a name of a slot is as long as all queues
-- Returns {now in ms, why a queue is paused or "", a number for each queue, then for each job
--       slot from 0, token, queue, raw, field of its counts, failed attempts, crashes}. A queue's number says when to
--       claim again: in that many ms; 0: when the queue has a job; -1: when the other slots are free, because its next
--       job must run alone.
-- Error LOST: a lease has ended, or another program removed a slot as dead: its job belongs to another worker.
-- prelude.lua is put before this.
local leases, workers, pause_all, attempts, crashes, unreadable = unpack(KEYS, 1, 6)
local slots = cjson.decode(ARGV[1])
local token, busy, largest, interval = ARGV[2], ARGV[3] == '1', tonumber(ARGV[4]), tonumber(ARGV[5])
local first = #KEYS - #slots -- the key before the slots'
local queues = (first - 6) / 3
local PAUSED = 1000 -- ms until the worker claims again
local CATCH_UP = 100 -- ms by which a worker that wakes up late may exceed the throttle's pace
local SET_ASIDE = 100 -- invalid jobs moved in one call: a script blocks all other clients
local AT_ONCE = 1000 -- keys in one command: Lua's stack has room for 8,000
local NEIGHBOURS = 32 -- queues in one check for any job

local now = now_ms()
local any_failed, any_crashed = redis.call('EXISTS', attempts) == 1, redis.call('EXISTS', crashes) == 1
local reason, waits, jobs, free = '', {}, {}, {}

local function count(hash, key)
    return tonumber(redis.pcall('HGET', hash, key)) or 0
end

local function hand_out(slot, its_token, queue, raw)
    local key = (any_failed or any_crashed) and job_key(queue, raw) or ''
    local failed = any_failed and count(attempts, key) or 0
    local crashed = any_crashed and count(crashes, key) or 0
    local last = #jobs
    jobs[last + 1], jobs[last + 2], jobs[last + 3], jobs[last + 4] = slot - 1, its_token, queue, raw
    jobs[last + 5], jobs[last + 6], jobs[last + 7] = key, failed, crashed
end

local function take(slot, queue, raw)
    local its_token = token .. '.' .. slot
    local head = string.format('{"token":"%s","queue":%s,%s', its_token, cjson.encode(queue), slots[slot])
    redis.call('SET', KEYS[first + slot], head .. ',"payload":' .. raw .. '}')
    hand_out(slot, its_token, queue, raw)
end

-- How many jobs the throttle allows now, and when the first of them was due (GCRA: ITU-T I.371).
local function permits(throttle)
    if interval == 0 then return #free, now end
    local due = tonumber(redis.call('GET', throttle)) or 0
    if due > now + interval then due = now end -- Redis's clock was set back
    due = math.max(due, now - CATCH_UP)
    return math.max(0, math.floor((now - due) / interval) + 1), due
end

local function is_suspect(queue, raw)
    return any_crashed and count(crashes, job_key(queue, raw)) >= SUSPECT
end

-- Claim from one queue; returns when to claim again.
local function serve(name, list, throttle)
    local may, due = permits(throttle)
    local taken, aside, wait = 0, 0, 0
    while #free > 0 and taken < may and wait == 0 do
        local raw = redis.pcall('LPOP', list)
        if not raw then break end
        if type(raw) == 'table' then return PAUSED end -- an error: the key is not a list
        local readable = pcall(cjson.decode, #raw <= largest and raw or '')
        if not readable or not string.find(raw, '^%s*{') then
            -- not a list either: the job stays in its queue
            if type(redis.pcall('RPUSH', unreadable, name, raw)) == 'table' then
                redis.call('LPUSH', list, raw)
                return PAUSED
            end
            aside = aside + 1
            if aside == SET_ASIDE then wait = 1 end
        else
            local alone = is_suspect(name, raw)
            if alone then wait = -1 end
            if alone and (busy or #jobs > 0) then
                redis.call('LPUSH', list, raw)
            else
                take(table.remove(free, 1), name, raw)
                taken = taken + 1
            end
        end
    end
    if interval > 0 and taken > 0 then
        redis.call('SET', throttle, due + taken * interval, 'PX', math.ceil(interval) + 60000)
    end
    if wait == 0 and taken == may and interval > 0 and redis.call('EXISTS', list) == 1 then
        wait = math.ceil(math.max(1, due + taken * interval - now))
    end
    return wait
end

-- The keys of one kind (4: queue:QUEUE, 5: py:paused:QUEUE) of up to `count` queues.
local function keys_of(kind, q, count)
    local names = {}
    for each = q, math.min(q + count - 1, queues) do names[#names + 1] = KEYS[kind + 3 * each] end
    return unpack(names)
end

-- Why each queue is paused. A worker may have a thousand queues, nearly all of them empty: one command for many keys
-- takes a fraction of the time of many commands.
local function pauses()
    local found = {}
    for q = 1, queues, AT_ONCE do
        for _, reason in ipairs(redis.call('MGET', keys_of(5, q, AT_ONCE))) do found[#found + 1] = reason end
    end
    return found
end

-- Whether neither this queue nor one of its neighbours has a job. The answer for the neighbours is remembered.
local known_from, any_job = nil, nil
local function is_empty(q)
    local from = q - (q - 1) % NEIGHBOURS
    if from ~= known_from then
        known_from, any_job = from, redis.call('EXISTS', keys_of(4, from, NEIGHBOURS)) > 0
    end
    return not any_job
end

local ids = {}
for i in ipairs(slots) do ids[i] = string.sub(KEYS[first + i], #ARGV[7] + 1) end
local alive, listed = redis.call('ZMSCORE', leases, unpack(ids)), redis.call('SMISMEMBER', workers, unpack(ids))
for i in ipairs(slots) do
    if not alive[i] or listed[i] == 0 then return redis.error_reply('LOST') end
end

-- Only free slots claim. If a slot's record has a job, the answer that handed it out was lost: hand it out again.
for i in ipairs(slots) do
    local record = redis.call('GET', KEYS[first + i])
    local head, raw
    if record then head, raw = split(record) end
    if head then
        hand_out(i, head.token, head.queue, raw)
    else
        free[#free + 1] = i
    end
end

local all_paused = string.lower(redis.call('GET', pause_all) or '') == 'true' and 'pause-all-workers is set'
local paused = pauses()
for q = 1, queues do
    local why = all_paused or paused[q]
    if why then
        reason, waits[q] = why, PAUSED
    elseif is_empty(q) then
        waits[q] = 0
    else
        local list = KEYS[4 + 3 * q]
        waits[q] = serve(string.sub(list, #ARGV[6] + 1), list, KEYS[6 + 3 * q])
        if waits[q] == -1 then free = {} end -- the later queues must wait as well
    end
end

local answer = {now, reason}
for _, wait in ipairs(waits) do answer[#answer + 1] = wait end
for _, value in ipairs(jobs) do answer[#answer + 1] = value end
return answer
