package direct_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http/httputil"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A peer is the far end of a socket of the kernel.
type peer struct {
	t    *testing.T
	conn net.Conn
	body io.Reader
	over chan direct.Reason
}

func (p *peer) Farewell(direct.Reason) []byte { return []byte("bye\n\n") }

func (p *peer) Ended(reason direct.Reason, _, _ uint64) { p.over <- reason }

func (p *peer) expectEnded(want direct.Reason) {
	p.t.Helper()
	select {
	case got := <-p.over:
		if got != want {
			p.t.Errorf("ended for %q, want %q", got, want)
		}
	case <-time.After(20 * time.Second):
		p.t.Errorf("not ended for %q", want)
	}
}

// read reads n bytes of the body, or if n is negative what there is to its end, and
// whether it has come to one.
func (p *peer) read(n int) (body string, whole bool) {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n >= 0 {
		b := make([]byte, n)
		got, err := io.ReadFull(p.body, b)
		if err != nil {
			p.t.Errorf("reading after %d bytes: %v", got, err)
		}
		return string(b[:got]), false
	}
	b, err := io.ReadAll(p.body)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		p.t.Errorf("reading after %d bytes: %v", len(b), err)
	}
	return string(b), err == nil
}

// A lobby accepts connections and hands them over.
type lobby struct {
	t      *testing.T
	writer *direct.Writer
	listen net.Listener
	open   func() (direct.Network, error)
}

func newLobby(t *testing.T, open func() (direct.Network, error), network, address string) *lobby {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	l := &lobby{t: t, listen: ln, open: open}
	return l.patientFor(3 * time.Second)
}

// patientFor returns a lobby whose clients may read nothing for as long as timeout.
func (l *lobby) patientFor(timeout time.Duration) *lobby {
	writer := direct.NewWriter(direct.Options{Timeout: timeout, Network: l.open})
	l.t.Cleanup(func() {
		writer.Close()
		writer.Wait()
	})
	return &lobby{t: l.t, listen: l.listen, open: l.open, writer: writer}
}

func (l *lobby) join(s *stream) *peer {
	l.t.Helper()
	near, far := l.connect()
	fd, err := direct.Duplicate(far.(syscall.Conn))
	if err != nil {
		l.t.Fatal(err)
	}
	p := &peer{t: l.t, conn: near, body: httputil.NewChunkedReader(near), over: make(chan direct.Reason, 1)}
	if _, err := l.writer.Take(&direct.Handover{FD: fd, Client: p, Stream: s, Log: s.log}); err != nil {
		l.t.Fatal(err)
	}
	far.Close()
	return p
}

// overKernel runs a test over TCP and over Unix sockets.
func overKernel(t *testing.T, test func(t *testing.T, l *lobby)) {
	t.Run("tcp", func(t *testing.T) { test(t, newLobby(t, direct.OpenKernel, "tcp", "127.0.0.1:0")) })
	t.Run("tcp, without io_uring", func(t *testing.T) { test(t, newLobby(t, direct.OpenKernelWithoutRing, "tcp", "127.0.0.1:0")) })
	t.Run("unix", func(t *testing.T) {
		test(t, newLobby(t, direct.OpenKernel, "unix", filepath.Join(t.TempDir(), "socket")))
	})
}

func TestSockets(t *testing.T) {
	overKernel(t, func(t *testing.T, l *lobby) {
		s := newStream(roomy)
		var peers []*peer
		for range 100 {
			peers = append(peers, l.join(s))
		}
		s.publish(0, 99)
		s.end(direct.Ending{Reason: "over", Drain: true})
		for _, p := range peers {
			if got, whole := p.read(-1); got != events(0, 99)+"bye\n\n" || !whole {
				t.Errorf("a client got %d bytes, to the end %t", len(got), whole)
			}
			p.expectEnded("over")
		}
	})
}

// More than what the kernel takes for a client at once comes in parts.
func TestSocketThatIsFull(t *testing.T) {
	overKernel(t, func(t *testing.T, l *lobby) {
		s := newStream(roomy)
		p, q := l.join(s), l.join(s)
		large := bytes.Repeat([]byte("x"), 16<<20)
		s.log.Publish(hub.Entry{Wire: large})
		var reading sync.WaitGroup
		for _, p := range []*peer{q, p} {
			reading.Go(func() {
				if got, _ := p.read(len(large)); got != string(large) {
					t.Errorf("got %d bytes, want %d", len(got), len(large))
				}
			})
		}
		reading.Wait()
		s.publish(0, 0)
		if got, _ := p.read(len(event(0))); got != event(0) {
			t.Errorf("then got %q", got)
		}

		s = newStream(roomy)
		stalled := l.patientFor(300 * time.Millisecond).join(s)
		s.log.Publish(hub.Entry{Wire: large})
		stalled.expectEnded(direct.Stalled)
		if _, whole := stalled.read(-1); whole {
			t.Error("a stream that was cut looks whole")
		}
	})
}

// What the kernel holds gets less with what a client reads, long before the kernel wakes
// the writer.
func TestHeld(t *testing.T) {
	overKernel(t, func(t *testing.T, l *lobby) {
		near, far := l.connect()
		defer far.Close()
		// Buffers of a size that is set do not grow.
		_ = far.(interface{ SetWriteBuffer(int) error }).SetWriteBuffer(1 << 20)
		_ = near.(interface{ SetReadBuffer(int) error }).SetReadBuffer(32 << 10)
		if bytes, full, known := direct.Held(far.(syscall.Conn)); bytes != 0 || full || !known {
			t.Errorf("of a new socket, the kernel holds %d bytes, full %t, known %t", bytes, full, known)
		}
		written := fill(t, far)
		network, fd := l.watch(far)
		before, full, known := direct.Held(far.(syscall.Conn))
		if got := network.Held(fd); before <= 0 || !full || !known || got != before {
			t.Fatalf("of a full socket, the kernel holds %d bytes, and as the network has it %d; full %t, known %t", before, got, full, known)
		}
		read, progress := 0, false
		for read < written {
			n, err := io.CopyN(io.Discard, near, int64(min(32<<10, written-read)))
			if err != nil {
				t.Fatal(err)
			}
			read += int(n)
			if bytes, full, _ := direct.Held(far.(syscall.Conn)); full && bytes > 0 && bytes < before {
				progress = true
			}
		}
		if !progress {
			t.Error("no progress is seen while the socket is full")
		}
		// What comes last may not be acknowledged at once.
		for network.Held(fd) > 0 {
			time.Sleep(time.Millisecond)
		}
	})
}

// connect returns both ends of a connection.
func (l *lobby) connect() (near, far net.Conn) {
	l.t.Helper()
	addr := l.listen.Addr()
	near, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { near.Close() })
	far, err = l.listen.Accept()
	if err != nil {
		l.t.Fatal(err)
	}
	return near, far
}

// watch returns a network, and the descriptor that it has of c.
func (l *lobby) watch(c net.Conn) (direct.Network, int32) {
	l.t.Helper()
	network, err := l.open()
	if err != nil {
		l.t.Fatal(err)
	}
	fd, err := direct.Duplicate(c.(syscall.Conn))
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		direct.CloseDuplicate(fd)
		_ = network.Close()
	})
	return network, int32(fd)
}

// fill writes to c until it takes no more, and returns how much that was.
func fill(t *testing.T, c net.Conn) (written int) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64<<10)
	// The other end may take some more.
	for idle := 0; idle < 100; idle++ {
		err = raw.Control(func(fd uintptr) {
			for {
				n, err := syscall.SendmsgN(int(fd), b, nil, nil, syscall.MSG_DONTWAIT)
				if err != nil {
					return
				}
				written, idle = written+n, 0
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	return written
}

func TestSocketIsClosedByItsClient(t *testing.T) {
	overKernel(t, func(t *testing.T, l *lobby) {
		s := newStream(roomy)
		closed, half, talking, quiet := l.join(s), l.join(s), l.join(s), l.join(s)
		closed.conn.Close()
		closed.expectEnded(direct.ClientGone)
		if err := half.conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		half.expectEnded(direct.ClientGone)
		// What a client sends after its request is no reason to end, and does not
		// cost the last words when it does.
		if _, err := talking.conn.Write([]byte(strings.Repeat("GET / HTTP/1.1\r\n", 1000))); err != nil {
			t.Fatal(err)
		}
		s.publish(0, 0)
		if got, _ := talking.read(len(event(0))); got != event(0) {
			t.Errorf("got %q", got)
		}
		s.end(direct.Ending{Reason: "over"})
		for _, p := range []*peer{talking, quiet} {
			p.expectEnded("over")
		}
		if got, whole := talking.read(-1); got != "bye\n\n" || !whole {
			t.Errorf("in the end got %q, to the end %t", got, whole)
		}
	})
}
