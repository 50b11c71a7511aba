package check

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/internal/eventsource/eventsourcetest"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
	"github.com/sse-fanout/caddy-sse-fanout/internal/terminal"
)

const s = time.Second

// A good server: its answer begins at once, names a reconnection time, and goes
// on from an id. Before it is asked, there have been n events.
type good struct {
	header http.Header
	every  time.Duration
	pings  time.Duration
	data   func(n int, at time.Time) string
}

func (g good) serve(w http.ResponseWriter, r *http.Request) {
	const before = 100
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache, no-transform")
	maps.Copy(w.Header(), g.header)
	_, _ = io.WriteString(w, ": hello\nretry: 2000\n\n")
	event := func(n int) {
		data := "x"
		if g.data != nil {
			data = g.data(n, time.Now())
		}
		fmt.Fprintf(w, "id: %d\ndata: %s\n\n", n, data)
	}
	begun := time.Now()
	n := before + int(begun.Sub(epoch)/g.every)
	if id := r.Header.Get("Last-Event-Id"); id != "" {
		var last int
		fmt.Sscan(id, &last)
		for last++; last <= n; last++ {
			event(last)
		}
	}
	if !eventsourcetest.Wait(r, 10*time.Millisecond) { // so that nothing comes just when the listening ends
		return
	}
	pings := make(<-chan time.Time)
	if g.pings > 0 {
		ticker := time.NewTicker(g.pings)
		defer ticker.Stop()
		pings = ticker.C
	}
	events := time.NewTicker(g.every)
	defer events.Stop()
	for {
		select {
		case <-events.C:
			n++
			event(n)
		case <-pings:
			_, _ = io.WriteString(w, ":\n\n")
		case <-r.Context().Done():
			return
		}
	}
}

// epoch is when the clock of a synctest bubble begins.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func sentence(n int, _ time.Time) string {
	return fmt.Sprintf("This is event %d, of a length that events may well have in the wild.", n)
}

// buffered is a proxy that passes on only whole buffers of some size.
func buffered(size int, server eventsourcetest.Transport) eventsourcetest.Transport {
	return func(w http.ResponseWriter, r *http.Request) {
		server(&bufferedWriter{ResponseWriter: w, size: size}, r)
	}
}

type bufferedWriter struct {
	http.ResponseWriter
	size int
	buf  []byte
}

func (w *bufferedWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK) // the header passes
	for w.buf = append(w.buf, p...); len(w.buf) >= w.size; w.buf = w.buf[w.size:] {
		if _, err := w.ResponseWriter.Write(w.buf[:w.size]); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// script sends texts, each after a time, and then ends the stream, or breaks it
// if the last is empty.
func script(steps ...any) eventsourcetest.Transport {
	return func(w http.ResponseWriter, r *http.Request) {
		if w.Header().Get("Content-Type") == "" {
			w.Header().Set("Content-Type", "text/event-stream")
		}
		w.Header().Set("Cache-Control", "no-cache, no-transform")
		w.WriteHeader(http.StatusOK)
		for _, step := range steps {
			switch step := step.(type) {
			case time.Duration:
				if !eventsourcetest.Wait(r, step) {
					return
				}
			case string:
				if step == "" {
					panic(http.ErrAbortHandler)
				}
				_, _ = io.WriteString(w, step)
			}
		}
	}
}

func checkOf(transport http.RoundTripper) *Check {
	return &Check{
		Client:   eventsource.Client{URL: &url.URL{Scheme: "https", Host: "example.com", Path: "/events"}, Transport: transport},
		Duration: DefaultDuration,
	}
}

func TestFindings(t *testing.T) {
	everySecond := good{every: s}
	for _, tc := range []struct {
		name    string
		server  eventsourcetest.Transport
		verdict Level
		want    []string // each is "about level: part of the text, or of the fix"
	}{
		{"a good stream", everySecond.serve, OK, []string{
			"buffering ok: Nothing holds events back: 29 events arrived in 29 batches, 1s to 1s apart",
			"end ok: open for all of 30s", "resume ok: the server went on with", "retry ok: after 2s",
			"protocol ok: HTTP/2.0", "compression ok: not used", "caching ok: no-transform",
			"not observed: heartbeats: the stream was never quiet for longer than 1.01s",
			"not observed: what happens to streams older than 30s (--duration listens for longer)",
		}},
		{"heartbeats", good{every: 29 * s, pings: 10 * s}.serve, OK, []string{
			"heartbeats ok: 2 heartbeats seen: the longest silence was 10.01s",
		}},
		{"history at the start is no burst", script(strings.Repeat("id: 1\ndata: x\n\n", 500), s, "id: 2\ndata: y\n\n", time.Hour), Warning, []string{
			"buffering note: 1 event came after the stream was opened, too few to tell",
		}},

		{"a proxy's buffer", buffered(1024, good{every: s / 2, data: sentence}.serve), Failure, []string{
			"buffering failure: Events are held back",
			"buffering failure: which end in the middle of an event",
			"buffering failure: proxy_buffering off",
			"summary: Something holds the stream back",
		}},
		{"a proxy's buffer, and whole events in it", buffered(47*4, good{every: s, data: func(_ int, at time.Time) string {
			return "{\"at\": \"" + at.UTC().Format("2006-01-02T15:04:05.000Z") + "\"}"
		}}.serve), Failure, []string{"buffering failure: by the times that they name, those of one batch were made over "}},
		{"heartbeats that come together", script(10*s, ":\n\n:\n\n", 10*s, ":\n\n:\n\n:\n\n", time.Hour), Failure, []string{
			"buffering failure: heartbeats came together",
		}},
		{"bursts", script(
			5*s, strings.Repeat("data: x\n\n", 5), 5*s, strings.Repeat("data: x\n\n", 5), 5*s, strings.Repeat("data: x\n\n", 5),
			5*s, strings.Repeat("data: x\n\n", 5), time.Hour), Warning, []string{
			"buffering warning: Events come in bursts: 20 events in 4 batches, about 5s apart",
		}},
		{"the whole response at once", func(w http.ResponseWriter, r *http.Request) {
			eventsourcetest.Wait(r, 12*s)
			script("data: 1\n\ndata: 2\n\n")(w, r)
		}, Failure, []string{
			"buffering failure: All 2 events came at once after 12s",
			"answer warning: The header came after 12s, together with the first bytes",
		}},
		{"a Content-Length", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "18")
			script("data: 1\n\ndata: 2\n\n")(w, r)
		}, Failure, []string{"end failure: Content-Length of 18"}},
		{"silence", script(time.Hour), Warning, []string{
			"buffering warning: Nothing came in 30s but the header",
			"heartbeats warning: There were 30s of silence",
			"not observed: ids",
			"summary: No event came",
		}},
		{"no answer", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, Failure, []string{
			"answer failure: There was no answer within 30s",
		}},

		{"cut in silence", script("data: x\n\n", 20*s, ""), Failure, []string{
			"end failure: The stream broke off after 20s, and 20s of silence (the connection broke: unexpected EOF)",
			"end failure: a limit on silence", "summary: Something cuts the stream",
		}},
		{"ended by nginx in silence", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Server", "nginx/1.27")
			script("data: x\n\n", 20*s)(w, r)
		}, Warning, []string{"end warning: The stream ended after 20s", "end warning: proxy_read_timeout"}},
		{"cut by age, within an event", script(s, "data: x\n\n", 10*s, "data: x\n\n", 2*s, "data: x\n"), Failure, []string{
			"end failure: The stream ended after 13s, while it was busy, in the middle of an event, which is lost",
			"end failure: a limit on the age of a request",
		}},
		{"too large an event", script(s, "data: "+strings.Repeat("x", eventsource.DefaultMaxEventSize)+"x\n\n"), Failure, []string{
			"size failure: larger than the limit",
		}},

		{"no ids", script(s, "data: x\n\n", s, "data: y\n\n", time.Hour), Warning, []string{"resume warning: Events have no ids"}},
		{"ids that mean nothing", func(w http.ResponseWriter, r *http.Request) {
			g := everySecond
			r.Header.Del("Last-Event-Id")
			g.serve(w, r)
		}, Warning, []string{"resume warning: miss events"}},
		{"from the beginning", script("id: 1\ndata: x\n\nid: 2\ndata: x\n\nid: 3\ndata: x\n\nid: 4\ndata: x\n\nid: 5\ndata: x\n\nid: 6\ndata: x\n\nid: 7\ndata: x\n\nid: 8\ndata: x\n\n", time.Hour), Warning, []string{
			`resume warning: Asked to go on after "3", the server began again with "1": clients see events twice`,
		}},
		{"an id is refused", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Last-Event-Id") != "" {
				http.Error(w, "no", 400)
				return
			}
			everySecond.serve(w, r)
		}, Warning, []string{"resume warning: was refused: 400 Bad Request: no"}},

		{"a cache", good{every: s, header: http.Header{"X-Cache": {"Hit from cloudfront"}, "Via": {"1.1 abc.cloudfront.net (CloudFront)"}}}.serve, Failure, []string{
			"caching failure: from a cache",
		}},
		{"nothing about caches", good{every: s, header: http.Header{"Cache-Control": nil}}.serve, Warning, []string{"caching warning: There is no Cache-Control"}},
		{"for caches", good{every: s, header: http.Header{"Cache-Control": {"public, max-age=60"}}}.serve, Warning, []string{`caching warning: "public, max-age=60"`}},
		{"no-cache alone", good{every: s, header: http.Header{"Cache-Control": {"no-cache"}}}.serve, OK, []string{`caching note: with no-transform`}},
		{"X-Accel-Buffering", good{every: s, header: http.Header{"X-Accel-Buffering": {"yes"}}}.serve, Warning, []string{"caching warning: X-Accel-Buffering"}},
		{"Latin 1", good{every: s, header: http.Header{"Content-Type": {"text/event-stream; charset=ISO-8859-1"}}}.serve, Warning, []string{`answer warning: in "ISO-8859-1"`}},
		{"impatience", script("retry: 0\nid: 1\n\n", time.Hour), Warning, []string{"retry warning: Browsers are told to come back after 0ms"}},

		{"204", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, Failure, []string{"answer failure: asks clients not to come back"}},
		{"401", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, Failure, []string{"answer failure: 401 Unauthorized.", "answer failure: Authorization: Bearer"}},
		{"a page", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(200)
		}, Failure, []string{"answer failure: Not an event stream: Content-Type is text/html", "answer failure: a login page", "summary: There is no stream"}},
		{"no connection", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, Failure, []string{"answer failure: No connection: unexpected EOF."}},

		{"turned away", script("retry: 12000\n\n"), Failure, []string{
			"answer failure: The server turned this client away and asked it to come back in 12s: probably a limit is reached, or it is restarting.",
			"answer failure: Try again then", "summary: There is no stream",
		}},
		{"turned away when it comes back", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Last-Event-Id") != "" {
				script("retry: 12000\n\n")(w, r)
				return
			}
			everySecond.serve(w, r)
		}, OK, []string{"not observed: whether a client that comes back gets what it missed: the server turned this client away"}},

		{"a redirect", redirecting(everySecond.serve), OK, []string{"redirect note: Each connection goes through 1 redirect first"}},
		{"a redirect to where nobody listens", redirecting(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), Failure, []string{
			"answer failure: No connection: unexpected EOF. The request had been redirected to https://elsewhere.example/login?to=events.",
		}},
		{"a redirect to a page", redirecting(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(200)
		}), Failure, []string{"answer failure: Content-Type is text/html. The request had been redirected to https://elsewhere.example/login"}},
		{"a redirect to where nobody answers", redirecting(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), Failure, []string{
			"answer failure: waits for the whole response. The request had been redirected to https://elsewhere.example/login",
		}},

		{"compressed", gzipped(true, everySecond), OK, []string{"compression note: compressed with gzip, and flushed as it should be", "buffering ok: Nothing"}},
		{"compressed without a flush", gzipped(false, good{every: 20 * time.Millisecond, data: func(int, time.Time) string {
			return rand.Text() + rand.Text() + rand.Text() + rand.Text() + rand.Text() + rand.Text()
		}}), Failure, []string{"compression failure: may be what holds it back", "buffering failure: end in the middle of an event"}},
		{"compressed until nothing is left", gzipped(false, good{every: s}), Failure, []string{
			"compression failure: without, 9 events came in 10s",
			"summary: Something holds the stream back",
		}},
		{"compressed in a way that cannot be read", func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.Header.Get("Accept-Encoding"), "br") {
				w.Header().Set("Content-Encoding", "br")
			}
			everySecond.serve(w, r)
		}, Warning, []string{`compression warning: Browsers get this stream compressed with "br"`, "buffering ok: Nothing"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				report := checkOf(tc.server).Run(t.Context())
				if report.Verdict != tc.verdict {
					t.Errorf("verdict: got %s, want %s", report.Verdict, tc.verdict)
				}
				compareFindings(t, report, tc.want)
			})
		})
	}
}

// redirecting sends to another host, where there is server.
func redirecting(server eventsourcetest.Transport) eventsourcetest.Transport {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Host != "elsewhere.example" {
			w.Header().Set("Location", "https://elsewhere.example/login?to=events")
			w.WriteHeader(http.StatusPermanentRedirect)
			return
		}
		server(w, r)
	}
}

func compareFindings(t *testing.T, report *Report, want []string) {
	t.Helper()
	lines := []string{"summary: " + report.Summary}
	for _, f := range report.Findings {
		lines = append(lines, fmt.Sprintf("%s %s: %s -> %s", f.About, f.Level, f.Text, f.Fix))
	}
	for _, what := range report.NotObserved {
		lines = append(lines, "not observed: "+what)
	}
	for _, w := range want {
		about, part, _ := strings.Cut(w, ": ")
		found := false
		for _, line := range lines {
			found = found || strings.HasPrefix(line, about+": ") && strings.Contains(line, part)
		}
		if !found {
			t.Errorf("not found: %s\n\tin %s", w, strings.Join(lines, "\n\t   "))
		}
	}
}

// gzipped compresses, as a proxy or a middleware would.
func gzipped(flush bool, g good) eventsourcetest.Transport {
	return func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			g.serve(w, r)
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		g.serve(&gzipWriter{ResponseWriter: w, z: gzip.NewWriter(w), flush: flush}, r)
	}
}

type gzipWriter struct {
	http.ResponseWriter
	z     *gzip.Writer
	flush bool
}

func (w *gzipWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	n, err := w.z.Write(p)
	if w.flush && err == nil {
		err = w.z.Flush()
	}
	return n, err
}

func TestCORS(t *testing.T) {
	for _, tc := range []struct{ origin, allowed, want string }{
		{"", "", "cors note: Only pages of the same site"},
		{"", "*", `cors note: Pages of "*" can`},
		{"https://a.example", "*", "cors ok: https://a.example can"},
		{"https://a.example", "https://a.example", "cors ok: https://a.example can"},
		{"https://a.example", "", "cors failure: there is no Access-Control-Allow-Origin"},
		{"https://a.example", "https://b.example", `cors failure: is "https://b.example"`},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := checkOf(eventsourcetest.Transport(func(w http.ResponseWriter, r *http.Request) {
				if got := r.Header.Get("Origin"); got != tc.origin {
					t.Errorf("got origin %q", got)
				}
				if tc.allowed != "" {
					w.Header().Set("Access-Control-Allow-Origin", tc.allowed)
				}
				good{every: s}.serve(w, r)
			}))
			c.Origin = tc.origin
			compareFindings(t, c.Run(t.Context()), []string{tc.want})
		})
	}
}

// An interrupt ends the listening, not the report.
func TestInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*s)
		defer cancel()
		var seen []string
		c := checkOf(eventsourcetest.Transport(good{every: s}.serve))
		c.Progress = func(elapsed, total time.Duration, events, heartbeats int) {
			seen = append(seen, fmt.Sprint(elapsed, total))
		}
		report := c.Run(ctx)
		compareFindings(t, report, []string{
			"buffering ok: Nothing holds events back", "not observed: the rest of 30s",
			"not observed: whether a client that comes back",
		})
		if len(seen) < 10 || seen[3] != "3s 30s" {
			t.Errorf("progress: got %q", seen)
		}
	})
}

func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := checkOf(buffered(512, good{every: s, header: http.Header{"Server": {"nginx/1.27.0"}}, data: sentence}.serve))
		report := c.Run(t.Context())
		var b bytes.Buffer
		if err := report.Write(&b, terminal.Palette{}); err != nil {
			t.Fatal(err)
		}
		const want = `
  https://example.com/events
  200 OK, HTTP/2.0; nginx
  header after 0ms, first bytes 6.01s later
  23 events, 0 heartbeats, 2.0 KiB in 30s

  ············▅···········▅···········▅···········▅···········
  0s                                                       30s

  ✗ buffering    Events are held back: 23 events came in 4 batches, which end in the
                 middle of an event, as they do when a buffer is full.
                 → nginx: "proxy_buffering off;" in this location
`
		if got := b.String(); !strings.HasPrefix(got, want[1:]) {
			t.Errorf("got\n%s\nwant it to begin with\n%s", got, want)
		}
		for line := range strings.SplitSeq(b.String(), "\n") {
			if terminal.Width(line) > lineWidth+2 {
				t.Errorf("too wide: %s", line)
			}
		}

		b.Reset()
		if err := report.WriteJSON(&b); err != nil {
			t.Fatal(err)
		}
		var got Report
		if err := json.Unmarshal(b.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if got.Verdict != Failure || got.Connection.Header["Server"] != "nginx/1.27.0" || got.Connection.Recognized[0] != "nginx" ||
			got.Stream.Events != report.Stream.Events || len(got.Findings) != len(report.Findings) {
			t.Errorf("got %s", b.String())
		}
	})
}

// Who is redirected to where nothing is must see where that is.
func TestReportOfARedirect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := checkOf(redirecting(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
		var b bytes.Buffer
		if err := c.Run(t.Context()).Write(&b, terminal.Palette{}); err != nil {
			t.Fatal(err)
		}
		const want = `
  https://example.com/events
  ↳ https://elsewhere.example/login?to=events

  ✗ answer       No connection: unexpected EOF. The request had been redirected to
                 https://elsewhere.example/login?to=events.
                 → Check host, port and scheme, and whether the server is running.

  ✗ There is no stream to listen to.
`
		if got := b.String(); got != want[1:] {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

func TestFraming(t *testing.T) {
	for text, want := range map[string]struct {
		comments int
		half     bool
	}{
		"":                       {0, false},
		"data: x\n":              {0, true},
		"data: x\n\n":            {0, false},
		"data: x\r\n\r\n":        {0, false},
		"data: x\r\r":            {0, false},
		":":                      {1, true},
		":\n":                    {1, false},
		": a\r\n\r\n:b\r\n\r\n":  {2, false},
		"data: :x\n: a\n":        {1, true},
		"data: x\n: a\n\n:\r:\r": {3, false},
	} {
		for cut := range len(text) + 1 {
			var f framing
			comments := f.write([]byte(text[:cut]))
			comments += f.write([]byte(text[cut:]))
			if comments != want.comments || f.half() != want.half {
				t.Errorf("%q cut at %d: got %d, %v, want %v", text, cut, comments, f.half(), want)
			}
		}
	}
}

func TestFindTime(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for text, want := range map[string]time.Time{
		`{"at":"2026-03-04T05:06:06.5Z"}`:       now.Add(-s / 2),
		`{"at":"2026-03-04 07:06:06+02:00"}`:    now.Add(-s),
		fmt.Sprint(now.Add(-s).UnixMilli()):     now.Add(-s),
		`"2026-03-04T04:06:07Z" is an hour ago`: {},
		"1234567890123456":                      {},
		"2026-99-99T99:99:99Z":                  {},
	} {
		got := findTime(&sse.Event{Data: []byte(text), HasData: true}, now)
		if wantNS := want.UnixNano(); got != time.Duration(wantNS) && (!want.IsZero() || got != 0) {
			t.Errorf("%s: got %d, want %v", text, got, want)
		}
	}
}

// The strip has its width whatever there is to show.
func TestStrip(t *testing.T) {
	if got := strip(new(observation)); got != "" {
		t.Errorf("got %q", got)
	}
	o := &observation{begun: epoch, opened: epoch, over: epoch.Add(60 * s)}
	for i, n := range []int{0, 1, 2, 4, 8, 16, 32, 64, 1000} {
		o.batches = append(o.batches, batch{from: epoch.Add(time.Duration(i) * s), events: n})
	}
	o.batches = append(o.batches, batch{from: o.over, events: 1})
	if got := strip(o); !strings.HasPrefix(got, "▁▂▃▄▅▆▇██·") || terminal.Width(got) != stripWidth || !strings.HasSuffix(got, "·▂") {
		t.Errorf("got %q", got)
	}
}
