-- Requests in turns from a file, and the result as one line of JSON.
-- wrk ... -s post.lua URL -- METHOD FILE: one body a line; an empty line is a request without one.
local requests, at = {}, 0

function init(args)
  for line in io.lines(args[2]) do
    requests[#requests + 1] = wrk.format(args[1], nil, nil, #line > 0 and line or nil)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%.6f,"failed":%d,"p50":%.6f,"p99":%.6f}\n',
    summary.requests, summary.duration / 1e6,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
