package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/origins"
)

// errWrong ends a watcher for good: what it was sent is not the sequence.
var errWrong = errors.New("wrong sequence")

// eventSource stays connected as one in a browser does, resuming by id, until
// the context ends or on returns errWrong.
func eventSource(ctx context.Context, client *http.Client, url string, on func(event) error) error {
	current := &stream{retry: time.Second}
	for {
		var header []string
		if current.lastID != "" {
			header = []string{"Last-Event-ID", current.lastID}
		}
		s, err := subscribe(ctx, client, url, header...)
		if err == nil {
			s.lastID, s.retry = current.lastID, current.retry
			current = s
			for err == nil {
				var e event
				if e, err = s.next(); err == nil {
					err = on(e)
				}
			}
			s.Body.Close()
		}
		if errors.Is(err, errWrong) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(current.retry):
		}
	}
}

// A watcher follows a stream over all its reconnections.
type watcher struct {
	mu sync.Mutex
	sequence
	err error
}

// watch lets n clients follow a stream until the test ends.
func watch(t *testing.T, client *http.Client, url string, n int) []*watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	watchers := make([]*watcher, n)
	for i := range watchers {
		w := new(watcher)
		watchers[i] = w
		running.Go(func() {
			err := eventSource(ctx, client, url, func(e event) error {
				w.mu.Lock()
				defer w.mu.Unlock()
				if err := w.add(e); err != nil {
					return fmt.Errorf("%w: %w", errWrong, err)
				}
				return nil
			})
			w.mu.Lock()
			w.err = err
			w.mu.Unlock()
		})
	}
	return watchers
}

// awaitEvent waits until all watchers have the event, and with it all before.
func awaitEvent(t *testing.T, watchers []*watcher, n int, within time.Duration) {
	t.Helper()
	eventually(t, within, func() error {
		behind := 0
		for i, w := range watchers {
			w.mu.Lock()
			last, err := w.last, w.err
			w.mu.Unlock()
			if err != nil {
				t.Fatalf("client %d: %v", i, err)
			}
			if last < n {
				behind++
			}
		}
		if behind > 0 {
			return fmt.Errorf("%d of %d clients have not got event %d", behind, len(watchers), n)
		}
		return nil
	})
}

// now is the number of the event that happens now.
func now() int {
	return int(time.Since(timeline.Epoch) / origins.Interval)
}

const watching = 50

// shared is a site with a stream, and something else that can change.
func shared(addr, option, greeting string) string {
	return fmt.Sprintf(`HTTP {
	handle /events {
		sse_fanout %s {
			retry 200ms
			stream_close_delay 1s
			%s
		}
	}
	respond %s
}`, addr, option, greeting)
}

// Stock Caddy waits for the streams to end, which they never do.
func TestCaddyRestartLosesNothing(t *testing.T) {
	conns := countConnections(t, node(t).addr)
	caddy := runCaddy(t, "", shared(conns.addr, "", "hello"))
	watchers := watch(t, httpClient(t, "h1"), caddy.http+"/events", watching)
	awaitEvent(t, watchers, now()+10, 20*time.Second)
	if _, most, _ := conns.count(); most != 1 {
		t.Errorf("the origin had %d connections at once, want one", most)
	}

	if !caddy.terminate(5 * time.Second) {
		t.Fatal("Caddy was still running 5 s after SIGTERM")
	}
	caddy.launch(t)
	awaitEvent(t, watchers, now()+20, 20*time.Second)
	// Who was behind the first to come back has the rest fetched.
	if _, most, _ := conns.count(); most > 3 {
		t.Errorf("the origin had %d connections at once, want one and two that catch up", most)
	}
}

func TestReload(t *testing.T) {
	conns := countConnections(t, node(t).addr)
	caddy := runCaddy(t, "", shared(conns.addr, "", "hello"))
	watchers := watch(t, httpClient(t, "h1"), caddy.http+"/events", watching)
	awaitEvent(t, watchers, now()+10, 20*time.Second)

	t.Run("with other changes leaves the streams alone", func(t *testing.T) {
		caddy.reload(t, "", shared(conns.addr, "", "hello"))
		awaitEvent(t, watchers, now()+20, 20*time.Second)
		if now, most, total := conns.count(); now != 1 || most != 1 || total != 1 {
			t.Errorf("the origin has %d connections, had %d at most, %d in all; want one", now, most, total)
		}
	})
	t.Run("of the handler moves the clients", func(t *testing.T) {
		caddy.reload(t, "", shared(conns.addr, "history 500", "changed"))
		awaitEvent(t, watchers, now()+80, 20*time.Second)
		// The old topic, the new one, and two that fetch what is missing between.
		if _, most, total := conns.count(); most > 4 || total < 2 {
			t.Errorf("the origin had %d connections at most, %d in all; want at most 4", most, total)
		}
		eventually(t, 15*time.Second, func() error {
			if now, _, _ := conns.count(); now != 1 {
				return fmt.Errorf("the origin has %d connections, want one", now)
			}
			return nil
		})
	})
}
