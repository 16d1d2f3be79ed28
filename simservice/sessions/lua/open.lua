-- Reserves an open key for a token. KEYS: open key. ARGV: token, ttl in ms. Returns the token that holds it.
local held = redis.call('GET', KEYS[1])
if held then return held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
