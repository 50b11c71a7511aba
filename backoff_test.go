package ssefanout

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// delays answers n requests to the origin in the same way, and returns how long
// each took to come.
func (s *setup) delays(n int, answer func(*conn)) []time.Duration {
	s.t.Helper()
	delays := make([]time.Duration, n)
	for i := range delays {
		lost := time.Now()
		c := s.origin.await()
		delays[i] = c.at.Sub(lost)
		answer(c)
	}
	return delays
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{Reconnect: Reconnect{Min: caddy.Duration(time.Second), Max: caddy.Duration(20 * time.Second)}})
		s.get("/events")
		up := s.origin.next()
		bounds := []time.Duration{2, 4, 8, 16, 20, 20}
		low, high := make([]time.Duration, len(bounds)), make([]time.Duration, len(bounds))
		for run := range 100 {
			// An event proves the connection: the next failure is the first again.
			up.accept().events(run, run).abort()
			for i, d := range s.delays(len(bounds), unavailable["502"]) {
				bound := bounds[i] * time.Second
				if d < time.Second || d > bound {
					t.Fatalf("failure %d: the origin was asked after %s, want 1s to %s", i+1, d, bound)
				}
				if low[i] == 0 || d < low[i] {
					low[i] = d
				}
				high[i] = max(high[i], d)
			}
			up = s.origin.await()
		}
		// Full jitter: a hundred times come near both bounds.
		for i, bound := range bounds {
			width := bound*time.Second - time.Second
			if low[i] > time.Second+width/5 || high[i] < bound*time.Second-width/5 {
				t.Errorf("failure %d: the origin was asked after %s to %s, want all of 1s to %s", i+1, low[i], high[i], bound*time.Second)
			}
		}
	})
}

func TestBackoffEndsOnceAConnectionHasProvedItself(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func(*conn)
		reset  bool
	}{
		{"an event", func(c *conn) { c.accept().events(1, 1).abort() }, true},
		{"an event, and a clean end", func(c *conn) { c.accept().events(1, 1).end() }, true},
		{"5 s", func(c *conn) { c.accept(); time.Sleep(5 * time.Second); c.abort() }, true},
		{"less than 5 s", func(c *conn) { c.accept(); time.Sleep(5*time.Second - 1); c.abort() }, false},
		{"a comment", func(c *conn) { c.accept().send(": hello\n\n").abort() }, false},
		{"a slow no", func(c *conn) { time.Sleep(5 * time.Second); c.fail(502) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, Options{Reconnect: Reconnect{Min: caddy.Duration(time.Second), Max: caddy.Duration(time.Hour)}})
				s.get("/events")
				s.origin.keepAnswering(2*time.Hour, unavailable["503"])
				tt.answer(s.origin.await())
				delay := s.delays(1, unavailable["503"])[0]
				if reset := delay <= relay.DefaultRetry; reset != tt.reset {
					t.Errorf("the origin was asked again after %s, want the first delay: %t", delay, tt.reset)
				}
			})
		})
	}
}

func TestOriginSaysWhenToComeBack(t *testing.T) {
	after := func(status int, value string) func(*conn) {
		return func(c *conn) { c.answer(status, "Retry-After", value).end() }
	}
	date := func(status int, d time.Duration) func(*conn) {
		return func(c *conn) { after(status, time.Now().Add(d).UTC().Format(http.TimeFormat))(c) }
	}
	retry := func(ms string) func(*conn) {
		return func(c *conn) { c.accept().send("retry: " + ms + "\n\n").abort() }
	}
	for _, tt := range []struct {
		name   string
		opts   Options
		answer func(*conn)
		want   time.Duration // 0: the backoff's
	}{
		{"Retry-After in seconds", Options{}, after(503, "120"), 2 * time.Minute},
		{"Retry-After of 429", Options{}, after(429, "120"), 2 * time.Minute},
		{"Retry-After as a date", Options{}, date(503, 2*time.Minute), 2 * time.Minute},
		{"Retry-After over an hour", Options{}, after(503, "86400"), time.Hour},
		{"Retry-After as a date over an hour", Options{}, date(503, 24*time.Hour), time.Hour},
		{"Retry-After in the past", Options{}, date(503, -time.Hour), 0},
		{"Retry-After below the backoff", Options{}, after(503, "0"), 0},
		{"retry", Options{}, retry("120000"), 2 * time.Minute},
		{"retry over an hour", Options{}, retry("9999999999999"), time.Hour},
		{"retry below the backoff", Options{}, retry("1"), 0},
		{"retry where another is configured", Options{Retry: caddy.Duration(time.Second)}, retry("120000"), 2 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tt.opts.Wait = caddy.Duration(3 * time.Hour)
				s := newSetup(t, tt.opts)
				s.get("/events")
				tt.answer(s.origin.next())
				got := s.delays(1, unavailable["503"])[0]
				if tt.want != 0 && got != tt.want || tt.want == 0 && (got < 500*time.Millisecond || got > time.Second) {
					t.Errorf("the origin was asked after %s, want %s", got, tt.want)
				}
				if logged := s.upstreamLogs()[len(s.upstreamLogs())-2].ContextMap()["delay"]; logged != got {
					t.Errorf("the log says %s, and the origin was asked after %s", logged, got)
				}
			})
		})
	}
}

func TestOriginsRetryIsRememberedAcrossConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		s.get("/events")
		s.origin.next().accept().send("retry: 60000\n\n").abort()
		for i, d := range s.delays(5, unavailable["502"]) {
			if d < time.Minute {
				t.Errorf("reconnect %d came after %s, want no less than the origin's retry", i, d)
			}
		}
	})
}

func TestRetryIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		c := s.get("/events")
		up := s.origin.next().accept().send("retry: 5000\n\nretry: 7000\ndata: a\n\n")
		c.expect(primer("") + "retry: 5000\n\nretry: 7000\ndata: a\n\n")
		s.get("/events").expect(": sse_fanout\nretry: 7000\n\n")
		up.send("data: b\n\n")
		c.expect("data: b\n\n")
	})
}

func TestConfiguredRetryWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{Retry: caddy.Duration(time.Second)})
		c := s.get("/events")
		s.origin.next().accept().send("retry: 7000\n\nretry: 7000\ndata: a\n\nid: 1\nretry: 7000\n\n")
		c.expect(": sse_fanout\nretry: 1000\n\n" + "data: a\n\n" + "id: 1\n\n")
		s.get("/events").expect(": sse_fanout\nretry: 1000\nid: 1\n\n")
	})
}
