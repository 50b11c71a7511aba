package e2e

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/e2e/origins"
)

// load gives the running process a configuration without a process of its own,
// also if nothing has changed.
func (c *caddy) load(t *testing.T, globals, sites string) error {
	t.Helper()
	return c.admin.Load(t.Context(), c.config(globals, sites))
}

// figure reads a number that a profile of the process begins with, or ends with.
func (c *caddy) figure(t *testing.T, profile, pattern string) int {
	t.Helper()
	n, err := c.admin.Figure(t.Context(), profile, regexp.MustCompile(pattern))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (c *caddy) goroutines(t *testing.T) int {
	t.Helper()
	return c.figure(t, "goroutine?debug=1", `total (\d+)`)
}

// heap is what the process has allocated after a collection, in bytes.
func (c *caddy) heap(t *testing.T) int {
	t.Helper()
	return c.figure(t, "heap?debug=1&gc=1", `# HeapAlloc = (\d+)`)
}

// connected is a client that must not notice anything.
type connected struct {
	name   string
	source *eventsource.Source
	*watcher
}

// connect lets clients of all protocols follow a stream until the test ends.
func connect(t *testing.T, c *caddy, path string, each int) (all []*connected) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{}, 3*each)
	for _, via := range []struct {
		name, base string
		client     *http.Client
	}{
		{"HTTP/1.1", c.http, httpClient(t, "h1")},
		{"HTTP/2", c.https, httpClient(t, "h2")},
		{"HTTP/3", c.https, h3Client(t)},
	} {
		for range each {
			n := &connected{name: via.name + " " + path, watcher: new(watcher)}
			n.source = &eventsource.Source{URL: via.base + path, Client: via.client, OnEvent: func(e eventsource.Event) {
				n.mu.Lock()
				defer n.mu.Unlock()
				if err := n.add(event{e.ID, e.Type, e.Data}); err != nil && n.err == nil {
					n.err = err
				}
			}}
			all = append(all, n)
			go func() {
				defer func() { ended <- struct{}{} }()
				if err := n.source.Run(ctx); err != nil {
					n.mu.Lock()
					n.err = err
					n.mu.Unlock()
				}
			}()
		}
	}
	t.Cleanup(func() {
		cancel()
		for range all {
			<-ended
		}
	})
	return all
}

// quicIdle is after what time a client of HTTP/3 knows that its connection is gone if
// the packet that says so is lost (RFC 9000, section 10.1; quic-go's default).
const quicIdle = 30 * time.Second

// awaitConnected waits until all have an event, and have missed none before it.
func awaitConnected(t *testing.T, all []*connected, n int) {
	t.Helper()
	eventually(t, quicIdle+20*time.Second, func() error {
		for _, c := range all {
			c.mu.Lock()
			last, err := c.last, c.err
			c.mu.Unlock()
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if last < n {
				return fmt.Errorf("%s is at event %d, not at %d, and has connected %d times", c.name, last, n, c.source.Opened())
			}
		}
		return nil
	})
}

func unbroken(t *testing.T, all []*connected) {
	t.Helper()
	for _, c := range all {
		if n := c.source.Opened(); n != 1 {
			t.Errorf("%s has connected %d times, want once", c.name, n)
		}
	}
}

// site has both forms over one origin.
func bothForms(addr, option, greeting string) string {
	return fmt.Sprintf(`HTTP, HTTPS {
	handle /endpoint {
		sse_fanout %s {
			retry 200ms
			stream_close_delay 1s
			%s
		}
	}
	handle /wrapping {
		sse_fanout {
			retry 200ms
			stream_close_delay 1s
			%s
		}
		reverse_proxy %s
	}
	respond %q
}`, addr, option, option, addr, greeting)
}

func TestReloadKeepsStreamsOfAllProtocols(t *testing.T) {
	conns := countConnections(t, encoded(origins.Identity)(t).addr)
	caddy := runCaddy(t, "", bothForms(conns.addr, "", "hello"))
	endpoint := connect(t, caddy, "/endpoint", 4)
	wrapping := connect(t, caddy, "/wrapping", 4)
	all := append(endpoint, wrapping...)
	awaitConnected(t, all, now()+10)
	_, _, before := conns.count() // of four topics: http and https of each form

	t.Run("unchanged", func(t *testing.T) {
		for range 3 {
			if err := caddy.load(t, "", bothForms(conns.addr, "", "hello")); err != nil {
				t.Fatal(err)
			}
		}
		awaitConnected(t, all, now()+10)
		unbroken(t, all)
		if _, _, total := conns.count(); total != before {
			t.Errorf("%d connections to the origin were made, want none", total-before)
		}
	})
	t.Run("failed", func(t *testing.T) {
		if err := caddy.load(t, "", bothForms(conns.addr, "history never", "hello")); err == nil {
			t.Error("a configuration that cannot be was taken")
		}
		// This one fails only when everything is provisioned.
		busy := "http://127.0.0.1:1 {\n\tbind 192.0.2.1\n\trespond hello\n}\n"
		if err := caddy.load(t, "", bothForms(conns.addr, "", "hello")+"\n"+busy); err == nil {
			t.Error("a configuration that cannot listen was taken")
		}
		awaitConnected(t, all, now()+10)
		unbroken(t, all)
		if _, _, total := conns.count(); total != before {
			t.Errorf("%d connections to the origin were made, want none", total-before)
		}
	})
	t.Run("the first request switches the wrapping form", func(t *testing.T) {
		if err := caddy.load(t, "", bothForms(conns.addr, "", "hello")); err != nil {
			t.Fatal(err)
		}
		late := connect(t, caddy, "/wrapping", 1)
		awaitConnected(t, append(all, late...), now()+10)
		unbroken(t, all)
		eventually(t, 10*time.Second, func() error {
			// One new connection for each host, in place of the old one.
			if now, _, total := conns.count(); now != before || total != before+2 {
				return fmt.Errorf("the origin has %d connections, had %d in all; want %d and %d", now, total, before, before+2)
			}
			return nil
		})
	})
	t.Run("changed", func(t *testing.T) {
		if err := caddy.load(t, "", bothForms(conns.addr, "history 500", "hello")); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, func() error {
			for _, c := range all {
				if c.source.Opened() < 2 {
					return fmt.Errorf("%s is still where it was", c.name)
				}
			}
			return nil
		})
		awaitConnected(t, all, now()+10)
	})
}

// After a reload that leaves the handler as it was, the old reverse_proxy is half
// dead: the next connection must be made by the new one, and no client notice.
func TestReconnectAfterAReloadIsTheNewConfigurations(t *testing.T) {
	conns := countConnections(t, encoded(origins.Identity)(t).addr)
	caddy := runCaddy(t, "", bothForms(conns.addr, "", "hello"))
	all := connect(t, caddy, "/endpoint", 2)
	awaitConnected(t, all, now()+10)
	for i := range 3 {
		if err := caddy.load(t, "", bothForms(conns.addr, "", fmt.Sprint("hello", i))); err != nil {
			t.Fatal(err)
		}
		_, _, before := conns.count()
		conns.cut()
		awaitConnected(t, all, now()+20)
		if _, _, total := conns.count(); total != before+2 {
			t.Errorf("%d connections to the origin were made, want one for each of two topics", total-before)
		}
	}
	unbroken(t, all)
}

// Old configurations must be let go of, with all that belongs to them.
func TestReloadsUnderLoadLeaveNothingBehind(t *testing.T) {
	const reloads = 200
	conns := countConnections(t, encoded(origins.Identity)(t).addr)
	caddy := runCaddy(t, "", bothForms(conns.addr, "", "hello"))
	all := append(connect(t, caddy, "/endpoint", 20), connect(t, caddy, "/wrapping", 20)...)
	awaitConnected(t, all, now()+5)
	reload := func(i int) {
		option, greeting := "", fmt.Sprint("hello", i)
		if i%20 == 19 {
			option = fmt.Sprintf("history %d", 500+i) // the clients move
		}
		if err := caddy.load(t, "", bothForms(conns.addr, option, greeting)); err != nil {
			t.Fatal(err)
		}
	}
	settled := func() (goroutines, heap int) {
		awaitConnected(t, all, now()+40) // longer than stream_close_delay
		return caddy.goroutines(t), caddy.heap(t)
	}
	for i := range 20 {
		reload(i)
	}
	goroutines, heap := settled()
	for i := range reloads {
		reload(i)
	}
	var after, size int
	// A connection of HTTP/3 whose last packet was lost stays for as long as it may be idle.
	eventually(t, quicIdle+20*time.Second, func() error {
		after, size = settled()
		if after > goroutines+20 || size > heap+4<<20 {
			return fmt.Errorf("%d goroutines and %d KiB of heap after %d reloads, %d and %d before",
				after, size>>10, reloads, goroutines, heap>>10)
		}
		return nil
	})
	t.Logf("%d goroutines and %d KiB of heap after %d reloads, %d and %d before", after, size>>10, reloads, goroutines, heap>>10)
}
