package ssefanout

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// unavailable has an origin's ways of being away, each ending the answer.
var unavailable = map[string]func(*conn){
	"408": func(c *conn) { c.answer(408).end() },
	"425": func(c *conn) { c.answer(425).end() },
	"429": func(c *conn) { c.answer(429).end() },
	"500": func(c *conn) { c.answer(500).send("oops").end() },
	"502": func(c *conn) { c.answer(502).end() },
	"503": func(c *conn) { c.answer(503, "Content-Type", "text/event-stream").end() },

	"Caddy's error":  func(c *conn) { c.fail(502) },
	"another error":  func(c *conn) { c.step(func(http.ResponseWriter) error { return errors.New("broken") }) },
	"abort":          func(c *conn) { c.abort() },
	"panic":          func(c *conn) { c.step(func(http.ResponseWriter) error { panic("a bug") }) },
	"ends at once":   func(c *conn) { c.accept().end() },
	"breaks at once": func(c *conn) { c.accept().abort() },
	"unknown encoding": func(c *conn) {
		c.answer(200, "Content-Type", "text/event-stream", "Content-Encoding", "lzma").send("xyz")
	},
}

// neverAccepted tells those of unavailable that never were a stream.
func neverAccepted(name string) bool { return !strings.HasSuffix(name, "at once") }

func TestUnavailableOriginIsRetried(t *testing.T) {
	for name, answer := range unavailable {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{})
				c := s.get("/events")
				up := s.origin.next()
				answer(up)
				if neverAccepted(name) {
					c.expect("")
				} else {
					c.expect(primer(""))
				}
				if !up.closed() {
					t.Fatal("the connection to the origin is open")
				}
				least := 500 * time.Millisecond
				if name == "ends at once" { // as a stream should: there is no hurry
					least = relay.DefaultRetry
				}
				time.Sleep(least - 1)
				s.origin.idle()
				time.Sleep(500 * time.Millisecond)
				s.origin.next().accept().events(1, 1)
				c.expectStatus(200)
				if got := c.read(); !strings.HasSuffix(got, numbered(1, 1)) {
					t.Errorf("client got %q, want the event at its end", got)
				}
			})
		})
	}
}

func TestClientsOfUnavailableOriginAreHeld(t *testing.T) {
	noAnswer := func(*conn) {}
	for name, answer := range unavailable {
		if !neverAccepted(name) {
			continue
		}
		t.Run(name, func(t *testing.T) { testHeld(t, answer) })
	}
	t.Run("no answer", func(t *testing.T) { testHeld(t, noAnswer) })
}

func testHeld(t *testing.T, answer func(*conn)) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		c := s.get("/events")
		s.origin.keepAnswering(10*time.Second-1, answer)
		c.expectStatus(0)
		s.origin.keepAnswering(1, answer)
		c.expectStatus(200)
		c.expect(primer(""))
		s.origin.keepAnswering(21*time.Second, answer)
		c.expect(":\n\n:\n\n")
		if c.ended() {
			t.Error("the client's stream has ended")
		}
	})
}

func TestUnavailableReject(t *testing.T) {
	for _, name := range []string{"503", "Caddy's error", "abort"} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{Unavailable: "reject"})
				c := s.get("/events")
				s.origin.keepAnswering(10*time.Second-1, unavailable[name])
				c.expectStatus(0)
				s.origin.keepAnswering(1, unavailable[name])
				c.expectStatus(503)
				if !c.ended() {
					t.Error("the client's stream has not ended")
				}
				after, err := strconv.Atoi(c.header.Get("Retry-After"))
				if err != nil || after < 5 || after > 30 {
					t.Errorf("Retry-After is %q, want 5 to 30", c.header.Get("Retry-After"))
				}
				if n := s.pool.stats.Rejected.Get(relay.RejectUnavailable); n != 1 {
					t.Errorf("%d clients counted as rejected, want 1", n)
				}
			})
		})
	}
}

// reconnecting returns n clients of a topic that has lost its connection, and
// asks every second.
func reconnecting(t *testing.T, opts Options, n int) (*setup, []*client) {
	opts.Reconnect = Reconnect{Min: caddy.Duration(time.Second), Max: caddy.Duration(time.Second)}
	s := newSetup(t, opts)
	clients := make([]*client, n)
	for i := range clients {
		clients[i] = s.get("/events")
	}
	s.origin.next().accept().events(1, 1).abort()
	for _, c := range clients {
		c.expect(primer("") + numbered(1, 1))
	}
	return s, clients
}

// countEnded returns how many streams have ended.
func countEnded(clients []*client) (n int) {
	for _, c := range clients {
		if c.ended() {
			n++
		}
	}
	return n
}

// expectSpread checks that clients were told to come back at different times
// between 3 s and 3 s and spread.
func expectSpread(t *testing.T, clients []*client, spread time.Duration) {
	t.Helper()
	told := make(map[int]bool)
	for _, c := range clients {
		text := c.read()
		i := strings.LastIndex(text, "retry: ")
		if i < 0 {
			t.Fatalf("the client got %q, want it to end with a retry", text)
		}
		ms, err := strconv.Atoi(strings.TrimSuffix(text[i+len("retry: "):], "\n\n"))
		if err != nil || ms < 3000 || ms > 3000+int(spread.Milliseconds()) {
			t.Errorf("the client got %q at its end, want a retry of 3 s to %s", text[i:], 3*time.Second+spread)
		}
		told[ms] = true
	}
	if len(told) < len(clients)/2 {
		t.Errorf("%d clients were told %d different times to come back", len(clients), len(told))
	}
}

func TestNoIsBelievedAfterAMinute(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func(*conn)
		passes bool // what the next client gets
	}{
		{"404", func(c *conn) { c.answer(404).end() }, false},
		{"302", func(c *conn) { c.answer(302, "Location", "/login").end() }, false},
		{"Caddy's error", func(c *conn) { c.fail(403) }, false},
		{"html", func(c *conn) { c.answer(200, "Content-Type", "text/html").end() }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s, clients := reconnecting(t, Options{}, 20)
				// The first no comes after a second.
				s.origin.keepAnswering(61*time.Second-1, tt.answer)
				if n := countEnded(clients); n != 0 {
					t.Fatalf("%d streams have ended within the minute", n)
				}
				for _, c := range clients {
					c.expect(":\n\n:\n\n:\n\n:\n\n")
				}
				s.origin.keepAnswering(time.Millisecond, tt.answer)
				time.Sleep(5 * time.Second)
				if n := countEnded(clients); n == 0 || n == len(clients) {
					t.Errorf("%d of %d streams have ended 5 s after the minute, want them spread over 10 s", n, len(clients))
				}
				time.Sleep(5 * time.Second)
				if n := countEnded(clients); n != len(clients) {
					t.Errorf("%d of %d streams have ended 10 s after the minute", n, len(clients))
				}
				expectSpread(t, clients, 10*time.Second)
				s.origin.idle()
				if n := s.pool.stats.Ended.Get(relay.EndRefused); n != uint64(len(clients)) {
					t.Errorf("%d streams counted as ended by a no, want %d", n, len(clients))
				}

				c := s.get("/events")
				tt.answer(s.origin.next())
				if tt.passes {
					s.origin.next().end() // its own request
				}
				if !c.ended() {
					t.Error("the next client was not told no")
				}
			})
		})
	}
}

func TestMinuteOfNosBeginsAnew(t *testing.T) {
	no := func(c *conn) { c.answer(404).end() }
	for name, other := range map[string]func(*conn){
		"after a 503":    func(c *conn) { c.answer(503).end() },
		"after an error": func(c *conn) { c.fail(502) },
		"after a break":  func(c *conn) { c.abort() },
		"after a stream": func(c *conn) { c.accept().abort() },
	} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s, clients := reconnecting(t, Options{}, 1)
				s.origin.keepAnswering(50*time.Second, no)
				other(s.origin.await())
				s.origin.keepAnswering(61*time.Second-1, no)
				if e := s.onlyTopic().Ending(); e != nil {
					t.Fatal("the no was believed less than a minute after another answer")
				}
				s.origin.keepAnswering(20*time.Second, no)
				if n := countEnded(clients); n != 1 {
					t.Error("the no was not believed a minute after another answer")
				}
			})
		})
	}
}

func TestHeldClientsAreNotEndedByOneNo(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		c := s.get("/events")
		s.origin.keepAnswering(20*time.Second, unavailable["503"])
		s.origin.await().answer(404).end()
		time.Sleep(10 * time.Millisecond)
		if c.ended() {
			t.Fatal("the client was accepted, and then ended by one no")
		}
		s.origin.await().accept().events(1, 1)
		if got := c.read(); !strings.HasSuffix(got, numbered(1, 1)) {
			t.Errorf("client got %q, want the event at its end", got)
		}
	})
}

func TestGoneEndsTheSubscribers(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s, clients := reconnecting(t, Options{}, 20)
		s.origin.denyID(chokes["204"])
		s.origin.next().answer(204).end()
		if n := countEnded(clients); n != len(clients) {
			t.Errorf("%d of %d streams have ended", n, len(clients))
		}
		expectSpread(t, clients, 10*time.Second)
		s.origin.idle()
		c := s.get("/events")
		s.origin.next().answer(204).end()
		c.expectAnswer(204, "")
		if n := s.pool.stats.Ended.Get(relay.EndUpstreamGone); n != uint64(len(clients)) {
			t.Errorf("%d streams counted as ended by a 204, want %d", n, len(clients))
		}
	})
}
