package ssefanout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// An endless source answers every request, whatever it is, with an event stream that
// says nothing and does not end.
type endless struct {
	status      int
	contentType string
	header      http.Header
	begin       func(w http.ResponseWriter) // how the header gets out
	open, asked atomic.Int64
}

func (e *endless) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	e.asked.Add(1)
	e.open.Add(1)
	defer e.open.Add(-1)
	maps.Copy(w.Header(), e.header)
	w.Header().Set("Content-Type", "text/event-stream")
	if e.contentType != "" {
		w.Header().Set("Content-Type", e.contentType)
	}
	switch {
	case e.begin != nil:
		e.begin(w)
	case e.status != 0:
		w.WriteHeader(e.status)
	}
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
	panic(http.ErrAbortHandler) // as reverse_proxy does
}

// newForm provisions a handler of a form, which asks source, and returns how to make a
// request of it from an address.
func newForm(t *testing.T, form string, opts Options, source caddyhttp.MiddlewareHandler) (s *setup, ask func(ip string, r *http.Request) *client) {
	t.Helper()
	s = &setup{t: t, origin: newOrigin(t), next: source}
	s.handler = &Handler{Options: opts, instance: instance{sockets: overSockets}}
	if form == "endpoint" {
		s.handler.source = source
	}
	s.provision()
	return s, func(ip string, r *http.Request) *client {
		r.RemoteAddr = ip + ":4711"
		c := &client{t: t, done: make(chan struct{}), header: make(http.Header)}
		ctx, cancel := context.WithCancel(context.WithValue(r.Context(), clientKey{}, c))
		c.cancel = cancel
		r = caddyhttp.PrepareRequest(r.WithContext(ctx), caddy.NewReplacer(), c, s.handler.server)
		go func() {
			defer close(c.done)
			defer c.outlive()
			defer func() { c.panic = recover() }()
			c.err = s.pass(c, r)
		}()
		t.Cleanup(c.leave)
		synctest.Wait()
		return c
	}
}

// waysToAsk are requests that an origin may answer with a stream, by what is special
// about each.
var waysToAsk = map[string]func() *http.Request{
	"plain":        func() *http.Request { return streamRequest() },
	"Range":        func() *http.Request { return streamRequest("Range", "bytes=0-") },
	"If-Range":     func() *http.Request { return streamRequest("Range", "bytes=0-1", "If-Range", `"a"`) },
	"Upgrade":      func() *http.Request { return streamRequest("Upgrade", "x") },
	"Upgrade: h2c": func() *http.Request { return streamRequest("Connection", "Upgrade", "Upgrade", "h2c") },
	"WebSocket":    func() *http.Request { return streamRequest("Connection", "Upgrade", "Upgrade", "websocket") },
	"a body":       func() *http.Request { return requestWith(http.MethodGet, "x") },
	"chunked":      chunkedRequest,
	"HTTP/2":       func() *http.Request { return withVersion(2, 0, streamRequest("Cookie", "a=1")) },
	"HTTP/2 body":  func() *http.Request { return withVersion(2, 0, chunkedRequest()) },
	"HTTP/3":       func() *http.Request { return http3Request("") },
	"HTTP/3 body":  func() *http.Request { return http3Request("x") },
	"HTTP/1.0":     func() *http.Request { return withVersion(1, 0, streamRequest("Range", "bytes=0-")) },
	"HEAD":         func() *http.Request { return requestWith(http.MethodHead, "") },
	"POST":         func() *http.Request { return requestWith(http.MethodPost, "x") },
	"POST for MCP": func() *http.Request {
		return accepting("application/json, text/event-stream", requestWith(http.MethodPost, "{}"))
	},
	"PUT":           func() *http.Request { return requestWith(http.MethodPut, "x") },
	"OPTIONS":       func() *http.Request { return accepting("*/*", requestWith(http.MethodOptions, "")) },
	"CONNECT":       func() *http.Request { return withVersion(2, 0, requestWith(http.MethodConnect, "")) },
	"its own":       func() *http.Request { return requestWith("STREAM", "") },
	"no Accept":     func() *http.Request { return accepting("", streamRequest()) },
	"any type":      func() *http.Request { return accepting("*/*", streamRequest("Cookie", "a=1")) },
	"Cookie":        func() *http.Request { return streamRequest("Cookie", "a=1") },
	"Authorization": func() *http.Request { return streamRequest("Authorization", "Bearer 1") },
	"certificate":   func() *http.Request { return withCertificate(streamRequest()) },
	"error route":   func() *http.Request { return inErrorRoute(streamRequest()) },
	"all at once": func() *http.Request {
		return streamRequest("Cookie", "a=1", "Range", "bytes=0-", "Upgrade", "x", "Expect", "100-continue")
	},
}

func accepting(types string, r *http.Request) *http.Request {
	r.Header.Del("Accept")
	if types != "" {
		r.Header.Set("Accept", types)
	}
	return r
}

var everyForm = []struct{ form, credentials string }{
	{"endpoint", "strip"}, {"endpoint", "pass"}, {"wrapping", "strip"}, {"wrapping", "pass"},
}

// expectWithin serves n requests from one address and checks that as many as the limits
// allow have a stream, for which the origin has no more connections.
func expectWithin(t *testing.T, s *setup, source *endless, want int, ask func(i int) *client) (served []*client) {
	t.Helper()
	const n = 40
	for i := range n {
		c := ask(i)
		if c.ended() {
			if c.panic != nil || c.err != nil {
				t.Errorf("a client was turned away with the panic %v and the error %v", c.panic, c.err)
			}
			continue
		}
		served = append(served, c)
	}
	if len(served) != want {
		t.Errorf("%d of %d are served, want %d", len(served), n, want)
	}
	synctest.Wait()
	if got := source.open.Load(); got > int64(want) {
		t.Errorf("there are %d connections to the origin, want %d at most", got, want)
	}
	if got := s.pool.stats.Rejected.Get(relay.RejectAddress) + s.pool.stats.Rejected.Get(relay.RejectTotal); got != uint64(n-want) {
		t.Errorf("counted %d rejections, want %d", got, n-want)
	}
	return served
}

func TestLimitsHoldForWhateverIsServedAsAStream(t *testing.T) {
	for name, way := range waysToAsk {
		for _, form := range everyForm {
			for _, unavailable := range []string{"hold", "reject"} {
				t.Run(fmt.Sprint(name, ", ", form.form, ", ", form.credentials, ", ", unavailable), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						source := new(endless)
						s, ask := newForm(t, form.form, Options{
							Credentials: form.credentials, Unavailable: unavailable,
							MaxSubscribers: SubscriberLimits{Total: 10, PerClientIP: 2},
						}, source)
						served := expectWithin(t, s, source, 2, func(int) *client { return ask("203.0.113.1", way()) })
						if other := ask("203.0.113.2", way()); other.ended() {
							t.Error("a client of another address is not served")
						}
						// Clients that leave make room.
						for _, c := range served {
							c.leave()
						}
						if next := ask("203.0.113.1", way()); next.ended() {
							t.Error("a client is turned away though all of its address have left")
						}
					})
				})
			}
		}
	}
}

// A mix of all ways gets no more, from one address or from many.
func TestLimitsHoldForAnyMixOfStreams(t *testing.T) {
	var ways []func() *http.Request
	for _, name := range slices.Sorted(maps.Keys(waysToAsk)) {
		ways = append(ways, waysToAsk[name])
	}
	for seed := range seeds(20) {
		form := everyForm[seed%4]
		for limit, limits := range map[string]SubscriberLimits{
			"per_client_ip": {PerClientIP: 3},
			"total":         {Total: 3},
			"both":          {Total: 5, PerClientIP: 3},
		} {
			t.Run(fmt.Sprint(seed, ", ", limit), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // to be repeated
					source := new(endless)
					s, ask := newForm(t, form.form, Options{Credentials: form.credentials, MaxSubscribers: limits}, source)
					expectWithin(t, s, source, 3, func(int) *client {
						ip := "203.0.113.1"
						if limit == "total" {
							ip = fmt.Sprint("203.0.113.", random.IntN(256))
						}
						return ask(ip, ways[random.IntN(len(ways))]())
					})
				})
			})
		}
	}
}

// Whichever way the header of an answer gets out, and whatever success it tells.
func TestEveryAnswerThatIsAStreamCounts(t *testing.T) {
	answers := map[string]*endless{
		"200":                 {status: 200},
		"201":                 {status: 201},
		"206":                 {status: 206},
		"a parameter":         {contentType: "Text/Event-Stream; charset=utf-8"},
		"compressed":          {header: http.Header{"Content-Encoding": {"gzip"}}},
		"an empty write":      {begin: func(w http.ResponseWriter) { _, _ = w.Write(nil) }},
		"a write":             {begin: func(w http.ResponseWriter) { _, _ = io.WriteString(w, "data: 1\n\n") }},
		"a copy":              {begin: func(w http.ResponseWriter) { _, _ = io.Copy(w, strings.NewReader("data: 1\n\n")) }},
		"a flush":             {},
		"behind an early one": {begin: func(w http.ResponseWriter) { w.WriteHeader(103); w.WriteHeader(200) }},
		"twice":               {begin: func(w http.ResponseWriter) { w.WriteHeader(200); w.WriteHeader(404) }},
		"ignoring errors": {begin: func(w http.ResponseWriter) {
			w.WriteHeader(200)
			for range 3 {
				_, _ = io.WriteString(w, "data: 1\n\n")
				_ = http.NewResponseController(w).Flush()
			}
		}},
	}
	for name, source := range answers {
		for _, form := range []string{"endpoint", "wrapping"} {
			t.Run(name+", "+form, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, ask := newForm(t, form, Options{MaxSubscribers: SubscriberLimits{PerClientIP: 2}}, source)
					expectWithin(t, s, source, 2, func(int) *client {
						return ask("203.0.113.1", accepting("*/*", requestWith(http.MethodPost, "x")))
					})
				})
			})
		}
	}
}

func TestAnswersThatAreNoStreamsDoNotCount(t *testing.T) {
	for name, source := range map[string]*endless{
		"JSON":           {contentType: "application/json"},
		"no type":        {contentType: " "},
		"a longer type":  {contentType: "text/event-streams"},
		"an error":       {status: 404},
		"a redirect":     {status: 302},
		"unavailable":    {status: 503},
		"other protocol": {status: 101},
	} {
		for way, r := range map[string]func() *http.Request{
			"for anything": func() *http.Request { return accepting("*/*", requestWith(http.MethodPost, "x")) },
			"for a stream": func() *http.Request { return requestWith(http.MethodPost, "x") },
		} {
			t.Run(name+", "+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, ask := newForm(t, "wrapping", Options{MaxSubscribers: SubscriberLimits{Total: 2, PerClientIP: 2}}, source)
					for range 5 {
						if c := ask("203.0.113.1", r()); c.ended() {
							t.Fatal("a client was turned away")
						}
					}
					before := gather(t)
					if n := s.pool.relay.Holdings().Subscribers; n != 0 {
						t.Errorf("%d are counted, want none", n)
					}
					expectChange(t, before, map[string]float64{})
				})
			})
		}
	}
}

// A client that wants nothing but a stream has a place while it waits for the answer, as the
// clients of a topic do, and the origin is not asked for those who cannot have one.
func TestOriginIsNotAskedForWhoCannotHaveAStream(t *testing.T) {
	for _, form := range []string{"endpoint", "wrapping"} {
		t.Run(form, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				origin := newOrigin(t)
				s, ask := newForm(t, form, Options{MaxSubscribers: SubscriberLimits{PerClientIP: 2}}, origin)
				post := func() *client { return ask("203.0.113.1", requestWith(http.MethodPost, "x")) }
				first, second := post(), post()
				post().expectTurnedAway()
				if got := origin.total.Load(); got != 2 {
					t.Errorf("the origin was asked %d times, want twice", got)
				}
				s.expectRejected(relay.RejectAddress, 1)

				// An answer that is no stream gives the place back before it has ended.
				origin.next().answer(200, "Content-Type", "application/json")
				third := post()
				origin.next().accept()
				origin.next().accept()
				for _, c := range []*client{first, second, third} {
					if c.ended() {
						t.Error("a client is not served")
					}
				}
				post().expectTurnedAway()
			})
		})
	}
}

// A client that also takes something else may get that, whatever the limits.
func TestRequestsThatMayBeAnsweredOtherwiseAreAsked(t *testing.T) {
	for name, r := range map[string]*http.Request{
		"MCP":         accepting("application/json, text/event-stream", requestWith(http.MethodPost, "{}")),
		"any type":    accepting("text/event-stream, */*;q=0.1", requestWith(http.MethodPost, "x")),
		"WebSocket":   streamRequest("Connection", "Upgrade", "Upgrade", "websocket"),
		"error route": inErrorRoute(streamRequest()),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				origin := newOrigin(t)
				_, ask := newForm(t, "wrapping", Options{MaxSubscribers: SubscriberLimits{Total: 1}}, origin)
				ask("203.0.113.2", requestWith(http.MethodPost, "x"))
				origin.next().accept()
				c := ask("203.0.113.1", r)
				origin.next().answer(200, "Content-Type", "application/json").send("{}").end()
				c.expectStatus(http.StatusOK)
				c.expectBody("{}")
			})
		})
	}
}

// An answer that is cut leaves nothing of its origin's but which pages may read it:
// a page that may not would give up for good.
func TestAnswerThatIsCutIsReplaced(t *testing.T) {
	for _, unavailable := range []string{"hold", "reject"} {
		t.Run(unavailable, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source := &endless{header: http.Header{
					"Set-Cookie":                       {"session=1"},
					"Content-Length":                   {"1000"},
					"Content-Encoding":                 {"gzip"},
					"X-Origin":                         {"1"},
					"Vary":                             {"Origin"},
					"Access-Control-Allow-Origin":      {"https://example.org"},
					"Access-Control-Allow-Credentials": {"true"},
				}}
				s, ask := newForm(t, "wrapping", Options{Unavailable: unavailable, Primer: "on", MaxSubscribers: SubscriberLimits{Total: 1}}, source)
				post := func() *client {
					r := accepting("*/*", requestWith(http.MethodPost, "x", "Origin", "https://example.org"))
					return ask("203.0.113.1", r)
				}
				first := post()
				c := post()
				if unavailable == "hold" {
					c.expectTurnedAway()
				} else {
					c.expectUnavailable()
				}
				for _, name := range []string{"Set-Cookie", "Content-Length", "Content-Encoding", "X-Origin"} {
					if got, ok := c.header[name]; ok {
						t.Errorf("got %s %q from the origin", name, got)
					}
				}
				for _, name := range []string{"Vary", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"} {
					if got, want := c.header[name], source.header[name]; !slices.Equal(got, want) {
						t.Errorf("got %s %q, want %q", name, got, want)
					}
				}
				if got := c.header["Connection"]; !slices.Equal(got, []string{"close"}) {
					t.Errorf("got Connection %q, want close, as a body may be unread", got)
				}
				s.expectRejected(relay.RejectTotal, 1)
				s.expectLimitLogs("max_subscribers 1")
				if first.ended() || source.open.Load() != 1 {
					t.Errorf("the first has ended: %t; the origin has %d connections, want 1", first.ended(), source.open.Load())
				}
			})
		})
	}
}

// Only what reverse_proxy ends an answer with is ours to hide.
func TestPanicsOfOthersAreNotHidden(t *testing.T) {
	for name, why := range map[string]any{"abort": http.ErrAbortHandler, "another": "of a bug"} {
		for _, limited := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", limited ", limited), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					source := panicking{why}
					limits := SubscriberLimits{}
					if limited {
						limits.Total = 1
					}
					s, ask := newForm(t, "wrapping", Options{MaxSubscribers: limits}, source)
					for range 3 {
						c := ask("203.0.113.1", requestWith(http.MethodPost, "x"))
						if !c.ended() || c.panic != why {
							t.Errorf("the panic was %v, want %v", c.panic, why)
						}
					}
					s.expectRejected(relay.RejectTotal, 0)
					if left := s.pool.relay.Holdings(); left.Subscribers != 0 || left.Addresses != 0 {
						t.Error("a place was not given back")
					}
				})
			})
		}
	}
}

type panicking struct{ why any }

func (p panicking) ServeHTTP(w http.ResponseWriter, _ *http.Request, _ caddyhttp.Handler) error {
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	panic(p.why)
}

// What is done to the response writer reaches the one beneath at once.
func TestPassedWriterHidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got error
		source := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("Content-Type", "text/event-stream")
			control := http.NewResponseController(w)
			got = errors.Join(control.SetWriteDeadline(time.Now().Add(time.Hour)), control.Flush())
			_, _ = io.WriteString(w, "data: 1\n\n")
			got = errors.Join(got, control.Flush())
			_, ok := w.(io.ReaderFrom)
			if _, pushes := w.(http.Pusher); !ok || !pushes {
				t.Error("the writer is no io.ReaderFrom or http.Pusher")
			}
			return nil
		})
		_, ask := newForm(t, "wrapping", Options{MaxSubscribers: SubscriberLimits{Total: 1}}, asMiddleware{source})
		c := ask("203.0.113.1", requestWith(http.MethodPost, "x"))
		c.expectBody("data: 1\n\n")
		if got != nil || c.flushes != 2 || c.deadline.IsZero() {
			t.Errorf("got error %v, %d flushes and deadline %s", got, c.flushes, c.deadline)
		}
	})
}

type asMiddleware struct{ caddyhttp.Handler }

func (a asMiddleware) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	return a.Handler.ServeHTTP(w, r)
}

func TestPassedStreamsAreSeen(t *testing.T) {
	for _, limits := range []SubscriberLimits{{}, {Total: 3}} {
		t.Run(fmt.Sprint(limits), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, ask := newForm(t, "wrapping", Options{MaxSubscribers: limits}, new(endless))
				before := gather(t)
				first := ask("203.0.113.1", accepting("*/*", requestWith(http.MethodPost, "x")))
				ask("203.0.113.1", requestWith(http.MethodPost, "x"))
				ask("203.0.113.1", streamRequest())
				time.Sleep(relay.HandshakeTime)
				synctest.Wait()
				expectChange(t, before, map[string]float64{
					"passed_streams": 2, `passed_through_total{reason="method"}`: 2,
					"subscribers": 1, "topics": 1, "upstream_connections": 1,
					`subscribers_joined_total{outcome="fresh"}`: 1,
				})
				before = gather(t)
				first.leave()
				expectChange(t, before, map[string]float64{"passed_streams": -1})
			})
		})
	}
}

// A request whose configuration is gone is served as it was.
func TestPassingThroughAPoolThatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ask := newForm(t, "wrapping", Options{MaxSubscribers: SubscriberLimits{Total: 1}}, &endless{status: 200})
		s.pool.relay.End(relay.Ending{Reason: relay.EndDrained})
		c := ask("203.0.113.1", requestWith(http.MethodPost, "x"))
		c.expectStatus(http.StatusOK)
		if c.ended() {
			t.Error("the stream has ended")
		}
	})
}
