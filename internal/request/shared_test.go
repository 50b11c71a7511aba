package request

import (
	"crypto/tls"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
	"github.com/sse-fanout/caddy-sse-fanout/internal/survey"
)

// A visit is a client's request with what earlier directives have done to it.
type visit struct {
	target      string // before rewrites
	rewritten   string // the URI after rewrites, if there were any
	tls         bool
	header      []string // pairs
	vars        map[string]any
	placeholder map[string]string
}

// keyOf returns the topic key of a visit to a handler with these options, and in the
// wrapping form what the site has made of the request.
func keyOf(t *testing.T, wrapping bool, vary []string, v visit) (string, Facts) {
	t.Helper()
	s, r := visited(t, wrapping, vary, v)
	if !wrapping {
		return NewShared(r, s).Key(), nil
	}
	return NewShared(r, s).Key(), NewFacts(r, s, new(survey.Surroundings))
}

func topicRequestOf(t *testing.T, wrapping bool, vary []string, v visit) *Shared {
	t.Helper()
	s, r := visited(t, wrapping, vary, v)
	return NewShared(r, s)
}

// visited returns the settings of a handler that is visited, and the request as it comes
// there.
func visited(t *testing.T, wrapping bool, vary []string, v visit) (*settings.Settings, *http.Request) {
	t.Helper()
	s, err := settings.New(settings.Options{Vary: vary}, wrapping)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, v.target, nil)
	for i := 0; i < len(v.header); i += 2 {
		r.Header.Add(v.header[i], v.header[i+1])
	}
	r.TLS = nil
	if v.tls {
		r.TLS = new(tls.ConnectionState)
	}
	repl := caddy.NewReplacer()
	r = caddyhttp.PrepareRequest(r, repl, httptest.NewRecorder(), new(caddyhttp.Server))
	for name, value := range v.vars {
		caddyhttp.SetVar(r.Context(), name, value)
	}
	for name, value := range v.placeholder {
		repl.Set(name, value)
	}
	if v.rewritten != "" {
		u, err := url.ParseRequestURI(v.rewritten)
		if err != nil {
			t.Fatal(err)
		}
		r.URL = u
	}
	return s, r
}

func TestTopicKey(t *testing.T) {
	const base = "http://example.com/events"
	header := func(pairs ...string) visit { return visit{target: base, header: pairs} }
	vars := func(v map[string]any) visit { return visit{target: base, vars: v} }
	placeholder := func(v map[string]string) visit { return visit{target: base, placeholder: v} }
	for _, tc := range []struct {
		name string
		vary []string
		a, b visit
		same bool // they share a topic

		variable bool // a variable differs that the endpoint form does not look at
	}{
		{name: "equal", a: visit{target: base}, b: visit{target: base}, same: true},
		{name: "host case", a: visit{target: base}, b: visit{target: "http://EXAMPLE.com/events"}, same: true},
		{name: "host", a: visit{target: base}, b: visit{target: "http://example.org/events"}},
		{name: "port", a: visit{target: base}, b: visit{target: "http://example.com:8080/events"}},
		{name: "scheme", a: visit{target: base}, b: visit{target: base, tls: true}},
		{name: "path", a: visit{target: base}, b: visit{target: base + "/"}},
		{name: "path case", a: visit{target: base}, b: visit{target: "http://example.com/Events"}},
		{name: "escaped slash", a: visit{target: base + "/a/b"}, b: visit{target: base + "/a%2Fb"}},
		{name: "question mark in the path", a: visit{target: base + "%3Fa"}, b: visit{target: base + "?a"}},
		{name: "query", a: visit{target: base + "?a=1"}, b: visit{target: base + "?a=2"}},
		{name: "query order", a: visit{target: base + "?a=1&b=2"}, b: visit{target: base + "?b=2&a=1"}},
		{name: "query escapes", a: visit{target: base + "?a=%41"}, b: visit{target: base + "?a=A"}},
		{name: "empty query", a: visit{target: base}, b: visit{target: base + "?"}},

		{name: "lastEventId", a: visit{target: base}, b: visit{target: base + "?lastEventId=1"}, same: true},
		{name: "lastEventID", a: visit{target: base + "?a=1"}, b: visit{target: base + "?lastEventID=1&a=1"}, same: true},
		{name: "last_event_id", a: visit{target: base + "?a=1"}, b: visit{target: base + "?a=1&last_event_id="}, same: true},
		{name: "Last-Event-ID", a: visit{target: base + "?a=1&b"}, b: visit{target: base + "?a=1&Last-Event-ID=1&b"}, same: true},
		{name: "escaped name", a: visit{target: base + "?a=1"}, b: visit{target: base + "?a=1&last%45vent%49d=1"}, same: true},
		{name: "without a value", a: visit{target: base}, b: visit{target: base + "?lastEventId"}, same: true},
		{name: "another case", a: visit{target: base}, b: visit{target: base + "?LASTEVENTID=1"}},
		{name: "a longer name", a: visit{target: base}, b: visit{target: base + "?lastEventIds=1"}},
		{name: "Last-Event-ID header", a: visit{target: base}, b: header("Last-Event-ID", "1"), same: true},

		{name: "header that vary does not name", a: header("X-A", "1"), b: header("X-A", "2"), same: true},
		{name: "Cookie", a: header("Cookie", "1"), b: header("Cookie", "2"), same: true},
		{name: "Origin", a: header("Origin", "https://a"), b: header("Origin", "https://b")},
		{name: "header", vary: []string{"x-a"}, a: header("X-A", "1"), b: header("X-A", "2")},
		{name: "equal header", vary: []string{"x-a"}, a: header("X-A", "1", "X-B", "1"), b: header("X-A", "1", "X-B", "2"), same: true},
		{name: "absent and empty header", vary: []string{"X-A"}, a: visit{target: base}, b: header("X-A", "")},
		{name: "which of two headers", vary: []string{"X-A", "X-B"}, a: header("X-A", "1"), b: header("X-B", "1")},
		{name: "two values and one", vary: []string{"X-A"}, a: header("X-A", "1", "X-A", "2"), b: header("X-A", "1")},
		{name: "two values and a list", vary: []string{"X-A"}, a: header("X-A", "1", "X-A", "2"), b: header("X-A", "1,2")},
		{name: "order of values", vary: []string{"X-A"}, a: header("X-A", "1", "X-A", "2"), b: header("X-A", "2", "X-A", "1")},

		{name: "root", a: vars(map[string]any{"root": "/a"}), b: vars(map[string]any{"root": "/b"})},
		{name: "fs", a: vars(map[string]any{"fs": "a"}), b: vars(map[string]any{"fs": "b"})},
		{name: "root and fs", a: vars(map[string]any{"root": "a"}), b: vars(map[string]any{"fs": "a"})},
		{name: "absent and empty root", a: vars(nil), b: vars(map[string]any{"root": ""})},
		{name: "another variable", a: vars(nil), b: vars(map[string]any{"user": "alice"}), same: true, variable: true},
		{name: "rewritten", a: visit{target: base}, b: visit{target: base, rewritten: "/other"}},
		{name: "what Caddy sets", a: vars(map[string]any{"client_ip": "192.0.2.7", "start_time": time.Now(), "uuid": new(int)}),
			b: vars(map[string]any{"client_ip": "192.0.2.8", "access_logger_names": []string{"a"}, "log_skip": true}), same: true},
		{name: "a trusted proxy", a: visit{target: base}, b: vars(map[string]any{"trusted_proxy": true})},
		{name: "the scheme that a trusted proxy tells",
			a: visit{target: base, vars: map[string]any{"trusted_proxy": true}, header: []string{"X-Forwarded-Proto", "https"}},
			b: visit{target: base, vars: map[string]any{"trusted_proxy": true}, header: []string{"X-Forwarded-Proto", "http"}}},
		{name: "the scheme that anybody tells", a: header("X-Forwarded-Proto", "https"), b: header("X-Forwarded-Proto", "http"), same: true},

		{name: "placeholder", vary: []string{"{http.auth.user.id}"},
			a: placeholder(map[string]string{"http.auth.user.id": "alice"}), b: placeholder(map[string]string{"http.auth.user.id": "bob"})},
		{name: "equal placeholder", vary: []string{"{http.auth.user.id}"},
			a: placeholder(map[string]string{"http.auth.user.id": "alice", "x": "1"}), b: placeholder(map[string]string{"http.auth.user.id": "alice"}), same: true},
		{name: "absent and empty placeholder", vary: []string{"{http.auth.user.id}"},
			a: visit{target: base}, b: placeholder(map[string]string{"http.auth.user.id": ""})},
		{name: "variable as placeholder", vary: []string{"{http.vars.user}"},
			a: vars(map[string]any{"user": "alice"}), b: vars(map[string]any{"user": "bob"})},
		{name: "cookie as placeholder", vary: []string{"{http.request.cookie.tenant}"},
			a: header("Cookie", "tenant=1; session=1"), b: header("Cookie", "session=2; tenant=1"), same: true},
		{name: "another cookie as placeholder", vary: []string{"{http.request.cookie.tenant}"},
			a: header("Cookie", "tenant=1"), b: header("Cookie", "tenant=2")},

		{name: "parts that run together", vary: []string{"X-A", "X-B"},
			a: header("X-A", "1\x00X-B\x002"), b: header("X-A", "1", "X-B", "2")},
		{name: "a value that looks like a part", vary: []string{"X-A", "X-B"},
			a: header("X-A", "1\x03X-B\x01\x012"), b: header("X-A", "1", "X-B", "2")},
		{name: "where one header ends", vary: []string{"X-A", "X-B"},
			a: header("X-A", "1", "X-B", "X-B", "X-B", "2"), b: header("X-A", "1", "X-A", "X-B", "X-B", "2")},
		{name: "path and query run together", a: visit{target: base + "a?b"}, b: visit{target: base + "?ab"}},
	} {
		for _, wrapping := range []bool{false, true} {
			form := map[bool]string{false: "endpoint", true: "wrapping"}[wrapping]
			t.Run(tc.name+", "+form, func(t *testing.T) {
				a, factsA := keyOf(t, wrapping, tc.vary, tc.a)
				b, factsB := keyOf(t, wrapping, tc.vary, tc.b)
				got := a == b && factsA.DiffersFrom(factsB) == ""
				if want := tc.same && (!wrapping || !tc.variable); got != want {
					t.Errorf("same topic: got %t, want %t (%q %q and %q %q)", got, want, a, factsA, b, factsB)
				}
			})
		}
	}
}

// What stands in front of a wrapping handler may judge by the URI that the
// client has asked for.
func TestOriginalURIIsPartOfTheKeyInTheWrappingForm(t *testing.T) {
	for _, tc := range []struct {
		name     string
		private  string
		wrapping bool
		same     bool
	}{
		{"handle_path, wrapping", "http://example.com/private/events", true, false},
		{"handle_path, endpoint", "http://example.com/private/events", false, true},
		{"query removed, wrapping", "http://example.com/public/events?key=1", true, false},
		{"last event id, wrapping", "http://example.com/public/events?lastEventId=1", true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			private := topicRequestOf(t, tc.wrapping, nil, visit{target: tc.private, rewritten: "/events"}).Key()
			public := topicRequestOf(t, tc.wrapping, nil, visit{target: "http://example.com/public/events", rewritten: "/events"}).Key()
			if got := private == public; got != tc.same {
				t.Errorf("same key: got %t, want %t", got, tc.same)
			}
		})
	}
}

func TestLastEventIDIsTakenOutOfTheQuery(t *testing.T) {
	for _, tc := range []struct{ query, want string }{
		{"", ""},
		{"a=1&b=2", "a=1&b=2"},
		{"lastEventId=1", ""},
		{"lastEventID=1", ""},
		{"last_event_id=1", ""},
		{"Last-Event-ID=1", ""},
		{"l%61stEventId=1", ""},
		{"last%5fevent_id=%31", ""},
		{"Last%2DEvent-ID", ""},
		{"lastEventId=1&a=%41+b&&c", "a=%41+b&&c"},
		{"a=b=c&lastEventId=1&;d=%zz&", "a=b=c&;d=%zz&"},
		{"a&lastEventId=1&b&last_event_id=2", "a&b"},
		{"%zz=1&lastEventId=1", "%zz=1"},
		{"lasteventid=1", "lasteventid=1"},
		{"xlastEventId=1&lastEventIdx=1", "xlastEventId=1&lastEventIdx=1"},
		{"a=lastEventId=1", "a=lastEventId=1"},
		{"lastEventId+=1", "lastEventId+=1"},
	} {
		if got := streamQuery(tc.query, nil); got != tc.want {
			t.Errorf("%q: got %q, want %q", tc.query, got, tc.want)
		}
	}
}

func TestForwardedAs(t *testing.T) {
	for forwarded, want := range map[string][]string{
		"":                          nil,
		"for=192.0.2.1":             nil,
		"for=192.0.2.1;proto=https": {"proto=https"},
		`For="[2001:db8::1]"; Proto=https ;Host="a.example:8443";by=_x`: {`Proto=https;Host="a.example:8443"`},
		"for=1, for=2;host=a, for=3;proto=http":                         {"host=a, proto=http"},
		"hosts=a;=;;,":                                                  nil,
	} {
		if got := forwardedAs([]string{forwarded}); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", forwarded, got, want)
		}
	}
}

func TestClaimOf(t *testing.T) {
	long := strings.Repeat("x", relay.MaxLastEventID+1)
	for _, tc := range []struct {
		name   string
		query  string
		header []string
		want   relay.Claim
	}{
		{"none", "", nil, relay.Claim{}},
		{"header", "", []string{"7"}, relay.Claim{ID: "7"}},
		{"header before query", "lastEventId=8", []string{"7"}, relay.Claim{ID: "7", Param: "lastEventId"}},
		{"empty header", "lastEventId=8", []string{""}, relay.Claim{ID: "8", Param: "lastEventId"}},
		{"blank header", "lastEventId=8", []string{" \t"}, relay.Claim{ID: "8", Param: "lastEventId"}},
		{"lastEventId", "lastEventId=8", nil, relay.Claim{ID: "8", Param: "lastEventId"}},
		{"lastEventID", "lastEventID=8", nil, relay.Claim{ID: "8", Param: "lastEventID"}},
		{"last_event_id", "last_event_id=8", nil, relay.Claim{ID: "8", Param: "last_event_id"}},
		{"Last-Event-ID", "Last-Event-ID=8", nil, relay.Claim{ID: "8", Param: "Last-Event-ID"}},
		{"escaped", "a=1&last%45ventId=%C3%A4+%3D%26", nil, relay.Claim{ID: "ä =&", Param: "lastEventId"}},
		{"first that is not empty", "lastEventId=&last_event_id=8&lastEventID=9", nil, relay.Claim{ID: "8", Param: "last_event_id"}},
		{"blank in the query", "lastEventId=+", nil, relay.Claim{}},
		{"not unescapable before another", "lastEventId=%zz&lastEventID=9", nil, relay.Claim{ID: "9", Param: "lastEventID"}},
		{"not unescapable", "lastEventId=%zz", nil, relay.Claim{ID: "%zz", Param: "lastEventId"}},
		{"opaque", "", []string{`a,"b"`}, relay.Claim{ID: `a,"b"`}},
		{"blanks around it", "", []string{" h 1\t"}, relay.Claim{ID: "h 1"}},
		{"blanks around it in the query", "lastEventId=+h+1%09", nil, relay.Claim{ID: "h 1", Param: "lastEventId"}},
		{"long", "", []string{long}, relay.Claim{ID: long}},
		{"long in the query", "lastEventId=" + long, nil, relay.Claim{ID: long, Param: "lastEventId"}},
		{"NUL", "lastEventId=a%00b", nil, relay.Claim{ID: "a\x00b", Param: "lastEventId"}},
		{"LF", "lastEventId=%0A", nil, relay.Claim{ID: "\n", Param: "lastEventId"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/events?"+tc.query, nil)
			r.Header["Last-Event-Id"] = tc.header
			if got := ClaimOf(r); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestPublicNameKeepsSecrets(t *testing.T) {
	vary := []string{"X-Secret", "{http.vars.secret}"}
	name := func(query, header, value string) string {
		req := topicRequestOf(t, false, vary, visit{
			target: "http://Example.com:8080/a%20b?" + query,
			header: []string{"X-Secret", header},
			vars:   map[string]any{"secret": value},
		})
		return req.PublicName(req.Key())
	}
	one := name("token=swordfish", "swordfish", "swordfish")
	if strings.Contains(one, "swordfish") || strings.Contains(one, "token") {
		t.Errorf("the name tells secrets: %q", one)
	}
	visible, hash, ok := strings.Cut(one, " ")
	if !ok || visible != "example.com:8080/a%20b" || len(hash) != 12 || strings.Trim(hash, "0123456789abcdef") != "" {
		t.Errorf("got %q, want host, path and 12 hex digits", one)
	}
	if again := name("token=swordfish", "swordfish", "swordfish"); again != one {
		t.Errorf("one key has two names, %q and %q", one, again)
	}
	for _, other := range []string{
		name("token=another", "swordfish", "swordfish"),
		name("token=swordfish", "another", "swordfish"),
		name("token=swordfish", "swordfish", "another"),
	} {
		if other == one {
			t.Errorf("two keys have one name: %q", one)
		}
	}
}

// A key must tell all of its parts apart, whatever bytes are in them.
func FuzzTopicKeyIsInjective(f *testing.F) {
	f.Add(false, "example.com", "/events", "a=1", "", "", "", uint8(0))
	f.Add(true, "example.com:443", "/a%2Fb", "", "x", "1", "2", uint8(0xff))
	f.Add(false, "", "/", "\x01\x00", "\x00", "X-A\x01", "1\x03X-B", uint8(0x55))
	f.Add(false, "0", "0", "0", "0", "0", "", uint8(0))
	f.Fuzz(func(t *testing.T, https bool, host, path, query, variable, one, two string, set uint8) {
		request := func(shift int) *Shared {
			// The same strings in neighbouring places, and what is absent in
			// others: two such requests differ, and so must their keys.
			parts := []string{host, path, query, variable, one, two}
			part := func(i int) string { return parts[(i+shift)%len(parts)] }
			has := func(i int) bool { return set>>((i+shift)%8)&1 == 1 }
			req := &Shared{tls: https, trusted: has(1), host: part(0), header: make(http.Header)}
			req.url = url.URL{Path: part(1), RawQuery: part(2), ForceQuery: has(0)}
			if has(2) {
				req.vars = append(req.vars, namedValue{"root", part(3)})
			}
			if has(3) {
				req.vars = append(req.vars, namedValue{"fs", part(3)})
			}
			if has(4) {
				req.vary = append(req.vary, namedValue{"http.auth.user.id", part(4)})
			}
			if has(5) {
				req.header["X-A"] = []string{part(4), part(5)}
			}
			if has(6) {
				req.header["X-B"] = []string{part(5)}
			}
			if has(7) {
				req.header["X-C"] = nil
			}
			if has(0) {
				req.Learned = []string{part(4)}
			}
			return req
		}
		first := request(0)
		for shift := range 6 {
			other := request(shift)
			if got, want := first.Key() == other.Key(), sameShared(first, other); got != want {
				t.Fatalf("same key: got %t, want %t\n%+v\n%+v", got, want, first, other)
			}
		}
	})
}

func sameShared(a, b *Shared) bool {
	sameURL := func(a, b url.URL) bool {
		return a.EscapedPath() == b.EscapedPath() && a.RawQuery == b.RawQuery && a.ForceQuery == b.ForceQuery
	}
	return a.tls == b.tls && a.trusted == b.trusted && a.host == b.host && sameURL(a.url, b.url) && (a.orig == nil) == (b.orig == nil) &&
		(a.orig == nil || sameURL(*a.orig, *b.orig)) &&
		slices.Equal(a.vars, b.vars) && slices.Equal(a.vary, b.vary) &&
		maps.EqualFunc(a.header, b.header, slices.Equal) && slices.Equal(a.Learned, b.Learned)
}

// A site that is for some countries decides by what a network of caches tells, in the wrapping
// form, and the origin must be told the same.
func TestCountryCountsInTheWrappingForm(t *testing.T) {
	for _, name := range fields.Countries {
		in := func(country string, wrapping bool) *Shared {
			return topicRequestOf(t, wrapping, nil, visit{target: "http://example.com/events", header: []string{name, country}})
		}
		if in("FR", true).Key() == in("DE", true).Key() {
			t.Errorf("clients share whatever %s says", name)
		}
		if in("FR", false).Key() != in("DE", false).Key() {
			t.Errorf("endpoint form: clients do not share if %s differs", name)
		}
		r := in("FR", true).Stranger(t.Context(), "192.0.2.1:1", nil)
		if got := r.Header[name]; len(got) != 1 || got[0] != "FR" {
			t.Errorf("the stranger has %q in %s", got, name)
		}
		if !fields.Harmless(name) {
			t.Errorf("%s keeps a request from being shared", name)
		}
	}
}
