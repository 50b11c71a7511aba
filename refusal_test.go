package ssefanout

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

// expectAnswer compares an answer that has ended, which thus needs no flush.
func (c *client) expectAnswer(status int, body string) {
	c.t.Helper()
	if !c.ended() {
		c.t.Error("the client was not answered to the end")
	}
	c.expectStatus(status)
	c.mu.Lock()
	defer c.mu.Unlock()
	if got := c.body.String(); got != body {
		c.t.Errorf("client got %d bytes, %.100q, want %d, %.100q", len(got), got, len(body), body)
	}
}

func TestNoAnswersThoseWhoWait(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func(*conn)
		status int
		body   string
	}{
		{"301", func(c *conn) { c.answer(301, "Location", "/elsewhere").send("moved").end() }, 301, "moved"},
		{"304", func(c *conn) { c.answer(304).end() }, 304, ""},
		{"400", func(c *conn) { c.answer(400).send("bad ").send("request").end() }, 400, "bad request"},
		{"401", func(c *conn) { c.answer(401, "WWW-Authenticate", "Basic").end() }, 401, ""},
		{"404 of Caddy's", func(c *conn) { c.fail(404) }, 404, ""},
		{"404 as an event stream", func(c *conn) {
			c.answer(404, "Content-Type", "text/event-stream").send("data: no\n\n").end()
		}, 404, "data: no\n\n"},
		{"410 that breaks", func(c *conn) { c.answer(410).send("part").abort() }, 410, "part"},
		{"204", func(c *conn) { c.answer(204).end() }, 204, ""},
		{"body of the most", func(c *conn) { c.answer(403).send(strings.Repeat("x", 64<<10)).end() },
			403, strings.Repeat("x", 64<<10)},
		{"larger body", func(c *conn) { c.answer(403).send("x").send(strings.Repeat("x", 64<<10)) },
			403, strings.Repeat("x", 64<<10)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, Options{})
				first, second := s.get("/events"), s.get("/events")
				up := s.origin.next()
				tt.answer(up)
				if !up.closed() {
					t.Fatal("the connection to the origin is open")
				}
				first.expectAnswer(tt.status, tt.body)
				second.expectAnswer(tt.status, tt.body)

				time.Sleep(time.Second - 1)
				s.get("/events").expectAnswer(tt.status, tt.body)
				s.origin.idle()

				time.Sleep(time.Nanosecond)
				synctest.Wait()
				s.get("/events")
				s.origin.next()
			})
		})
	}
}

func TestNoIsNotKnownForAnotherTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		c := s.get("/events?1")
		s.origin.next().answer(404).end()
		c.expectAnswer(404, "")
		c = s.get("/events?2")
		s.origin.next().accept()
		c.expect(primer(""))
	})
}

// The wrapping form must never change what a site does: each client's own
// request passes.
func TestNoPassesInTheWrappingForm(t *testing.T) {
	for _, status := range []int{302, 401, 404} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newWrappingSetup(t, Options{Credentials: "strip"})
				alice, bob := s.get("/events", "Cookie", "alice"), s.get("/events", "Cookie", "bob")
				s.origin.next().answer(status, "X-Shared", "1").send("no").end()
				alice.expectAnswer(200, "passed alice")
				bob.expectAnswer(200, "passed bob")
				if got := alice.header.Get("X-Shared"); got != "" {
					t.Errorf("X-Shared of the shared answer is %q at a client that was passed", got)
				}
				time.Sleep(time.Second - 1)
				s.get("/events", "Cookie", "carol").expectAnswer(200, "passed carol")
				s.origin.idle()
				if n := s.pool.stats.Passed.Get(pass.Refused); n != 3 {
					t.Errorf("%d requests counted as passed for a no, want 3", n)
				}
			})
		})
	}
}

// The origin's own 204 may differ from ours in its header.
func TestGonePassesInTheWrappingForm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		c := s.get("/events")
		s.origin.next().answer(204).end()
		c.expectAnswer(200, "passed ")
	})
}

func TestNothingBehindTheWrappingForm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		c := s.get("/events")
		up := s.origin.next()
		up.step(func(http.ResponseWriter) error {
			caddyhttp.SetVar(up.request.Context(), "unhandled", true) // as the end of a route does
			return errEnd
		})
		c.expectAnswer(200, "passed ") // as without us
		if n := s.logs.FilterMessageSnippet("nothing to share").Len(); n != 1 {
			t.Errorf("the log says so %d times, want once", n)
		}
	})
}

func TestNotAStreamPassesOneToOne(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func(*conn)
	}{
		{"html", func(c *conn) { c.answer(200, "Content-Type", "text/html").send("<p>").end() }},
		{"large", func(c *conn) { c.answer(200, "Content-Type", "text/html").send(strings.Repeat("x", 64<<10+1)) }},
		{"no type", func(c *conn) { c.answer(200).end() }},
		{"nothing", func(c *conn) { c.end() }},
		{"201", func(c *conn) { c.answer(201, "Content-Type", "text/event-stream").end() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, Options{})
				// own answers a client's own request at the origin.
				own := func(c *client, cookie string) {
					t.Helper()
					up := s.origin.next()
					if got := up.request.Header.Get("Cookie"); got != cookie {
						t.Fatalf("the origin was asked with Cookie %q, want the request of %q", got, cookie)
					}
					up.answer(200, "Content-Type", "text/html", "Set-Cookie", "own").step(func(w http.ResponseWriter) error {
						_, _ = w.Write([]byte("for " + cookie))
						return errors.Join(errEnd, http.NewResponseController(w).Flush())
					})
					c.expectAnswer(200, "for "+cookie)
					if got := c.header.Get("Set-Cookie"); got != "own" {
						t.Errorf("Set-Cookie is %q, want it untouched", got)
					}
				}
				alice := s.get("/events", "Cookie", "alice")
				up := s.origin.next()
				tt.answer(up)
				if !up.closed() {
					t.Fatal("the shared connection is open")
				}
				own(alice, "alice")

				time.Sleep(time.Minute - 1)
				own(s.get("/events", "Cookie", "bob"), "bob")

				time.Sleep(2 * time.Nanosecond)
				carol := s.get("/events", "Cookie", "carol")
				s.origin.next().accept()
				carol.expect(primer(""))

				if n := s.pool.stats.Passed.Get(pass.NotStream); n != 2 {
					t.Errorf("%d requests counted as passed, want 2", n)
				}
			})
		})
	}
}

// Another kind of stream is not over when its header has come, nor soon after.
func TestNotAStreamThatGoesOnPasses(t *testing.T) {
	for name, begin := range map[string]func(*conn){
		"header alone": func(c *conn) { c.answer(200, "Content-Type", "application/x-ndjson") },
		"first line":   func(c *conn) { c.answer(200, "Content-Type", "application/x-ndjson").send("{}\n") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newWrappingSetup(t, Options{Credentials: "strip"})
				c := s.get("/events", "Cookie", "alice")
				up := s.origin.next()
				begin(up)
				time.Sleep(settings.DefaultWait)
				c.expectAnswer(200, "passed alice")
				if !up.closed() {
					t.Error("the shared connection is open")
				}
			})
		})
	}
}

func TestNoWhoseBodyDoesNotEndIsServed(t *testing.T) {
	for body, begin := range map[string]func(*conn){
		"":     func(c *conn) { c.answer(404) },
		"part": func(c *conn) { c.answer(404).send("part") },
	} {
		t.Run("body "+body, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, Options{})
				c := s.get("/events")
				up := s.origin.next()
				begin(up)
				time.Sleep(settings.DefaultWait)
				c.expectAnswer(404, body)
				if !up.closed() {
					t.Error("the connection to the origin is open")
				}
			})
		})
	}
}

func TestErrorIsServedWithoutTheHeaderBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		c := s.get("/events")
		s.origin.next().step(func(w http.ResponseWriter) error {
			w.Header().Set("Content-Type", "text/event-stream")
			return caddyhttp.Error(http.StatusForbidden, errors.New("changed my mind"))
		})
		c.expectAnswer(403, "")
		if got := c.header.Get("Content-Type"); got != "" {
			t.Errorf("Content-Type is %q, want none", got)
		}
	})
}

func TestNotAStreamIsRememberedPerKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		s.get("/page")
		s.origin.next().answer(200, "Content-Type", "text/html").end()
		if n := s.passed.Load(); n != 1 {
			t.Fatalf("%d requests passed, want 1", n)
		}
		s.get("/page?")
		s.origin.next().accept()
		s.get("/page")
		s.origin.idle()
		if n := s.passed.Load(); n != 2 {
			t.Errorf("%d requests passed, want 2", n)
		}
	})
}

// originHeaders is the header of an origin's answer: what every client gets, and
// what none does.
var originHeaders = struct{ shared, unshared []string }{
	shared: []string{
		"Access-Control-Allow-Origin", "Content-Language", "Link", "Server", "Strict-Transport-Security",
		"Vary", "X-Powered-By", "Content-Security-Policy", "Location",
	},
	unshared: []string{
		"Set-Cookie", "Set-Cookie2", "Www-Authenticate", "Authentication-Info", "Proxy-Authenticate",
		"Proxy-Authentication-Info", "Clear-Site-Data", "Keep-Alive", "Proxy-Connection", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "Alt-Svc", "Content-Range", "Accept-Ranges", "Etag", "Last-Modified",
		"Age", "Date", "Expires", "Digest", "Content-Md5", "X-Hop", "X-Hop-2",
	},
}

func TestHeadersThatAreShared(t *testing.T) {
	pairs := []string{"Connection", "close, x-hop", "Connection", " X-Hop-2,", "Content-Length", "2"}
	for _, name := range slices.Concat(originHeaders.shared, originHeaders.unshared) {
		pairs = append(pairs, name, "the origin's")
	}
	check := func(t *testing.T, got http.Header) {
		t.Helper()
		for _, name := range originHeaders.shared {
			if got.Get(name) != "the origin's" {
				t.Errorf("%s is %q, want the origin's", name, got[name])
			}
		}
		for _, name := range slices.Concat(originHeaders.unshared, []string{"Connection", "Content-Encoding"}) {
			if got[name] != nil {
				t.Errorf("%s is %q, want none", name, got[name])
			}
		}
	}
	t.Run("stream", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSetup(t, Options{})
			c := s.get("/events")
			up := s.origin.next().answer(200, slices.Concat(pairs, []string{
				"Content-Type", "Text/Event-Stream;charset=utf-8", "Content-Encoding", "identity",
				"Cache-Control", "max-age=60", "X-Accel-Buffering", "yes",
			})...)
			for _, c := range []*client{c, s.get("/events")} {
				c.expectStatus(200)
				check(t, c.header)
				for name, want := range map[string]string{
					"Content-Type":      "Text/Event-Stream;charset=utf-8",
					"Cache-Control":     "no-cache, no-transform",
					"X-Accel-Buffering": "no",
					"Incremental":       "?1",
					"Content-Length":    "",
				} {
					if got := c.header.Get(name); got != want {
						t.Errorf("%s is %q, want %q", name, got, want)
					}
				}
			}
			up.events(1, 1)
		})
	})
	t.Run("no", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSetup(t, Options{})
			c := s.get("/events")
			s.origin.next().answer(404, slices.Concat(pairs, []string{"Content-Type", "text/plain"})...).send("nothing").end()
			c.expectAnswer(404, "nothing")
			check(t, c.header)
			if got := c.header.Get("Content-Length"); got != "7" {
				t.Errorf("Content-Length is %q, want that of the body", got)
			}
			if got := c.header.Get("Content-Type"); got != "text/plain" {
				t.Errorf("Content-Type is %q, want the origin's", got)
			}
		})
	})
	t.Run("names in another case", func(t *testing.T) {
		got := fields.Shared(http.Header{"set-cookie": {"1"}, "x-hop": {"1"}, "Connection": {"X-Hop"}, "X-Other": {"1"}})
		if len(got) != 1 || got["X-Other"] == nil {
			t.Errorf("shared are %v, want X-Other alone", got)
		}
	})
}

// What a handler in front of this one adds to a header is for its client alone.
func TestSharedHeadersAreNoCommonMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		alice, bob := s.get("/events"), s.get("/events")
		s.origin.next().answer(200, "Content-Type", "text/event-stream", "Vary", "A", "Vary", "B", "Vary", "C")
		alice.header.Add("Vary", "Alice")
		bob.header.Add("Vary", "Bob")
		if got, want := alice.header["Vary"], []string{"A", "B", "C", "Alice"}; !slices.Equal(got, want) {
			t.Errorf("Vary is %q, want %q", got, want)
		}
	})
}

// The body of a no is shared as it came, so it must come as what it says it is.
func TestEncodedNoIsNotServedAsPlain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		c := s.get("/events")
		s.origin.next().answer(404, "Content-Type", "text/html", "Content-Encoding", "gzip").send("\x1f\x8bcompressed").end()
		c.expectStatus(404)
		if got := c.body.String(); got == "\x1f\x8bcompressed" && c.header.Get("Content-Encoding") != "gzip" {
			t.Errorf("client got the compressed body %q without its encoding", got)
		}
	})
}

func TestPolicyForPagesHoldsForANo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{CORSOrigins: []string{"https://good.example"}})
		ask := func(origin string) *client {
			r := httptest.NewRequest(http.MethodGet, "/events", nil)
			r.Header.Set("Origin", origin)
			return s.serve(r)
		}
		good, bad := ask("https://good.example"), ask("https://bad.example")
		s.origin.next().answer(404, "Access-Control-Allow-Origin", "*", "Vary", "X-Theme").end()
		for c, want := range map[*client]string{good: "https://good.example", bad: ""} {
			c.expectStatus(404)
			if got := c.header.Get("Access-Control-Allow-Origin"); got != want {
				t.Errorf("Access-Control-Allow-Origin is %q, want %q", got, want)
			}
			if got := c.header["Vary"]; !slices.Contains(got, "Origin") {
				t.Errorf("Vary is %q, want Origin among it", got)
			}
		}
	})
}
