package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// runMultiplex measures sse_multiplex beside what it takes the place of: n connections with
// several streams each, and as many streams with a connection each. It starts Caddy itself,
// and prints a report of each.
func runMultiplex(args []string) error {
	flags := flag.NewFlagSet("multiplex", flag.ContinueOnError)
	var (
		caddy   = flags.String("caddy", "", "the Caddy under test, a binary with this module (required)")
		conns   = flags.Int("connections", 1000, "connections with several streams")
		streams = flags.Int("streams", 10, "streams of each, at most 32")
		rate    = flags.Float64("rate", 10, "events a second of each stream")
		size    = flags.Int("size", 200, "bytes of an event")
		window  = flags.Duration("window", 12*time.Second, "how long is measured")
		settle  = flags.Duration("settle", 3*time.Second, "how long all are connected before that")
		direct  = flags.String("direct", "on", "the option direct of sse_fanout and sse_multiplex")
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *caddy == "" || *streams < 1 || *streams > 32 {
		return errors.New("multiplex: -caddy is required, and -streams is from 1 to 32")
	}
	if err := raiseFileLimit(uint64(*conns**streams + 500)); err != nil {
		return err
	}
	m := &multiplexBench{streams: *streams, rate: *rate, size: *size, settle: *settle, window: *window, direct: *direct}
	query := make([]string, *streams)
	for i := range query {
		query[i] = fmt.Sprintf("s%d=/events/%d", i, i)
	}
	for _, w := range []struct {
		name  string
		conns int
		path  func(i int) string
	}{
		{"multiplexed", *conns, func(int) string { return "/streams?" + strings.Join(query, "&") }},
		{"one each", *conns * *streams, func(i int) string { return "/events/" + strconv.Itoa(i%*streams) }},
	} {
		report, err := m.measure(*caddy, w.conns, w.path)
		if err != nil {
			return fmt.Errorf("multiplex: %s: %w", w.name, err)
		}
		report.Workload = w.name
		if err := printJSON(report); err != nil {
			return err
		}
	}
	return nil
}

type multiplexBench struct {
	streams, size  int
	rate           float64
	settle, window time.Duration
	direct         string

	measuring atomic.Bool
	seen      [16]seenShard // a histogram for each client would take 30 KB
}

type seenShard struct {
	mu      sync.Mutex
	latency histogram // guarded by mu
}

type multiplexReport struct {
	Workload    string        `json:"workload"`
	Connections int           `json:"connections"`
	Deliveries  int64         `json:"deliveries"`
	Expected    int64         `json:"expected"`
	BaseKiB     int64         `json:"base_kib"`
	MemoryKiB   float64       `json:"memory_kib_per_connection"`
	CPUMicros   float64       `json:"cpu_us_per_delivery"`
	CoresUsed   float64       `json:"cores"`
	Latency     latencyReport `json:"latency"`
}

// measure starts Caddy, connects, and measures for a while.
func (m *multiplexBench) measure(caddy string, conns int, path func(int) string) (*multiplexReport, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: http.HandlerFunc(m.serveOrigin), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(origin) }()
	defer server.Close()
	address, process, stop, err := startMultiplexCaddy(caddy, origin.Addr().String(), m.direct)
	if err != nil {
		return nil, err
	}
	defer stop()
	base, _ := memoryOf(process, false)

	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	failed := make(chan error, conns)
	for i := range conns {
		running.Go(func() {
			if err := m.follow(ctx, address, path(i), &m.seen[i%len(m.seen)]); err != nil && ctx.Err() == nil {
				failed <- err
			}
		})
		time.Sleep(250 * time.Microsecond)
	}
	time.Sleep(m.settle)
	m.seen = [16]seenShard{}
	before, began := cpuOf(process), time.Now()
	m.measuring.Store(true)
	time.Sleep(m.window)
	m.measuring.Store(false)
	took, used := time.Since(began), cpuOf(process)-before
	rss, _ := memoryOf(process, false)
	select {
	case err := <-failed:
		return nil, err
	default:
	}
	var latency histogram
	for i := range m.seen {
		m.seen[i].mu.Lock()
		latency.merge(&m.seen[i].latency)
		m.seen[i].mu.Unlock()
	}
	n := int64(latency.total)
	perConn := float64(m.streams)
	if conns > 0 && strings.HasPrefix(path(0), "/events/") {
		perConn = 1
	}
	return &multiplexReport{
		Connections: conns,
		Deliveries:  n,
		Expected:    int64(float64(conns) * perConn * m.rate * took.Seconds()),
		BaseKiB:     base >> 10,
		MemoryKiB:   float64(rss-base) / 1024 / float64(conns),
		CPUMicros:   float64(used.Microseconds()) / float64(max(n, 1)),
		CoresUsed:   used.Seconds() / took.Seconds(),
		Latency:     latency.report(),
	}, nil
}

// serveOrigin sends events until its client leaves. Those of different streams are spread
// over time.
func (m *multiplexBench) serveOrigin(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	number, _ := strconv.Atoi(filepath.Base(r.URL.Path))
	interval := time.Duration(float64(time.Second) / m.rate)
	time.Sleep(interval * time.Duration(number) / time.Duration(m.streams))
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	var b []byte
	for n := uint64(1); control.Flush() == nil; n++ {
		select {
		case <-ticker.C:
		case <-r.Context().Done():
			return
		}
		b = appendEvent(b[:0], n, time.Now().UnixNano(), m.size, true)
		_, _ = w.Write(b)
	}
}

// follow reads the streams of one connection.
func (m *multiplexBench) follow(ctx context.Context, address, path string, seen *seenShard) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\nPragma: no-cache\r\nUser-Agent: Mozilla/5.0\r\n\r\n", path, address); err != nil {
		return err
	}
	lines := bufio.NewReaderSize(conn, 4<<10)
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return err
		}
		_, made, ok := bytes.Cut(line, []byte(`"t":`))
		if !ok || !m.measuring.Load() {
			continue
		}
		var t int64
		for _, c := range made {
			if c < '0' || c > '9' {
				break
			}
			t = t*10 + int64(c-'0')
		}
		late := time.Now().UnixNano() - t
		seen.mu.Lock()
		seen.latency.record(late)
		seen.mu.Unlock()
	}
}

// cpuOf returns the processor time that a process has used.
func cpuOf(pid int) time.Duration {
	f := statFields(pid)
	if f == nil {
		return 0
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * clockTick
}

// startMultiplexCaddy starts Caddy in front of an origin.
func startMultiplexCaddy(binary, origin, direct string) (address string, pid int, stop func(), err error) {
	dir, err := os.MkdirTemp("", "sseload-")
	if err != nil {
		return "", 0, nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", 0, nil, err
	}
	address = l.Addr().String()
	_ = l.Close()
	config := fmt.Sprintf("{\n\tadmin off\n\tpersist_config off\n\tlog {\n\t\tlevel ERROR\n\t}\n}\nhttp://%s {\n\thandle /streams* {\n\t\tsse_multiplex {\n\t\t\tdirect %s\n\t\t}\n\t}\n\thandle {\n\t\tsse_fanout %s {\n\t\t\tdirect %s\n\t\t}\n\t}\n}\n",
		address, direct, origin, direct)
	file := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return "", 0, nil, err
	}
	cmd := exec.Command(binary, "run", "--config", file) //nolint:gosec // the operator's own binary
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return "", 0, nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	}
	for range 200 {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return address, cmd.Process.Pid, stop, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	return "", 0, nil, errors.New("waiting for Caddy: it does not listen")
}
