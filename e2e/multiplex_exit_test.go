package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// multiplexedSequences are what the client of a connection has got of each of its streams.
type multiplexedSequences struct {
	mu sync.Mutex

	// Guarded by mu.
	of    map[string]*sequence
	retry []time.Duration // told by connections that have ended
	err   error
}

// add takes an event of a connection. The id has the positions of all its streams.
func (q *multiplexedSequences) add(e event) error {
	alias, kind, _ := strings.Cut(e.name, "/")
	if kind != "message" {
		if kind == "gap" || kind == "error" {
			return fmt.Errorf("%w: %s", errWrong, e.name)
		}
		return nil
	}
	for position := range strings.SplitSeq(e.id, ",") {
		if of, id, _ := strings.Cut(position, ":"); of == alias {
			e.id = id
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.of[alias].add(e); err != nil {
		return fmt.Errorf("%w: %s: %w", errWrong, alias, err)
	}
	return nil
}

// behind reports whether a stream has not got to an event.
func (q *multiplexedSequences) behind(n int) (bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, of := range q.of {
		if of.last < n {
			return true, q.err
		}
	}
	return false, q.err
}

// followAll stays with a connection over all its ends until ctx is done. It comes back
// without the delay that it is told, which it records.
func (q *multiplexedSequences) followAll(ctx context.Context, client *http.Client, url string) {
	id := ""
	for ctx.Err() == nil {
		s, err := subscribe(ctx, client, url, "Last-Event-ID", id)
		if err != nil {
			time.Sleep(10 * time.Millisecond) // it is on its way
			continue
		}
		s.lastID = id
		for err == nil {
			var e event
			if e, err = s.next(); err == nil {
				err = q.add(e)
			}
		}
		s.Body.Close()
		id = s.lastID
		q.mu.Lock()
		if errors.Is(err, errWrong) || !errors.Is(err, io.EOF) && ctx.Err() == nil {
			q.err = errors.Join(q.err, err)
		}
		q.retry = append(q.retry, s.retry)
		q.mu.Unlock()
	}
}

// An exit of Caddy ends each connection between two events and tells each client another time
// to come back. With what they have got, the clients miss nothing.
func TestExitEndsConnections(t *testing.T) {
	origin := node(t)
	caddy := runCaddy(t, "", fmt.Sprintf(`HTTP {
	handle /streams* {
		sse_multiplex {
			retry 2s
			stream_close_delay 3s
		}
	}
	handle /events {
		sse_fanout %[1]s
	}
	handle /own {
		reverse_proxy %[1]s {
			rewrite /events
		}
	}
}`, origin.addr))
	const n = 40
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	client := httpClient(t, "h1")
	clients := make([]*multiplexedSequences, n)
	for i := range clients {
		clients[i] = &multiplexedSequences{of: map[string]*sequence{"a": {}, "b": {}, "own": {}}}
		running.Go(func() {
			clients[i].followAll(ctx, client, caddy.http+"/streams?a=/events%3Fstream%3Da&b=/events%3Fstream%3Db&own=/own")
		})
	}
	await := func(event int) {
		t.Helper()
		eventually(t, 60*time.Second, func() error {
			for i, q := range clients {
				behind, err := q.behind(event)
				if err != nil {
					t.Fatalf("client %d: %v", i, err)
				}
				if behind {
					return errors.New("client " + strconv.Itoa(i) + " is behind")
				}
			}
			return nil
		})
	}
	await(now() + 10)
	caddy.leaves(t)
	caddy.launch(t)
	await(now() + 20)

	var delays []time.Duration
	for i, q := range clients {
		q.mu.Lock()
		delay := q.retry[0]
		q.mu.Unlock()
		if delay < 2*time.Second || delay > 5*time.Second {
			t.Errorf("client %d is told to come back after %s, want 2 s to 5 s", i, delay)
		}
		delays = append(delays, delay)
	}
	slices.Sort(delays)
	if len(slices.Compact(slices.Clone(delays))) < n/2 {
		t.Errorf("clients are told to come back after %v: that is together", delays)
	}
}
