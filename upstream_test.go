package ssefanout

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

// resumedWith returns the id that a request to the origin carries, with a mark
// if it carries one at all.
func (c *conn) resumedWith() string {
	if values := c.request.Header["Last-Event-Id"]; values != nil {
		return "id " + strings.Join(values, ",")
	}
	return "no id"
}

func (c *conn) expectResumedWith(want string) *conn {
	c.t.Helper()
	if got := c.resumedWith(); got != want {
		c.t.Errorf("the origin was asked with %s, want %s", got, want)
	}
	return c
}

func TestReconnectSendsTheIDInForce(t *testing.T) {
	for _, tt := range []struct {
		name, header, stream, want string
	}{
		{"last of several", "", numbered(1, 3), "id 3"},
		{"sticky", "", "id: 1\ndata: a\n\ndata: b\n\n", "id 1"},
		{"id-only block", "", "id: 1\ndata: a\n\nid: 2\n\n", "id 2"},
		{"reset by an empty one", "", "id: 1\ndata: a\n\nid\ndata: b\n\n", "no id"},
		{"none", "", "data: a\n\n", "no id"},
		{"half an event", "", numbered(1, 1) + "id: 2\ndata: b\n", "id 1"},
		{"opened with one, none since", "7", "", "id 7"},
		{"opened with one, a reconnection time since", "7", "retry: 3000\n\n", "id 7"},
		{"opened with one, which the origin returns", "7", "id: 7\n\n", "id 7"},
		{"opened with one, an event without", "7", "data: a\n\n", "no id"},
		{"opened with one, a newer since", "7", numbered(8, 8), "id 8"},
		{"opened with one, reset", "7", "id\ndata: a\n\n", "no id"},
		{"not sendable", "", "id: a\x01b\ndata: a\n\n", "no id"},
		{"opened with one that is not sendable", "a\x7f", "", "no id"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{Catchup: noCatchup})
				s.get("/events", "Last-Event-ID", tt.header)
				up := s.origin.next()
				if tt.header != "" && relay.SendableID(tt.header) {
					up.expectResumedWith("id " + tt.header)
				} else {
					up.expectResumedWith("no id")
				}
				up.accept().send(tt.stream).abort()
				s.origin.await().expectResumedWith(tt.want)
			})
		})
	}
}

// chokes has the answers that put the blame on the id they are to.
var chokes = map[string]func(*conn){
	"400":  func(c *conn) { c.answer(400).end() },
	"404":  func(c *conn) { c.fail(404) },
	"410":  func(c *conn) { c.answer(410).end() },
	"302":  func(c *conn) { c.answer(302).end() },
	"500":  func(c *conn) { c.answer(500).end() },
	"204":  func(c *conn) { c.answer(204).end() },
	"html": func(c *conn) { c.answer(200, "Content-Type", "text/html").send("<p>").end() },
}

func TestIDThatTheOriginChokesOnIsUsedOnce(t *testing.T) {
	for name, choke := range chokes {
		t.Run("opening, "+name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{GapEvent: "gap", Catchup: noCatchup})
				c := s.get("/events", "Last-Event-ID", "7")
				choke(s.origin.next().expectResumedWith("id 7"))
				c.expect("")
				up := s.origin.next().expectResumedWith("no id").accept() // at once
				c.expectStatus(200)
				c.expect(": sse_fanout\nretry: 3000\nid: \n: gap: events may be missing here\nevent: gap\ndata: \n\n")
				up.send("data: no id\n\n").abort()
				c.expect("data: no id\n\n")
				s.origin.await().expectResumedWith("no id")
			})
		})
		t.Run("reconnecting, "+name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{})
				c := s.get("/events")
				s.origin.next().accept().events(1, 1).abort()
				s.origin.denyID(choke)
				up := s.origin.next().expectResumedWith("no id").accept() // at once
				c.expect(primer("") + numbered(1, 1) + gapComment)
				up.send("data: no id\n\n").abort()
				up = s.origin.await().expectResumedWith("no id").accept()
				up.events(2, 2).abort()
				c.expect("data: no id\n\n" + gapComment + numbered(2, 2))
				s.origin.await().expectResumedWith("id 2")
			})
		})
	}
}

// Of several instances behind a balancer, one may be starting, and its answer is no word about
// an id that the origin itself has given out.
func TestIDThatAnInstanceChokesOnIsUsedAgain(t *testing.T) {
	for name, choke := range chokes {
		for odd := 1; odd < relay.MaxDenials; odd++ {
			t.Run(fmt.Sprint(name, ", ", odd), func(t *testing.T) {
				bothWriters(t, func(t *testing.T) {
					s := newSetup(t, Options{})
					c := s.get("/events")
					up := s.origin.next()
					for n := 1; n < 4; n++ {
						up.accept().events(n, n).abort()
						for range odd {
							choke(s.origin.await().expectResumedWith(fmt.Sprint("id ", n)))
						}
						up = s.origin.await().expectResumedWith(fmt.Sprint("id ", n))
					}
					up.accept()
					c.expect(primer("") + numbered(1, 3))
				})
			})
		}
	}
}

func TestIDIsNotBlamed(t *testing.T) {
	blameless := maps.Clone(unavailable)
	delete(blameless, "500")
	for name, answer := range blameless {
		t.Run("for "+name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{Catchup: noCatchup})
				s.get("/events", "Last-Event-ID", "7")
				for range 5 {
					answer(s.origin.await().expectResumedWith("id 7"))
					s.origin.idle()
				}
			})
		})
	}
	for name, choke := range chokes {
		t.Run("for "+name+" where the origin is away without it too", func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{Catchup: noCatchup})
				c := s.get("/events", "Last-Event-ID", "7")
				for range 3 {
					choke(s.origin.await().expectResumedWith("id 7"))
					s.origin.next().expectResumedWith("no id").fail(503)
				}
				s.origin.await().expectResumedWith("id 7").accept()
				c.expect(primer("7"))
			})
		})
	}
}

func TestVerdictIsTheAnswerWithoutAnID(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Catchup: noCatchup})
		c := s.get("/events", "Last-Event-ID", "7")
		s.origin.next().answer(410).send("to the id").end()
		s.origin.next().answer(404).send("to none").end()
		c.expectAnswer(404, "to none")
	})
}

func TestLeadingReplayIsDropped(t *testing.T) {
	event := func(id int, data string) string { return fmt.Sprintf("id: %d\ndata: %s\n\n", id, data) }
	for _, tt := range []struct {
		name, before, again, want string
	}{
		{"the whole log", numbered(1, 3), numbered(1, 3), ""},
		{"the end of the log", numbered(1, 5), numbered(4, 5), ""},
		{"the middle of the log", numbered(1, 5), numbered(2, 3), ""},
		{"and what is new", numbered(1, 3), numbered(2, 5), numbered(4, 5)},
		{"with gaps of its own", numbered(1, 5), event(1, "event 1") + event(4, "event 4") + numbered(6, 6), numbered(6, 6)},
		{"none", numbered(1, 3), numbered(4, 5), numbered(4, 5)},
		{"same id, other data", numbered(1, 3), event(3, "changed"), event(3, "changed")},
		{"same id, other type", numbered(1, 3), "event: x\n" + numbered(3, 3), "id: 3\nevent: x\ndata: event 3\n\n"},
		{"same data, other id", numbered(1, 3), event(4, "event 3"), event(4, "event 3")},
		{"in another order", numbered(1, 3), numbered(3, 3) + numbered(2, 2), numbered(2, 2)},
		{"twice", numbered(1, 3), numbered(3, 3) + numbered(3, 3), numbered(3, 3)},
		{"only until something new", numbered(1, 3), numbered(2, 2) + numbered(9, 9) + numbered(3, 3), numbered(9, 9) + numbered(3, 3)},
		{
			"events without an id in their turn",
			numbered(1, 1) + "data: a\n\n" + numbered(2, 2) + "data: b\n\n",
			numbered(1, 1) + "data: a\n\n" + numbered(2, 2) + "data: b\n\ndata: c\n\n",
			"data: c\n\n",
		},
		{
			"event without an id out of turn",
			numbered(1, 1) + "data: a\n\n" + numbered(2, 2) + "data: b\n\n",
			numbered(1, 1) + "data: b\n\n" + numbered(2, 2),
			"data: b\n\n" + numbered(2, 2),
		},
		{"event without an id at the beginning", "data: a\n\n" + numbered(1, 1), "data: a\n\n" + numbered(1, 1), "data: a\n\n" + numbered(1, 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{})
				c := s.get("/events")
				s.origin.next().accept().send(tt.before).abort()
				c.expect(primer("") + tt.before)
				up := s.origin.await().accept().send(tt.again)
				c.expect(tt.want)
				up.events(100, 100)
				c.expect(numbered(100, 100))
			})
		})
	}
}

func TestReplayOfAnOriginThatIgnoresIDs(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		c := s.get("/events")
		s.origin.next().accept().events(1, 2).abort()
		c.expect(primer("") + numbered(1, 2))
		for i := 3; i < 6; i++ {
			s.origin.await().accept().events(1, i).abort()
			c.expect(numbered(i, i))
		}
	})
}

func TestCleanEndReconnects(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		c := s.get("/events")
		for i := range 3 {
			s.origin.await().accept().events(i, i).end()
			s.origin.idle()
		}
		c.expect(primer("") + numbered(0, 2))
		if c.ended() {
			t.Error("the client's stream has ended")
		}
	})
}

func TestOnEndClose(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{OnEnd: "close"})
		clients := make([]*client, 20)
		for i := range clients {
			clients[i] = s.get("/events")
		}
		s.origin.next().accept().events(1, 1).abort() // no clean end
		if n := countEnded(clients); n != 0 {
			t.Fatalf("%d streams have ended because the connection broke", n)
		}
		up := s.origin.await().accept()
		up.step(func(w http.ResponseWriter) error {
			_, _ = w.Write([]byte(numbered(2, 3) + "id: 4\ndata: half"))
			return errEnd
		})
		if n := countEnded(clients); n != len(clients) {
			t.Fatalf("%d of %d streams have ended", n, len(clients))
		}
		for _, c := range clients {
			// The reconnection time is the origin's word, which it has not given.
			c.expect(primer("") + numbered(1, 3))
		}
		if n := s.pool.stats.Ended.Get(relay.EndUpstreamEnded); n != uint64(len(clients)) {
			t.Errorf("%d streams counted as ended with the origin's, want %d", n, len(clients))
		}
		s.origin.idle()
		s.get("/events")
		s.origin.next()
	})
}

func TestIdleTimeout(t *testing.T) {
	for _, tt := range []struct {
		name  string
		begin func(*conn) // takes 20 s
		last  time.Duration
	}{
		{"before the header", func(*conn) { time.Sleep(20 * time.Second) }, 10 * time.Second},
		{"the header counts", func(c *conn) { time.Sleep(20 * time.Second); c.accept() }, 30 * time.Second},
		{"silent stream", func(c *conn) { c.accept(); time.Sleep(20 * time.Second) }, 10 * time.Second},
		{"comments count", func(c *conn) { c.accept(); time.Sleep(20 * time.Second); c.send(":\n") }, 30 * time.Second},
		{"events count", func(c *conn) { c.accept(); time.Sleep(20 * time.Second); c.events(1, 1) }, 30 * time.Second},
		{"parts of events count", func(c *conn) { c.accept(); time.Sleep(20 * time.Second); c.send("d") }, 30 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{IdleTimeout: caddy.Duration(30 * time.Second)})
				c := s.get("/events")
				up := s.origin.next()
				tt.begin(up)
				time.Sleep(tt.last - 1)
				if up.closed() {
					t.Fatal("the connection was cut before idle_timeout")
				}
				time.Sleep(time.Nanosecond)
				if !up.closed() {
					t.Fatal("the connection is open after idle_timeout")
				}
				if why := s.lastUpstreamLog().ContextMap()["error"]; why != relay.ErrIdle.Error() {
					t.Errorf("the log says %q, want %q", why, relay.ErrIdle)
				}
				s.origin.await().accept()
				if c.ended() {
					t.Error("the client's stream has ended")
				}
			})
		})
	}
}

func TestWhatIsNotAnEventIsNotDelivered(t *testing.T) {
	for name, text := range map[string]string{
		"comment":           ": hello\n\n",
		"comments":          ":\n\n: a\n: b\n",
		"unknown field":     "color: blue\n\n",
		"type alone":        "event: x\n\n",
		"half an event":     "id: 1\ndata: half\n",
		"half a line":       "data: hal",
		"retry of a sloth":  "retry: slow\n\n",
		"empty lines alone": "\n\r\n\r",
	} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{})
				c := s.get("/events")
				s.origin.next().accept().send(text).end()
				c.expect(primer(""))
				s.origin.await().expectResumedWith("no id")
				if n := s.pool.stats.Received.Load(); n != 0 {
					t.Errorf("%d events counted, want 0", n)
				}
			})
		})
	}
}

func TestTooLargeAnEventCutsTheConnection(t *testing.T) {
	var buf bytes.Buffer
	for _, tt := range []struct {
		name, encoding, text string
	}{
		{"an endless line", "identity", "id: 2\ndata: " + strings.Repeat("x", settings.SmallestEventSize)},
		{"an endless comment", "identity", ":" + strings.Repeat("x", settings.SmallestEventSize)},
		{"many lines", "identity", "id: 2\n" + strings.Repeat("data: 0123456789\n", 100)},
		{"a whole event", "identity", "id: 2\ndata: " + strings.Repeat("x", settings.SmallestEventSize) + "\n\n"},
		{"bomb", "gzip", compressed(t, newCompressor(t, "gzip", &buf), &buf, strings.Repeat("x", 1<<20))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{MaxEventSize: settings.SmallestEventSize})
				c := s.get("/events")
				s.origin.next().accept().events(1, 1).abort()
				c.expect(primer("") + numbered(1, 1))

				up := s.origin.await().answer(200, "Content-Type", "text/event-stream", "Content-Encoding", tt.encoding).send(tt.text)
				if tt.encoding != "identity" && !up.closed() {
					up.send("more") // the source is told with its next write
				}
				if !up.closed() {
					t.Fatal("the connection is open")
				}
				if n := s.pool.stats.Oversized.Load(); n != 1 {
					t.Errorf("%d events counted as too large, want 1", n)
				}
				last := s.lastUpstreamLog()
				if why := fmt.Sprint(last.ContextMap()["error"]); last.Message != "upstream lost, reconnecting" || !strings.Contains(why, "max_event_size") {
					t.Errorf("the log says %q: %q, want the option's name", last.Message, why)
				}
				s.origin.await().expectResumedWith("id 1").accept().events(2, 2)
				c.expect(numbered(2, 2))
			})
		})
	}
}

func TestReconnectWithoutAnIDTellsOfAGap(t *testing.T) {
	for gapEvent, want := range map[string]string{
		"":       gapComment,
		"missed": ": gap: events may be missing here\nevent: missed\ndata: \n\n",
	} {
		t.Run("gap_event "+gapEvent, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{GapEvent: gapEvent})
				clients := []*client{s.get("/events"), s.get("/events")}
				s.origin.next().accept().send("data: a\n\n").abort()
				s.origin.await().accept().send("data: b\n\n")
				for _, c := range clients {
					c.expect(primer("") + "data: a\n\n" + want + "data: b\n\n")
				}
				if n := s.pool.stats.Gaps.Load(); n != 2 {
					t.Errorf("%d gaps counted, want 2", n)
				}
			})
		})
	}
}
