-- What several scripts need; it stands before each of them.
--
-- An error ends a script and undoes nothing. So a job is put where it is to go before it is taken from where it was: under
-- a key of another type there is room for nothing, and the job stays where it was. What is only counted or remembered is
-- written by pcall: a counter that somebody has made no number of must not keep a job from being settled.

-- A full Redis refuses a script's first write if it is one that may need memory, and takes whatever comes behind another
-- write. So a script that keeps workers alive or jobs moving begins with one that changes nothing: refused, it would keep
-- out the very workers that make room. (No key that it is called with ever has an end to its life.)
local function even_when_full(key)
    redis.call('PERSIST', key)
end

local function now_ms()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A record of `worker:ID` is {"token":"…",…,"payload":RAW}. RAW is cut out as it is: decoded and encoded again it would
-- be another text, with [] become {} and long numbers rounded. Returns the rest, decoded, and RAW; nil if it is no record.
local function split(record)
    local at = string.find(record, ',"payload":', 1, true)
    local readable, head = pcall(cjson.decode, at and string.sub(record, 1, at - 1) .. '}' or '')
    if readable and type(head) == 'table' and head.queue then return head, string.sub(record, at + 11, -2) end
end

-- Only whoever holds a job may settle it: the record has the token, and nobody has taken the worker for dead.
local function is_held(record_key, token, workers, id)
    local mark = '{"token":"' .. token .. '",'
    return redis.call('GETRANGE', record_key, 0, #mark - 1) == mark and redis.call('SISMEMBER', workers, id) == 1
end

-- A call that is repeated because its answer got lost: the first one has done it, if the worker still counts as alive.
-- While it does, only its own calls remove its record.
local function was_settled(repeated, record_key, workers, id)
    return tostring(repeated) == '1' and redis.call('EXISTS', record_key) == 0 and redis.call('SISMEMBER', workers, id) == 1
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

-- The exact text of a member's value; "" if there is none; of several the last one, as for every reader of JSON.
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

-- Under what a job's failures and crashes are counted: its id if it has one, else a digest of its queue and of the exact
-- texts of its class and its arguments. Not of RAW, which is another text when a foreign scheduler has promoted it; not of
-- what cjson makes of it, which rounds numbers to 14 digits. `Job.key` in wire.py is the same.
local function job_key(queue, raw)
    local _, job = pcall(cjson.decode, raw)
    local args = type(job) == 'table' and type(job.args) == 'table' and job.args or {}
    local first = args[1] or args -- what is no list is the only argument
    local id = type(first) == 'table' and first.id
    if type(id) == 'string' and id ~= '' then return id end
    local readable, text = pcall(function()
        return table.concat({queue, exact_member(raw, 'class'), exact_member(raw, 'args')}, '\0')
    end)
    return redis.sha1hex(readable and text or raw)
end
