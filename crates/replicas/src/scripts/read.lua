-- What has been written since a batch.
-- KEYS: meta, log, gone. ARGV: how the names of records begin, the epoch, the batch, and the last
-- batch that was seen in that epoch.
-- Gives the form of the data, the epoch, the last batch, the clock, whether all records follow,
-- the names that were removed, and name, version and content of each record.
local meta = redis.call('HMGET', KEYS[1], 'form', 'epoch', 'batches', 'mark_ms', 'forgotten')
local form, epoch = meta[1] or '', meta[2] or ''
local batches, mark, forgotten = meta[3] or '0', meta[4] or '0', meta[5] or '0'
local from = ARGV[3]
local whole = epoch ~= ARGV[2] or tonumber(from) == 0 or tonumber(from) < tonumber(forgotten)
    or tonumber(batches) < tonumber(ARGV[4])
if whole then
    from = '0'
end
local gone = {}
if not whole then
    gone = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. from, '+inf')
end
local records = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. from, '+inf')) do
    local record = redis.call('HMGET', ARGV[1] .. name, 'version', 'content')
    if record[1] and record[2] then
        records[#records + 1] = name
        records[#records + 1] = record[1]
        records[#records + 1] = record[2]
    else
        -- Its time to live is over.
        gone[#gone + 1] = name
    end
end
return { form, epoch, batches, mark, whole and 1 or 0, gone, records }
