package ssefanout

import (
	"net/http"
	"strings"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/multiplex"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// What is added to a stream must be invisible: no client may take it for an event, nor
// lose one for it. By the standard (WHATWG HTML, section 9.2.6, "Interpreting an event
// stream"), a comment is nothing, and a block without data no event. Clients differ.
// Several libraries dispatch an empty event for a block that has an id or a reconnection
// time and no data, and for a comment that is followed by a blank line. Readers that were
// written by hand split at blank lines and look at the first field: what stands in front of
// an event makes them lose it. And the EventSource of some browsers takes an id from nothing
// but an event that it dispatches: to these, a position is an event of a type that no page
// listens to.

// An audience is clients that read what is no event alike.
type audience uint8

const (
	browsers    audience = iota // a browser's own EventSource, which keeps to the standard
	dispatchers                 // one that takes an id from an event alone
	libraries                   // other clients that ask for an event stream
	readers                     // those that do not ask for one
	multiplexed                 // a connection of several streams, which tells its client in its own words
	audiences
)

// positionType is the type of the event that is a position to dispatchers.
const positionType = "sse_fanout"

// audienceOf tells by a request who reads the answer. An EventSource asks for an event
// stream alone, past all caches. In doubt, a client is none.
func (o *Options) audienceOf(r *http.Request) audience {
	accept, cache, pragma := r.Header["Accept"], r.Header["Cache-Control"], r.Header["Pragma"]
	alone := func(values []string, value string) bool { return len(values) == 1 && values[0] == value }
	switch {
	case o.Primer == "on":
		return browsers
	case o.Primer != "off" && alone(accept, "text/event-stream") && alone(cache, "no-cache") && alone(pragma, "no-cache") &&
		strings.HasPrefix(r.UserAgent(), "Mozilla/"):
		if dispatchesIDs(r.UserAgent()) {
			return dispatchers
		}
		return browsers
	}
	if eventStream, _ := fields.Accepted(r.Header); eventStream > 0 {
		return libraries
	}
	return readers
}

// dispatchesIDs reports whether a browser's EventSource takes an id from an event alone:
// Firefox's does (seen with 153), and WebKit's by its source.
func dispatchesIDs(agent string) bool {
	has := func(name string) bool { return strings.Contains(agent, name) }
	return has("Firefox/") || has("AppleWebKit/") && has("Safari/") && !has("Chrome/") && !has("Chromium/")
}

// wordsFor returns what each audience is told besides events.
func wordsFor(o *Options) (w [audiences]relay.Words) {
	const missing = "gap: events may be missing here"
	for a := range audiences {
		w[a] = relay.Words{
			Heartbeat: sse.AppendComment(nil, o.Heartbeat.Comment),
			Gap:       sse.AppendComment(nil, missing),
			Primer:    a == browsers || a == dispatchers || a == multiplexed,
			Retry:     a == libraries,
		}
	}
	// A comment of its own, so that it is not the first line of an event.
	for _, a := range []audience{browsers, dispatchers, readers} {
		w[a].Heartbeat = append(w[a].Heartbeat, '\n')
	}
	w[readers].Gap = append(w[readers].Gap, '\n')
	for a := range audiences {
		if o.Heartbeat.Event != "" {
			w[a].Heartbeat = sse.Append(nil, &sse.Event{Type: []byte(o.Heartbeat.Event), HasData: true})
		}
		switch {
		case o.GapEvent != "":
			w[a].Gap = sse.Append(w[a].Gap, &sse.Event{Type: []byte(o.GapEvent), HasData: true})
		case w[a].Primer:
			w[a].Gap = append(w[a].Gap, '\n')
		}
	}
	var gap []byte
	if o.GapEvent != "" {
		gap = sse.Append(nil, &sse.Event{Type: []byte(o.GapEvent), HasData: true})
	}
	// One heartbeat serves all streams of a connection: those of topics are not sent.
	w[multiplexed].Heartbeat, w[multiplexed].Gap = sse.AppendComment(nil, ""), multiplex.GapWords(gap)
	d := &w[dispatchers]
	d.Position = []byte("event: " + positionType + "\ndata:\n")
	if o.GapEvent == "" { // which is an event by itself
		d.GapPosition = d.Position
	}
	return w
}
