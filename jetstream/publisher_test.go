package jetstream

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A ledger is a JetStream in memory that acknowledges what it is told to.
type ledger struct {
	jetstream.JetStream
	mu      sync.Mutex
	sent    []string
	futures []*promise
}

type promise struct {
	msg *nats.Msg
	ok  chan *jetstream.PubAck
	err chan error
}

func (p *promise) Ok() <-chan *jetstream.PubAck { return p.ok }
func (p *promise) Err() <-chan error            { return p.err }
func (p *promise) Msg() *nats.Msg               { return p.msg }

// PublishMsgAsync implements jetstream.Publisher.
func (l *ledger) PublishMsgAsync(m *nats.Msg, _ ...jetstream.PublishOpt) (jetstream.PubAckFuture, error) {
	decoded, err := decodeMessage(m.Header, m.Data)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	body := string(decoded.body)
	if decoded.kind == kindResumed {
		body = "resumed"
	}
	l.sent = append(l.sent, fmt.Sprintf("%s/%d/%d %s", decoded.epoch, decoded.index, decoded.acked, body))
	p := &promise{m, make(chan *jetstream.PubAck, 1), make(chan error, 1)}
	l.futures = append(l.futures, p)
	return p, nil
}

// take returns what was sent since it was called last.
func (l *ledger) take() string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	sent := strings.Join(l.sent, ", ")
	l.sent = nil
	return sent
}

// ack acknowledges the nth message with a sequence.
func (l *ledger) ack(n int, seq uint64) {
	l.mu.Lock()
	l.futures[n].ok <- &jetstream.PubAck{Sequence: seq}
	l.mu.Unlock()
	synctest.Wait()
}

func (l *ledger) lose(n int) {
	l.mu.Lock()
	l.futures[n].err <- errLost
	l.mu.Unlock()
	synctest.Wait()
}

// newLedger returns a publisher that runs.
func newLedger(t *testing.T) (*ledger, *publisher, *bool) {
	l, holds := new(ledger), true
	p := newPublisher(l, "S.topic", func() bool { return holds }, 100)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.run(t.Context())
	}()
	return l, p, &holds
}

func TestWhatCountsIsNotSentAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, p, _ := newLedger(t)
		p.add(kindEvent, []byte("a"))
		p.add(kindEvent, []byte("b"), []byte("c"))
		if got := l.take(); got != "" {
			t.Errorf("sent before an epoch has begun: %s", got)
		}
		p.resume(resumption{epoch: epoch{0, 7}, marker: 10})
		if got := l.take(); got != "0.7/1/1 resumed, 0.7/2/1 a, 0.7/3/1 b, 0.7/4/1 c" {
			t.Errorf("sent: %s", got)
		}
		l.ack(0, 11)
		l.ack(1, 12)
		p.add(kindEvent, []byte("d"))
		if got := l.take(); got != "0.7/5/3 d" {
			t.Errorf("sent: %s", got)
		}
		// b is stored, and its acknowledgement is lost; c is lost.
		l.lose(2)
		p.add(kindEvent, []byte("e"))
		if got := l.take(); got != "" {
			t.Errorf("sent behind a loss: %s", got)
		}
		p.resume(resumption{epoch: epoch{0, 8}, before: place{epoch{0, 7}, 4}, marker: 20})
		if got := l.take(); got != "0.8/1/1 resumed, 0.8/2/1 c, 0.8/3/1 d, 0.8/4/1 e" {
			t.Errorf("sent again: %s", got)
		}
		if !p.progress() {
			l.ack(4+1, 21)
		}
		if !p.progress() {
			t.Error("an acknowledgement is no progress")
		}
	})
}

func TestMessagesThatAreStoredInAnotherOrderAreALoss(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, p, _ := newLedger(t)
		p.resume(resumption{epoch: epoch{0, 1}, marker: 10})
		p.add(kindEvent, []byte("a"))
		l.take()
		l.ack(0, 12)
		l.ack(1, 11)
		if _, stall := p.state(); stall == nil {
			t.Error("the publisher goes on")
		}
	})
}

func TestAHolderWithoutALeasePublishesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, p, holds := newLedger(t)
		p.resume(resumption{epoch: epoch{0, 1}, marker: 10})
		l.take()
		*holds = false
		p.add(kindEvent, []byte("a"))
		if got := l.take(); got != "" {
			t.Errorf("sent without a lease: %s", got)
		}
		stalled, stall := p.state()
		select {
		case <-stalled:
		default:
			t.Errorf("nobody is told: %v", stall)
		}
	})
}

func TestWhatWaitsIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, p, _ := newLedger(t)
		for range 10 {
			p.add(kindEvent, make([]byte, 50))
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.failure == nil || len(p.waiting) > 0 || p.bytes > 0 {
			t.Errorf("%d messages of %d bytes wait: %v", len(p.waiting), p.bytes, p.failure)
		}
	})
}
