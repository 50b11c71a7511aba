package jetstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fleet"
)

// A Fleet is this node's part in a fleet.
type Fleet struct {
	// Static after construction.
	node    string
	store   *store
	logger  *zap.Logger
	began   time.Time
	ctx     context.Context // ended by Close
	end     context.CancelFunc
	helpers sync.WaitGroup

	fallbacks, stalls atomic.Uint64

	mu sync.Mutex

	// Guarded by mu.
	sources map[*source]struct{} // that live
	notices map[string]time.Time // what was logged, and when
}

// maxPending is how many messages of all topics may be on their way at once.
const maxPending = 64 << 10

// New returns a node's part in the fleet of a stream. The connection is the caller's, and
// must be open until Close has returned. It need not be connected yet.
func New(conn *nats.Conn, node string, key []byte, settings Settings, logger *zap.Logger) (*Fleet, error) {
	if !isStreamName(settings.Stream) {
		return nil, fmt.Errorf("the name of the stream, %q, may have letters, digits, - and _, and must not be longer than 200", settings.Stream)
	}
	if len(key) == 0 {
		return nil, errors.New("a fleet needs a secret, the same on all nodes")
	}
	js, err := jetstream.New(conn,
		jetstream.WithPublishAsyncMaxPending(maxPending),
		jetstream.WithPublishAsyncTimeout(settings.Lease),
	)
	if err != nil {
		return nil, fmt.Errorf("using JetStream: %w", err)
	}
	f := &Fleet{node: node, logger: logger, began: time.Now(), sources: make(map[*source]struct{}), notices: make(map[string]time.Time)}
	f.ctx, f.end = context.WithCancel(context.Background())
	f.store = &store{conn: conn, js: js, name: settings.Stream, settings: settings, secret: key, noticed: f.noticed, now: time.Now}
	conn.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { f.reported(err) })
	f.helpers.Go(f.callRolls)
	return f, nil
}

// Close gives up all leases and ends everything.
func (f *Fleet) Close() {
	f.end()
	f.helpers.Wait()
	f.store.helpers.Wait()
}

const (
	noticePause = time.Minute
	maxNotices  = 100 // that are remembered
)

// isNews reports whether a text was not logged for a while. Topics and attempts have the same
// troubles.
func (f *Fleet) isNews(text string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at, known := f.notices[text]; known && time.Since(at) < noticePause {
		return false
	}
	if len(f.notices) >= maxNotices {
		clear(f.notices)
	}
	f.notices[text] = time.Now()
	return true
}

func (f *Fleet) add(s *source) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sources[s] = struct{}{}
}

func (f *Fleet) remove(s *source) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.sources, s)
}

// all returns the sources that live.
func (f *Fleet) all() []*source {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.sources))
}

// noticed logs what has gone wrong and is tried again, once a minute.
func (f *Fleet) noticed(what, subject string, err error) {
	if !f.isNews(what + ": " + err.Error()) {
		return
	}
	f.logger.Warn(what, zap.String("subject", subject), zap.Error(err))
}

// reported logs what NATS has said is wrong. What a feed has not taken, as nobody follows it, it
// reads again later.
func (f *Fleet) reported(err error) {
	if !errors.Is(err, nats.ErrSlowConsumer) && f.isNews(err.Error()) {
		f.logger.Error("NATS has reported an error", zap.Error(explain(err)))
	}
}

// fallen logs that a topic goes on without the fleet.
func (f *Fleet) fallen(s *source, why error) {
	f.fallbacks.Add(1)
	f.logger.Warn("JetStream is away, asking the origin without the fleet",
		zap.String("topic", s.topic.Name()), zap.String("subject", s.subject), zap.Error(why))
}

// leads logs that this node asks the origin from now on.
func (f *Fleet) leads(s *source) {
	f.logger.Info("asking the origin for the fleet", zap.String("topic", s.topic.Name()), zap.String("subject", s.subject))
}

// follows logs that another node asks the origin from now on.
func (f *Fleet) follows(s *source, holder string) {
	f.logger.Info("another node asks the origin for the fleet",
		zap.String("topic", s.topic.Name()), zap.String("subject", s.subject), zap.String("holder", holder))
}

// stalled logs that messages are sent again.
func (f *Fleet) stalled(s *source, why error) {
	f.stalls.Add(1)
	f.logger.Warn("messages may be lost on their way into the stream, sending them again",
		zap.String("topic", s.topic.Name()), zap.String("subject", s.subject), zap.Error(why))
}

// bridged logs what has become of events that the stream has not.
func (f *Fleet) bridged(s *source, events int, found bool) {
	if found {
		f.logger.Info("events were missing in the stream, and the origin had them",
			zap.String("topic", s.topic.Name()), zap.String("subject", s.subject), zap.Int("events", events))
		return
	}
	f.logger.Warn("events are missing in the stream, and the origin has not sent them",
		zap.String("topic", s.topic.Name()), zap.String("subject", s.subject))
}

// returned logs that a topic is with the fleet again.
func (f *Fleet) returned(s *source) {
	f.logger.Info("JetStream is back", zap.String("topic", s.topic.Name()), zap.String("subject", s.subject))
}

// Interface guard
var _ fleet.Fleet = (*Fleet)(nil)
