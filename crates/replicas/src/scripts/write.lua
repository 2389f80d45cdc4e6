-- Writes a batch, or nothing.
-- KEYS: meta, log, gone. ARGV: how the names of records begin, the form of the data, the epoch that
-- the writer knows, a new epoch, the last batch that the writer has seen in its epoch, whether it
-- begins a new epoch (0 or 1), the clock, whether it is set (1) or raised (0), the time to live of
-- everything in ms, how many removed names are kept, and for each write: `put` or `remove`, name,
-- the version that it replaces, and content.
-- Gives the number of the batch and the epoch; number 0 if nothing was written, -1 if there are no
-- numbers left: from 2^53 - 1 on, those of Lua and of sorted sets are not exact.
local meta = redis.call('HMGET', KEYS[1], 'form', 'epoch', 'batches', 'mark_ms')
local form, epoch = meta[1] or ARGV[2], meta[2] or ''
local batches, mark = tonumber(meta[3] or '0') or -1, meta[4] or '0'
local anew = ARGV[6] == '1'
if form ~= ARGV[2] or epoch ~= ARGV[3] then
    return { '0', epoch }
end
if not (batches >= 0 and batches < 9007199254740991) then
    return { '-1', epoch }
end
-- The store has lost batches that the writer has seen.
if batches < tonumber(ARGV[5]) then
    if not anew then
        return { '0', epoch }
    end
    batches = tonumber(ARGV[5])
end
for i = 11, #ARGV, 4 do
    local version = redis.call('HGET', ARGV[1] .. ARGV[i + 1], 'version') or '0'
    local absent = ARGV[i] == 'remove' and version == '0'
    if version ~= ARGV[i + 2] and not absent then
        return { '0', epoch }
    end
end
local number = string.format('%.0f', batches + 1)
if anew or epoch == '' then
    epoch = ARGV[4]
end
local life = ARGV[9]
for i = 11, #ARGV, 4 do
    local name, key = ARGV[i + 1], ARGV[1] .. ARGV[i + 1]
    if ARGV[i] == 'put' then
        redis.call('HSET', key, 'version', number, 'content', ARGV[i + 3])
        redis.call('PEXPIRE', key, life)
        redis.call('ZADD', KEYS[2], number, name)
        redis.call('ZREM', KEYS[3], name)
    else
        redis.call('DEL', key)
        redis.call('ZREM', KEYS[2], name)
        redis.call('ZADD', KEYS[3], number, name)
    end
end
local more = redis.call('ZCARD', KEYS[3]) - tonumber(ARGV[10])
if more > 0 then
    local oldest = redis.call('ZPOPMIN', KEYS[3], more)
    redis.call('HSET', KEYS[1], 'forgotten', oldest[#oldest])
end
if ARGV[8] == '1' or tonumber(ARGV[7]) > tonumber(mark) then
    mark = ARGV[7]
end
redis.call('HSET', KEYS[1], 'form', form, 'epoch', epoch, 'batches', number, 'mark_ms', mark)
for _, key in ipairs(KEYS) do
    redis.call('PEXPIRE', key, life)
end
return { number, epoch }
