-- Forgets expired worlds and returns the others. KEYS: deadlines, contracts. Returns world, contract, ...
local now = redis.call('TIME')
local expired = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now[1] * 1000 + math.floor(now[2] / 1000))
for _, world in ipairs(expired) do
  redis.call('ZREM', KEYS[1], world)
  redis.call('HDEL', KEYS[2], world)
end
return redis.call('HGETALL', KEYS[2])
