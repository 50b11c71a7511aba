// Package audience knows what kinds of clients read an event stream, and what each is told
// besides events.
//
// What is added to a stream must be invisible: no client may take it for an event, nor
// lose one for it. By the standard (WHATWG HTML, section 9.2.6, "Interpreting an event
// stream"), a comment is nothing, and a block without data no event. Clients differ.
// Several libraries dispatch an empty event for a block that has an id or a reconnection
// time and no data, and for a comment that is followed by a blank line. Readers that were
// written by hand split at blank lines and look at the first field: what stands in front of
// an event makes them lose it. And the EventSource of some browsers takes an id from nothing
// but an event that it dispatches: to these, a position is an event of a type that no page
// listens to.
package audience

import (
	"net/http"
	"strings"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// A Kind is clients that read what is no event alike.
type Kind uint8

const (
	Browsers    Kind = iota // a browser's own EventSource, which keeps to the standard
	Dispatchers             // one that takes an id from an event alone
	Libraries               // other clients that ask for an event stream
	Readers                 // those that do not ask for one
	Multiplexed             // a connection of several streams, which tells its client in its own words

	// Count is how many kinds there are.
	Count
)

// positionType is the type of the event that is a position to dispatchers.
const positionType = "sse_fanout"

// GapComment is the text of the comment that tells of a gap. No comment of an origin comes so
// far as to be taken for it.
const GapComment = "gap: events may be missing here"

// Of tells by a request who reads the answer. An EventSource asks for an event
// stream alone, past all caches. In doubt, it is not a browser. The option primer may have
// decided it.
func Of(r *http.Request, primer string) Kind {
	accept, cache, pragma := r.Header["Accept"], r.Header["Cache-Control"], r.Header["Pragma"]
	alone := func(values []string, value string) bool { return len(values) == 1 && values[0] == value }
	switch {
	case primer == "on":
		return Browsers
	case primer != "off" && alone(accept, "text/event-stream") && alone(cache, "no-cache") && alone(pragma, "no-cache") &&
		strings.HasPrefix(r.UserAgent(), "Mozilla/"):
		if dispatchesIDs(r.UserAgent()) {
			return Dispatchers
		}
		return Browsers
	}
	if eventStream, _ := fields.Accepted(r.Header); eventStream > 0 {
		return Libraries
	}
	return Readers
}

// dispatchesIDs reports whether a browser's EventSource takes an id from an event alone:
// Firefox's does (seen with 153), and WebKit's by its source.
func dispatchesIDs(agent string) bool {
	has := func(name string) bool { return strings.Contains(agent, name) }
	return has("Firefox/") || has("AppleWebKit/") && has("Safari/") && !has("Chrome/") && !has("Chromium/")
}

// Words returns what each audience is told besides events. The types are of the events that
// are sent in place of a heartbeat's comment and for a gap. Empty ones stand for none.
func Words(heartbeatEvent, gapEvent string) (w [Count]relay.Words) {
	for a := range Count {
		w[a] = relay.Words{
			Heartbeat: sse.AppendComment(nil, ""),
			Gap:       sse.AppendComment(nil, GapComment),
			Primer:    a == Browsers || a == Dispatchers || a == Multiplexed,
			Retry:     a == Libraries,
		}
	}
	// A comment of its own, so that it is not the first line of an event.
	for _, a := range []Kind{Browsers, Dispatchers, Readers} {
		w[a].Heartbeat = append(w[a].Heartbeat, '\n')
	}
	w[Readers].Gap = append(w[Readers].Gap, '\n')
	for a := range Count {
		if heartbeatEvent != "" {
			w[a].Heartbeat = sse.Append(nil, &sse.Event{Type: []byte(heartbeatEvent), HasData: true})
		}
		switch {
		case gapEvent != "":
			w[a].Gap = sse.Append(w[a].Gap, &sse.Event{Type: []byte(gapEvent), HasData: true})
		case w[a].Primer:
			w[a].Gap = append(w[a].Gap, '\n')
		}
	}
	w[Multiplexed].Heartbeat = sse.AppendComment(nil, "") // one of the connection serves all streams
	d := &w[Dispatchers]
	d.Position = []byte("event: " + positionType + "\ndata:\n")
	if gapEvent == "" { // which is an event by itself
		d.GapPosition = d.Position
	}
	return w
}
