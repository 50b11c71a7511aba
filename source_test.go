package ssefanout

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/origin"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

// nosyRequest returns a request that carries whatever may tell of its client.
func nosyRequest(target, client string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.RemoteAddr = "198.51.100.7:1234"
	for _, name := range []string{
		"Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Cache-Control", "Cookie", "Forwarded",
		"If-None-Match", "Pragma", "Referer", "User-Agent", "Via", "X-Api-Key", "X-Forwarded-For", "X-Request-Id",
	} {
		r.Header.Set(name, client)
	}
	return r
}

func TestUpstreamRequestIsAFunctionOfTheKey(t *testing.T) {
	plain := http.Header{
		"Accept":          {"text/event-stream"},
		"Accept-Encoding": {"identity"},
		"Cache-Control":   {"no-cache"},
		"User-Agent":      {"caddy-sse-fanout"},
	}
	with := func(pairs ...string) http.Header {
		header := maps.Clone(plain)
		for i := 0; i < len(pairs); i += 2 {
			header[pairs[i]] = append(header[pairs[i]], pairs[i+1])
		}
		return header
	}
	for _, tt := range []struct {
		name    string
		vary    []string
		catchup Catchup
		target  string
		request []string // header pairs
		uri     string
		host    string
		tls     bool
		header  http.Header
	}{
		{
			name: "http", target: "http://example.com/events",
			uri: "/events", host: "example.com", header: plain,
		},
		{
			name: "https", target: "https://EXAMPLE.com:8443/a%2Fb/c%20d?x=%41&y",
			uri: "/a%2Fb/c%20d?x=%41&y", host: "example.com:8443", tls: true, header: plain,
		},
		{
			name: "id in the header", catchup: noCatchup, target: "http://example.com/events", request: []string{"Last-Event-ID", "7 ü"},
			uri: "/events", host: "example.com", header: with("Last-Event-Id", "7 ü"),
		},
		{
			name: "id in the query", catchup: noCatchup, target: "http://example.com/events?a=1&lastEventId=7&b=2",
			uri: "/events?a=1&b=2&lastEventId=7", host: "example.com", header: with("Last-Event-Id", "7"),
		},
		{
			name: "id in the query alone", catchup: noCatchup, target: "http://example.com/events?Last-Event-ID=%C3%BC%26",
			uri: "/events?Last-Event-ID=%C3%BC%26", host: "example.com", header: with("Last-Event-Id", "ü&"),
		},
		{
			name: "id of a client that others may join", target: "http://example.com/events?a=1&lastEventId=7", request: []string{"Last-Event-ID", "7"},
			uri: "/events?a=1", host: "example.com", header: plain,
		},
		{
			name: "page of another origin", target: "http://example.com/events", request: []string{"Origin", "https://a.example"},
			uri: "/events", host: "example.com", header: with("Origin", "https://a.example"),
		},
		{
			name: "vary", vary: []string{"x-TENANT", "User-Agent", "Absent"}, target: "http://example.com/events",
			request: []string{"X-Tenant", "a", "X-Tenant", "b"}, uri: "/events", host: "example.com",
			header: http.Header{
				"Accept": plain["Accept"], "Accept-Encoding": plain["Accept-Encoding"], "Cache-Control": plain["Cache-Control"],
				"User-Agent": {"somebody"}, "X-Tenant": {"a", "b"},
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, Options{Vary: tt.vary, Catchup: tt.catchup})
				r := nosyRequest(tt.target, "somebody")
				for i := 0; i < len(tt.request); i += 2 {
					r.Header.Add(tt.request[i], tt.request[i+1])
				}
				s.serve(r)
				got := s.origin.next().request

				if !reflect.DeepEqual(got.Header, tt.header) {
					t.Errorf("header is\n%v, want\n%v", got.Header, tt.header)
				}
				for _, field := range []struct{ name, got, want string }{
					{"method", got.Method, "GET"},
					{"URL", got.URL.String(), tt.uri},
					{"request URI", got.RequestURI, tt.uri},
					{"host", got.Host, tt.host},
					{"address", got.RemoteAddr, "192.0.2.1:1"},
					{"protocol", got.Proto, "HTTP/1.1"},
					{"client address", request.ClientIP(got), "192.0.2.1"},
					{"original URL", originalURL(got).String(), tt.uri},
				} {
					if field.got != field.want {
						t.Errorf("%s is %q, want %q", field.name, field.got, field.want)
					}
				}
				if got.TLS != nil != tt.tls || tt.tls && len(got.TLS.PeerCertificates) > 0 {
					t.Errorf("TLS state is %+v, want one: %t", got.TLS, tt.tls)
				}
				if got.ContentLength != 0 || got.Body != http.NoBody || len(got.TransferEncoding) > 0 {
					t.Error("the request has a body")
				}
			})
		})
	}
}

func originalURL(r *http.Request) *url.URL {
	orig := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	return orig.URL
}

func TestUpstreamRequestSeesWhatVaryNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{Vary: []string{"{http.auth.user.id}", "{http.vars.tenant}", "{http.request.cookie.lang}", "{absent}"}})
		r := nosyRequest("/events", "somebody")
		r.Header.Set("Cookie", "lang=de; session=secret")
		s.serveAfter(r, func(r *http.Request) {
			request.ReplacerOf(r).Set("http.auth.user.id", "alice")
			request.ReplacerOf(r).Set("http.auth.user.token", "secret")
			for _, name := range []string{"tenant", "root", "fs", "token"} {
				caddyhttp.SetVar(r.Context(), name, "the "+name)
			}
		})
		got := s.origin.next().request

		for name, want := range map[string]string{
			"http.auth.user.id":             "alice",
			"http.vars.tenant":              "the tenant",
			"http.request.cookie.lang":      "de",
			"http.vars.root":                "the root",
			"http.vars.fs":                  "the fs",
			"http.request.remote.host":      "192.0.2.1",
			"http.request.header.Cookie":    "",
			"http.request.cookie.session":   "",
			"http.auth.user.token":          "",
			"http.vars.token":               "",
			"http.request.header.X-Api-Key": "",
		} {
			if value, _ := request.ReplacerOf(got).GetString(name); value != want {
				t.Errorf("{%s} is %q, want %q", name, value, want)
			}
		}
		if _, ok := request.ReplacerOf(got).Get("absent"); ok {
			t.Error("a placeholder that the client's request does not have is set")
		}
		vars := got.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
		for name, want := range map[string]any{"tenant": "the tenant", "root": "the root", "fs": "the fs", "token": nil} {
			if vars[name] != want {
				t.Errorf("variable %s is %v, want %v", name, vars[name], want)
			}
		}
	})
}

func TestUpstreamRequestAfterARewrite(t *testing.T) {
	for _, tt := range []struct {
		name string
		new  func(*testing.T, Options) *setup
		orig string
	}{
		{"endpoint form", newSetup, "/new?b=2"},
		{"wrapping form", newWrappingSetup, "/old?a=1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := tt.new(t, Options{})
				r := httptest.NewRequest(http.MethodGet, "/old?a=1&lastEventId=9", nil)
				asBrowser(r)
				s.serveAfter(r, func(r *http.Request) {
					r.URL.Path, r.URL.RawQuery, r.RequestURI = "/new", "b=2", "/new?b=2"
				})
				got := s.origin.next().request
				if got.URL.String() != "/new?b=2" || got.RequestURI != "/new?b=2" {
					t.Errorf("URL is %q, request URI %q, want /new?b=2", got.URL, got.RequestURI)
				}
				if orig := originalURL(got).String(); orig != tt.orig {
					t.Errorf("original URL is %q, want %q", orig, tt.orig)
				}
				for name, want := range map[string]string{"http.request.uri": "/new?b=2", "http.request.orig_uri": tt.orig} {
					if value, _ := request.ReplacerOf(got).GetString(name); value != want {
						t.Errorf("{%s} is %q, want %q", name, value, want)
					}
				}
			})
		})
	}
}

func TestReconnectAsksAsTheFirstTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{Linger: Linger{Duration: -1}})
		alice := s.serve(nosyRequest("/events", "alice"))
		first := s.origin.next()
		first.accept().abort()
		again := s.origin.await()
		alice.leave()
		synctest.Wait()
		s.serve(nosyRequest("/events", "bob"))
		bobs := s.origin.next()
		for name, c := range map[string]*conn{"reconnecting": again, "for another client": bobs} {
			if !reflect.DeepEqual(c.request.Header, first.request.Header) || c.request.RequestURI != first.request.RequestURI ||
				c.request.Host != first.request.Host || c.request.RemoteAddr != first.request.RemoteAddr {
				t.Errorf("the request %s is\n%+v, want\n%+v", name, c.request, first.request)
			}
		}
	})
}

func TestAnswerWithoutAnExplicitHeader(t *testing.T) {
	for _, tt := range []struct {
		name string
		step func(w http.ResponseWriter) error
		want string
	}{
		{"written", func(w http.ResponseWriter) error {
			_, err := io.WriteString(w, numbered(1, 1))
			return err
		}, primer("") + numbered(1, 1)},
		{"flushed", func(w http.ResponseWriter) error {
			return http.NewResponseController(w).Flush()
		}, primer("")},
		{"after early hints", func(w http.ResponseWriter) error {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusOK)
			return nil
		}, primer("")},
		{"given twice", func(w http.ResponseWriter) error {
			w.WriteHeader(http.StatusOK)
			w.WriteHeader(http.StatusNotFound)
			return nil
		}, primer("")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, Options{})
				c := s.get("/events")
				s.origin.next().step(func(w http.ResponseWriter) error {
					w.Header().Set("Content-Type", "text/event-stream")
					return tt.step(w)
				})
				c.expect(tt.want)
			})
		})
	}
}

// A deaf source does not notice that its request is over until it writes: FastCGI is one.
var deafSources = map[string]struct {
	begin func(*conn)
	late  func(w http.ResponseWriter) error // what it does when it comes to
	got   string                            // by a client, if it is still listened to
}{
	"in the stream": {
		begin: func(c *conn) { c.accept().events(1, 1) },
		late: func(w http.ResponseWriter) error {
			_, err := io.WriteString(w, numbered(2, 2))
			return err
		},
		got: numbered(2, 2),
	},
	"in an event": {
		begin: func(c *conn) { c.accept().send(numbered(1, 1) + "id: 2\n") },
		late: func(w http.ResponseWriter) error {
			_, err := io.WriteString(w, "data: event 2\n\n")
			return err
		},
		got: numbered(2, 2),
	},
	"in a compressed stream": {
		begin: func(c *conn) {
			c.answer(200, "Content-Type", "text/event-stream", "Content-Encoding", "gzip")
		},
		late: func(w http.ResponseWriter) error {
			_, err := io.WriteString(w, "late")
			return err
		},
	},
	"before the header": {
		begin: func(*conn) {},
		late: func(w http.ResponseWriter) error {
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(http.StatusOK)
			_, err := io.WriteString(w, numbered(2, 2))
			return err
		},
		got: numbered(2, 2),
	},
}

// untilReleased makes the source of a connection deaf until release is closed.
func (c *conn) untilReleased(late func(w http.ResponseWriter) error) (release chan struct{}, wrote chan error) {
	c.t.Helper()
	release, wrote = make(chan struct{}), make(chan error, 1)
	c.step(func(w http.ResponseWriter) error {
		<-release
		err := late(w)
		wrote <- err
		return err
	})
	return release, wrote
}

// However long a source is silent that does not notice its cancellation, there is one of it,
// and what it sends then is delivered.
func TestDeafSourceThatIsIdleIsTheOnlyOne(t *testing.T) {
	for name, tt := range deafSources {
		t.Run(name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{IdleTimeout: caddy.Duration(5 * time.Second), Heartbeat: Heartbeat{Interval: -1}})
				c := s.get("/events")
				up := s.origin.next()
				tt.begin(up)
				release, _ := up.untilReleased(tt.late)
				time.Sleep(30 * time.Minute)
				if n := s.origin.total.Load(); n != 1 {
					t.Fatalf("the origin was asked %d times, want once", n)
				}
				if n := s.logs.FilterMessage("waiting for a source that has not noticed that its request is over").Len(); n != 1 {
					t.Errorf("%d lines in the log, want 1", n)
				}
				before := c.read()
				close(release)
				c.expect(tt.got)
				if !strings.HasPrefix(before, primer("")) {
					t.Errorf("got %q, want a primer", before)
				}
				up = s.origin.await().accept().events(3, 3)
				if got := c.read(); strings.TrimPrefix(got, gapComment) != numbered(3, 3) { // without an id, there may be a gap
					t.Errorf("got %q, want 3", got)
				}
				if n := s.origin.open.Load(); n != 1 {
					t.Errorf("%d connections to the origin are open, want 1", n)
				}
				up.end()
			})
		})
	}
}

// Nobody waits for a deaf source whose topic goes, and what it writes is refused.
func TestDeafSourceIsAbandonedWithItsTopic(t *testing.T) {
	for name, tt := range deafSources {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, Options{IdleTimeout: caddy.Duration(5 * time.Second), Linger: Linger{Duration: -1}})
				c := s.get("/events")
				up := s.origin.next()
				tt.begin(up)
				release, wrote := up.untilReleased(tt.late)
				time.Sleep(time.Minute)
				c.leave()
				c = s.get("/events")
				time.Sleep(origin.SourceGrace)
				again := s.origin.next().accept()
				c.read()
				close(release)
				if err := <-wrote; err == nil {
					t.Error("what an abandoned source writes is not refused")
				}
				again.events(2, 3)
				if got := c.read(); got != numbered(2, 3) {
					t.Errorf("got %q, want 2 and 3", got)
				}
			})
		})
	}
}

// Sources of catch-ups that do not notice that nobody listens are bounded.
func TestDeafSourcesOfCatchupsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
		up, _ := s.joinLive(100, 101)
		release := make(chan struct{})
		deaf := func(c *conn) {
			from := 0
			_, _ = fmt.Sscan(c.request.Header.Get("Last-Event-ID"), &from)
			c.accept().step(func(w http.ResponseWriter) error {
				_, err := io.WriteString(w, numbered(from+1, 100))
				<-release
				return err
			})
		}
		const clients = 12
		var all []*client
		for id := range clients {
			all = append(all, s.get("/events", "Last-Event-ID", fmt.Sprint(id)))
		}
		s.origin.keepAnswering(20*time.Second, deaf)
		if asked := s.origin.total.Load() - 1; asked != 3*settings.DefaultCatchups {
			t.Errorf("the origin was asked %d times while it did not notice, want %d", asked, 3*settings.DefaultCatchups)
		}
		close(release)
		s.origin.keepAnswering(20*time.Second, deaf)
		for id, c := range all {
			c.expect(primer(fmt.Sprint(id)) + numbered(id+1, 101))
		}
		up.end()
	})
}

// Whatever an upstream waits for, it goes when its last subscriber does.
func TestUpstreamGoesWithItsLastSubscriber(t *testing.T) {
	for name, begin := range map[string]func(*setup, *conn){
		"before the header":   func(*setup, *conn) {},
		"in the header of no": func(_ *setup, c *conn) { c.answer(404) },
		"silent stream":       func(_ *setup, c *conn) { c.accept() },
		"stream":              func(_ *setup, c *conn) { c.accept().events(1, 1) },
		"half an event":       func(_ *setup, c *conn) { c.accept().send(numbered(1, 1) + "data: x") },
		"compressed": func(_ *setup, c *conn) {
			c.answer(200, "Content-Type", "text/event-stream", "Content-Encoding", "gzip")
		},
		"unknown encoding": func(_ *setup, c *conn) {
			c.answer(200, "Content-Type", "text/event-stream", "Content-Encoding", "lzma")
		},
		"in backoff":    func(_ *setup, c *conn) { c.fail(502) },
		"second opened": func(s *setup, c *conn) { c.fail(502); s.origin.await() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, Options{})
				c := s.get("/events")
				begin(s, s.origin.next())
				c.leave()
				time.Sleep(settings.DefaultLinger + 1)
				synctest.Wait()
				if n := s.origin.open.Load(); n != 0 {
					t.Errorf("%d connections to the origin are open, want 0", n)
				}
				asked := s.origin.total.Load()
				time.Sleep(time.Hour)
				if n := s.origin.total.Load(); n != asked {
					t.Errorf("the origin was asked %d times more, for nobody", n-asked)
				}
			})
		})
	}
}

func TestSendableID(t *testing.T) {
	for id, want := range map[string]bool{
		"": false, "1": true, "a b": true, "a\tb": true, "ü€": true, strings.Repeat("x", 5000): true,
		"a\x00": false, "\x01": false, "a\x1fb": false, "a\x7f": false,
	} {
		t.Run(fmt.Sprintf("%.10q", id), func(t *testing.T) {
			if got := relay.SendableID(id); got != want {
				t.Errorf("sendable is %t, want %t", got, want)
			}
		})
	}
}

// Anything but context.Canceled is an error in reverse_proxy's log, and counted
// against the origin by its passive health checks.
func TestSourceIsCancelledPlainly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{IdleTimeout: caddy.Duration(time.Second), Heartbeat: Heartbeat{Interval: -1}})
		s.get("/events")
		up := s.origin.next().accept()
		time.Sleep(2 * time.Second)
		if got := context.Cause(up.request.Context()); got != context.Canceled { //nolint:errorlint // it must be this very error
			t.Errorf("the source was cancelled with %v, want %v", got, context.Canceled)
		}
	})
}
