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
)

// A verdict is what the answer to an upstream request means for its topic.
type verdict int

const (
	// verdictUnavailable: no answer, a broken one, or one that says to try
	// again. The origin is retried for ever.
	verdictUnavailable verdict = iota
	// verdictStream: an event stream.
	verdictStream
	// verdictGone: 204, EventSource's polite stop.
	verdictGone
	// verdictNotStream: a success of another type.
	verdictNotStream
	// verdictNo: the origin refuses.
	verdictNo
	// verdictElsewhere: the site does not lead strangers to the handler.
	verdictElsewhere
	// verdictPersonal: an event stream that is not for all clients of its topic.
	verdictPersonal
)

func (v verdict) String() string {
	return [...]string{"unavailable", "event stream", "gone", "not an event stream", "refused", "strangers are led elsewhere", "personal"}[v]
}

// judge returns what an answer with this status and header means.
func judge(status int, header http.Header) verdict {
	switch {
	case status == http.StatusOK && isEventStream(header):
		return verdictStream
	case status == http.StatusNoContent:
		return verdictGone
	case status >= 200 && status < 300:
		return verdictNotStream
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly,
		status == http.StatusTooManyRequests, status < 200, status >= 500:
		return verdictUnavailable
	}
	return verdictNo
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

// blamesID reports whether the id that a request carried may be the reason for
// its answer. Gateways and balancers speak for an origin that is away, and that
// is nobody's fault.
func blamesID(v verdict, status int) bool {
	if v == verdictElsewhere {
		return false // the site does not see the id
	}
	return v != verdictStream && v != verdictUnavailable || status == http.StatusInternalServerError
}

// maxRefusalBody is how much of the body of a refusal is shared.
const maxRefusalBody = 64 << 10

// A refusal is an answer of the origin that is not an event stream, kept for
// the clients that wait for it.
type refusal struct {
	verdict verdict
	status  int
	header  http.Header
	body    bytes.Buffer

	// front says why the site has not led the stranger to the handler.
	front string

	// restriction is what the answer says against sharing it.
	restriction restriction

	// unhandled says that nothing stands behind a handler of the wrapping form.
	unhandled bool
}

// serve answers a client that has waited with the origin's no, or says that its
// own request must pass.
func (f *refusal) serve(w http.ResponseWriter, r *http.Request, opts *Options) error {
	switch {
	case f.verdict == verdictNotStream:
		return passNotStream
	case f.isPersonal(opts):
		return f.restriction.err()
	case opts.wrapping:
		return passRefused
	}
	header := w.Header()
	header.Del("Server") // as reverse_proxy does, for it is not Caddy's answer
	copyHeader(header, f.header)
	opts.cors.apply(header, r)
	if f.status == http.StatusNoContent || f.status == http.StatusNotModified {
		w.WriteHeader(f.status)
		return nil
	}
	header.Set("Content-Length", strconv.Itoa(f.body.Len()))
	w.WriteHeader(f.status)
	_, _ = w.Write(f.body.Bytes()) // the header is out: there is no error to tell
	return nil
}

// isPersonal reports whether f is not for all who wait for it. In the wrapping
// form, a no is for none of them anyway.
func (f *refusal) isPersonal(opts *Options) bool {
	switch f.verdict {
	case verdictPersonal:
		return true
	case verdictNo, verdictGone:
		return !opts.wrapping && f.restriction.applies()
	default:
		return false
	}
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

// longestRetryAfter bounds what an origin can make its clients wait.
const longestRetryAfter = time.Hour

// retryAfter returns the delay that a Retry-After header asks for, in seconds
// or as a date (RFC 9110, section 10.2.3), or 0.
func retryAfter(header http.Header, now time.Time) time.Duration {
	value := header.Get("Retry-After")
	seconds, err := strconv.ParseUint(value, 10, 31)
	switch {
	case err == nil:
		return min(time.Duration(seconds)*time.Second, longestRetryAfter)
	case errors.Is(err, strconv.ErrRange):
		return longestRetryAfter
	}
	if date, err := http.ParseTime(value); err == nil {
		return min(max(0, date.Sub(now)), longestRetryAfter)
	}
	return 0
}
