package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// A held stream is read to its end.
type held struct {
	last    string // the last whole block
	partial string // what came after it
	err     error  // nil if it has ended as it should
}

// A holding is many of them.
type holding struct {
	ended chan held
	n     int
}

// hold opens n streams, waits until each has its primer, and reads on.
func hold(t *testing.T, client *http.Client, url string, n int) *holding {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	h := &holding{ended: make(chan held, n), n: n}
	opened := make(chan error, n)
	var all sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		all.Wait()
	})
	for range n {
		all.Go(func() {
			s, err := subscribe(ctx, client, url)
			if err != nil {
				opened <- err
				return
			}
			defer s.Body.Close()
			_, _, err = s.block()
			opened <- err
			if err == nil {
				h.ended <- s.hold()
			}
		})
	}
	for i := range n {
		select {
		case err := <-opened:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%d of %d streams have begun", i, n)
		}
	}
	return h
}

func (s *stream) hold() held {
	var h held
	for {
		line, err := s.lines.ReadString('\n')
		h.partial += line
		if err != nil {
			if !errors.Is(err, io.EOF) {
				h.err = err
			}
			return h
		}
		if line == "\n" {
			h.last, h.partial = h.partial, ""
		}
	}
}

// proper says whether a stream has ended at the boundary of an event, with a
// reconnection time of its own.
func (h *held) proper() error {
	if h.err != nil || h.partial != "" || !strings.HasPrefix(h.last, "retry: ") || strings.Count(h.last, "\n") != 2 {
		return fmt.Errorf("a stream has ended with %q, %q, %w", h.last, h.partial, h.err)
	}
	return nil
}

// awaitEnds checks that all streams end properly in time, and that not many are
// told the same reconnection time.
func awaitEnds(t *testing.T, within time.Duration, holdings ...*holding) {
	t.Helper()
	deadline := time.After(within)
	times := make(map[string]int)
	total := 0
	for _, h := range holdings {
		for i := range h.n {
			select {
			case end := <-h.ended:
				if err := end.proper(); err != nil {
					t.Fatal(err)
				}
				times[end.last]++
				total++
			case <-deadline:
				t.Fatalf("%d of %d streams have ended after %s", i, h.n, within)
			}
		}
	}
	if len(times) < total/2 {
		t.Errorf("%d different reconnection times for %d streams", len(times), total)
	}
}
