-- Keeps one reported episode, unless its id is known; the tenant's oldest give way to it.
-- KEYS: next, index, payloads, owners, bytes of all of a world; queue, ids of the tenant.
-- ARGV: id, payload, tenant, most episodes, most bytes, ids kept, ttl in ms. Returns its number, or 0.
local index, payloads, owners, bytes, queue, ids = KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
if redis.call('ZSCORE', ids, ARGV[1]) then return 0 end
-- Numbers rise even over the end of all keys: a reader's place must never lie before it.
local now = redis.call('TIME')
local number = math.max(now[1] * 1000, tonumber(redis.call('HGET', KEYS[1], 'last') or 0)) + 1
redis.call('HSET', KEYS[1], 'last', string.format('%d', number))
local name = string.format('%d', number)
redis.call('ZADD', ids, number, ARGV[1])
redis.call('ZREMRANGEBYRANK', ids, 0, -1 - ARGV[6])
redis.call('ZADD', index, number, name)
redis.call('HSET', payloads, name, ARGV[2])
redis.call('HSET', owners, name, ARGV[3])
redis.call('RPUSH', queue, name)
local held = redis.call('HINCRBY', bytes, ARGV[3], #ARGV[2])
while redis.call('LLEN', queue) > tonumber(ARGV[4]) or held > tonumber(ARGV[5]) do
  local oldest = redis.call('LPOP', queue)
  held = redis.call('HINCRBY', bytes, ARGV[3], -redis.call('HSTRLEN', payloads, oldest))
  redis.call('ZREM', index, oldest)
  redis.call('HDEL', payloads, oldest)
  redis.call('HDEL', owners, oldest)
end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[7]) end
return number
