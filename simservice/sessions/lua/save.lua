-- Journals a request and keeps a point under its number. KEYS: session, journal, states.
-- ARGV: epoch, sequence, payload, ttl in ms, data, most points, most bytes of all points.
-- Returns {1, bytes of all points} (done, or done before), {0, 'unknown'}, {0, 'fenced'}, {0, 'gap', expected} or
-- {0, 'full', points, bytes}.
local session = redis.call('HMGET', KEYS[1], 'epoch', 'last')
if not session[1] then return {0, 'unknown'} end
if session[1] ~= ARGV[1] then return {0, 'fenced'} end
local last, sequence = tonumber(session[2]), tonumber(ARGV[2])
local held = redis.call('HMGET', KEYS[3], 'points', 'point_bytes')
local points, bytes = tonumber(held[1] or 0), tonumber(held[2] or 0)
if sequence == last then return {1, bytes} end
if sequence ~= last + 1 then return {0, 'gap', last + 1} end
if points + 1 > tonumber(ARGV[6]) or bytes + #ARGV[5] > tonumber(ARGV[7]) then return {0, 'full', points, bytes} end
redis.call('HSET', KEYS[3], 'point:' .. ARGV[2], ARGV[5])
redis.call('HINCRBY', KEYS[3], 'points', 1)
bytes = redis.call('HINCRBY', KEYS[3], 'point_bytes', #ARGV[5])
redis.call('RPUSH', KEYS[2], ARGV[3])
redis.call('HSET', KEYS[1], 'last', ARGV[2])
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[4]) end
return {1, bytes}
