package ssefanout

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
)

// What a trusted proxy says of how it was asked decides what is shared, and the origin
// gets it.
func TestWhatATrustedProxySays(t *testing.T) {
	for name, value := range map[string]string{
		"X-Forwarded-Proto": "https", "X-Forwarded-Host": "a.example", "X-Forwarded-Port": "8443",
		"X-Forwarded-Prefix": "/a", "X-Forwarded-Scheme": "https", "X-Forwarded-Ssl": "on", "Forwarded": "for=198.51.100.7;host=a.example",
	} {
		for form, make := range map[string]func(*testing.T, Options) *setup{"endpoint": newSetup, "wrapping": newWrappingSetup} {
			t.Run(name+", "+form, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := make(t, Options{})
					get := func(trusted bool) *client {
						return s.serveAfter(streamRequest(name, value), func(r *http.Request) {
							if inquiryOf(r) == nil {
								caddyhttp.SetVar(r.Context(), caddyhttp.TrustedProxyVarKey, trusted)
							}
						})
					}
					s.get("/events")
					s.origin.next().accept().events(1, 1)
					get(false)
					if form == "wrapping" && name != "X-Forwarded-Proto" && name != "X-Forwarded-Host" {
						s.origin.next().accept().events(1, 1) // an application may believe it
					}
					s.origin.idle()
					get(true)
					up := s.origin.next().accept().events(1, 1)
					want := value
					if name == "Forwarded" {
						want = "host=a.example"
					}
					if got := up.request.Header.Get(name); got != want {
						t.Errorf("the origin got %s %q, want %q", name, got, want)
					}
					get(true).expectServed()
					s.origin.idle()
				})
			})
		}
	}
}

// What ignore_query names makes no topics, and the origin of a shared request does not
// see it.
func TestIgnoredQueryParameters(t *testing.T) {
	for form, make := range map[string]func(*testing.T, Options) *setup{"endpoint": newSetup, "wrapping": newWrappingSetup} {
		t.Run(form, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := make(t, Options{IgnoreQuery: []string{"_", "cache buster"}})
				s.get("/events?room=7&_=1")
				up := s.origin.next()
				if got := up.request.URL.RequestURI(); got != "/events?room=7" {
					t.Errorf("the origin was asked for %s, want /events?room=7", got)
				}
				up.accept().events(1, 1)
				for _, other := range []string{"/events?_=2&room=7", "/events?room=7&%5F=3&cache+buster=4", "/events?room=7&_", "/events?room=7"} {
					s.get(other).expectServed()
				}
				s.origin.idle()
				for _, other := range []string{"/events?room=7&__=1", "/events?room=8&_=1", "/events?_=1"} {
					s.get(other)
					s.origin.next().accept().events(1, 1)
				}
				s.get("/events").expectServed() // as without a query
				s.origin.idle()
			})
		})
	}
}

// unusableIDs are ids that the origin cannot be asked with, as queries.
var unusableIDs = map[string]string{
	"too long": "lastEventId=" + strings.Repeat("x", relay.MaxLastEventID+1),
	"NUL":      "lastEventId=a%00b",
	"CR":       "lastEventId=a%0Did:b",
	"LF":       "lastEventId=a%0Aid:b",
	"LF alone": "last_event_id=%0A",
	"control":  "Last-Event-ID=%1F",
	"DEL":      "lastEventID=x%7F",
}

// A client with such an id has had something: it is told of a gap, whatever the topic
// is doing, and is given back nothing of it.
func TestUnusableLastEventIDIsAGapAndCounted(t *testing.T) {
	for name, query := range unusableIDs {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, Options{})
				const atNone = ": sse_fanout\nretry: 3000\nid: \n" + gapComment
				cold := s.get("/events?" + query)
				up := s.origin.next().expectResumedWith("no id").accept()
				cold.expect(atNone)
				up.events(1, 1)
				cold.expect(numbered(1, 1))
				s.get("/events?" + query).expect(gapPrimer("1") + gapComment)
				up.abort()
				s.get("/events?" + query).expect(gapPrimer("1") + gapComment)
				s.origin.await().expectResumedWith("id 1")
				if got := s.pool.stats.IgnoredIDs.Load(); got != 3 {
					t.Errorf("counted %d unusable ids, want 3", got)
				}
				if got := s.pool.stats.Gaps.Load(); got != 3 {
					t.Errorf("counted %d gaps, want 3", got)
				}
			})
		})
	}
}

// A misspelt placeholder is empty for everybody, so that all users share.
func TestUnknownPlaceholderIsWarnedOfOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{Vary: []string{"{http.auth.user.idd}", "{http.auth.user.id}", "{http.request.cookie.a}", "{http.vars.a}", "X-A"}})
		visit := func(user string) {
			s.serveAfter(streamRequest(), func(r *http.Request) {
				if user != "" {
					request.ReplacerOf(r).Set("http.auth.user.id", user)
				}
			})
		}
		warned := func() (names []string) {
			for _, line := range s.logs.FilterLevelExact(zapcore.WarnLevel).All() {
				if hint, _ := line.ContextMap()["hint"].(string); strings.Contains(hint, "spelling") {
					names = append(names, line.ContextMap()["placeholder"].(string))
				}
			}
			return names
		}
		visit("alice")
		visit("bob")
		if got := warned(); !slices.Equal(got, []string{"{http.auth.user.idd}"}) {
			t.Errorf("warned of %q, want the misspelt one, once", got)
		}
		visit("")
		visit("")
		if got := warned(); !slices.Equal(got, []string{"{http.auth.user.idd}", "{http.auth.user.id}"}) {
			t.Errorf("warned of %q, want the one that was not set, too, once", got)
		}
	})
}

func TestUnknownPlaceholderCostsNothingOnceItIsTold(t *testing.T) {
	r := caddyhttp.PrepareRequest(streamRequest(), caddy.NewReplacer(), httptest.NewRecorder(), new(caddyhttp.Server))
	allocations := func(vary ...string) float64 {
		h := &Handler{Options: Options{Vary: vary}, instance: instance{source: new(spy), logger: zap.NewNop()}}
		h.settings = settingsOf(t, h)
		return testing.AllocsPerRun(100, func() { h.newTopicRequest(r) })
	}
	if got, want := allocations("{http.auth.user.idd}"), allocations(); got != want {
		t.Errorf("a request costs %v allocations, want %v, as without vary", got, want)
	}
}

// R1: what the origin sees is a function of the topic key alone.
func TestOriginSeesTheSameRequestWhateverTheClient(t *testing.T) {
	clients := map[string]func() *http.Request{
		"bare": func() *http.Request { return streamRequest() },
		"credentials": func() *http.Request {
			return streamRequest("Cookie", "a=1", "Authorization", "Bearer 1", "X-Forwarded-User", "alice")
		},
		"headers": func() *http.Request {
			return streamRequest("User-Agent", "Mozilla", "Accept-Language", "de", "Accept-Encoding", "br",
				"X-Forwarded-For", "203.0.113.7", "X-Forwarded-Host", "other", "Forwarded", "host=other",
				"If-None-Match", `"1"`, "Referer", "https://example.com/secret", "Traceparent", "00-1-1-01")
		},
		"Accept": func() *http.Request {
			r := streamRequest()
			r.Header["Accept"] = []string{"*/*", "text/html"}
			return r
		},
		"address": func() *http.Request {
			r := streamRequest()
			r.RemoteAddr = "[2001:db8::1]:4711"
			return r
		},
		"host case": func() *http.Request {
			r := streamRequest()
			r.Host = "EXAMPLE.com"
			return r
		},
		"absolute URI": func() *http.Request {
			r := streamRequest()
			r.URL, _ = url.Parse("http://alice:secret@elsewhere/events#there")
			r.RequestURI = r.URL.String()
			return r
		},
		"protocol": func() *http.Request {
			r := streamRequest()
			r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
			return r
		},
		"variables": func() *http.Request { return streamRequest("X-Variable", "alice") },
	}
	seen := func(t *testing.T, client *http.Request) (seen *http.Request, values [3]string) {
		synctest.Test(t, func(t *testing.T) {
			s := newSetup(t, Options{})
			s.serveAfter(client, func(r *http.Request) {
				if value := r.Header.Get("X-Variable"); value != "" {
					caddyhttp.SetVar(r.Context(), "user", value)
					r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer).Set("http.auth.user.id", value)
				}
			})
			seen = s.origin.next().request
			repl := seen.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
			for i, name := range []string{"http.auth.user.id", "http.vars.user", "http.vars.client_ip"} {
				values[i] = repl.ReplaceAll("{"+name+"}", "")
			}
		})
		return seen, values
	}
	want, wantValues := seen(t, clients["bare"]())
	for name, client := range clients {
		t.Run(name, func(t *testing.T) {
			got, values := seen(t, client())
			if !maps.EqualFunc(got.Header, want.Header, slices.Equal) {
				t.Errorf("got header %v, want %v", got.Header, want.Header)
			}
			for _, field := range []struct{ name, got, want string }{
				{"method", got.Method, want.Method},
				{"host", got.Host, want.Host},
				{"URL", got.URL.String(), want.URL.String()},
				{"request URI", got.RequestURI, want.RequestURI},
				{"address", got.RemoteAddr, want.RemoteAddr},
				{"protocol", got.Proto, want.Proto},
			} {
				if field.got != field.want {
					t.Errorf("%s: got %q, want %q", field.name, field.got, field.want)
				}
			}
			if values != wantValues {
				t.Errorf("variables: got %q, want %q", values, wantValues)
			}
		})
	}
}

func TestUpstreamRequestIsOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{Catchup: noCatchup})
		s.get("http://example.com/events?a=1&lastEventId=7", "Accept-Encoding", "br", "User-Agent", "Mozilla")
		r := s.origin.next().request
		want := http.Header{
			"Accept":          {"text/event-stream"},
			"Accept-Encoding": {"identity"},
			"Cache-Control":   {"no-cache"},
			"User-Agent":      {"caddy-sse-fanout"},
			"Last-Event-Id":   {"7"},
		}
		if !maps.EqualFunc(r.Header, want, slices.Equal) {
			t.Errorf("got header %v, want %v", r.Header, want)
		}
		if r.Host != "example.com" || r.RequestURI != "/events?a=1&lastEventId=7" || r.RemoteAddr != "192.0.2.1:1" {
			t.Errorf("got %s%s from %s, want example.com/events?a=1&lastEventId=7 from 192.0.2.1:1", r.Host, r.RequestURI, r.RemoteAddr)
		}
	})
}

func TestVarySeparatesOverSockets(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, "sse_fanout "+origin.addr+" {\nvary X-Tenant\n}")
	for range 3 {
		for _, tenant := range []string{"a", "b"} {
			open(t, s.client, s.url+"/events", "X-Tenant", tenant, "Cookie", "session="+tenant)
		}
	}
	asked := origin.asked()
	if len(asked) != 2 {
		t.Fatalf("the origin was asked %d times, want 2", len(asked))
	}
	for i, tenant := range []string{"a", "b"} {
		if got := asked[i].Header; got.Get("X-Tenant") != tenant || got.Get("Cookie") != "" {
			t.Errorf("the origin got X-Tenant %q and Cookie %q", got.Get("X-Tenant"), got.Get("Cookie"))
		}
	}
}
