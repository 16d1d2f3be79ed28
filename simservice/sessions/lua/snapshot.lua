-- Replaces the snapshot and cuts the journal. KEYS: session, journal, snapshot. ARGV: epoch, sequence, data, ttl in ms.
-- Returns {1} (done, or a newer one is stored), {0, 'unknown'}, {0, 'fenced'} or {0, 'gap', expected}.
local session = redis.call('HMGET', KEYS[1], 'epoch', 'last', 'snapshot_sequence')
if not session[1] then return {0, 'unknown'} end
if session[1] ~= ARGV[1] then return {0, 'fenced'} end
local sequence, last, held = tonumber(ARGV[2]), tonumber(session[2]), tonumber(session[3])
if sequence > last then return {0, 'gap', last} end
if sequence <= held then return {1} end
redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
redis.call('LTRIM', KEYS[2], sequence - held, -1)
redis.call('HSET', KEYS[1], 'snapshot_sequence', ARGV[2])
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[4]) end
return {1}
