package ssefanout

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/audience"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

const firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0"

// getAs makes a request of an audience.
func (s *setup) getAs(a audience.Kind, target string, header ...string) *client {
	s.t.Helper()
	as := map[audience.Kind][]string{audience.Dispatchers: {"User-Agent", firefox}, audience.Libraries: {"User-Agent", "library"}, audience.Readers: {"User-Agent", "reader", "Accept", "*/*"}}
	return s.get(target, append(as[a], header...)...)
}

// What each audience is told besides events, to the byte.
func TestWordsOfEachAudience(t *testing.T) {
	type said struct{ start, startAt7, heartbeat, first, gap, gapAt8 string }
	comment := strings.TrimSuffix(gapComment, "\n")
	for a, want := range map[audience.Kind]said{
		audience.Browsers: {
			start: primer(""), startAt7: primer("7"), heartbeat: heartbeat, gap: gapComment,
			gapAt8: ": sse_fanout\nretry: 1000\nid: 9\n" + gapComment,
		},
		audience.Dispatchers: {
			start: primer(""), startAt7: ": sse_fanout\nretry: 3000\nid: 7\nevent: sse_fanout\ndata:\n\n", heartbeat: heartbeat, gap: gapComment,
			gapAt8: ": sse_fanout\nretry: 1000\nid: 9\nevent: sse_fanout\ndata:\n" + gapComment,
		},
		audience.Libraries: {heartbeat: ":\n", first: "retry: 1000\n", gap: comment, gapAt8: comment},
		audience.Readers:   {heartbeat: heartbeat, gap: gapComment, gapAt8: gapComment},
	} {
		t.Run(fmt.Sprint(a), func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{Catchup: noCatchup, Linger: Linger{Duration: caddy.Duration(time.Hour)}})
				c := s.getAs(a, "/events")
				up := s.origin.next().accept()
				c.expect(want.start)
				if c.expectStatus(http.StatusOK); !c.headerIsOut() {
					t.Error("the header is held back")
				}
				time.Sleep(settings.DefaultHeartbeat)
				c.expect(want.heartbeat)
				up.events(7, 7)
				c.expect(numbered(7, 7))
				c.leave()
				s.getAs(a, "/events", "Last-Event-ID", "7").expect(want.startAt7)

				up.send("retry: 1000\n\n").abort()
				s.origin.denyID(chokes["410"])
				up = s.origin.await().accept()
				c = s.getAs(a, "/events")
				c.read()
				up.events(9, 9)
				c.expect(want.first + numbered(9, 9))
				late := s.getAs(a, "/events", "Last-Event-ID", "8")
				late.expect(want.gapAt8)
				up.events(10, 10)
				late.expect(want.first + numbered(10, 10))
				up.events(11, 11)
				late.expect(numbered(11, 11))

				all := s.getAs(a, "/events", "Last-Event-ID", "7")
				retry := "retry: 1000\n\n" // the origin's own
				if got := all.read(); !strings.HasSuffix(got, retry+want.gap+numbered(9, 11)) {
					t.Errorf("got %q, want the gap where it was", got)
				}
			})
		})
	}
}

// To a browser that takes ids from events alone, the event that tells of a gap has one.
func TestPositionInAGapEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{Catchup: noCatchup, GapEvent: "missed"})
		s.joinLive(9, 9)
		s.getAs(audience.Dispatchers, "/events", "Last-Event-ID", "8").expect(
			": sse_fanout\nretry: 3000\nid: 9\n" + strings.TrimSuffix(gapComment, "\n") + "event: missed\ndata: \n\n")
	})
}

// A greeting is the first that a client without a primer gets.
func TestGreetingOfEachAudience(t *testing.T) {
	for a, before := range map[audience.Kind]string{audience.Browsers: ": sse_fanout\nretry: 7000\n\n", audience.Libraries: "retry: 7000\n", audience.Readers: ""} {
		bothWriters(t, func(t *testing.T) {
			s := newSetup(t, Options{Greeting: "1", Retry: caddy.Duration(7 * time.Second)})
			s.get("/events")
			up := s.origin.next().accept().events(1, 3)
			c := s.getAs(a, "/events")
			c.expect(before + numbered(1, 3))
			up.events(4, 4)
			c.expect(numbered(4, 4))
		})
	}
}

// headerIsOut reports whether the header was flushed.
func (c *client) headerIsOut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flushes > 0
}

// What eager clients dispatch for a stream: libraries among them take a block without data
// for an event if it has an id or a reconnection time, or if an id is known.
func eagerly(stream string) (dispatched []string) {
	known := false
	blocks := strings.Split(stream, "\n\n")
	for _, block := range blocks[:len(blocks)-1] {
		var fields []string
		for line := range strings.SplitSeq(block, "\n") {
			if line != "" && !strings.HasPrefix(line, ":") && !strings.HasPrefix(line, "retry:") {
				fields = append(fields, line)
			}
			known = known || strings.HasPrefix(line, "id:")
		}
		if block != "" && (known || len(fields) > 0) || strings.HasPrefix(block, "retry:") {
			dispatched = append(dispatched, strings.Join(fields, "|"))
		}
	}
	return dispatched
}

// What hand-written readers make of a stream: they split it at blank lines, and look at
// the first field.
func naively(stream string) (dispatched []string) {
	for block := range strings.SplitSeq(stream, "\n\n") {
		if name, _, _ := strings.Cut(block, ":"); name == "data" || name == "id" {
			dispatched = append(dispatched, block)
		}
	}
	return dispatched
}

// Whatever happens, no client sees an event that the origin has not sent, nor misses one.
func TestWhatIsAddedIsInvisible(t *testing.T) {
	const last = "id: 7\nretry: 100\ndata: event 7\n\n"
	for a, dispatch := range map[audience.Kind]func(string) []string{audience.Libraries: eagerly, audience.Readers: naively} {
		for name, first := range map[string][]string{"fresh": nil, "resuming": {"Last-Event-ID", "3"}, "with an unknown id": {"Last-Event-ID", "x"}} {
			t.Run(fmt.Sprint(a, ", ", name), func(t *testing.T) {
				bothWriters(t, func(t *testing.T) {
					s := newSetup(t, Options{MaxSubscribers: SubscriberLimits{PerTopic: 2}})
					other, _ := s.get("/events"), 0
					up := s.origin.next().accept().events(1, 3)
					c := s.getAs(a, "/events", first...)
					s.origin.keepAnswering(time.Minute, func(c *conn) { // a catch-up, and a quiet minute
						c.answer(http.StatusGone).end()
					})
					up.events(4, 4).abort()
					s.origin.await().answer(http.StatusGone).end() // the origin restarts, and cannot go on from there
					up = s.origin.await().accept()
					time.Sleep(time.Minute)
					up.events(5, 6)
					time.Sleep(time.Minute)
					up.send(last)
					turnedAway := s.getAs(a, "/events")
					time.Sleep(time.Minute)
					s.onlyTopic().Conclude(relay.Ending{Reason: relay.EndDrained})
					synctest.Wait()

					if got, want := dispatch(c.all()), dispatch(numbered(4, 6)+last); !slices.Equal(got, want) {
						t.Errorf("a client dispatches %q for %q, want %q", got, c.all(), want)
					}
					if !c.ended() || !turnedAway.ended() || turnedAway.all() != "" {
						t.Errorf("ended %t, turned away %t with %q", c.ended(), turnedAway.ended(), turnedAway.all())
					}
					other.leave()
				})
			})
		}
	}
}
