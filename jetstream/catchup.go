package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// catchUp is Follow for a catch-up, which fetches what clients of this node have missed and
// its log does not have. The stream may have it. If not, the holder of the lease asks the
// origin, once for all nodes whose clients have missed the same.
func (s *source) catchUp(ctx context.Context, from relay.Resumption, sink relay.Sink) relay.Outcome {
	if s.contest.look().away {
		return s.origin.Follow(ctx, from, sink)
	}
	once := &acceptor{Sink: sink}
	if from.ID != "" {
		r := &recall{source: s, sink: once, id: from.ID, parts: assembler{limit: s.parts.limit}}
		r.run(ctx)
		from.ID = r.id
	}
	return s.ask(ctx, from, once)
}

// ask gives the sink what the origin has behind an id. The holder asks it, or this node does if
// the holder says nothing.
func (s *source) ask(ctx context.Context, from relay.Resumption, sink *acceptor) relay.Outcome {
	if ctx.Err() == nil {
		q := &question{source: s, from: from, sink: sink, parts: assembler{limit: s.parts.limit}}
		if out, ok := q.run(ctx); ok {
			return out
		}
	}
	if ctx.Err() != nil {
		return relay.Outcome{Err: context.Cause(ctx)}
	}
	return s.origin.Follow(ctx, from, sink)
}

// An acceptor is the sink of a catch-up that has several sources in turn.
type acceptor struct {
	relay.Sink
	accepted bool
}

// Accept implements relay.Sink.
func (a *acceptor) Accept(o relay.Opening) (tell func()) {
	if a.accepted {
		return nil
	}
	a.accepted = true
	return a.Sink.Accept(o)
}

// A question is a request to the holder, as the node sees it that makes it.
type question struct {
	source *source
	from   relay.Resumption
	sink   *acceptor
	parts  assembler

	inbox string
	got   int // messages, besides those that only say that there will be more
}

// answerTime is how long the holder may take to say that it asks the origin, as a divisor of a
// lease. After that, the node asks the origin itself.
const answerTime = 4

var (
	errHolderSilent = errors.New("the holder of the lease has fallen silent in a catch-up")
	errHolderLost   = errors.New("messages of a catch-up are lost on their way from the holder of the lease")
)

// run gives the sink what the holder sends. It reports false if the holder does not: then the
// sink was given nothing.
func (q *question) run(ctx context.Context) (out relay.Outcome, ok bool) {
	conn, lease := q.source.fleet.store.conn, q.source.fleet.store.settings.Lease
	q.inbox = conn.NewInbox()
	answers := make(chan *nats.Msg, 2*errandWindow)
	sub, err := conn.ChanSubscribe(q.inbox, answers)
	if err != nil {
		return out, false
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := q.send(false); err != nil {
		return out, false
	}
	defer func() { _ = q.send(true) }()
	again := time.NewTicker(lease / 4)
	defer again.Stop()
	silent := time.NewTimer(lease / answerTime)
	defer silent.Stop()
	for {
		select {
		case <-ctx.Done():
			return relay.Outcome{Err: context.Cause(ctx)}, true
		case <-again.C:
			err = q.send(false)
		case <-silent.C:
			err = errHolderSilent
		case msg := <-answers:
			silent.Reset(lease)
			var over bool
			if out, over, err = q.take(msg); over {
				return out, true
			}
			if len(answers) == 0 && q.got > 0 {
				q.sink.Flush()
			}
		}
		if err != nil {
			return relay.Outcome{Verdict: relay.Stream, Err: err}, q.got > 0
		}
	}
}

// send asks for more, or for nothing more.
func (q *question) send(over bool) error {
	body, err := json.Marshal(request{ID: q.from.ID, Param: q.from.Param, Got: q.got, Over: over})
	if err == nil {
		err = q.source.fleet.store.conn.PublishRequest(catchups(q.source.subject), q.inbox, body)
	}
	if err != nil {
		return fmt.Errorf("asking the holder of the lease for a catch-up: %w", err)
	}
	return nil
}

// take takes a message of the holder.
func (q *question) take(msg *nats.Msg) (out relay.Outcome, over bool, err error) {
	m, err := decodeMessage(msg.Header, msg.Data)
	switch {
	case err != nil: // or nobody listens for requests
		return out, false, err
	case m.index != firstIndex+uint64(q.got):
		return out, false, errHolderLost
	case m.kind == kindAsked: // nothing has come since
		return out, false, nil
	}
	if q.got++; q.got%(errandWindow/2) == 0 {
		if err := q.send(false); err != nil {
			return out, false, err
		}
	}
	switch m.kind {
	case kindOpened:
		var o opening
		if o, err = decodeOpening(m.body); err == nil {
			if tell := q.sink.Accept(relay.Opening{Header: o.Header, Address: o.Address}); tell != nil {
				tell()
			}
		}
	case kindEvent:
		err = q.event(&m)
	case kindEnded:
		out, err = decodeOutcome(m.body)
		over = err == nil
	default:
	}
	return out, over, err
}

func (q *question) event(m *message) error {
	body, err := q.parts.add(m)
	if err != nil || body == nil {
		return err
	}
	e, err := decodeEvent(body)
	if err != nil {
		return err
	}
	q.sink.Heard()
	q.sink.Event(&e)
	return nil
}
