package ssefanout

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

func TestAssignedIDsLetClientsResume(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{IDs: "assign", Catchup: Catchup{Connections: -1}})
		c := s.get("/events")
		up := s.origin.next().accept().send("data: a\n\ndata: b\n\n")
		_, text, _ := strings.Cut(c.read(), "\n\n")
		events := strings.SplitAfter(text, "\n\n")
		id := strings.TrimPrefix(strings.SplitN(events[0], "\n", 2)[0], "id: ")
		if !strings.HasPrefix(id, relay.AssignedPrefix) || len(id) > 128 {
			t.Fatalf("the first event has id %q", id)
		}
		c.leave()
		up.send("data: c\n\n")
		c = s.get("/events", "Last-Event-ID", id)
		got := c.read()
		if !strings.HasPrefix(got, primer(id)) || !strings.Contains(got, "data: b\n\n") ||
			!strings.Contains(got, "data: c\n\n") || strings.Contains(got, "data: a\n\n") {
			t.Errorf("a client that resumes with %q got %q", id, got)
		}

		// Ids of ours never go to the origin.
		up.abort()
		time.Sleep(time.Second)
		if up = s.origin.next(); up.request.Header.Get("Last-Event-ID") != "" {
			t.Errorf("the origin was asked with %q", up.request.Header.Get("Last-Event-ID"))
		}
	})
}

// A reload that leaves the handler as it was leaves the ids, too; to a handler that
// was changed they are unknown.
func TestAssignedIDsOverReloads(t *testing.T) {
	for _, changed := range []bool{false, true} {
		t.Run(fmt.Sprintf("changed %t", changed), func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{IDs: "assign"})
				c := s.get("/events")
				up := s.origin.next().accept().send("data: a\n\n")
				_, text, _ := strings.Cut(c.read(), "\n\n")
				id := strings.TrimPrefix(strings.SplitN(text, "\n", 2)[0], "id: ")
				if changed {
					s.lineageName += " changed"
				}
				after := s.reload(Options{IDs: "assign"}, newOrigin(t))
				if changed {
					after.resolve()
				}
				s.cleanup()
				if !changed {
					up.send("data: b\n\n")
					late := after.get("/events", "Last-Event-ID", id)
					if got := late.read(); !strings.HasPrefix(got, primer(id)) || !strings.HasSuffix(got, "data: b\n\n") || strings.Contains(got, "gap") {
						t.Errorf("a client that resumes with %q got %q", id, got)
					}
					return
				}
				late := after.get("/events", "Last-Event-ID", id)
				up = after.origin.next()
				if got := up.request.Header.Get("Last-Event-ID"); got != "" {
					t.Errorf("the origin was asked with %q", got)
				}
				up.accept()
				late.expect(": sse_fanout\nretry: 3000\nid: \n" + gapComment)
			})
		})
	}
}

func TestAssignedIDOfAnotherEpochIsAGap(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{IDs: "assign"})
		cold := s.get("/events", "Last-Event-ID", relay.AssignedPrefix+"ANOTHER:5")
		up := s.origin.next()
		if up.request.Header.Get("Last-Event-ID") != "" {
			t.Errorf("the origin was asked with %q", up.request.Header.Get("Last-Event-ID"))
		}
		up.accept()
		cold.expect(": sse_fanout\nretry: 3000\nid: \n" + gapComment)
		late := s.get("/events", "Last-Event-ID", relay.AssignedPrefix+"ANOTHER:5")
		late.expect(": sse_fanout\nretry: 3000\nid: \n" + gapComment)
		s.origin.idle()
	})
}

func TestAssignLeavesTheOriginsIDs(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{IDs: "assign"})
		s.joinLive(1, 3)
	})
}
