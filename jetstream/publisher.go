package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A publisher publishes what a connection to the origin brings, for as long as its node holds
// the lease. It does not wait for acknowledgements, but counts them. When one fails to come,
// the stream may have lost messages and stored those behind them. Then it has stalled, and
// publishes nothing until it is resumed in a new epoch.
type publisher struct {
	// Static after construction.
	js      jetstream.JetStream
	subject string
	holds   func() bool // the lease
	limit   int         // of the messages that wait, in bytes
	wake    chan struct{}

	mu sync.Mutex

	// Guarded by mu.
	waiting []outgoing // not sent yet, or to be sent again
	bytes   int        // of waiting, and of what is sent and not acknowledged
	failure error      // why nothing more is taken
	stall   error      // why nothing is sent until resume
	stalled chan struct{}
	emptied bool          // what was sent is of no more use, which run has not seen yet
	resumed *resumption   // that run has not seen yet
	stored  uint64        // how many messages are, since the last resumption
	flushed chan struct{} // closed when nothing waits any more, or nothing is sent

	// Owned by run.
	epoch  epoch
	next   uint64     // the index of the next message
	sent   []outgoing // in the order of their indexes, not acknowledged
	acked  uint64     // all before this index are stored
	seq    uint64     // in the stream, of the last message that is
	open   []byte     // the opening of the connection that the stored messages are of
	stands []byte     // and that of the one that the sent messages are of
}

// A resumption is what begins an epoch: its marker was read, and messages before a place count.
type resumption struct {
	epoch  epoch
	before place
	marker uint64 // its sequence in the stream
}

// An outgoing is a message that is to be stored.
type outgoing struct {
	kind        kind
	part, parts int
	body        []byte
	index       uint64 // once it was sent
	future      jetstream.PubAckFuture
}

// maxUnacknowledged is how many messages of a topic are on their way at once.
const maxUnacknowledged = 512

// Why a publisher has stalled, or takes nothing more.
var (
	errLeaseOver = errors.New("the lease is over")
	errReordered = errors.New("the stream has stored messages in another order than they were sent in")
	errBehind    = errors.New("JetStream does not keep up with the origin")
)

func newPublisher(js jetstream.JetStream, subject string, holds func() bool, limit int) *publisher {
	return &publisher{
		js: js, subject: subject, holds: holds, limit: limit,
		wake: make(chan struct{}, 1), stalled: make(chan struct{}), flushed: make(chan struct{}), stall: errNotBegun,
	}
}

// errNotBegun is the stall of a publisher that was not resumed yet.
var errNotBegun = errors.New("no epoch has begun")

// marker publishes the marker of an epoch.
func (p *publisher) marker(ctx context.Context, e epoch, node string) error {
	m := message{kind: kindMarker, epoch: e, part: 1, parts: 1, body: []byte(node)}
	if _, err := p.js.PublishMsg(ctx, m.encode(p.subject), jetstream.WithRetryAttempts(0)); err != nil {
		return fmt.Errorf("publishing to %s: %w", p.subject, explain(err))
	}
	return nil
}

// resume goes on in a new epoch.
func (p *publisher) resume(r resumption) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failure != nil {
		return
	}
	p.resumed, p.stall, p.stored, p.stalled = &r, nil, 0, make(chan struct{})
	p.signal()
}

// add takes a message. It does not wait.
func (p *publisher) add(k kind, bodies ...[]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failure != nil {
		return
	}
	for i, body := range bodies {
		p.bytes += len(body)
		p.waiting = append(p.waiting, outgoing{kind: k, part: i + 1, parts: len(bodies), body: body})
	}
	if p.bytes > p.limit {
		p.fail(errBehind)
	}
	p.signal()
}

// flush waits until all that was added is stored, or nothing more is.
func (p *publisher) flush(ctx context.Context) {
	for {
		p.mu.Lock()
		done, flushed := p.stall != nil || p.bytes == 0, p.flushed
		p.mu.Unlock()
		if done {
			return
		}
		select {
		case <-flushed:
		case <-ctx.Done():
			return
		}
	}
}

// close makes the publisher take and send nothing more.
func (p *publisher) close(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail(why)
	p.signal()
}

func (p *publisher) fail(why error) {
	if p.failure == nil {
		p.failure = why
	}
	p.waiting, p.bytes = nil, 0
	p.halt(p.failure)
}

func (p *publisher) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// state returns a channel that is closed when the publisher has stalled, and why it sends
// nothing, if it does not.
func (p *publisher) state() (stalled <-chan struct{}, stall error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stalled, p.stall
}

// progress reports whether anything was stored since the last resumption.
func (p *publisher) progress() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stored > 0
}

// run sends what was added until ctx ends.
func (p *publisher) run(ctx context.Context) {
	for {
		p.send()
		var ok <-chan *jetstream.PubAck
		var failed <-chan error
		if len(p.sent) > 0 && p.sent[0].future != nil {
			ok, failed = p.sent[0].future.Ok(), p.sent[0].future.Err()
		}
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case ack := <-ok:
			p.acknowledged(ack)
		case err := <-failed:
			// NATS may have stored this message, and those behind it, although no ack has come.
			p.sent[0].future = nil
			p.stop(fmt.Errorf("publishing to %s: %w", p.subject, explain(err)))
		}
	}
}

// send sends what may be sent now.
func (p *publisher) send() {
	for {
		o, ok := p.take()
		if !ok {
			return
		}
		o.index = p.next
		p.next++
		var err error
		if p.holds() {
			m := message{kind: o.kind, epoch: p.epoch, index: o.index, acked: p.acked, part: o.part, parts: o.parts, body: o.body}
			o.future, err = p.js.PublishMsgAsync(m.encode(p.subject), jetstream.WithRetryAttempts(0), jetstream.WithStallWait(time.Millisecond))
		} else {
			err = errLeaseOver
		}
		p.sent = append(p.sent, o)
		if err != nil {
			p.stop(fmt.Errorf("publishing to %s: %w", p.subject, explain(err)))
			return
		}
	}
}

// take returns the message that is to be sent next.
func (p *publisher) take() (o outgoing, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.emptied {
		p.emptied, p.sent, p.open, p.bytes = false, nil, nil, 0
		for _, o := range p.waiting {
			p.bytes += len(o.body)
		}
	}
	if r := p.resumed; r != nil {
		p.resumed = nil
		p.begin(r)
	}
	if p.stall != nil || len(p.waiting) == 0 || len(p.sent) >= maxUnacknowledged {
		return o, false
	}
	o = p.waiting[0]
	p.waiting[0] = outgoing{}
	p.waiting = p.waiting[1:]
	if o.kind == kindStands {
		p.bytes += len(p.stands) - len(o.body)
		o.body = p.stands
	}
	p.stands = o.leaves(p.stands)
	return o, true
}

// leaves returns which opening readers know of behind a message, if they knew of one before.
func (o *outgoing) leaves(open []byte) []byte {
	switch o.kind {
	case kindOpened:
		return o.body
	case kindEnded:
		return nil
	default:
		return open
	}
}

// begin begins an epoch: what was sent in the last one and does not count is sent again.
func (p *publisher) begin(r *resumption) {
	again := []outgoing{{kind: kindResumed, part: 1, parts: 1}}
	for _, o := range p.sent {
		if counts := r.before.epoch == p.epoch && o.index < r.before.next; counts || o.kind == kindResumed {
			p.bytes -= len(o.body)
			p.open = o.leaves(p.open)
			continue
		}
		o.future = nil
		again = append(again, o)
	}
	again[0].body = encodeResumed(r.before, p.open)
	p.bytes += len(again[0].body)
	p.waiting = append(again, p.waiting...)
	p.stands = p.open
	p.sent, p.epoch, p.next, p.acked, p.seq = nil, r.epoch, 1, 1, r.marker
}

// acknowledged is called when the oldest message that was sent is stored.
func (p *publisher) acknowledged(ack *jetstream.PubAck) {
	o := p.sent[0]
	if ack.Sequence <= p.seq {
		p.sent[0].future = nil
		p.stop(fmt.Errorf("publishing to %s: %w", p.subject, errReordered))
		return
	}
	p.seq, p.acked = ack.Sequence, o.index+1
	p.sent = p.sent[1:]
	p.open = o.leaves(p.open)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes -= len(o.body)
	p.stored++
	if p.bytes == 0 {
		p.wakeFlush()
	}
}

// stop makes the publisher send nothing until it is resumed.
func (p *publisher) stop(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.halt(why)
}

// restart forgets all that was added, and makes the publisher send nothing until it is resumed.
func (p *publisher) restart(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting, p.emptied = nil, true
	p.halt(why)
	p.signal()
}

func (p *publisher) halt(why error) {
	if p.stall == nil {
		p.stall = why
		close(p.stalled)
		p.wakeFlush()
	}
}

func (p *publisher) wakeFlush() {
	close(p.flushed)
	p.flushed = make(chan struct{})
}
