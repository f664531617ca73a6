-- Functions that several scripts share; this is put before each of them.
--
-- An error ends a script but undoes nothing. So a script writes a job to its destination before it removes it from its
-- source: if the destination key has another type, the write fails and the job stays at its source. Counters and marks
-- are written with pcall: a counter that is not a number must not prevent a job from being settled.

local SUSPECT = 2 -- a job with this many crashes runs alone, so that its next crash affects no other job

-- A Redis whose memory is full refuses a script whose first write may need memory, but accepts such writes after
-- another write. So a script that renews leases or moves jobs begins with a write that changes nothing: otherwise a
-- full Redis would stop the very workers that free its memory. (No key that this is called with ever has an expiry
-- time.)
local function allow_when_full(key)
    redis.call('PERSIST', key)
end

local function now_ms()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A record of `worker:ID` is {"token":"…",…,"payload":RAW}. RAW is cut out unchanged, because decoding and encoding it
-- would turn [] into {} and round long numbers. Returns the rest, decoded, and RAW; nil if it is not a valid record.
local function split(record)
    local at = string.find(record, ',"payload":', 1, true)
    local readable, head = pcall(cjson.decode, at and string.sub(record, 1, at - 1) .. '}' or '')
    if readable and type(head) == 'table' and head.queue then return head, string.sub(record, at + 11, -2) end
end

-- Only the claim that holds a job may settle it: the record has its token, and no program has removed the worker as
-- dead.
local function is_held(record_key, token, workers, id)
    local mark = '{"token":"' .. token .. '",'
    return redis.call('GETRANGE', record_key, 0, #mark - 1) == mark and redis.call('SISMEMBER', workers, id) == 1
end

-- For a job that is not held (see `is_held`). `repeated` is 1 if the call is repeated because its answer was lost. If
-- the worker is still registered, the first call has settled the job: while a worker is registered, only its own calls
-- change its record. The record may already have the next job.
local function was_settled(repeated, workers, id)
    return tostring(repeated) == '1' and redis.call('SISMEMBER', workers, id) == 1
end

-- Where the JSON string that begins at `at` ends.
local function string_end(text, at)
    repeat
        at = string.find(text, '["\\]', at + 1)
        local escaped = at and string.sub(text, at, at) == '\\'
        if escaped then at = at + 1 end
    until not escaped
    return at
end

-- Where the JSON value that begins at `at` ends.
local function value_end(text, at)
    local first, depth = string.sub(text, at, at), 0
    if not string.find(first, '["{%[]') then return string.find(text, '[%s,%]}]', at) - 1 end
    while at do
        local char = string.sub(text, at, at)
        if char == '"' then at = string_end(text, at)
        elseif char == '{' or char == '[' then depth = depth + 1
        else depth = depth - 1 end
        if depth == 0 then return at end
        at = string.find(text, '["{}%[%]]', at + 1)
    end
end

-- The exact text of a member's value; "" if there is none; if there are several, the last one, as every JSON parser
-- does.
local function exact_member(text, name)
    local found, at = '', string.find(text, '{', 1, true) + 1
    while true do
        at = string.find(text, '["}]', at)
        if string.sub(text, at, at) == '}' then return found end
        local last = string_end(text, at)
        local key = string.sub(text, at + 1, last - 1)
        local start = string.find(text, '[^%s:]', last + 1)
        at = value_end(text, start) + 1
        if key == name then found = string.sub(text, start, at - 1) end
    end
end

-- The field under which a job's failures and crashes are counted: its id if it has one, else a digest of its queue and
-- of the exact texts of its class and arguments. Not of RAW, which differs after another scheduler has promoted it, and
-- not of cjson's output, which rounds numbers to 14 digits. `Job.key` in wire.py is the same.
local function job_key(queue, raw)
    local _, job = pcall(cjson.decode, raw)
    local args = type(job) == 'table' and type(job.args) == 'table' and job.args or {}
    local first = args[1] or args -- a value that is not a list is the only argument
    local id = type(first) == 'table' and first.id
    if type(id) == 'string' and id ~= '' then return id end
    local readable, text = pcall(function()
        return table.concat({queue, exact_member(raw, 'class'), exact_member(raw, 'args')}, '\0')
    end)
    return redis.sha1hex(readable and text or raw)
end
