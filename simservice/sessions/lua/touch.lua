-- Renews the time to live. KEYS: session, journal, states. ARGV: epoch, ttl in ms.
-- Returns {1}, {0, 'unknown'} or {0, 'fenced'}.
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then return {0, 'unknown'} end
if epoch ~= ARGV[1] then return {0, 'fenced'} end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[2]) end
return {1}
