package ssefanout

import (
	"net/http"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// What other handlers of a client's request, and its line in the access log, get
// to know of us. Handler's documentation has the placeholders.

const placeholderPrefix = "http.sse_fanout."

// What becomes of a request that is not served as a subscriber; a relay.Joining is
// what becomes of one that is.
const (
	outcomePassed   = "passed"
	outcomeRejected = "rejected"
	outcomeRefused  = "refused"

	// The request was for a stream of a connection of sse_multiplex, which goes on with it.
	outcomeMultiplexed = "multiplexed"
)

// reasonHandedOver is why a request has ended whose connection was handed over: its
// stream goes on, and nobody can say yet how it will end.
const reasonHandedOver = "handed_over"

// accessLogKey is the field of the access log that has the rest as its fields:
// other handlers have topics, events and reasons too.
const accessLogKey = "sse_fanout"

// describeTopic tells which topic r has joined.
func describeTopic(r *http.Request, t *relay.Topic) {
	repl := replacerOf(r)
	repl.Set(placeholderPrefix+"topic", t.Name())
	repl.Set(placeholderPrefix+"topic.id", topicIDOf(t))
}

// describe tells what has become of r, and why.
func describe(r *http.Request, outcome, reason string) {
	repl := replacerOf(r)
	repl.Set(placeholderPrefix+"outcome", outcome)
	repl.Set(placeholderPrefix+"reason", reason)
	if outcome == outcomePassed {
		return // another handler's request now: its line stays as it was
	}
	fields := []zap.Field{zap.String("outcome", outcome), zap.String("reason", reason)}
	if name, ok := repl.GetString(placeholderPrefix + "topic"); ok {
		fields = append(fields, zap.String("topic", name))
	}
	extendAccessLog(r, fields)
}

// describeEnd tells how a subscriber was served for as long as its request lasted.
func describeEnd(r *http.Request, s *relay.Reader, reason string) {
	outcome := s.Outcome().String()
	events, bytes := s.Delivered()
	repl := replacerOf(r)
	repl.Set(placeholderPrefix+"outcome", outcome)
	repl.Set(placeholderPrefix+"reason", reason)
	repl.Set(placeholderPrefix+"events", events)
	repl.Set(placeholderPrefix+"bytes", bytes)
	extendAccessLog(r, []zap.Field{
		zap.String("outcome", outcome),
		zap.String("reason", reason),
		zap.String("topic", s.Topic().Name()),
		zap.Uint64("events", events),
		zap.Uint64("bytes", bytes),
	})
}

func extendAccessLog(r *http.Request, fields []zap.Field) {
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Set(zap.Dict(accessLogKey, fields...))
	}
}

func replacerOf(r *http.Request) *caddy.Replacer {
	repl, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	return repl
}
