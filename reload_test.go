package ssefanout

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/carrier"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// reload provisions a handler of a new configuration beside that of s, and
// cleans the old one up unless both are to be kept.
func (s *setup) reload(opts Options, source *fakeOrigin) *setup {
	s.t.Helper()
	n := &setup{t: s.t, origin: source, lineageName: s.lineageName}
	n.handler = &Handler{Options: opts, instance: instance{sockets: overSockets}}
	if !s.handler.wraps() {
		n.handler.source = source
	}
	n.provision()
	return n
}

// beside provisions another handler of the configuration of s, with an origin of its
// own.
func (s *setup) beside() *setup {
	s.t.Helper()
	n := &setup{t: s.t, origin: newOrigin(s.t), lineageName: s.lineageName, server: s.server}
	n.handler = &Handler{Options: s.handler.Options, instance: instance{sockets: overSockets}}
	if !s.handler.wraps() {
		n.handler.source = n.origin
	}
	n.provision()
	return n
}

// resolve does what the first request does.
func (s *setup) resolve() { s.pool = s.handler.lineage.poolOf(&s.handler.instance) }

func (s *setup) cleanup() {
	s.t.Helper()
	if err := s.handler.Cleanup(); err != nil {
		s.t.Fatal(err)
	}
	s.handler.lineage = nil
	synctest.Wait()
}

// When Caddy has exited, no connection to an origin goes on.
func TestExitWaitsForUpstreams(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		up, c := s.joinLive(1, 2)
		up.do <- func(http.ResponseWriter) error { // it takes a while to notice
			<-up.request.Context().Done()
			time.Sleep(carrier.ExitGrace)
			return errEnd
		}
		s.pool.relay.End(relay.Ending{Reason: relay.EndExiting}) // as the servers do
		for !c.ended() {
			time.Sleep(time.Millisecond)
		}
		awaitPools(t.Context())
		if n := s.origin.open.Load(); n != 0 {
			t.Errorf("%d connections to the origin go on", n)
		}
	})
}

func TestReloadUnchangedEndpoint(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		up, c := s.joinLive(1, 2)

		after := s.reload(Options{}, newOrigin(t))
		s.cleanup()
		up.events(3, 3)
		c.expect(numbered(3, 3))
		late := after.get("/events", "Last-Event-ID", "2")
		late.expect(primer("2") + numbered(3, 3))
		s.origin.idle()
		after.origin.idle()

		// The next connection is the new configuration's.
		up.abort()
		time.Sleep(time.Second)
		s.origin.idle()
		again := after.origin.next()
		if got := again.request.Header.Get("Last-Event-ID"); got != "3" {
			t.Errorf("resumed with %q, want 3", got)
		}
		again.accept().events(4, 4)
		c.expect(numbered(4, 4))
		late.expect(numbered(4, 4))
	})
}

func TestReloadThatFailsChangesNothing(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		up, c := s.joinLive(1, 2)
		failed := s.reload(Options{}, newOrigin(t))
		failed.cleanup()
		up.events(3, 3)
		c.expect(numbered(3, 3))
		up.abort()
		time.Sleep(time.Second)
		s.origin.next().accept().events(4, 4)
		c.expect(numbered(4, 4))
	})
}

func TestReloadThatRemovesTheHandlerDrains(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		var clients []*client
		for range 50 {
			clients = append(clients, s.get("/events"))
		}
		up := s.origin.next().accept().events(1, 1)
		s.cleanup()
		retries := map[string]bool{}
		ended := func() (n int) {
			for _, c := range clients {
				if c.ended() {
					n++
				}
			}
			return n
		}
		time.Sleep(5 * time.Second)
		up.events(2, 2) // those who are still here go on
		if n := ended(); n < 10 || n > 40 {
			t.Errorf("%d of 50 have ended after half of the delay", n)
		}
		time.Sleep(5 * time.Second)
		if n := ended(); n != 50 {
			t.Errorf("%d of 50 have ended after the delay", n)
		}
		for _, c := range clients {
			blocks := strings.Split(strings.TrimSuffix(c.read(), "\n\n"), "\n\n")
			last := blocks[len(blocks)-1]
			if !strings.HasPrefix(last, "retry: ") {
				t.Fatalf("a stream has ended with %q", last)
			}
			retries[last] = true
		}
		if len(retries) < 25 {
			t.Errorf("only %d different reconnection times for 50 clients", len(retries))
		}
		if !up.closed() {
			t.Error("the upstream is open though all have gone")
		}
	})
}

func TestReloadOfAWrappingHandlerSwitchesAtTheFirstRequest(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		up, c := s.joinLive(1, 2)
		after := s.reload(Options{}, newOrigin(t))
		s.cleanup()
		up.events(3, 3)
		c.expect(numbered(3, 3))
		after.origin.idle()

		late := after.get("/events")
		late.expect(primer("3"))
		again := after.origin.next()
		if got := again.request.Header.Get("Last-Event-ID"); got != "3" {
			t.Errorf("resumed with %q, want 3", got)
		}
		up.events(4, 4) // make before break
		c.expect(numbered(4, 4))
		again.accept()
		if !up.closed() {
			t.Error("the old connection is open though the new one serves")
		}
		again.events(4, 5)
		c.expect(numbered(5, 5))
		late.expect(numbered(4, 5))
	})
}

// The old connection may end before all is done that the new one begins with.
func TestReloadOfAWrappingHandlerLeavesItConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		up, _ := s.joinLive(1, 2)
		after := s.reload(Options{}, newOrigin(t))
		s.cleanup()
		write := make(chan struct{})
		s.pool.SetLogger(zap.New(zapcore.RegisterHooks(s.pool.Log().Core(), func(e zapcore.Entry) error {
			if e.Message == "upstream connected" {
				<-write
			}
			return nil
		})))
		after.get("/events")
		again := after.origin.next().accept()
		if !up.closed() {
			t.Fatal("the old connection is open though the new one serves")
		}
		close(write)
		if topic := after.onlyTopic(); !topic.IsConnected() {
			t.Error("the topic is taken for one without a connection")
		}
		again.abort()
		if topic := after.onlyTopic(); topic.IsConnected() {
			t.Error("the topic is taken for one with a connection")
		}
	})
}

func TestReloadOfAWrappingHandlerBreaksBeforeMakeWithOneWorker(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		up, c := s.joinLive(1, 2)
		after := s.reload(Options{}, newOrigin(t))
		s.cleanup()
		after.get("/events")
		again := after.origin.next()
		time.Sleep(9 * time.Second)
		if up.closed() {
			t.Fatal("the old connection was broken before wait has passed")
		}
		time.Sleep(time.Second)
		if !up.closed() {
			t.Fatal("the old connection is open though the new one has waited for it")
		}
		again.accept().events(3, 3)
		c.expect(numbered(3, 3))
	})
}

func TestReloadOfAWrappingHandlerWhoseNewRouteRefuses(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		up, c := s.joinLive(1, 2)
		after := s.reload(Options{}, newOrigin(t))
		s.cleanup()
		after.get("/events")
		after.origin.next().fail(404)
		want := "connecting to the origin: refused"
		if lines := after.logs.FilterMessageSnippet("whose route has refused").All(); len(lines) != 1 || lines[0].ContextMap()["error"] != want {
			t.Errorf("the log says %v, want a line with the error %q alone", lines, want)
		}
		up.events(3, 3)
		c.expect(numbered(3, 3))
	})
}

func TestReloadOfAWrappingHandlerWhoseUpstreamBreaksFirst(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		up, c := s.joinLive(1, 2)
		after := s.reload(Options{}, newOrigin(t))
		s.cleanup()
		up.abort()
		time.Sleep(11 * time.Second)
		if !c.ended() {
			t.Fatal("the client was not sent to the new configuration")
		}
		s.origin.idle()
		c = after.get("/events", "Last-Event-ID", "2")
		after.origin.next().accept().events(3, 3)
		after.origin.next().expectResumedWith("id 2").accept().events(3, 3)
		c.expect(primer("2") + numbered(3, 3))
	})
}

func TestRequestUnderWayDuringAReloadIsTurnedAway(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		l := s.handler.lineage
		s.joinLive(1, 1)
		s.cleanup()
		s.handler.lineage = l
		c := s.get("/events")
		if got := c.read(); !c.ended() || !strings.HasPrefix(got, "retry: ") {
			t.Errorf("got %q", got)
		}
		// Its connection may be one that the old server has forgotten to end.
		if got := c.header.Get("Connection"); got != "close" {
			t.Errorf("Connection: %q", got)
		}
	})
}

func TestReloadWhileOpeningReconnectingAndLingering(t *testing.T) {
	for _, tc := range []struct {
		name string
		prep func(s *setup) *client
	}{
		{"opening", func(s *setup) *client {
			c := s.get("/events")
			s.origin.next()
			return c
		}},
		{"reconnecting", func(s *setup) *client {
			up, c := s.joinLive(1, 1)
			up.abort()
			return c
		}},
		{"lingering", func(s *setup) *client {
			_, c := s.joinLive(1, 1)
			c.leave()
			return nil
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{Linger: Linger{Duration: caddy.Duration(5 * time.Second)}})
				c := tc.prep(s)
				after := s.reload(Options{}, newOrigin(t))
				s.cleanup()
				if c != nil && c.ended() {
					t.Error("the client was sent away")
				}
				if tc.name == "reconnecting" {
					time.Sleep(time.Second)
					s.origin.idle()
					after.origin.next().accept().events(2, 2)
					c.expect(numbered(2, 2))
				}
			})
		})
	}
}

// On exit, a client that does not read must not be what Caddy waits for.
func TestExitDoesNotWaitForAClientThatDoesNotRead(t *testing.T) {
	for name, reads := range map[string]bool{"writing": false, "quiet": true} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{})
				up, c := s.joinLive(1, 1)
				c.stall()
				if !reads {
					up.events(2, 2) // it blocks in a write
				}
				s.pool.relay.End(relay.Ending{Reason: relay.EndExiting})
				time.Sleep(2 * carrier.ExitGrace)
				if !c.ended() {
					t.Error("the stream has not ended")
				}
			})
		})
	}
}

func TestRequestUnderWayDuringAReloadThatChangesNothingIsServed(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		l := s.handler.lineage
		up, _ := s.joinLive(1, 1)
		s.reload(Options{}, newOrigin(t))
		s.cleanup()
		s.handler.lineage = l
		s.handler.pool.Store(nil) // it had served nobody yet
		c := s.get("/events")
		s.handler.lineage = nil
		up.events(2, 2)
		c.expect(primer("1") + numbered(2, 2))
	})
}

func TestReloadWhileCatchingUp(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
		up, _ := s.joinLive(10, 12)
		c := s.get("/events", "Last-Event-ID", "7")
		c.expect(primer("7"))
		catchup := s.origin.next().accept().events(8, 8)
		queued := []*client{s.get("/events", "Last-Event-ID", "6"), s.get("/events", "Last-Event-ID", "5")}
		s.origin.next().accept().events(7, 7)

		after := s.reload(Options{Heartbeat: Heartbeat{Interval: -1}}, newOrigin(t))
		s.cleanup()
		catchup.events(9, 10) // what runs goes on
		c.expect(numbered(8, 12))
		// What is next goes the new way.
		after.origin.next().expectResumedWith("id 5").accept().events(6, 10)
		queued[1].expect(primer("5") + numbered(6, 12))
		up.events(13, 13)
		for _, c := range []*client{c, queued[1]} {
			c.expect(numbered(13, 13))
		}
		queued[0].leave()
	})
}

// In the endpoint form, it does not matter how many of them there are.
func TestReloadOfTwoEqualEndpointHandlers(t *testing.T) {
	for _, tc := range []struct{ before, after int }{{1, 2}, {2, 1}, {2, 2}} {
		t.Run(fmt.Sprintf("%d, then %d", tc.before, tc.after), func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				first := newSetup(t, Options{})
				before := []*setup{first}
				for len(before) < tc.before {
					before = append(before, first.beside())
				}
				// The newest handler's source is asked.
				c := first.get("/events")
				up := before[len(before)-1].origin.next().accept().events(1, 2)
				c.expect(primer("") + numbered(1, 2))

				var after []*setup
				after = append(after, first.reload(Options{}, newOrigin(t)))
				for len(after) < tc.after {
					after = append(after, after[0].beside())
				}
				for _, s := range before {
					s.cleanup()
				}
				up.events(3, 3)
				c.expect(numbered(3, 3))
				for _, s := range after {
					s.get("/events", "Last-Event-ID", "2").expect(primer("2") + numbered(3, 3))
				}
				up.abort()
				time.Sleep(time.Second)
				after[len(after)-1].origin.next().expectResumedWith("id 3").accept().events(4, 4)
				c.expect(numbered(4, 4))
			})
		})
	}
}
