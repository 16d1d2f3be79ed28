-- Forgets a session. KEYS: session, journal, states. ARGV: epoch.
-- Returns {1, open key ('' when the session was unknown)} or {0, 'fenced'}.
local session = redis.call('HMGET', KEYS[1], 'epoch', 'open_key')
if not session[1] then return {1, ''} end
if session[1] ~= ARGV[1] then return {0, 'fenced'} end
redis.call('DEL', unpack(KEYS))
return {1, session[2]}
