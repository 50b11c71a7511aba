package ssefanout

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/view"
)

func init() {
	caddy.RegisterModule(new(quickInspector))
	httpcaddyfile.RegisterHandlerDirective("sse_inspector_quick", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		q := new(quickInspector)
		return q, q.UnmarshalCaddyfile(h.Dispenser)
	})
	httpcaddyfile.RegisterDirectiveOrder("sse_inspector_quick", httpcaddyfile.After, "metrics")
}

// A quickInspector is an inspector for tests that wait on the real clock: its
// snapshots come often, and its topic is soon over.
type quickInspector struct{ Inspector }

func (*quickInspector) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.sse_inspector_quick", New: func() caddy.Module { return new(quickInspector) }}
}

func (q *quickInspector) Provision(ctx caddy.Context) error {
	topics := snapshotTopics(20*time.Millisecond, 50*time.Millisecond)
	topics.StreamCloseDelay = caddy.Duration(50 * time.Millisecond)
	return q.provision(ctx, topics)
}

// request makes a request and returns the answer, and what it says.
func (s *liveSite) request(method, path string, header ...string) (*http.Response, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := *s.client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, string(body)
}

func TestInspectorServesItsPage(t *testing.T) {
	s := run(t, `handle_path /a* {
	sse_inspector
}
sse_inspector /b/inspector/* {
	connect https://one.example:8443 https://*.two.example
}`)
	for _, prefix := range []string{"/a/", "/b/inspector/", "/b/inspector/deeper/"} {
		for name, kind := range map[string]string{
			"":              "text/html; charset=utf-8",
			"index.html":    "text/html; charset=utf-8",
			"inspector.css": "text/css; charset=utf-8",
			"inspector.js":  "text/javascript; charset=utf-8",
			"sse.js":        "text/javascript; charset=utf-8",
			"icon.svg":      "image/svg+xml",
			"topics":        "text/event-stream",
		} {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				if name == "topics" && method == http.MethodGet {
					continue // never ends
				}
				resp, body := s.request(method, prefix+name)
				if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != kind || (method == http.MethodHead) != (body == "") {
					t.Errorf("%s %s%s: got %s, %q and %d bytes; want 200 and %q",
						method, prefix, name, resp.Status, resp.Header.Get("Content-Type"), len(body), kind)
				}
			}
		}
		resp, body := s.request(http.MethodGet, prefix+"nothing.js")
		if resp.StatusCode != http.StatusNotFound || !strings.Contains(body, "no nothing.js") {
			t.Errorf("%snothing.js: got %s and %q", prefix, resp.Status, body)
		}
		for _, method := range []string{http.MethodPost, http.MethodDelete, http.MethodOptions, "BREW"} {
			for _, name := range []string{"", "topics", "nothing"} {
				resp, body := s.request(method, prefix+name)
				if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" || !strings.Contains(body, method) {
					t.Errorf("%s %s%s: got %s, Allow %q and %q", method, prefix, name, resp.Status, resp.Header.Get("Allow"), body)
				}
			}
		}
	}

	// Without its last slash, where it is cut off.
	resp, _ := s.request(http.MethodGet, "/a")
	if to, err := resp.Location(); resp.StatusCode != http.StatusPermanentRedirect || err != nil || to.Path != "/a/" {
		t.Errorf("/a: got %s, to %v", resp.Status, to)
	}

	resp, _ = s.request(http.MethodGet, "/a/")
	for name, want := range map[string]string{
		"X-Frame-Options":        "DENY",
		"X-Content-Type-Options": "nosniff",
		"Cache-Control":          "no-store",
		"Referrer-Policy":        "no-referrer",
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
			"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	resp, _ = s.request(http.MethodGet, "/b/inspector/")
	const sources = "connect-src 'self' https://one.example:8443 https://*.two.example;"
	if got := resp.Header.Get("Content-Security-Policy"); !strings.Contains(got, sources) {
		t.Errorf("the policy is %q, want it to have %q", got, sources)
	}
}

// Whatever a redirect is made of came from a client.
func TestInspectorRedirectsToItselfOnly(t *testing.T) {
	s := run(t, "rewrite * /\nsse_inspector")
	for path, want := range map[string]string{
		"/a":                 "./a/",
		"/a/b":               "./b/",
		"//elsewhere.test/c": "./c/",
		"/%2F%2Felsewhere":   "./elsewhere/",
		"/a%0Ab":             "./a%0Ab/",
		"/x:y":               "./x:y/",
	} {
		resp, _ := s.request(http.MethodGet, path)
		if got := resp.Header.Get("Location"); got != want {
			t.Errorf("%s: redirected to %q, want %q", path, got, want)
		}
	}
}

// overviewOf reads the snapshot in a block.
func overviewOf(t *testing.T, block string) (o view.Overview) {
	t.Helper()
	_, data, found := strings.Cut(block, "\ndata: ")
	if !found || !strings.HasPrefix(block, "id: ") {
		t.Fatalf("got %q, want a snapshot", block)
	}
	if err := json.Unmarshal([]byte(data), &o); err != nil {
		t.Fatal(err)
	}
	return o
}

func findTopic(o view.Overview, place string) (found view.Topic) {
	for _, v := range o.Topics {
		if strings.HasPrefix(v.Name, place+" ") {
			found = v
		}
	}
	return found
}

func TestInspectorTellsTheTopics(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, `handle /inspector/* {
	sse_inspector
}
sse_fanout `+origin.addr+` {
	vary X-User
}`)
	for range 3 {
		open(t, s.client, s.url+"/stocks?token=secret", "X-User", "alice")
	}
	watch := open(t, s.client, s.url+"/inspector/topics?x=1", "Cookie", "a=b", "Range", "bytes=0-")
	if got := watch.header.Get("Cache-Control"); !strings.Contains(got, "no-store") && !strings.Contains(got, "no-cache") {
		t.Errorf("Cache-Control is %q", got)
	}
	if watch.header.Get("X-Frame-Options") != "DENY" {
		t.Error("the stream has no X-Frame-Options")
	}
	first := watch.next()
	if strings.Contains(first, "secret") || strings.Contains(first, "alice") {
		t.Errorf("a snapshot tells a query or a value of vary: %s", first)
	}
	host := strings.TrimPrefix(s.url, "http://")
	if v := findTopic(overviewOf(t, first), host+"/stocks"); v.Subscribers != 3 || v.State != "connected" || v.Upstream.Address != origin.addr {
		t.Errorf("got %+v, want 3 subscribers, connected to %s", v, origin.addr)
	}

	// Another who looks, wherever, shares the stream, and sees what has been.
	other := open(t, s.client, s.url+"/inspector/elsewhere/topics", "Origin", "https://elsewhere.example")
	if got := other.next(); got != first {
		t.Errorf("the newcomer's first snapshot is %s, want %s", got, first)
	}
}

// newInspectorSetup provides the topics of an inspector, which answers all requests.
func newInspectorSetup(t *testing.T) *setup {
	t.Helper()
	s := &setup{t: t, origin: newOrigin(t), handler: snapshotTopics(snapshotEvery, snapshotLinger)}
	s.handler.sockets = overSockets
	s.provision()
	h := &Inspector{topics: s.handler}
	s.lead(func(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
		return h.ServeHTTP(w, r, nil)
	})
	return s
}

// snapshots reads the snapshots that have come since the last read.
func (c *client) snapshots() (all []view.Overview) {
	c.t.Helper()
	for block := range strings.SplitSeq(c.read(), "\n\n") {
		if block != "" && !strings.HasPrefix(block, ":") {
			all = append(all, overviewOf(c.t, block))
		}
	}
	return all
}

// snapshot waits for the next snapshot, which must be one.
func (c *client) snapshot() view.Overview {
	c.t.Helper()
	time.Sleep(snapshotEvery)
	all := c.snapshots()
	if len(all) != 1 {
		c.t.Fatalf("got %d snapshots within %v, want 1", len(all), snapshotEvery)
	}
	return all[0]
}

func TestInspectorGoesOnTellingTheTopics(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		for range 3 {
			s.get("/stocks")
		}
		up := s.origin.next().accept()
		page := newInspectorSetup(t)
		watch := page.get("/inspector/topics")
		first := watch.snapshots()
		if len(first) != 1 {
			t.Fatalf("got %d snapshots at once, want 1", len(first))
		}

		// The rate is that of the second before.
		up.events(1, 50)
		o := watch.snapshot()
		if v := findTopic(o, "example.com/stocks"); v.LastEventID != "50" || v.Received != 50 || v.EventsPerSecond != 50 || o.EventsPerSecond < v.EventsPerSecond {
			t.Errorf("after 50 events within a second, there are %v a second in all, and %+v", o.EventsPerSecond, v)
		}
		o = watch.snapshot()
		if v := findTopic(o, "example.com/stocks"); v.EventsPerSecond != 0 {
			t.Errorf("a second later: %+v", v)
		}

		// Another who looks, wherever, shares the stream, and sees what has been.
		other := page.get("/inspector/elsewhere/topics", "Origin", "https://elsewhere.example")
		if seen := other.snapshots(); len(seen) != 3 || seen[0].Time != first[0].Time {
			t.Errorf("the newcomer gets %d snapshots, want the 3 that have been", len(seen))
		}
		o = other.snapshot()
		if own := findTopic(o, snapshotHost+"/"+snapshotName); own.Subscribers != 2 || o.Subscribers != 5 || o.TopicCount != 2 {
			t.Errorf("there are %d topics with %d subscribers, of which the page's has %d; want 2 with 5, and 2", o.TopicCount, o.Subscribers, own.Subscribers)
		}

		// Without its origin.
		up.abort()
		s.origin.await().fail(http.StatusBadGateway)
		watch.snapshots()
		o = watch.snapshot()
		if v := findTopic(o, "example.com/stocks"); o.Down != 1 || v.State != "reconnecting" || v.Upstream.Attempts == 0 || v.Upstream.LastError == "" {
			t.Errorf("%d topics are down, and without its origin one is %+v", o.Down, v)
		}
	})
}

// A snapshot is of bounded size, and those with many subscribers are in it.
func TestInspectorTellsTheLargestTopics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		for i := range view.MaxTopics + 20 {
			clients := 1
			if i >= view.MaxTopics+10 {
				clients = 2
			}
			for range clients {
				s.get(fmt.Sprintf("/%03d", i))
			}
			s.origin.next().accept()
		}
		o := new(view.Watcher).Look(time.Now(), topicsOf(""))
		if o.TopicCount != view.MaxTopics+20 || len(o.Topics) != view.MaxTopics || o.Subscribers != view.MaxTopics+30 {
			t.Fatalf("got %d of %d topics, %d subscribers", len(o.Topics), o.TopicCount, o.Subscribers)
		}
		for _, v := range o.Topics[:10] {
			if v.Subscribers+v.Waiting != 2 {
				t.Errorf("%s comes before larger ones", v.Name)
			}
		}
	})
}

// The topics are looked at only while somebody listens.
func TestInspectorLeavesNothingBehind(t *testing.T) {
	s := run(t, "sse_inspector_quick /inspector/*")
	settled := func() bool {
		s.client.CloseIdleConnections()
		for _, p := range alive.all() {
			if !reflect.DeepEqual(p.relay.Holdings(), relay.Holdings{}) {
				return false
			}
		}
		return true
	}
	visit := func() {
		for range 10 {
			c := open(t, s.client, s.url+"/inspector/topics")
			c.next()
			c.cancel()
		}
	}
	visit()
	waitFor(t, "the snapshots to end", settled)
	before := runtime.NumGoroutine()
	visit()
	waitFor(t, "the snapshots to end", settled)
	waitFor(t, fmt.Sprintf("%d goroutines to be left", before), func() bool {
		s.client.CloseIdleConnections()
		return runtime.NumGoroutine() <= before
	})
}

func TestInspectorGoesOnOverAReload(t *testing.T) {
	s := run(t, "sse_inspector_quick /inspector/*")
	c := open(t, s.client, s.url+"/inspector/topics")
	before := overviewOf(t, c.next())
	// What the page may connect to is nothing to the stream.
	s.load("sse_inspector_quick /inspector/* {\nconnect https://example.com\n}")
	last := before.Time
	for range 3 {
		o := overviewOf(t, c.next())
		if o.Time <= last || o.Time-last > 5000 {
			t.Fatalf("after a snapshot of %d comes one of %d", last, o.Time)
		}
		last = o.Time
	}
	// Gone from the configuration, it ends.
	s.load("respond nothing")
	waitFor(t, "the stream to end", func() bool {
		block := c.next()
		return block == "" || strings.HasPrefix(block, "retry: ")
	})
}

// In an error route, no event stream can be shared.
func TestInspectorInAnErrorRoute(t *testing.T) {
	s := run(t, "error 404\nhandle_errors {\nsse_inspector\n}")
	if resp, _ := s.request(http.MethodGet, "/topics"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("got %s, want the 404 that the route is for", resp.Status)
	}
}

func FuzzInspectorUnmarshalCaddyfile(f *testing.F) {
	f.Add("{\nconnect https://example.com\n}")
	f.Add("{\nconnect *\nconnect a\n}")
	f.Add("x {\n}")
	policy := regexp.MustCompile(`^[^;,'" \t\r\n]+$`)
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := caddyfile.Tokenize([]byte("sse_inspector "+text), "Caddyfile")
		if err != nil {
			t.Skip()
		}
		h := new(Inspector)
		if err := h.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err != nil {
			return
		}
		if i := slices.IndexFunc(h.Connect, func(source string) bool { return !policy.MatchString(source) }); i >= 0 {
			t.Errorf("%q would change the Content-Security-Policy", h.Connect[i])
		}
	})
}
