-- Journals a request and gives points up: at once, or for a point that a replay of the journal would read, at the cut.
-- KEYS: session, journal, states. ARGV: epoch, sequence, payload, ttl in ms, point, ...
-- Returns {1, bytes of the points left} (done, or done before), {0, 'unknown'}, {0, 'fenced'} or {0, 'gap', expected}.
local session = redis.call('HMGET', KEYS[1], 'epoch', 'last', 'snapshot_sequence')
if not session[1] then return {0, 'unknown'} end
if session[1] ~= ARGV[1] then return {0, 'fenced'} end
local last, sequence, cut = tonumber(session[2]), tonumber(ARGV[2]), tonumber(session[3])
if sequence ~= last and sequence ~= last + 1 then return {0, 'gap', last + 1} end
if sequence ~= last then
  for i = 5, #ARGV do
    local size = redis.call('HSTRLEN', KEYS[3], 'point:' .. ARGV[i])
    local restored = redis.call('HGET', KEYS[3], 'restored:' .. ARGV[i])
    if size > 0 and restored and tonumber(restored) > cut then
      redis.call('HSET', KEYS[3], 'forgotten:' .. ARGV[i], ARGV[2])
    elseif size > 0 then
      redis.call('HINCRBY', KEYS[3], 'points', -1)
      redis.call('HINCRBY', KEYS[3], 'point_bytes', -size)
      redis.call('HDEL', KEYS[3], 'point:' .. ARGV[i], 'restored:' .. ARGV[i])
    end
  end
  redis.call('RPUSH', KEYS[2], ARGV[3])
  redis.call('HSET', KEYS[1], 'last', ARGV[2])
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[4]) end
end
return {1, tonumber(redis.call('HGET', KEYS[3], 'point_bytes') or 0)}
