package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/origins"
)

const thousands = 10_000

// All clients arrive before the topic exists; nothing is published until each
// of them has its response, so each of them must get everything.
func TestTenThousandClientsOnAColdTopic(t *testing.T) {
	const events = 5
	var broadcast origins.Broadcast
	conns := countConnections(t, inGo(t, &broadcast).addr)
	caddy := runCaddy(t, "", fmt.Sprintf("HTTP {\n\tsse_fanout %s\n}", conns.addr))
	address := caddy.http[len("http://"):]

	var (
		clients   sync.WaitGroup
		connected = make(chan struct{}, thousands)
		failed    = make(chan error, thousands)
		complete  atomic.Int64
		open      = make(chan net.Conn, thousands)
		// More at once would overflow the listen backlog, and wait a second for a retry.
		dials = make(chan struct{}, 1000)
	)
	hangUp := sync.OnceFunc(func() {
		for range len(open) {
			(<-open).Close()
		}
		clients.Wait()
	})
	t.Cleanup(hangUp)
	request := fmt.Appendf(nil, "GET /events HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", address)

	client := func(i int) error {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+i%4))}}
		dials <- struct{}{}
		conn, err := dialer.Dial("tcp", address)
		<-dials
		if err != nil {
			return err
		}
		open <- conn
		if _, err := conn.Write(request); err != nil {
			return err
		}
		lines := bufio.NewReaderSize(conn, 256)
		status, err := lines.ReadSlice('\n')
		if err != nil || !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
			return fmt.Errorf("client %d was answered %q: %w", i, status, err)
		}
		connected <- struct{}{}
		for n := 1; n <= events; {
			line, err := lines.ReadSlice('\n')
			if err != nil {
				return fmt.Errorf("client %d is waiting for event %d: %w", i, n, err)
			}
			if !bytes.HasPrefix(line, []byte("data:")) {
				continue
			}
			if want := fmt.Sprintf("data: {\"n\":%d}\n", n); string(line) != want {
				return fmt.Errorf("client %d got %q, want %q", i, line, want)
			}
			n++
		}
		complete.Add(1)
		return nil
	}
	for i := range thousands {
		clients.Go(func() {
			if err := client(i); err != nil {
				failed <- err
			}
		})
	}

	deadline := time.After(40 * time.Second)
	for n := range thousands {
		select {
		case <-connected:
		case err := <-failed:
			t.Fatal(err)
		case <-deadline:
			t.Fatalf("%d of %d clients are connected", n, thousands)
		}
	}
	for range events {
		broadcast.Publish()
	}
	eventually(t, 30*time.Second, func() error {
		select {
		case err := <-failed:
			t.Fatal(err)
		default:
		}
		if n := complete.Load(); n != thousands {
			return fmt.Errorf("%d of %d clients have all events", n, thousands)
		}
		return nil
	})
	if now, most, total := conns.count(); now != 1 || most != 1 || total != 1 {
		t.Errorf("the origin has %d connections, had %d at most, %d in all; want one", now, most, total)
	}
	hangUp()
}
