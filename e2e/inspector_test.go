package e2e

import (
	"context"
	"encoding/base64"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/device"
)

// screenshots is where TestInspectorLooks leaves what it sees, for a person to
// look at.
var screenshots = flag.String("screenshots", "", "directory for screenshots of the inspector")

// A screen is a page in a browser, used as a person does: by what can be seen,
// with the keyboard and the mouse.
type screen struct {
	t   *testing.T
	ctx context.Context
}

func openScreen(t *testing.T, url string, flags ...chromedp.ExecAllocatorOption) *screen {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program(t, "chromium", "chromium", "chromium-browser", "google-chrome")),
		chromedp.NoSandbox,
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("ignore-certificate-errors", true),
		chromedp.WindowSize(1280, 860),
	)
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), append(options, flags...)...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting the browser: %v", err)
	}
	s := &screen{t: t, ctx: ctx}
	s.do(chromedp.Navigate(url))
	return s
}

func (s *screen) do(actions ...chromedp.Action[chromedp.Void]) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 30*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		s.t.Fatal(err)
	}
}

func evaluate[T any](s *screen, expression string, opts ...chromedp.EvaluateOption) T {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 60*time.Second)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, opts...))
	if err != nil {
		s.t.Fatalf("evaluating %.200s: %v", expression, err)
	}
	return value
}

// text is what can be seen of an element.
func (s *screen) text(selector string) string {
	s.t.Helper()
	return evaluate[string](s, fmt.Sprintf(`(() => {
		const e = document.querySelector(%q)
		return e?.checkVisibility() ? e.innerText : ''
	})()`, selector))
}

// rows are the rows of the table that can be seen, from top to bottom, with a
// bar between the cells.
func (s *screen) rows() []string {
	s.t.Helper()
	return evaluate[[]string](s, `(() => {
		const box = document.querySelector('#rows').getBoundingClientRect()
		return [...document.querySelectorAll('.row')]
			.map((row) => ({ row, top: row.getBoundingClientRect().top, bottom: row.getBoundingClientRect().bottom }))
			.filter(({ top, bottom }) => bottom > box.top + 1 && top < box.bottom - 1)
			.sort((a, b) => a.top - b.top)
			.map(({ row }) => [...row.children].filter((c) => c.offsetParent !== null && c.innerText !== '').slice(1).map((c) => c.innerText).join('|'))
	})()`)
}

// see waits until an element shows a text.
func (s *screen) see(selector, want string) {
	s.t.Helper()
	s.await(func() error {
		if got := s.text(selector); !strings.Contains(got, want) {
			return fmt.Errorf("%s shows %q, want %q", selector, got, want)
		}
		return nil
	})
}

// seeRow waits until a row of the table has a text.
func (s *screen) seeRow(want string) {
	s.t.Helper()
	s.await(func() error {
		rows := s.rows()
		for _, row := range rows {
			if strings.Contains(row, want) {
				return nil
			}
		}
		return fmt.Errorf("no row shows %q, but there are\n%s", want, strings.Join(rows, "\n"))
	})
}

func (s *screen) await(condition func() error) {
	s.t.Helper()
	eventually(s.t, 15*time.Second, condition)
}

func (s *screen) click(selector string) {
	s.t.Helper()
	s.do(chromedp.Click(chromedp.CSS(selector)))
}

// fill replaces what is in a field, as if typed.
func (s *screen) fill(selector, text string) {
	s.t.Helper()
	s.do(chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Run(ctx, chromedp.Evaluate[any](fmt.Sprintf("document.querySelector(%q).select()", selector)))
		return err
	}))
	if text == "" {
		s.do(chromedp.KeyEvent("\b"))
		return
	}
	s.do(chromedp.KeyEvent(text))
}

// press types outside of any field.
func (s *screen) press(keys string) {
	s.t.Helper()
	evaluate[any](s, "document.activeElement.blur()")
	s.do(chromedp.KeyEvent(keys))
}

func (s *screen) send(url string) {
	s.t.Helper()
	s.fill("#url", url)
	s.do(chromedp.KeyEvent("\r"))
}

// shoot leaves a screenshot, if the test was asked to.
func (s *screen) shoot(name string) {
	s.t.Helper()
	if *screenshots == "" {
		return
	}
	time.Sleep(300 * time.Millisecond) // until transitions are over
	image, err := chromedp.Run(s.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*screenshots, name+".png"), image, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// A workshop is an origin with a stream for each test, that notes the ids it is
// asked with.
type workshop struct {
	mu  sync.Mutex
	ids []string
}

func (o *workshop) asked() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.ids...)
}

func (o *workshop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	stream := func() {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("X-Workshop", "open")
	}
	switch r.URL.Path {
	case "/plain":
		o.mu.Lock()
		o.ids = append(o.ids, r.Header.Get("Last-Event-ID"))
		o.mu.Unlock()
		stream()
		next, _ := strconv.Atoi(r.Header.Get("Last-Event-ID"))
		io.WriteString(w, ": welcome to the stream\nretry: 700\n\n")
		for n := next + 1; ; n++ {
			switch n % 5 {
			case 0:
				fmt.Fprintf(w, "id: %d\ndata: plain text number %d\n\n", n, n)
			case 3:
				fmt.Fprintf(w, "id: %d\nevent: note\ndata: two\ndata: lines\n\n: heartbeat\n\n", n)
			default:
				fmt.Fprintf(w, "id: %d\nevent: price\ndata: {\"symbol\":\"ACME\",\"n\":%d,\"price\":{\"amount\":12345678901234567890,\"currency\":\"EUR\"},\"tags\":[\"a\",true,null]}\n\n", n, n)
			}
			if control.Flush() != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	case "/fast":
		stream()
		began, sent := time.Now(), 0
		for {
			for due := int(time.Since(began) / time.Millisecond); sent < due; sent++ {
				fmt.Fprintf(w, "id: %d\nevent: tick\ndata: {\"n\":%d,\"payload\":%q}\n\n", sent, sent, strings.Repeat("x", 120))
			}
			if control.Flush() != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	case "/ends":
		stream()
		io.WriteString(w, "retry: 60000\nid: last\ndata: the only one\n\n")
	case "/huge":
		stream()
		line := "data: " + strings.Repeat("y", 1<<20) + "\n"
		for range 17 {
			io.WriteString(w, line)
		}
		control.Flush()
		<-r.Context().Done()
	case "/large":
		stream()
		fmt.Fprintf(w, "data: {\"long\":%q}\n\n", strings.Repeat("z", 1<<20))
		control.Flush()
		<-r.Context().Done()
	case "/odd":
		stream()
		io.WriteString(w, "data : not a field\nretry: soon\nid\ndata: <img src=x onerror=alert(1)>\n\n")
		control.Flush()
		<-r.Context().Done()
	case "/page":
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<h1>Hello, this is a page</h1>")
	case "/gone":
		w.WriteHeader(http.StatusNoContent)
	case "/broken":
		stream()
		io.WriteString(w, "data: one\n\n")
		control.Flush()
		panic(http.ErrAbortHandler)
	default:
		http.Error(w, "there is nothing here", http.StatusNotFound)
	}
}

// inspected runs Caddy in front of a workshop, with an inspector that may also
// read from a second origin, which allows it, and a third, which does not.
func inspected(t *testing.T) (*workshop, *caddy) {
	t.Helper()
	o := new(workshop)
	origin := inGo(t, o)
	allows := inGo(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Allow-Headers", "*")
		if r.Method == http.MethodGet {
			o.ServeHTTP(w, r)
		}
	}))
	refuses := inGo(t, o)
	c := runCaddy(t, "", fmt.Sprintf(`HTTP, HTTPS {
	handle_path /inspector* {
		sse_inspector {
			connect http://%s http://%s http://127.0.0.1:1
		}
	}
	handle_path /shared/* {
		sse_fanout %s
	}
	handle {
		header /allows Location http://%s/plain
		header /refuses Location http://%s/plain
		respond /allows 307
		respond /refuses 307
		reverse_proxy %s {
			flush_interval -1
		}
	}
}`, allows.addr, refuses.addr, origin.addr, allows.addr, refuses.addr, origin.addr))
	return o, c
}

// numbers are those in the ids of the rows that can be seen.
func numbers(rows []string) (ns []int) {
	for _, row := range rows {
		id, _, _ := strings.Cut(row, "|")
		if n, err := strconv.Atoi(id); err == nil {
			ns = append(ns, n)
		}
	}
	return ns
}

func TestInspectorShowsAStream(t *testing.T) {
	t.Parallel()
	o, c := inspected(t)
	s := openScreen(t, c.http+"/inspector")
	if got := evaluate[string](s, "location.pathname"); got != "/inspector/" {
		t.Errorf("without its slash, the page is at %s", got)
	}
	s.see("#empty", "Enter a URL and press Send")
	s.shoot("stream-empty")

	s.send("/plain")
	s.see("#state", "open")
	s.see("#status", "200 OK")
	s.see("#protocol", "HTTP/1.1")
	s.see("#first-byte", "ms")
	s.see("#bytes", "KiB")
	s.see("#retry", "700 ms")
	s.seeRow("comment|heartbeat")
	s.seeRow("note|two lines")
	s.seeRow(`price|{"symbol":"ACME"`)
	s.seeRow("message|plain text number")
	s.await(func() error {
		if got := s.text("#rate"); got == "0" || got == "–" {
			return fmt.Errorf("the rate is %s", got)
		}
		return nil
	})
	s.click("#response summary")
	s.see("#response-headers", "x-workshop\nopen")
	s.click("#response summary")

	// Paused, the table stands still while the stream goes on.
	s.press("p")
	s.see("#pause", "Go on")
	before := s.rows()
	s.see("#shown", "more have come")
	last := s.text("#last-id")
	s.await(func() error {
		if s.text("#last-id") == last {
			return fmt.Errorf("the stream stands still at id %s", last)
		}
		return nil
	})
	if after := s.rows(); strings.Join(after, "\n") != strings.Join(before, "\n") {
		t.Errorf("paused, the table went from\n%s\nto\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}

	// JSON is set in lines, to the digit; "as sent" shows what came.
	s.fill("#search", "acme")
	s.see("#shown", " of ")
	for _, row := range s.rows() {
		if !strings.Contains(row, "ACME") {
			t.Errorf("the search for acme shows %q", row)
		}
	}
	if got := s.text("mark"); got != "ACME" {
		t.Errorf("marked is %q, want ACME", got)
	}
	s.press("j")
	s.see("#detail-title", "price")
	const pretty = "  \"symbol\": \"ACME\",\n"
	s.see("#detail-data", pretty)
	s.see("#detail-data", "\"amount\": 12345678901234567890,\n    \"currency\": \"EUR\"\n  },\n")
	s.shoot("stream-detail")
	s.click("#detail-raw")
	s.see("#detail-data", `{"symbol":"ACME"`)
	s.click("#detail-raw")
	s.press("\x1b")
	s.await(func() error {
		if s.text("#detail") != "" {
			return fmt.Errorf("the event is still shown")
		}
		return nil
	})

	// Copied is what is shown, as it came over the wire.
	evaluate[any](s, "navigator.clipboard.writeText = async (text) => { window.copied = text }")
	s.press("y")
	s.see("#toast", "Copied")
	copied := evaluate[string](s, "window.copied")
	if !strings.HasPrefix(copied, "id: 1\nevent: price\ndata: {\"symbol\":\"ACME\",\"n\":1,") || strings.Contains(copied, "heartbeat") {
		t.Errorf("copied is %.200q", copied)
	}
	s.fill("#search", "no such thing")
	s.see("#shown", "0 of ")
	s.fill("#search", "")

	// Comments are hidden, and shown again.
	s.press("m")
	s.await(func() error {
		if all := strings.Join(s.rows(), "\n"); strings.Contains(all, "heartbeat") {
			return fmt.Errorf("heartbeats are shown in\n%s", all)
		}
		return nil
	})
	s.press("m")
	s.press("p")
	s.seeRow("comment|heartbeat")

	// It goes on from the id that is chosen: in the field,
	s.fill("#last-event-id", "1000")
	s.do(chromedp.KeyEvent("\r"))
	s.seeRow("1001|price|")
	if asked := o.asked(); asked[len(asked)-1] != "1000" {
		t.Errorf("the origin was asked with the ids %q, want 1000 at the end", asked)
	}
	// or of an event.
	s.fill("#search", "1003")
	s.seeRow("1003|note|")
	s.press("j")
	s.see("#detail-facts", "1003")
	s.click("#detail-reconnect")
	s.await(func() error {
		if asked := o.asked(); asked[len(asked)-1] != "1003" {
			return fmt.Errorf("the origin was asked with the ids %q, want 1003 at the end", asked)
		}
		return nil
	})

	s.press("c")
	s.fill("#search", "")
	s.click("#send") // stop
	s.see("#state", "stopped")
	s.press("c")
	s.see("#empty", "Enter a URL")
	if rows := s.rows(); len(rows) != 0 {
		t.Errorf("cleared, the table has\n%s", strings.Join(rows, "\n"))
	}
}

func TestInspectorReconnectsAsAnEventSource(t *testing.T) {
	t.Parallel()
	_, c := inspected(t)
	s := openScreen(t, c.http+"/inspector/")
	s.send("/ends")
	s.seeRow("last|message|the only one")
	s.seeRow("the server has ended the stream")
	s.see("#state", "reconnecting in ")
	s.see("#retry", "1 min")
	s.click("#send")
	s.see("#state", "stopped")

	s.send("/broken")
	s.see("#problem", "The connection broke")
	s.see("#state", "reconnecting in ")
	s.see("#retry", "~3.0 s")
}

// What cannot work is told in words that say what to do.
func TestInspectorSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	_, c := inspected(t)
	s := openScreen(t, c.http+"/inspector/#view=other&colour=red")
	s.see("#problem", "does not know: colour")

	type trial struct{ url, title, text string }
	trials := []trial{
		{"  ", "This request cannot be sent", "Enter the URL"},
		{"http://", "This request cannot be sent", "is not a URL"},
		{"localhost:8080/events", "This request cannot be sent", "Did you mean http://localhost:8080/events?"},
		{"ftp://example.com/", "This request cannot be sent", "not from ftp:"},
		{"http://alice:secret@example.com/", "This request cannot be sent", "Add the header Authorization"},
		{"/nothing", "The server answered 404", "there is nothing here"},
		{"/page", "This is not an event stream", "Hello, this is a page"},
		{"/gone", "The server answered 204", "stop for good"},
		{"/huge", "something larger than 16 Mi", "max_event_size"},
		{"https://elsewhere.example/events", "This page may not connect to https://elsewhere.example", "connect https://elsewhere.example"},
		{"http://127.0.0.1:1/", "No answer from 127.0.0.1:1", "Nothing listens there"},
	}
	for _, tc := range trials {
		s.send(tc.url)
		s.see("#problem-title", tc.title)
		s.see("#problem", tc.text)
	}
	s.shoot("stream-problem")

	// Other sites: one allows to be read, one does not.
	redirect := func(path string) string {
		resp, err := httpClient(t, "h1").Get(c.http + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.Header.Get("Location")
	}
	s.send(redirect("/allows"))
	s.see("#state", "open")
	s.seeRow("|price|")
	s.send(redirect("/refuses"))
	s.see("#problem-title", "does not allow this page to read its answer (CORS)")
	s.see("#problem-code", "cors_origins "+c.http)

	// Headers that a page cannot set, or nobody.
	s.click("#parameters summary")
	for _, tc := range [][3]string{
		{"Cookie", "a=b", "does not let a page set the header Cookie"},
		{"na me", "x", "is not a header"},
		{"Last-Event-ID", "7", "has a field of its own"},
	} {
		s.fill("#headers .pair input", tc[0])
		s.fill("#headers .pair input:last-child", tc[1])
		s.send("/plain")
		s.see("#problem", tc[2])
	}
	s.fill("#headers .pair input", "")
	s.fill("#headers .pair input:last-child", "")
	s.fill("#query .pair input:last-child", "value")
	s.send("/plain")
	s.see("#problem", "has no name")
	s.fill("#query .pair input:last-child", "")

	// Odd lines are shown, and nothing that comes is taken for a part of the page.
	s.send("/odd")
	s.seeRow("ignored|data : not a field")
	s.seeRow("ignored|retry: soon")
	s.seeRow("message|<img src=x onerror=alert(1)>")
	s.send("/large")
	s.seeRow(`message|{"long":"zzz`)
	s.press("k")
	s.see("#detail-note", "The first 262,144 of 1,048,587 characters")
}

func TestInspectorShowsTheTopics(t *testing.T) {
	t.Parallel()
	_, c := inspected(t)
	for range 3 {
		stream, err := subscribe(t.Context(), httpClient(t, "h1"), c.http+"/shared/plain?token=secret")
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Body.Close()
		go io.Copy(io.Discard, stream.Body)
	}

	s := openScreen(t, c.https+"/inspector/")
	s.press("2")
	s.see("[data-topics=state]", "live")
	s.see("[data-topics=rows]", strings.TrimPrefix(c.http, "http://")+"/plain")
	s.see("[data-topics=rows]", "sse_inspector/topics")
	row := func() string {
		return evaluate[string](s, `[...document.querySelectorAll('[data-topics=rows] tr')].find((row) => row.innerText.includes('/plain')).innerText`)
	}
	s.await(func() error {
		if got := row(); !strings.Contains(got, "connected") || !strings.Contains(got, "\t3\n") && !strings.Contains(got, "\t3\t") {
			return fmt.Errorf("the topic's row is %q, want it connected, with 3 subscribers", got)
		}
		return nil
	})
	s.await(func() error {
		lines := evaluate[int](s, `[...document.querySelectorAll('[data-topics=rows] .spark .line')].filter((l) => (l.getAttribute('d').match(/L/g) ?? []).length >= 3).length`)
		if lines < 4 {
			return fmt.Errorf("%d lines have grown, want 4", lines)
		}
		return nil
	})
	if strings.Contains(s.text("body"), "secret") {
		t.Error("a query is shown")
	}
	s.fill("#topics-filter", "plain")
	s.await(func() error {
		if got := s.text("[data-topics=rows]"); strings.Contains(got, "sse_inspector") {
			return fmt.Errorf("the filter shows %q", got)
		}
		return nil
	})
	s.fill("#topics-filter", "nowhere")
	s.see("[data-topics=empty]", "No topic matches")

	// Over https, the page tells which HTTP it is.
	s.press("1")
	s.send("/plain")
	s.see("#state", "open")
	s.see("#protocol", "HTTP/2")
}

// A thousand events a second, for ten seconds: the page answers an input at once,
// and holds no more than it says.
func TestInspectorKeepsUp(t *testing.T) {
	_, c := inspected(t)
	s := openScreen(t, c.http+"/inspector/")
	// How long this machine makes a page wait that has nothing to do.
	idle := openScreen(t, "about:blank")
	evaluate[any](idle, `{
		window.stall = 0
		let at = performance.now()
		setInterval(() => {
			stall = Math.max(stall, performance.now() - at - 10)
			at = performance.now()
		}, 10)
	}`)
	evaluate[any](s, `{
		window.slow = { tasks: [], inputs: [] }
		new PerformanceObserver((list) => slow.tasks.push(...list.getEntries().map((e) => e.duration))).observe({ type: 'longtask' })
		new PerformanceObserver((list) => slow.inputs.push(...list.getEntries().map((e) => e.duration))).observe({ type: 'event', durationThreshold: 16 })
	}`)
	s.send("/fast")
	s.see("#state", "open")
	for began := time.Now(); time.Since(began) < 12*time.Second; time.Sleep(150 * time.Millisecond) {
		for _, letter := range []string{"n", "\b"} {
			evaluate[any](s, "document.querySelector('#search').focus()")
			s.do(chromedp.KeyEvent(letter))
		}
	}
	if events := s.text("#events"); len(events) < len("11,000") {
		t.Errorf("%s events have come in 12 s of a thousand a second", events)
	}
	slow := evaluate[struct{ Tasks, Inputs []float64 }](s, "({ Tasks: slow.tasks, Inputs: slow.inputs })")
	stall := evaluate[float64](idle, "stall")
	longest, slowest := slices.Max(append(slow.Tasks, 0)), slices.Max(append(slow.Inputs, 0))
	heap := evaluate[float64](s, "performance.memory.usedJSHeapSize / (1 << 20)")
	elements := evaluate[int](s, "document.querySelectorAll('*').length")
	t.Logf("%d long tasks, the longest %.0f ms; %d slow inputs, the slowest %.0f ms; an idle page waits up to %.0f ms; %d elements, %.0f MiB of heap, %s",
		len(slow.Tasks), longest, len(slow.Inputs), slowest, stall, elements, heap, s.text("#shown"))
	if most := 200 + stall; longest > most || slowest > most {
		t.Errorf("the longest task took %.0f ms, the slowest input %.0f ms; want at most 200, and what this machine adds", longest, slowest)
	}
	if elements > 1000 {
		t.Errorf("the page has %d elements", elements)
	}
	s.see("#shown", "10,000 kept")
	s.see("#rate", "1,0")
	s.shoot("stream-fast")
}

// The decoder of the page gives the same as that of the module, for every case
// of its test, whole, in single bytes, and split in two everywhere.
func TestInspectorDecodesAsTheModuleDoes(t *testing.T) {
	t.Parallel()
	_, c := inspected(t)
	s := openScreen(t, c.http+"/inspector/")
	cases := decoderCases(t)
	if len(cases) < 50 {
		t.Fatalf("found %d cases", len(cases))
	}
	for _, tc := range cases {
		type item struct {
			Kind, Data, Type, ID string
			HasID                bool
			Retry                *float64
		}
		got := evaluate[struct {
			Items []item
			Bad   []string
		}](s, fmt.Sprintf(`(async () => {
			const { Decoder } = await import('./sse.js')
			const bytes = Uint8Array.from(atob(%q), (c) => c.charCodeAt(0))
			const decode = (...chunks) => {
				const items = []
				const d = new Decoder((item) => items.push(item))
				for (const chunk of chunks) d.push(chunk)
				return items.filter((item) => item.kind === 'event' || item.kind === 'block').map(({ kind, data, type, id, hasID, retry }) =>
					({ Kind: kind, Data: data, Type: type, ID: id, HasID: hasID, Retry: retry ?? null }))
			}
			const whole = decode(bytes)
			const text = JSON.stringify(whole)
			const bad = []
			if (JSON.stringify(decode(...[...bytes].map((b) => Uint8Array.of(b)))) !== text) bad.push('byte by byte')
			for (let i = 0; i < bytes.length; i++) {
				if (JSON.stringify(decode(bytes.subarray(0, i), bytes.subarray(i))) !== text) bad.push('split at ' + i)
			}
			return { Items: whole, Bad: bad }
		})()`, base64.StdEncoding.EncodeToString([]byte(tc.stream))), chromedp.EvalAwaitPromise)
		var events []string
		for _, item := range got.Items {
			var fields []string
			if item.HasID {
				fields = append(fields, fmt.Sprintf("id=%q", item.ID))
			}
			if item.Type != "" && (item.Kind == "event" || item.HasID || item.Retry != nil) {
				fields = append(fields, fmt.Sprintf("event=%q", item.Type))
			}
			if item.Retry != nil {
				const most = 9223372036854 // milliseconds, what a time.Duration takes
				fields = append(fields, fmt.Sprintf("retry=%v", time.Duration(min(*item.Retry, most))*time.Millisecond))
			}
			if item.Kind == "event" {
				fields = append(fields, fmt.Sprintf("data=%q", item.Data))
			}
			if len(fields) > 0 {
				events = append(events, strings.Join(fields, " "))
			}
		}
		// What has a type and an id alone is an entry of the log without its type.
		for i, want := range tc.want {
			if i < len(events) && !strings.Contains(want, "data=") && !strings.Contains(want, "event=") {
				if id, _, found := strings.Cut(events[i], ` event=`); found && !strings.Contains(events[i], "data=") {
					events[i] = id
				}
			}
		}
		if strings.Join(events, "\n") != strings.Join(tc.want, "\n") {
			t.Errorf("%s: got\n\t%s\nwant\n\t%s", tc.name, strings.Join(events, "\n\t"), strings.Join(tc.want, "\n\t"))
		}
		if len(got.Bad) > 0 {
			t.Errorf("%s: differs %q", tc.name, got.Bad)
		}
	}
}

type decoderCase struct {
	name, stream string
	want         []string
}

// decoderCases reads the table of the test of the module's own decoder.
func decoderCases(t *testing.T) (cases []decoderCase) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../internal/sse/decoder_test.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	constants := make(map[string]string)
	ast.Inspect(file, func(n ast.Node) bool {
		f, ok := n.(*ast.FuncDecl)
		if !ok || f.Name.Name != "TestDecode" {
			return true
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if name, ok := n.Lhs[0].(*ast.Ident); ok && n.Tok == token.DEFINE {
					if text, ok := constant(n.Rhs[0], constants); ok {
						constants[name.Name] = text
					}
				}
			case *ast.CompositeLit:
				if len(n.Elts) != 3 || n.Type != nil {
					return true
				}
				name, ok1 := constant(n.Elts[0], constants)
				stream, ok2 := constant(n.Elts[1], constants)
				if !ok1 || !ok2 {
					t.Fatal("the table has an expression that this test cannot read")
				}
				tc := decoderCase{name: name, stream: stream}
				if list, ok := n.Elts[2].(*ast.CompositeLit); ok {
					for _, e := range list.Elts {
						text, ok := constant(e, constants)
						if !ok {
							t.Fatalf("%s: an expression that this test cannot read", name)
						}
						tc.want = append(tc.want, text)
					}
				}
				cases = append(cases, tc)
				return false
			}
			return true
		})
		return false
	})
	return cases
}

// constant is the value of an expression of strings.
func constant(e ast.Expr, names map[string]string) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.Ident:
		text, ok := names[e.Name]
		return text, ok
	case *ast.BinaryExpr:
		x, ok1 := constant(e.X, names)
		y, ok2 := constant(e.Y, names)
		return x + y, ok1 && ok2
	case *ast.CallExpr:
		f, ok := e.Fun.(*ast.SelectorExpr)
		if !ok || f.Sel.Name != "Repeat" || len(e.Args) != 2 {
			return "", false
		}
		text, ok := constant(e.Args[0], names)
		n, isNumber := e.Args[1].(*ast.BasicLit)
		if !ok || !isNumber {
			return "", false
		}
		times, err := strconv.Atoi(n.Value)
		return strings.Repeat(text, times), err == nil
	}
	return "", false
}

// The page fits a phone and a desktop, in both schemes: nothing is wider than
// the screen, and everything that can be pressed can be reached.
func TestInspectorLooks(t *testing.T) {
	t.Parallel()
	_, c := inspected(t)
	for i, path := range []string{"plain", "plain?user=2", "fast"} {
		for range 3 - i {
			stream, err := subscribe(t.Context(), httpClient(t, "h1"), c.http+"/shared/"+path)
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Body.Close()
			go io.Copy(io.Discard, stream.Body)
		}
	}
	for _, scheme := range []string{"light", "dark"} {
		preference := chromedp.Flag("blink-settings", "preferredColorScheme="+map[string]string{"light": "1", "dark": "0"}[scheme])
		s := openScreen(t, c.http+"/inspector/#url=%2Fplain&q=user=2&view=stream", preference)
		dark := evaluate[bool](s, "matchMedia('(prefers-color-scheme: dark)').matches")
		if dark != (scheme == "dark") {
			t.Fatalf("the browser is not %s", scheme)
		}
		for _, d := range []string{"desktop", "phone"} {
			if d == "phone" {
				s.do(chromedp.Emulate(device.IPhone13))
			}
			fits := func(what string) {
				t.Helper()
				if over := evaluate[int](s, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
					t.Errorf("%s, %s: the page is %d pixels wider than the screen", d, what, over)
				}
				s.shoot(strings.Join([]string{d, scheme, what}, "-"))
			}
			s.press("1")
			fits("parameters")
			evaluate[any](s, "document.querySelector('#parameters').open = false")
			s.send("/plain")
			s.see("#state", "open")
			s.await(func() error {
				if len(numbers(s.rows())) < 4 {
					return fmt.Errorf("the table has only\n%s", strings.Join(s.rows(), "\n"))
				}
				return nil
			})
			time.Sleep(3 * time.Second) // for the line of events/s to have a shape
			fits("stream")
			s.press("p")
			s.press("k")
			s.see("#detail-facts", "time")
			s.press("kkk")
			fits("event")
			s.press("\x1bp")
			s.press("?")
			fits("help")
			s.do(chromedp.KeyEvent("\x1b"))
			s.press("2")
			s.see("[data-topics=rows]", "/plain")
			time.Sleep(3 * time.Second)
			fits("topics")
			s.press("1")
			s.send("/page")
			s.see("#problem", "This is not an event stream")
			fits("problem")
			evaluate[any](s, "document.querySelector('#parameters').open = true")
		}
	}
}

// Behind basic_auth, the page and its stream of topics are for those who may.
func TestInspectorBehindBasicAuth(t *testing.T) {
	t.Parallel()
	c := runCaddy(t, "", `HTTP {
	basic_auth /tools/inspector/* {
		alice $2a$04$ffj.aWVEf3rk3GvOouGTKezy586TzsJW6j7k/8u1tEvF0d1qNFJkm
	}
	sse_inspector /tools/inspector/*
	reverse_proxy 127.0.0.1:1
}`)
	client := httpClient(t, "h1")
	for _, name := range []string{"", "inspector.js", "topics", "nothing"} {
		resp, err := client.Get(c.http + "/tools/inspector/" + name)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%q: got %s, want 401", name, resp.Status)
		}
	}
	// What a person types into the dialog, the browser keeps.
	s := openScreen(t, strings.Replace(c.http, "http://", "http://alice:secret@", 1)+"/tools/inspector/")
	s.do(chromedp.Navigate(c.http + "/tools/inspector/"))
	s.press("2")
	s.see("[data-topics=rows]", "sse_inspector/topics")
	s.see("[data-topics=state]", "live")
	if got := s.text("[data-topics=count]"); got != "1" {
		t.Errorf("there are %s topics, want 1", got)
	}
}
