-- Journals one request of a session and keeps all its keys alive for the given time, or up to an eighth of it (at most
-- five seconds) longer: so they are renewed once in a while and not with every step, which costs as much as the rest.
-- KEYS: session, journal, states. ARGV: epoch, sequence, payload, ttl in ms.
-- Returns {1} (done, or done before), {0, 'unknown'}, {0, 'fenced'} or {0, 'gap', expected}.
local session = redis.call('HMGET', KEYS[1], 'epoch', 'last')
if not session[1] then return {0, 'unknown'} end
if session[1] ~= ARGV[1] then return {0, 'fenced'} end
local last = tonumber(session[2])
local sequence = tonumber(ARGV[2])
local ttl = tonumber(ARGV[4])
local renewed = redis.call('PTTL', KEYS[1]) < ttl
if sequence == last + 1 then
  -- A journal that was cut to nothing is a new key, which lives for ever until told otherwise.
  renewed = redis.call('RPUSH', KEYS[2], ARGV[3]) == 1 or renewed
  redis.call('HSET', KEYS[1], 'last', ARGV[2])
elseif sequence ~= last then
  return {0, 'gap', last + 1}
end
if renewed then
  local longer = ttl + math.min(5000, math.floor(ttl / 8))
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, longer) end
end
return {1}
