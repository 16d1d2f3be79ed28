-- Renews an owner's leases, also those that ended meanwhile: their lanes are held. KEYS: deadlines, lanes, owners.
-- ARGV: owner, ttl in ms, session, lanes, ... A lease that another owner has is left to it.
-- Returns the lanes of all owners together.
local time = redis.call('TIME')
local deadline = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]
for i = 3, #ARGV, 2 do
  local owner = redis.call('HGET', KEYS[3], ARGV[i])
  if not owner or owner == ARGV[1] then
    redis.call('ZADD', KEYS[1], deadline, ARGV[i])
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[1])
  end
end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, 10 * ARGV[2]) end
local lanes = 0
for _, count in ipairs(redis.call('HVALS', KEYS[2])) do lanes = lanes + count end
return lanes
