package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// An event larger than the history reaches all that read, also those that read slowly, with
// those behind it. It is in memory once, not once for each client.
func TestLargeEventReachesSlowReaders(t *testing.T) {
	const (
		clients = 200
		large   = 15 << 20
		small   = 50
		history = 4 << 20 // the default
	)
	send := make(chan struct{})
	server := inGo(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-send:
		case <-r.Context().Done():
			return
		}
		_, _ = io.WriteString(w, "id: 0\ndata: "+strings.Repeat("x", large)+"\n\n")
		for n := 1; n <= small; n++ {
			fmt.Fprintf(w, "id: %d\ndata: %d\n\n", n, n)
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	}))
	caddy := runCaddy(t, "", fmt.Sprintf("HTTP {\n\tsse_fanout %s\n}", server.addr))
	address := strings.TrimPrefix(caddy.http, "http://")

	var connected, reading sync.WaitGroup
	connected.Add(clients)
	failed := make(chan error, clients)
	for i := range clients {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		pause := time.Duration(0)
		if i%2 == 1 {
			pause = 20 * time.Millisecond
		}
		reading.Go(func() {
			_, err := fmt.Fprintf(conn, "GET /events HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", address)
			resp, err2 := http.ReadResponse(bufio.NewReader(conn), nil)
			connected.Done()
			if err != nil || err2 != nil {
				failed <- fmt.Errorf("client %d has no answer: %w, %w", i, err, err2)
				return
			}
			if err := readLarge(paced{resp.Body, pause}, large, small); err != nil {
				failed <- fmt.Errorf("client %d, which waits %v between reads: %w", i, pause, err)
			}
		})
	}
	connected.Wait()
	before := caddy.peak(t)
	close(send)
	reading.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	// The decoder has the event and, for the moment in which that is copied, the half that
	// it was before.
	caddy.stays(t, before, history+2*large+large+large/2)
}

// A paced reader waits before each read.
type paced struct {
	io.Reader
	pause time.Duration
}

func (p paced) Read(b []byte) (int, error) {
	time.Sleep(p.pause) // how slow the client is, not a wait for something
	return p.Reader.Read(b[:min(len(b), 64<<10)])
}

// readLarge checks that a stream brings one event of large bytes, and small ones behind it.
func readLarge(stream io.Reader, large, small int) error {
	lines := bufio.NewReaderSize(stream, 64<<10)
	size, inLarge := 0, false
	for n := 0; n < small; {
		line, err := lines.ReadSlice('\n')
		isWhole := err == nil
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("after %d events and %d bytes of the large one: %w", n, size, err)
		}
		switch data, isData := bytes.CutPrefix(line, []byte("data: ")); {
		case inLarge:
			size += len(line)
		case isData && data[0] == 'x':
			size, inLarge = len(data), true
		case isData:
			n++
			if got := string(bytes.TrimSpace(data)); got != fmt.Sprint(n) || size != large {
				return fmt.Errorf("small event %d is %q, behind %d bytes of the large one", n, got, size)
			}
		}
		if inLarge && isWhole {
			size-- // the line's end
			inLarge = false
		}
	}
	return nil
}
