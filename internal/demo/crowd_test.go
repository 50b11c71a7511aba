package demo

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeSite answers the crowd. Each answer is a pipe that the test writes to.
type fakeSite struct {
	// Guarded by mu
	mu       sync.Mutex
	status   int
	err      error // in place of an answer
	requests []*http.Request
	bodies   []*io.PipeWriter
}

func (s *fakeSite) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	pr, pw := io.Pipe()
	s.requests = append(s.requests, r)
	s.bodies = append(s.bodies, pw)
	go func() {
		<-r.Context().Done()
		pw.CloseWithError(r.Context().Err())
	}()
	header := http.Header{"Content-Type": {"text/event-stream"}}
	return &http.Response{StatusCode: s.status, Header: header, Body: pr, Request: r}, nil
}

func (s *fakeSite) asked() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// send writes to the answer of the nth request, which has been read when it
// returns.
func (s *fakeSite) send(t *testing.T, n int, text string) {
	t.Helper()
	if _, err := io.WriteString(s.answer(n), text); err != nil {
		t.Fatalf("sending to client: %v", err)
	}
	synctest.Wait()
}

func (s *fakeSite) answer(n int) *io.PipeWriter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bodies[n]
}

func newTestCrowd(t *testing.T, limit int) (*crowd, *fakeSite) {
	t.Helper()
	site := &fakeSite{status: http.StatusOK}
	c, err := newCrowd("http://127.0.0.1:8080/events/sentences", limit)
	if err != nil {
		t.Fatal(err)
	}
	c.transport = site
	t.Cleanup(func() {
		if err := c.Destruct(); err != nil {
			t.Error(err)
		}
	})
	return c, site
}

func TestCrowdIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, site := newTestCrowd(t, 15)
		c.open(10, "localhost:8080")
		if got := c.open(10, "localhost:8080").Open; got != 15 {
			t.Errorf("got %d clients, want 15", got)
		}
		synctest.Wait()
		if got := len(site.asked()); got != 15 {
			t.Errorf("got %d connections, want 15", got)
		}
		// The address is the configured one, whatever host is asked for.
		if r := site.asked()[0]; r.URL.Host != "127.0.0.1:8080" || r.Host != "localhost:8080" {
			t.Errorf("connected to %s, asking for %s", r.URL.Host, r.Host)
		}
		c.close()
		synctest.Wait()
		if got := c.status().Open; got != 0 {
			t.Errorf("after closing: got %d clients, want none", got)
		}
		if got := c.open(1, "localhost:8080").Open; got != 1 {
			t.Errorf("opened again: got %d clients, want 1", got)
		}
	})
}

func TestCrowdComesBackWithItsLastID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, site := newTestCrowd(t, 10)
		c.open(1, "localhost:8080")
		synctest.Wait()
		site.send(t, 0, "retry: 200\nid: 6\n\nid: 7\ndata: a\n\nid: 8\ndata: b\n\n")
		site.answer(0).Close()
		pass(199 * time.Millisecond)
		if got := len(site.asked()); got != 1 {
			t.Fatalf("came back before the reconnection time")
		}
		pass(time.Millisecond)
		if got := len(site.asked()); got != 2 {
			t.Fatalf("got %d connections, want a second one", got)
		}
		if got := site.asked()[1].Header.Get("Last-Event-ID"); got != "8" {
			t.Errorf("got Last-Event-ID %q, want 8", got)
		}
		site.send(t, 1, "id: 9\ndata: c\n\n")
		if got := c.status(); got.Gaps != 0 || got.Open != 1 {
			t.Errorf("got %+v, want no gap", got)
		}
		site.send(t, 1, "id: 11\ndata: e\n\nid: 11\ndata: e\n\n")
		if got := c.status().Gaps; got != 2 {
			t.Errorf("after a gap and a repetition: got %d gaps, want 2", got)
		}
	})
}

func TestCrowdComesBackToASiteThatCannotBeReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, site := newTestCrowd(t, 10)
		site.err = errors.New("refused")
		c.open(1, "localhost:8080")
		pass(4 * time.Second)
		site.mu.Lock()
		site.err = nil
		site.mu.Unlock()
		pass(3 * time.Second)
		if got := c.status(); got.Open != 1 || got.Refused != 0 || len(site.asked()) != 1 {
			t.Errorf("got %+v and %d connections, want one", got, len(site.asked()))
		}
	})
}

func TestCrowdGivesUpWhenRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, site := newTestCrowd(t, 10)
		site.status = http.StatusServiceUnavailable
		c.open(3, "localhost:8080")
		pass(time.Minute)
		if got := c.status(); got.Open != 0 || got.Refused != 3 || len(site.asked()) != 3 {
			t.Errorf("got %+v after %d requests, want three clients that asked once", got, len(site.asked()))
		}
		c.close()
	})
}

func TestCrowdThatEndedOpensNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newTestCrowd(t, 10)
		c.open(2, "localhost:8080")
		if err := c.Destruct(); err != nil {
			t.Fatal(err)
		}
		c.close()
		if got := c.open(2, "localhost:8080").Open; got != 0 {
			t.Errorf("got %d clients, want none", got)
		}
	})
}
