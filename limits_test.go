package ssefanout

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// getFrom makes a request from an address.
func (s *setup) getFrom(ip, target string, header ...string) *client {
	s.t.Helper()
	r := httptest.NewRequest(http.MethodGet, target, nil)
	asBrowser(r)
	addHeader(r, header)
	r.RemoteAddr = ip + ":4711"
	return s.serve(r)
}

// expectTurnedAway checks that a client got an empty stream and a time between
// 5 and 30 s to come back after, and returns that time.
func (c *client) expectTurnedAway() time.Duration {
	c.t.Helper()
	if !c.ended() {
		c.t.Error("the stream has not ended")
	}
	c.expectStatus(http.StatusOK)
	if got := c.header.Get("Content-Type"); got != "text/event-stream" {
		c.t.Errorf("got Content-Type %q", got)
	}
	text := c.read()
	ms, ok := strings.CutPrefix(text, "retry: ")
	ms, terminated := strings.CutSuffix(ms, "\n\n")
	n, err := strconv.Atoi(ms)
	if !ok || !terminated || err != nil || n < 5000 || n > 30000 {
		c.t.Errorf("got %q, want a retry between 5000 and 30000", text)
	}
	return time.Duration(n) * time.Millisecond
}

// expectServed checks that a client has its stream.
func (c *client) expectServed() {
	c.t.Helper()
	if c.ended() {
		c.t.Error("the stream has ended")
	}
	c.expectStatus(http.StatusOK)
	c.read()
}

func (s *setup) expectRejected(why relay.Rejection, want uint64) {
	s.t.Helper()
	if got := s.pool.stats.Rejected.Get(why); got != want {
		s.t.Errorf("counted %d rejections for %s, want %d", got, why, want)
	}
}

func TestLimits(t *testing.T) {
	type request struct{ ip, target string }
	for _, tc := range []struct {
		name    string
		opts    Options
		allowed []request
		refused request
		why     relay.Rejection
		leaver  int     // of those allowed, who makes room
		also    request // fits beside those allowed
	}{
		{
			name:    "max_topics",
			opts:    Options{MaxTopics: TopicLimits{Total: 2}},
			allowed: []request{{"203.0.113.1", "/1"}, {"203.0.113.1", "/2"}},
			refused: request{"203.0.113.2", "/3"},
			leaver:  1,
			why:     relay.RejectTopics,
			also:    request{"203.0.113.2", "/1"},
		}, {
			name:    "max_topics per_client_ip",
			opts:    Options{MaxTopics: TopicLimits{PerClientIP: 2}},
			allowed: []request{{"203.0.113.1", "/1"}, {"203.0.113.1", "/2"}},
			refused: request{"203.0.113.1", "/3"},
			why:     relay.RejectTopicsAddress,
			also:    request{"203.0.113.2", "/4"},
		}, {
			name:    "max_subscribers",
			opts:    Options{MaxSubscribers: SubscriberLimits{Total: 3}},
			allowed: []request{{"203.0.113.1", "/1"}, {"203.0.113.2", "/2"}},
			refused: request{"203.0.113.3", "/1"},
			why:     relay.RejectTotal,
			also:    request{"203.0.113.1", "/2"},
		}, {
			name:    "max_subscribers per_topic",
			opts:    Options{MaxSubscribers: SubscriberLimits{PerTopic: 2}},
			allowed: []request{{"203.0.113.1", "/1"}, {"203.0.113.2", "/1"}},
			refused: request{"203.0.113.3", "/1"},
			why:     relay.RejectTopic,
			also:    request{"203.0.113.3", "/2"},
		}, {
			name:    "max_subscribers per_client_ip",
			opts:    Options{MaxSubscribers: SubscriberLimits{PerClientIP: 2}},
			allowed: []request{{"203.0.113.1", "/1"}, {"203.0.113.1", "/2"}},
			refused: request{"203.0.113.1", "/1"},
			why:     relay.RejectAddress,
			also:    request{"203.0.113.2", "/1"},
		},
	} {
		for _, unavailable := range []string{"hold", "reject"} {
			t.Run(tc.name+", "+unavailable, func(t *testing.T) {
				bothWriters(t, func(t *testing.T) {
					opts := tc.opts
					opts.Unavailable = unavailable
					opts.Linger.Duration = -1
					s := newSetup(t, opts)
					get := func(r request) *client {
						c := s.getFrom(r.ip, r.target)
						if len(s.origin.conns) > 0 {
							s.origin.next().accept()
						}
						return c
					}
					var served []*client
					for _, r := range tc.allowed {
						served = append(served, get(r))
					}
					served = append(served, get(tc.also))

					const tries = 3
					for range tries {
						c := get(tc.refused)
						if unavailable == "hold" {
							c.expectTurnedAway()
						} else {
							c.expectUnavailable()
						}
					}
					s.expectRejected(tc.why, tries)
					s.expectLimitLogs(fmt.Sprint(tc.why, " 1"))
					for _, c := range served {
						c.expectServed()
					}

					served[tc.leaver].leave()
					get(tc.refused).expectServed()
					s.expectRejected(tc.why, tries)
				})
			})
		}
	}
}

// expectLimitLogs compares the warnings of limits: the reason, and how many were
// turned away.
func (s *setup) expectLimitLogs(want ...string) {
	s.t.Helper()
	var got []string
	for _, line := range s.logs.FilterLevelExact(zapcore.WarnLevel).All() {
		fields := line.ContextMap()
		got = append(got, fmt.Sprint(fields["reason"], " ", fields["clients"]))
	}
	if !slices.Equal(got, want) {
		s.t.Errorf("the log warns of %q, want %q", got, want)
	}
}

// However many are turned away, there is a line a minute for each limit, and all
// lines together tell of everyone.
func TestLimitIsWarnedOfOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{MaxSubscribers: SubscriberLimits{Total: 2}, MaxTopics: TopicLimits{PerClientIP: 1}})
		s.getFrom("203.0.113.1", "/1")
		s.origin.next().accept()
		s.getFrom("203.0.113.1", "/2").expectTurnedAway()
		s.getFrom("203.0.113.2", "/1")
		for range 3 {
			s.getFrom("203.0.113.3", "/1").expectTurnedAway()
		}
		want := []string{"max_topics_per_client_ip 1", "max_subscribers 1"}
		s.expectLimitLogs(want...)

		time.Sleep(time.Minute - 1)
		s.getFrom("203.0.113.3", "/1").expectTurnedAway()
		s.expectLimitLogs(want...)

		time.Sleep(time.Hour)
		s.expectLimitLogs(want...) // nobody has come
		s.getFrom("203.0.113.3", "/1").expectTurnedAway()
		s.expectLimitLogs(append(want, "max_subscribers 4")...)
	})
}

func TestLimitIsWarnedOfOnceForClientsAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{MaxSubscribers: SubscriberLimits{Total: 1}})
		s.get("/events")
		s.origin.next().accept()
		ask := func() {
			w := httptest.NewRecorder()
			r := caddyhttp.PrepareRequest(streamRequest(), caddy.NewReplacer(), w, s.server)
			_ = s.handler.ServeHTTP(w, r, nil)
		}
		for range 200 {
			go ask()
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		ask()
		var told uint64
		lines := s.logs.FilterLevelExact(zapcore.WarnLevel).All()
		for _, line := range lines {
			told += line.ContextMap()["clients"].(uint64)
		}
		if len(lines) != 2 || told != 201 {
			t.Errorf("%d lines tell of %d clients, want 2 of 201", len(lines), told)
		}
	})
}

// Nothing can be raised to have them served.
func TestWhatIsNoLimitIsNotWarnedOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{Unavailable: "reject", Wait: caddy.Duration(time.Second)})
		s.get("/events")
		s.origin.next()
		time.Sleep(time.Second)
		synctest.Wait()
		s.expectRejected(relay.RejectUnavailable, 1)
		s.pool.relay.End(relay.Ending{Reason: relay.EndExiting})
		s.get("/events")
		s.expectRejected(relay.RejectEnding, 1)
		s.expectLimitLogs()
	})
}

// expectUnavailable checks that a client was answered 503, with a Retry-After
// between 5 and 30 s.
func (c *client) expectUnavailable() {
	c.t.Helper()
	c.expectStatus(http.StatusServiceUnavailable)
	c.expectBody("")
	if n, err := strconv.Atoi(c.header.Get("Retry-After")); err != nil || n < 5 || n > 30 {
		c.t.Errorf("got Retry-After %q, want between 5 and 30", c.header.Get("Retry-After"))
	}
}

func TestThoseTurnedAwayComeBackSpread(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{MaxSubscribers: SubscriberLimits{Total: 1}})
		s.get("/events")
		s.origin.next().accept()
		var early, late int
		for range 200 {
			switch d := s.get("/events").expectTurnedAway(); {
			case d < 10*time.Second:
				early++
			case d > 25*time.Second:
				late++
			}
		}
		// 40 of each are to be expected.
		if early < 10 || late < 10 {
			t.Errorf("of 200, %d come back within 10 s and %d after 25 s", early, late)
		}
	})
}

func TestLingeringTopicMakesRoom(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{MaxTopics: TopicLimits{Total: 3}})
		busy := s.get("/busy")
		busyUp := s.origin.next().accept().events(1, 1)
		var lingering []*conn
		for _, target := range []string{"/longest", "/longer"} {
			c := s.get(target)
			lingering = append(lingering, s.origin.next().accept().events(1, 1))
			c.leave()
			time.Sleep(time.Second)
		}
		s.get("/new").read()
		s.origin.next().accept()
		if !lingering[0].closed() {
			t.Error("the topic that lingered longest is still open")
		}
		if lingering[1].closed() || busyUp.closed() {
			t.Error("another topic had to go")
		}
		s.expectRejected(relay.RejectTopics, 0)
		s.get("/newer")
		s.origin.next().accept()
		s.get("/newest").expectTurnedAway()
		busy.expectServed()
	})
}

// A client that is turned away for one limit must not have cost a topic that
// only another limit would have made go.
func TestTurningAwayClosesNoTopic(t *testing.T) {
	for _, tc := range []struct {
		name string
		opts Options
		why  relay.Rejection
	}{
		{"topics of an address", Options{MaxTopics: TopicLimits{Total: 2, PerClientIP: 1}}, relay.RejectTopicsAddress},
		{"subscribers", Options{MaxTopics: TopicLimits{Total: 2}, MaxSubscribers: SubscriberLimits{Total: 1}}, relay.RejectTotal},
		{"subscribers of an address", Options{MaxTopics: TopicLimits{Total: 2}, MaxSubscribers: SubscriberLimits{PerClientIP: 1}}, relay.RejectAddress},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, tc.opts)
				c := s.getFrom("203.0.113.1", "/lingering")
				lingering := s.origin.next().accept().events(1, 1)
				c.leave()
				s.getFrom("203.0.113.2", "/busy")
				s.origin.next().accept()

				s.getFrom("203.0.113.2", "/new").expectTurnedAway()
				s.expectRejected(tc.why, 1)
				if lingering.closed() {
					t.Error("a lingering topic was closed for a client that was turned away")
				}
			})
		})
	}
}

func TestCountsGoBackWhenClientsLeave(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{
			Linger:         Linger{Duration: caddy.Duration(time.Second), Topics: 2},
			MaxTopics:      TopicLimits{Total: 5, PerClientIP: 3},
			MaxSubscribers: SubscriberLimits{Total: 8, PerTopic: 4, PerClientIP: 5},
		})
		for round := range 200 {
			var clients []*client
			for i := range 12 {
				ip := "203.0.113." + strconv.Itoa(1+(round+i)%3)
				clients = append(clients, s.getFrom(ip, "/"+strconv.Itoa((round*7+i*i)%7)))
				for len(s.origin.conns) > 0 {
					switch up := s.origin.next(); (round + i) % 4 {
					case 0:
						up.accept()
					case 1:
						up.accept().events(1, 1)
					case 2:
						up.answer(http.StatusNoContent).end()
					}
				}
			}
			for i := range clients {
				clients[(i*5)%len(clients)].leave()
			}
			time.Sleep(time.Duration(round%3) * time.Second)
		}
		for _, why := range []relay.Rejection{relay.RejectTopics, relay.RejectTopicsAddress, relay.RejectTotal, relay.RejectTopic, relay.RejectAddress} {
			if s.pool.stats.Rejected.Get(why) == 0 {
				t.Logf("%s was never passed", why)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if left := s.pool.relay.Holdings(); !reflect.DeepEqual(left, relay.Holdings{}) {
			t.Errorf("left: %+v", left)
		}
	})
}

// What is written to a client that is turned away has a deadline too: it counts
// for no limit, and may not read.
func TestTurningAwayDoesNotWaitForTheClient(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{MaxSubscribers: SubscriberLimits{Total: 1}})
		s.get("/events")
		s.origin.next().accept()
		deaf := &client{t: t, header: make(http.Header), stalled: true}
		r := caddyhttp.PrepareRequest(streamRequest(), caddy.NewReplacer(), deaf, s.handler.server)
		_ = s.handler.ServeHTTP(deaf, r, nil)
		s.expectRejected(relay.RejectTotal, 1)
	})
}
