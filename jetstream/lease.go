package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A lease says which node asks the origin of a topic. It is a key in a bucket that forgets
// keys after the lease's duration. Whoever can create the key holds the lease, and keeps it
// by updating the key.
//
// The holder counts the duration from when it sent the last renewal that succeeded, on its
// own monotonic clock. The server counts from when it stored it, which is later. So by the
// time another node can create the key, the holder has stopped, unless the process itself
// was: that case is for order.
type lease struct {
	// Static after construction.
	bucket   func(context.Context) (jetstream.KeyValue, error)
	key      string
	owner    string // unique to this lease: a renewal whose answer was lost is recognised by it
	duration time.Duration
	now      func() time.Time

	mu sync.Mutex

	// Guarded by mu.
	revision uint64    // of the key; 0 if the lease is not held
	until    time.Time // when it is over
	unsure   bool      // a request has had no answer: the key may have another revision
}

// margin is the part of a lease's duration, as a divisor, by which the holder stops early: no
// two clocks run equally fast.
const margin = 20

// errTaken says that another node holds the lease.
var errTaken = errors.New("another node holds the lease")

// holds reports whether the lease is held now.
func (l *lease) holds() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.revision != 0 && l.now().Before(l.until)
}

// isFresh reports whether the lease is held, and was renewed a moment ago.
func (l *lease) isFresh() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.revision != 0 && l.now().Before(l.until.Add(-l.duration/2))
}

// deadline returns when the lease is over, unless it is renewed.
func (l *lease) deadline() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until
}

func (l *lease) set(revision uint64, sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.revision, l.until, l.unsure = revision, sent.Add(l.duration-l.duration/margin), false
}

// doubt records that a request has had no answer.
func (l *lease) doubt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsure = true
}

// mayHold reports whether the key may be there.
func (l *lease) mayHold() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.revision != 0 || l.unsure
}

func (l *lease) current() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.revision
}

// drop forgets that the lease is held.
func (l *lease) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.revision, l.until, l.unsure = 0, time.Time{}, false
}

// look returns errTaken if another node holds the lease, and nil if nobody does, or this one.
func (l *lease) look(ctx context.Context) error {
	bucket, err := l.bucket(ctx)
	if err != nil {
		return err
	}
	entry, err := bucket.Get(ctx, l.key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("reading a lease: %w", explain(err))
	case string(entry.Value()) == l.owner:
		return nil
	}
	return errTaken
}

// acquire takes the lease if nobody holds it, and returns its revision. The error is
// errTaken if somebody does.
func (l *lease) acquire(ctx context.Context) (revision uint64, err error) {
	bucket, err := l.bucket(ctx)
	if err != nil {
		return 0, err
	}
	sent := l.now()
	revision, err = bucket.Create(ctx, l.key, []byte(l.owner))
	switch {
	case errors.Is(err, jetstream.ErrKeyExists):
		if revision = l.own(ctx); revision == 0 {
			return 0, errTaken
		}
		// An attempt whose answer was lost has succeeded, some time ago.
		return l.renewAt(ctx, revision)
	case err != nil:
		l.doubt()
		return 0, fmt.Errorf("taking a lease: %w", explain(err))
	}
	l.set(revision, sent)
	return revision, nil
}

// renew extends the lease, and returns its new revision. The error is errTaken if it is
// another node's, or nobody's.
func (l *lease) renew(ctx context.Context) (revision uint64, err error) {
	revision, err = l.renewAt(ctx, l.current())
	if errors.Is(err, errTaken) {
		// The answer to an earlier renewal may have been lost.
		if revision = l.own(ctx); revision == 0 {
			return 0, err
		}
		return l.renewAt(ctx, revision)
	}
	return revision, err
}

func (l *lease) renewAt(ctx context.Context, revision uint64) (uint64, error) {
	bucket, err := l.bucket(ctx)
	if err != nil {
		return 0, err
	}
	sent := l.now()
	revision, err = bucket.Update(ctx, l.key, []byte(l.owner), revision)
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return 0, errTaken
	}
	if err != nil {
		l.doubt()
		return 0, fmt.Errorf("renewing a lease: %w", explain(err))
	}
	l.set(revision, sent)
	return revision, nil
}

// own returns the revision of the key if this lease has set it, or 0.
func (l *lease) own(ctx context.Context) uint64 {
	bucket, err := l.bucket(ctx)
	if err != nil {
		return 0
	}
	entry, err := bucket.Get(ctx, l.key)
	if err != nil || string(entry.Value()) != l.owner {
		return 0
	}
	return entry.Revision()
}

// release gives the lease up, if it is held, so that another node need not wait for its end.
func (l *lease) release(ctx context.Context) error {
	if !l.mayHold() {
		return nil
	}
	revision := l.current()
	l.drop()
	bucket, err := l.bucket(ctx)
	if err != nil {
		return err
	}
	if revision != 0 {
		err = bucket.Delete(ctx, l.key, jetstream.LastRevision(revision))
		if !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			return err
		}
	}
	// It is over, or a request whose answer nobody has waited for was the last.
	if revision = l.own(ctx); revision == 0 {
		return nil
	}
	return bucket.Delete(ctx, l.key, jetstream.LastRevision(revision))
}
