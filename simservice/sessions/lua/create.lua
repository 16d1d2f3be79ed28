-- Stores a session's record unless there is one. KEYS: session. ARGV: ttl in ms, field, value, ...
-- Returns the stored fields and values.
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], unpack(ARGV, 2))
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return redis.call('HGETALL', KEYS[1])
