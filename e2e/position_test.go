package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/e2e/origins"
	"github.com/sse-fanout/caddy-sse-fanout/e2e/wire"
)

func cutting(t *testing.T, target string) *wire.Proxy {
	t.Helper()
	proxy, err := wire.NewProxy(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	return proxy
}

// keep holds the topic open that clients come to through a proxy: it asks for
// the same host, and is never cut.
func keep(t *testing.T, c *caddy, proxy *wire.Proxy) *stream {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, c.http[len("http://"):])
	}}
	t.Cleanup(transport.CloseIdleConnections)
	s, err := subscribe(t.Context(), &http.Client{Transport: transport}, "http://"+proxy.Addr()+"/events")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Body.Close() })
	return s
}

// has says whether the page has all events from..to, and in order.
func (tb *tab) has(from, to int) error {
	for i, id := range tb.IDs {
		if id != from+i {
			return fmt.Errorf("the page has event %d where %d was due", id, from+i)
		}
	}
	if len(tb.IDs) != to-from+1 {
		return fmt.Errorf("the page has %d events, %d to %d are due", len(tb.IDs), from, to)
	}
	return nil
}

// A browser's position is right from the first byte on, and through a replay.
func TestBrowserResumesFromWhereItWasCut(t *testing.T) {
	pages, err := filepath.Abs("testdata/browser")
	if err != nil {
		t.Fatal(err)
	}
	var broadcast origins.Broadcast
	caddy := runCaddy(t, "", fmt.Sprintf(`HTTP {
	log
	handle /events {
		sse_fanout %s {
			retry 300ms
		}
	}
	handle {
		root %s
		file_server
	}
}`, inGo(t, &broadcast).addr, pages))

	// Somebody else has the topic open, and has seen five events.
	proxy := cutting(t, caddy.http[len("http://"):])
	keeper := keep(t, caddy, proxy)
	published := 0
	publish := func(n int) {
		var q sequence
		q.last, q.count = published, published
		for range n {
			broadcast.Publish()
		}
		published += n
		if err := keeper.follow(&q, n); err != nil {
			t.Fatal(err)
		}
	}
	publish(5)

	tabs := openTabs(t, "http://"+proxy.Addr(), 1, 1)
	opened := func(times int) {
		t.Helper()
		awaitAll(t, tabs, 20*time.Second, func(tb *tab) error {
			if tb.State != "open" || tb.Opens < times {
				return fmt.Errorf("the page is %q and was opened %d times", tb.State, tb.Opens)
			}
			return nil
		})
	}
	opened(1)

	// Cut before any event: the browser has nothing but the primer.
	proxy.Cut(0)
	publish(2)
	opened(2)
	awaitAll(t, tabs, 20*time.Second, func(tb *tab) error { return tb.has(6, 7) })

	// Cut in the middle of a replay, again and again.
	var cuts atomic.Int64
	proxy.Limit(func() int {
		cuts.Add(1)
		return 2000
	})
	proxy.Cut(0)
	publish(400)
	awaitAll(t, tabs, 60*time.Second, func(tb *tab) error { return tb.has(6, 407) })
	if cuts.Load() < 5 {
		t.Errorf("the replay was cut %d times, want more", cuts.Load())
	}
	// What was asked is logged when it has been answered.
	log, err := os.ReadFile(caddy.log)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(log, []byte(`"Last-Event-Id":["5"]`)) {
		t.Error("the browser came back without the position of the primer")
	}
	t.Logf("a replay of 400 events over %d connections", cuts.Load())
	for _, tb := range tabs {
		if tb.Items != len(tb.IDs) {
			t.Errorf("the page lists %d events of %d", tb.Items, len(tb.IDs))
		}
	}
}

// A client that is cut long before it has all that it missed comes further each
// time, also where the history does not reach back so far.
func TestReplayOverManyCutsMakesProgress(t *testing.T) {
	const missed = 5000
	past := origins.Timeline{Epoch: time.Now().Add(-10 * time.Minute)}
	newest := int(time.Since(past.Epoch) / origins.Interval)
	caddy := runCaddy(t, "", fmt.Sprintf(`HTTP {
	sse_fanout %s {
		retry 20ms
		linger off
	}
}`, inGo(t, past.Handler(origins.Identity)).addr))
	proxy := cutting(t, caddy.http[len("http://"):])
	keep(t, caddy, proxy)
	proxy.Limit(func() int { return 8 << 10 })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	q := sequence{last: newest - missed, count: 1}
	var wrong error
	before := ""
	source := &eventsource.Source{
		URL:    "http://" + proxy.Addr() + "/events",
		Client: httpClient(t, "h1"),
		LastID: strconv.Itoa(newest - missed),
		Retry:  20 * time.Millisecond,
	}
	source.Delay = func() (time.Duration, bool) {
		if source.LastID == before {
			wrong = fmt.Errorf("a connection has brought nothing after %s", before)
			cancel()
		}
		before = source.LastID
		return 0, false
	}
	source.OnEvent = func(e eventsource.Event) {
		if err := q.add(event{e.ID, e.Type, e.Data}); err != nil {
			wrong = err
		}
		if wrong != nil || q.last >= newest+20 {
			cancel()
		}
	}
	err := source.Run(ctx)
	if err != nil || wrong != nil || q.last < newest+20 {
		t.Fatalf("after %d connections at %d, due %d: %v, %v", source.Opened(), q.last, newest+20, err, wrong)
	}
	t.Logf("%d events over %d connections", q.count-1, source.Opened())
}
