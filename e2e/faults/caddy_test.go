package faults

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/adminapi"
)

// A caddy is the Caddy under test, over all its restarts.
type caddy struct {
	*process
	title         string        // what the log is called by
	config        func() string // its Caddyfile, as it is now
	dir           string
	admin         int
	http, https   int    // https: 0 if it does not speak TLS
	origin, proxy string // where upstreams are: of the endpoint form, of the wrapping form

	// What reloads change.
	heartbeat int // of the handlers, in milliseconds
	greeting  string
}

func newCaddy(t *testing.T, origin, proxy string) *caddy {
	t.Helper()
	c := &caddy{
		title: "caddy", dir: t.TempDir(), origin: origin, proxy: proxy, heartbeat: 2000, greeting: "hello",
		admin: freePort(t), http: freePort(t), https: freePort(t),
	}
	c.config = c.caddyfile
	c.run(t)
	return c
}

// run starts Caddy, and ends it with the test.
func (c *caddy) run(t *testing.T) {
	t.Helper()
	c.launch(t)
	t.Cleanup(func() {
		if took, ok := c.terminate(10 * time.Second); !ok {
			t.Errorf("Caddy was still running %s after SIGTERM", took)
		}
		if log := c.logged("panic"); log != "" {
			t.Errorf("Caddy panicked: %s", log)
		}
		if t.Failed() {
			t.Logf("log of Caddy: %s", c.keepLog())
		}
	})
}

func (c *caddy) log() string { return filepath.Join(c.dir, "caddy.log") }

// keepLog saves the log from the cleanup.
func (c *caddy) keepLog() string {
	content, _ := os.ReadFile(c.log())
	name := filepath.Join(os.TempDir(), fmt.Sprintf("sse-faults-%d-%s.log", os.Getpid(), c.title))
	_ = os.WriteFile(name, content, 0o600)
	return name
}

// keepStacks saves what all goroutines are at.
func (c *caddy) keepStacks(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	stacks, err := c.adminEndpoint().Get(ctx, "/debug/pprof/goroutine?debug=2")
	if err != nil {
		t.Logf("asking what Caddy is at: %v", err)
		return
	}
	name := filepath.Join(os.TempDir(), fmt.Sprintf("sse-faults-%d-%s.stacks", os.Getpid(), c.title))
	_ = os.WriteFile(name, stacks, 0o600)
	t.Logf("what Caddy is at: %s", name)
}

// logged returns the lines of the log that contain a text.
func (c *caddy) logged(text string) string {
	content, _ := os.ReadFile(c.log())
	var found strings.Builder
	for line := range bytes.Lines(content) {
		if bytes.Contains(line, []byte(text)) {
			found.Write(line)
		}
	}
	return found.String()
}

func (c *caddy) caddyfile() string {
	// An idle connection to the origin must not outlast the test.
	const transport = `
			transport http {
				keepalive 5s
			}`
	options := fmt.Sprintf(`
			history 300 10s
			catchup 2 5s
			gap_event %s
			heartbeat %dms
			linger 2s
			reconnect 100ms 1s
			idle_timeout 3s
			dispatch_timeout 3s
			stream_close_delay 2s
			wait 3s
			direct %s`, gapEvent, c.heartbeat, *direct)
	return fmt.Sprintf(`{
	admin 127.0.0.1:%d
	http_port %d
	https_port %d
	auto_https disable_redirects
	skip_install_trust
	local_certs
	persist_config off
	log default {
		exclude http.handlers.sse_fanout
	}
	log fanout {
		include http.handlers.sse_fanout
		level DEBUG
	}
}
http://:%d, https://localhost:%d {
	handle /endpoint/* {
		sse_fanout %s {%s%s
		}
	}
	handle /wrapping/* {
		sse_fanout {%s
		}
		reverse_proxy %s {%s
		}
	}
	respond %q
}
`, c.admin, c.http, c.https, c.http, c.https, c.origin, options, transport, options, c.proxy, transport, c.greeting)
}

func (c *caddy) launch(t *testing.T) {
	t.Helper()
	file := filepath.Join(c.dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(c.config()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(*caddyBinary, "run", "--config", file, "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+c.dir, "XDG_CONFIG_HOME="+c.dir)
	c.process = start(t, "Caddy", c.log(), cmd)
	c.stuck = func() { c.keepStacks(t) }
	eventually(t, 30*time.Second, func() error {
		select {
		case <-c.exited:
			content, _ := os.ReadFile(c.log())
			t.Fatalf("Caddy ended: %v\n%s", cmd.ProcessState, content)
		default:
		}
		if c.https == 0 {
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", c.http))
			if err != nil {
				return err
			}
			return conn.Close()
		}
		// The certificate is made in the background.
		conn, err := tls.Dial("tcp", fmt.Sprintf("localhost:%d", c.https), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// reload loads the configuration, also if nothing in it has changed.
func (c *caddy) reload() error {
	return c.adminEndpoint().Load(context.Background(), c.config())
}

func (c *caddy) adminEndpoint() adminapi.Endpoint {
	return adminapi.Endpoint(fmt.Sprintf("http://127.0.0.1:%d", c.admin))
}

// A footprint is what Caddy takes.
type footprint struct {
	goroutines, files int
	rss, heap         int // KiB
}

func (f footprint) String() string {
	return fmt.Sprintf("%d goroutines, %d open files, %d MiB resident, %d MiB of heap", f.goroutines, f.files, f.rss>>10, f.heap>>10)
}

func (f footprint) within(most footprint) bool {
	return f.goroutines <= most.goroutines && f.files <= most.files && f.rss <= most.rss && f.heap <= most.heap
}

var (
	goroutineTotal = regexp.MustCompile(`goroutine profile: total (\d+)`)
	heapInUse      = regexp.MustCompile(`# HeapAlloc = (\d+)`)
)

func (c *caddy) footprint() (footprint, error) {
	ctx := context.Background()
	heap, err := c.adminEndpoint().Figure(ctx, "heap?debug=1&gc=1", heapInUse)
	if err != nil {
		return footprint{}, err
	}
	goroutines, err := c.adminEndpoint().Figure(ctx, "goroutine?debug=1", goroutineTotal)
	return footprint{goroutines, c.files(), c.status("VmRSS"), heap >> 10}, err
}
