-- Journals one request of a session and renews the time to live of all its keys.
-- KEYS: session, journal, states. ARGV: epoch, sequence, payload, ttl in ms.
-- Returns {1} (done, or done before), {0, 'unknown'}, {0, 'fenced'} or {0, 'gap', expected}.
local session = redis.call('HMGET', KEYS[1], 'epoch', 'last')
if not session[1] then return {0, 'unknown'} end
if session[1] ~= ARGV[1] then return {0, 'fenced'} end
local last = tonumber(session[2])
local sequence = tonumber(ARGV[2])
if sequence == last + 1 then
  redis.call('RPUSH', KEYS[2], ARGV[3])
  redis.call('HSET', KEYS[1], 'last', ARGV[2])
elseif sequence ~= last then
  return {0, 'gap', last + 1}
end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[4]) end
return {1}
