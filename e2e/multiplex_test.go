package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// tabbedBrowser is a browser and its tabs, over WebDriver BiDi.
type tabbedBrowser struct {
	t *testing.T

	mu sync.Mutex

	// Guarded by mu.
	input   *json.Encoder
	waiting map[int]chan tabAnswer
	last    int
}

type tabAnswer struct {
	ID     int             `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  string          `json:"error"`
}

func startTabs(t *testing.T, dir, browser, executable string) *tabbedBrowser {
	t.Helper()
	cmd := exec.Command(program(t, "nodejs", "node"), filepath.Join(dir, "tabs.js"), browser, executable, t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	var log bytes.Buffer
	cmd.Stderr = &log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b := &tabbedBrowser{t: t, input: json.NewEncoder(stdin), waiting: make(map[int]chan tabAnswer)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(stdout)
		lines.Buffer(nil, 64<<20)
		for lines.Scan() {
			var a tabAnswer
			if json.Unmarshal(lines.Bytes(), &a) != nil {
				continue
			}
			b.mu.Lock()
			b.waiting[a.ID] <- a
			b.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		stdin.Close()
		kill := time.AfterFunc(10*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		<-read
		_ = cmd.Wait()
		kill.Stop()
		if t.Failed() && log.Len() > 0 {
			t.Logf("%s: %s", browser, log.Bytes()[max(0, log.Len()-2<<10):])
		}
	})
	return b
}

func (b *tabbedBrowser) ask(asked map[string]any, result any) error {
	answer := make(chan tabAnswer, 1)
	b.mu.Lock()
	b.last++
	asked["id"] = b.last
	b.waiting[b.last] = answer
	err := b.input.Encode(asked)
	b.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case a := <-answer:
		if a.Error != "" {
			return errors.New(a.Error)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(a.Result, result)
	case <-time.After(60 * time.Second):
		return errors.New("the browser does not answer")
	}
}

func (b *tabbedBrowser) do(asked map[string]any) {
	b.t.Helper()
	if err := b.ask(asked, nil); err != nil {
		b.t.Fatalf("%v: %v", asked, err)
	}
}

// open opens a page in n tabs at once.
func (b *tabbedBrowser) open(n int, url string) {
	b.t.Helper()
	var opening sync.WaitGroup
	for range n {
		opening.Go(func() {
			if err := b.ask(map[string]any{"open": url}, nil); err != nil {
				b.t.Errorf("opening a tab: %v", err)
			}
		})
	}
	opening.Wait()
	if b.t.Failed() {
		b.t.FailNow()
	}
}

// A heard is what an EventSource of a page has seen.
type heard struct {
	IDs     []int `json:"ids"`
	Opens   int   `json:"opens"`
	Errors  int   `json:"errors"`
	Strange int   `json:"strange"`
	State   int   `json:"state"`
}

// unbroken says whether nothing was lost, repeated, or told with something wrong.
func (h *heard) unbroken() error {
	for i, id := range h.IDs {
		if want := h.IDs[0] + i; id != want {
			return fmt.Errorf("it has event %d where %d was due", id, want)
		}
	}
	if h.Strange != 0 {
		return fmt.Errorf("%d events were told with another id, origin or target", h.Strange)
	}
	return nil
}

// awaitEvent waits until all streams of these tabs are open and have an event, and nothing
// was lost.
func (b *tabbedBrowser) awaitEvent(what string, newest int, tabs ...int) {
	b.t.Helper()
	for _, tab := range tabs {
		eventually(b.t, 60*time.Second, func() error {
			var all []heard
			if err := b.ask(map[string]any{"tab": tab, "evaluate": "look()"}, &all); err != nil {
				return err
			}
			for i := range all {
				h := &all[i]
				if err := h.unbroken(); err != nil {
					b.t.Fatalf("%s: tab %d, stream %d: %v", what, tab, i, err)
				}
				if h.State != 1 || len(h.IDs) == 0 || h.IDs[len(h.IDs)-1] < newest {
					return fmt.Errorf("%s: tab %d, stream %d is in state %d with %d events, want event %d", what, tab, i, h.State, len(h.IDs), newest)
				}
			}
			return nil
		})
	}
}

var multiplexConnections = regexp.MustCompile(`caddy_sse_fanout_multiplex_connections (\d+)`)

// awaitConnections waits until Caddy has so many connections of sse_multiplex.
func (c *caddy) awaitConnections(t *testing.T, want int) {
	t.Helper()
	c.awaitMetric(t, multiplexConnections, want)
}

// awaitMetric waits until a metric, whose value the expression has, is as wanted.
func (c *caddy) awaitMetric(t *testing.T, metric *regexp.Regexp, want int) {
	t.Helper()
	eventually(t, 30*time.Second, func() error {
		resp, err := http.Get(string(c.admin) + "/metrics")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		m := metric.FindSubmatch(text)
		if m == nil {
			return errors.New("there is no such metric")
		}
		if n, _ := strconv.Atoi(string(m[1])); n != want {
			return fmt.Errorf("got %s, want %d", m[0], want)
		}
		return nil
	})
}

// Ten tabs with three streams each share one connection, and miss nothing whatever happens:
// tabs that close, the one that has the connection among them; a tab that goes elsewhere and
// comes back; a restart of the origin; a reload of Caddy.
func TestTabsShareOneConnection(t *testing.T) {
	dir := installed(t, "testdata/clients")
	pages, err := filepath.Abs("testdata/browser")
	if err != nil {
		t.Fatal(err)
	}
	for _, browser := range []struct {
		name   string
		binary []string
	}{
		{"chrome", []string{"chromium", "chromium", "chromium-browser", "google-chrome"}},
		{"firefox", []string{"firefox-esr", "firefox-esr", "firefox"}},
	} {
		for _, protocol := range []string{"HTTP/1.1", "HTTP/2"} {
			for _, means := range []string{"a worker", "a lock"} {
				t.Run(browser.name+", "+protocol+", "+means, func(t *testing.T) {
					origin := node(t)
					site := func(note string) string {
						return fmt.Sprintf(`HTTP, HTTPS {
	handle /streams* {
		sse_multiplex
	}
	handle /events {
		sse_fanout %s
	}
	handle /note {
		respond %s
	}
	handle {
		root %s
		file_server
	}
}`, origin.addr, note, pages)
					}
					caddy := runCaddy(t, "", site("before"))
					// What is not of this host is no secure context, which has no locks.
					base := fmt.Sprintf("http://localhost:%s", caddy.http[len("http://127.0.0.1:"):])
					if protocol == "HTTP/2" {
						base = caddy.https
					}
					url := base + "/multiplex.html"
					if means == "a lock" {
						url += "?worker=off"
					}
					b := startTabs(t, dir, browser.name, program(t, browser.binary[0], browser.binary[1:]...))
					b.open(10, url)
					all := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
					b.awaitEvent("opened", now()+10, all...)
					caddy.awaitConnections(t, 1)

					for tab := range 5 {
						b.do(map[string]any{"tab": tab, "close": true})
					}
					b.awaitEvent("tabs have closed", now()+10, all[5:]...)
					caddy.awaitConnections(t, 1)

					b.do(map[string]any{"tab": 5, "go": base + "/note"})
					b.awaitEvent("a tab is elsewhere", now()+10, all[6:]...)
					b.do(map[string]any{"tab": 5, "back": true})
					b.awaitEvent("a tab is back", now()+10, all[5:]...)
					caddy.awaitConnections(t, 1)

					origin.kill()
					time.Sleep(time.Second) // how long a restart takes, not a wait for something
					origin.restart(t)
					b.awaitEvent("the origin was restarted", now()+10, all[5:]...)

					if err := caddy.load(t, "", site("after")); err != nil {
						t.Fatal(err)
					}
					b.awaitEvent("Caddy was reloaded", now()+10, all[5:]...)
					caddy.awaitConnections(t, 1)
				})
			}
		}
	}
}

// scripted is an origin whose streams the page of the contract knows.
func scripted(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	w.Header().Set("Content-Type", "text/event-stream")
	if kind := query.Get("type"); kind != "" {
		w.Header().Set("Content-Type", kind)
	}
	if status, err := strconv.Atoi(query.Get("status")); err == nil {
		w.WriteHeader(status)
		return
	}
	if r.URL.Path == "/format" {
		_, _ = io.WriteString(w, query.Get("body"))
		return
	}
	wait := true
	text := "data: one\n\n: nothing\n\nid: 1\ndata: two\ndata: lines\n\nid: a b\nevent: named\ndata: é 😀\n\n" +
		"data\n\nevent: open\ndata: o\n\nevent: error\ndata: e\n\nevent: end\ndata: n\n\nevent: ~x\ndata: t\n\n" +
		"id\ndata: reset\n\nid: 2\ndata:  space\n\nevent: last\ndata\n\n"
	switch r.URL.Path {
	case "/asked":
		text = fmt.Sprintf("data: %s %s %s\n\n", r.Method, r.Header.Get("Accept"), r.Header.Get("Last-Event-ID"))
	case "/ending":
		text = "retry: 1000\nid: 7\ndata: after " + r.Header.Get("Last-Event-ID") + "\n\n"
		if wait = r.Header.Get("Last-Event-ID") != ""; wait {
			text += "event: last\ndata\n\n"
		}
	}
	_, _ = io.WriteString(w, text)
	_ = http.NewResponseController(w).Flush()
	if wait {
		<-r.Context().Done()
	}
}

// The EventSource of client.js keeps what the browser's own does.
func TestClientKeepsTheContractOfEventSource(t *testing.T) {
	dir := installed(t, "testdata/clients")
	pages, err := filepath.Abs("testdata/browser")
	if err != nil {
		t.Fatal(err)
	}
	origin := inGo(t, http.HandlerFunc(scripted))
	caddy := runCaddy(t, "", fmt.Sprintf(`HTTP {
	handle /streams* {
		sse_multiplex
	}
	@streams path /scripted /ending /asked /answer /format
	handle @streams {
		reverse_proxy %s
	}
	redir /moved /scripted {query.status}
	handle /gone {
		respond 204
	}
	handle /forbidden {
		respond 403
	}
	handle /page {
		respond "a page"
	}
	handle {
		root %s
		file_server
	}
}`, origin.addr, pages))
	for name, binary := range map[string][]string{
		"chrome":  {"chromium", "chromium", "chromium-browser", "google-chrome"},
		"firefox": {"firefox-esr", "firefox-esr", "firefox"},
	} {
		t.Run(name, func(t *testing.T) {
			b := startTabs(t, dir, name, program(t, binary[0], binary[1:]...))
			b.open(1, "http://localhost"+caddy.http[len("http://127.0.0.1"):]+"/contract.html")
			for _, kind := range []string{"native", "shared"} {
				var failed []string
				if err := b.ask(map[string]any{"tab": 0, "evaluate": fmt.Sprintf("run(%q)", kind)}, &failed); err != nil {
					t.Fatalf("%s: %v", kind, err)
				}
				for _, f := range failed {
					t.Errorf("%s: %s", kind, f)
				}
			}
		})
	}
}
