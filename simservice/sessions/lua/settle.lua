-- Takes an ended claim out of the count; one that brought the session back, and was not followed by another, all.
-- KEYS: session. ARGV: epoch, 1 or 0 (brought back). Returns {1}.
local session = redis.call('HMGET', KEYS[1], 'epoch', 'claims')
if not session[2] then return {1} end
if session[1] == ARGV[1] and ARGV[2] == '1' or tonumber(session[2]) <= 1 then
  redis.call('HDEL', KEYS[1], 'claims')
else
  redis.call('HINCRBY', KEYS[1], 'claims', -1)
end
return {1}
