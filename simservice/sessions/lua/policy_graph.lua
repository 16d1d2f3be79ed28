-- Reads the graph that policies have, as long as one of them has not expired. KEYS as in policy_put. ARGV: graph hash,
-- ttl in ms.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now - ARGV[2], '+inf')) do
  if redis.call('HGET', KEYS[3], name) == ARGV[1] then return redis.call('HGET', KEYS[5], ARGV[1]) end
end
return false
