-- Reads a policy and renews it. KEYS: used, weights, graph_of, sizes, graphs, users. ARGV: content hash, ttl in ms,
-- 1: with its bytes. Returns {} when there is none, else {graph hash, graph, weights} or {1}.
local at = redis.call('ZSCORE', KEYS[1], ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not at or tonumber(at) <= now - ARGV[2] then return {} end
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
if last[1] ~= ARGV[1] or now > tonumber(last[2]) then
  redis.call('ZADD', KEYS[1], math.max(now, last[2] + 0.001), ARGV[1])
end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[2]) end
if ARGV[3] ~= '1' then return {1} end
local graph = redis.call('HGET', KEYS[3], ARGV[1])
return {graph, redis.call('HGET', KEYS[5], graph), redis.call('HGET', KEYS[2], ARGV[1])}
