package ssefanout

import (
	"bytes"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// decoded returns what a page would get of a stream: the events that are
// dispatched, each with the last event id in force.
func decoded(stream string) (events []string) {
	id := ""
	d := sse.NewDecoder(1<<20, func(e *sse.Event) {
		if e.HasID {
			id = string(e.ID)
		}
		if e.HasData {
			events = append(events, id+"\x00"+string(e.Type)+"\x00"+string(e.Data))
		}
	})
	_, _ = d.Write([]byte(stream))
	return events
}

// FuzzStream sends arbitrary bytes from the origin in arbitrary writes through
// the whole handler, to clients with an arbitrary last event id. Whatever they
// are, each client must see the events that it would have seen on a connection of
// its own, whole and in order, and nothing may be left behind.
func FuzzStream(f *testing.F) {
	f.Add([]byte("id: 1\ndata: a\n\nid: 2\r\ndata: b\r\rdata: half"), "", uint64(0))
	f.Add([]byte("\xef\xbb\xbfdata\n\nid:\x00\ndata: \xff\n\nretry: 10\n\nevent: x\n\n"), "1", uint64(1))
	f.Add([]byte(strings.Repeat("data: x\n", 100)+"\nid: 7\n\n: comment\n\ndata:y\n\n"), "7", uint64(2))
	f.Add([]byte("id: 5\ndata: a\n\nid: 5\ndata: b\n\n"), "5", uint64(3))
	f.Fuzz(func(t *testing.T, stream []byte, lastEventID string, seed uint64) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			s := newSetup(t, Options{Catchup: Catchup{Connections: -1}})
			live := s.get("/events")
			r := httptest.NewRequest(http.MethodGet, "/events", nil)
			r.Header["Last-Event-Id"] = []string{lastEventID}
			up := s.origin.next().accept()
			resuming := s.serve(r)
			for rest := stream; len(rest) > 0; {
				n := 1 + rng.IntN(len(rest))
				up.send(string(rest[:n]))
				rest = rest[n:]
			}
			unknown := "x"
			for bytes.Contains(stream, []byte(unknown)) {
				unknown += "x"
			}
			late := s.get("/events?lastEventId=" + unknown)

			want := decoded(string(stream))
			if got := decoded(live.read()); !slices.Equal(got, want) {
				t.Errorf("a client got %q, want %q", got, want)
			}
			// Its id is not in the log, or is the empty one: it is live, too.
			if got := decoded(resuming.read()); len(got) != len(want) {
				t.Errorf("a client that resumes got %d events, want %d", len(got), len(want))
			}
			if got := late.read(); !strings.Contains(got, "gap") {
				t.Errorf("a client with an unknown id got %q, want a gap", got)
			}
			if n := s.origin.most.Load(); n != 1 {
				t.Errorf("%d connections to the origin", n)
			}
		})
	})
}
