package observe

import (
	"net/http"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
	"github.com/sse-fanout/caddy-sse-fanout/internal/view"
)

// What other handlers of a client's request, and its line in the access log, get
// to know of us. Handler's documentation has the placeholders.

const placeholderPrefix = "http.sse_fanout."

// What becomes of a request that is not served as a subscriber; a relay.Joining is
// what becomes of one that is.
const (
	OutcomePassed   = "passed"
	OutcomeRejected = "rejected"
	OutcomeRefused  = "refused"
)

// ReasonHandedOver is why a request has ended whose connection was handed over: its
// stream goes on, and nobody can say yet how it will end.
const ReasonHandedOver = "handed_over"

// accessLogKey is the field of the access log that has the rest as its fields:
// other handlers have topics, events and reasons too.
const accessLogKey = "sse_fanout"

// DescribeTopic tells which topic r has joined.
func DescribeTopic(r *http.Request, t *relay.Topic) {
	repl := request.ReplacerOf(r)
	repl.Set(placeholderPrefix+"topic", t.Name())
	repl.Set(placeholderPrefix+"topic.id", view.TopicID(t))
}

// Describe tells what has become of r, and why.
func Describe(r *http.Request, outcome, reason string) {
	repl := request.ReplacerOf(r)
	repl.Set(placeholderPrefix+"outcome", outcome)
	repl.Set(placeholderPrefix+"reason", reason)
	if outcome == OutcomePassed {
		return // another handler's request now: its line stays as it was
	}
	fields := []zap.Field{zap.String("outcome", outcome), zap.String("reason", reason)}
	if name, ok := repl.GetString(placeholderPrefix + "topic"); ok {
		fields = append(fields, zap.String("topic", name))
	}
	extendAccessLog(r, fields)
}

// DescribeEnd tells how a subscriber was served for as long as its request lasted.
func DescribeEnd(r *http.Request, s *relay.Reader, reason string) {
	outcome := s.Outcome().String()
	events, bytes := s.Delivered()
	repl := request.ReplacerOf(r)
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
