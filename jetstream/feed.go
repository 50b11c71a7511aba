package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A feed reads the messages of a topic in the order of the stream, from the oldest on that
// the stream has, whatever becomes of its consumer.
//
// It has a pull consumer of its own making, and not nats.go's ordered consumer, because that
// cannot be cancelled while it makes a new consumer.
type feed struct {
	// Static after construction.
	store   *store
	subject string
	out     chan delivery // what has come; unbuffered, so that the rest stays with nats.go

	last    uint64       // sequence of the last message in out, owned by run
	renewed bool         // nobody was told yet that the stream is another, owned by run
	made    atomic.Int64 // when the stream was, in Unix nanoseconds, or 0
	lag     atomic.Int64 // how many messages are in the stream behind the last

	mu sync.Mutex

	// Guarded by mu.
	generation uint64             // of the present consumer, or the next one
	abort      context.CancelFunc // ends the present one
	failing    time.Time          // since when there has been none
	failure    error              // why
}

// A delivery is what a feed has read.
type delivery struct {
	message message
	seq     uint64
	stored  time.Time // when the stream has got it
	born    uint64    // when the stream was made, in Unix nanoseconds

	generation uint64

	empty    bool // there is no message: the stream has none behind the last
	renewed  bool // the stream is another than the last message was from
	caughtUp bool // the stream had no more when this was sent
}

// isStray reports whether the message was sent to a stream that is no more, and has come to the
// one that was made in its place.
func (d *delivery) isStray() bool { return d.message.epoch.term < d.born }

const (
	// feedHeartbeat is how often the server tells that a consumer is there. One that has said
	// nothing for twice as long is made anew.
	feedHeartbeat = time.Second

	// feedExpiry is how long a consumer may be without a request before the server drops it.
	feedExpiry = 30 * time.Second

	// feedBatch is how many messages wait in this process at most.
	feedBatch = 256

	// feedPatience is for how long a consumer goes on when nobody takes what it brings.
	feedPatience = 5 * time.Second

	// feedRetry is how long to wait before a consumer is made anew.
	feedRetry = 200 * time.Millisecond
)

func newFeed(s *store, subject string) *feed {
	return &feed{store: s, subject: subject, out: make(chan delivery)}
}

// run reads until ctx ends.
func (f *feed) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := f.read(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
			f.failed(err)
			f.store.notice("reading the stream", f.subject, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(feedRetry):
		}
	}
}

// read makes a consumer, and reads until that fails.
func (f *feed) read(ctx context.Context) error {
	ctx, cancel, generation := f.begin(ctx)
	defer cancel()
	if err := f.check(ctx); err != nil {
		return err
	}
	born := uint64(f.born())
	consumer, err := f.consumer(ctx)
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(
		jetstream.PullMaxMessages(feedBatch),
		jetstream.PullHeartbeat(feedHeartbeat),
		jetstream.WithMessagesErrOnMissingHeartbeat(true),
	)
	if err != nil {
		return fmt.Errorf("reading from a consumer: %w", err)
	}
	f.recovered()
	defer f.store.forget(consumer.CachedInfo().Name)
	defer messages.Stop()

	if f.renewed || consumer.CachedInfo().NumPending == 0 {
		d := delivery{born: born, generation: generation, empty: true, renewed: f.renewed, caughtUp: consumer.CachedInfo().NumPending == 0}
		if !f.send(ctx, d, messages.Stop) {
			return nil
		}
	}
	for expected := uint64(1); ; expected++ {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("reading the next message: %w", err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("reading the next message: %w", err)
		}
		if meta.Sequence.Consumer != expected {
			return fmt.Errorf("reading the next message: message %d of the consumer has come in the place of %d",
				meta.Sequence.Consumer, expected)
		}
		f.lag.Store(int64(meta.NumPending))
		d := delivery{born: born, generation: generation, seq: meta.Sequence.Stream, stored: meta.Timestamp, caughtUp: meta.NumPending == 0}
		if d.message, err = decodeMessage(msg.Headers(), msg.Data()); err != nil {
			f.store.notice("decoding a message", f.subject, err)
			d.empty = true
		}
		if !f.send(ctx, d, messages.Stop) {
			return nil
		}
	}
}

// send gives what has come to the one who follows the topic. It reports false if the consumer
// is of no more use. While nobody follows, the messages that come are too many to be kept.
func (f *feed) send(ctx context.Context, d delivery, stop func()) bool {
	patience := time.NewTimer(feedPatience)
	defer patience.Stop()
	select {
	case f.out <- d:
		f.sent(&d)
		return true
	case <-ctx.Done():
		return false
	case <-patience.C:
	}
	stop()
	d.caughtUp = false // nobody knows any more
	select {
	case f.out <- d:
		f.sent(&d)
	case <-ctx.Done():
	}
	return false
}

func (f *feed) sent(d *delivery) {
	f.last = max(f.last, d.seq)
	f.renewed = f.renewed && !d.renewed
}

// restart makes the feed find out anew what the stream has behind the last message. It
// returns the generation that deliveries have which know of that.
func (f *feed) restart() (generation uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.generation++
	if f.abort != nil {
		f.abort()
	}
	return f.generation
}

func (f *feed) failed(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failure = err; f.failing.IsZero() {
		f.failing = time.Now()
	}
}

func (f *feed) recovered() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failing, f.failure = time.Time{}, nil
}

// trouble returns why the stream could not be read for the duration of a lease, or nil.
func (f *feed) trouble() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failing.IsZero() || time.Since(f.failing) < f.store.settings.Lease {
		return nil
	}
	return f.failure
}

// begin returns a context that restart cancels, and the present generation.
func (f *feed) begin(ctx context.Context) (_ context.Context, cancel context.CancelFunc, generation uint64) {
	ctx, cancel = context.WithCancel(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.abort = cancel
	return ctx, cancel, f.generation
}

// check finds out whether the stream is another than the last message was from: somebody has
// deleted it, or it was in the memory of servers that have all ended.
func (f *feed) check(ctx context.Context) error {
	info, err := f.store.info(ctx)
	if err != nil {
		return err
	}
	made := info.Created.UnixNano()
	if before := f.made.Swap(made); before != 0 && before != made {
		f.last, f.renewed = 0, true
	}
	return nil
}

// born returns what tells the stream from others that had its name.
func (f *feed) born() int64 { return f.made.Load() }

// consumer makes a consumer that begins behind the last message.
func (f *feed) consumer(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	consumer, err := f.store.js.CreateConsumer(ctx, f.store.name, jetstream.ConsumerConfig{
		FilterSubject:     f.subject,
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       f.last + 1,
		AckPolicy:         jetstream.AckNonePolicy,
		InactiveThreshold: feedExpiry,
		Replicas:          1,
		MemoryStorage:     true,
	})
	if err != nil {
		return nil, fmt.Errorf("making a consumer: %w", err)
	}
	return consumer, nil
}

// isTransient reports whether an error of a feed says no more than that it has to begin anew.
func isTransient(err error) bool {
	return errors.Is(err, jetstream.ErrNoHeartbeat) || errors.Is(err, jetstream.ErrConsumerDeleted)
}
