package ssefanout

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/observe"
	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
)

const shared = pass.Reason("shared") // in these tests: did not pass

// fate serves a request and says whether it was shared, or why it passed.
func (s *setup) fate(r *http.Request) pass.Reason {
	s.t.Helper()
	reasons := []pass.Reason{
		pass.Method, pass.Body, pass.Upgrade, pass.ErrorRoute,
		pass.Accept, pass.Certificate, pass.Header, pass.NotStream, pass.Refused,
	}
	before := make(map[pass.Reason]uint64)
	for _, why := range reasons {
		before[why] = s.pool.stats.Passed.Get(why)
	}
	client := s.serve(r)
	synctest.Wait()
	client.leave()

	fate := shared
	for _, why := range reasons {
		switch n := s.pool.stats.Passed.Get(why) - before[why]; {
		case n == 1 && fate == shared:
			fate = why
		case n != 0:
			s.t.Errorf("passing one request counted %d for %s", n, why)
		}
	}
	if asked := len(s.origin.conns) == 1 && s.origin.next().request.RemoteAddr == s.handler.settings.Stranger; asked != (fate == shared) {
		s.t.Errorf("fate is %q, but a shared request was made: %t", fate, asked)
	}
	return fate
}

// streamRequest is a browser's request for an event stream, with header pairs.
func streamRequest(header ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "http://example.com/events", nil)
	asBrowser(r)
	addHeader(r, header)
	return r
}

func withCertificate(r *http.Request) *http.Request {
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte("alice")}}}
	return r
}

// inErrorRoute is a request as the routes of handle_errors see it.
func inErrorRoute(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), caddyhttp.ErrorCtxKey, errors.New("of an earlier handler")))
}

func requestWith(method, body string, header ...string) *http.Request {
	r := streamRequest(header...)
	r.Method = method
	if body != "" {
		r.Body = io.NopCloser(strings.NewReader(body))
		r.ContentLength = int64(len(body))
	}
	return r
}

func chunkedRequest() *http.Request {
	r := requestWith(http.MethodGet, "body")
	r.ContentLength = -1
	r.TransferEncoding = []string{"chunked"}
	return r
}

// http3Request is a request as quic-go hands it over: it never knows whether a
// body comes unless the client has announced its length.
func http3Request(body string) *http.Request {
	r := streamRequest()
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/3.0", 3, 0
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), -1
	return r
}

func withVersion(major, minor int, r *http.Request) *http.Request {
	r.Proto, r.ProtoMajor, r.ProtoMinor = fmt.Sprintf("HTTP/%d.%d", major, minor), major, minor
	return r
}

func TestWhatIsSharedAndWhatPasses(t *testing.T) {
	type forms struct{ endpoint, wrapping pass.Reason }
	both := func(why pass.Reason) forms { return forms{why, why} }
	stripped := func(why pass.Reason) forms { return forms{shared, why} }

	browser := []string{
		"Accept-Encoding", "gzip, deflate, br, zstd",
		"Accept-Language", "de,en;q=0.7",
		"Cache-Control", "no-cache",
		"Connection", "keep-alive",
		"Dnt", "1",
		"Last-Event-Id", "7",
		"Pragma", "no-cache",
		"Priority", "u=4",
		"Referer", "https://example.com/",
		"Sec-Ch-Ua", `"Chromium";v="140"`,
		"Sec-Ch-Ua-Mobile", "?0",
		"Sec-Ch-Ua-Platform", `"Linux"`,
		"Sec-Fetch-Dest", "empty",
		"Sec-Fetch-Mode", "cors",
		"Sec-Fetch-Site", "same-origin",
		"Sec-Gpc", "1",
		"User-Agent", "Mozilla/5.0 (X11; Linux x86_64)",
	}
	network := []string{
		"B3", "0",
		"Cdn-Loop", "cloudflare",
		"Cf-Connecting-Ip", "203.0.113.7",
		"Cf-Ray", "230b030023ae2822-SJC",
		"Forwarded", "for=203.0.113.7",
		"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"Via", "1.1 proxy",
		"X-Amzn-Trace-Id", "Root=1",
		"X-B3-Traceid", "1",
		"X-Forwarded-For", "203.0.113.7",
		"X-Forwarded-Host", "example.com",
		"X-Forwarded-Proto", "https",
		"X-Real-Ip", "203.0.113.7",
		"X-Request-Id", "1",
	}
	tests := []struct {
		name    string
		request *http.Request
		want    forms
	}{
		{"a browser's EventSource", streamRequest(browser...), both(shared)},
		{"what a network adds", streamRequest(network...), both(shared)},
		{"If-None-Match", streamRequest("If-None-Match", `"1"`), both(shared)},
		{"If-Modified-Since", streamRequest("If-Modified-Since", "Mon, 02 Jan 2006 15:04:05 GMT"), both(shared)},
		{"If-Range without Range", streamRequest("If-Range", `"1"`), both(shared)},

		{"HEAD", requestWith(http.MethodHead, ""), both(pass.Method)},
		{"POST", requestWith(http.MethodPost, "body"), both(pass.Method)},
		{"OPTIONS", requestWith(http.MethodOptions, ""), both(pass.Method)},
		{"a WebSocket", streamRequest("Connection", "keep-alive, upgrade", "Upgrade", "WebSocket"), both(pass.Upgrade)},
		{"Upgrade to nothing", streamRequest("Connection", "Upgrade", "Upgrade", ""), both(shared)},
		{"Upgrade to anything", streamRequest("Connection", "Upgrade", "Upgrade", "x"), both(shared)},
		{"Upgrade to HTTP/2", streamRequest("Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "HTTP2-Settings", "AAMAAABkAAQ"), both(shared)},
		{"Range", streamRequest("Range", "bytes=0-"), both(shared)},
		{"Range and If-Range", streamRequest("Range", "bytes=0-0,-1", "If-Range", `"1"`), both(shared)},
		{"Range that is none", streamRequest("Range", "x"), both(shared)},
		{"error route", inErrorRoute(streamRequest()), both(pass.ErrorRoute)},

		{"client certificate", withCertificate(streamRequest()), stripped(pass.Certificate)},
		{"Cookie", streamRequest("Cookie", "session=1"), stripped(pass.Header)},
		{"Authorization", streamRequest("Authorization", "Bearer 1"), stripped(pass.Header)},
		{"Proxy-Authorization", streamRequest("Proxy-Authorization", "Basic 1"), stripped(pass.Header)},
		{"X-Api-Key", streamRequest("X-Api-Key", "1"), stripped(pass.Header)},
		{"X-Csrf-Token", streamRequest("X-Csrf-Token", "1"), stripped(pass.Header)},
		{"X-Forwarded-User", streamRequest("X-Forwarded-User", "alice"), stripped(pass.Header)},
		{"X-Forwarded-Email", streamRequest("X-Forwarded-Email", "alice"), stripped(pass.Header)},
		{"X-Forwarded-Client-Cert", streamRequest("X-Forwarded-Client-Cert", "Subject=1"), stripped(pass.Header)},
		{"Cf-Access-Jwt-Assertion", streamRequest("Cf-Access-Jwt-Assertion", "1"), stripped(pass.Header)},
		{"Cf-Client-Cert-Sha256", streamRequest("Cf-Client-Cert-Sha256", "1"), stripped(pass.Header)},
		{"Cf-Cert-Subject-Dn", streamRequest("Cf-Cert-Subject-Dn", "1"), stripped(pass.Header)},
		{"Cloudfront-Viewer-Cert-Subject", streamRequest("Cloudfront-Viewer-Cert-Subject", "1"), stripped(pass.Header)},
		{"Cf-Access-Authenticated-User-Email", streamRequest("Cf-Access-Authenticated-User-Email", "a"), stripped(pass.Header)},
		{"X-Amzn-Oidc-Data", streamRequest("X-Amzn-Oidc-Data", "1"), stripped(pass.Header)},
		{"X-Goog-Iap-Jwt-Assertion", streamRequest("X-Goog-Iap-Jwt-Assertion", "1"), stripped(pass.Header)},
		{"X-Ms-Client-Principal", streamRequest("X-Ms-Client-Principal", "1"), stripped(pass.Header)},
		{"Remote-User", streamRequest("Remote-User", "alice"), stripped(pass.Header)},
		{"Tailscale-User-Login", streamRequest("Tailscale-User-Login", "alice"), stripped(pass.Header)},
		{"Sec-Websocket-Protocol", streamRequest("Sec-Websocket-Protocol", "token"), stripped(pass.Header)},
		{"an unknown header", streamRequest("X-Anything", "1"), stripped(pass.Header)},
		{"an empty unknown header", streamRequest("X-Anything", ""), stripped(pass.Header)},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			for _, form := range []struct {
				name string
				make func(*testing.T, Options) *setup
				opts Options
				want pass.Reason
			}{
				{"endpoint", newSetup, Options{}, tc.want.endpoint},
				{"wrapping", newWrappingSetup, Options{}, tc.want.wrapping},
				{"wrapping, stripping", newWrappingSetup, Options{Credentials: "strip"}, tc.want.endpoint},
				{"endpoint, passing", newSetup, Options{Credentials: "pass"}, tc.want.wrapping},
			} {
				t.Run(form.name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						if got := form.make(t, form.opts).fate(tc.request); got != form.want {
							t.Errorf("got %s, want %s", got, form.want)
						}
					})
				})
			}
		})
	}
}

// A GET in the endpoint form is for a stream, whatever comes with it. In the wrapping
// form, it may be a query that is asked by its body.
func TestBodyOfAGETMattersInTheWrappingForm(t *testing.T) {
	for name, r := range map[string]func() *http.Request{
		"of a known length":   func() *http.Request { return requestWith(http.MethodGet, "b") },
		"of unknown length":   chunkedRequest,
		"over HTTP/2":         func() *http.Request { return withVersion(2, 0, chunkedRequest()) },
		"over HTTP/3":         func() *http.Request { return http3Request("body") },
		"announced, not sent": func() *http.Request { return announcing(1, new(neverSent)) },
	} {
		for _, form := range []struct {
			name string
			make func(*testing.T, Options) *setup
			opts Options
			want pass.Reason
		}{
			{"endpoint", newSetup, Options{}, shared},
			{"endpoint, passing", newSetup, Options{Credentials: "pass"}, shared},
			{"wrapping", newWrappingSetup, Options{}, pass.Body},
			{"wrapping, stripping", newWrappingSetup, Options{Credentials: "strip"}, pass.Body},
		} {
			t.Run(name+", "+form.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					if got := form.make(t, form.opts).fate(r()); got != form.want {
						t.Errorf("got %s, want %s", got, form.want)
					}
				})
			})
		}
	}
}

// neverSent is a body that must not be read: it would take for ever.
type neverSent struct{}

func (*neverSent) Read([]byte) (int, error) { select {} }
func (*neverSent) Close() error             { return nil }

func announcing(length int64, body io.ReadCloser) *http.Request {
	r := streamRequest()
	r.Body, r.ContentLength = body, length
	return r
}

// A site may have a matcher behind the wrapping form for all that names a WebSocket.
func TestWhatOnlyLooksLikeAWebSocketPassesInTheWrappingForm(t *testing.T) {
	for _, tc := range []struct {
		name    string
		request *http.Request
	}{
		{"a WebSocket over HTTP/1.0", withVersion(1, 0, streamRequest("Connection", "Upgrade", "Upgrade", "websocket"))},
		{"Upgrade over HTTP/2", withVersion(2, 0, streamRequest("Connection", "Upgrade", "Upgrade", "websocket"))},
		{"Upgrade without Connection", streamRequest("Upgrade", "websocket")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, credentials := range []string{"", "strip"} {
					if got := newWrappingSetup(t, Options{Credentials: credentials}).fate(tc.request); got != pass.Upgrade {
						t.Errorf("wrapping form: got %s, want %s", got, pass.Upgrade)
					}
				}
				if got := newSetup(t, Options{}).fate(tc.request); got != shared {
					t.Errorf("endpoint form: got %s, want %s", got, shared)
				}
			})
		})
	}
}

func TestAcceptDecidesInTheWrappingForm(t *testing.T) {
	for _, tc := range []struct {
		name   string
		accept []string
		want   bool
	}{
		{"named", []string{"text/event-stream"}, true},
		{"another case", []string{"Text/Event-Stream"}, true},
		{"before others", []string{"application/json;q=0.4, text/event-stream;q=0.5, */*;q=0.1"}, true},
		{"before others, in a second field", []string{"text/html;q=0.999", "text/event-stream"}, true},
		{"with an empty item", []string{"text/event-stream, ,"}, true},
		{"behind others", []string{"application/json, text/event-stream;q=0.5, */*;q=0.1"}, false},
		{"beside others", []string{"application/json, text/event-stream"}, false},
		{"beside others, in a second field", []string{"text/html", "text/event-stream"}, false},
		{"beside a wildcard", []string{"text/event-stream, */*"}, false},
		{"with a weight that is none", []string{"text/event-stream;q=high"}, false},
		{"before a weight that is none", []string{"text/event-stream;q=0.1, */*;q=NaN"}, false},
		{"with a parameter", []string{"text/event-stream; charset=utf-8"}, true},
		{"with a small weight", []string{"text/event-stream;q=0.001"}, true},
		{"with a weight of one", []string{"text/event-stream ; Q=1.000"}, true},
		{"refused", []string{"text/event-stream;q=0"}, false},
		{"refused at length", []string{"text/html, text/event-stream; charset=utf-8; q=0.000"}, false},
		{"refused, another case", []string{"text/event-stream; Q=0."}, false},
		{"wildcard", []string{"*/*"}, false},
		{"wildcard of the type", []string{"text/*"}, false},
		{"a page load", []string{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}, false},
		{"a longer name", []string{"text/event-streams"}, false},
		{"as a parameter", []string{"text/html;type=text/event-stream"}, false},
		{"empty", []string{""}, false},
		{"absent", nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				want := shared
				if !tc.want {
					want = pass.Accept
				}
				r := streamRequest()
				r.Header["Accept"] = tc.accept
				if got := newWrappingSetup(t, Options{}).fate(r); got != want {
					t.Errorf("wrapping form: got %s, want %s", got, want)
				}
				if got := newSetup(t, Options{}).fate(r); got != shared {
					t.Errorf("endpoint form: got %s, want %s", got, shared)
				}
			})
		})
	}
}

// A spy is a handler that keeps what it was called with.
type spy struct {
	w http.ResponseWriter
	r *http.Request
}

func (s *spy) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	s.w, s.r = w, r
	w.Header().Set("X-Behind", "us")
	w.WriteHeader(http.StatusTeapot)
	_, _ = io.Copy(w, r.Body)
	return errors.New("of the handler behind")
}

func TestPassingChangesNothing(t *testing.T) {
	requests := map[string]func() *http.Request{
		"HEAD": func() *http.Request { return requestWith(http.MethodHead, "", "Cookie", "a=1", "If-Match", "*") },
		"POST": func() *http.Request { return requestWith(http.MethodPost, "some body", "Last-Event-Id", "7") },
		"HTTP/3": func() *http.Request {
			r := http3Request("some body")
			r.Method = http.MethodPost
			return r
		},
		"DELETE":  func() *http.Request { return requestWith(http.MethodDelete, "some body", "Authorization", "Bearer 1") },
		"Upgrade": func() *http.Request { return streamRequest("Connection", "Upgrade", "Upgrade", "websocket") },
		"Range": func() *http.Request {
			return requestWith(http.MethodPut, "some body", "Range", "bytes=0-", "If-Range", `"1"`)
		},
		"error route": func() *http.Request { return inErrorRoute(streamRequest("Cookie", "a=1")) },
	}
	for name, make := range requests {
		for _, form := range []string{"endpoint", "endpoint, limited", "wrapping", "wrapping, limited"} {
			t.Run(name+", "+form, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					opts := Options{CORSOrigins: []string{"*"}}
					form, limited := strings.CutSuffix(form, ", limited")
					if limited {
						opts.MaxSubscribers = SubscriberLimits{Total: 1, PerClientIP: 1}
					}
					behind := new(spy)
					var s *setup
					var next caddyhttp.Handler
					if form == "endpoint" {
						s = newSetup(t, opts)
						s.handler.source = behind
					} else {
						s = newWrappingSetup(t, opts)
						next = caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
							return behind.ServeHTTP(w, r, nil)
						})
					}
					w := httptest.NewRecorder()
					r := caddyhttp.PrepareRequest(make(), caddy.NewReplacer(), w, new(caddyhttp.Server))
					header, url, ctx := r.Header.Clone(), *r.URL, r.Context()
					want, _ := io.ReadAll(make().Body)

					err := s.handler.ServeHTTP(w, r, next)
					if err == nil || err.Error() != "of the handler behind" {
						t.Errorf("got error %v, want that of the handler behind", err)
					}
					if under := behind.w.(interface{ Unwrap() http.ResponseWriter }).Unwrap(); under != http.ResponseWriter(w) || behind.r != r {
						t.Error("the handler behind got another request or response writer")
					}
					if r.Context() != ctx || ctx.Err() != nil {
						t.Error("the request's context has changed, or is over")
					}
					if !maps.EqualFunc(r.Header, header, slices.Equal) || *r.URL != url {
						t.Errorf("got header %v and URL %v, want %v and %v", r.Header, r.URL, header, &url)
					}
					if got := w.Body.String(); got != string(want) || w.Code != http.StatusTeapot {
						t.Errorf("got status %d and body %q, want %d and %q", w.Code, got, http.StatusTeapot, want)
					}
					if got, want := w.Header(), (http.Header{"X-Behind": {"us"}}); !maps.EqualFunc(got, want, slices.Equal) {
						t.Errorf("got response header %v, want %v", got, want)
					}
				})
			})
		}
	}
}

// What the origin answers to the shared request is never shown in the wrapping
// form, and must leave no trace in the answer that passes instead.
func TestPassingAfterTheOriginsAnswerChangesNothing(t *testing.T) {
	for _, tc := range []struct {
		name   string
		status int
		header []string
		why    pass.Reason
	}{
		{"not a stream", http.StatusOK, []string{"Content-Type", "text/html", "X-Shared", "1"}, pass.NotStream},
		{"forbidden", http.StatusForbidden, []string{"X-Shared", "1"}, pass.Refused},
		{"redirected", http.StatusFound, []string{"Location", "/login"}, pass.Refused},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newWrappingSetup(t, Options{CORSOrigins: []string{"https://example.com"}})
				c := s.get("/events", "Origin", "https://example.com")
				s.origin.next().answer(tc.status, tc.header...).end()
				c.expectStatus(http.StatusOK)
				c.expectBody("passed ")
				if len(c.header) != 0 {
					t.Errorf("got response header %v, want none", c.header)
				}
				if got := s.pool.stats.Passed.Get(tc.why); got != 1 {
					t.Errorf("counted %d for %s, want 1", got, tc.why)
				}
			})
		})
	}
}

func TestVarySharesPerValue(t *testing.T) {
	for _, tc := range []struct{ name, vary, header string }{
		{"Cookie", "Cookie", "Cookie"},
		{"X-Api-Key", "x-api-key", "X-Api-Key"},
		{"a harmless header", "Accept-Language", "Accept-Language"},
	} {
		for form, make := range map[string]func(*testing.T, Options) *setup{"endpoint": newSetup, "wrapping": newWrappingSetup} {
			t.Run(tc.name+", "+form, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := make(t, Options{Vary: []string{tc.vary}})
					alice := s.get("/events", tc.header, "alice")
					up := s.origin.next().accept()
					if got := up.request.Header.Get(tc.header); got != "alice" {
						t.Errorf("the origin got %q, want %q", got, "alice")
					}
					alsoAlice := s.get("/events", tc.header, "alice")
					s.origin.idle()
					bob := s.get("/events", tc.header, "bob")
					s.origin.next().accept().events(2, 2)
					up.events(1, 1)
					alice.expect(primer("") + numbered(1, 1))
					alsoAlice.expect(primer("") + numbered(1, 1))
					bob.expect(primer("") + numbered(2, 2))
				})
			})
		}
	}
}

func TestVaryByCertificateSharesPerCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{Vary: []string{"{http.request.tls.client.fingerprint}"}})
		if got := s.fate(withCertificate(streamRequest())); got != shared {
			t.Errorf("got %s, want %s", got, shared)
		}
		if got := s.fate(withCertificate(streamRequest("Cookie", "a=1"))); got != pass.Header {
			t.Errorf("with a cookie: got %s, want %s", got, pass.Header)
		}
	})
}

func TestStrippedCredentialsDoNotSeparate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{Credentials: "strip"})
		s.get("/events", "Cookie", "session=1")
		up := s.origin.next().accept()
		s.get("/events", "Cookie", "session=2", "Authorization", "Bearer 1")
		s.origin.idle()
		for _, name := range []string{"Cookie", "Authorization"} {
			if got := up.request.Header.Get(name); got != "" {
				t.Errorf("the origin got %s: %s", name, got)
			}
		}
	})
}

func TestHintIsLoggedOncePerReasonAndHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		for range 3 {
			s.fate(streamRequest("X-Api-Key", "secret"))
			s.fate(streamRequest("Cookie", "secret"))
			s.fate(withCertificate(streamRequest()))
			s.fate(requestWith(http.MethodPost, ""))
		}
		lines := s.hints()
		if len(lines) != 3 {
			t.Fatalf("got %d lines, want one for each header and one for the certificate", len(lines))
		}
		for i, want := range []map[string]any{
			{"reason": "header", "header": "X-Api-Key"},
			{"reason": "header", "header": "Cookie"},
			{"reason": "client_cert", "header": nil},
		} {
			for name, value := range want {
				if got := lines[i][name]; got != value {
					t.Errorf("line %d: %s is %v, want %v", i, name, got, value)
				}
			}
			hint, _ := lines[i]["hint"].(string)
			if !strings.Contains(hint, "vary") || !strings.Contains(hint, "credentials strip") {
				t.Errorf("line %d does not say how to change it: %q", i, hint)
			}
		}
	})
}

// Of a request with several, the operator gets to know all in the end.
func TestHintsNameEveryHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		for range 100 {
			s.fate(streamRequest("X-Api-Key", "1", "Cookie", "1"))
		}
		if got := len(s.hints()); got != 2 {
			t.Errorf("got %d lines, want 2", got)
		}
	})
}

// The names are the clients' choice.
func TestHintsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		s.fate(streamRequest("X-"+strings.Repeat("x", 1000), "1"))
		if got := len(s.hints()); got != 0 {
			t.Errorf("got %d lines for a name that nobody has chosen for a header, want none", got)
		}
		for i := range 2 * observe.MaxNotices {
			s.fate(streamRequest(fmt.Sprint("X-", i), "1"))
		}
		if got := len(s.hints()); got != observe.MaxNotices {
			t.Errorf("got %d lines, want %d", got, observe.MaxNotices)
		}
		s.fate(withCertificate(streamRequest()))
		if got := len(s.hints()); got != observe.MaxNotices+1 {
			t.Error("the names of headers have left no line for a certificate")
		}
	})
}

// The second request comes while the line for the first is being written.
func TestHintIsLoggedOnceForRequestsAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		write := make(chan struct{})
		s.handler.logger = zap.New(zapcore.RegisterHooks(s.handler.logger.Core(), func(zapcore.Entry) error {
			<-write
			return nil
		}))
		s.get("/events", "Cookie", "a=1")
		s.get("/events", "Cookie", "a=2")
		close(write)
		synctest.Wait()
		if got := len(s.hints()); got != 1 {
			t.Errorf("got %d lines, want 1", got)
		}
	})
}

func TestRefusalForWantOfCredentialsIsExplainedOnce(t *testing.T) {
	cookie, token := []string{"Cookie", "secret"}, []string{"Authorization", "secret"}
	for _, tt := range []struct {
		name   string
		make   func(*testing.T, Options) *setup
		opts   Options
		status int
		header []string
		want   any // header that is named
	}{
		{"cookie", newSetup, Options{}, 401, cookie, "Cookie"},
		{"token", newSetup, Options{}, 403, token, "Authorization"},
		{"both", newSetup, Options{}, 401, slices.Concat(cookie, token), "Authorization"},
		{"one that is sent", newSetup, Options{Vary: []string{"authorization"}}, 401, slices.Concat(cookie, token), "Cookie"},
		{"all that are sent", newSetup, Options{Vary: []string{"Cookie"}}, 401, cookie, nil},
		{"sent by a placeholder", newSetup, Options{Vary: []string{"{http.request.cookie.session}"}}, 401, cookie, nil},
		{"no credentials", newSetup, Options{}, 401, []string{"X-Other", "1"}, nil},
		{"another no", newSetup, Options{}, 404, cookie, nil},
		{"passing", newSetup, Options{Credentials: "pass"}, 401, cookie, nil},
		// Its own request goes through.
		{"wrapping", newWrappingSetup, Options{Credentials: "strip"}, 401, cookie, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := tt.make(t, tt.opts)
				for _, target := range []string{"/events?secret", "/others"} {
					c := s.get(target, tt.header...)
					s.get(target, tt.header...)
					s.origin.keepAnswering(time.Second, func(up *conn) { up.answer(tt.status).end() })
					if !c.ended() {
						t.Error("the client was not answered")
					}
				}
				lines := s.logs.FilterMessageSnippet("has refused a shared request").All()
				if tt.want == nil {
					if len(lines) > 0 {
						t.Errorf("got %v, want no line", lines)
					}
					return
				}
				if len(lines) != 1 {
					t.Fatalf("got %d lines, want one", len(lines))
				}
				fields := lines[0].ContextMap()
				hint, _ := fields["hint"].(string)
				if lines[0].Level != zapcore.WarnLevel || fields["header"] != tt.want || fields["status"] != int64(tt.status) ||
					!strings.Contains(hint, "vary") || !strings.Contains(hint, "credentials pass") {
					t.Errorf("got %s %v", lines[0].Level, fields)
				}
				if text := fmt.Sprint(fields); strings.Contains(text, "secret") {
					t.Errorf("the line has a secret: %s", text)
				}
			})
		})
	}
}

// hints returns the fields of the lines that say how to have requests shared.
func (s *setup) hints() []map[string]any {
	var lines []map[string]any
	for _, line := range s.logs.FilterMessage("not sharing a request that may identify its client").All() {
		lines = append(lines, line.ContextMap())
	}
	return lines
}

func TestWrappingFormWithNothingBehindSaysSo(t *testing.T) {
	s := run(t, "route {\nsse_fanout\n}")
	resp, _ := do(t, s.client, s.url+"/events")
	if resp.StatusCode != http.StatusOK || resp.ContentLength != 0 {
		t.Errorf("got status %d and %d bytes, want Caddy's empty 200", resp.StatusCode, resp.ContentLength)
	}
	waitFor(t, "the log to say why", func() bool {
		log, _ := os.ReadFile(s.log)
		return strings.Contains(string(log), "nothing to share, as nothing behind sse_fanout has answered")
	})
}
