-- What a tenant uses. KEYS: deadlines, lanes, owners. Returns {sessions, lanes}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local sessions, lanes = 0, 0
for _, token in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do
  sessions = sessions + 1
  lanes = lanes + (redis.call('HGET', KEYS[2], token) or 0)
end
return {sessions, lanes}
