-- Journals a request and reads a point, which then stays until the journal is cut behind this request.
-- KEYS: session, journal, states. ARGV: epoch, sequence, payload, ttl in ms, point.
-- Returns {1, data} (done, or done before), {0, 'unknown'}, {0, 'fenced'}, {0, 'gap', expected} or {0, 'point'}.
local session = redis.call('HMGET', KEYS[1], 'epoch', 'last')
if not session[1] then return {0, 'unknown'} end
if session[1] ~= ARGV[1] then return {0, 'fenced'} end
local last, sequence = tonumber(session[2]), tonumber(ARGV[2])
if sequence ~= last and sequence ~= last + 1 then return {0, 'gap', last + 1} end
local data = redis.call('HGET', KEYS[3], 'point:' .. ARGV[5])
if not data or redis.call('HEXISTS', KEYS[3], 'forgotten:' .. ARGV[5]) == 1 then return {0, 'point'} end
if sequence == last then return {1, data} end
redis.call('HSET', KEYS[3], 'restored:' .. ARGV[5], ARGV[2])
redis.call('RPUSH', KEYS[2], ARGV[3])
redis.call('HSET', KEYS[1], 'last', ARGV[2])
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[4]) end
return {1, data}
