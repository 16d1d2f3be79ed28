-- Takes or renews one session's lease of a tenant's quota. KEYS: deadlines, lanes, owners.
-- ARGV: session, owner, lanes, most sessions, most lanes (-1: no limit), ttl in ms.
-- Returns {1 or 0 (refused), sessions, lanes, ms until the first lease ends}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, ended in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  redis.call('ZREM', KEYS[1], ended)
  redis.call('HDEL', KEYS[2], ended)
  redis.call('HDEL', KEYS[3], ended)
end
local sessions, lanes = redis.call('ZCARD', KEYS[1]), 0
for _, count in ipairs(redis.call('HVALS', KEYS[2])) do lanes = lanes + count end
local held = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or -1)
local asked, most_sessions, most_lanes = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local more_sessions, more_lanes = held < 0 and 1 or 0, asked - math.max(held, 0)
if more_sessions > 0 and most_sessions >= 0 and sessions + 1 > most_sessions
    or more_lanes > 0 and most_lanes >= 0 and lanes + more_lanes > most_lanes then
  local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
  return {0, sessions, lanes, first and first - now or 0}
end
redis.call('ZADD', KEYS[1], now + ARGV[6], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, 10 * ARGV[6]) end
return {1, sessions + more_sessions, lanes + more_lanes, 0}
