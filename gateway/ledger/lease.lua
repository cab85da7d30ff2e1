-- One batch of a replica, atomically. KEYS: the clock, the replica's last number, one key a bucket.
-- ARGV: the number, then units, owed, period_s, tolerance_s of each bucket. Returns units, left of each, as text.
-- Times are seconds of the ledger's own clock: it follows this server's, but never back, and at most LONGEST at
-- once. After a longer pause or step, and in every other run of the server, buckets begin empty (`floor`).
local LONGEST, KEEP = 60, 120
local time = redis.call('TIME')
local wall = time[1] + time[2] / 1e6
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local clock = redis.call('HMGET', KEYS[1], 'run', 'wall', 'now', 'floor')
local now, floor = tonumber(clock[3] or '0'), tonumber(clock[4] or '0')
if clock[1] == run then
  local passed = math.max(wall - tonumber(clock[2]), 0)
  now = now + math.min(passed, LONGEST)
  if passed > LONGEST then floor = now end
else
  floor = now
end
local function text(number) return string.format('%.17g', number) end
redis.call('HSET', KEYS[1], 'run', run, 'wall', text(wall), 'now', text(now), 'floor', text(floor))
local again = tonumber(ARGV[1]) <= tonumber(redis.call('GET', KEYS[2]) or '0')
local replies = {}
for i = 3, #KEYS do
  local at = 4 * (i - 3) + 2
  local units, owed = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local period, tolerance = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local tat = math.max(tonumber(redis.call('GET', KEYS[i]) or '0'), now, floor + tolerance)
  local granted = 0
  if not again then
    tat = math.max(tat + owed * period, now)
    granted = math.min(units, math.max(0, now + tolerance - tat) / period)
    tat = tat + granted * period
    redis.call('SET', KEYS[i], text(tat), 'EX', math.ceil(math.min(tat - now, 1e8)) + KEEP)
  end
  replies[#replies + 1] = text(granted)
  replies[#replies + 1] = text((now + tolerance - tat) / period)
end
redis.call('SET', KEYS[2], text(math.max(tonumber(ARGV[1]), tonumber(redis.call('GET', KEYS[2]) or '0'))), 'EX', 86400)
return replies
