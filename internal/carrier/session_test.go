package carrier

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay/quota"
)

// A discarding client takes everything.
type discarding struct{ header http.Header }

func (d discarding) Header() http.Header            { return d.header }
func (discarding) WriteHeader(int)                  {}
func (discarding) Write(p []byte) (int, error)      { return len(p), nil }
func (discarding) FlushError() error                { return nil }
func (discarding) SetWriteDeadline(time.Time) error { return nil }

// silent is a source, and an observer, of which nothing is heard.
type silent struct{ relay.Observer }

func (silent) Follow(ctx context.Context, _ relay.Resumption, _ relay.Sink) relay.Outcome {
	<-ctx.Done()
	return relay.Outcome{Err: context.Cause(ctx)}
}
func (silent) Abandoned() int                    { return 0 }
func (silent) Moved() bool                       { return false }
func (silent) LeftBehind() bool                  { return false }
func (silent) Closed(*relay.Topic, relay.Closed) {}
func (silent) Retired()                          {}

// newSession returns a session of c whose client is w.
func newSession(tb testing.TB, c *Service, w http.ResponseWriter, major int) *Session {
	cfg := relay.Config{
		Words:    make([]relay.Words, 1),
		History:  hub.Limits{Events: 10, Bytes: 1 << 10, Age: time.Minute},
		Catchups: -1,
		Linger:   -1,
		Limits:   quota.Limits{Topics: 1},
	}
	r := relay.New(cfg, silent{}, new(relay.Stats))
	reader, rejected, err := r.Join(&relay.Visit{
		Name: func() string { return "topic" },
		Open: func(*relay.Topic) relay.Source { return silent{} },
	})
	if err != nil || rejected != "" {
		tb.Fatal(err, rejected)
	}
	tb.Cleanup(reader.Close)
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	req.ProtoMajor = major
	return c.Begin(w, req, reader, nil)
}

// newDelivery returns what writes one event to one client of many.
func newDelivery(tb testing.TB) (deliver func()) {
	c := &Service{Timeout: time.Second, Sockets: Kernel{}}
	s := newSession(tb, c, discarding{make(http.Header)}, 1)
	event := []byte("id: 1\ndata: x\n\n")
	return func() {
		if err := s.write(event); err != nil {
			tb.Fatal(err)
		}
	}
}

func TestWritingAnEventAllocatesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(1000, newDelivery(t)); n != 0 {
		t.Errorf("writing an event takes %v allocations, want none", n)
	}
}

// BenchmarkDeliver is the cost of delivering one event to one subscriber, beside
// that of writing it.
func BenchmarkDeliver(b *testing.B) {
	b.Run("one", func(b *testing.B) {
		deliver := newDelivery(b)
		b.ReportAllocs()
		for b.Loop() {
			deliver()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			deliver := newDelivery(b)
			for pb.Next() {
				deliver()
			}
		})
	})
}
