package ssefanout

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// openBusy opens a topic that has had an event.
func (s *setup) openBusy(ip, target string) (*client, *conn) {
	s.t.Helper()
	c := s.getFrom(ip, target)
	up := s.origin.next().accept().events(1, 1)
	c.expectServed()
	return c, up
}

// expectYielded checks that a stream has ended as that of a client that is turned away.
func (c *client) expectYielded() {
	c.t.Helper()
	if !c.ended() {
		c.t.Error("the stream has not ended")
	}
	text := c.read()
	ms, ok := strings.CutPrefix(text[strings.LastIndex(text, "retry: "):], "retry: ")
	if n, err := strconv.Atoi(strings.TrimSuffix(ms, "\n\n")); !ok || err != nil || n < 5000 || n > 30000 {
		c.t.Errorf("the stream ends with %q, want a retry between 5000 and 30000", text)
	}
}

func TestAddressWithMostTopicsYieldsFirst(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		const most = 12
		s := newSetup(t, Options{MaxTopics: TopicLimits{Total: most}})
		var own []*client
		var ups []*conn
		for i := range most {
			c, up := s.openBusy(fmt.Sprintf("[2001:db8::%x]", i+1), fmt.Sprint("/own/", i))
			own, ups = append(own, c), append(ups, up)
		}
		guest := s.getFrom("203.0.113.9", fmt.Sprint("/own/", most-1))
		guest.expectServed()

		// Its own requests make no room, from whichever host.
		s.getFrom("[2001:db8::ffff]", "/more").expectTurnedAway()

		// Others take the newest that it has for itself, one after the other, until
		// it has no more than twice as many as they.
		for i := range 4 {
			s.openBusy(fmt.Sprint("203.0.113.", i), fmt.Sprint("/other/", i))
			own[most-2-i].expectYielded()
			if !ups[most-2-i].closed() {
				t.Error("the connection of a topic that has yielded is open")
			}
		}
		for _, c := range append(own[:most-5:most-5], own[most-1], guest) {
			c.expectServed()
		}
		s.openBusy("203.0.113.0", "/second")                   // 8 against 2
		s.openBusy("203.0.113.0", "/third")                    // 7 against 3
		s.getFrom("203.0.113.0", "/fourth").expectTurnedAway() // 6 against 4
		s.expectRejected(relay.RejectTopics, 2)
		if got := s.pool.stats.Ended.Get(relay.EndYielded); got != 6 {
			t.Errorf("counted %d streams that have yielded, want 6", got)
		}
		if n := s.logs.FilterMessage("ending topics of the client address that has opened most, as a limit is reached").Len(); n != 1 {
			t.Errorf("the log warns %d times, want once a minute", n)
		}
	})
}

// The rule in one table: who has what, and what becomes of a newcomer at the limit.
func TestWhoseTopicMakesRoom(t *testing.T) {
	type held struct {
		ip    string
		kinds string // of its topics in order: o own, g with a guest, p with one each, l lingering, r refused
	}
	for _, tc := range []struct {
		name     string
		held     []held
		newcomer string
		gone     string // ip/index of the topic that goes; "" if the newcomer is turned away
	}{
		{"a refused one before all", []held{{"1", "ooll"}, {"2", "or"}}, "3", "2/1"},
		{"a refused one of whoever has most", []held{{"1", "rg"}, {"2", "rrg"}}, "3", "2/0"},
		{"a refused one for its own address", []held{{"1", "gggr"}}, "1", "1/3"},
		{"the one that lingers longest", []held{{"1", "glll"}}, "2", "1/1"},
		{"one that lingers before one that is used", []held{{"1", "oooool"}}, "2", "1/5"},
		{"of the address with most topics", []held{{"1", "ll"}, {"2", "lggg"}}, "3", "2/0"},
		{"its own that lingers", []held{{"1", "oool"}, {"2", "l"}}, "1", "1/3"},
		{"not another's that has fewer", []held{{"1", "ooog"}, {"2", "l"}}, "1", ""},
		{"another's that has as many", []held{{"1", "g"}, {"2", "l"}}, "1", "2/0"},
		{"the newest for itself alone", []held{{"1", "ooog"}}, "2", "1/2"},
		{"none with subscribers of others", []held{{"1", "pppppp"}}, "2", ""},
		{"of two that share all, the newest", []held{{"1", "gggggg"}}, "2", "1/5"},
		{"of two that share some", []held{{"1", "pgggpp"}}, "2", "1/3"},
		{"not of two that share few", []held{{"1", "pggppp"}}, "2", ""},
		{"not of two for one that has half as many", []held{{"1", "gggg"}, {"2", "p"}}, "2", ""},
		{"not for one of the two", []held{{"1", "gggggg"}}, "99", ""},
		{"of two that share all and have opened half each", []held{{"1", "ggg"}, {"3", "ggg"}}, "2", "1/2"},
		{"not for one that has half as many", []held{{"1", "oooo"}, {"2", "g"}}, "2", ""},
		{"for one that has less than half", []held{{"1", "ooooo"}, {"2", "g"}}, "2", "1/4"},
		{"two are not clearly more than one", []held{{"1", "oo"}}, "2", ""},
		{"of many, before a lingering one of few", []held{{"1", "ooooo"}, {"2", "l"}}, "3", "1/4"},
		{"of a few more, after a lingering one", []held{{"1", "oooo"}, {"2", "ll"}}, "3", "2/0"},
		{"after a lingering one, of an address that cannot", []held{{"1", "ggggg"}, {"2", "l"}}, "3", "2/0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				total := 0
				for _, h := range tc.held {
					total += len(h.kinds)
				}
				s := newSetup(t, Options{MaxTopics: TopicLimits{Total: total}, Linger: Linger{Duration: caddy.Duration(time.Hour)}})
				ups, streams := map[string]*conn{}, map[string][]*client{}
				open := func(h held, i int) {
					name := fmt.Sprint(h.ip, "/", i)
					c := s.getFrom("203.0.113."+h.ip, "/"+name)
					up := s.origin.next()
					ups[name] = up
					switch h.kinds[i] {
					case 'r':
						up.answer(http.StatusForbidden).end()
						return
					case 'l':
						up.accept().events(1, 1)
						c.leave()
						return
					case 'g':
						streams[name] = append(streams[name], s.getFrom("203.0.113.99", "/"+name))
					case 'p':
						streams[name] = append(streams[name], s.getFrom(fmt.Sprint("198.51.100.", i), "/"+name))
					}
					up.accept().events(1, 1)
					streams[name] = append(streams[name], c)
				}
				// What is refused comes last, as it is forgotten soon.
				for _, refused := range []bool{false, true} {
					for _, h := range tc.held {
						for i := range h.kinds {
							if (h.kinds[i] == 'r') == refused {
								open(h, i)
							}
						}
					}
				}

				c := s.getFrom("203.0.113."+tc.newcomer, "/new")
				if tc.gone == "" {
					c.expectTurnedAway()
				} else {
					s.origin.next().accept()
					c.expectServed()
				}
				synctest.Wait()
				for name, up := range ups {
					refused := false
					for _, h := range tc.held {
						if ip, i, _ := strings.Cut(name, "/"); ip == h.ip {
							n, _ := strconv.Atoi(i)
							refused = h.kinds[n] == 'r'
						}
					}
					if up.closed() != (name == tc.gone || refused) {
						t.Errorf("the connection of topic %s is closed: %t", name, up.closed())
					}
				}
				for name, clients := range streams {
					for _, c := range clients {
						if name == tc.gone {
							c.expectYielded()
						} else {
							c.expectServed()
						}
					}
				}
				if n := s.pool.relay.Holdings().Topics; n != total {
					t.Errorf("there are %d topics, want %d", n, total)
				}
			})
		})
	}
}

// Whoever waits for the first answer of a topic that yields is turned away.
func TestTopicThatNobodyIsServedByYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{MaxTopics: TopicLimits{Total: 5}})
		var waiting []*client
		for i := range 5 {
			waiting = append(waiting, s.getFrom("203.0.113.1", fmt.Sprint("/", i)))
			s.origin.next()
		}
		s.getFrom("203.0.113.2", "/new")
		waiting[4].expectTurnedAway()
		s.origin.next().accept()
		s.expectRejected(relay.RejectTopics, 1)
	})
}

// A no of the origin answers those who come next, and is in nobody's way.
func TestRefusedTopicHoldsNoPlace(t *testing.T) {
	for name, limits := range map[string]TopicLimits{
		"in all":     {Total: 3},
		"an address": {PerClientIP: 3},
	} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{MaxTopics: limits})
				for i := range 20 { // all at once
					c := s.getFrom("203.0.113.1", fmt.Sprint("/refused/", i))
					s.origin.next().answer(http.StatusForbidden).end()
					c.expectStatus(http.StatusForbidden)
				}
				// The newest are still known.
				s.getFrom("203.0.113.1", "/refused/19").expectStatus(http.StatusForbidden)
				s.origin.idle()
				for i := range 3 {
					s.openBusy("203.0.113.1", fmt.Sprint("/", i))
				}
				s.getFrom("203.0.113.1", "/one/more").expectTurnedAway()
			})
		})
	}
}

// Topics of an address that linger are not in its own way.
func TestOwnLingeringTopicMakesRoomForAnAddress(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{MaxTopics: TopicLimits{PerClientIP: 2}})
		for i := range 10 {
			c, _ := s.openBusy("203.0.113.1", fmt.Sprint("/", i))
			c.leave()
		}
		s.openBusy("203.0.113.1", "/first")
		s.openBusy("203.0.113.1", "/second")
		s.getFrom("203.0.113.1", "/third").expectTurnedAway()
		s.expectRejected(relay.RejectTopicsAddress, 1)
	})
}

// One address's throw-away topics cost the lingering topics of none but itself.
func TestThrowAwayTopicsCostNobodyElse(t *testing.T) {
	for name, opts := range map[string]Options{
		"bound of lingering topics": {Linger: Linger{Topics: 10}},
		"bound of topics":           {Linger: Linger{Topics: 1000}, MaxTopics: TopicLimits{Total: 15}},
		"both":                      {Linger: Linger{Topics: 10}, MaxTopics: TopicLimits{Total: 11}},
	} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				opts.Linger.Duration = caddy.Duration(time.Hour)
				s := newSetup(t, opts)
				var theirs []*conn
				for i := range 5 {
					c, up := s.openBusy(fmt.Sprint("203.0.113.", 1+i), fmt.Sprint("/theirs/", i))
					c.leave()
					theirs = append(theirs, up)
				}
				for i := range 100 {
					c, _ := s.openBusy(fmt.Sprintf("[2001:db8::%x]", i), fmt.Sprint("/", i))
					c.leave()
				}
				for i, up := range theirs {
					if up.closed() {
						t.Errorf("topic %d of others had to go", i)
					}
				}
				if n := s.origin.open.Load(); n > 15 {
					t.Errorf("%d topics linger", n)
				}
			})
		})
	}
}

// Whatever comes and goes: the bounds hold.
func TestYieldingWhateverComesAndGoes(t *testing.T) {
	for seed := range seeds(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 2)) //nolint:gosec // to be repeated
				s := newSetup(t, Options{
					MaxTopics: TopicLimits{Total: 10},
					Linger:    Linger{Duration: caddy.Duration(10 * time.Second), Topics: 4},
				})
				clients := map[*client]string{} // to their address
				for range 600 {
					switch n := random.IntN(10); {
					case n < 6:
						// Low addresses come often, to topics of their own.
						ip := fmt.Sprint("203.0.113.", min(random.IntN(4), random.IntN(4)))
						target := fmt.Sprint("/", ip, "/", random.IntN(8))
						if random.IntN(3) == 0 {
							target = fmt.Sprint("/common/", random.IntN(3))
						}
						c := s.getFrom(ip, target)
						for len(s.origin.conns) > 0 {
							switch up := s.origin.next(); random.IntN(4) {
							case 0:
								up.answer(http.StatusForbidden).end()
							case 1:
								up.accept()
							default:
								up.accept().events(1, 1)
							}
						}
						clients[c] = ip
					case n < 9:
						for c := range clients {
							c.leave()
							delete(clients, c)
							break
						}
					default:
						time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond)
					}
					synctest.Wait()
					s.pool.expectSortedOut(t)
				}
			})
		})
	}
}

// expectSortedOut checks that what the relay has counted is so.
func (p *pool) expectSortedOut(t *testing.T) {
	t.Helper()
	if err := p.relay.Check(); err != nil {
		t.Error(err)
	}
}

// Addresses that use each other's topics, and others to hide some of them, do not keep all
// places for themselves.
func TestAddressesTogetherDoNotKeepAllTopics(t *testing.T) {
	const topics = 60
	for _, addresses := range []int{2, 3, 10} {
		for _, hidden := range []int{0, 8, 20} {
			t.Run(fmt.Sprintf("%d addresses, %d topics hidden", addresses, hidden), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newSetup(t, Options{MaxTopics: TopicLimits{Total: topics}})
					for i := range topics {
						for j := range addresses {
							s.getFrom(fmt.Sprint("203.0.113.", (i+j)%addresses), fmt.Sprint("/", i))
						}
						if i >= topics-hidden { // an address that holds little is there, too
							s.getFrom(fmt.Sprint("198.51.100.", i), fmt.Sprint("/", i))
						}
						s.origin.next().accept().events(1, 1)
					}
					served := 0
					for i := range 30 { // each tries again a few times
						for range 3 {
							c := s.getFrom(fmt.Sprint("192.0.2.", i), fmt.Sprint("/new/", i))
							synctest.Wait()
							if len(s.origin.conns) > 0 {
								s.origin.next().accept().events(1, 1)
								c.expectServed()
								served++
								break
							}
						}
						s.pool.expectSortedOut(t)
					}
					if served < 28 {
						t.Errorf("%d of 30 newcomers were served", served)
					}
				})
			})
		}
	}
}

// An address that has left a topic does not go on paying for it: one that stays does.
func TestTopicCountsForAnAddressThatIsThere(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{MaxTopics: TopicLimits{PerClientIP: 3}})
		for i := range 3 {
			c, _ := s.openBusy("203.0.113.1", fmt.Sprint("/popular/", i))
			s.getFrom("203.0.113.9", fmt.Sprint("/popular/", i)).expectServed()
			c.leave()
			s.pool.expectSortedOut(t)
		}
		s.openBusy("203.0.113.1", "/own")
		s.getFrom("203.0.113.9", "/more").expectTurnedAway()
	})
}

// Of many, it is the one with the fewest topics: nobody pays for all that is popular.
func TestTopicThatItsOpenerHasLeftCountsForWhoHasFewest(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		s.openBusy("203.0.113.9", "/busy")
		for i := range 4 {
			path := fmt.Sprint("/popular/", i)
			opener, _ := s.openBusy("203.0.113.1", path)
			for _, ip := range []string{"203.0.113.9", "203.0.113.10", "203.0.113.11", "203.0.113.12", "203.0.113.13"} {
				s.getFrom(ip, path).expectServed()
			}
			opener.leave()
			s.pool.expectSortedOut(t)
		}
		if n := s.pool.relay.Holdings().MostTopics; n > 1 {
			t.Errorf("an address has %d topics, want one at most", n)
		}
	})
}
