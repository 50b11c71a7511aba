// Package eventsource is a client that stays with a stream by the rules that
// browsers follow (WHATWG HTML, "Server-sent events").
package eventsource

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// An Event is a dispatched one.
type Event struct {
	ID, Type, Data string
}

// A Source stays with one stream. Its functions are called one at a time.
type Source struct {
	URL    string
	Client *http.Client

	// OnEvent gets every event that is dispatched.
	OnEvent func(Event)

	// OnPosition, if set, gets the last event id whenever a block without data
	// has set it.
	OnPosition func(id string)

	// OnRetry, if set, gets each reconnection time that stands alone, but for one at the
	// very start of a stream.
	OnRetry func(time.Duration)

	// OnOpen, if set, is called when a stream has been accepted, with the id that
	// it was asked for with.
	OnOpen func(id string, resp *http.Response)

	// Delay, if set, is asked before each reconnection: how much longer to wait
	// than the reconnection time says, and whether to forget the position, as a
	// page that was loaded anew does.
	Delay func() (more time.Duration, anew bool)

	// LastID and Retry are the state that outlives a connection.
	LastID string
	Retry  time.Duration

	opened atomic.Int64
	bytes  atomic.Int64
}

// A RefusedError is an answer after which an EventSource never comes back.
type RefusedError struct {
	Status      int
	ContentType string
	Body        string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("told to fail for good: status %d, %q: %.200s", e.Status, e.ContentType, e.Body)
}

// Opened is how often a stream was accepted.
func (s *Source) Opened() int { return int(s.opened.Load()) }

// Bytes is how much has been read of all streams.
func (s *Source) Bytes() int64 { return s.bytes.Load() }

// Run connects and reconnects until ctx ends, or until the source is told to
// fail for good, which is a RefusedError.
func (s *Source) Run(ctx context.Context) error {
	if s.Retry == 0 {
		s.Retry = 3 * time.Second
	}
	for {
		if err := s.connect(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		wait := s.Retry
		if s.Delay != nil {
			more, anew := s.Delay()
			wait += more
			if anew {
				s.LastID = ""
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// Header is what the EventSource of a browser sends with each request.
var Header = map[string]string{
	"Accept":        "text/event-stream",
	"Cache-Control": "no-cache",
	"Pragma":        "no-cache",
	"User-Agent":    "Mozilla/5.0",
}

// connect follows one connection to its end. Only a refusal is an error.
func (s *Source) connect(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	if err != nil {
		return err
	}
	for name, value := range Header {
		req.Header.Set(name, value)
	}
	asked := s.LastID
	if asked != "" {
		req.Header.Set("Last-Event-ID", asked)
	}
	resp, err := s.Client.Do(req)
	if err != nil {
		return nil //nolint:nilerr // a network error: the rules say to come back
	}
	defer resp.Body.Close()
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode != http.StatusOK || mediaType != "text/event-stream" {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return &RefusedError{resp.StatusCode, resp.Header.Get("Content-Type"), string(body)}
	}
	s.opened.Add(1)
	if s.OnOpen != nil {
		s.OnOpen(asked, resp)
	}
	s.read(bufio.NewReaderSize(resp.Body, 4<<10))
	return nil
}

// read takes blocks until the stream ends. Half a block at the end is dropped.
func (s *Source) read(r *bufio.Reader) {
	var (
		data    []byte
		hasData bool
		name    string
		id      = s.LastID
		line    []byte

		behind  bool // the first block
		retries bool // the block has a reconnection time
		setsID  bool
	)
	for {
		part, err := r.ReadSlice('\n')
		s.bytes.Add(int64(len(part)))
		line = append(line, part...)
		if err == bufio.ErrBufferFull { //nolint:errorlint // it is never wrapped
			continue
		}
		if err != nil {
			return
		}
		field, value, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		end := len(bytes.TrimRight(line, "\r\n")) == 0
		switch {
		case end:
			moved := s.LastID != id
			s.LastID = id
			if hasData {
				s.OnEvent(Event{ID: id, Type: name, Data: string(data)})
			} else if moved && s.OnPosition != nil {
				s.OnPosition(id)
			}
			if behind && retries && !hasData && !setsID && s.OnRetry != nil {
				s.OnRetry(s.Retry)
			}
			data, hasData, name = data[:0], false, ""
			behind, retries, setsID = true, false, false
		case string(field) == "data":
			if hasData {
				data = append(data, '\n')
			}
			data, hasData = append(data, value...), true
		case string(field) == "event":
			name = string(value)
		case string(field) == "id":
			if bytes.IndexByte(value, 0) < 0 {
				id, setsID = string(value), true
			}
		case string(field) == "retry":
			if ms, err := strconv.Atoi(string(value)); err == nil && !strings.HasPrefix(string(value), "-") {
				s.Retry, retries = time.Duration(ms)*time.Millisecond, true
			}
		}
		line = line[:0]
	}
}
