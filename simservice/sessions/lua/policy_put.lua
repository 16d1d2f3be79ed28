-- Keeps a policy or renews it; those that expired go, and while there are too many or too large the longest unused.
-- KEYS: used, weights, graph_of, sizes, graphs, users. ARGV: content hash, graph hash, graph, weights, ttl in ms, most
-- policies, most bytes.
local used, weights, graph_of, sizes, graphs, users = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function drop(name)
  local graph = redis.call('HGET', graph_of, name)
  if graph and redis.call('HINCRBY', users, graph, -1) <= 0 then
    redis.call('HDEL', users, graph)
    redis.call('HDEL', graphs, graph)
  end
  redis.call('ZREM', used, name)
  redis.call('HDEL', weights, name)
  redis.call('HDEL', graph_of, name)
  redis.call('HDEL', sizes, name)
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', used, '-inf', now - ARGV[5])) do drop(name) end
if redis.call('HEXISTS', weights, ARGV[1]) == 0 then
  redis.call('HSET', weights, ARGV[1], ARGV[4])
  redis.call('HSET', graph_of, ARGV[1], ARGV[2])
  redis.call('HSET', sizes, ARGV[1], #ARGV[3] + #ARGV[4])
  redis.call('HSET', graphs, ARGV[2], ARGV[3])
  redis.call('HINCRBY', users, ARGV[2], 1)
end
-- Two uses within one millisecond keep their order.
local last = redis.call('ZRANGE', used, -1, -1, 'WITHSCORES')[2] or 0
redis.call('ZADD', used, math.max(now, last + 0.001), ARGV[1])
local held = 0
for _, size in ipairs(redis.call('HVALS', sizes)) do held = held + size end
while redis.call('ZCARD', used) > tonumber(ARGV[6]) or held > tonumber(ARGV[7]) do
  local oldest = redis.call('ZRANGE', used, 0, 0)[1]
  if not oldest then break end
  held = held - redis.call('HGET', sizes, oldest)
  drop(oldest)
end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[5]) end
return 1
