-- Replaces the snapshot and cuts the journal. KEYS: session, journal, states. ARGV: epoch, sequence, data, ttl in ms,
-- replies or ''.
-- Forgotten points that no journaled restore reads any more go with what is cut.
-- Returns {1} (done, or a newer one is stored), {0, 'unknown'}, {0, 'fenced'} or {0, 'gap', expected}.
local session = redis.call('HMGET', KEYS[1], 'epoch', 'last', 'snapshot_sequence')
if not session[1] then return {0, 'unknown'} end
if session[1] ~= ARGV[1] then return {0, 'fenced'} end
local sequence, last, held = tonumber(ARGV[2]), tonumber(session[2]), tonumber(session[3])
if sequence > last then return {0, 'gap', last} end
if sequence <= held then return {1} end
redis.call('HSET', KEYS[3], 'snapshot', ARGV[3])
if ARGV[5] ~= '' then redis.call('HSET', KEYS[3], 'replies', ARGV[5]) else redis.call('HDEL', KEYS[3], 'replies') end
redis.call('LTRIM', KEYS[2], sequence - held, -1)
redis.call('HSET', KEYS[1], 'snapshot_sequence', ARGV[2])
if tonumber(redis.call('HGET', KEYS[3], 'points') or 0) > 0 then
  for _, field in ipairs(redis.call('HKEYS', KEYS[3])) do
    local point = string.match(field, '^forgotten:(%d+)$')
    if point and tonumber(redis.call('HGET', KEYS[3], 'restored:' .. point)) <= sequence then
      redis.call('HINCRBY', KEYS[3], 'points', -1)
      redis.call('HINCRBY', KEYS[3], 'point_bytes', -redis.call('HSTRLEN', KEYS[3], 'point:' .. point))
      redis.call('HDEL', KEYS[3], field, 'point:' .. point, 'restored:' .. point)
    end
  end
end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[4]) end
return {1}
