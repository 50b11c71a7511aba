package ssefanout

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

// What docs/design.md promises of fetches.
const (
	fetchesAtOnce, fetchesPerSecond         = 50, 100
	futileAtOnce                            = 20.0
	futileInAllAtOnce, futileInAllPerSecond = 100.0, 5.0
	refusedCost                             = 0.2
)

// A numberer is an origin that numbers its events and believes every last event id: a
// connection gets what is greater, or, without an id, what comes from now on.
type numberer struct {
	mu      sync.Mutex
	newest  int
	changed chan struct{}
	asked   []asked
	byQuery bool // it knows the id from the query alone
	latency time.Duration
}

type asked struct {
	id string
	at time.Time
}

func newNumberer(newest int) *numberer {
	return &numberer{newest: newest, changed: make(chan struct{})}
}

func (o *numberer) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	id := r.Header.Get("Last-Event-ID")
	if o.byQuery {
		id = r.URL.Query().Get("lastEventId")
	}
	time.Sleep(o.latency)
	o.mu.Lock()
	at := o.newest
	o.asked = append(o.asked, asked{id, time.Now()})
	o.mu.Unlock()
	if n, err := strconv.Atoi(id); err == nil {
		at = n
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	for {
		o.mu.Lock()
		newest, changed := o.newest, o.changed
		o.mu.Unlock()
		if newest > at {
			if _, err := io.WriteString(w, numbered(at+1, newest)); err != nil {
				return err
			}
			at = newest
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
}

// tick publishes n more events.
func (o *numberer) tick(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.newest += n
	close(o.changed)
	o.changed = make(chan struct{})
}

// requests returns how many requests have come since, with an id that has a prefix.
func (o *numberer) requests(prefix string, since time.Time) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, a := range o.asked {
		if strings.HasPrefix(a.id, prefix) && !a.at.Before(since) {
			n++
		}
	}
	return n
}

func newNumbererSetup(t *testing.T, newest int, opts Options) (*setup, *numberer) {
	s := newSetup(t, opts)
	o := newNumberer(newest)
	s.handler.source = o
	return s, o
}

// Whatever one client makes the origin believe, nobody else is told its id, nor loses
// an event by it.
func TestNoClientsIDIsInForceForAnother(t *testing.T) {
	const lie = "999999"
	bring := map[string]func(s *setup, ip string) *client{
		"header": func(s *setup, ip string) *client { return s.getFrom(ip, "/events", "Last-Event-ID", lie) },
		"query":  func(s *setup, ip string) *client { return s.getFrom(ip, "/events?lastEventId="+lie) },
	}
	crowd := map[string][]string{
		"one client":                {"203.0.113.1"},
		"two of one address":        {"203.0.113.1", "203.0.113.1"},
		"a pair of two addresses":   {"203.0.113.1", "203.0.113.2"},
		"three of as many adresses": {"203.0.113.1", "203.0.113.2", "203.0.113.3"},
	}
	for name, opts := range map[string]Options{
		"catchup":     {},
		"no catchup":  {Catchup: noCatchup},
		"greeting":    {Greeting: "1"},
		"first_event": {FirstEvent: "oldest"},
		"assign":      {IDs: "assign"},
	} {
		for how, bring := range bring {
			for who, addresses := range crowd {
				t.Run(name+", "+how+", "+who, func(t *testing.T) {
					bothWriters(t, func(t *testing.T) {
						s, o := newNumbererSetup(t, 50, opts)
						for _, ip := range addresses {
							bring(s, ip)
						}
						before := s.getFrom("203.0.113.8", "/events")
						time.Sleep(time.Minute)
						o.tick(1)
						before.expectEvents(51, 51)
						late := s.getFrom("203.0.113.9", "/events")
						late.read() // with some options, it begins with what was before
						resuming := s.getFrom("203.0.113.10", "/events", "Last-Event-ID", "51")
						o.tick(2)
						time.Sleep(time.Minute)
						for _, c := range []*client{before, late, resuming} {
							c.expectEvents(52, 53)
							if all := c.all(); strings.Contains(all, lie) {
								t.Errorf("a client was told what another has brought: %q", all)
							}
						}
						if got := s.onlyTopic().Log().Stats().ID; got != "53" {
							t.Errorf("the id in force is %q, want 53", got)
						}
					})
				})
			}
		}
	}
}

// expectEvents checks the events that have come, whatever is around them.
func (c *client) expectEvents(from, to int) {
	c.t.Helper()
	got := c.read()
	var ids []string
	for line := range strings.SplitSeq(got, "\n") {
		if id, ok := strings.CutPrefix(line, "data: event "); ok {
			ids = append(ids, id)
		}
	}
	var want []string
	for i := from; i <= to; i++ {
		want = append(want, strconv.Itoa(i))
	}
	if strings.Join(ids, " ") != strings.Join(want, " ") {
		c.t.Errorf("client got the events %q, want %q: %q", ids, want, got)
	}
}

// all returns all that a client has got.
func (c *client) all() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.body.String()
}

// A client that resumes on a cold topic has a catch-up, which meets the shared
// connection without loss or repeat, whatever the origin does with a connection that
// brings no id.
func TestColdTopicIsOpenedWithoutAnID(t *testing.T) {
	for name, tc := range map[string]struct {
		shared, own string // what comes over the two connections before the next event
		want        string
	}{
		"new events alone":       {"", numbered(8, 9), numbered(8, 9)},
		"nothing new":            {"", "", ""},
		"all from the beginning": {numbered(1, 9), numbered(8, 9), numbered(8, 9)},
		"the newest":             {numbered(9, 9), numbered(8, 9), numbered(8, 9)},
		"a reconnection time":    {"retry: 3000\n\n", "retry: 3000\n\n" + numbered(8, 9), "retry: 3000\n\n" + numbered(8, 9)},
		"a greeting without id":  {"data: hello\n\n", "data: hello\n\n" + numbered(8, 9), "data: hello\n\n" + numbered(8, 9)},
		"a position":             {"id: 9\n\n", "id: 7\n\n" + numbered(8, 9), numbered(8, 9)},
	} {
		for _, pause := range []time.Duration{0, time.Second, time.Minute, time.Hour} {
			t.Run(fmt.Sprint(name, ", ", pause), func(t *testing.T) {
				bothWriters(t, func(t *testing.T) {
					s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
					c := s.get("/events", "Last-Event-ID", "7")
					up := s.origin.next().expectResumedWith("no id").accept()
					if tc.shared != "" {
						up.send(tc.shared)
					}
					newest := 9
					if tc.own == "" {
						newest = 7
					}
					var catchups []*conn
					answer := func(c *conn) {
						if c.closed() {
							return
						}
						catchups = append(catchups, c)
						var id int
						_, _ = fmt.Sscan(c.request.Header.Get("Last-Event-ID"), &id)
						c.accept()
						if id == 7 && tc.own != "" {
							c.send(tc.own)
							return
						}
						c.events(id+1, newest)
					}
					publish := func() {
						newest++
						up.events(newest, newest)
						for _, c := range catchups {
							if !c.closed() {
								c.events(newest, newest)
							}
						}
					}
					s.origin.keepAnswering(pause+1, answer)
					publish()
					s.origin.keepAnswering(time.Second, answer)
					got, ok := strings.CutPrefix(c.read(), primer("7"))
					if want := tc.want + numbered(newest, newest); !ok || got != want {
						t.Errorf("client got %q, want %q", got, want)
					}
					publish()
					c.expect(numbered(newest, newest))
					if gaps := s.pool.stats.Gaps.Load(); gaps != 0 {
						t.Errorf("counted %d gaps, want none", gaps)
					}
				})
			})
		}
	}
}

// With a quiet origin, a restart of Caddy brings back many clients with different ids.
// All get what they have missed, and none is told of a gap, however long it takes
// until there is an event.
func TestManyIDsOnAQuietColdTopic(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s, o := newNumbererSetup(t, 500, Options{})
		o.latency = 10 * time.Millisecond
		began := time.Now()
		var clients []*client
		for id := 1; id <= 500; id++ {
			clients = append(clients, s.get("/events", "Last-Event-ID", strconv.Itoa(id)))
		}
		time.Sleep(settings.DefaultCatchupTimeout)
		for i, c := range clients {
			c.expectEvents(i+2, 500)
		}
		if n := o.requests("", began); n > 510 {
			t.Errorf("the origin was asked %d times by 500 clients", n)
		}
		time.Sleep(time.Hour)
		if n := o.requests("", began.Add(settings.DefaultCatchupTimeout)); n > 20 {
			t.Errorf("the origin was asked %d times in an hour in which nothing happened", n)
		}
		o.tick(1)
		time.Sleep(time.Second)
		for _, c := range clients {
			c.expectEvents(501, 501)
		}
		if gaps := s.pool.stats.Gaps.Load(); gaps != 0 {
			t.Errorf("%d clients were told of a gap", gaps)
		}
	})
}

// Those that are up to date wait together for the next event, however many they are,
// and however long the origin takes to notice that it is not wanted.
func TestManyWithTheNewestIDOnAQuietColdTopic(t *testing.T) {
	for _, slowness := range []time.Duration{0, time.Second, time.Minute} {
		t.Run(slowness.String(), func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s, o := newNumbererSetup(t, 500, Options{Heartbeat: Heartbeat{Interval: -1}})
				s.handler.source = sourceFunc(func(w http.ResponseWriter, r *http.Request) error {
					defer time.Sleep(slowness)
					return o.ServeHTTP(w, r, nil)
				})
				began := time.Now()
				var clients []*client
				for i := range 2 * relay.MaxQueued {
					clients = append(clients, s.getFrom(fmt.Sprint("203.0.113.", i%250), "/events", "Last-Event-ID", "500"))
				}
				time.Sleep(time.Hour)
				if n := o.requests("500", began); n > 20 {
					t.Errorf("the origin was asked %d times in an hour in which nothing happened", n)
				}
				o.tick(2)
				time.Sleep(time.Second)
				for _, c := range clients {
					c.expect(primer("500") + numbered(501, 502))
				}
			})
		})
	}
}

// A topic whose history is too short for those who come back.
func TestManyIDsOnAWarmTopic(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s, o := newNumbererSetup(t, 500, Options{History: History{Events: 1}})
		o.latency = 10 * time.Millisecond
		live := s.get("/events")
		time.Sleep(time.Second)
		o.tick(1)
		live.expectEvents(501, 501)
		var clients []*client
		for id := 1; id <= 500; id++ {
			clients = append(clients, s.get("/events", "Last-Event-ID", strconv.Itoa(id)))
		}
		time.Sleep(settings.DefaultCatchupTimeout)
		for i, c := range clients {
			c.expectEvents(i+2, 501)
		}
		if gaps := s.pool.stats.Gaps.Load(); gaps != 0 {
			t.Errorf("%d clients were told of a gap", gaps)
		}
	})
}

// What an address asks for in vain has a rate, whatever the origin makes of it, and
// nobody else waits.
func TestMadeUpIDsHaveARate(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request, o *numberer) error{
		"refused": func(w http.ResponseWriter, _ *http.Request, _ *numberer) error {
			w.WriteHeader(http.StatusGone)
			return nil
		},
		"unavailable": func(http.ResponseWriter, *http.Request, *numberer) error {
			return caddyhttp.Error(http.StatusBadGateway, io.ErrUnexpectedEOF)
		},
		"ignored": func(w http.ResponseWriter, r *http.Request, o *numberer) error {
			r.Header.Del("Last-Event-ID")
			return o.ServeHTTP(w, r, nil)
		},
		"silent": func(w http.ResponseWriter, r *http.Request, o *numberer) error {
			r.Header.Set("Last-Event-ID", "999999")
			return o.ServeHTTP(w, r, nil)
		},
		"not answered": func(_ http.ResponseWriter, r *http.Request, _ *numberer) error {
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		},
		"ended at once": func(w http.ResponseWriter, _ *http.Request, _ *numberer) error {
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(http.StatusOK)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s, o := newNumbererSetup(t, 100, Options{History: History{Events: 1}})
				var lies atomic.Int64
				s.handler.source = sourceFunc(func(w http.ResponseWriter, r *http.Request) error {
					if strings.HasPrefix(r.Header.Get("Last-Event-ID"), "lie") {
						lies.Add(1)
						return answer(w, r, o)
					}
					return o.ServeHTTP(w, r, nil)
				})
				live := s.get("/events")
				o.tick(2)
				live.expectEvents(101, 102)
				var liars []*client
				for i := range 300 {
					liars = append(liars, s.getFrom("203.0.113.1", "/events", "Last-Event-ID", fmt.Sprint("lie ", i)))
				}
				// Somebody else comes back again and again.
				for id := range 20 {
					c := s.getFrom("203.0.113.2", "/events", "Last-Event-ID", strconv.Itoa(id))
					time.Sleep(settings.DefaultCatchupTimeout + time.Second)
					c.expectEvents(id+1, 102)
					if strings.Contains(c.all(), "gap") {
						t.Errorf("a client was told of a gap: %q", c.all())
					}
					c.leave()
					most := int64(futileAtOnce + 15)
					if name == "refused" {
						most = int64(float64(most) / refusedCost)
					}
					if lies := lies.Load(); id == 0 && lies > most {
						t.Errorf("the origin was asked for %d made-up ids in 11 s, want %d at most", lies, most)
					}
				}
				o.tick(1)
				time.Sleep(time.Second)
				for _, c := range liars {
					if all := c.all(); !strings.Contains(all, gapComment) || !strings.HasSuffix(all, numbered(103, 103)) {
						t.Fatalf("a client with a made-up id got %q", all)
					}
				}
			})
		})
	}
}

// An address that brings made-up ids gains little from bringing them to many topics, and
// other addresses lose nothing by it.
func TestMadeUpIDsHaveARateOverAllTopics(t *testing.T) {
	const topics = 20
	bothWriters(t, func(t *testing.T) {
		s, o := newNumbererSetup(t, 100, Options{History: History{Events: 1}})
		var lies atomic.Int64
		s.handler.source = sourceFunc(func(w http.ResponseWriter, r *http.Request) error {
			if strings.HasPrefix(r.Header.Get("Last-Event-ID"), "lie") {
				lies.Add(1)
				w.WriteHeader(http.StatusGone)
				return nil
			}
			return o.ServeHTTP(w, r, nil)
		})
		path := func(topic int) string { return fmt.Sprint("/events?n=", topic) }
		for n := range topics {
			s.getFrom("203.0.113.9", path(n))
		}
		o.tick(2)
		for n := range topics {
			for i := range 100 {
				s.getFrom("203.0.113.1", path(n), "Last-Event-ID", fmt.Sprint("lie ", i))
			}
		}
		time.Sleep(10 * time.Second)
		most := int64((futileInAllAtOnce+10*futileInAllPerSecond)/refusedCost + topics*settings.DefaultCatchups)
		if lies := lies.Load(); lies > most {
			t.Errorf("the origin was asked for %d made-up ids in 10 s, want %d at most", lies, most)
		}
		for n := range topics {
			c := s.getFrom("203.0.113.2", path(n), "Last-Event-ID", "50")
			time.Sleep(time.Second)
			c.expectEvents(51, 102)
		}
	})
}

// Fetches count for an address as long as they run: it cannot have any number under way.
func TestFetchesUnderWayAreBounded(t *testing.T) {
	for name, answer := range map[string]func(*conn){"silent": func(c *conn) { c.accept() }, "not answered": func(*conn) {}} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
				s.origin.conns = make(chan *conn, 2000)
				const urls = 300
				for n := range urls {
					s.getFrom("203.0.113.9", fmt.Sprint("/", n))
				}
				s.origin.keepAnswering(time.Second, func(c *conn) { c.accept().events(100, 101) })
				for n := range urls {
					s.getFrom("203.0.113.1", fmt.Sprint("/", n), "Last-Event-ID", "made up")
				}
				asked := 0
				s.origin.keepAnswering(settings.DefaultCatchupTimeout-time.Second, func(c *conn) {
					asked++
					answer(c)
				})
				if most := int(futileInAllAtOnce + futileInAllPerSecond*settings.DefaultCatchupTimeout.Seconds()); asked > most {
					t.Errorf("%d fetches were under way for one address, want %d at most", asked, most)
				}
				// Others are served meanwhile.
				s.getFrom("203.0.113.2", "/7", "Last-Event-ID", "98")
				s.origin.await().expectResumedWith("id 98")
			})
		})
	}
}

// That one id came to nothing says nothing about others, of the same address or not.
func TestOneUnknownIDSaysNothingAboutOthers(t *testing.T) {
	for name, fail := range map[string]func(o *fakeOrigin){
		"refused": func(o *fakeOrigin) { o.denyCatchup(chokes["410"]) },
		"ignored": func(o *fakeOrigin) { o.next().accept().events(12, 12) },
		"no ids":  func(o *fakeOrigin) { o.next().accept().send("data: what is that?\n\n"); time.Sleep(time.Minute) },
		"silent":  func(o *fakeOrigin) { o.next().accept(); time.Sleep(time.Minute) },
	} {
		for _, ip := range []string{"203.0.113.1", "203.0.113.2"} {
			t.Run(name+", "+ip, func(t *testing.T) {
				bothWriters(t, func(t *testing.T) {
					s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
					s.joinLive(10, 12)
					bad := s.getFrom("203.0.113.1", "/events", "Last-Event-ID", "made up")
					fail(s.origin)
					bad.expect(primer("made up") + "id: 12\n" + gapComment)
					c := s.getFrom(ip, "/events", "Last-Event-ID", "7")
					s.origin.next().accept().events(8, 10)
					c.expect(primer("7") + numbered(8, 12))
				})
			})
		}
	}
}

// An origin that has forgotten what many clients had must not let them wait for each
// other, and is asked at a rate all the same.
func TestRefusedIDsHoldUpNobody(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Catchup: Catchup{Connections: 1}})
		up, _ := s.joinLive(1000, 1000)
		var clients []*client
		for id := range 300 {
			clients = append(clients, s.getFrom(fmt.Sprint("203.0.113.", id%100), "/events", "Last-Event-ID", fmt.Sprint(id)))
		}
		var times []time.Time
		s.origin.keepAnswering(8*time.Second, func(c *conn) {
			times = append(times, c.at)
			c.answer(http.StatusGone).end()
		})
		for i := range times {
			if j := i + fetchesAtOnce + fetchesPerSecond; j < len(times) && times[j].Sub(times[i]) < time.Second {
				t.Fatalf("the origin was asked more than %d times in a second", fetchesAtOnce+fetchesPerSecond)
			}
		}
		up.events(1001, 1001)
		for id, c := range clients {
			c.expect(primer(fmt.Sprint(id)) + "id: 1000\n" + gapComment + numbered(1001, 1001))
		}
		if most := s.origin.most.Load(); most != 2 {
			t.Errorf("there were %d connections to the origin, want 2 at most", most)
		}
	})
}

// An address that has asked in vain for much, and then for what others have, does not
// make them wait.
func TestOthersDoNotWaitForAnAddressThatHasToWait(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
		s.joinLive(10, 12)
		for i := range 200 {
			s.getFrom("203.0.113.1", "/events", "Last-Event-ID", fmt.Sprint("lie ", i))
		}
		s.origin.keepAnswering(3*time.Second+50*time.Millisecond, func(c *conn) { c.answer(http.StatusGone).end() })
		theirs := s.getFrom("203.0.113.1", "/events", "Last-Event-ID", "7")
		s.origin.idle()
		c := s.getFrom("203.0.113.2", "/events", "Last-Event-ID", "7")
		s.origin.next().expectResumedWith("id 7").accept().events(8, 10)
		c.expect(primer("7") + numbered(8, 12))
		theirs.expect(primer("7") + numbered(8, 12))
	})
}

// Many addresses with an id each that the origin does not answer hold up the others, but
// not for ever: they are told of a gap and get what comes.
func TestWaitingForATurnHasAnEnd(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		up, _ := s.joinLive(100, 101)
		for i := range 40 {
			s.getFrom(fmt.Sprint("203.0.113.", i), "/events", "Last-Event-ID", fmt.Sprint("silent ", i))
		}
		c := s.getFrom("198.51.100.1", "/events", "Last-Event-ID", "98")
		time.Sleep(relay.TurnPatience*settings.DefaultCatchupTimeout + settings.DefaultHeartbeat)
		up.events(102, 102)
		if got := c.read(); !strings.Contains(got, gapComment) || !strings.Contains(got, numbered(102, 102)) { // heartbeats may follow
			t.Errorf("the client that waited got %q", got)
		}
	})
}

// An origin may know the id from the query alone. The topic has none in its URL.
func TestIDIsForwardedInTheQueryParameterThatItCameIn(t *testing.T) {
	for name := range relay.IDParams {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
				up := func() *conn { s.get("/events?a=1"); return s.origin.next().accept().events(10, 12) }()
				c := s.get("/events?a=1&" + url.QueryEscape(name) + "=7%26&b=2")
				other := s.origin.next() // b makes it another topic
				if got := other.request.URL.RawQuery; got != "a=1&b=2" {
					t.Errorf("the shared request has the query %q", got)
				}
				other.accept()
				catchup := s.origin.next().expectResumedWith("id 7&")
				if got, want := catchup.request.URL.RawQuery, "a=1&b=2&"+name+"=7%26"; got != want {
					t.Errorf("the query is %q, want %q", got, want)
				}
				if got := catchup.request.RequestURI; !strings.HasSuffix(got, catchup.request.URL.RawQuery) {
					t.Errorf("the request URI is %q", got)
				}
				c.leave()
				c = s.get("/events?"+name+"=5&a=1", "Last-Event-ID", "7")
				catchup = s.origin.next().expectResumedWith("id 7")
				if got, want := catchup.request.URL.RawQuery, "a=1&"+name+"=7"; got != want {
					t.Errorf("the query is %q, want %q", got, want)
				}
				catchup.accept().events(8, 9).abort()
				again := s.origin.await()
				if got, want := again.request.URL.RawQuery, "a=1&"+name+"=9"; got != want {
					t.Errorf("the query of what goes on is %q, want %q", got, want)
				}
				again.accept().events(10, 10)
				c.expect(primer("7") + numbered(8, 12))
				up.abort()
				if got := s.origin.await().request.URL.RawQuery; got != "a=1" {
					t.Errorf("the shared request has the query %q", got)
				}
			})
		})
	}
}

// An id of the origin is found again whatever it is like, as HTTP brings it back.
func TestIDsOfTheOriginAreFoundAgain(t *testing.T) {
	for name, id := range map[string]string{
		"as long as Wikimedia's": `[{"topic":"` + strings.Repeat("x", 1240) + `"}]`,
		"longer than is asked":   strings.Repeat("x", relay.MaxLastEventID+1),
		"as long as a header":    strings.Repeat("x", 500<<10),
		"trailing blank":         "h1 ",
		"leading blank":          " h1",
		"tabs and blanks":        "\t h 1 \t",
		"not ASCII":              "ü €",
	} {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				brought := strings.Trim(id, " \t")
				s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
				live := s.get("/events")
				first := "id: " + id + "\ndata: x\n\n"
				up := s.origin.next().accept().send(first)
				live.expect(primer("") + first)
				s.get("/events").expect(primer(brought))
				up.events(8, 9)
				for range 2 {
					s.get("/events", "Last-Event-ID", brought).expect(primer(brought) + numbered(8, 9))
					s.get("/events?lastEventId=" + url.QueryEscape(id)).expect(primer(brought) + numbered(8, 9))
				}
				s.origin.idle()
				if got := s.pool.stats.Gaps.Load() + s.pool.stats.IgnoredIDs.Load(); got != 0 {
					t.Errorf("counted %d gaps and unusable ids", got)
				}
				up.send(first).abort()
				s.origin.await().expectResumedWith("id " + brought)
			})
		})
	}
}

// An id that no client can bring back is none: it is not copied into each primer.
func TestIDThatNoHeaderCanHoldIsNone(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		s.get("/events")
		s.origin.next().accept().events(1, 1).send("id: " + strings.Repeat("x", 2<<20) + "\ndata: x\n\n")
		s.get("/events").expect(primer(""))
	})
}

// Where there are no catch-ups, the id of the one who opens a topic is asked for, and
// stays private.
func TestOpenersIDWithoutCatchups(t *testing.T) {
	opts := Options{Catchup: noCatchup, Heartbeat: Heartbeat{Interval: -1}}
	open := func(t *testing.T, opts Options) (s *setup, opener *client, up *conn) {
		s = newSetup(t, opts)
		opener = s.get("/events", "Last-Event-ID", "7")
		up = s.origin.next().expectResumedWith("id 7").accept()
		opener.expect(primer("7"))
		return s, opener, up
	}
	t.Run("served", func(t *testing.T) {
		bothWriters(t, func(t *testing.T) {
			s, opener, up := open(t, opts)
			fresh := s.get("/events")
			fresh.expect(primer(""))
			same := s.get("/events", "Last-Event-ID", "7")
			same.expect(primer("7"))
			s.get("/events", "Last-Event-ID", "6").expect(": sse_fanout\nretry: 3000\nid: \n" + gapComment)
			up.events(8, 9)
			for _, c := range []*client{opener, fresh, same} {
				c.expect(numbered(8, 9))
			}
			s.get("/events", "Last-Event-ID", "7").expect(primer("7") + numbered(8, 9))
			s.get("/events").expect(primer("9"))
			up.abort()
			s.origin.await().expectResumedWith("id 9")
		})
	})
	t.Run("no longer in the history", func(t *testing.T) {
		bothWriters(t, func(t *testing.T) {
			opts := opts
			opts.History = History{Events: 1}
			s, _, up := open(t, opts)
			up.events(8, 9)
			s.get("/events", "Last-Event-ID", "7").expect(gapPrimer("9") + gapComment)
		})
	})
	t.Run("returned by the origin", func(t *testing.T) {
		bothWriters(t, func(t *testing.T) {
			s, opener, up := open(t, opts)
			up.send("retry: 3000\nid: 7\n\n").send("id: 7\ndata: hello\n\n")
			opener.expect("retry: 3000\n\ndata: hello\n\n")
			s.get("/events").expect(primer(""))
			up.events(8, 8)
			opener.expect(numbered(8, 8))
			s.get("/events", "Last-Event-ID", "7").expect(primer("7") + "retry: 3000\n\ndata: hello\n\n" + numbered(8, 8))
		})
	})
	t.Run("alone with a silent origin", func(t *testing.T) {
		bothWriters(t, func(t *testing.T) {
			s, opener, up := open(t, opts)
			time.Sleep(time.Hour)
			s.origin.idle()
			up.abort()
			s.origin.await().expectResumedWith("id 7").accept().events(8, 8)
			opener.expect(numbered(8, 8))
		})
	})
	t.Run("others wait", func(t *testing.T) {
		bothWriters(t, func(t *testing.T) {
			s, opener, up := open(t, opts)
			fresh := s.get("/events")
			fresh.expect(primer(""))
			time.Sleep(settings.DefaultCatchupTimeout)
			if !up.closed() {
				t.Error("the connection that the id has silenced goes on")
			}
			again := s.origin.next().expectResumedWith("no id").accept()
			for _, c := range []*client{opener, fresh} {
				c.expect(gapComment)
			}
			again.events(20, 20)
			for _, c := range []*client{opener, fresh} {
				c.expect(numbered(20, 20))
			}
			s.get("/events", "Last-Event-ID", "7").expect(gapPrimer("20") + gapComment)
			if most := s.origin.most.Load(); most != 1 {
				t.Errorf("the origin had %d connections at once, want 1", most)
			}
			again.abort()
			s.origin.await().expectResumedWith("id 20")
		})
	})
	t.Run("others wait, and the origin never answers", func(t *testing.T) {
		bothWriters(t, func(t *testing.T) {
			opts := opts
			opts.Wait = caddy.Duration(time.Second)
			s := newSetup(t, opts)
			s.get("/events", "Last-Event-ID", "7")
			fresh := s.get("/events")
			s.origin.next().expectResumedWith("id 7")
			time.Sleep(settings.DefaultCatchupTimeout)
			s.origin.next().expectResumedWith("no id").accept().events(20, 20)
			fresh.expect(primer("") + numbered(20, 20))
		})
	})
	t.Run("not usable", func(t *testing.T) {
		bothWriters(t, func(t *testing.T) {
			s := newSetup(t, opts)
			c := s.get("/events?" + unusableIDs["LF"])
			s.origin.next().expectResumedWith("no id").accept()
			c.expect(": sse_fanout\nretry: 3000\nid: \n" + gapComment)
		})
	})
}
