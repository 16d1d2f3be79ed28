-- Stores a session's record unless there is one. KEYS: session, states. ARGV: ttl in ms, snapshot or '', field, value, ...
-- Returns the stored fields and values.
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], unpack(ARGV, 3))
  redis.call('DEL', KEYS[2])
  if ARGV[2] ~= '' then redis.call('HSET', KEYS[2], 'snapshot', ARGV[2]) end
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[1]) end
end
return redis.call('HGETALL', KEYS[1])
