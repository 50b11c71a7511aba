package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/origins"
	"github.com/sse-fanout/caddy-sse-fanout/e2e/wire"
)

// A mischief is an origin that serves the timeline well until it is told to do
// otherwise, behind a network that can be broken.
type mischief struct {
	*wire.Proxy
	server *origin
	other  atomic.Pointer[http.HandlerFunc]
	asked  atomic.Int64 // for what it does otherwise
	hung   atomic.Pointer[chan struct{}]
}

// A hanging writer waits while the origin hangs.
type hanging struct {
	http.ResponseWriter
	m *mischief
}

func (w hanging) Write(p []byte) (int, error) {
	if hung := w.m.hung.Load(); hung != nil {
		<-*hung
	}
	return w.ResponseWriter.Write(p)
}

func (w hanging) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// hang makes the origin neither answer nor send for a while.
func (m *mischief) hang(d time.Duration) {
	hung := make(chan struct{})
	m.hung.Store(&hung)
	time.Sleep(d) // how long the fault lasts, not a wait for something
	m.hung.Store(nil)
	close(hung)
}

func newMischief(t *testing.T) *mischief {
	t.Helper()
	m := new(mischief)
	good := timeline.Handler(origins.Identity)
	m.server = restartable(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if other := m.other.Load(); other != nil {
			m.asked.Add(1)
			(*other)(w, r)
			return
		}
		good.ServeHTTP(hanging{w, m}, r)
	}))
	proxy, err := wire.NewProxy(m.server.addr)
	if err != nil {
		t.Fatal(err)
	}
	m.Proxy = proxy
	t.Cleanup(proxy.Close)
	return m
}

// does makes the next connections get something else for a while.
func (m *mischief) does(d time.Duration, other http.HandlerFunc) {
	m.other.Store(&other)
	m.Cut(0)
	time.Sleep(d) // how long the fault lasts, not a wait for something
	m.other.Store(nil)
}

func status(code int, retryAfter string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		http.Error(w, "<h1>Down for maintenance</h1>", code)
	}
}

// An oneByOne sends each byte on its own.
type oneByOne struct{ http.ResponseWriter }

func (w oneByOne) Write(p []byte) (int, error) {
	rc := http.NewResponseController(w.ResponseWriter)
	for i := range p {
		if _, err := w.ResponseWriter.Write(p[i : i+1]); err != nil {
			return i, err
		}
		if err := rc.Flush(); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

func (w oneByOne) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// peak is the most that the process has had resident, in bytes.
func (p *process) peak(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if found == nil {
		t.Fatal("the process has no memory")
	}
	n, _ := strconv.Atoi(string(found[1]))
	return n << 10
}

// fewMiB is what Caddy may take for whatever else it does during a fault: its log,
// connections, what Go rounds up by.
const fewMiB = 24 << 20

// stays checks that no more than some memory was taken since the peak was before.
func (c *caddy) stays(t *testing.T, before, most int) {
	t.Helper()
	peak := c.peak(t)
	t.Logf("resident at most: %d MiB, before it %d MiB", peak>>20, before>>20)
	if peak-before > most+fewMiB {
		t.Errorf("%d MiB were resident, %d before, want %d more at most", peak>>20, before>>20, (most+fewMiB)>>20)
	}
}

// endlessLine sends a line of 1 GiB.
func endlessLine(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	chunk := bytes.Repeat([]byte("x"), 64<<10)
	_, err := w.Write([]byte("data: "))
	for sent := 0; err == nil && sent < 1<<30; sent += len(chunk) {
		_, err = w.Write(chunk)
	}
}

// told returns what the log says of upstreams, without times and names.
func (c *caddy) told(t *testing.T) []string {
	t.Helper()
	log, err := os.ReadFile(c.log)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	field := regexp.MustCompile(`"(level|msg|attempt|verdict|status|error|reason|last_event_id|delay)":("[^"]*"|[0-9.]+)`)
	for line := range bytes.Lines(log) {
		if bytes.Contains(line, []byte(`"http.handlers.sse_fanout"`)) && bytes.Contains(line, []byte(`"upstream `)) {
			lines = append(lines, string(bytes.Join(field.FindAll(line, -1), []byte(" "))))
		}
	}
	return lines
}

// Whatever the origin does, its clients keep their streams, and in the end have
// every event once and in order.
func TestOriginFaults(t *testing.T) { //nolint:tparallel // its cases share the machine among themselves only
	for _, tc := range []struct {
		name, option string
		strike       func(t *testing.T, m *mischief)
		log          string // what the log must say
		once         bool   // of each topic, as a warning
		flaps        bool   // it comes back between, each time
		memory       int    // that it may take at most, beyond fewMiB
	}{
		{name: "reset inside an event", log: "upstream lost", strike: func(_ *testing.T, m *mischief) { m.Cut(17) }},
		{name: "reset inside every event for a while", flaps: true, log: "upstream lost", strike: func(_ *testing.T, m *mischief) {
			m.Limit(func() int { return 200 })
			m.Cut(5)
			time.Sleep(3 * time.Second)
			m.Limit(nil)
			m.Cut(0)
		}},
		{name: "killed and restarted", log: "upstream unavailable", strike: func(t *testing.T, m *mischief) {
			m.server.kill()
			time.Sleep(2 * time.Second)
			m.server.restart(t)
		}},
		{name: "hung with the connection open", option: "idle_timeout 1s", log: "silent for longer than idle_timeout", strike: func(_ *testing.T, m *mischief) {
			m.hang(3 * time.Second)
		}},
		{name: "half-open TCP", option: "idle_timeout 1s", log: "silent for longer than idle_timeout", strike: func(_ *testing.T, m *mischief) {
			m.Swallow(true)
			time.Sleep(3 * time.Second)
			m.Swallow(false)
		}},
		{name: "byte by byte", log: "upstream lost", strike: func(_ *testing.T, m *mischief) {
			m.does(3*time.Second, func(w http.ResponseWriter, r *http.Request) {
				timeline.Handler(origins.Identity).ServeHTTP(oneByOne{w}, r)
			})
			m.Cut(0)
		}},
		{name: "503 with Retry-After", log: `"delay":2 `, strike: func(t *testing.T, m *mischief) {
			m.does(5*time.Second, status(503, "2"))
			if n := m.asked.Load(); n > 6 { // of two topics, at once, after 2 s and after 4 s
				t.Errorf("asked %d times within five seconds, though told to wait for two", n)
			}
		}},
		{name: "404 for the 20 s of a deploy", log: `"status":404`, strike: func(_ *testing.T, m *mischief) {
			m.does(20*time.Second, status(404, ""))
		}},
		{name: "a maintenance page for 20 s", log: "not an event stream", strike: func(_ *testing.T, m *mischief) {
			m.does(20*time.Second, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				fmt.Fprint(w, "<h1>Down for maintenance</h1>")
			})
		}},
		{
			name: "a line of 1 GiB", log: "raise max_event_size above 16777216 bytes", once: true, flaps: true,
			// Each of two topics has 16 MiB of the line, and for the moment in
			// which that is copied the half that it was before; Go lets garbage
			// grow to as much as is in use before it collects it.
			memory: 2 * 2 * (16 + 8) << 20,
			strike: func(t *testing.T, m *mischief) {
				m.does(5*time.Second, endlessLine)
				if n := m.asked.Load(); n < 2*3 {
					t.Errorf("asked %d times within five seconds, want each topic to try again", n)
				}
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := newMischief(t)
			caddy := runCaddy(t, "debug", fmt.Sprintf(`HTTP, HTTPS {
	sse_fanout %s {
		reconnect 100ms 500ms
		%s
	}
}`, m.Addr(), tc.option))
			all := connect(t, caddy, "/events", 2)
			awaitConnected(t, all, now()+10)
			before := caddy.peak(t)
			tc.strike(t, m)
			awaitConnected(t, all, now()+20)
			unbroken(t, all)

			told := caddy.told(t)
			t.Logf("the log says:\n\t%s", strings.Join(told, "\n\t"))
			if !strings.Contains(strings.Join(told, "\n"), tc.log) {
				t.Errorf("the log does not say %q", tc.log)
			}
			loud, warned := 0, 0
			for _, line := range told {
				if !strings.Contains(line, `"debug"`) {
					loud++
				}
				if strings.Contains(line, `"warn"`) && strings.Contains(line, tc.log) {
					warned++
				}
			}
			if tc.once && warned != 2 { // of two topics
				t.Errorf("the log warns %d times of it, want once for each topic", warned)
			}
			if !tc.flaps && loud > 10 { // of two topics
				t.Errorf("the log says too much: %d lines", loud)
			}
			caddy.stays(t, before, tc.memory)
		})
	}
}

// An origin that moves to another machine: reverse_proxy's health checks find it.
func TestOriginMoves(t *testing.T) {
	here, there := movable(t), movable(t)
	there.kill()
	sites := fmt.Sprintf(`HTTP, HTTPS {
	sse_fanout %s %s {
		reconnect 100ms 500ms
		lb_policy first
		health_uri /health
		health_interval 200ms
		health_timeout 1s
	}
}`, here.addr, there.addr)
	caddy := runCaddy(t, "", sites)
	all := connect(t, caddy, "/events", 2)
	awaitConnected(t, all, now()+10)
	for range 2 {
		here.kill()
		there.restart(t)
		awaitConnected(t, all, now()+20)
		// The health checks go on after a reload that changes nothing.
		if err := caddy.load(t, "", sites); err != nil {
			t.Fatal(err)
		}
		here, there = there, here
	}
	unbroken(t, all)
}

// movable is an origin in this process that can be killed and restarted.
func movable(t *testing.T) *origin {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/", timeline.Handler(origins.Identity))
	mux.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
	return restartable(t, mux)
}

func restartable(t *testing.T, handler http.Handler) *origin {
	t.Helper()
	o := &origin{addr: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	o.restart = func(t *testing.T) {
		t.Helper()
		ln, err := net.Listen("tcp", o.addr)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: handler}
		go server.Serve(ln)
		o.kill = func() { server.Close() }
	}
	o.restart(t)
	t.Cleanup(func() { o.kill() })
	return o
}
