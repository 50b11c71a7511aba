package jetstream

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// A Fleet is this node's part in a fleet.
type Fleet struct {
	// Static after construction.
	node    string
	store   *store
	logger  *zap.Logger
	closing chan struct{}
	helpers sync.WaitGroup
	end     sync.Once
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
	f := &Fleet{node: node, logger: logger, closing: make(chan struct{})}
	f.store = &store{conn: conn, js: js, name: settings.Stream, settings: settings, secret: key, noticed: f.noticed, now: time.Now}
	return f, nil
}

// Close gives up all leases and ends everything.
func (f *Fleet) Close() {
	f.end.Do(func() { close(f.closing) })
	f.helpers.Wait()
	f.store.helpers.Wait()
}

func (f *Fleet) noticed(what, subject string, err error) {
	f.logger.Warn(what, zap.String("subject", subject), zap.Error(err))
}

// fallen logs that a topic goes on without the fleet.
func (f *Fleet) fallen(s *source, why error) {
	f.logger.Warn("JetStream is away, asking the origin without the fleet",
		zap.String("topic", s.topic.Name), zap.String("subject", s.subject), zap.Error(why))
}

// returned logs that a topic is with the fleet again.
func (f *Fleet) returned(s *source) {
	f.logger.Info("JetStream is back", zap.String("topic", s.topic.Name), zap.String("subject", s.subject))
}
