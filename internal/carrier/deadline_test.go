package carrier

import (
	"errors"
	"net/http"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// A wire is a client behind a buffer: that of the kernel, or what its flow control allows.
type wire struct {
	Sockets

	size  int  // of the buffer
	wake  int  // how much must be free to wake a writer
	known bool // it is the kernel's

	news chan struct{}

	mu   sync.Mutex
	held int
	got  int
	full bool
	cut  bool
}

func (*wire) Header() http.Header { return make(http.Header) }
func (*wire) WriteHeader(int)     {}
func (*wire) FlushError() error   { return nil }

func (w *wire) SetWriteDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = !time.Now().Before(t)
	w.tell()
	return nil
}

func (w *wire) tell() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for left := len(p); ; {
		if w.cut {
			return len(p) - left, os.ErrDeadlineExceeded
		}
		if !w.full {
			n := min(left, w.size-w.held)
			w.held += n
			left -= n
			w.full = w.held == w.size
		}
		if left == 0 {
			return len(p), nil
		}
		w.mu.Unlock()
		<-w.news
		w.mu.Lock()
	}
}

// read reads n bytes, once what is written is written.
func (w *wire) read(n int) {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	n = min(n, w.held)
	w.held -= n
	w.got += n
	if w.size-w.held >= w.wake {
		w.full = false
		w.tell()
	}
}

func (w *wire) Held(*http.Request) (bytes int, full, known bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.known {
		return 0, false, false
	}
	return w.held, w.full, true
}

// A slowReader is a client that takes some bytes every now and then.
type slowReader struct {
	name  string
	major int // version of HTTP
	wire
	bytes int
	every time.Duration
}

func slowReaders() []*slowReader {
	const pause = 9900 * time.Millisecond
	return []*slowReader{
		{"HTTP/1.1", 1, wire{size: 30_000, wake: 10_000, known: true}, 100, pause},
		{"HTTP/1.1, without the kernel's word", 1, wire{size: 8_000, wake: 2_000}, 3_000, time.Second},
		{"HTTP/2, for the client's flow control", 2, wire{size: 4_000, wake: 1}, 3_000, time.Second},
		{"HTTP/2, for the kernel", 2, wire{size: 30_000, wake: 10_000, known: true}, 100, pause},
	}
}

const timeout = 10 * time.Second

// begin writes an event of some size to the client. The result comes when that has ended.
func (r *slowReader) begin(t *testing.T, size int) (s *Session, result chan error) {
	r.news = make(chan struct{}, 1)
	s = newSession(t, &Service{Timeout: timeout, Sockets: r}, r, r.major)
	result = make(chan error, 1)
	go func() { result <- s.write(make([]byte, size)) }()
	return s, result
}

func TestAClientThatReadsSlowlyIsNotCut(t *testing.T) {
	for _, r := range slowReaders() {
		t.Run(r.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const size = 200_000
				_, result := r.begin(t, size)
				for range size/r.bytes + 1 {
					r.read(r.bytes)
					time.Sleep(r.every)
				}
				if err := <-result; err != nil {
					t.Errorf("after %d bytes: %v", r.got, err)
				}
				if r.got != size {
					t.Errorf("got %d bytes, want %d", r.got, size)
				}
			})
		})
	}
}

func TestAClientThatStopsReadingIsCut(t *testing.T) {
	for _, r := range slowReaders() {
		t.Run(r.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, result := r.begin(t, 200_000)
				for range 20 {
					r.read(r.bytes)
					time.Sleep(r.every)
				}
				select {
				case err := <-result:
					t.Fatalf("a client that reads was ended: %v", err)
				default:
				}
				// What it read last is seen at the next look, or has ended a piece.
				time.Sleep(timeout + direct.LookEvery(timeout))
				synctest.Wait()
				select {
				case err := <-result:
					if !errors.Is(err, os.ErrDeadlineExceeded) || s.Failed(err) != relay.EndStalled {
						t.Errorf("ended by %v, for %q", err, s.Failed(err))
					}
				default:
					t.Error("a client that has stopped reading is not cut")
				}
			})
		})
	}
}

// Other streams of a connection are no progress of one that its client does not read.
func TestOtherStreamsAreNoProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &slowReader{major: 2, wire: wire{size: 1000, wake: 1}}
		r.news = make(chan struct{}, 1)
		s := newSession(t, &Service{Timeout: timeout, Sockets: &busy{}}, r, r.major)
		began := time.Now()
		if err := s.write(make([]byte, 2000)); s.Failed(err) != relay.EndStalled {
			t.Errorf("ended by %v", err)
		}
		if took := time.Since(began); took != timeout {
			t.Errorf("cut after %s, want %s", took, timeout)
		}
	})
}

// busy is a kernel that has room, and always something else to send.
type busy struct {
	Sockets
	bytes int
}

func (b *busy) Held(*http.Request) (bytes int, full, known bool) {
	b.bytes++
	return b.bytes, false, true
}
