-- Whether the store runs scripts and takes writes.
-- KEYS: one that nothing else uses. ARGV: whether something is written (1), or nothing changes (0).
-- A copy that may only be read, and a store that is full, give an error to both. All commands of the
-- other scripts are here, so that a user who may not give one of them is known.
local key = KEYS[1]
local commands = {
    { 'TIME' },
    { 'GET', key },
    { 'HGET', key, 'version' },
    { 'HMGET', key, 'version' },
    { 'ZCARD', key },
    { 'ZRANGEBYSCORE', key, '0', '0' },
    -- The key is not there, so these change nothing, and nothing goes to a log or to copies.
    { 'SET', key, '', 'XX' },
    { 'ZADD', key, 'XX', '0', '' },
    { 'ZREM', key, '' },
    { 'ZPOPMIN', key },
    { 'PEXPIRE', key, '1' },
    { 'DEL', key },
}
if ARGV[1] == '1' then
    commands[#commands + 1] = { 'HSET', key, 'version', '0' }
    commands[#commands + 1] = { 'DEL', key }
end
for _, command in ipairs(commands) do
    local said = redis.pcall(unpack(command))
    local wrong = type(said) == 'table' and said.err
    if wrong then
        -- Redis before 7.2 and from 7.2 on.
        if wrong:find('user executing the script', 1, true) or wrong:find('ACL failure', 1, true) then
            return redis.error_reply('NOPERM ' .. command[1])
        end
        return said
    end
end
return 1
