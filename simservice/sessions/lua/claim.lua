-- Raises the epoch, counts the claim and returns everything. KEYS: session, journal, states. ARGV: ttl in ms.
-- Returns {1, fields and values, journal, {snapshot, bytes of points, replies}} (nil for what is not there) or {0, 'unknown'}.
if redis.call('EXISTS', KEYS[1]) == 0 then return {0, 'unknown'} end
redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HINCRBY', KEYS[1], 'claims', 1)
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[1]) end
return {
  1, redis.call('HGETALL', KEYS[1]), redis.call('LRANGE', KEYS[2], 0, -1),
  redis.call('HMGET', KEYS[3], 'snapshot', 'point_bytes', 'replies')
}
