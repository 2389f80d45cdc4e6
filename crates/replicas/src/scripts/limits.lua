-- Takes what one call costs from all of its limits, or from none.
-- KEYS: one for each limit; two may be the same. ARGV: for each limit its form (`bucket`, `fixed`,
-- `sliding`), two numbers of the form, a third one, and the cost. Times are microseconds.
--   bucket: the interval of a token, the burst, unused
--   fixed: the period, the count, unused
--   sliding: the period, the count, the length of a part in which events count as one
-- Gives 0, or the number of the limit that refuses and after how many microseconds the call may come
-- again, or `never`.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local whole = function(number) return string.format('%.0f', number) end
-- What each bucket has counted: lists of two numbers, until when something counts, and how much.
local levels, ends = {}, {}
for i, key in ipairs(KEYS) do
    local at = (i - 1) * 5
    local form, cost = ARGV[at + 1], tonumber(ARGV[at + 5])
    local first, count = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    local part = tonumber(ARGV[at + 4])
    local level = levels[key]
    if not level then
        level = {}
        for till, much in string.gmatch(redis.call('GET', key) or '', '(%d+):(%d+)') do
            level[#level + 1] = { tonumber(till), tonumber(much) }
        end
        levels[key] = level
    end
    if cost > count then
        return { i, 'never' }
    end
    if form == 'bucket' then
        -- GCRA: the time at which the bucket is full again.
        local full = level[1] and level[1][1] or 0
        local next_full = math.max(full, now) + cost * first
        local wait = next_full - count * first - now
        if wait > 0 then
            return { i, whole(wait) }
        end
        level[1] = { next_full, 0 }
    elseif form == 'fixed' then
        local window = level[1]
        if not window or window[1] <= now then
            window = { now + first, 0 }
        end
        if window[2] + cost > count then
            return { i, whole(window[1] - now) }
        end
        level[1] = { window[1], window[2] + cost }
    else
        while level[1] and level[1][1] <= now do
            table.remove(level, 1)
        end
        local missing = cost - count
        for _, taken in ipairs(level) do
            missing = missing + taken[2]
        end
        for _, taken in ipairs(level) do
            if missing > 0 and missing <= taken[2] then
                return { i, whole(taken[1] - now) }
            end
            missing = missing - taken[2]
        end
        local counted = now
        if part > 1 then
            counted = (math.floor(now / part) + 1) * part
        end
        local last = level[#level]
        local till = counted + first
        if last and last[1] >= till then
            -- The same part, or the clock was set back.
            last[2] = last[2] + cost
        else
            level[#level + 1] = { till, cost }
        end
    end
    ends[key] = level[#level][1]
end
for key, till in pairs(ends) do
    local texts = {}
    for _, taken in ipairs(levels[key]) do
        texts[#texts + 1] = whole(taken[1]) .. ':' .. whole(taken[2])
    end
    redis.call('SET', key, table.concat(texts, ','), 'PX', whole(math.ceil((till - now) / 1000) + 1))
end
return { 0, '0' }
