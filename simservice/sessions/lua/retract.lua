-- Takes the last request back and raises the epoch. KEYS: session, journal. ARGV: epoch, sequence.
-- Repeating it after its answer was lost gives the same answer. Returns {1, epoch}, {0, 'unknown'} or {0, 'fenced'}.
local session = redis.call('HMGET', KEYS[1], 'epoch', 'last', 'retracted_by', 'snapshot_sequence')
if not session[1] then return {0, 'unknown'} end
local epoch = tonumber(ARGV[1])
if session[1] ~= ARGV[1] then
  if session[3] == ARGV[1] and tonumber(session[1]) == epoch + 1 then return {1, epoch + 1} end
  return {0, 'fenced'}
end
if session[2] == ARGV[2] and tonumber(session[2]) > tonumber(session[4]) then
  redis.call('RPOP', KEYS[2])
  redis.call('HINCRBY', KEYS[1], 'last', -1)
end
redis.call('HSET', KEYS[1], 'epoch', epoch + 1, 'retracted_by', ARGV[1])
return {1, epoch + 1}
