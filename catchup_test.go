package ssefanout

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

const gapComment = ": gap: events may be missing here\n\n"

// joinLive opens the topic /events, lets the origin send events, and returns
// the connection.
func (s *setup) joinLive(from, to int) (*conn, *client) {
	s.t.Helper()
	c := s.get("/events")
	up := s.origin.next().accept().events(from, to)
	c.expect(primer("") + numbered(from, to))
	return up, c
}

func TestCatchupFetchesWhatTheLogHasNot(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		up, live := s.joinLive(10, 12)

		c := s.get("/events", "Last-Event-ID", "7")
		c.expect(primer("7"))
		catchup := s.origin.next()
		if got := catchup.request.Header.Get("Last-Event-ID"); got != "7" {
			t.Errorf("the origin was asked for %q, want 7", got)
		}
		catchup.accept().events(8, 9)
		c.expect(numbered(8, 9))
		catchup.events(10, 10)
		c.expect(numbered(10, 12))
		if !catchup.closed() {
			t.Error("the catch-up goes on though it has met the log")
		}
		up.events(13, 13)
		c.expect(numbered(13, 13))
		live.expect(numbered(13, 13))
		if got := s.pool.stats.Joined(relay.Resumed).Load(); got != 1 {
			t.Errorf("resumed %d, want 1", got)
		}
	})
}

func TestCatchupIsSharedByID(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		s.joinLive(10, 12)
		var clients []*client
		for range 50 {
			c := s.get("/events", "Last-Event-ID", "8")
			c.expect(primer("8"))
			clients = append(clients, c)
		}
		s.origin.next().accept().events(9, 10)
		s.origin.idle()
		for _, c := range clients {
			c.expect(numbered(9, 12))
		}
	})
}

// movedOn returns a client that resumes with the id 7, and its catch-up, which has
// brought nothing while the log, which had 10 to 12, has come to have 13 and 14 alone.
func movedOn(t *testing.T) (s *setup, c *client, catchup *conn) {
	s = newSetup(t, Options{
		History: History{Age: caddy.Duration(10 * time.Second)},
		Catchup: Catchup{Timeout: caddy.Duration(20 * time.Second)},
	})
	up, live := s.joinLive(10, 12)
	c = s.get("/events", "Last-Event-ID", "7")
	c.expect(primer("7"))
	catchup = s.origin.next().accept()
	time.Sleep(8 * time.Second)
	up.events(13, 14)
	live.expect(numbered(13, 14))
	time.Sleep(4 * time.Second)
	return s, c, catchup
}

// What a catch-up brings may be older than all that the log still has when it
// comes, though the log had it when the catch-up began.
func TestCatchupMeetsALogThatHasMovedOn(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s, c, catchup := movedOn(t)
		catchup.events(8, 12)
		c.expect(numbered(8, 14))
		if got := s.pool.stats.Gaps.Load(); got != 0 {
			t.Errorf("counted %d gaps, want none", got)
		}
	})
}

// The same of a catch-up that is ahead of the log: what the log began with is not
// its to bring.
func TestCatchupAheadOfALogThatHasMovedOn(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{History: History{Age: caddy.Duration(10 * time.Second)}})
		up, _ := s.joinLive(10, 10)
		c := s.get("/events", "Last-Event-ID", "12")
		c.expect(primer("12"))
		catchup := s.origin.next().accept().events(13, 14)
		c.expect(numbered(13, 14))
		time.Sleep(11 * time.Second)
		up.events(11, 15) // the log begins with 11 now
		c.expect(numbered(15, 15))
		if !catchup.closed() {
			t.Error("the catch-up goes on though it has met the log")
		}
		up.events(16, 16)
		c.expect(numbered(16, 16))
		if got := s.pool.stats.Gaps.Load(); got != 0 {
			t.Errorf("counted %d gaps, want none", got)
		}
	})
}

// An origin that has ignored the id is found out all the same.
func TestCatchupJumpsIntoALogThatHasMovedOn(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		_, c, catchup := movedOn(t)
		catchup.events(12, 12)
		c.expect("id: 12\n" + gapComment + numbered(13, 14))
	})
}

// A catch-up that is ahead of the shared connection would never meet the log by
// looking only at what it receives itself.
func TestCatchupAheadOfTheLog(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		up, _ := s.joinLive(10, 10)
		c := s.get("/events", "Last-Event-ID", "12")
		c.expect(primer("12"))
		catchup := s.origin.next().accept().events(13, 14)
		c.expect(numbered(13, 14))
		up.events(11, 13)
		c.expect("")
		if !catchup.closed() {
			catchup.events(15, 15) // no longer wanted
		}
		up.events(14, 15)
		c.expect(numbered(15, 15))
		up.events(16, 16)
		c.expect(numbered(16, 16))
	})
}

func TestCatchupThatEndsInAGap(t *testing.T) {
	for _, tc := range []struct {
		name string
		opts Options
		do   func(*conn)
		got  string // before the gap
		left bool   // the connection is left to the origin to end
	}{
		{name: "origin ignores the id", do: func(c *conn) { c.accept().events(12, 12) }},
		{name: "origin answers 204", do: func(c *conn) { c.answer(204).end() }},
		{name: "origin answers 400", do: func(c *conn) { c.answer(400).end() }},
		{name: "origin repeats one id", do: func(c *conn) {
			c.accept().send("id: x\ndata: 1\n\nid: x\ndata: 2\n\n")
			time.Sleep(100 * time.Second)
		}, got: "id: x\ndata: 1\n\nid: x\ndata: 2\n\n"},
		{name: "origin answers 410", do: func(c *conn) { c.answer(410).end() }},
		{name: "origin answers 500", do: func(c *conn) { c.answer(500).end() }},
		{name: "origin cannot be reached", do: func(c *conn) { c.fail(502) }},
		{name: "origin never answers", do: func(c *conn) { time.Sleep(10 * time.Second) }},
		{name: "origin sends no event", do: func(c *conn) { c.accept(); time.Sleep(10 * time.Second) }},
		{name: "origin sends comments only", do: func(c *conn) { c.accept().send(": hi\n\n"); time.Sleep(10 * time.Second) }},
		{name: "origin ends the stream", do: func(c *conn) { c.accept().events(8, 8).end() }, got: numbered(8, 8)},
		{name: "origin sends no ids", do: func(c *conn) { c.accept().send("data: x\n\n"); time.Sleep(10 * time.Second) }},
		{
			name: "origin sends more than the history holds", opts: Options{History: History{Size: 100}},
			do: func(c *conn) { c.accept().events(1, 8) }, got: numbered(1, 5),
		},
		{name: "origin leaves out what the log has", do: func(c *conn) { c.accept().events(8, 8).events(12, 12) }, got: numbered(8, 8)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				tc.opts.Heartbeat.Interval = -1
				s := newSetup(t, tc.opts)
				up, live := s.joinLive(10, 12)
				c := s.get("/events", "Last-Event-ID", "7")
				c.expect(primer("7"))
				tc.do(s.origin.next())
				time.Sleep(relay.SpliceTimeouts * settings.DefaultCatchupTimeout)
				c.expect(tc.got + "id: 12\n" + gapComment)
				up.events(13, 13)
				c.expect(numbered(13, 13))
				live.expect(numbered(13, 13))
				if got := s.pool.stats.Gaps.Load(); got != 1 {
					t.Errorf("counted %d gaps, want 1", got)
				}
			})
		})
	}
}

func TestCatchupsAreBoundedAndTakeTurnsByAddress(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
		s.joinLive(100, 101)
		// An attacker with many ids comes first.
		for i := range 20 {
			s.getFrom("203.0.113.1", "/events", "Last-Event-ID", fmt.Sprint("random ", i))
		}
		resumer := s.getFrom("203.0.113.2", "/events", "Last-Event-ID", "98")
		first, second := s.origin.next(), s.origin.next()
		s.origin.idle()
		first.accept()
		second.accept()
		time.Sleep(relay.QuietTime) // one at least yields
		s.origin.keepAnswering(time.Second, func(c *conn) {
			if c.accept(); c.request.Header.Get("Last-Event-ID") == "98" {
				c.events(99, 100)
			}
		})
		resumer.expect(primer("98") + numbered(99, 101))
		if most := s.origin.most.Load(); most > 1+settings.DefaultCatchups {
			t.Errorf("there were %d connections to the origin, want %d at most", most, 1+settings.DefaultCatchups)
		}
	})
}

// Clients of many addresses bring ids for which the origin has nothing, over and over. Who
// comes back with a good one does not wait for long.
func TestMadeUpIDsOfManyAddressesHoldUpNobody(t *testing.T) {
	for name, accept := range map[string]func(*conn){
		"silent":        func(c *conn) { c.accept() },
		"not answered":  func(*conn) {},
		"ended at once": func(c *conn) { c.accept().end() },
	} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
				s.joinLive(100, 101)
				made := 0
				for round := range 6 {
					for i := range 12 {
						for range 2 {
							made++
							s.getFrom(fmt.Sprint("203.0.113.", i), "/events", "Last-Event-ID", fmt.Sprint("random ", made))
						}
					}
					resumer := s.getFrom(fmt.Sprint("198.51.100.", round), "/events", "Last-Event-ID", "98")
					s.origin.keepAnswering(25*time.Second, func(c *conn) {
						if c.request.Header.Get("Last-Event-ID") == "98" {
							c.accept().events(99, 100)
						} else {
							accept(c)
						}
					})
					resumer.expect(primer("98") + numbered(99, 101))
				}
			})
		})
	}
}

// An origin that is slow to begin is given the time that it needs, also while others wait.
func TestSlowCatchupsAreServedInTurns(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
		s.joinLive(100, 101)
		var clients []*client
		for i := range 6 {
			clients = append(clients, s.getFrom(fmt.Sprint("203.0.113.", i), "/events", "Last-Event-ID", fmt.Sprint(90+i)))
		}
		s.origin.keepAnswering(2*time.Minute, func(c *conn) {
			c.accept()
			time.AfterFunc(settings.DefaultCatchupTimeout*2/3, func() {
				from := 0
				_, _ = fmt.Sscan(c.request.Header.Get("Last-Event-ID"), &from)
				select {
				case <-c.gone: // it has left its place to another
				case c.do <- func(w http.ResponseWriter) error {
					_, err := io.WriteString(w, numbered(from+1, 100))
					return err
				}:
				}
			})
		})
		for i, c := range clients {
			c.expect(primer(fmt.Sprint(90+i)) + numbered(91+i, 101))
		}
	})
}

func TestTooManyQueuedAreToldOfAGap(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
		s.joinLive(1, 1)
		for i := range relay.MaxQueued + 2 {
			s.get("/events", "Last-Event-ID", fmt.Sprint("x", i)).expect(primer(fmt.Sprint("x", i)))
		}
		s.get("/events", "Last-Event-ID", "one more").expect(gapPrimer("1") + gapComment)
	})
}

// One address that fills the queue does not do so for others.
func TestFullQueueHasRoomForOtherAddresses(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		s.joinLive(10, 12)
		var last *client
		for i := range relay.MaxQueued + 2 {
			last = s.getFrom("203.0.113.1", "/events", "Last-Event-ID", fmt.Sprint("x", i))
		}
		others := []*client{
			s.getFrom("203.0.113.2", "/events", "Last-Event-ID", "9"),
			s.getFrom("203.0.113.3", "/events", "Last-Event-ID", "8"),
		}
		for i, c := range others {
			c.expect(primer(fmt.Sprint(9 - i)))
		}
		if queued := s.onlyTopic().Snapshot().CatchupsQueued; queued != relay.MaxQueued {
			t.Errorf("%d are queued, want %d", queued, relay.MaxQueued)
		}
		var asked []string
		for range 5 {
			c := s.origin.next()
			asked = append(asked, c.request.Header.Get("Last-Event-ID"))
			c.answer(http.StatusGone).end() // a place for the next
		}
		if got, want := strings.Join(asked, " "), "x0 x1 9 8 x2"; got != want {
			t.Errorf("the origin was asked for %s, want %s", got, want)
		}
		last.expect(primer(fmt.Sprint("x", relay.MaxQueued+1)) + "id: 12\n" + gapComment)
	})
}

func TestCatchupWaitsForTheSharedUpstream(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: caddy.Duration(4 * time.Second)}})
		up, _ := s.joinLive(10, 11)
		up.abort()
		c := s.get("/events", "Last-Event-ID", "8")
		c.expect(primer("8"))
		time.Sleep(time.Second)
		again := s.origin.next()
		s.origin.idle()
		time.Sleep(4 * time.Second)
		c.expect(":\n\n")
		again.accept()
		s.origin.next().accept().events(9, 11)
		c.expect(numbered(9, 11))
	})
}

func TestWaitingForACatchupHasHeartbeats(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		s.joinLive(10, 10)
		running := s.get("/events", "Last-Event-ID", "1")
		s.get("/events", "Last-Event-ID", "2")
		queued := s.get("/events", "Last-Event-ID", "3")
		s.origin.next().accept().events(2, 2)
		running.read()
		queued.expect(primer("3"))
		time.Sleep(15 * time.Second)
		running.expect(":\n\n")
		queued.expect(":\n\n")
	})
}

func TestCatchupIsGivenUpWhenNobodyWaits(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		s.joinLive(10, 10)
		c := s.get("/events", "Last-Event-ID", "1")
		catchup := s.origin.next().accept().events(2, 2)
		c.leave()
		if !catchup.closed() {
			t.Error("the catch-up goes on for nobody")
		}
	})
}

func TestCatchupOff(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Catchup: Catchup{Connections: -1}, GapEvent: "resync"})
		s.joinLive(10, 10)
		c := s.get("/events", "Last-Event-ID", "1")
		s.origin.idle()
		c.expect(gapPrimer("10") + ": gap: events may be missing here\nevent: resync\ndata: \n\n")
	})
}

// After a restart of Caddy, clients come back with many different ids.
func TestManyIDsOnAColdTopic(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		opener := s.get("/events")
		clients := map[int]*client{}
		for id := 40; id <= 60; id++ {
			clients[id] = s.get("/events", "Last-Event-ID", fmt.Sprint(id))
		}
		up := s.origin.next().expectResumedWith("no id").accept().events(50, 60)
		opener.expect(primer("") + numbered(50, 60))
		asked := 0
		for s.origin.asked() {
			c := s.origin.next()
			asked++
			if c.closed() {
				continue // the log has come past its id just now
			}
			var id int
			_, _ = fmt.Sscan(c.request.Header.Get("Last-Event-ID"), &id)
			c.accept().events(id+1, 60)
			if n := s.origin.most.Load(); n > 3 {
				t.Fatalf("the origin had %d connections at once, want 3 at most", n)
			}
		}
		if asked < 10 || asked > 12 {
			t.Errorf("%d catch-ups, want one for each of the 10 ids that the log has not, and 2 more at most", asked)
		}
		up.events(61, 61)
		for id, c := range clients {
			c.expect(primer(fmt.Sprint(id)) + numbered(id+1, 61))
		}
	})
}

// Neither the client nor its id is to blame for what takes the origin away from
// everybody.
func TestCatchupOutlivesTheOrigin(t *testing.T) {
	for name, during := range map[string]func(up, catchup *conn){
		"both break":                  func(up, catchup *conn) { catchup.abort(); up.abort() },
		"the shared one breaks first": func(up, catchup *conn) { up.abort(); catchup.abort() },
		"only the catch-up breaks":    func(_, catchup *conn) { catchup.abort() },
		"only the shared one breaks":  func(up, _ *conn) { up.abort() },
	} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
				up, live := s.joinLive(10, 12)
				c := s.get("/events", "Last-Event-ID", "7")
				c.expect(primer("7"))
				catchup := s.origin.next().accept().events(8, 8)
				during(up, catchup)
				c.expect(numbered(8, 8))
				again := s.origin.await()
				if up.closed() {
					if got := again.request.Header.Get("Last-Event-ID"); got != "12" {
						t.Fatalf("the shared connection was made again with %q, want 12", got)
					}
					up = again.accept()
					again = s.origin.next()
				}
				if got := again.request.Header.Get("Last-Event-ID"); got != "8" {
					t.Fatalf("the catch-up went on with %q, want 8", got)
				}
				again.accept().events(9, 10)
				up.events(13, 13)
				c.expect(numbered(9, 13))
				live.expect(numbered(13, 13))
			})
		})
	}
}

// An origin that is down for maintenance refuses every id.
func TestCatchupOutlivesMaintenance(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
		up, _ := s.joinLive(10, 12)
		c := s.get("/events", "Last-Event-ID", "7")
		c.expect(primer("7"))
		s.origin.next().answer(404).end()
		up.abort()
		time.Sleep(20 * time.Second)
		s.origin.keepAnswering(20*time.Second, func(c *conn) { c.answer(404).end() })
		c.expect("")
		s.origin.await().accept()
		s.origin.next().expectResumedWith("id 7").accept().events(8, 12)
		c.expect(numbered(8, 12))
	})
}

// A client whose topic ends before it has what it came for keeps its position.
func TestCatchupOfATopicThatEndsIsNoGap(t *testing.T) {
	for name, end := range map[string]func(*setup){
		"handler removed": (*setup).cleanup,
		"exit":            func(s *setup) { s.pool.relay.End(relay.Ending{Reason: relay.EndExiting}) },
	} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
				s.joinLive(10, 12)
				var clients []*client
				for id := 1; id <= 7; id++ {
					c := s.get("/events", "Last-Event-ID", fmt.Sprint(id))
					c.expect(primer(fmt.Sprint(id)))
					clients = append(clients, c)
				}
				s.origin.next().accept()
				s.origin.next().abort()
				end(s)
				time.Sleep(15 * time.Second)
				for i, c := range clients {
					if got := c.read(); !c.ended() || !strings.HasPrefix(got, "retry: ") || strings.Contains(got, "id:") {
						t.Errorf("the client with id %d got %q", i+1, got)
					}
				}
			})
		})
	}
}

// Many servers begin each connection with a reconnection time.
func TestReconnectionTimeAloneIsNoEvent(t *testing.T) {
	t.Run("of a replay", func(t *testing.T) {
		bothWriters(t, func(t *testing.T) {
			s := newSetup(t, Options{})
			up, c := s.joinLive(1, 3)
			up.abort()
			s.origin.await().accept().send("retry: 3000\n\n").events(1, 4)
			c.expect("retry: 3000\n\n" + numbered(4, 4))
		})
	})
	t.Run("within a replay", func(t *testing.T) {
		bothWriters(t, func(t *testing.T) {
			const x, y, retry = "data: x\n\n", "data: y\n\n", "retry: 3000\n\n"
			s := newSetup(t, Options{})
			up, c := s.joinLive(1, 1)
			up.send(x).abort()
			up = s.origin.await().accept().send(retry+y).events(2, 2)
			c.expect(x + retry + y + numbered(2, 2))
			up.abort()
			s.origin.await().accept().events(1, 1).send(x+y).events(2, 3)
			c.expect(numbered(3, 3))
		})
	})
	t.Run("behind the position of a client", func(t *testing.T) {
		bothWriters(t, func(t *testing.T) {
			s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
			up, _ := s.joinLive(1, 3)
			up.abort()
			up = s.origin.await().accept().send("retry: 3000\n\n")
			time.Sleep(time.Hour) // nothing is left of the log
			c := s.get("/events", "Last-Event-ID", "3")
			s.origin.idle()
			up.events(4, 4)
			c.expect(primer("3") + numbered(4, 4))
		})
	})
	t.Run("of a greeting", func(t *testing.T) {
		bothWriters(t, func(t *testing.T) {
			s := newSetup(t, Options{Greeting: "1"})
			s.get("/events")
			s.origin.next().accept().send("retry: 3000\n\n").events(1, 2)
			s.get("/events").expect(primer("") + numbered(1, 2))
		})
	})
}

// What the log begins with may be no event: then nothing is missing between it
// and the first event, where a catch-up meets the log.
func TestCatchupMeetsTheLogBehindWhatIsNoEvent(t *testing.T) {
	const retry = "retry: 3000\n\n"
	t.Run("a reconnection time", func(t *testing.T) {
		bothWriters(t, func(t *testing.T) {
			s := newSetup(t, Options{})
			live := s.get("/events")
			s.origin.next().accept().send(retry).events(10, 12)
			live.expect(primer("") + retry + numbered(10, 12))
			c := s.get("/events", "Last-Event-ID", "7")
			c.expect(primer("7"))
			s.origin.next().accept().send(retry).events(8, 10)
			c.expect(retry + numbered(8, 12))
		})
	})
	t.Run("a reconnection time, where it was opened by one who resumes", func(t *testing.T) {
		bothWriters(t, func(t *testing.T) {
			s := newSetup(t, Options{})
			live := s.get("/events", "Last-Event-ID", "9")
			s.origin.next().accept().send(retry).events(10, 12)
			s.origin.next().expectResumedWith("id 9").accept().send(retry).events(10, 10)
			live.expect(primer("9") + retry + numbered(10, 12))
			c := s.get("/events", "Last-Event-ID", "7")
			c.expect(primer("7"))
			s.origin.next().accept().send(retry).events(8, 10)
			c.expect(retry + numbered(8, 12))
		})
	})
	for name, between := range map[string]string{"the notice of a gap": "", "the notice of a gap and a reconnection time": retry} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
				live := s.get("/events")
				up := s.origin.next().accept() // no event, no id
				live.expect(primer(""))
				up.abort()
				s.origin.await().accept().send(between).events(10, 12)
				live.expect(gapComment + between + numbered(10, 12))
				c := s.get("/events", "Last-Event-ID", "7")
				c.expect(primer("7"))
				s.origin.next().accept().events(8, 10)
				c.expect(numbered(8, 12))
			})
		})
	}
}

// An origin that ignores ids sends each event to all of its connections, in no
// order: what comes to the catch-up first must not hide what is missing.
func TestCatchupOfAnIgnoredIDAheadOfTheLog(t *testing.T) {
	for _, history := range []int{0, 1} { // the latter loses the first of several at once
		for name, come := range map[string]func(up, catchup *conn){
			"the same event next": func(up, catchup *conn) {
				catchup.events(13, 13)
				up.events(13, 13).events(14, 14)
			},
			"by two": func(up, catchup *conn) {
				catchup.events(13, 14)
				up.events(13, 13).events(14, 14)
			},
			"the log at once": func(up, catchup *conn) {
				catchup.events(13, 14)
				up.events(13, 14)
			},
			"overtaken": func(up, catchup *conn) {
				// Before the log is looked at, the catch-up has the next event.
				catchup.events(13, 13)
				up.do <- func(w http.ResponseWriter) error { _, err := io.WriteString(w, numbered(13, 14)); return err }
				catchup.do <- func(w http.ResponseWriter) error { _, err := io.WriteString(w, numbered(14, 14)); return err }
				synctest.Wait()
			},
		} {
			t.Run(fmt.Sprintf("%s, history %d", name, history), func(t *testing.T) {
				bothWriters(t, func(t *testing.T) {
					s := newSetup(t, Options{History: History{Events: history}})
					up, _ := s.joinLive(10, 12)
					c := s.get("/events", "Last-Event-ID", "7")
					c.expect(primer("7"))
					come(up, s.origin.next().accept())
					up.events(15, 15)
					got := c.read()
					if n := strings.Count(got, gapComment); n != 1 {
						t.Errorf("client was told of %d gaps, want one: %q", n, got)
					}
					for id := 13; id <= 15; id++ {
						if n := strings.Count(got, numbered(id, id)); n != 1 {
							t.Errorf("client got event %d %d times, want once: %q", id, n, got)
						}
					}
				})
			})
		}
	}
}

// A fan-out, too, may be an origin: it begins each connection with a position.
func TestPositionAloneIsNoEvent(t *testing.T) {
	t.Run("of a replay", func(t *testing.T) {
		bothWriters(t, func(t *testing.T) {
			s := newSetup(t, Options{})
			up, c := s.joinLive(1, 3)
			up.abort()
			s.origin.await().accept().send("retry: 3000\nid: 3\n\n").events(1, 4)
			c.expect("retry: 3000\n\n" + numbered(4, 4))
		})
	})
	t.Run("of a greeting", func(t *testing.T) {
		bothWriters(t, func(t *testing.T) {
			s := newSetup(t, Options{Greeting: "1"})
			s.get("/events")
			s.origin.next().accept().send("retry: 3000\nid: 1\n\n").events(2, 3)
			s.get("/events").expect(primer("") + numbered(2, 3))
		})
	})
}

// The shared connection may bring at once what the catch-up has had for long, and
// more than the history holds.
func TestCatchupAheadOfALogThatOvertakesIt(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{History: History{Events: 3}})
		opener := s.get("/events")
		up := s.origin.next().accept().events(2, 2)
		opener.expect(primer("") + numbered(2, 2))
		c := s.get("/events", "Last-Event-ID", "5")
		c.expect(primer("5"))
		catchup := s.origin.next().accept().events(6, 9)
		c.expect(numbered(6, 9))
		up.events(3, 20)
		c.expect(numbered(10, 20))
		if !catchup.closed() {
			t.Error("the catch-up goes on though the log has met it")
		}
		up.events(21, 21)
		c.expect(numbered(21, 21))
		if got := s.pool.stats.Gaps.Load(); got != 0 {
			t.Errorf("counted %d gaps, want none", got)
		}
	})
}

// An origin that ignores an id to which the log comes later.
func TestCatchupOfAnIgnoredIDThatTheLogComesTo(t *testing.T) {
	for _, history := range []int{0, 3} {
		t.Run(fmt.Sprint("history ", history), func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{History: History{Events: history}})
				s.get("/events")
				up := s.origin.next().accept().events(2, 2)
				c := s.get("/events", "Last-Event-ID", "5")
				c.expect(primer("5"))
				catchup := s.origin.next().accept().events(15, 16)
				c.expect(numbered(15, 16))
				up.events(3, 20)
				if !catchup.closed() {
					catchup.events(17, 17)
				}
				if got := c.read(); strings.Count(got, gapComment) != 1 || strings.Contains(got, numbered(16, 16)) || !strings.HasSuffix(got, numbered(18, 20)) {
					t.Errorf("client got %q, want to be told of a gap", got)
				}
			})
		})
	}
}

// A topic that has just been opened has no event yet that an origin could jump over.
func TestCatchupOfAnIgnoredIDOnAColdTopic(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		s.get("/events")
		c := s.get("/events", "Last-Event-ID", "7")
		up := s.origin.next().accept()
		catchup := s.origin.next().accept()
		up.events(10, 12)
		catchup.events(13, 13)
		c.expect(primer("7") + numbered(13, 13))
		up.events(13, 14)
		c.expect("id: 13\n" + gapComment + numbered(14, 14))
	})
}

// A client may be further than the topic was when the origin forgot where that was.
func TestClientAheadOfAGapInTheLog(t *testing.T) {
	// aheadOfAGap returns a client at 20 that is given a catch-up, and a topic that
	// was at 14 before its gap.
	aheadOfAGap := func(t *testing.T) (s *setup, c *client, up, catchup *conn) {
		s = newSetup(t, Options{})
		up, _ = s.joinLive(10, 12)
		c = s.get("/events", "Last-Event-ID", "20")
		catchup = s.origin.next()
		up.events(13, 14).abort()
		s.origin.denyID(chokes["410"])
		up = s.origin.next().accept()
		return s, c, up, catchup
	}
	t.Run("the origin knows its id", func(t *testing.T) {
		bothWriters(t, func(t *testing.T) {
			s, c, up, catchup := aheadOfAGap(t)
			if !catchup.closed() {
				catchup.abort()
			}
			catchup = s.origin.next().accept().events(21, 30)
			up.events(31, 31)
			catchup.events(31, 31)
			up.events(32, 32)
			c.expect(primer("20") + numbered(21, 32))
		})
	})
	t.Run("the origin has forgotten its id", func(t *testing.T) {
		bothWriters(t, func(t *testing.T) {
			s, c, up, catchup := aheadOfAGap(t)
			if !catchup.closed() {
				catchup.abort()
			}
			s.origin.denyCatchup(chokes["410"])
			up.events(31, 32)
			c.expect(primer("20") + "id: 14\n" + gapComment + numbered(31, 32))
		})
	})
}

// The topic may come to a client's id, and past it by more than the history, while
// the origin is asked for it.
func TestCatchupWhoseIDTheLogComesPast(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{History: History{Events: 3}})
		up, _ := s.joinLive(10, 12)
		c := s.get("/events", "Last-Event-ID", "20")
		catchup := s.origin.next()
		up.events(13, 40)
		c.expect(primer("20") + numbered(21, 40))
		if !catchup.closed() {
			t.Error("the catch-up goes on though the log has come to its id")
		}
	})
}

// An origin without ids cannot be asked for what was missed, whatever a client
// brings. Neither are its events sent twice, nor does anybody wait for long.
func TestCatchupsOfAnOriginWithoutIDs(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{
			Heartbeat: Heartbeat{Interval: caddy.Duration(3 * time.Second)},
			Catchup:   Catchup{Connections: 3},
		})
		live := s.get("/events")
		up := s.origin.next().accept().send("data: 0\n\n")
		live.expect(primer("") + "data: 0\n\n")
		var clients []*client
		for _, id := range []string{"foo", "bar", "baz"} {
			clients = append(clients, s.get("/events", "Last-Event-ID", id))
		}
		catchups := []*conn{s.origin.next().accept(), s.origin.next().accept(), s.origin.next().accept()}
		s.origin.idle()
		for i := range 10 {
			time.Sleep(time.Second)
			text := fmt.Sprintf("data: %d\n\n", i+1)
			for _, c := range catchups {
				if i < 9 {
					c.send(text)
				}
			}
			up.send(text)
		}
		time.Sleep(time.Second)
		for i, id := range []string{"foo", "bar", "baz"} {
			got := clients[i].read()
			rest, ok := strings.CutPrefix(got, primer(id))
			beats := strings.Count(rest, ":\n\n")
			want := strings.Repeat(":\n\n", beats) + "id: \n" + gapComment
			for i := range 10 {
				want += fmt.Sprintf("data: %d\n\n", i+1)
			}
			if !ok || rest != want || beats != 3 {
				t.Errorf("with the id %s: got %q, want 3 heartbeats, a gap, and all events once", id, got)
			}
		}
		s.origin.idle()
		for _, c := range catchups {
			if !c.closed() {
				t.Error("a connection for a catch-up is left")
			}
		}
	})
}

// An origin that is silent may have ids all the same.
func TestCatchupThatIsSilentIsNoProofOfMissingIDs(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
		s.get("/events")
		s.origin.next().accept()
		s.get("/events", "Last-Event-ID", "1")
		s.origin.next().accept()
		time.Sleep(settings.DefaultCatchupTimeout)
		s.get("/events", "Last-Event-ID", "2")
		s.origin.next().accept()
	})
}

// A client that comes while the last one's connection is still on its way out.
func TestCatchupThatWasGivenUpIsNotJoined(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
		s.joinLive(10, 12)
		s.handler.source = sourceFunc(func(w http.ResponseWriter, r *http.Request) error {
			defer time.Sleep(time.Second) // it is slow to see that it is to end, as FastCGI is
			return s.origin.ServeHTTP(w, r, nil)
		})
		first := s.get("/events", "Last-Event-ID", "7")
		s.origin.next().accept()
		first.leave()
		second := s.get("/events", "Last-Event-ID", "7")
		s.origin.next().accept().events(8, 10)
		second.expect(primer("7") + numbered(8, 12))
	})
}

type sourceFunc func(http.ResponseWriter, *http.Request) error

func (f sourceFunc) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	return f(w, r)
}

// The log of a catch-up has room for the largest history and event, also where an
// int has 32 bits.
// However much a client has missed, it gets all of it, a log's worth at a time.
func TestCatchupThatIsLargerThanTheHistory(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}, History: History{Size: 100}})
		up, _ := s.joinLive(40, 41)
		c := s.get("/events", "Last-Event-ID", "7")
		other := s.get("/events", "Last-Event-ID", "7")
		c.expect(primer("7"))
		asked, got := 7, ""
		for asked < 39 {
			conn := s.origin.next()
			if id := conn.request.Header.Get("Last-Event-ID"); id != strconv.Itoa(asked) {
				t.Fatalf("the origin was asked for what follows %s, want %d", id, asked)
			}
			conn.accept().events(asked+1, min(asked+20, 41))
			if synctest.Wait(); !conn.closed() {
				t.Error("the origin goes on sending what nobody takes")
			}
			part := c.read()
			if len(part) > 200 {
				t.Fatalf("a client got %d bytes of one catch-up, want 100 and an event at most", len(part))
			}
			got += part
			blocks := strings.Split(strings.TrimSuffix(got, "\n\n"), "\n\n")
			_, _ = fmt.Sscanf(blocks[len(blocks)-1], "id: %d", &asked)
		}
		up.events(42, 42)
		if got += c.read(); got != numbered(8, 42) {
			t.Errorf("got %q, want 8 to 42", got)
		}
		other.expect(primer("7") + numbered(8, 42))
		if got := s.pool.stats.Gaps.Load(); got != 0 {
			t.Errorf("counted %d gaps, want none", got)
		}
	})
}

// An origin that ignores ids, and begins with a large backlog each time, must not send
// it for ever.
func TestLargeCatchupOfAnOriginThatIgnoresIDs(t *testing.T) {
	for name, from := range map[string]func(n int) int{
		"from the start":           func(int) int { return 1 },
		"from a moving start":      func(n int) int { return 1 + n },
		"from before what was had": func(n int) int { return max(1, 2*n) },
	} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}, History: History{Size: 100}})
				up, _ := s.joinLive(40, 41)
				c := s.get("/events", "Last-Event-ID", "7")
				n := 0
				s.origin.keepAnswering(time.Minute, func(conn *conn) {
					conn.accept().events(from(n), from(n)+9)
					n++
				})
				if n > 2 {
					t.Errorf("the origin was asked %d times, want twice at most", n)
				}
				up.events(42, 42)
				if got := c.read(); strings.Count(got, gapComment) != 1 || !strings.HasSuffix(got, numbered(42, 42)) {
					t.Errorf("got %q, want a gap, and 42", got)
				}
			})
		})
	}
}

// A client whose large catch-up has taken long is no client that has waited long for
// its turn.
func TestContinuedCatchupWaitsForItsTurn(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{
			Heartbeat: Heartbeat{Interval: -1},
			History:   History{Size: 100},
			Catchup:   Catchup{Connections: 1},
		})
		s.joinLive(40, 41)
		c := s.get("/events", "Last-Event-ID", "7")
		c.expect(primer("7"))
		first := s.origin.next().accept()
		other := s.get("/events", "Last-Event-ID", "38")
		other.expect(primer("38"))
		for i := range 4 { // slowly
			first.events(8+i, 8+i)
			time.Sleep(relay.TurnPatience * settings.DefaultCatchupTimeout / 3)
		}
		first.events(12, 12) // it is full
		c.expect(numbered(8, 12))
		s.origin.next().accept().events(39, 40)
		other.expect(numbered(39, 41))
		s.origin.next().accept().events(13, 16)
		c.expect(numbered(13, 16))
	})
}

func TestCatchupWithTheLargestLimits(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}, History: History{Size: 4 << 30}, MaxEventSize: settings.LargestEventSize})
		s.joinLive(10, 12)
		c := s.get("/events", "Last-Event-ID", "7")
		c.expect(primer("7"))
		s.origin.next().accept().events(8, 10)
		c.expect(numbered(8, 12))
	})
}

// Of an origin that has shown that it honours ids, nobody can make others believe
// that it ignores them.
func TestOriginThatHonoursIDsIsAskedAgain(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
		up, _ := s.joinLive(10, 12)
		c := s.get("/events", "Last-Event-ID", "8")
		s.origin.next().accept().events(9, 10)
		c.expect(primer("8") + numbered(9, 12))

		s.get("/events", "Last-Event-ID", "made up")
		catchup := s.origin.next().accept()
		up.events(13, 13)
		catchup.events(13, 13)

		c = s.get("/events", "Last-Event-ID", "7")
		s.origin.next().accept().events(8, 10)
		c.expect(primer("7") + numbered(8, 13))
	})
}
