package ssefanout

import (
	"bytes"
	"errors"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// judge returns what an answer with this status and header means.
func judge(status int, header http.Header) relay.Verdict {
	switch {
	case status == http.StatusOK && isEventStream(header):
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

// isEventStream looks at the media type alone: parameters such as a charset do
// not matter, as an event stream is always UTF-8.
func isEventStream(header http.Header) bool {
	mediaType, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		mediaType, _, _ = strings.Cut(header.Get("Content-Type"), ";")
	}
	return strings.EqualFold(strings.TrimSpace(mediaType), "text/event-stream")
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

// answerRefusal answers a client with the origin's no.
func answerRefusal(w http.ResponseWriter, r *http.Request, no *relay.Outcome, cors *corsPolicy) error {
	header := w.Header()
	header.Del("Server") // as reverse_proxy does, for it is not Caddy's answer
	copyHeader(header, no.Header)
	cors.apply(header, r)
	if no.Status == http.StatusNoContent || no.Status == http.StatusNotModified {
		w.WriteHeader(no.Status)
		return nil
	}
	header.Set("Content-Length", strconv.Itoa(len(no.Body)))
	w.WriteHeader(no.Status)
	_, _ = w.Write(no.Body) // the header is out: there is no error to tell
	return nil
}

// unsharedHeaders are never taken from an answer of the origin, as it goes to
// many clients and its body is ours: what is meant for one client (cookies,
// authentication), for one connection (RFC 9110, section 7.6.1), or describes
// the origin's bytes.
var unsharedHeaders = headerSet(`
	Set-Cookie Set-Cookie2 Clear-Site-Data
	WWW-Authenticate Authentication-Info Proxy-Authenticate
	Proxy-Authentication-Info Authorization Authentication-Control
	Optional-WWW-Authenticate

	Connection Keep-Alive Proxy-Connection TE Trailer Transfer-Encoding Upgrade
	Alt-Svc

	Accept-Ranges Content-Digest Content-Encoding Content-Length Content-MD5
	Content-Range Digest ETag Last-Modified Repr-Digest Age Expires Date
`)

// copyHeader sets what is shared in the header of one client, which handlers in
// front may go on to change.
func copyHeader(to, shared http.Header) {
	for name, values := range shared {
		to[name] = slices.Clone(values)
	}
}

// sharedHeaders returns what of an answer's header goes to every client.
func sharedHeaders(header http.Header) http.Header {
	shared := make(http.Header, len(header))
	nominated := header["Connection"]
	for name, values := range header {
		if !unsharedHeaders[canonicalHeader(name)] && !nominates(nominated, name) {
			shared[name] = values
		}
	}
	return shared
}

// nominates reports whether a Connection header names another header, which is
// then for that connection only.
func nominates(connection []string, name string) bool {
	for _, value := range connection {
		for option := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(option), name) {
				return true
			}
		}
	}
	return false
}

// retryAfter returns the delay that a Retry-After header asks for, in seconds
// or as a date (RFC 9110, section 10.2.3), or 0.
func retryAfter(header http.Header, now time.Time) time.Duration {
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
