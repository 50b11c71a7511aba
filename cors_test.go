package ssefanout

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
)

// corsHeader returns what of a response header speaks of CORS, and its Vary.
func corsHeader(header http.Header) http.Header {
	header = header.Clone()
	maps.DeleteFunc(header, func(name string, _ []string) bool {
		return name != "Vary" && !strings.HasPrefix(name, "Access-Control-")
	})
	return header
}

func (c *client) expectCORS(want http.Header) {
	c.t.Helper()
	synctest.Wait()
	if got := corsHeader(c.header); !maps.EqualFunc(got, want, slices.Equal) {
		c.t.Errorf("got %v, want %v", got, want)
	}
}

func TestWithoutCORSOriginsTheOriginDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		allowed := s.get("/events", "Origin", "https://app.example")
		up := s.origin.next()
		if got := up.request.Header.Get("Origin"); got != "https://app.example" {
			t.Errorf("the origin got Origin %q", got)
		}
		up.answer(http.StatusOK, "Content-Type", "text/event-stream",
			"Access-Control-Allow-Origin", "https://app.example",
			"Access-Control-Allow-Credentials", "true", "Vary", "Origin")
		want := http.Header{
			"Access-Control-Allow-Origin":      {"https://app.example"},
			"Access-Control-Allow-Credentials": {"true"},
			"Vary":                             {"Origin"},
		}
		allowed.expectCORS(want)

		also := s.get("/events", "Origin", "https://app.example")
		s.origin.idle()
		also.expectCORS(want)

		another := s.get("/events", "Origin", "https://evil.example")
		s.origin.next().accept()
		another.expectCORS(http.Header{})

		own := s.get("/events")
		s.origin.next().accept()
		own.expectCORS(http.Header{})
	})
}

func TestCORSOriginsDecide(t *testing.T) {
	listed := http.Header{
		"Access-Control-Allow-Origin":      {"https://app.example"},
		"Access-Control-Allow-Credentials": {"true"},
		"Vary":                             {"Origin"},
	}
	unlisted := http.Header{"Vary": {"Origin"}}
	anybody := http.Header{"Access-Control-Allow-Origin": {"*"}, "Vary": {"Origin"}}
	for _, tc := range []struct {
		name   string
		list   []string
		origin string
		want   http.Header
	}{
		{"listed", []string{"https://other.example", "https://app.example"}, "https://app.example", listed},
		{"listed in another case", []string{"https://App.Example"}, "https://app.example", listed},
		{"listed, and all", []string{"https://app.example", "*"}, "https://app.example", listed},
		{"unlisted", []string{"https://app.example"}, "https://evil.example", unlisted},
		{"another scheme", []string{"https://app.example"}, "http://app.example", unlisted},
		{"another port", []string{"https://app.example"}, "https://app.example:8443", unlisted},
		{"a longer host", []string{"https://app.example"}, "https://app.example.evil.example", unlisted},
		{"null", []string{"https://app.example"}, "null", unlisted},
		{"no Origin", []string{"https://app.example"}, "", unlisted},
		{"all", []string{"*"}, "https://app.example", anybody},
		{"all, null", []string{"*"}, "null", anybody},
		{"all, no Origin", []string{"*"}, "", anybody},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, Options{CORSOrigins: tc.list})
				var header []string
				if tc.origin != "" {
					header = []string{"Origin", tc.origin}
				}
				c := s.get("/events", header...)
				up := s.origin.next()
				if got, ok := up.request.Header["Origin"]; ok {
					t.Errorf("the origin got Origin %q", got)
				}
				up.answer(http.StatusOK, "Content-Type", "text/event-stream",
					"Access-Control-Allow-Origin", "https://of-the-origin.example",
					"Access-Control-Expose-Headers", "X-Secret")
				c.expectStatus(http.StatusOK)
				c.expectCORS(tc.want)
			})
		})
	}
}

func TestPagesOfListedOriginsShareATopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{CORSOrigins: []string{"https://a.example", "https://b.example"}})
		a := s.get("/events", "Origin", "https://a.example")
		s.origin.next().answer(http.StatusOK, "Content-Type", "text/event-stream", "Vary", "Accept")
		b := s.get("/events", "Origin", "https://b.example")
		s.origin.idle()
		for _, c := range []struct {
			client *client
			origin string
		}{{a, "https://a.example"}, {b, "https://b.example"}} {
			c.client.expectCORS(http.Header{
				"Access-Control-Allow-Origin":      {c.origin},
				"Access-Control-Allow-Credentials": {"true"},
				"Vary":                             {"Accept", "Origin"},
			})
		}
	})
}

// A page must be able to see every answer that it gets of us, not the stream
// alone.
func TestCORSOriginsDecideForEveryAnswer(t *testing.T) {
	want := http.Header{
		"Access-Control-Allow-Origin":      {"https://app.example"},
		"Access-Control-Allow-Credentials": {"true"},
		"Vary":                             {"Origin"},
	}
	opts := Options{CORSOrigins: []string{"https://app.example"}}
	t.Run("the origin's no", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSetup(t, opts)
			c := s.get("/events", "Origin", "https://app.example")
			s.origin.next().answer(http.StatusForbidden, "Access-Control-Allow-Origin", "https://of-the-origin.example").end()
			c.expectStatus(http.StatusForbidden)
			c.expectCORS(want)
		})
	})
	t.Run("the origin's no that varies", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSetup(t, opts)
			c := s.get("/events", "Origin", "https://app.example")
			s.origin.next().answer(http.StatusForbidden, "Vary", "Accept").end()
			want := want.Clone()
			want["Vary"] = []string{"Accept", "Origin"}
			c.expectCORS(want)
		})
	})
	for _, unavailable := range []string{"hold", "reject"} {
		t.Run("over a limit, "+unavailable, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := opts
				opts.MaxSubscribers.Total = 1
				opts.Unavailable = unavailable
				s := newSetup(t, opts)
				s.get("/events")
				c := s.get("/events", "Origin", "https://app.example")
				c.expectCORS(want)
			})
		})
	}
}

// A browser gives up for good on an answer that does not allow its page, so only
// the origin can let a page of another origin in.
func TestCrossOriginClientsAreNotHeldBeforeTheOriginsWord(t *testing.T) {
	for _, tc := range []struct {
		name   string
		opts   Options
		origin string
		held   bool
	}{
		{"another origin", Options{}, "https://app.example", false},
		{"no origin", Options{}, "null", false},
		{"another port", Options{}, "http://example.com:8080", false},
		{"the same origin", Options{}, "https://Example.com", true},
		{"not a page", Options{}, "", true},
		{"cors_origins", Options{CORSOrigins: []string{"https://app.example"}}, "https://app.example", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, tc.opts)
				var header []string
				if tc.origin != "" {
					header = []string{"Origin", tc.origin}
				}
				c := s.get("http://example.com/events", header...)
				up := s.origin.next()
				time.Sleep(11 * time.Second)
				if tc.held {
					c.expectStatus(http.StatusOK)
					return
				}
				time.Sleep(time.Minute)
				c.expectStatus(0)
				up.answer(http.StatusOK, "Content-Type", "text/event-stream", "Access-Control-Allow-Origin", tc.origin)
				c.expectStatus(http.StatusOK)
				c.expectCORS(http.Header{"Access-Control-Allow-Origin": {tc.origin}})
			})
		})
	}
}

func preflight(header ...string) *http.Request {
	r := httptest.NewRequest(http.MethodOptions, "http://example.com/events", nil)
	r.Header.Set("Origin", "https://app.example")
	r.Header.Set("Access-Control-Request-Method", http.MethodGet)
	for i := 0; i < len(header); i += 2 {
		r.Header.Del(header[i])
		if header[i+1] != "" {
			r.Header.Set(header[i], header[i+1])
		}
	}
	return r
}

// What vary names is meant to be sent.
func TestPreflightsForWhatVaryNamesAreAnswered(t *testing.T) {
	for vary, asks := range map[string]string{
		"Authorization":                     "authorization",
		"X-Api-Key":                         "X-API-KEY, last-event-id",
		"{http.request.header.X-Tenant}":    "x-tenant",
		"{http.request.header.x-tenant-id}": "X-Tenant-Id",
	} {
		for form, make := range map[string]func(*testing.T, Options) *setup{"endpoint": newSetup, "wrapping": newWrappingSetup} {
			t.Run(vary+", "+form, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := make(t, Options{CORSOrigins: []string{"https://app.example"}, Vary: []string{"X-Other", vary}})
					c := s.serve(preflight("Access-Control-Request-Headers", asks))
					c.expectStatus(http.StatusNoContent)
					allowed := strings.Split(strings.ToLower(c.header.Get("Access-Control-Allow-Headers")), ", ")
					for name := range strings.SplitSeq(strings.ToLower(asks), ", ") {
						if !slices.Contains(allowed, name) {
							t.Errorf("%s is not among the allowed headers %q", name, allowed)
						}
					}
					s.serve(preflight("Access-Control-Request-Headers", asks+", x-unknown"))
					if synctest.Wait(); s.pool.stats.Passed.Get(pass.Method) != 1 {
						t.Error("a preflight for another header was answered here")
					}
				})
			})
		}
	}
}

func TestPreflightsForReadingAStreamAreAnswered(t *testing.T) {
	const headers = "Access-Control-Request-Headers"
	list, all := []string{"https://app.example"}, []string{"*"}
	twice := preflight(headers, "last-event-id")
	twice.Header.Add(headers, "authorization")
	for _, tc := range []struct {
		name    string
		origins []string
		request *http.Request
		want    bool
	}{
		{"no headers", list, preflight(), true},
		{"Last-Event-ID", list, preflight(headers, "last-event-id"), true},
		{"all that are harmless", list, preflight(headers, "accept,cache-control, Last-Event-ID"), true},
		{"from anywhere", all, preflight("Origin", "https://elsewhere.example"), true},
		{"from nowhere", all, preflight("Origin", "null"), true},
		{"another origin", list, preflight("Origin", "https://evil.example"), false},
		{"no origin", list, preflight("Origin", ""), false},
		{"no origin, all allowed", all, preflight("Origin", ""), false},
		{"another header", list, preflight(headers, "authorization"), false},
		{"another header among others", all, preflight(headers, "last-event-id,x-api-key"), false},
		{"another header in a second field", all, twice, false},
		{"POST", list, preflight("Access-Control-Request-Method", "POST"), false},
		{"HEAD", list, preflight("Access-Control-Request-Method", "HEAD"), false},
		{"no preflight", list, preflight("Access-Control-Request-Method", ""), false},
		{"no cors_origins", nil, preflight(), false},
	} {
		for form, make := range map[string]func(*testing.T, Options) *setup{"endpoint": newSetup, "wrapping": newWrappingSetup} {
			t.Run(tc.name+", "+form, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := make(t, Options{CORSOrigins: tc.origins})
					c := s.serve(tc.request)
					asked := len(s.origin.conns) > 0 || s.passed.Load() > 0
					counted := s.pool.stats.Passed.Get(pass.Method) > 0
					if asked == tc.want || counted == tc.want {
						t.Fatalf("passed %t, counted %t, want %t", asked, counted, !tc.want)
					}
					if !tc.want {
						return
					}
					c.expectStatus(http.StatusNoContent)
					want := http.Header{
						"Access-Control-Allow-Origin":  {tc.request.Header.Get("Origin")},
						"Access-Control-Allow-Methods": {"GET"},
						"Access-Control-Allow-Headers": {"Last-Event-Id, Cache-Control, Accept"},
						"Access-Control-Max-Age":       {"86400"},
						"Vary":                         {"Origin"},
					}
					if slices.Equal(tc.origins, all) {
						want.Set("Access-Control-Allow-Origin", "*")
					} else {
						want.Set("Access-Control-Allow-Credentials", "true")
					}
					c.expectCORS(want)
				})
			})
		}
	}
}

// An empty stream without the header that lets the page read it would be an
// error for good.
func TestCrossOriginClientThatIsTurnedAwayIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{MaxSubscribers: SubscriberLimits{Total: 1}})
		s.get("/events")
		c := s.get("/events", "Origin", "https://other.example")
		if !c.ended() || c.panic != any(http.ErrAbortHandler) {
			t.Errorf("ended %t, panic %v, want http.ErrAbortHandler", c.ended(), c.panic)
		}
		c.expectStatus(0)
	})
}
