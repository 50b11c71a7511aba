package ssefanout

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"reflect"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

func TestOneUpstreamForManySubscribers(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		const n = 100
		clients := make([]*client, n)
		for i := range clients {
			clients[i] = s.get("/events")
		}
		up := s.origin.next()
		s.origin.idle()
		for _, c := range clients {
			c.expect("")
		}
		up.accept()
		for _, c := range clients {
			c.expectStatus(200)
			c.expect(primer(""))
		}
		up.events(1, 3)
		for _, c := range clients {
			c.expect(numbered(1, 3))
		}
		late := s.get("/events")
		late.expect(primer("3"))
		up.events(4, 4)
		late.expect(numbered(4, 4))
		s.origin.idle()
	})
}

// The client is held up between opening its topic and reading, here by a log that blocks;
// a machine that is busy does the same.
func TestWhoOpensATopicMissesNothing(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		const most = 4
		s := newSetup(t, Options{MaxTopics: TopicLimits{Total: most}})
		for i := range most {
			s.openBusy("203.0.113.1", fmt.Sprint("/", i))
		}
		goOn := make(chan struct{})
		held := false
		s.pool.SetLogger(s.pool.Log().WithOptions(zap.Hooks(func(e zapcore.Entry) error {
			if e.Message == "ending a topic to make room for another" {
				held = true
				<-goOn
			}
			return nil
		})))
		c := s.getFrom("203.0.113.2", "/new")
		s.origin.next().accept().events(1, 2)
		if !held {
			t.Fatal("nothing has held up the client")
		}
		close(goOn)
		c.expect(primer("") + numbered(1, 2))
	})
}

func TestLinger(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		c := s.get("/events")
		up := s.origin.next().accept().events(1, 1)
		c.leave()
		time.Sleep(9 * time.Second)
		if up.closed() {
			t.Fatal("the upstream was closed before linger has passed")
		}
		c = s.get("/events", "Last-Event-ID", "1")
		s.origin.idle()
		c.expect(primer("1"))
		c.leave()
		time.Sleep(11 * time.Second)
		if !up.closed() {
			t.Fatal("the upstream is open though linger has passed")
		}
	})
}

func TestTopicLingersOnlyIfItHadAnEvent(t *testing.T) {
	for _, tc := range []struct {
		name  string
		opts  Linger
		event bool
		want  bool
	}{
		{"default", Linger{}, true, true},
		{"no event", Linger{}, false, false},
		{"off", Linger{Duration: -1}, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{Linger: tc.opts})
				c := s.get("/events")
				up := s.origin.next().accept()
				if tc.event {
					up.events(1, 1)
				}
				c.leave()
				if got := !up.closed(); got != tc.want {
					t.Errorf("open after the last subscriber has left: %t, want %t", got, tc.want)
				}
			})
		})
	}
}

func TestTopicThatIsNotConnectedDoesNotLinger(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		c := s.get("/events")
		up := s.origin.next()
		c.leave()
		if !up.closed() {
			t.Error("the origin is still being asked though nobody wants an answer")
		}
	})
}

func TestLongestLingeringTopicGoesFirst(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Linger: Linger{Topics: 2}})
		ups := make([]*conn, 4)
		clients := make([]*client, 4)
		for i := range ups {
			clients[i] = s.get("/" + strconv.Itoa(i))
			ups[i] = s.origin.next().accept().events(1, 1)
		}
		// In another order than they were opened; 1 lingers anew.
		for _, i := range []int{1, 0} {
			clients[i].leave()
			time.Sleep(time.Second)
		}
		s.get("/1").leave()
		time.Sleep(time.Second)
		for i, step := range []struct{ leaver, gone int }{{3, 0}, {2, 1}} {
			clients[step.leaver].leave()
			open := 0
			for _, up := range ups {
				if !up.closed() {
					open++
				}
			}
			if !ups[step.gone].closed() || open != 3-i {
				t.Errorf("after %d: topic %d is gone: %t, and %d are open, want %d",
					step.leaver, step.gone, ups[step.gone].closed(), open, 3-i)
			}
		}
	})
}

// A lateSource takes its time to end after its request was cancelled.
type lateSource struct {
	*fakeOrigin
	delay time.Duration
	open  atomic.Int64
	most  int64
}

func (s *lateSource) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	s.most = max(s.most, s.open.Add(1))
	defer s.open.Add(-1)
	defer time.Sleep(s.delay)
	return s.fakeOrigin.ServeHTTP(w, r, next)
}

// An origin with a single worker has no place for a second connection (R2).
func TestNewTopicWaitsUntilTheOldConnectionIsClosed(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Linger: Linger{Duration: -1}})
		late := &lateSource{fakeOrigin: s.origin, delay: 1500 * time.Millisecond}
		s.handler.source = late
		s.get("/events").leave()
		s.origin.next()
		s.get("/other")
		s.origin.next() // another topic need not wait
		for range 5 {
			s.get("/events").leave()
		}
		c := s.get("/events")
		s.origin.idle()
		time.Sleep(time.Second)
		s.origin.idle()
		time.Sleep(time.Second)
		s.origin.next().accept().events(1, 1)
		c.expect(primer("") + numbered(1, 1))
		s.origin.idle()
		if late.most != 2 {
			t.Errorf("%d connections were open at once, want one for each of two topics", late.most)
		}
	})
}

// What a topic remembers goes with it, not only when its events have grown old.
func TestClosedTopicGivesItsMemoryBack(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{History: History{Age: caddy.Duration(time.Hour)}})
		c := s.get("/events")
		s.origin.next().accept().events(1, 10)
		log := weak.Make(s.onlyTopic().Log())
		c.leave()
		time.Sleep(15 * time.Second)
		synctest.Wait()
		for range 10 {
			runtime.GC()
		}
		if log.Value() != nil {
			t.Error("the log of a closed topic is still in memory")
		}
	})
}

// A busySource answers each request with events, and ends now and then. It
// knows how many connections are open for each path.
type busySource struct {
	t     *testing.T
	seed  uint64
	open  sync.Map // of path to *atomic.Int64
	all   atomic.Int64
	began atomic.Uint64 // connections, ever
}

func (s *busySource) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	s.all.Add(1)
	defer s.all.Add(-1)
	value, _ := s.open.LoadOrStore(r.URL.Path, new(atomic.Int64))
	open := value.(*atomic.Int64)
	if n := open.Add(1); n != 1 {
		s.t.Errorf("%d connections are open for %s", n, r.URL.Path)
	}
	defer open.Add(-1)
	w.Header().Set("Content-Type", "text/event-stream")
	random := rand.New(rand.NewPCG(s.seed, s.began.Add(1))) //nolint:gosec // to be repeated
	end := time.After(within(random, 3*time.Millisecond))
	for i := range 1000 {
		if _, err := io.WriteString(w, numbered(i, i)); err != nil {
			return err
		}
		select {
		case <-r.Context().Done():
			time.Sleep(within(random, time.Millisecond))
			panic(http.ErrAbortHandler)
		case <-end:
			return nil
		case <-time.After(100 * time.Microsecond):
		}
	}
	return nil
}

// within returns a duration of less than d.
func within(random *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(d)))
}

// nobody is a client that does not look at what it gets.
type nobody struct{ header http.Header }

func (n nobody) Header() http.Header              { return n.header }
func (n nobody) WriteHeader(int)                  {}
func (n nobody) Write(p []byte) (int, error)      { return len(p), nil }
func (n nobody) FlushError() error                { return nil }
func (n nobody) SetWriteDeadline(time.Time) error { return nil }

func TestOneUpstreamWhateverComesAndGoes(t *testing.T) {
	seed := *firstSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	source := &busySource{t: t, seed: seed}
	h := &Handler{instance: instance{source: source, logger: zap.NewNop(), server: new(caddyhttp.Server)}, Options: Options{
		Linger:    Linger{Duration: caddy.Duration(time.Millisecond), Topics: 1},
		Reconnect: Reconnect{Min: caddy.Duration(time.Millisecond), Max: caddy.Duration(2 * time.Millisecond)},
		Catchup:   noCatchup,
	}}
	h.settings = settingsOf(t, h)
	h.lineage = joinLineage(t.Name(), &h.instance)
	p := h.lineage.poolOf(&h.instance)

	var clients sync.WaitGroup
	for i := range uint64(16) {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(^seed, i)) //nolint:gosec // to be repeated
			for range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), within(random, 3*time.Millisecond))
				r := streamRequest("Last-Event-Id", strconv.Itoa(random.IntN(10))).WithContext(ctx)
				r.URL.Path = "/" + strconv.Itoa(random.IntN(3))
				w := nobody{make(http.Header)}
				r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, h.server)
				if err := h.ServeHTTP(w, r, nil); err != nil {
					t.Errorf("serving: %v", err)
				}
				cancel()
			}
		})
	}
	clients.Wait()

	waitFor(t, "the last topic to close", func() bool {
		return reflect.DeepEqual(p.relay.Holdings(), relay.Holdings{}) && source.all.Load() == 0
	})
	if err := h.Cleanup(); err != nil {
		t.Error(err)
	}
}

// waitFor polls, for what is not in a bubble.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// Access control stands in front of the handler. Here, a client that it lets in
// is followed by one that it would not have let in: the second must not get
// what is for the first.
func TestAccessControlInFrontHolds(t *testing.T) {
	const (
		auth    = "basic_auth {\nalice $2a$04$LQbYWDw2A3pL/O1GZwU4EOQSETPNLnvWlFxcuTosMNSmslvgUuDp2\n}\n"
		wrapped = "sse_fanout {\ncredentials strip\nfirst_event oldest\n}\nreverse_proxy "
	)
	private := newLiveOrigin(t)
	public := newLiveOrigin(t)
	sites := func(first, second string) func(*liveSite) (string, string) {
		return func(s *liveSite) (string, string) {
			other := freePort(t)
			s.loadSites(fmt.Sprintf("http://:%d {\n%s\n}\nhttp://:%d {\n%s\n}", s.http, first, other, second))
			return s.url + "/events", fmt.Sprintf("http://127.0.0.1:%d/events", other)
		}
	}
	for _, tc := range []struct {
		name string
		load func(*liveSite) (private, public string)
	}{
		{"equal URIs after handle_path", func(s *liveSite) (string, string) {
			s.load("handle_path /private/* {\n" + auth + wrapped + private.addr + "\n}\n" +
				"handle_path /public/* {\n" + wrapped + public.addr + "\n}")
			return s.url + "/private/events", s.url + "/public/events"
		}},
		{"equal handlers behind different matchers", func(s *liveSite) (string, string) {
			s.load("@private header Authorization *\n" +
				"handle @private {\n" + auth + wrapped + private.addr + "\n}\n" +
				"handle {\n" + wrapped + public.addr + "\n}")
			return s.url + "/events", s.url + "/events"
		}},
		{"two listeners, wrapping", sites(auth+wrapped+private.addr, wrapped+public.addr)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSite(t)
			privateURL, publicURL := tc.load(s)
			alice := ask200(t, s.client, privateURL, "Authorization", "Basic YWxpY2U6c2VjcmV0", "Host", "example.com")
			private.send("data: secret\n\n")
			alice.expect("data: secret\n\n")

			public.sendFirst("data: public\n\n")
			bob := open(t, s.client, publicURL, "Host", "example.com")
			bob.expect("data: public\n\n")

			if privateURL != publicURL {
				resp, _ := do(t, s.client, privateURL, "Host", "example.com")
				if resp.StatusCode != http.StatusUnauthorized {
					t.Errorf("without a password: got status %d, want 401", resp.StatusCode)
				}
			}
		})
	}
}

// Two listeners are two servers, which may differ in who can reach them.
func TestListenersDoNotShareInTheEndpointForm(t *testing.T) {
	origin := newLiveOrigin(t)
	s := newSite(t)
	other := freePort(t)
	directive := "sse_fanout " + origin.addr
	s.loadSites(fmt.Sprintf("http://:%d {\n%s\n}\nhttp://:%d {\n%s\n}", s.http, directive, other, directive))
	open(t, s.client, s.url+"/events", "Host", "example.com")
	open(t, s.client, fmt.Sprintf("http://127.0.0.1:%d/events", other), "Host", "example.com")
	if n := len(origin.asked()); n != 2 {
		t.Errorf("the origin was asked %d times, want once by each", n)
	}
}

// What judges by address behind the handler sees every shared request as a
// stranger's, and so the stream is nobody's but theirs whom it lets in.
func TestAddressIsJudgedForEachClientBehind(t *testing.T) {
	for _, matcher := range []string{"remote_ip", "client_ip"} {
		t.Run(matcher, func(t *testing.T) {
			origin := newLiveOrigin(t)
			s := run(t, "route {\nsse_fanout\n@near "+matcher+" 127.0.0.0/8\nreverse_proxy @near "+origin.addr+"\nrespond 403\n}",
				"servers {\ntrusted_proxies static 127.0.0.0/8\n}")
			for range 2 {
				near := ask200(t, s.client, s.url+"/events")
				origin.send("data: near\n\n")
				near.expect("data: near\n\n") // and no primer: it is not shared
			}
			if matcher == "client_ip" {
				far, _ := do(t, s.client, s.url+"/events", "X-Forwarded-For", "203.0.113.7")
				if far.StatusCode != http.StatusForbidden {
					t.Errorf("from afar: got status %d, want 403", far.StatusCode)
				}
			}
			for _, r := range origin.asked() {
				if got := r.Header.Get("X-Forwarded-For"); got != "127.0.0.1" {
					t.Errorf("the origin was asked for %q", got)
				}
			}
		})
	}
}
