package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/e2e/wire"
)

// An event as a client dispatches it.
type event struct {
	id, name, data string
}

// A stream is one connection of a client.
type stream struct {
	*http.Response
	lines  *bufio.Reader
	lastID string
	retry  time.Duration
}

// subscribe opens a stream; header holds pairs of names and values.
func subscribe(ctx context.Context, client *http.Client, url string, header ...string) (*stream, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	for name, value := range eventsource.Header {
		req.Header.Set(name, value)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		resp.Body.Close()
		return nil, fmt.Errorf("%s, %q: %s", resp.Status, resp.Header.Get("Content-Type"), body)
	}
	return &stream{Response: resp, lines: bufio.NewReaderSize(resp.Body, 1<<10)}, nil
}

// block reads up to the next blank line, dispatched or not; comments are part of none.
func (s *stream) block() (e event, dispatched bool, err error) {
	var data []string
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return event{}, false, err
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			break
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			s.lastID = value
		case "event":
			e.name = value
		case "data":
			data = append(data, value)
		case "retry":
			if ms, err := strconv.Atoi(value); err == nil {
				s.retry = time.Duration(ms) * time.Millisecond
			}
		}
	}
	e.id, e.data = s.lastID, strings.Join(data, "\n")
	return e, data != nil, nil
}

// next reads the next event that an EventSource would dispatch.
func (s *stream) next() (event, error) {
	for {
		e, dispatched, err := s.block()
		if err != nil || dispatched {
			return e, err
		}
	}
}

// A sequence checks that numbered events come in order, each once, none missing.
type sequence struct {
	first, last, count int
}

func (q *sequence) add(e event) error {
	n, err := strconv.Atoi(e.id)
	if err != nil {
		return fmt.Errorf("an event with the id %q", e.id)
	}
	if want := fmt.Sprintf(`{"n":%d}`, n); e.data != want {
		return fmt.Errorf("event %d has the data %q", n, e.data)
	}
	if q.count > 0 && n != q.last+1 {
		return fmt.Errorf("event %d after %d", n, q.last)
	}
	if q.count == 0 {
		q.first = n
	}
	q.last = n
	q.count++
	return nil
}

// follow reads n more events of the sequence.
func (s *stream) follow(q *sequence, n int) error {
	for range n {
		e, err := s.next()
		if err != nil {
			return fmt.Errorf("after %d events: %w", q.count, err)
		}
		if err := q.add(e); err != nil {
			return err
		}
	}
	return nil
}

// httpClient speaks one protocol only, and trusts Caddy's own certificates.
func httpClient(t *testing.T, protocol string) *http.Client {
	t.Helper()
	transport := &http.Transport{
		Protocols:          new(http.Protocols),
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true},
		DisableCompression: true,
	}
	switch protocol {
	case "h1":
		transport.Protocols.SetHTTP1(true)
	case "h2":
		transport.Protocols.SetHTTP2(true)
	default:
		t.Fatalf("no client for %s", protocol)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

// A crowd is many clients of one stream.
type crowd struct {
	leave   context.CancelFunc
	clients sync.WaitGroup
	failed  chan error
	done    chan struct{} // one message for each client that has read its events
}

// join connects n clients, each of which reads as many events and then stays.
func join(t *testing.T, client *http.Client, url string, n, events int, header ...string) *crowd {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &crowd{leave: cancel, failed: make(chan error, n), done: make(chan struct{}, n)}
	for range n {
		c.clients.Go(func() {
			s, err := subscribe(ctx, client, url, header...)
			if err == nil {
				defer s.Body.Close()
				err = s.follow(new(sequence), events)
			}
			if err != nil {
				c.failed <- err
				return
			}
			c.done <- struct{}{}
			<-ctx.Done()
		})
	}
	t.Cleanup(func() {
		cancel()
		c.clients.Wait()
	})
	return c
}

// await waits until n clients have read their events.
func (c *crowd) await(t *testing.T, n int, within time.Duration) {
	t.Helper()
	deadline := time.After(within)
	for i := range n {
		select {
		case <-c.done:
		case err := <-c.failed:
			t.Fatal(err)
		case <-deadline:
			t.Fatalf("%d of %d clients had their events after %s", i, n, within)
		}
	}
}

// lineTransport speaks HTTP/1.1 over a line that can be harmed.
func lineTransport(t *testing.T, line *wire.Line) *http.Transport {
	t.Helper()
	transport := &http.Transport{DialContext: line.Dial, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}
