-- Sends requests that were made before, and tells as JSON what came of them.
-- Arguments: the file of requests; "cycle" to begin anew at its end, "once" to send none twice;
-- and perhaps the statuses beside 2xx that are good answers, as in 401,404: to count them costs time.
-- The file: for each request its length in bytes, a newline, and its bytes.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  requests, count, sent, spent, accepted = {}, 0, 0, 0, 0
  cycles = args[2] == "cycle"
  local file = assert(io.open(args[1], "rb"))
  while true do
    local length = file:read("*n")
    if not length then break end
    file:read(1)
    count = count + 1
    requests[count] = file:read(length)
  end
  file:close()
  local accepts = {}
  for status in string.gmatch(args[3] or "", "%d+") do
    accepts[tonumber(status)] = true
  end
  if next(accepts) then
    response = function(status)
      if accepts[status] then accepted = accepted + 1 end
    end
  end
end

function request()
  sent = sent + 1
  if sent > count then
    if not cycles then spent = spent + 1 end
    sent = 1
  end
  return requests[sent]
end

function done(summary, latency)
  local errors = summary.errors
  local accepted, spent = 0, 0
  for _, thread in ipairs(threads) do
    accepted = accepted + thread:get("accepted")
    spent = spent + thread:get("spent")
  end
  io.write(string.format(
    '\n{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"bad_statuses":%d,"accepted":%d,'
      .. '"broken":%d,"timeouts":%d,"spent":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
    accepted, errors.connect + errors.read + errors.write, errors.timeout, spent
  ))
end
