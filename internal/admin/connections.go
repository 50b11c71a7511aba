package admin

import (
	"net/http"
	"strconv"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/multiplex"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// A connection is a connection of sse_multiplex. Paths of streams are not told, as their
// queries may be secret: where a stream is shared, the topic's public name is.
type connection struct {
	Number  uint64    `json:"number"`
	Started time.Time `json:"started"`
	Streams []stream  `json:"streams"`
}

type stream struct {
	Alias  string    `json:"alias"`
	State  string    `json:"state"` // waiting, asking, shared, private or over
	Since  time.Time `json:"since"`
	Topic  string    `json:"topic,omitempty"`
	Events uint64    `json:"events"`
}

func viewOf(s multiplex.Snapshot) connection {
	c := connection{Number: s.Number, Started: s.Started, Streams: make([]stream, 0, len(s.Streams))}
	for _, m := range s.Streams {
		c.Streams = append(c.Streams, stream(m))
	}
	return c
}

func (a API) serveConnections(w http.ResponseWriter, r *http.Request, asked []string) error {
	switch len(asked) {
	case 0:
		if err := allow(w, r, http.MethodGet); err != nil {
			return err
		}
		views := []connection{}
		for _, c := range a.Connections() {
			views = append(views, viewOf(c.Snapshot()))
		}
		return respond(w, views)
	case 1:
		number, err := strconv.ParseUint(asked[0], 10, 64)
		if err != nil {
			return apiError(http.StatusBadRequest, "reading the connection's number %q: it must be a number", asked[0])
		}
		return a.serveConnection(w, r, number)
	}
	return apiError(http.StatusNotFound, "finding %s: a connection is %sconnections/<number>", r.URL.Path, path)
}

func (a API) serveConnection(w http.ResponseWriter, r *http.Request, number uint64) error {
	if err := allow(w, r, http.MethodGet, http.MethodDelete); err != nil {
		return err
	}
	for _, c := range a.Connections() {
		if c.Number() != number {
			continue
		}
		if r.Method == http.MethodDelete {
			c.End(relay.Ending{Reason: relay.EndDeleted})
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		return respond(w, viewOf(c.Snapshot()))
	}
	return apiError(http.StatusNotFound, "finding connection %d: there is none", number)
}
