-- Reads reported episodes behind a number; looks through a few thousand at most. KEYS: next, index, payloads, owners. ARGV: after, limit, bytes, tenant, 1: of all.
-- Returns {the last number looked at, number, tenant, payload, ...}.
local found, held = {ARGV[1]}, 0
local limit, most = tonumber(ARGV[2]), tonumber(ARGV[3])
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf', 'LIMIT', 0, 4096)) do
  local owner = redis.call('HGET', KEYS[4], name)
  if ARGV[5] == '1' or owner == ARGV[4] then
    local payload = redis.call('HGET', KEYS[3], name)
    if #found > 1 and (held + #payload > most or (#found - 1) / 3 >= limit) then break end
    held = held + #payload
    found[#found + 1] = name
    found[#found + 1] = owner
    found[#found + 1] = payload
  end
  found[1] = name
end
return found
