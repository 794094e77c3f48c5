package kafka

import (
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// QuotaFunc says how long a client is to be throttled after a request of bytes; zero for not at all. It is called once per
// request in the order of arrival and must not block.
type QuotaFunc func(api string, clientID string, bytes int) time.Duration

// throttle asks the quota. The answer goes out at once with ThrottleTimeMs, and the connection reads nothing for that time
// (KIP-219). Responses without the field are delayed just the same.
func (s *Server) throttle(r *request) time.Duration {
	if s.opts.Quota == nil {
		return 0
	}
	d := s.opts.Quota(r.route.name, r.clientID, r.size)
	if d > 0 {
		s.met.throttled(r.route)
		r.throttle = d
	}
	return d
}

// setThrottle puts the throttle time into a response that has the field.
func setThrottle(resp kmsg.Response, d time.Duration) {
	if t, ok := resp.(kmsg.SetThrottleResponse); ok && d > 0 {
		t.SetThrottle(int32(min(d.Milliseconds(), 1<<31-1)))
	}
}
