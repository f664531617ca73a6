-- What is in a list, from one place to another, without the bulk of what is too large to be shown.
--
-- KEYS  a list   ARGV  1: the first place (from 0)   2: the last   3: so many bytes of each at most
-- Returns for each {its length in bytes, its SHA-1 in hex, its first bytes}.
local answer = {}
for place = tonumber(ARGV[1]), tonumber(ARGV[2]) do
    local text = redis.call('LINDEX', KEYS[1], place) -- one by one: a page of large things would be copied as a whole
    if not text then break end
    answer[#answer + 1] = {#text, redis.sha1hex(text), string.sub(text, 1, ARGV[3])}
end
return answer
