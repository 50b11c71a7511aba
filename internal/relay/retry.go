package relay

import (
	"strconv"
	"time"
)

// AppendRetryField appends a field that sets the client's reconnection time.
func AppendRetryField(b []byte, d time.Duration) []byte {
	b = append(b, "retry: "...)
	b = strconv.AppendInt(b, d.Milliseconds(), 10)
	return append(b, '\n')
}

// reconnectionTime is what clients are told: the operator's word, else the
// origin's, else what browsers do by themselves.
func (t *Topic) reconnectionTime() time.Duration {
	if d, said := t.saidRetry(); said {
		return d
	}
	return DefaultRetry
}

// DefaultRetry is what an EventSource is told as its reconnection time if nobody has
// named one: about what browsers do by themselves (WHATWG HTML, section 9.2.2, leaves it
// to them, "probably in the region of a few seconds").
const DefaultRetry = 3 * time.Second

// saidRetry returns the reconnection time that the operator or the origin has named.
func (t *Topic) saidRetry() (d time.Duration, said bool) {
	if d = t.relay.cfg.Retry; d > 0 {
		return d, true
	}
	d = time.Duration(t.follower.retry.Load())
	return d, d >= 0
}
