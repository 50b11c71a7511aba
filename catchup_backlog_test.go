package ssefanout

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

// Clients that bring old ids and do not read what they get hold a bounded amount of
// memory together. Whoever is ended for it goes on where it was, and who holds little
// pays for nobody else.
func TestUnreadCatchupsAreBounded(t *testing.T) {
	const events = 20
	bothWriters(t, func(t *testing.T) {
		// About what a log knows of an event beside its bytes is counted, too.
		const overhead = 200
		one := len(numbered(100, 100+events-1)) + events*overhead
		s := newSetupWithBacklog(t, Options{
			Heartbeat:    Heartbeat{Interval: -1},
			History:      History{Size: 8 << 10},
			MaxEventSize: 1 << 10,
		}, 5*one)
		s.joinLive(1000, 1001)
		come := func(ip string, id int, stalled bool) *client {
			t.Helper()
			c := s.getFrom(ip, "/events", "Last-Event-ID", fmt.Sprint(id))
			c.expect(primer(fmt.Sprint(id)))
			if stalled {
				c.stall()
			}
			s.origin.next().accept().events(id+1, id+events-1).events(1000, 1000)
			return c
		}
		slow := come("203.0.113.1", 100, true) // first of all, but alone
		var crowd []*client
		for i := range 20 {
			crowd = append(crowd, come("203.0.113.2", 200+20*i, true))
		}
		reads := come("203.0.113.2", 900, false)
		if held := s.pool.relay.Holdings().BacklogBytes; held > 5*one {
			t.Errorf("%d bytes are held, want %d at most", held, 5*one)
		}
		reads.expect(numbered(901, 919) + numbered(1000, 1001))

		backlog := func(id int) (kept bool) {
			return slices.Contains(s.pool.relay.Holdings().Backlogs, fmt.Sprint(id))
		}
		if !backlog(100) || backlog(200) || !backlog(580) {
			t.Errorf("kept are 100: %t, 200: %t, 580: %t; want the only one of an address, and the newest of the other",
				backlog(100), backlog(200), backlog(580))
		}
		time.Sleep(100 * time.Millisecond)
		if !crowd[0].ended() || crowd[19].ended() || slow.ended() {
			t.Error("a write goes on whose catch-up was dropped, or another was cut")
		}
		time.Sleep(time.Minute) // until writes time out
		for _, c := range append(crowd, slow) {
			if !c.ended() {
				t.Error("a client that does not read goes on")
			}
		}
	})
}

// A client whose catch-up was dropped is ended. It is never continued behind what it has
// not got.
func TestDroppedCatchupIsNoGap(t *testing.T) {
	for _, full := range []bool{false, true} {
		t.Run(fmt.Sprint("full ", full), func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				opts := Options{
					Heartbeat:    Heartbeat{Interval: -1},
					History:      History{Size: 1 << 10},
					MaxEventSize: 1 << 10,
				}
				if full {
					opts.History.Size = 250
				}
				s := newSetupWithBacklog(t, opts, 1)
				s.joinLive(40, 41)
				slow := s.getFrom("203.0.113.1", "/events", "Last-Event-ID", "7")
				slow.expect(primer("7"))
				slow.take(time.Second)
				catchup := s.origin.next().accept().events(8, 9)
				if !full {
					catchup.events(10, 40)
				} else {
					catchup.events(10, 20)
				}
				other := s.getFrom("203.0.113.2", "/events", "Last-Event-ID", "38")
				other.take(time.Second)
				s.origin.next().accept().events(39, 40)
				time.Sleep(time.Minute)
				// Its write is cut, in which it may have one event or both.
				if got := slow.read(); !slow.ended() || !strings.HasPrefix(numbered(8, 9), got) {
					t.Errorf("got %q, ended %t; want 8 and 9 at most, and the end", got, slow.ended())
				}
				if got := s.logs.FilterMessageSnippet("too slow to read what they have missed").FilterField(zap.Uint64("catch_ups", 1)).Len(); got != 1 {
					t.Errorf("%d lines in the log, want 1", got)
				}
			})
		})
	}
}
