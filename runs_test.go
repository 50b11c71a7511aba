package ssefanout

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/audience"
	"github.com/sse-fanout/caddy-sse-fanout/internal/survey"
)

// The tutorial's origin: five sentences with ids, one a second, then the end; the next
// connection begins with the first one again.
func TestFiniteStreamThatBeginsAnew(t *testing.T) {
	for name, begins := range map[string]string{"at once": "", "with a reconnection time": "retry: 3000\n\n"} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{})
				run := func() {
					up := s.origin.await().accept()
					if begins != "" {
						up.send(begins)
					}
					for i := range 5 {
						up.events(i+1, i+1)
						time.Sleep(time.Second)
					}
					up.end()
				}
				first := s.get("/events")
				run()
				first.expect(primer("") + begins + numbered(1, 5))
				var late []*client
				for range 3 {
					late = append(late, s.get("/events"))
				}
				for range 3 {
					run()
				}
				want := strings.Repeat(begins+numbered(1, 5), 3)
				first.expect(want)
				for _, c := range late {
					c.expect(primer("5") + want)
				}
			})
		})
	}
}

// An origin whose process has died counts from one again, at its pace, and sends what the
// log has, to the byte.
func TestOriginThatCountsAnewAfterABreak(t *testing.T) {
	for _, pace := range []time.Duration{50 * time.Millisecond, time.Second, 10 * time.Second} {
		t.Run(pace.String(), func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
				c := s.get("/events")
				run := func(n int) {
					up := s.origin.await().accept()
					for i := range n {
						up.events(i+1, i+1)
						time.Sleep(pace)
					}
					up.abort()
				}
				const n = 60
				run(n)
				c.expect(primer("") + numbered(1, n))
				run(n - 10)
				c.expect(numbered(1, n-10))
				run(n + 10)
				c.expect(numbered(1, n+10))
			})
		})
	}
}

// Whatever there was in the run that was broken off, the next one is seen to be another:
// it comes at the pace of most of it, and while the log has its beginning.
func TestRunThatWasUneven(t *testing.T) {
	const pace = 100 * time.Millisecond
	for name, tt := range map[string]struct {
		before, broken int                // events of a run that has ended, and of the one after it
		event          func(n int) string // sent
		pause          func(n int) time.Duration
	}{
		"positions": {
			before: 40, broken: 17,
			event: func(n int) string {
				if n%16 == 5 {
					return fmt.Sprintf("id: %d\n\n", n)
				}
				return numbered(n, n)
			},
		},
		"a pause": {
			broken: 17,
			pause: func(n int) time.Duration {
				if n == 7 {
					return 5 * time.Second
				}
				return 0
			},
		},
		"older than the history soon": {broken: 85},
		"older than the history now":  {broken: 105},
	} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{
					Heartbeat: Heartbeat{Interval: -1},
					History:   History{Events: 300, Age: caddy.Duration(10 * time.Second)},
				})
				c := s.get("/events")
				want := primer("")
				run := func(n int, pause func(int) time.Duration) *conn {
					up := s.origin.await().accept()
					for i := range n {
						event := numbered(i+1, i+1)
						if tt.event != nil {
							event = tt.event(i + 1)
						}
						want += event
						up.send(event)
						time.Sleep(pace)
						if pause != nil {
							time.Sleep(pause(i + 1))
						}
					}
					return up
				}
				if tt.before > 0 {
					run(tt.before, nil).end()
				}
				run(tt.broken, tt.pause).abort()
				run(60, nil)
				c.expect(want)
			})
		})
	}
}

// A connection that goes on behind the id that it was asked with brings no replay, though an
// earlier run had the same events there.
func TestRunThatGoesOnWhereAnEarlierOneDid(t *testing.T) {
	for name, end := range map[string]func(*conn){"end": (*conn).end, "break": (*conn).abort} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
				c := s.get("/events")
				s.origin.await().accept().events(1, 27).end()
				end(s.origin.await().accept().events(1, 22))
				up := s.origin.await()
				up.expectResumedWith("id 22")
				up.accept().events(23, 30)
				c.expect(primer("") + numbered(1, 27) + numbered(1, 30))
			})
		})
	}
}

// While it is not known whether a new run has begun, the log may lose all that it could be
// compared with.
func TestRunThatOutlivesWhatItIsComparedWith(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{
			Heartbeat: Heartbeat{Interval: -1},
			History:   History{Age: caddy.Duration(10 * time.Second)},
		})
		c := s.get("/events")
		up := s.origin.await().accept().events(1, 20)
		time.Sleep(8800 * time.Millisecond)
		up.abort()
		up = s.origin.await().accept()
		for i := range 30 {
			up.events(i+1, i+1)
			time.Sleep(100 * time.Millisecond)
		}
		c.expect(primer("") + numbered(1, 20) + numbered(1, 30))
	})
}

// An origin that begins with what was there before each time, at once, has not begun anew.
func TestReplayAtOnceIsNoNewRun(t *testing.T) {
	for _, backlog := range []int{1, 2, 200} {
		t.Run(fmt.Sprint(backlog), func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
				c := s.get("/events")
				s.origin.next().accept().events(1, backlog).abort()
				c.expect(primer("") + numbered(1, backlog))
				newest := backlog
				for range 5 {
					up := s.origin.await().accept().events(1, newest)
					for range 3 {
						time.Sleep(2 * time.Second)
						newest++
						up.events(newest, newest)
						c.expect(numbered(newest, newest))
					}
					up.abort()
				}
			})
		})
	}
}

// Two connections that are asked with one id begin with the same event, and neither begins
// anew, however the one before them has ended.
func TestConnectionsThatResumeAlikeAreNoNewRuns(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		s.around.Plain = true
		c := s.get("/events")
		s.origin.next().accept().events(1, 3).end()
		c.expect(primer("") + numbered(1, 3))
		old := s.origin.await()
		old.expectResumedWith("id 3")
		old.accept()
		after := s.reloadWrapping(survey.Surroundings{Plain: true})
		late := after.get("/events", "Last-Event-ID", "3")
		replacing := after.origin.next()
		replacing.expectResumedWith("id 3")
		for i := 4; i < 8; i++ {
			old.events(i, i)
			time.Sleep(time.Second)
		}
		c.expect(numbered(4, 7))
		late.read()
		for i := 4; i < 8; i++ { // at the same pace
			replacing.accept().events(i, i)
			time.Sleep(time.Second)
		}
		replacing.events(8, 8)
		c.expect(numbered(8, 8))
		late.expect(numbered(8, 8))
	})
}

// Whatever an origin sends, ends, breaks off and begins anew: its clients get what a client
// of its own would get, but for a replay at once after a break.
func TestRunsInAnyOrder(t *testing.T) {
	for seed := range seeds(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 12)) //nolint:gosec // to be repeated
				s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
				hasIDs, pace := random.IntN(3) > 0, time.Duration(200+random.IntN(2000))*time.Millisecond
				event := func(run, n int) string {
					if !hasIDs {
						return fmt.Sprintf("data: event %d\n\n", n)
					}
					return numbered(n, n)
				}
				clients := []*client{s.get("/events")}
				want := []string{primer("")}
				for run := range 6 {
					up := s.origin.await().accept()
					// Long enough to be told from a replay.
					for n := range int(3*time.Second/pace) + 3 + random.IntN(5) {
						up.send(event(run, n+1))
						for i := range want {
							want[i] += event(run, n+1)
						}
						time.Sleep(pace)
					}
					if random.IntN(2) == 0 {
						up.end()
					} else {
						up.abort()
					}
					if len(clients) < 4 && random.IntN(2) == 0 {
						// Between two runs, as the place where it begins depends on no event then.
						c := s.get("/events")
						synctest.Wait()
						begins := primer("")
						if hasIDs {
							begins = primer(fmt.Sprint(lastNumber(want[0])))
						}
						clients, want = append(clients, c), append(want, begins)
					}
				}
				for i, c := range clients {
					got := strings.ReplaceAll(c.read(), gapComment, "") // without ids, a break is one
					if got != want[i] {
						t.Errorf("client %d got %q, want %q", i, got, want[i])
					}
				}
			})
		})
	}
}

func lastNumber(stream string) (n int) {
	_, _ = fmt.Sscanf(stream[strings.LastIndex(stream, "event "):], "event %d", &n)
	return n
}

// An id that the origin has given out in several runs names several places. Who brings it
// gets all that came after the first of them, and is told.
func TestIDOfSeveralRuns(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		s.get("/events")
		for n := range 3 {
			s.origin.await().accept().events(1+n%2, 4+n).end() // 1 to 4, 2 to 5, 1 to 6
		}
		all := numbered(1, 4) + numbered(5, 5) + numbered(1, 6)
		for id, want := range map[string]string{
			"3": gapPrimer("3") + gapComment + numbered(4, 5) + numbered(1, 6),
			"5": gapPrimer("5") + gapComment + numbered(1, 6),
			"6": primer("6"),
		} {
			c := s.get("/events", "Last-Event-ID", id)
			if got := c.read(); got != want {
				t.Errorf("%s: got %q, want %q (the log has %q)", id, got, want, all)
			}
		}
	})
}

// While nobody listens, an origin that has ended its stream is not asked for another.
func TestStreamThatEndsWhileTheTopicLingers(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Linger: Linger{Duration: caddy.Duration(time.Hour)}})
		c := s.get("/events")
		up := s.origin.next().accept().events(1, 2)
		c.expect(primer("") + numbered(1, 2))
		c.leave()
		up.end()
		time.Sleep(30 * time.Minute)
		s.origin.idle()
		if n := s.pool.relay.Holdings().Topics; n != 0 {
			t.Errorf("%d topics are left", n)
		}
		c = s.get("/events")
		s.origin.next().accept().events(1, 1)
		c.expect(primer("") + numbered(1, 1))
	})
}

// A stream that has ended as it should is asked for no sooner than a browser would.
func TestCleanEndIsFollowedByThePauseOfAnEventSource(t *testing.T) {
	for said, least := range map[string]time.Duration{
		"":                   3 * time.Second,
		"retry: 3000\n\n":    3 * time.Second,
		"retry: 10000\n\n":   10 * time.Second,
		"retry: 100\n\n":     100 * time.Millisecond,
		"retry: 3600000\n\n": time.Hour,
	} {
		t.Run(said, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, Options{Retry: caddy.Duration(7 * time.Second)})
				s.get("/events")
				up := s.origin.next().accept()
				for i := range 5 {
					up.send(said).events(i, i).end()
					ended := time.Now()
					up = s.origin.await().accept()
					if pause := time.Since(ended); pause < least || pause > least+2*time.Second {
						t.Errorf("the origin was asked again after %s, want %s and little more", pause, least)
					}
				}
			})
		})
	}
}

// The reconnection time of clients is the origin's if its end is theirs.
func TestEndThatIsPassedOnLeavesTheReconnectionTime(t *testing.T) {
	for _, a := range []audience.Kind{audience.Browsers, audience.Libraries, audience.Readers} {
		bothWriters(t, func(t *testing.T) {
			s := newSetup(t, Options{OnEnd: "close"})
			clients := []*client{s.getAs(a, "/events"), s.getAs(a, "/events")}
			up := s.origin.next().accept()
			for _, c := range clients {
				c.read()
			}
			up.send("retry: 20000\n\n").events(1, 1).end()
			for _, c := range clients {
				c.expect("retry: 20000\n\n" + numbered(1, 1))
			}
			if n := countEnded(clients); n != 2 {
				t.Errorf("%d streams have ended, want 2", n)
			}
		})
	}
}
