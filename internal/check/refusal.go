package check

import (
	"errors"
	"net/http"
	"strings"

	"github.com/sse-fanout/caddy-sse-fanout/internal/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/internal/terminal"
)

// refused is about answers that are no event stream, and about none.
func (j *judge) refused() {
	text, fix := j.refusal()
	j.find(Failure, "answer", text+j.redirected(), fix)
}

func (j *judge) refusal() (text, fix string) {
	if errors.Is(j.err, eventsource.ErrStopped) {
		return "204 No Content: by this a server asks clients not to come back, and browsers obey.",
			"If there is to be a stream, look at what decides that there is none."
	}
	if e, ok := errors.AsType[*eventsource.TurnedAwayError](j.err); ok {
		return upperFirst(e.Error()) + ".",
			"Try again then, as browsers do by themselves. If it is sse_fanout, its metric caddy_sse_fanout_rejected_total says which limit: max_subscribers or max_topics."
	}
	if e, ok := errors.AsType[*eventsource.StatusError](j.err); ok {
		fix = "Browsers give up for good on this; a script of the page has to make a new EventSource."
		switch e.Code {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
			fix = "Add what it asks for, as in -H \"Authorization: Bearer …\" or -H \"Cookie: …\". (EventSource itself can send only cookies.)"
		case http.StatusNotFound, http.StatusMethodNotAllowed:
			fix = "Check the path: is it that of the stream, and does it end (or not) in a slash?"
		case http.StatusTooManyRequests, http.StatusServiceUnavailable:
			fix = "The server has no place for another stream. Browsers give up for good on this; sse_fanout needs one place for all of them."
		case http.StatusBadGateway, http.StatusGatewayTimeout:
			fix = "The proxy gets no answer from the server behind it: is it running, and does it send its header at once?"
		}
		return e.Error() + ".", fix
	}
	if e, ok := errors.AsType[*eventsource.TypeError](j.err); ok {
		fix = "Send \"Content-Type: text/event-stream\"; browsers refuse everything else."
		if strings.HasPrefix(e.ContentType, "text/html") {
			fix = "This looks like a page: check the path, and whether a login page is in the way. A stream is sent with \"Content-Type: text/event-stream\"."
		}
		if e.Encoding != "" {
			fix = "The server ignores Accept-Encoding; leave event streams out of compression."
		}
		return upperFirst(e.Error()) + ".", fix
	}
	fix = "Check host, port and scheme, and whether the server is running."
	if text := j.err.Error(); strings.Contains(text, "certificate") || strings.Contains(text, "x509") {
		fix = "Browsers refuse this certificate as well. --insecure goes on without checking it."
	}
	return "No connection: " + j.err.Error() + ".", fix
}

// redirected tells where something went wrong if that is not the URL that was
// asked for.
func (j *judge) redirected() string {
	list := j.report.Connection.Redirects
	if len(list) == 0 {
		return ""
	}
	return " The request had been redirected to " + terminal.Clip(list[len(list)-1], 200) + "."
}
