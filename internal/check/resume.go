package check

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// resumeTimeout is how long the second connection may take to bring its first
// event.
const resumeTimeout = 5 * time.Second

// resumeFrom is how many events from the end the second connection begins.
const resumeFrom = 5

// A resumption is what came of a second connection with an id.
type resumption struct {
	from, want, got string // ids
	err             error
}

// resume asks for what followed an event that has been seen, as a client that
// lost its connection there would.
func (c *Check) resume(ctx context.Context, ids []string) *resumption {
	i := max(0, len(ids)-1-resumeFrom)
	r := &resumption{from: ids[i]}
	if i+1 < len(ids) {
		r.want = ids[i+1]
	}
	client := c.Client
	client.LastEventID = r.from
	o := observe(ctx, client, resumeTimeout, new(progress), func(e *sse.Event) bool {
		if e.HasID && len(e.ID) > 0 && !isHeartbeat(e) {
			r.got = string(e.ID)
		}
		return r.got != ""
	})
	r.err = o.err
	return r
}

func (j *judge) resuming() {
	r := j.resumed
	switch {
	case j.events == 0:
		j.unseen("ids, and what happens to a client that comes back")
	case j.withID == 0:
		j.find(Warning, "resume", "Events have no ids, so a browser that reconnects misses what was sent in between.",
			"Send an id with each event and honour Last-Event-ID; in Caddy, sse_fanout with \"ids assign\" does both for you.")
	case r == nil:
		j.unseen("whether a client that comes back gets what it missed")
	case eventsource.IsTurnedAway(r.err):
		j.unseen("whether a client that comes back gets what it missed: " + r.err.Error())
	case r.err != nil:
		j.find(Warning, "resume", fmt.Sprintf("A second connection, with Last-Event-ID %s, was refused: %s.", quoted(r.from), r.err),
			"Browsers give up for good on that; let the server ignore an id that it cannot use, and allow enough connections.")
	case r.got == "":
		if r.want == "" {
			j.unseen("whether a client that comes back gets what it missed: there was only one id to come back with")
			return
		}
		j.find(Warning, "resume", fmt.Sprintf("Asked to go on after %s, the server sent nothing within %s, though more had followed.", quoted(r.from), resumeTimeout),
			resumeFix)
	case r.want == "":
		if r.got == r.from {
			j.find(Warning, "resume", fmt.Sprintf("Asked to go on after %s, the server sent that event again.", quoted(r.from)), resumeFix)
			return
		}
		j.unseen("whether a client that comes back gets all that it missed: there was only one id to come back with")
	case r.got == r.want:
		j.find(OK, "resume", fmt.Sprintf("Asked to go on after %s, the server went on with %s, as it should.", quoted(r.from), quoted(r.got)), "")
	case slices.Contains(j.ids[:slices.Index(j.ids, r.want)], r.got):
		j.find(Warning, "resume", fmt.Sprintf("Asked to go on after %s, the server began again with %s: clients see events twice.", quoted(r.from), quoted(r.got)), resumeFix)
	default:
		j.find(Warning, "resume", fmt.Sprintf("Asked to go on after %s, the server went on with %s, not with %s: clients that reconnect miss events.",
			quoted(r.from), quoted(r.got), quoted(r.want)), resumeFix)
	}
}

const resumeFix = "Honour Last-Event-ID, or let sse_fanout do it: it remembers the last 1000 events, and needs only their ids."
