-- If no worker of ours is left, release our lock, so that other programs can promote delayed jobs at once.
--
-- KEYS  Node's lock, Ruby's lock, py:leases   ARGV  our name in the locks
-- Returns how many locks were released.
-- prelude.lua is put before this.
local released = 0
if redis.call('EXISTS', KEYS[3]) == 0 then
    for lock = 1, 2 do
        if redis.call('GET', KEYS[lock]) == ARGV[1] then released = released + redis.call('DEL', KEYS[lock]) end
    end
end
return released
