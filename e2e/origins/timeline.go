// Package origins holds the event-stream servers that the tests put behind
// Caddy: those in Go, and beside them the scripts in other languages.
package origins

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Interval lies between two events of the timeline. The scripts know it too.
const Interval = 50 * time.Millisecond

// A Timeline is a stream whose event n happens at Epoch + n*Interval.
type Timeline struct {
	Epoch time.Time
}

// At is when event n happens.
func (tl Timeline) At(n int) time.Time {
	return tl.Epoch.Add(time.Duration(n) * Interval)
}

// first is the event that a new connection begins with: the one after the
// client's last, else the next to happen.
func (tl Timeline) first(lastEventID string) int {
	newest := int(time.Since(tl.Epoch) / Interval)
	if last, err := strconv.Atoi(lastEventID); err == nil && last > 0 && last < newest {
		return last + 1
	}
	return newest + 1
}

// serve streams the timeline until the client leaves. Each event is
// encoded and flushed on its own.
func (tl Timeline) serve(w http.ResponseWriter, r *http.Request, enc Encoding) {
	w.Header().Set("Content-Type", "text/event-stream")
	if enc.Name != "" {
		w.Header().Set("Content-Encoding", enc.Name)
	}
	encoder := enc.New(w)
	rc := http.NewResponseController(w)
	if rc.Flush() != nil {
		return
	}
	for n := tl.first(r.Header.Get("Last-Event-ID")); ; n++ {
		select {
		case <-r.Context().Done():
			return
		case <-time.After(time.Until(tl.At(n))):
		}
		fmt.Fprintf(encoder, "id: %d\ndata: {\"n\":%d}\n\n", n, n)
		if encoder.Flush() != nil || rc.Flush() != nil {
			return
		}
	}
}

// Handler serves the timeline in an encoding, whether or not the client
// accepts it, as origins with a compressing middleware of their own do.
func (tl Timeline) Handler(enc Encoding) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tl.serve(w, r, enc)
	})
}
