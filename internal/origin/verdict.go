package origin

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// Judge returns what an answer with this status and header means.
func Judge(status int, header http.Header) relay.Verdict {
	switch {
	case status == http.StatusOK && fields.IsEventStream(header):
		return relay.Stream
	case status == http.StatusNoContent:
		return relay.Gone
	case status >= 200 && status < 300:
		return relay.NotStream
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly,
		status == http.StatusTooManyRequests, status < 200, status >= 500:
		return relay.Unavailable
	}
	return relay.No
}

// maxRefusalBody is how much of the body of a refusal is shared.
const maxRefusalBody = 64 << 10

// A refusal is an answer of the origin that is not an event stream, kept for
// the clients that wait for it.
type refusal struct {
	verdict     relay.Verdict
	status      int
	header      http.Header
	body        bytes.Buffer
	restriction relay.Restriction // what the answer says against sharing it
}

// RetryAfter returns the delay that a Retry-After header asks for, in seconds
// or as a date (RFC 9110, section 10.2.3), or 0.
func RetryAfter(header http.Header, now time.Time) time.Duration {
	value := header.Get("Retry-After")
	seconds, err := strconv.ParseUint(value, 10, 31)
	switch {
	case err == nil:
		return min(time.Duration(seconds)*time.Second, relay.LongestRetryAfter)
	case errors.Is(err, strconv.ErrRange):
		return relay.LongestRetryAfter
	}
	if date, err := http.ParseTime(value); err == nil {
		return min(max(0, date.Sub(now)), relay.LongestRetryAfter)
	}
	return 0
}
