-- If no worker of ours is left, let others promote delayed jobs: at once, not when our lock runs out.
--
-- KEYS  Node's lock, Ruby's lock, py:leases   ARGV  our name in the locks
-- Returns how many locks were given back.
-- Before this stands prelude.lua.
local given_back = 0
if redis.call('EXISTS', KEYS[3]) == 0 then
    for lock = 1, 2 do
        if redis.call('GET', KEYS[lock]) == ARGV[1] then given_back = given_back + redis.call('DEL', KEYS[lock]) end
    end
end
return given_back
