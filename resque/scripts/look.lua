-- Read a range of a list, but only the beginning of elements that are too large to show.
--
-- KEYS  a list   ARGV  1: the first index (from 0)   2: the last   3: how many bytes of each element at most
-- Returns for each {its length in bytes, its SHA-1 in hex, its first bytes}.
-- prelude.lua is put before this.
local place, last, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local SMALL, MANY = 16384, 32 -- bytes of a small element; how many elements to copy at a time while they are small
local answer, step = {}, 1
while place <= last do
    local found = redis.call('LRANGE', KEYS[1], place, math.min(last, place + step - 1))
    if #found == 0 then break end
    local all_small = true
    for _, text in ipairs(found) do
        answer[#answer + 1] = {#text, redis.sha1hex(text), string.sub(text, 1, most)}
        all_small = all_small and #text <= SMALL
    end
    place = place + #found
    step = all_small and math.min(MANY, 2 * step) or 1
end
return answer
