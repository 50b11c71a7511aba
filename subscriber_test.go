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

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

const (
	heartbeat = ":\n\n"
	gapTold   = ": gap: events may be missing here\n\n"
)

var noCatchup = Catchup{Connections: -1}

// unnumbered are events without ids.
func unnumbered(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintf(&b, "data: event %d\n\n", i)
	}
	return b.String()
}

func TestPrimerAndWhatFollows(t *testing.T) {
	const retry5 = ": sse_fanout\nretry: 5000\n"
	for _, tc := range []struct {
		name   string
		opts   Options
		before string // what the origin has sent when the client comes
		id     string // that the client brings
		want   string // before anything else is sent
	}{
		{name: "nothing yet", want: primer("")},
		{name: "live, id in force", before: numbered(1, 3), want: primer("3")},
		{name: "live, no ids", before: unnumbered(1, 3), want: primer("")},
		{name: "live, id of an earlier event", before: numbered(1, 1) + unnumbered(2, 3), want: primer("1")},
		{name: "live, id of a block of its own", before: numbered(1, 1) + "id: x\n\n", want: primer("x")},
		{name: "live, id taken back", before: numbered(1, 1) + "id\ndata\n\n", want: primer("")},

		{name: "resumed", before: numbered(1, 3), id: "1", want: primer("1") + numbered(2, 3)},
		{name: "resumed at the end", before: numbered(1, 3), id: "3", want: primer("3")},
		{name: "resumed, events without ids", before: numbered(1, 1) + unnumbered(2, 3), id: "1",
			want: primer("1") + unnumbered(2, 3)},
		{name: "resumed, id set twice", before: numbered(1, 2) + numbered(1, 1) + numbered(3, 3), id: "1",
			want: primer("1") + numbered(3, 3)},
		{name: "resumed, first_event oldest", opts: Options{FirstEvent: "oldest"}, before: numbered(1, 3), id: "2",
			want: primer("2") + numbered(3, 3)},

		{name: "oldest", opts: Options{FirstEvent: "oldest"}, before: numbered(1, 3), want: primer("") + numbered(1, 3)},
		{name: "oldest, of a short history", opts: Options{FirstEvent: "oldest", History: History{Events: 2}},
			before: numbered(1, 4), want: primer("2") + numbered(3, 4)},
		{name: "oldest, of a small history", opts: Options{FirstEvent: "oldest", History: History{Size: 60}},
			before: numbered(1, 4), want: primer("2") + numbered(3, 4)},
		{name: "the last two", opts: Options{FirstEvent: "2"}, before: numbered(1, 4), want: primer("2") + numbered(3, 4)},
		{name: "the last two of one", opts: Options{FirstEvent: "2"}, before: numbered(1, 1), want: primer("") + numbered(1, 1)},
		{name: "the last one without an id", opts: Options{FirstEvent: "1"}, before: numbered(1, 1) + unnumbered(2, 3),
			want: primer("1") + unnumbered(3, 3)},

		{name: "gap, current id", opts: Options{Catchup: noCatchup}, before: numbered(1, 3), id: "x",
			want: gapPrimer("3") + gapTold},
		{name: "gap, no id in force", opts: Options{Catchup: noCatchup}, before: unnumbered(1, 3), id: "x",
			want: ": sse_fanout\nretry: 3000\nid: \n" + gapTold},
		{name: "gap, first_event oldest", opts: Options{Catchup: noCatchup, FirstEvent: "oldest"}, before: numbered(1, 3), id: "x",
			want: gapPrimer("3") + gapTold},
		{name: "gap, told by an event", opts: Options{Catchup: noCatchup, GapEvent: "lost"}, before: numbered(1, 3), id: "x",
			want: gapPrimer("3") + ": gap: events may be missing here\nevent: lost\ndata: \n\n"},
		{name: "gap, out of a short history", opts: Options{Catchup: noCatchup, History: History{Events: 2}},
			before: numbered(1, 4), id: "1", want: gapPrimer("4") + gapTold},
		{name: "resumed, just before a short history", opts: Options{Catchup: noCatchup, History: History{Events: 2}},
			before: numbered(1, 4), id: "2", want: primer("2") + numbered(3, 4)},

		{name: "configured retry", opts: Options{Retry: caddy.Duration(5 * time.Second)}, want: retry5 + "\n"},
		{name: "the origin's retry", before: "retry: 5000\n\n" + numbered(1, 1), want: retry5 + "id: 1\n\n"},
		{name: "the origin's longest retry", before: "retry: 9223372036854775807\n\n", want: ": sse_fanout\nretry: 86400000\n\n"},
		{name: "the origin's newest retry", before: "retry: 7000\n\nretry: 5000\ndata: 1\n\n", want: retry5 + "\n"},
		{name: "configured before the origin's", opts: Options{Retry: caddy.Duration(5 * time.Second)},
			before: "retry: 7000\n\n", want: retry5 + "\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, tc.opts)
				s.get("/events")
				up := s.origin.next().accept()
				if tc.before != "" {
					up.send(tc.before)
				}
				byHeader := s.get("/events", "Last-Event-ID", tc.id)
				byHeader.expect(tc.want)
				byQuery := s.get("/events?lastEventId=" + tc.id)
				byQuery.expect(tc.want)
				up.send("id: next\ndata: x\n\n")
				for _, c := range []*client{byHeader, byQuery} {
					c.expect("id: next\ndata: x\n\n")
				}
				s.origin.idle()
			})
		})
	}
}

func TestJoinsAreCountedByOutcome(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Catchup: noCatchup})
		s.get("/events")
		s.origin.next().accept().events(1, 3)
		s.get("/events")
		for range 3 {
			s.get("/events", "Last-Event-ID", "2")
		}
		for range 4 {
			s.get("/events", "Last-Event-ID", "x")
		}
		stats := s.pool.stats
		if fresh, resumed, gaps := stats.Joined(relay.Fresh).Load(), stats.Joined(relay.Resumed).Load(), stats.Gaps.Load(); fresh != 2 || resumed != 3 || gaps != 4 {
			t.Errorf("counted %d fresh, %d resumed, %d gaps, want 2, 3, 4", fresh, resumed, gaps)
		}
	})
}

// A client that waits for a topic to be connected again has two reasons to be
// told of a gap: nobody knows its id, and the origin goes on without one.
func TestGapIsToldOnce(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Catchup: noCatchup})
		s.get("/events")
		s.origin.next().accept().send(unnumbered(1, 2)).abort()
		c := s.get("/events", "Last-Event-ID", "x")
		c.expect(primer("x"))
		time.Sleep(time.Second)
		s.origin.next().accept().send(unnumbered(3, 3))
		if got := c.read(); strings.Count(got, "gap: ") != 1 || !strings.HasSuffix(got, unnumbered(3, 3)) {
			t.Errorf("got %q, want to be told once, and the event", got)
		}
		if got := s.pool.stats.Gaps.Load(); got != 2 {
			t.Errorf("counted %d gaps, want one for each of 2 subscribers", got)
		}
	})
}

// Clients that come and go at random resume with the id that they have seen
// last, and between them get each event once and in order.
func TestReplayAndLiveMeetWithoutGapOrDuplicate(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		s.get("/events")
		up := s.origin.next().accept().events(1, 1)
		for step := 1; step < 20; step++ {
			var got strings.Builder
			last := 1
			for last < 40 {
				c := s.get("/events", "Last-Event-ID", fmt.Sprint(last))
				text, ok := strings.CutPrefix(c.read(), primer(fmt.Sprint(last)))
				if !ok {
					t.Fatalf("a client that resumes with %d begins with %q", last, text)
				}
				if newest := fmt.Sprint("id: ", last+1, "\n"); !strings.Contains(text, newest) {
					up.events(last+1, last+step)
					text += c.read()
				}
				c.leave()
				got.WriteString(text)
				last += strings.Count(text, "id: ")
			}
			if want := numbered(2, last); got.String() != want {
				t.Fatalf("steps of %d: got %q, want %q", step, got.String(), want)
			}
			s.origin.idle()
		}
	})
}

// A batch ends at most where a segment of the log does: 50 small events lie in
// one or two.
func TestManyEventsAreOneWriteAndOneFlush(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		c := s.get("/events")
		up := s.origin.next().accept()
		for i := range 10 {
			up.events(100*i, 100*i+49)
			c.read()
			writes, flushes := c.writes, c.flushes
			up.events(100*i+50, 100*i+99)
			c.expect(numbered(100*i+50, 100*i+99))
			if n := c.writes - writes; n > 2 || c.flushes-flushes != n {
				t.Errorf("50 events took %d writes and %d flushes", n, c.flushes-flushes)
			}
		}
	})
}

// HTTP/2 resets a stream when its write deadline passes, even a quiet one.
func TestWriteDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		r := streamRequest()
		r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
		h1, h2 := s.get("/events"), s.serve(r)
		up := s.origin.next().accept()
		deadline := func(c *client) time.Time {
			synctest.Wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.deadline
		}
		up.events(1, 1)
		for i := range 30 {
			time.Sleep(500 * time.Millisecond)
			up.events(i+2, i+2)
			for _, c := range []*client{h1, h2} {
				if d := deadline(c); !d.IsZero() {
					t.Errorf("a stream was left with a deadline in %s", time.Until(d))
				}
			}
		}
	})
}

func TestHeaderOfAStream(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		waiting := s.get("/events")
		s.origin.next().answer(http.StatusOK,
			"Content-Type", "text/event-stream; charset=utf-8", "Cache-Control", "public, max-age=60",
			"X-Accel-Buffering", "yes", "X-Of-The-Origin", "1", "Set-Cookie", "session=1")
		late := s.get("/events")
		for _, c := range []*client{waiting, late} {
			c.expectStatus(http.StatusOK)
			c.expect(primer("")) // at once, and flushed (R6)
			for name, want := range map[string]string{
				"Content-Type":      "text/event-stream; charset=utf-8",
				"Cache-Control":     "no-cache, no-transform",
				"X-Accel-Buffering": "no",
				"Incremental":       "?1",
				"X-Of-The-Origin":   "1",
				"Set-Cookie":        "",
				"Content-Length":    "",
			} {
				if got := strings.Join(c.header[http.CanonicalHeaderKey(name)], "|"); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
		}
	})
}

// What another handler adds to one client's header must not show in another's.
func TestClientsDoNotShareTheirHeaders(t *testing.T) {
	for _, status := range []int{http.StatusOK, http.StatusForbidden} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{})
				alice, bob := s.get("/events"), s.get("/events")
				s.origin.next().answer(status, "Content-Type", "text/event-stream", "X-A", "1", "X-A", "2", "X-A", "3").end()
				synctest.Wait()
				alice.header.Add("X-A", "alice")
				bob.header.Add("X-A", "bob")
				alice.header["X-A"][0] += " of alice"
				if got, want := alice.header["X-A"], []string{"1 of alice", "2", "3", "alice"}; !slices.Equal(got, want) {
					t.Errorf("alice has %q, want %q", got, want)
				}
				if got, want := bob.header["X-A"], []string{"1", "2", "3", "bob"}; !slices.Equal(got, want) {
					t.Errorf("bob has %q, want %q", got, want)
				}
			})
		})
	}
}

func TestHeartbeatForms(t *testing.T) {
	for _, tc := range []struct {
		name string
		opts Heartbeat
		want string
	}{
		{"default", Heartbeat{}, heartbeat},
		{"event", Heartbeat{Event: "ping"}, "event: ping\ndata: \n\n"},
		{"off", Heartbeat{Interval: -1}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{Heartbeat: tc.opts})
				c := s.get("/events")
				s.origin.next().accept()
				c.expect(primer(""))
				time.Sleep(15*time.Second + time.Millisecond)
				c.expect(tc.want)
				time.Sleep(15 * time.Second)
				c.expect(tc.want)
				if got, want := s.pool.stats.Heartbeats.Load(), uint64(2); tc.want != "" && got != want {
					t.Errorf("counted %d heartbeats, want %d", got, want)
				}
			})
		})
	}
}

func TestHeartbeatsComeOnlyWhenATopicHasBeenQuiet(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		c := s.get("/events")
		up := s.origin.next().accept()
		c.expect(primer(""))
		for i := range 10 {
			time.Sleep(14 * time.Second)
			up.events(i, i)
			c.expect(numbered(i, i))
		}
		time.Sleep(14 * time.Second)
		c.expect("")
		time.Sleep(2 * time.Second)
		c.expect(heartbeat)
		late := s.get("/events")
		late.expect(primer("9"))
		time.Sleep(14 * time.Second)
		c.expect(heartbeat)
		late.expect(heartbeat)
	})
}

func TestHeartbeatsComeWhileTheOriginIsDown(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		c := s.get("/events")
		s.origin.next().accept().events(1, 1).abort()
		c.expect(primer("") + numbered(1, 1))
		fail := time.NewTicker(time.Second)
		defer fail.Stop()
		for range 4 {
			for range 15 {
				<-fail.C
				synctest.Wait()
				if len(s.origin.conns) > 0 {
					s.origin.next().fail(http.StatusBadGateway)
				}
			}
			synctest.Wait()
			c.expect(heartbeat)
		}
	})
}

func TestClientIsHeldWithHeartbeatsBeforeTheFirstAnswer(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		c := s.get("/events")
		resuming := s.get("/events", "Last-Event-ID", "7")
		up := s.origin.next()
		time.Sleep(9 * time.Second)
		c.expectStatus(0)
		time.Sleep(2 * time.Second)
		c.expectStatus(http.StatusOK)
		c.expect(primer(""))
		resuming.expect(primer("7"))
		time.Sleep(5 * time.Second)
		c.expect(heartbeat)
		resuming.expect(heartbeat)
		time.Sleep(time.Hour)
		if got, want := c.read(), strings.Repeat(heartbeat, 240); got != want {
			t.Errorf("got %d bytes in an hour, want %d", len(got), len(want))
		}
		up.accept().events(1, 1)
		c.expect(numbered(1, 1))
	})
}

func TestSubscriberThatTheLogHasPassedIsEnded(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{History: History{Size: 1000}, Catchup: noCatchup})
		slow, quick := s.get("/events"), s.get("/events")
		up := s.origin.next().accept()
		slow.expect(primer(""))
		quick.expect(primer(""))
		slow.take(5 * time.Second)
		for i := 1; i <= 100; i++ {
			up.events(i, i)
			quick.expect(numbered(i, i))
		}
		time.Sleep(time.Minute)
		if !slow.ended() || slow.panic != nil {
			t.Errorf("ended %t, panic %v, want a clean end", slow.ended(), slow.panic)
		}
		slow.expect(numbered(1, 1)) // whole events only (R5)
		s.expectEnded(relay.EndSlow, 1)
		if quick.ended() {
			t.Error("another subscriber was ended")
		}
		up.events(101, 101)
		quick.expect(strings.Repeat(heartbeat, 4) + numbered(101, 101))
	})
}

// take makes the client need this long for each write.
func (c *client) take(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slowness = d
}

func (s *setup) expectEnded(why relay.EndReason, want uint64) {
	s.t.Helper()
	synctest.Wait()
	if got := s.pool.stats.Ended.Get(why); got != want {
		s.t.Errorf("counted %d subscribers ended for %s, want %d", got, why, want)
	}
}

func TestStalledWriteEndsTheSubscriber(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{DispatchTimeout: caddy.Duration(7 * time.Second)})
		stalled, quick := s.get("/events"), s.get("/events")
		up := s.origin.next().accept()
		stalled.stall()
		up.events(1, 1)
		time.Sleep(6 * time.Second)
		if stalled.ended() {
			t.Fatal("ended before dispatch_timeout")
		}
		up.events(2, 2)
		quick.expect(primer("") + numbered(1, 2))
		time.Sleep(2 * time.Second)
		if !stalled.ended() || stalled.panic != any(http.ErrAbortHandler) {
			t.Errorf("ended %t, panic %v, want http.ErrAbortHandler: the client must not take it for a clean end",
				stalled.ended(), stalled.panic)
		}
		s.expectEnded(relay.EndStalled, 1)
		quick.expectServed()
	})
}

// On HTTP/2, what ends a write that waits too long is a timer.
func TestStalledWriteOfHTTP2EndsTheSubscriber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{DispatchTimeout: caddy.Duration(7 * time.Second)})
		r := streamRequest()
		r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
		c := s.serve(r)
		up := s.origin.next().accept()
		for i := range 10 { // the timer that runs is of an earlier write
			up.events(i, i)
			time.Sleep(5 * time.Second)
		}
		c.stall()
		up.events(10, 10)
		time.Sleep(6900 * time.Millisecond)
		if c.ended() {
			t.Fatal("ended before dispatch_timeout")
		}
		time.Sleep(200 * time.Millisecond)
		if !c.ended() || c.panic != any(http.ErrAbortHandler) {
			t.Errorf("ended %t, panic %v, want http.ErrAbortHandler", c.ended(), c.panic)
		}
		s.expectEnded(relay.EndStalled, 1)
	})
}

func TestHangUpIsCounted(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		s.get("/events").leave() // before the origin's word: it had no stream
		s.expectEnded(relay.EndClientGone, 0)
		c := s.get("/events")
		s.origin.next()
		s.origin.next().accept()
		c.leave()
		s.expectEnded(relay.EndClientGone, 1)
	})
}

// An event that is larger than the history reaches all that read, and so does what follows.
func TestEventLargerThanTheHistory(t *testing.T) {
	for _, size := range []int{600, 1000, 2000, 200 << 10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{History: History{Size: 1000}, Heartbeat: Heartbeat{Interval: -1}})
				quick, slow := s.get("/events"), s.get("/events")
				up := s.origin.next().accept()
				quick.expect(primer(""))
				slow.expect(primer(""))
				slow.take(time.Second)
				large := "id: large\ndata: " + strings.Repeat("x", size) + "\n\n"
				up.send(numbered(1, 2) + large + numbered(3, 5))
				quick.expect(numbered(1, 2) + large + numbered(3, 5))
				up.send(large + numbered(9, 10))
				quick.expect(large + numbered(9, 10))
				time.Sleep(time.Minute)
				if quick.ended() {
					t.Error("a client that reads was ended")
				}
				late := s.get("/events", "Last-Event-ID", "large")
				late.expect(primer("large") + numbered(9, 10))
			})
		})
	}
}

// However large an id is, nobody gets it but with its event.
func TestLongIDIsNoPosition(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		c := s.get("/events")
		event := "id: " + strings.Repeat("x", relay.MaxPosition+1) + "\ndata: 1\n\n"
		up := s.origin.next().accept().send(event)
		c.expect(primer("") + event)
		late := s.get("/events")
		late.expect(primer(""))
		up.send("data: 2\n\n")
		late.expect("data: 2\n\n")
	})
}

// A slow client that makes progress is not stalled: no single write may be so
// large that it cannot be done in time.
func TestLargeEventsAreWrittenInPieces(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		c := s.get("/events")
		up := s.origin.next().accept()
		c.expect(primer(""))
		c.take(9 * time.Second)
		event := "data: " + strings.Repeat("x", 300<<10) + "\n\n"
		up.send(event)
		time.Sleep(200 * time.Second)
		if c.ended() {
			t.Fatal("a client that makes progress was ended")
		}
		if got, _, _ := strings.Cut(c.read(), heartbeat); got != event {
			t.Errorf("got %d bytes, want %d", len(got), len(event))
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.largest > piece {
			t.Errorf("a write of %d bytes", c.largest)
		}
	})
}

func TestStreamTimeoutEndsStreamsOverItsLastFifth(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		const limit = 100 * time.Second
		s := newSetup(t, Options{StreamTimeout: caddy.Duration(limit), Linger: Linger{Duration: -1}})
		const n = 200
		clients := make([]*client, n)
		for i := range clients {
			clients[i] = s.get("/events")
		}
		up := s.origin.next().accept().events(1, 1)
		running := func() (n int) {
			for _, c := range clients {
				if !c.ended() {
					n++
				}
			}
			return n
		}
		time.Sleep(limit*4/5 - time.Millisecond)
		if got := running(); got != n {
			t.Errorf("%d of %d streams run just before the last fifth", got, n)
		}
		time.Sleep(limit / 10)
		// 100 are to be expected.
		if got := running(); got < 50 || got > 150 {
			t.Errorf("%d of %d streams run in the middle of the last fifth", got, n)
		}
		up.events(2, 2)
		time.Sleep(limit/10 + time.Millisecond)
		if got := running(); got != 0 {
			t.Errorf("%d of %d streams outlive their timeout", got, n)
		}
		s.expectEnded(relay.EndTimeout, n)
		for _, c := range clients {
			c.read()
			if c.panic != nil {
				t.Fatalf("a stream was not ended cleanly: %v", c.panic)
			}
		}
	})
}
