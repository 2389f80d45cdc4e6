-- tools/call over and over, each with arguments that no other call has. Prints what wrk measured as
-- one line of JSON; wrk's own figures are rounded.
--   TEMPLATE  a file with the body; each @N@ in it becomes the number of the call
--   FIRST     the number before that of the first call
--   BODIES    how many different bodies are sent by turns; 0 if none may ever be sent again
--   HEADERS   one a line, `name: value`
--   CHECK     if set, every answer must contain this text; costs time, so nothing is measured then

local file = assert(io.open(os.getenv("TEMPLATE"), "rb"))
local template = file:read("*a")
file:close()
local count = tonumber(os.getenv("BODIES"))
local first = tonumber(os.getenv("FIRST"))
local check = os.getenv("CHECK")
-- From this size on, bodies are put together one by one: all at once would take too much memory.
local LARGE_BYTES = 4096

wrk.method = "POST"
wrk.path = os.getenv("TARGET")
for line in os.getenv("HEADERS"):gmatch("[^\n]+") do
  local name, value = line:match("^([^:]+): (.*)$")
  wrk.headers[name] = value
end

local parts = {}
local at = 1
while true do
  local begins, ends = template:find("@N@", at, true)
  parts[#parts + 1] = template:sub(at, (begins or 0) - 1)
  if not begins then break end
  at = ends + 1
end

local function formatted(number)
  return wrk.format(nil, nil, nil, table.concat(parts, string.format("%d", first + number)))
end

local requests = {}
function init(_)
  if #template < LARGE_BYTES then
    for number = 1, count do requests[number] = formatted(number) end
  end
end

local sent = 0
function request()
  sent = (count > 0 and sent % count or sent) + 1
  return requests[sent] or formatted(sent)
end

wrong = 0
if check then
  function response(_, _, body)
    if not body:find(check, 1, true) then wrong = wrong + 1 end
  end
end

local threads = {}
function setup(thread) threads[#threads + 1] = thread end

function done(summary, latency, _)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  for _, thread in ipairs(threads) do failed = failed + thread:get("wrong") end
  io.write(string.format(
    '{"requests":%d,"bytes":%d,"us":%d,"p50_us":%d,"p99_us":%d,"errors":%d}\n',
    summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99), failed))
end
