-- Raises the epoch and returns everything. KEYS: session, journal, snapshot. ARGV: ttl in ms.
-- Returns {1, fields and values, journal, snapshot (absent without one)} or {0, 'unknown'}.
if redis.call('EXISTS', KEYS[1]) == 0 then return {0, 'unknown'} end
redis.call('HINCRBY', KEYS[1], 'epoch', 1)
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[1]) end
return {1, redis.call('HGETALL', KEYS[1]), redis.call('LRANGE', KEYS[2], 0, -1), redis.call('GET', KEYS[3])}
