package e2e

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/e2e/origins"
	"github.com/sse-fanout/caddy-sse-fanout/e2e/wire"
)

// A thousand clients come to a Caddy that was just started, with hundreds of
// different positions: the origin sees the shared connection and two that catch
// up, whoever waits for them, and nobody misses or repeats an event.
func TestCaddyRestartUnderClientsWithManyPositions(t *testing.T) {
	const (
		many     = 1000
		distinct = 300
		catchups = 2
	)
	past := origins.Timeline{Epoch: time.Now().Add(-time.Minute)}
	at := func() int { return int(time.Since(past.Epoch) / origins.Interval) }
	conns := countConnections(t, inGo(t, past.Handler(origins.Identity)).addr)
	caddy := runCaddy(t, "", fmt.Sprintf("HTTP {\n\tsse_fanout %s {\n\t\tretry 500ms\n\t}\n}", conns.addr))

	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	client := httpClient(t, "h1")
	watchers := make([]*watcher, many)
	newest := at()
	for i := range watchers {
		last := newest - 1 - i%distinct
		w := &watcher{sequence: sequence{last: last, count: 1}}
		watchers[i] = w
		source := &eventsource.Source{URL: caddy.http + "/events", Client: client, LastID: strconv.Itoa(last)}
		source.OnEvent = func(e eventsource.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if err := w.add(event{e.ID, e.Type, e.Data}); err != nil {
				w.err = errors.Join(w.err, err)
			}
		}
		running.Go(func() {
			if err := source.Run(ctx); err != nil {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.err = err
			}
		})
	}
	check := func(when string) {
		t.Helper()
		awaitEvent(t, watchers, at()+10, 60*time.Second)
		_, most, total := conns.count()
		// Those that are over are closed by goroutines of the HTTP client, and of the counter:
		// where a hundred a second follow each other, some are still on their way.
		if most > 1+4*catchups {
			t.Errorf("%s, the origin had %d connections at once, want %d at most", when, most, 1+4*catchups)
		}
		t.Logf("%s, the origin had %d connections at once, %d in all", when, most, total)
	}
	check("after the start")

	caddy.kill()
	time.Sleep(time.Second) // how long a restart takes, not a wait for something
	caddy.launch(t)
	check("after kill -9")
	if !caddy.terminate(exitTime) {
		t.Fatalf("Caddy was still running %s after SIGTERM", exitTime)
	}
	caddy.launch(t)
	check("after SIGTERM")
}

// An origin that sends a hundred thousand events at once. Clients that cannot
// take them are told what they have missed; nobody else notices, and memory is
// bounded by the history.
func TestOriginFloods(t *testing.T) {
	const (
		flood      = 100_000
		mostMemory = 160 << 20
	)
	began := time.Now()
	numbered := &origins.Numbered{
		Epoch: began, Interval: 50 * time.Millisecond, Lookback: time.Minute,
		Bursts: []origins.Burst{{At: 5 * time.Second, Size: flood}},
	}
	caddy := runCaddy(t, "", fmt.Sprintf(`HTTP {
	sse_fanout %s {
		retry 200ms
		gap_event gap
		dispatch_timeout 2s
	}
}`, inGo(t, numbered).addr))

	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	type client struct {
		*watcher
		line         *wire.Line
		source       *eventsource.Source
		gaps, missed int
	}
	newClient := func(path string, readBuffer int) *client {
		c := &client{watcher: new(watcher), line: &wire.Line{ReadBuffer: readBuffer}}
		transport := httpClient(t, "h1")
		transport.Transport = lineTransport(t, c.line)
		told := false
		c.source = &eventsource.Source{URL: caddy.http + path, Client: transport, OnEvent: func(e eventsource.Event) {
			c.mu.Lock()
			defer c.mu.Unlock()
			if e.Type == "gap" {
				c.gaps++
				told = true
				return
			}
			n, err := strconv.Atoi(e.ID)
			next := c.last + 1
			for !origins.Dispatched(next) {
				next++
			}
			switch {
			case err != nil || e.Data != origins.Data(path, n):
				c.err = fmt.Errorf("the id %q has the data %.60q", e.ID, e.Data)
			case c.count > 0 && (n < next || n > next && !told):
				c.err = fmt.Errorf("event %d after %d", n, c.last)
			case c.count > 0:
				c.missed += n - next
			}
			told = false
			c.last = n
			c.count++
		}}
		running.Go(func() {
			if err := c.source.Run(ctx); err != nil {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.err = err
			}
		})
		return c
	}
	fast, slow := newClient("/flood", 0), newClient("/flood", 256<<10)
	awaitEvent(t, []*watcher{fast.watcher, slow.watcher}, 5, 20*time.Second)
	resume := slow.line.Stall()

	after := 100 + flood // the flood is over
	awaitEvent(t, []*watcher{fast.watcher}, after, 60*time.Second)
	resume()
	awaitEvent(t, []*watcher{fast.watcher, slow.watcher}, after+100, 60*time.Second)
	for name, c := range map[string]*client{"reads": fast, "does not read": slow} {
		c.mu.Lock()
		t.Logf("who %s: %d events over %d connections, %d gaps told, %d events missed in them", name, c.count, c.source.Opened(), c.gaps, c.missed)
		c.mu.Unlock()
	}
	if told := caddy.told(t); len(told) != 1 {
		t.Errorf("the log has more to say than that the upstream has connected:\n\t%s", strings.Join(told, "\n\t"))
	}
	peak := caddy.peak(t)
	t.Logf("resident at most: %d MiB", peak>>20)
	if peak > mostMemory {
		t.Errorf("%d MiB were resident", peak>>20)
	}
}
